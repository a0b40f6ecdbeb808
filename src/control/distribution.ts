import type { LabelValues, Metric, Registry } from 'prom-client'
import type { Sample } from './snapshots.ts'

interface Series<L extends string> {
  readonly labels: LabelValues<L>
  /** Observations by bucket, each counted in one only; the last is above all bounds. */
  readonly buckets: Float64Array
  sum: number
}

export interface DistributionOptions {
  readonly name: string
  readonly help: string
  /** Upper bounds, rising. */
  readonly buckets: readonly number[]
  readonly registers: readonly Registry[]
}

/**
 * A histogram of prom-client's registry that observes with plain additions, as `Tally` counts: the library's own takes
 * microseconds an observation, and a connection has several. What is scraped is the same to the byte. Values are finite.
 */
export class Distribution<L extends string> {
  readonly name: string
  readonly help: string
  readonly type = 'histogram'
  readonly aggregator = 'sum'
  readonly #bounds: readonly number[]
  readonly #series = new Map<string, Series<L>>()

  constructor({ name, help, buckets, registers }: DistributionOptions) {
    this.name = name
    this.help = help
    this.#bounds = buckets
    // A registry asks for no more of a metric than is here; the library's types name its own classes.
    for (const registry of registers) registry.registerMetric(this as unknown as Metric)
  }

  /** A series that is there before anything happened; one that is there stays as it is. */
  zero(key: string, labels: LabelValues<L>): void {
    this.#of(key, labels)
  }

  /** @param key the same for the same labels, and for no others */
  observe(value: number, key = '', labels: LabelValues<L> = {}): void {
    const series = this.#of(key, labels)
    const bounds = this.#bounds
    let at = 0
    while (at < bounds.length && value > bounds[at]!) at++
    series.buckets[at]!++
    series.sum += value
  }

  /** What the registry asks for. */
  async get() {
    const { name, help, aggregator } = this
    const values: Sample[] = []
    for (const { labels, buckets, sum } of this.#series.values()) {
      let count = 0
      for (const [at, more] of buckets.entries()) {
        count += more
        values.push({
          labels: { le: this.#bounds[at] ?? '+Inf', ...labels },
          value: count,
          metricName: `${name}_bucket`,
        })
      }
      values.push({ labels: { ...labels }, value: sum, metricName: `${name}_sum` })
      values.push({ labels: { ...labels }, value: count, metricName: `${name}_count` })
    }
    return { name, help, type: this.type, aggregator, values }
  }

  reset(): void {
    this.#series.clear()
  }

  #of(key: string, labels: LabelValues<L>): Series<L> {
    let series = this.#series.get(key)
    if (series === undefined) {
      series = { labels, buckets: new Float64Array(this.#bounds.length + 1), sum: 0 }
      this.#series.set(key, series)
    }
    return series
  }
}
