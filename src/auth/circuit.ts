export interface CircuitOptions {
  /** Monotonic, in milliseconds. */
  readonly now: () => number
  /** In [0, 1). */
  readonly random: () => number
  /** Told when it opens and when it closes. */
  readonly changed: (open: boolean) => void
}

/** Faults in a row after which nobody is asked for a while. */
const FAULTS_TO_OPEN = 5
/** The first pause, and the longest; each is double the one before. */
const FIRST_PAUSE_MS = 1_000
const LONGEST_PAUSE_MS = 30_000
/** So much of a pause, at most, is added by chance: the workers of a fleet must not come back in one beat. */
const JITTER = 0.5

/**
 * Stops asking somebody who fails, so that devices are refused at once instead of after the deadline, and so that who
 * is down is not kept down by them. Once a pause is over, one question is let through; its answer decides.
 */
export class Circuit {
  readonly #options: CircuitOptions
  #faults = 0
  #pauseMs = FIRST_PAUSE_MS
  /** Null while it is closed. */
  #openUntil: number | null = null
  #probing = false

  constructor(options: CircuitOptions) {
    this.#options = options
  }

  get open(): boolean {
    return this.#openUntil !== null
  }

  /** Whether one may ask now. Whoever is told yes must tell one of `answered`, `failed` and `canceled` in the end. */
  admit(): boolean {
    if (this.#openUntil === null) return true
    if (this.#probing || this.#options.now() < this.#openUntil) return false
    this.#probing = true
    return true
  }

  answered(): void {
    this.#faults = 0
    this.#probing = false
    if (this.#openUntil === null) return
    this.#openUntil = null
    this.#pauseMs = FIRST_PAUSE_MS
    this.#options.changed(false)
  }

  failed(): void {
    this.#faults += 1
    const wasOpen = this.#openUntil !== null
    // Questions that were under way when it opened fail too; only the probe makes the pause longer.
    if (wasOpen ? !this.#probing : this.#faults < FAULTS_TO_OPEN) return
    this.#probing = false
    this.#openUntil = this.#options.now() + this.#pauseMs * (1 + JITTER * this.#options.random())
    this.#pauseMs = Math.min(this.#pauseMs * 2, LONGEST_PAUSE_MS)
    if (!wasOpen) this.#options.changed(true)
  }

  /** The question was called off by who asked it: that tells nothing. */
  canceled(): void {
    this.#probing = false
  }
}
