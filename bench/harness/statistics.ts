export interface Spread {
  readonly median: number
  readonly min: number
  readonly max: number
  /** Quartiles. */
  readonly low: number
  readonly high: number
  readonly rounds: number
}

/** Between the two nearest where it falls between; NaN of nothing. */
export function quantile(sorted: readonly number[], share: number): number {
  if (sorted.length === 0) return Number.NaN
  const at = (sorted.length - 1) * share
  const low = sorted[Math.floor(at)]!
  const high = sorted[Math.ceil(at)]!
  return low + (high - low) * (at - Math.floor(at))
}

export function spread(values: readonly number[]): Spread {
  const sorted = values.toSorted((a, b) => a - b)
  const [min, low, median, high, max] = [0, 0.25, 0.5, 0.75, 1].map((share) => quantile(sorted, share))
  return { median: median!, min: min!, max: max!, low: low!, high: high!, rounds: sorted.length }
}

/** Round by round, since what the machine did in a round it did to both; null when they share none. */
export function ratio(of: ReadonlyMap<number, number>, to: ReadonlyMap<number, number>): Spread | null {
  const ratios = [...of].flatMap(([round, value]) => {
    const other = to.get(round)
    return other === undefined || other === 0 ? [] : [value / other]
  })
  return ratios.length === 0 ? null : spread(ratios)
}

/** p50, p90, p99 and the most, of sorted latencies. */
export function percentiles(sorted: readonly number[]) {
  return {
    p50Ms: quantile(sorted, 0.5),
    p90Ms: quantile(sorted, 0.9),
    p99Ms: quantile(sorted, 0.99),
    maxMs: quantile(sorted, 1),
  }
}

/** Three significant digits, and a thousand is a thousand: 0.483, 12.4, 1,240. */
export function short(value: number): string {
  if (!Number.isFinite(value)) return '–'
  const size = Math.abs(value)
  if (size >= 100) return Math.round(value).toLocaleString('en-US')
  if (size === 0) return '0'
  return size >= 10 ? value.toFixed(1) : size >= 1 ? value.toFixed(2) : value.toPrecision(size >= 0.1 ? 3 : 2)
}
