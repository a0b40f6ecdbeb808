import type { Deadline, Lifetimes, Mortal } from './lifetimes.ts'

/**
 * Notices a device that has not taken what waits for it for so long. While one is at work it is full and empty again many
 * times a second; that costs a look at the clock each, and at most one deadline at a time.
 */
export class SlowConsumer implements Mortal {
  readonly #lifetimes: Lifetimes
  readonly #timeoutMs: number
  readonly #stuck: () => void
  #fullSince: number | null = null
  #deadline: Deadline | null = null

  constructor(lifetimes: Lifetimes, timeoutMs: number, stuck: () => void) {
    this.#lifetimes = lifetimes
    this.#timeoutMs = timeoutMs
    this.#stuck = stuck
  }

  /** It takes no more; or it has taken everything. */
  full(on: boolean): void {
    if (!on) {
      this.#fullSince = null
      return
    }
    this.#fullSince = this.#lifetimes.now()
    this.#deadline ??= this.#lifetimes.add(this.#fullSince + this.#timeoutMs, 'end', this)
  }

  due(): void {
    this.#deadline = null
    if (this.#fullSince === null) return
    const at = this.#fullSince + this.#timeoutMs
    if (at <= this.#lifetimes.now()) this.#stuck()
    else this.#deadline = this.#lifetimes.add(at, 'end', this)
  }

  stop(): void {
    if (this.#deadline !== null) this.#lifetimes.remove(this.#deadline)
    this.#deadline = null
    this.#fullSince = null
  }
}
