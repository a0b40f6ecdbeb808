import type { Backend, Upstream } from '../backend/backend.ts'
import type { Metrics } from '../control/metrics.ts'
import { type GateClock, SYSTEM_CLOCK } from './gate.ts'
import type { Attempted, ShieldOutcome } from './shield-outcomes.ts'
import { type Pacer, type ShieldedOptions, ShieldedUpstream } from './shielded-upstream.ts'

/** What the settings of a backend say. */
export interface ShieldSettings {
  readonly holdMs: number
  readonly bufferBytes: number
  readonly resumesPerSecond: number
}

export interface ShieldOptions {
  readonly name: string
  readonly settings: ShieldSettings
  readonly clock: GateClock
  /** 0 ≤ x < 1. */
  readonly random: () => number
  /** Aborted, nobody is held any more. */
  readonly closing: AbortSignal
  /** The backend is, and will not be opened again. */
  isClosed(): boolean
  /** How many are held, one more or one less. */
  counted(delta: 1 | -1): void
  ended(outcome: ShieldOutcome): void
  readonly log: ShieldLog
}

export interface ShieldLog {
  info(fields: object, text: string): void
  warn(fields: object, text: string): void
}

export type Guarded = Omit<ShieldedOptions, 'pacer' | 'bufferBytes' | 'answerTimeoutMs'>

/** Until then it shows who else was lost, and a broker that was restarted listens. */
const EVIDENCE_MS = 250
/** A loss is an outage of the server when it takes so many of its sessions, or at least two. */
const OUTAGE_SHARE = 0.05
/** Between two attempts while nobody has come back yet; doubles. Up to half of each is left to chance. */
const REST_MS = 250
const MAX_REST_MS = 1_000
/** For the CONNACK of a session that comes back; the next attempt waits for it. */
const ANSWER_TIMEOUT_MS = 5_000
/** When nobody who is held may come back yet. */
const LOOK_AGAIN_MS = 100

interface Server {
  live: number
  /** Sessions lost since then. */
  lost: number
  sinceMs: number
}

/**
 * Everybody of one backend in one process whose broker is away. They come back at a pace: one alone until the broker has
 * taken it, then so many a second, so that the broker does not go down again under those that waited for it. Which server
 * they come to is the balancer's to say, as ever.
 */
export class Shield implements Pacer {
  readonly #options: ShieldOptions
  /** By peer: as many as there are servers. */
  readonly #servers = new Map<string, Server>()
  /** In the order of their coming, with what calls off their end. */
  readonly #held = new Map<ShieldedUpstream, () => void>()
  readonly #attempting = new Set<ShieldedUpstream>()
  #isUp = false
  #restMs = REST_MS
  #callOff: (() => void) | null = null
  /** Of this outage, for the log. */
  #sinceMs = 0
  #resumed = 0
  #closed = 0

  constructor(options: ShieldOptions) {
    this.#options = options
  }

  get isClosing(): boolean {
    return this.#options.closing.aborted || this.#options.isClosed()
  }

  guard(upstream: Upstream, guarded: Guarded): ShieldedUpstream {
    const { bufferBytes } = this.#options.settings
    return new ShieldedUpstream(upstream, {
      ...guarded,
      pacer: this,
      bufferBytes,
      answerTimeoutMs: ANSWER_TIMEOUT_MS,
    })
  }

  now(): number {
    return this.#options.clock.now()
  }

  arrived(peer: string): void {
    this.#server(peer).live++
  }

  departed(peer: string): void {
    this.#server(peer).live--
  }

  lost(peer: string): void {
    const server = this.#server(peer)
    server.live--
    if (this.now() - server.sinceMs > 2 * EVIDENCE_MS) {
      server.sinceMs = this.now()
      server.lost = 0
    }
    server.lost++
  }

