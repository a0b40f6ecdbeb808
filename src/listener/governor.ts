import { Fifo } from '../collections/fifo.ts'
import { type Link, Ring } from '../collections/ring.ts'
import type { AcceptedSocket } from '../connection.ts'
import type { AdmissionCounters, AdmissionRefusal } from '../control/admission-metrics.ts'
import { ProxyError } from '../errors.ts'
import { type Budget, type HandshakeKind, Lane, type Visit } from './lane.ts'
import { type Place, Places } from './places.ts'
import type { Sharer } from './shares.ts'
import { Attention } from './waiting.ts'

export type { HandshakeKind, Visit } from './lane.ts'

/** Everything counts for one process. Durations are milliseconds. */
export interface GovernorSettings {
  readonly full: Budget
  readonly resumed: Budget
  readonly queue: { readonly size: number; readonly timeout: number }
  readonly perAddress: {
    readonly connections: number | null
    readonly inFlight: number | null
    /** An IPv6 address counts as its network of so many bits. */
    readonly ipv6Prefix: number
  }
}

export interface GovernorOptions {
  readonly settings: GovernorSettings
  readonly counters: AdmissionCounters
  /** Told how long those who had to wait did, in seconds. */
  waited(seconds: number): void
  /** Monotonic, in milliseconds. */
  readonly now?: () => number
  /** Runs it once the event loop has looked at its sockets. */
  readonly soon?: (work: () => void) => void
  readonly after?: (work: () => void, ms: number) => { cancel(): void }
}

export interface Entry {
  readonly visit: Visit
  readonly kind: HandshakeKind
  readonly tenant: string
  readonly socket: AcceptedSocket
  /** It is of no use to begin later; on the clock of `now`. */
  readonly deadline: number
}

interface Waiter extends Entry, Sharer {
  readonly since: number
  /** In the line of all; null once it waits no longer. */
  inLine: Link<Waiter> | null
  /** Null: nobody listens to its device yet. */
  attention: Attention | null
  readonly begin: () => void
  readonly refuse: (error: ProxyError) => void
}

/**
 * Handshakes that begin in one turn of the event loop. What live sessions have sent is read between two turns, so they wait
 * for these and for what the same number of devices does next. One is half a millisecond; an empty turn costs some
 * microseconds, so that more at once is not cheaper (`npm run bench -- storm`).
 */
export const STARTS_PER_TURN = 1
/** A device that waits for longer is listened to, so that it is noticed when it leaves. Most wait for a turn or two. */
export const LISTENED_TO_AFTER_MS = 50

/**
 * Decides when a handshake may begin: after the hello is known and before any key work. Separate budgets for full and
 * resumed handshakes, a bounded queue with a deadline, turns for tenants and addresses, and a few starts per turn of the
 * event loop so that live sessions come in between. One timer for all, and none while nobody waits.
 */
export class Governor {
  readonly #options: GovernorOptions
  readonly #now: () => number
  readonly #places: Places
  readonly #lanes: Readonly<Record<HandshakeKind, Lane<Waiter>>>
  /** All who wait, the oldest first. */
  readonly #line = new Ring<Waiter>()
  /** Those whose devices nobody listens to yet, the oldest first; some wait no longer. */
  readonly #unheard = new Fifo<Waiter>()
  #settings: GovernorSettings
  #trickle: number | null = null
  #starts = 0
  #turning = false
  #resumedFirst = false
  #timer: { cancel(): void } | null = null
  #timerAt = Number.POSITIVE_INFINITY

