import { COMPARISONS, type CompareKind, type ValueTest } from './compare.ts'
import type { Variables } from './permit.ts'
import { CONNECT_ONLY, CURRENT_TIME, canonicalName, EPOCH_TIME } from './variables.ts'

/** Which of a key's values must pass: the prefixes of an operator, and `one` for a key that has a single value. */
type Quantifier = 'one' | 'all' | 'any'

interface Operator {
  readonly compare: CompareKind
  readonly negated: boolean
}

/** IAM user guide, "Condition operators"; `Binary…` is left out, for no key of AWS IoT is binary. */
// biome-ignore format: a table is read down its columns
const OPERATORS: Readonly<Record<string, Operator>> = {
  StringEquals:              { compare: 'equal',       negated: false },
  StringNotEquals:           { compare: 'equal',       negated: true },
  StringEqualsIgnoreCase:    { compare: 'equalNoCase', negated: false },
  StringNotEqualsIgnoreCase: { compare: 'equalNoCase', negated: true },
  StringLike:                { compare: 'like',        negated: false },
  StringNotLike:             { compare: 'like',        negated: true },
  NumericEquals:             { compare: 'number =',    negated: false },
  NumericNotEquals:          { compare: 'number =',    negated: true },
  NumericLessThan:           { compare: 'number <',    negated: false },
  NumericLessThanEquals:     { compare: 'number <=',   negated: false },
  NumericGreaterThan:        { compare: 'number >',    negated: false },
  NumericGreaterThanEquals:  { compare: 'number >=',   negated: false },
  DateEquals:                { compare: 'date =',      negated: false },
  DateNotEquals:             { compare: 'date =',      negated: true },
  DateLessThan:              { compare: 'date <',      negated: false },
  DateLessThanEquals:        { compare: 'date <=',     negated: false },
  DateGreaterThan:           { compare: 'date >',      negated: false },
  DateGreaterThanEquals:     { compare: 'date >=',     negated: false },
  Bool:                      { compare: 'bool',        negated: false },
  IpAddress:                 { compare: 'ip',          negated: false },
  NotIpAddress:              { compare: 'ip',          negated: true },
  ArnEquals:                 { compare: 'arn',         negated: false },
  ArnLike:                   { compare: 'arn',         negated: false },
  ArnNotEquals:              { compare: 'arn',         negated: true },
  ArnNotLike:                { compare: 'arn',         negated: true },
}

const PREFIXES: Readonly<Record<string, Quantifier>> = { forallvalues: 'all', foranyvalue: 'any' }
const PREFIX_NAMES: Readonly<Record<Quantifier, string>> = { one: '', all: 'ForAllValues:', any: 'ForAnyValue:' }
const BY_LOWER_CASE: ReadonlyMap<string, string> = new Map(
  Object.keys(OPERATORS).map((name) => [name.toLowerCase(), name]),
)

interface OperatorName {
  /** Null is the operator of that name. */
  readonly base: string | null
  readonly quantifier: Quantifier
  readonly ifExists: boolean
  /** In the one spelling of the table. */
  readonly spelling: string
}

/** Reads `ForAllValues:StringEqualsIfExists` and the like, in any case; null when there is no such operator. */
export function operatorName(text: string): OperatorName | null {
  const parts = text.toLowerCase().split(':')
  const quantifier = parts.length === 2 ? PREFIXES[parts[0]!] : parts.length === 1 ? 'one' : undefined
  if (quantifier === undefined) return null
  const last = parts.at(-1)!
  if (last === 'null')
    return quantifier === 'one' ? { base: null, quantifier, ifExists: false, spelling: 'Null' } : null
  const ifExists = last.endsWith('ifexists')
  const base = BY_LOWER_CASE.get(ifExists ? last.slice(0, -'ifexists'.length) : last)
  if (base === undefined) return null
  return { base, quantifier, ifExists, spelling: `${PREFIX_NAMES[quantifier]}${base}${ifExists ? 'IfExists' : ''}` }
}

