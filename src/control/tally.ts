import type { Counter, LabelValues } from 'prom-client'

interface Count<L extends string> {
  readonly labels: LabelValues<L>
  more: number
}

/**
 * Counts with plain additions what happens at every connection, and tells the counter when it is scraped: its own `inc`
 * takes microseconds, and a connection has a dozen.
 */
export class Tally<L extends string> {
  readonly #counts = new Map<string, Count<L>>()
  readonly #counter: Counter<L>

  /** @param make a counter that calls `collect` at each scrape */
  constructor(make: (collect: (counter: Counter<L>) => void) => Counter<L>) {
    this.#counter = make((counter) => {
      for (const count of this.#counts.values()) {
        if (count.more === 0) continue
        counter.inc(count.labels, count.more)
        count.more = 0
      }
    })
  }

  /** A series that is there before anything happened. */
  zero(labels: LabelValues<L>): void {
    this.#counter.inc(labels, 0)
  }

  /** @param key the same for the same labels, and for no others */
  add(key: string, labels: LabelValues<L>): void {
    const count = this.#counts.get(key)
    if (count === undefined) this.#counts.set(key, { labels, more: 1 })
    else count.more++
  }
}