  held(session: ShieldedUpstream): void {
    const { clock, settings, name, log } = this.#options
    if (this.#held.size === 0) {
      this.#sinceMs = this.now()
      this.#resumed = 0
      this.#closed = 0
      log.warn({ backend: name, upstream: session.peer }, 'the broker is away; its sessions are held')
    }
    this.#options.counted(1)
    const { peer } = session
    const callOffJudging = clock.after(EVIDENCE_MS, () => {
      if (this.#isAlone(peer)) session.giveUp('alone')
    })
    const callOffEnd = clock.after(settings.holdMs, () => session.giveUp('expired'))
    this.#held.set(session, () => {
      callOffJudging()
      callOffEnd()
    })
    if (this.#held.size === 1) {
      this.#isUp = false
      this.#restMs = REST_MS
    }
    this.#schedule(EVIDENCE_MS + this.#chance(EVIDENCE_MS))
  }

  over(session: ShieldedUpstream, outcome: ShieldOutcome): void {
    const callOff = this.#held.get(session)
    if (callOff === undefined) return
    callOff()
    this.#held.delete(session)
    this.#options.counted(-1)
    this.#options.ended(outcome)
    if (outcome === 'resumed') this.#resumed++
    else this.#closed++
    if (this.#held.size > 0) return
    this.#callOff?.()
    this.#callOff = null
    const seconds = Math.round(this.now() - this.#sinceMs) / 1_000
    const { name, log } = this.#options
    log.info({ backend: name, resumed: this.#resumed, closed: this.#closed, seconds }, 'no session is held any more')
  }

  notHeld(outcome: ShieldOutcome): void {
    this.#options.ended(outcome)
  }

  /** One of many on a server that goes on with the others: it was meant, as a client that is thrown out is. */
  #isAlone(peer: string): boolean {
    const { live, lost } = this.#server(peer)
    return live > 0 && lost < Math.max(2, OUTAGE_SHARE * (live + lost))
  }

  #server(peer: string): Server {
    let server = this.#servers.get(peer)
    if (server === undefined) {
      server = { live: 0, lost: 0, sinceMs: Number.NEGATIVE_INFINITY }
      this.#servers.set(peer, server)
    }
    return server
  }

  #chance(ms: number): number {
    return this.#options.random() * ms
  }

  #schedule(ms: number): void {
    this.#callOff ??= this.#options.clock.after(ms, () => {
      this.#callOff = null
      this.#next()
    })
  }

  /** Somebody's turn, if it is anybody's. */
  #next(): void {
    if (this.#options.isClosed()) for (const session of [...this.#held.keys()]) session.giveUp('ended')
    if (this.#held.size === 0 || this.isClosing) return
    // Until one has come back, the next waits for what becomes of it.
    if (!this.#isUp && this.#attempting.size > 0) return
    const session = this.#whoseTurn()
    if (session === null) {
      this.#schedule(LOOK_AGAIN_MS)
      return
    }
    this.#attempting.add(session)
    session.attempt().then((attempted) => this.#attempted(session, attempted))
    const { resumesPerSecond } = this.#options.settings
    if (this.#isUp) this.#schedule((1_000 / resumesPerSecond) * (0.5 + this.#chance(1)))
  }

  #whoseTurn(): ShieldedUpstream | null {
    const { resumesPerSecond } = this.#options.settings
    // Answers that do not come are a broker that has enough to do.
    if (this.#attempting.size >= Math.max(1, resumesPerSecond)) return null
    for (const session of this.#held.keys()) if (session.isReady && !this.#attempting.has(session)) return session
    return null
  }

  #attempted(session: ShieldedUpstream, attempted: Attempted): void {
    this.#attempting.delete(session)
    if (attempted === 'later') {
      this.#isUp = false
      // Others first: whatever it was, it may be this session's alone.
      const callOff = this.#held.get(session)
      if (callOff !== undefined) {
        this.#held.delete(session)
        this.#held.set(session, callOff)
      }
      const restMs = this.#restMs
      this.#restMs = Math.min(MAX_REST_MS, 2 * restMs)
      this.#schedule(restMs / 2 + this.#chance(restMs / 2))
      return
    }
    if (attempted !== 'ended') {
      this.#isUp = true
      this.#restMs = REST_MS
    }
    if (attempted !== 'resumed') session.giveUp(attempted)
    if (this.#held.size > 0) this.#schedule(1_000 / this.#options.settings.resumesPerSecond)
  }
}

export interface ShieldsOptions {
  readonly metrics: Pick<Metrics, 'shielded' | 'shieldOutcome'>
  readonly closing: AbortSignal
  readonly log: ShieldLog
}

/** The shield of each backend that has one, of whatever generation of the settings; it goes with its backend. */
export function shields({ metrics, closing, log }: ShieldsOptions): (backend: Backend) => Shield | null {
  const made = new WeakMap<Backend, Shield>()
  return (backend) => {
    const { name, outageShield } = backend
    if (outageShield === undefined || outageShield === null) return null
    let shield = made.get(backend)
    if (shield === undefined) {
      shield = new Shield({
        name,
        settings: outageShield,
        clock: SYSTEM_CLOCK,
        random: Math.random,
        closing,
        isClosed: () => backend.outageShield == null,
        counted: (delta) => metrics.shielded(name, delta),
        ended: (outcome) => metrics.shieldOutcome(name, outcome),
        log,
      })
      made.set(backend, shield)
    }
    return shield
  }
}
