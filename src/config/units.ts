/** Durations are written with one of these and held in milliseconds. */
export const DURATION_UNITS: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000 }

/** Sizes are written with one of these and held in bytes. */
export const SIZE_UNITS: Readonly<Record<string, number>> = { B: 1, KiB: 1_024, MiB: 1_048_576 }

/** `10s` → 10,000; NaN for what is no number with one of the units. */
export function scaled(text: string, units: Readonly<Record<string, number>>): number {
  const [, amount, unit] = /^(\d+)(\w+)$/.exec(text) ?? []
  return Number(amount) * (units[unit ?? ''] ?? Number.NaN)
}
