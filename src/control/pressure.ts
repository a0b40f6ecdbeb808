import { statSync } from 'node:fs'
import type { AdmissionCounters, PressureReason } from './admission-metrics.ts'
import { PRESSURES } from './admission-metrics.ts'
import { descriptorLimit, openDescriptors } from './descriptors.ts'
import { memoryShare } from './memory.ts'

/** 0: all is well. 1: only few full handshakes begin. 2: no new connections. */
export type Stage = 0 | 1 | 2

interface Thresholds {
  readonly trickle: number
  readonly refuse: number
}

/** Lag in milliseconds, the others in percent. */
export interface PressureSettings {
  readonly lag: Thresholds & { readonly stall: number }
  /** `limit` in bytes of resident memory; null: of the control group, or of the machine. */
  readonly memory: Thresholds & { readonly limit: number | null }
  readonly descriptors: Thresholds
}

/** What is looked at, in percent. */
export interface Senses {
  memory(limit: number | null): number
  descriptors(): number
}

export interface PressureOptions {
  readonly settings: PressureSettings
  readonly counters: AdmissionCounters
  /** Told of every change. */
  readonly changed: (state: PressureState) => void
  readonly senses?: Senses
  /** Monotonic, in milliseconds. */
  readonly now?: () => number
}

export interface PressureState {
  readonly stage: Stage
  /** False also after a single stall: whoever balances load had better look elsewhere for a moment. */
  readonly ready: boolean
  /** What is short, the worst first. */
  readonly reasons: readonly PressureReason[]
}

const TICK_MS = 50
/** Lag counts as a mean whose memory fades with this time: one stall is no overload. */
const LAG_MEMORY_MS = 2_000
/** Memory and descriptors are looked at every so many ticks. */
const SLOW_TICKS = 10
/** A stage is left when its reason was clearly below it for so long. */
const HOLD_MS = 2_000
/** Clearly below: this part of the threshold. Lag falls to nothing when it falls; the others do not. */
const LEAVE_AT: Readonly<Record<PressureReason, number>> = { lag: 0.5, memory: 0.96, descriptors: 0.96 }

interface Gauge {
  stage: Stage
  /** Since when it has been clearly below its stage; null: it is not. */
  calmSince: number | null
}

/** Looks at this process and says when it should take on less; it comes back by itself. One timer, whatever the load. */
export class Pressure {
  readonly #options: PressureOptions
  readonly #now: () => number
  readonly #senses: Senses
  #timer: NodeJS.Timeout | null = null
  readonly #gauges: Readonly<Record<PressureReason, Gauge>> = {
    lag: { stage: 0, calmSince: null },
    memory: { stage: 0, calmSince: null },
    descriptors: { stage: 0, calmSince: null },
  }
  #meanLag = 0
  #settings: PressureSettings
  #due: number
  #ticks = 0
  #stalledUntil = 0
  #state: PressureState = { stage: 0, ready: true, reasons: [] }

  constructor(options: PressureOptions) {
    this.#options = options
    this.#settings = options.settings
    this.#now = options.now ?? (() => performance.now())
    this.#senses = options.senses ?? systemSenses()
    this.#due = this.#now() + TICK_MS
  }

  /** What came before, a process that starts for example, does not count. */
  begin(): void {
    this.#due = this.#now() + TICK_MS
    this.#timer ??= setInterval(() => this.tick(), TICK_MS).unref()
  }

  get state(): PressureState {
    return this.#state
  }

  configure(settings: PressureSettings): void {
    this.#settings = settings
  }

  stop(): void {
    if (this.#timer !== null) clearInterval(this.#timer)
    this.#timer = null
  }

  /** Called by the timer; by tests in its place. */
  tick(): void {
    const now = this.#now()
    const lag = Math.max(0, now - this.#due)
    this.#due = now + TICK_MS
    this.#meanLag += (lag - this.#meanLag) * (1 - Math.exp(-(TICK_MS + lag) / LAG_MEMORY_MS))
    const settings = this.#settings
    if (lag >= settings.lag.stall) this.#stalledUntil = now + HOLD_MS
    this.#judge('lag', this.#meanLag, settings.lag, now)
    if (this.#ticks++ % SLOW_TICKS === 0) {
      this.#judge('memory', this.#senses.memory(settings.memory.limit), settings.memory, now)
      this.#judge('descriptors', this.#senses.descriptors(), settings.descriptors, now)
    }
    this.#tell(now)
  }

  /** Up at once, down after a while and one stage at a time. */
  #judge(reason: PressureReason, value: number, { trickle, refuse }: Thresholds, now: number): void {
    const gauge = this.#gauges[reason]
    const stage: Stage = value >= refuse ? 2 : value >= trickle ? 1 : 0
    const calm = value < (gauge.stage === 2 ? refuse : trickle) * LEAVE_AT[reason]
    if (stage >= gauge.stage) {
      gauge.stage = stage
      gauge.calmSince = null
    } else if (!calm) {
      gauge.calmSince = null
    } else {
      gauge.calmSince ??= now
      if (now - gauge.calmSince < HOLD_MS) return
      gauge.stage = gauge.stage === 2 ? 1 : 0
      gauge.calmSince = null
    }
    this.#options.counters.shedding[reason] = gauge.stage
  }

  #tell(now: number): void {
    const short = PRESSURES.filter((reason) => this.#gauges[reason].stage > 0).sort(
      (left, right) => this.#gauges[right].stage - this.#gauges[left].stage,
    )
    const stage = short[0] === undefined ? 0 : this.#gauges[short[0]].stage
    const stalled = now < this.#stalledUntil
    const ready = stage < 2 && !stalled
    const reasons: readonly PressureReason[] = stalled && short.length === 0 ? ['lag'] : short
    const before = this.#state
    if (stage === before.stage && ready === before.ready && reasons.join() === before.reasons.join()) return
    this.#state = { stage, ready, reasons }
    this.#options.changed(this.#state)
  }
}

function systemSenses(): Senses {
  const limit = descriptorLimit()
  return {
    memory: (bytes) => memoryShare(bytes) * 100,
    descriptors: () => (limit === null ? 0 : (descriptorsNow() / limit) * 100),
  }
}

/** Linux tells their number as the size of the folder since 6.2; before, and elsewhere, the listing has to do. */
function descriptorsNow(): number {
  try {
    const { size } = statSync('/proc/self/fd')
    return size > 0 ? size : openDescriptors()
  } catch {
    return openDescriptors()
  }
}

/** For status and logs. */
export function describe({ stage, ready, reasons }: PressureState): string | null {
  if (stage === 0) return ready ? null : 'the event loop stood still'
  const what = stage === 2 ? 'no new connections' : 'few full handshakes'
  return `shedding: ${what}, short of ${reasons.map((reason) => WORDS[reason]).join(' and ')}`
}

const WORDS: Readonly<Record<PressureReason, string>> = {
  lag: 'time (event loop lag)',
  memory: 'memory',
  descriptors: 'descriptors',
}
