import type { FailureCode } from '../errors.ts'
import type { Parting } from '../mqtt/session-contract.ts'

/** Somebody who has to be told to go. */
export interface Leaving {
  /** How long it has not been heard, in seconds or so. */
  readonly silence: number
  /** Answers that are under way to it. */
  readonly owed: number
  /** It has left already. */
  readonly gone: boolean
  leave(parting: Parting): void
}

/** How many are left, and how many have been told, twice a second at most. */
export interface Progress {
  readonly remaining: number
  readonly told: number
}

export interface Clock {
  /** Milliseconds on a monotonic clock. */
  now(): number
  /** Resolves after so many milliseconds. */
  sleep(ms: number): Promise<void>
}

export const REAL_CLOCK: Clock = {
  now: () => performance.now(),
  sleep: (ms) => new Promise((resolve) => setTimeout(resolve, ms)),
}

export interface FarewellOptions {
  readonly code: FailureCode
  readonly serverReference: string | null
  readonly graceMs: number
  /** Farewells a second; null spreads them over the time there is. */
  readonly pacePerSecond: number | null
  /** Who is here now: asked again, because some may still be coming. */
  readonly here: () => Iterable<Leaving>
  /** Connections that have not ended, those of `here` and others. */
  readonly remaining: () => number
  /** No more farewells, and no more waiting. */
  readonly signal?: AbortSignal
  readonly progress?: (progress: Progress) => void
  readonly clock?: Clock
  /** 0 ≤ x < 1; `Math.random` unless told. */
  readonly random?: () => number
}

export interface FarewellResult {
  readonly told: number
  /** Still here when the time was over. */
  readonly left: number
}

/** Share of the grace period in which devices are told to go; the rest is for their last bytes. */
export const FAREWELL_SHARE = 0.8
/** For the answers that are under way to one device, at most, and of the grace period at most this share. */
const PATIENCE_MS = 2_000
const PATIENCE_SHARE = 0.1
/** Between two looks at who is left, in milliseconds. */
const LOOK_MS = 50
/** Between two words about how far it is, which take a look at everybody. */
const PROGRESS_MS = 500

/**
 * Tells everybody to go, one after the other, and waits until they have.
 *
 * - Who has been silent longest goes first. Whoever waits for an answer of the broker when its turn comes is passed
 *   over once and goes with the last.
 * - Farewells come at the pace, but never so slowly that somebody would not be told; each within its own part of the
 *   time at a random moment, so that devices do not come back in step.
 * - Who comes in meanwhile is told after the others.
 */
export async function farewell(options: FarewellOptions): Promise<FarewellResult> {
  const { graceMs, here, remaining, progress, clock = REAL_CLOCK, random = Math.random } = options
  const { code, serverReference } = options
  const startedAt = clock.now()
  const endsAt = startedAt + graceMs
  const lastAt = startedAt + graceMs * FAREWELL_SHARE
  const patienceMs = Math.min(PATIENCE_MS, graceMs * PATIENCE_SHARE)
  const line = new Line()
  const over = () => options.signal?.aborted === true
  let told = 0
  let saidAt = startedAt
  const say = () => {
    if (progress === undefined || clock.now() - saidAt < PROGRESS_MS) return
    saidAt = clock.now()
    progress({ remaining: remaining(), told })
  }
  /** When the next part of the time begins. */
  let partAt = startedAt

  line.join(here())
  progress?.({ remaining: remaining(), told })
  while (!over()) {
    const next = line.next()
    if (next === null) {
      if (line.join(here())) continue
      say()
      const leftMs = endsAt - clock.now()
      if (remaining() === 0 || leftMs <= 0) break
      await clock.sleep(Math.min(LOOK_MS, leftMs))
      continue
    }
    if (next.gone || line.passesOver(next)) continue
    const partMs = partOf(line.length + 1, Math.max(0, lastAt - partAt), options.pacePerSecond)
    const waitMs = partAt + random() * partMs - clock.now()
    partAt = Math.max(partAt + partMs, clock.now() - LATE_MS)
    if (waitMs >= 1) {
      say()
      await clock.sleep(waitMs)
      if (over()) break
    }
    if (next.gone || line.passesOver(next)) continue
    next.leave({ code, serverReference, patienceMs: Math.min(patienceMs, Math.max(0, endsAt - clock.now())) })
    told++
  }
  const left = remaining()
  progress?.({ remaining: left, told })
  return { told, left }
}

/** Of a farewell that is late, the next ones catch up no more than this, in milliseconds. */
const LATE_MS = 1_000

/** The time of one farewell, in milliseconds. */
function partOf(count: number, leftMs: number, pacePerSecond: number | null): number {
  const spread = leftMs / count
  return pacePerSecond === null ? spread : Math.min(spread, 1_000 / pacePerSecond)
}

/** Everybody once, in the order of their going. */
class Line {
  readonly #seen = new WeakSet<Leaving>()
  /** The next one is the last of them. */
  #first: Leaving[] = []
  /** Those that were passed over; a set keeps their order. */
  readonly #later = new Set<Leaving>()
  readonly #deferred = new WeakSet<Leaving>()

  get length(): number {
    return this.#first.length + this.#later.size
  }

  /** True when somebody was new. */
  join(everybody: Iterable<Leaving>): boolean {
    const fresh: Leaving[] = []
    for (const one of everybody) {
      if (this.#seen.has(one)) continue
      this.#seen.add(one)
      fresh.push(one)
    }
    // What they say of themselves changes while they are sorted no more than while they wait.
    const silence = new Map(fresh.map((one) => [one, one.owed > 0 ? -1 : one.silence]))
    fresh.sort((one, other) => silence.get(one)! - silence.get(other)!)
    this.#first = [...fresh, ...this.#first]
    return fresh.length > 0
  }

  next(): Leaving | null {
    const first = this.#first.pop()
    if (first !== undefined) return first
    for (const later of this.#later) {
      this.#later.delete(later)
      return later
    }
    return null
  }

  /** Its turn, and an answer is under way: once, it goes to the end. */
  passesOver(one: Leaving): boolean {
    if (one.owed === 0 || this.#deferred.has(one)) return false
    this.#deferred.add(one)
    this.#later.add(one)
    return true
  }
}
