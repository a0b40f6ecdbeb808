import { hostname } from 'node:os'
import { type Link, Ring } from '../collections/ring.ts'
import { asProxyError, ProxyError } from '../errors.ts'
import type { Message, Origin } from './message.ts'
import { canceled, type Lane, type MqttLevel, openLane } from './publish-lane.ts'
import type { Publisher, PublisherOptions } from './publisher.ts'

interface Entry {
  readonly message: Message
  /** User properties of ours are in it, which takes MQTT 5. */
  readonly isTold: boolean
  readonly bytes: number
  readonly resolve: () => void
  readonly reject: (error: ProxyError) => void
  /** Set while it is in flight. */
  lane: Lane | null
  /** Set while it waits. */
  queued: Link<Entry> | null
  /** Nobody waits for it any more, while it still takes its place on the lane. */
  abandoned: boolean
}

/** With so many in flight on every connection another one is opened. */
const BUSY_MESSAGES = 32
/** Payload bytes in flight on one connection, beyond which it gets no more. */
const MAX_LANE_BYTES = 4_194_304
/** Payload bytes that wait, all in all. */
const MAX_QUEUED_BYTES = 16_777_216
/** After a failed attempt nobody tries for so long; doubles with each further one. Up to half of it is left to chance. */
const REST_MS = 200
const MAX_REST_MS = 5_000
const IDLE_MS = 300_000
const CONNACK_TIMEOUT_MS = 10_000
/** A broker that refused MQTT 5 may have been replaced since. */
const LEVEL_4_MS = 600_000

/** Of all pools of this process: two generations of the settings may have a pool each for a while. */
let lastNumber = 0

/** Unique among processes; what a broker may not take in a client id (MQTT 3.1.1 §3.1.3.1) is left out. */
function nextClientId(): string {
  lastNumber++
  const host = hostname().replace(/[^0-9A-Za-z]+/g, '-')
  return `brokergate-${host.slice(0, 32)}-${process.pid}-${lastNumber}`
}

/**
 * A small pool of long-lived MQTT connections to one backend, opened when there is something to send. Bounded in every
 * direction: connections, messages and bytes in flight, messages and bytes that wait, and the time of each.
 */
export class Pool implements Publisher {
  readonly #options: PublisherOptions
  readonly #now: () => number
  readonly #random: () => number
  readonly #timer: NonNullable<PublisherOptions['timer']>
  readonly #lanes = new Set<Lane>()
  /** In the order of their coming. */
  readonly #queue = new Ring<Entry>()
  readonly #closing = new AbortController()
  #queuedBytes = 0
  #underWay = 0
  #dialing = 0
  #failures = 0
  #restsUntilMs = Number.NEGATIVE_INFINITY
  #lastFailure = new ProxyError('ERR_BACKEND_REFUSED', 'no attempt yet')
  #level: MqttLevel = 5
  #levelSinceMs = 0
  #idleTimer: NodeJS.Timeout | null = null
  #drained: (() => void) | null = null
  #closed: Promise<void> | null = null
  /** Nothing more is sent on these; they end when they are answered. */
  readonly #leaving = new Set<Lane>()
  readonly #forget: () => void

  constructor(options: PublisherOptions) {
    this.#options = options
    this.#now = options.now ?? (() => performance.now())
    this.#random = options.random ?? Math.random
    this.#timer = options.timer ?? startTimer
    this.#forget = options.drained?.onChange(() => this.#leaveDrained()) ?? (() => {})
  }

