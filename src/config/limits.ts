import { z } from 'zod'
import {
  LIMITS,
  type LimitForm,
  type LimitKey,
  type LimitRow,
  type LimitSetting,
  type SessionRules,
} from '../mqtt/limits.ts'
import { DURATION_UNITS, SIZE_UNITS, scaled } from './units.ts'

/** What takes a limit of the profile away again. */
const NONE = 'none'

interface Form {
  readonly what: string
  /** Undefined for what is not written in this form. */
  read(written: unknown): number | boolean | undefined
  /** As it would be written. */
  write(held: number): string
}

const count = (written: unknown): number | undefined => (Number.isInteger(written) ? Number(written) : undefined)
const withUnit = (units: Readonly<Record<string, number>>, per: number) => (written: unknown) => {
  const held = typeof written === 'string' ? scaled(written, units) / per : Number.NaN
  return Number.isInteger(held) ? held : undefined
}

const FORMS: Readonly<Record<LimitForm, Form>> = {
  count: { what: 'a whole number', read: count, write: String },
  qos: { what: '0, 1 or 2', read: count, write: String },
  size: { what: 'a size with its unit (B, KiB or MiB)', read: withUnit(SIZE_UNITS, 1), write: (held) => `${held}B` },
  seconds: {
    what: 'a duration of whole seconds with its unit (s, m or h)',
    read: withUnit(DURATION_UNITS, 1_000),
    write: (held) => `${held}s`,
  },
  ms: {
    what: 'a duration with its unit (ms, s, m or h)',
    read: withUnit(DURATION_UNITS, 1),
    write: (held) => `${held}ms`,
  },
  flag: {
    what: 'true or false',
    read: (written) => (typeof written === 'boolean' ? written : undefined),
    write: String,
  },
}

/** Settings of the limits by name, from the table that the sessions use; each may be left out. */
export const LIMIT_SHAPE = Object.fromEntries(
  Object.values<LimitRow>(LIMITS).map((row) => [row.setting, limitSetting(row)]),
  // The names are those of the table, which the type of `fromEntries` cannot tell.
) as Readonly<Record<LimitSetting, ReturnType<typeof limitSetting>>>

/** Written settings → the rules they change. */
export function ownRules(written: Readonly<Record<string, unknown>>): Partial<SessionRules> {
  const own: Partial<Record<LimitKey, unknown>> = {}
  for (const [key, row] of Object.entries<LimitRow>(LIMITS) as [LimitKey, LimitRow][]) {
    const value = written[row.setting]
    if (value !== undefined) own[key] = value === NONE ? null : FORMS[row.form].read(value)
  }
  // Each value has passed the schema of its row.
  return own as Partial<SessionRules>
}

function limitSetting(row: LimitRow) {
  const { what, read, write } = FORMS[row.form]
  const [least, most] = row.range
  // A rule that always counts cannot be taken away, only widened.
  const removable = row.open === null
  const bounds = row.form === 'flag' || row.form === 'qos' ? '' : ` from ${write(least)} to ${write(most)}`
  const expected = `expected ${what}${bounds}${removable ? ` or ${NONE}` : ''}`
  const inside = (value: number | boolean | undefined): boolean =>
    typeof value === 'boolean' || (value !== undefined && value >= least && value <= most)
  return z
    .union([z.string(), z.number(), z.boolean()], expected)
    .refine((written) => (removable && written === NONE) || inside(read(written)), expected)
    .optional()
    .describe(`${row.help} ${defaults(row, write)}`)
}

function defaults(row: LimitRow, write: Form['write']): string {
  const said = (value: LimitRow['open']): string =>
    value === null ? NONE : typeof value === 'number' ? write(value) : String(value)
  return `open: ${said(row.open)}; aws-iot: ${said(row['aws-iot'])}.`
}
