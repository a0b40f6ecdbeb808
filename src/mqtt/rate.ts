import type { GateClock } from './gate.ts'

/** So many a second, and as many at once after a second of rest. */
export class TokenBucket {
  readonly #perSecond: number
  readonly #clock: GateClock
  #tokens: number
  #at: number

  constructor(perSecond: number, clock: GateClock) {
    this.#perSecond = perSecond
    this.#clock = clock
    this.#tokens = perSecond
    this.#at = clock.now()
  }

  /** True when there was one left. */
  take(): boolean {
    this.#refill()
    if (this.#tokens < 1) return false
    this.#tokens--
    return true
  }

  /** Takes them even when there are not so many left. @returns milliseconds until the debt is paid; 0 without one */
  owe(count: number): number {
    this.#refill()
    this.#tokens -= count
    return this.#tokens >= 0 ? 0 : Math.ceil((-this.#tokens * 1_000) / this.#perSecond)
  }

  #refill(): void {
    const now = this.#clock.now()
    this.#tokens = Math.min(this.#perSecond, this.#tokens + ((now - this.#at) * this.#perSecond) / 1_000)
    this.#at = now
  }
}