  async publish(message: Message, signal: AbortSignal, origin: Origin | null = null): Promise<void> {
    if (this.#closed !== null) throw new ProxyError('ERR_DRAINING', 'no more publishes are taken')
    if (signal.aborted) throw canceled(signal)
    const complete = this.#withOrigin(message, origin)
    const bytes = message.payload.length
    if (this.#queue.size >= this.#options.queue || this.#queuedBytes + bytes > MAX_QUEUED_BYTES) {
      throw new ProxyError('ERR_PUBLISH_BUSY', `${this.#queue.size} publishes wait for backend ${this.#backend}`)
    }
    // The broker was away a moment ago: no reason to let a device wait for hearing it again.
    if (this.#lanes.size === 0 && this.#dialing === 0 && this.#isResting) throw this.#away()

    const { promise, resolve, reject } = Promise.withResolvers<void>()
    const isTold = complete !== message
    const entry: Entry = {
      message: complete,
      isTold,
      bytes,
      resolve,
      reject,
      lane: null,
      queued: null,
      abandoned: false,
    }
    const takeBack = this.#timer(this.#options.timeoutMs, () => this.#expire(entry))
    const onAbort = () => this.#abandon(entry, canceled(signal))
    signal.addEventListener('abort', onAbort, { once: true })
    this.#underWay++
    this.#enqueue(entry)
    this.#pump()
    try {
      await promise
    } finally {
      // An abandoned message keeps its deadline: the broker's silence must be noticed all the same.
      if (!entry.abandoned) takeBack()
      signal.removeEventListener('abort', onAbort)
      this.#underWay--
      if (this.#underWay === 0) this.#drained?.()
    }
  }

  close(): Promise<void> {
    this.#closed ??= this.#close()
    return this.#closed
  }

  async #close(): Promise<void> {
    if (this.#underWay > 0) {
      await new Promise<void>((resolve) => {
        this.#drained = resolve
      })
    }
    this.#forget()
    this.#closing.abort(new ProxyError('ERR_DRAINING', 'this process is shutting down'))
    if (this.#idleTimer !== null) clearInterval(this.#idleTimer)
    await Promise.all([...this.#lanes, ...this.#leaving].map((lane) => lane.end()))
  }

  #leaveDrained(): void {
    const { backend, drained } = this.#options
    for (const lane of this.#lanes) {
      if (drained?.has(backend.name, lane.peer) !== true) continue
      this.#lanes.delete(lane)
      this.#leaving.add(lane)
      this.#endAnswered(lane)
    }
    this.#pump()
  }

  #endAnswered(lane: Lane): void {
    if (this.#leaving.has(lane) && lane.inFlight === 0) void lane.end()
  }

  get #backend(): string {
    return this.#options.backend.name
  }

  get #isResting(): boolean {
    return this.#now() < this.#restsUntilMs
  }

  #away(): ProxyError {
    return new ProxyError(this.#lastFailure.code, this.#lastFailure.message, { cause: this.#lastFailure })
  }

  /** Who sent it, where the broker is told; a device must not be able to say so itself. */
  #withOrigin(message: Message, origin: Origin | null): Message {
    const { principalProperty, addressProperty } = this.#options
    const reserved = [principalProperty, addressProperty]
    if (message.userProperties.some(([name]) => reserved.includes(name))) {
      throw new ProxyError('ERR_REQUEST_INVALID', 'a user property of this name is set by the gateway')
    }
    if (origin === null) return message
    const told: (readonly [string, string])[] = []
    if (principalProperty !== null) told.push([principalProperty, origin.principal])
    if (addressProperty !== null) told.push([addressProperty, origin.address])
    return told.length === 0 ? message : { ...message, userProperties: [...message.userProperties, ...told] }
  }

  #enqueue(entry: Entry): void {
    entry.queued = this.#queue.add(entry)
    this.#queuedBytes += entry.bytes
  }

  #dequeue(entry: Entry): boolean {
    const { queued } = entry
    entry.queued = null
    if (queued === null || !this.#queue.remove(queued)) return false
    this.#queuedBytes -= entry.bytes
    return true
  }

  /** Sends what can be sent, and opens a connection where that would help. */
  #pump(): void {
    for (let entry = this.#queue.first; entry !== undefined; entry = this.#queue.first) {
      const lane = this.#roomiest()
      if (lane === null) break
      this.#dequeue(entry)
      this.#send(entry, lane)
    }
    const isBusy = this.#queue.size > 0 || [...this.#lanes].every((lane) => lane.inFlight >= BUSY_MESSAGES)
    const hasRoom = this.#lanes.size + this.#dialing < this.#options.connections
    // One attempt at a time until the broker has shown that it is there.
    const mayTry = this.#dialing === 0 && !this.#isResting && !this.#closing.signal.aborted
    if (isBusy && hasRoom && mayTry && this.#underWay > 0) void this.#dial()
    if (this.#lanes.size === 0 && this.#dialing === 0) this.#failQueued()
  }

  #roomiest(): Lane | null {
    let best: Lane | null = null
    for (const lane of this.#lanes) {
      if (lane.isOver || lane.inFlight >= lane.window || lane.bytesInFlight >= MAX_LANE_BYTES) continue
      if (best === null || lane.inFlight < best.inFlight) best = lane
    }
    return best
  }