  constructor(options: GovernorOptions) {
    this.#options = options
    this.#now = options.now ?? (() => performance.now())
    this.#settings = options.settings
    this.#places = new Places(options.settings.perAddress.ipv6Prefix)
    const now = this.#now()
    this.#lanes = {
      full: new Lane(options.settings.full, now),
      resumed: new Lane(options.settings.resumed, now),
    }
  }

  /** A connection is here. @throws {ProxyError} ERR_ADDRESS_CONNECTIONS */
  arrive(address: string): Visit {
    const place = this.#places.enter(address)
    const { connections } = this.#settings.perAddress
    if (connections !== null && place.connections > connections) {
      this.#places.leave(place)
      throw this.#refusal('ERR_ADDRESS_CONNECTIONS', 'address_connections', `more than ${connections} connections`)
    }
    return { place, kind: null, startedAt: 0, underWay: null, proved: false, gone: false }
  }

  /** The connection has ended, wherever it was. */
  leave(visit: Visit): void {
    if (visit.gone) return
    visit.gone = true
    // Whether it would have been one, nobody knows: the key exchange of a lie is done by then.
    if (visit.kind === 'resumed') this.#charge()
    this.#settle(visit)
    if (visit.proved) visit.place.proved--
    this.#places.leave(visit.place)
  }

  /** Somebody is known here: its address is not one from which only strangers come. */
  prove(visit: Visit): void {
    if (visit.proved || visit.gone) return
    visit.proved = true
    visit.place.proved++
  }

  /**
   * Null: it may begin at once. Otherwise resolves when it may.
   * Rejects with ERR_HANDSHAKE_QUEUE, ERR_HANDSHAKE_WAIT, ERR_HANDSHAKE_FAILED where the device has left, or with what
   * `stop` was told.
   */
  enter(entry: Entry): Promise<void> | null {
    const now = this.#now()
    if (
      this.#lanes[entry.kind].shares.size === 0 &&
      this.#mayStart(entry.kind, now) &&
      this.#hasRoom(entry.visit.place)
    ) {
      this.#start(entry.visit, entry.kind, now)
      return null
    }
    return this.#wait(entry, now)
  }

  /** TLS is up. What was claimed is compared with what came: a false claim is paid for. */
  secured(visit: Visit, resumed: boolean): void {
    const claimed = visit.kind
    this.#settle(visit)
    if (claimed === 'resumed' && !resumed) this.#charge()
  }

  /** A claim that came to nothing was a full handshake. */
  #charge(): void {
    this.#options.counters.falseClaims++
    this.#lanes.full.bucket.owe(this.#now())
  }

  /** So few full handshakes a second, whatever the budget says; null: as the budget says. */
  trickle(perSecond: number | null): void {
    this.#trickle = perSecond
    this.#applyBudgets()
  }

  /** Other numbers from now on; whoever waits goes on waiting. */
  configure(settings: GovernorSettings): void {
    this.#settings = settings
    this.#places.ipv6Prefix = settings.perAddress.ipv6Prefix
    this.#applyBudgets()
  }

  /** Nobody who waits will be let in any more. */
  stop(error: ProxyError): void {
    for (const waiter of this.#line) this.#refuse(waiter, error)
  }

  get waiting(): number {
    return this.#line.size
  }

  #applyBudgets(): void {
    const { full, resumed } = this.#settings
    const now = this.#now()
    const perSecond = this.#trickle === null ? full.perSecond : Math.min(this.#trickle, full.perSecond ?? this.#trickle)
    this.#lanes.full.configure({ ...full, perSecond }, now)
    this.#lanes.resumed.configure(resumed, now)
    this.#pump()
  }

  #hasRoom(place: Place): boolean {
    const { inFlight } = this.#settings.perAddress
    return inFlight === null || place.inFlight < inFlight
  }

  #mayStart(kind: HandshakeKind, now: number): boolean {
    if (this.#starts >= STARTS_PER_TURN) return false
    const lane = this.#lanes[kind]
    for (const visit of lane.silent(now)) {
      visit.place.inFlight--
      this.#options.counters.inFlight[kind] = lane.underWay.size
    }
    return lane.hasRoom(now)
  }

  #start(visit: Visit, kind: HandshakeKind, now: number): void {
    const lane = this.#lanes[kind]
    lane.begin(visit, now)
    visit.kind = kind
    visit.startedAt = now
    visit.place.inFlight++
    this.#options.counters.started[kind]++
    this.#options.counters.inFlight[kind] = lane.underWay.size
    this.#starts++
    this.#nextTurn()
  }

  /** It is no longer under way. */
  #settle(visit: Visit): void {
    const { kind } = visit
    if (kind === null) return
    visit.kind = null
    if (!this.#lanes[kind].end(visit)) return
    visit.place.inFlight--
    this.#options.counters.inFlight[kind] = this.#lanes[kind].underWay.size
    if (this.#line.size > 0) this.#pump()
  }

  #nextTurn(): void {
    if (this.#turning) return
    this.#turning = true
    const { soon = setImmediate } = this.#options
    soon(() => {
      this.#turning = false
      this.#starts = 0
      if (this.#line.size > 0) this.#pump()
    })
  }

  #wait(entry: Entry, now: number): Promise<void> {
    const { queue } = this.#settings
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    // The oldest of whoever has most makes room; it may be this one's own crowd.
    if (this.#line.size >= queue.size) {
      const { full, resumed } = this.#lanes
      const crowd = (full.shares.size >= resumed.shares.size ? full : resumed).shares.heaviest()
      if (crowd === null) return Promise.reject(this.#full())
      this.#refuse(crowd, this.#full())
    }
    const waiter: Waiter = {
      ...entry,
      address: entry.visit.place.key,
      since: now,
      deadline: Math.min(entry.deadline, now + queue.timeout),
      inLine: null,
      place: null,
      attention: null,
      begin: resolve,
      refuse: reject,
    }
    waiter.inLine = this.#line.add(waiter)
    this.#unheard.push(waiter)
    this.#lanes[entry.kind].shares.add(waiter)
    this.#options.counters.queued = this.#line.size
    this.#pump()
    return promise
  }

  /** @returns when the next one is to be listened to; infinity for nobody */
  #listen(now: number): number {
    for (let waiter = this.#unheard.first; waiter !== undefined; waiter = this.#unheard.first) {
      const at = waiter.since + LISTENED_TO_AFTER_MS
      const waits = waiter.inLine !== null
      if (waits && now < at) return at
      this.#unheard.shift()
      if (waits) this.#attend(waiter)
    }
    return Number.POSITIVE_INFINITY
  }

  #attend(waiter: Waiter): void {
    const left = (): void =>
      this.#refuse(waiter, new ProxyError('ERR_HANDSHAKE_FAILED', 'the device left while it waited for its handshake'))
    if (waiter.socket.destroyed === true || waiter.socket.readableEnded === true) left()
    else waiter.attention = new Attention(waiter.socket, left)
  }

  #full(): ProxyError {
    return this.#refusal(
      'ERR_HANDSHAKE_QUEUE',
      'handshake_queue',
      `${this.#settings.queue.size} handshakes wait already`,
    )
  }

  #refusal(
    code: 'ERR_ADDRESS_CONNECTIONS' | 'ERR_HANDSHAKE_QUEUE' | 'ERR_HANDSHAKE_WAIT',
    reason: AdmissionRefusal,
    detail: string,
  ): ProxyError {
    this.#options.counters.refused[reason]++
    return new ProxyError(code, detail)
  }

  /** Begins as many as may, one after the other's turn; then sees to it that somebody looks again in time. */
  #pump(): void {
    const now = this.#now()
    for (;;) {
      const waiter = this.#next(now)
      if (waiter === null) break
      this.#forget(waiter)
      if (now >= waiter.deadline) {
        this.#late(waiter, now)
        continue
      }
      this.#options.waited((now - waiter.since) / 1_000)
      this.#start(waiter.visit, waiter.kind, now)
      waiter.begin()
    }
    this.#arm(now)
  }

  #next(now: number): Waiter | null {
    const kinds: readonly HandshakeKind[] = this.#resumedFirst ? ['resumed', 'full'] : ['full', 'resumed']
    for (const kind of kinds) {
      if (!this.#mayStart(kind, now)) continue
      const waiter = this.#lanes[kind].shares.next((each) => this.#hasRoom(each.visit.place))
      if (waiter === null) continue
      this.#resumedFirst = kind === 'full'
      return waiter
    }
    return null
  }

  #late(waiter: Waiter, now: number): void {
    const waitedMs = Math.round(now - waiter.since)
    waiter.refuse(this.#refusal('ERR_HANDSHAKE_WAIT', 'handshake_wait', `waited ${waitedMs} ms for its handshake`))
  }

  #refuse(waiter: Waiter, error: ProxyError): void {
    if (waiter.inLine === null) return
    this.#lanes[waiter.kind].shares.remove(waiter)
    this.#forget(waiter)
    waiter.refuse(error)
  }

  /** It waits no longer, and its socket is as it was. */
  #forget(waiter: Waiter): void {
    if (waiter.inLine !== null) this.#line.remove(waiter.inLine)
    waiter.inLine = null
    this.#options.counters.queued = this.#line.size
    waiter.attention?.over()
  }

  /** The one timer: when the first is late, or a budget may have room again, whichever comes first. */
  #arm(now: number): void {
    const oldest = this.#line.first
    if (oldest === undefined) {
      this.#unheard.clear()
      this.#disarm()
      return
    }
    let at = Math.min(oldest.deadline, this.#listen(now))
    for (const lane of Object.values(this.#lanes)) {
      // A turn that is used up looks again by itself.
      if (lane.shares.size > 0 && !(this.#turning && lane.hasRoom(now))) at = Math.min(at, lane.roomAt(now))
    }
    // One that comes too early looks, and arms again.
    if (this.#timer !== null && this.#timerAt <= at) return
    this.#disarm()
    this.#timerAt = at
    this.#timer = (this.#options.after ?? timer)(() => this.#wake(), Math.max(1, Math.ceil(at - now)))
  }

  #disarm(): void {
    this.#timer?.cancel()
    this.#timer = null
    this.#timerAt = Number.POSITIVE_INFINITY
  }

  #wake(): void {
    this.#timer = null
    this.#timerAt = Number.POSITIVE_INFINITY
    const now = this.#now()
    for (let waiter = this.#line.first; waiter !== undefined; waiter = this.#line.first) {
      if (now < waiter.deadline) break
      this.#lanes[waiter.kind].shares.remove(waiter)
      this.#forget(waiter)
      this.#late(waiter, now)
    }
    this.#pump()
  }
}

function timer(work: () => void, ms: number): { cancel(): void } {
  const handle = setTimeout(work, ms)
  return { cancel: () => clearTimeout(handle) }
}
