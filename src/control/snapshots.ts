import type { MetricObjectWithValues, MetricValue } from 'prom-client'

/** `metricName` tells `_bucket`, `_sum` and `_count` of a histogram apart; prom-client's types lack it. */
export type Sample = MetricValue<string> & { metricName?: string }
/** What a registry tells of itself; goes over IPC as JSON. */
export type Snapshot = MetricObjectWithValues<Sample>[]

/** The sum of snapshots. Not prom-client's `aggregate`, whose result can only be read asynchronously: see `scrape`. */
export function joined(snapshots: readonly Snapshot[]): Snapshot {
  const byName = new Map<string, MetricObjectWithValues<Sample>>()
  for (const metric of snapshots.flat()) {
    const known = byName.get(metric.name)
    if (known === undefined) {
      byName.set(metric.name, { ...metric, values: metric.values.map((value) => ({ ...value })) })
      continue
    }
    const byLabels = new Map(known.values.map((value) => [keyOf(value), value]))
    for (const value of metric.values) {
      const same = byLabels.get(keyOf(value))
      if (same === undefined) known.values.push({ ...value })
      else same.value += value.value
    }
  }
  return Array.from(byName.values())
}

function keyOf(value: Sample): string {
  const labels = Object.entries(value.labels).sort(([left], [right]) => (left < right ? -1 : 1))
  return JSON.stringify([value.metricName ?? null, labels])
}