  #send(entry: Entry, lane: Lane): void {
    if (entry.isTold && lane.version === 4) {
      const why = 'the broker speaks MQTT 3.1.1 only, and the settings want user properties'
      entry.reject(new ProxyError('ERR_BACKEND_PROTOCOL', why))
      return
    }
    entry.lane = lane
    lane.send(entry.message).then(
      () => this.#settle(entry, lane, null),
      (error: unknown) => this.#settle(entry, lane, asProxyError(error)),
    )
  }

  #settle(entry: Entry, lane: Lane, error: ProxyError | null): void {
    entry.lane = null
    this.#endAnswered(lane)
    if (error === null) entry.resolve()
    else entry.reject(error)
    this.#pump()
  }

  /** The device has gone: what waits is taken back, what is in flight keeps its place until it is acknowledged. */
  #abandon(entry: Entry, error: ProxyError): void {
    entry.abandoned = !this.#dequeue(entry)
    entry.reject(error)
  }

  /**
   * Its time is over. A broker acknowledges in the order of sending (MQTT 5.0 §4.6), so one that has let a message wait
   * for so long has said nothing since: the connection is given up, and what else is on it fails at once.
   */
  #expire(entry: Entry): void {
    const { lane } = entry
    this.#dequeue(entry)
    entry.reject(new ProxyError('ERR_BACKEND_TIMEOUT', `backend ${this.#backend} did not take the publish in time`))
    lane?.destroy()
  }

  async #dial(): Promise<void> {
    this.#dialing++
    try {
      const lane = await this.#open()
      // A broker may say CONNACK and DISCONNECT in one breath, and `close` come before this line.
      if (lane.isOver) throw new ProxyError('ERR_BACKEND_LOST', 'the broker closed after its CONNACK')
      this.#failures = 0
      this.#restsUntilMs = Number.NEGATIVE_INFINITY
      this.#lanes.add(lane)
      this.#watchIdle()
      // It may have been begun before somebody said so.
      this.#leaveDrained()
    } catch (error) {
      this.#failed(asProxyError(error))
    } finally {
      this.#dialing--
    }
    this.#pump()
  }

  async #open(): Promise<Lane> {
    if (this.#level === 4 && this.#now() - this.#levelSinceMs > LEVEL_4_MS) this.#level = 5
    const opened = await this.#openAs(this.#level)
    if (opened !== null) return opened
    this.#level = 4
    this.#levelSinceMs = this.#now()
    const again = await this.#openAs(4)
    if (again === null) throw new ProxyError('ERR_BACKEND_PROTOCOL', 'the broker speaks neither MQTT 5 nor 3.1.1')
    return again
  }

  async #openAs(version: MqttLevel): Promise<Lane | null> {
    const { backend, username, password } = this.#options
    const opened = await openLane(
      {
        backend,
        username,
        password,
        version,
        clientId: nextClientId(),
        connackTimeoutMs: Math.min(CONNACK_TIMEOUT_MS, this.#options.timeoutMs),
        onEnd: (lane) => this.#ended(lane),
      },
      this.#closing.signal,
    )
    return opened.kind === 'lane' ? opened.lane : null
  }

  #failed(error: ProxyError): void {
    const restMs = Math.min(MAX_REST_MS, REST_MS * 2 ** this.#failures)
    this.#failures++
    this.#restsUntilMs = this.#now() + restMs * (1 - this.#random() / 2)
    this.#lastFailure = error
  }

  /** No connection, and none is being opened because the last attempt failed: whoever waits is told so. */
  #failQueued(): void {
    for (const entry of this.#queue) {
      this.#dequeue(entry)
      entry.reject(this.#away())
    }
  }

  #ended(lane: Lane): void {
    this.#lanes.delete(lane)
    this.#leaving.delete(lane)
    if (this.#lanes.size === 0 && this.#idleTimer !== null) {
      clearInterval(this.#idleTimer)
      this.#idleTimer = null
    }
    this.#pump()
  }

  #watchIdle(): void {
    const idleMs = this.#options.idleMs ?? IDLE_MS
    this.#idleTimer ??= setInterval(() => {
      const before = performance.now() - idleMs
      for (const lane of this.#lanes) {
        if (lane.inFlight > 0 || lane.usedAtMs > before) continue
        this.#lanes.delete(lane)
        void lane.end()
      }
    }, idleMs / 2)
    this.#idleTimer.unref()
  }
}

function startTimer(ms: number, fire: () => void): () => void {
  const timer = setTimeout(fire, ms)
  return () => clearTimeout(timer)
}