/** One key under one operator, ready to be decided. */
export interface Condition {
  /** `StringEquals iot:ClientId`, for people. */
  readonly label: string
  readonly key: string
  /** In its values; the key is not one of them. */
  readonly variables: readonly string[]
  /** True if it must be decided anew each time, by `holdsAt`. */
  readonly live: boolean
  readonly connectOnly: boolean
  holds(variables: Variables): boolean
  /** @param seconds since 1970 */
  holdsAt(seconds: number): boolean
}

export type ConditionParse =
  | { readonly kind: 'condition'; readonly condition: Condition }
  | { readonly kind: 'invalid'; readonly value: number | null; readonly message: string }

/**
 * What AWS leaves open is decided against the device: under `Allow` in doubt no, under `Deny` in doubt yes. That is a key
 * of several values without a set prefix, and a negated comparison with a variable that has no value.
 */
export function compileCondition(
  operator: string,
  rawKey: string,
  values: readonly string[],
  effect: 'Allow' | 'Deny',
): ConditionParse {
  const name = operatorName(operator)
  if (name === null) return { kind: 'invalid', value: null, message: 'no such operator' }
  const key = canonicalName(rawKey)
  const live = key === CURRENT_TIME || key === EPOCH_TIME
  const common = { label: `${name.spelling} ${rawKey}`, key, connectOnly: CONNECT_ONLY.has(key) }
  if (name.base === null) return nullCondition(common, live, values)
  const { compare, negated } = OPERATORS[name.base]!
  if (values.length === 0 && name.quantifier === 'one') {
    return { kind: 'invalid', value: null, message: 'needs a value' }
  }
  if (live && !compare.startsWith('date') && !(key === EPOCH_TIME && compare.startsWith('number'))) {
    return { kind: 'invalid', value: null, message: `${key} is compared with Date operators` }
  }
  const tests: ValueTest[] = []
  for (const [index, value] of values.entries()) {
    const test = COMPARISONS[compare](value)
    if (typeof test === 'string') return { kind: 'invalid', value: index, message: test }
    tests.push(test)
  }
  const { quantifier, ifExists } = name
  const passes = (actual: string, variables: Variables): boolean => passesOf(tests, negated, effect, actual, variables)
  return {
    kind: 'condition',
    condition: {
      ...common,
      variables: tests.flatMap((test) => test.variables),
      live,
      holds(variables) {
        const actual = variables.lookup(key) ?? []
        if (actual.length === 0) return ifExists || (quantifier === 'one' ? negated : quantifier === 'all')
        const every = quantifier === 'all' || (quantifier === 'one' && effect === 'Allow')
        return every
          ? actual.every((value) => passes(value, variables))
          : actual.some((value) => passes(value, variables))
      },
      // A plain loop: it runs once per packet where a policy asks for the time.
      holdsAt(seconds) {
        for (const test of tests) if (test.time(seconds)) return !negated
        return negated
      },
    },
  }
}

/** Whether one value of the key satisfies the operator against all values of the policy. */
function passesOf(
  tests: readonly ValueTest[],
  negated: boolean,
  effect: 'Allow' | 'Deny',
  actual: string,
  variables: Variables,
): boolean {
  let unknown = false
  for (const test of tests) {
    const passed = test.passes(actual, variables)
    if (passed === true) return !negated
    if (passed === null) unknown = true
  }
  return negated && !(unknown && effect === 'Allow')
}

function nullCondition(
  common: Pick<Condition, 'label' | 'key' | 'connectOnly'>,
  always: boolean,
  values: readonly string[],
): ConditionParse {
  const wanted = new Set<boolean>()
  for (const [index, value] of values.entries()) {
    if (!/^(?:true|false)$/i.test(value)) return { kind: 'invalid', value: index, message: 'is neither true nor false' }
    wanted.add(value.toLowerCase() === 'true')
  }
  if (wanted.size === 0) return { kind: 'invalid', value: null, message: 'needs a value' }
  return {
    kind: 'condition',
    condition: {
      ...common,
      variables: [],
      live: false,
      holds: (variables) => wanted.has(!always && (variables.lookup(common.key) ?? []).length === 0),
      holdsAt: () => false,
    },
  }
}
