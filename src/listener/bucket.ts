/** What may come at once after a rest, as a part of a second. */
const BURST_SECONDS = 0.1

/** So many a second, evenly: after a rest a tenth of a second's worth comes at once. Null: no limit. */
export class Bucket {
  #perSecond: number | null
  #tokens: number
  #at: number

  constructor(perSecond: number | null, now: number) {
    this.#perSecond = perSecond
    this.#tokens = burst(perSecond)
    this.#at = now
  }

  configure(perSecond: number | null, now: number): void {
    this.#refill(now)
    this.#perSecond = perSecond
    this.#tokens = Math.min(this.#tokens, burst(perSecond))
  }

  has(now: number): boolean {
    if (this.#perSecond === null) return true
    this.#refill(now)
    return this.#tokens >= 1
  }

  take(now: number): void {
    if (this.#perSecond === null) return
    this.#refill(now)
    this.#tokens--
  }

  /** Takes one that may not be there; never more than a second's worth is owed. */
  owe(now: number): void {
    if (this.#perSecond === null) return
    this.take(now)
    this.#tokens = Math.max(this.#tokens, -this.#perSecond)
  }

  nextAt(now: number): number {
    if (this.#perSecond === null || this.has(now)) return now
    return now + ((1 - this.#tokens) / this.#perSecond) * 1_000
  }

  #refill(now: number): void {
    const more = ((now - this.#at) / 1_000) * (this.#perSecond ?? 0)
    this.#tokens = Math.min(burst(this.#perSecond), this.#tokens + more)
    this.#at = now
  }
}

const burst = (perSecond: number | null): number => Math.max(1, (perSecond ?? 0) * BURST_SECONDS)
