import { BlockList, isIP } from 'node:net'
import { type Arn, splitArn } from './arn.ts'
import { matches, patternOf } from './pattern.ts'
import type { Variables } from './permit.ts'
import { fill, fillText, parseTemplate, type Template } from './template.ts'

/** One value of a condition, ready to be compared with values of a key. */
export interface ValueTest {
  readonly variables: readonly string[]
  /** Null: a variable of it cannot be filled in. */
  passes(actual: string, variables: Variables): boolean | null
  /** For keys that are the time; false for whatever cannot be compared with it. @param seconds since 1970 */
  time(seconds: number): boolean
}

/** A test, or what is wrong with the value. */
type Read = (value: string) => ValueTest | string

export type CompareKind =
  | 'equal'
  | 'equalNoCase'
  | 'like'
  | 'bool'
  | 'ip'
  | 'arn'
  | `${'number' | 'date'} ${keyof typeof RELATIONS}`

const RELATIONS = {
  '=': (a: number, b: number) => a === b,
  '<': (a: number, b: number) => a < b,
  '<=': (a: number, b: number) => a <= b,
  '>': (a: number, b: number) => a > b,
  '>=': (a: number, b: number) => a >= b,
} as const

/** How the operators of IAM read a value of a policy, and compare. */
export const COMPARISONS: Readonly<Record<CompareKind, Read>> = {
  equal: text((actual, expected) => actual === expected),
  equalNoCase: text((actual, expected) => actual.toLowerCase() === expected.toLowerCase()),
  bool(value) {
    if (!/^(?:true|false)$/i.test(value) && !value.includes('${')) return 'is neither true nor false'
    return text((actual, expected) => actual.toLowerCase() === expected.toLowerCase())(value)
  },
  like: (value) =>
    templated(value, true, (template) => (actual, variables) => {
      const pieces = fill(template, variables)
      return pieces === null ? null : matches(patternOf(pieces), actual)
    }),
  arn,
  ip,
  'number =': ordered(numberOf, 'is not a number', '='),
  'number <': ordered(numberOf, 'is not a number', '<'),
  'number <=': ordered(numberOf, 'is not a number', '<='),
  'number >': ordered(numberOf, 'is not a number', '>'),
  'number >=': ordered(numberOf, 'is not a number', '>='),
  'date =': ordered(dateOf, 'is not a date', '='),
  'date <': ordered(dateOf, 'is not a date', '<'),
  'date <=': ordered(dateOf, 'is not a date', '<='),
  'date >': ordered(dateOf, 'is not a date', '>'),
  'date >=': ordered(dateOf, 'is not a date', '>='),
}

const NEVER = (): boolean => false

function templated(
  value: string,
  wildcards: boolean,
  passes: (template: Template) => ValueTest['passes'],
): ValueTest | string {
  const parse = parseTemplate(value, wildcards)
  if (parse.kind === 'invalid') return parse.message
  return { variables: parse.template.variables, passes: passes(parse.template), time: NEVER }
}

function text(same: (actual: string, expected: string) => boolean): Read {
  return (value) =>
    templated(value, false, (template) => (actual, variables) => {
      const expected = fillText(template, variables)
      return expected === null ? null : same(actual, expected)
    })
}

/** Numbers and dates take no variables (IAM user guide). */
function ordered(read: (value: string) => number | null, problem: string, relation: keyof typeof RELATIONS): Read {
  const holds = RELATIONS[relation]
  return (value) => {
    const expected = read(value)
    if (expected === null) return problem
    return {
      variables: [],
      passes(actual) {
        const number = read(actual)
        return number !== null && holds(number, expected)
      },
      time: (seconds) => holds(seconds, expected),
    }
  }
}

export function numberOf(value: string): number | null {
  return /^[+-]?(?:\d+(?:\.\d*)?|\.\d+)$/.test(value) && value.length <= 64 ? Number(value) : null
}

const DATE = /^(\d{4})(?:-(\d\d)(?:-(\d\d)(?:T(\d\d):(\d\d)(?::(\d\d)(?:\.\d{1,9})?)?(Z|[+-]\d\d:\d\d))?)?)?$/

/** Seconds since 1970: of the forms of W3C's NOTE-datetime, fractions of a second left out, or of five digits and more. */
export function dateOf(value: string): number | null {
  if (/^\d{5,13}$/.test(value)) return Number(value)
  const match = DATE.exec(value)
  if (match === null) return null
  const [year, month, day, hour, minute, second] = match.slice(1, 7).map((part) => Number(part ?? Number.NaN))
  const zone = zoneSeconds(match[7] ?? 'Z')
  if (zone === null || [month!, day!].includes(0)) return null
  const utc = Date.UTC(year!, (month || 1) - 1, day || 1, hour || 0, minute || 0, second || 0)
  // Date.UTC carries a 31st of February over into March, and takes years below 100 for those of a century ago.
  const back = new Date(utc)
  const same =
    back.getUTCFullYear() === year &&
    back.getUTCMonth() === (month || 1) - 1 &&
    back.getUTCDate() === (day || 1) &&
    back.getUTCHours() === (hour || 0) &&
    back.getUTCMinutes() === (minute || 0) &&
    back.getUTCSeconds() === (second || 0)
  return same ? utc / 1000 - zone : null
}

function zoneSeconds(zone: string): number | null {
  if (zone === 'Z') return 0
  const hours = Number(zone.slice(1, 3))
  const minutes = Number(zone.slice(4, 6))
  if (hours > 23 || minutes > 59) return null
  return (zone[0] === '-' ? -1 : 1) * (hours * 3600 + minutes * 60)
}

/** An address or a CIDR range; an IPv4 address in its IPv6 clothes is the IPv4 address. */
function ip(value: string): ValueTest | string {
  const [address = '', bits, ...more] = value.split('/')
  const version = isIP(address)
  const widest = version === 4 ? 32 : 128
  const prefix = bits === undefined ? widest : /^\d{1,3}$/.test(bits) ? Number(bits) : -1
  if (version === 0 || address.includes('%') || more.length > 0 || prefix < 0 || prefix > widest) {
    return 'is neither an IP address nor a range such as 192.0.2.0/24'
  }
  // It would match nothing, for addresses are compared in their IPv4 form.
  if (plainAddress(address) !== address) return 'is an IPv4 address written as IPv6'
  const list = new BlockList()
  list.addSubnet(address, prefix, version === 4 ? 'ipv4' : 'ipv6')
  return {
    variables: [],
    passes(actual) {
      const plain = plainAddress(actual)
      const kind = isIP(plain)
      // BlockList itself would find every IPv4 address in ::/0.
      return kind === version && list.check(plain, kind === 4 ? 'ipv4' : 'ipv6')
    },
    time: NEVER,
  }
}

function plainAddress(address: string): string {
  const zone = address.indexOf('%')
  const plain = zone < 0 ? address : address.slice(0, zone)
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(plain)
  return mapped?.[1] ?? plain
}

/** Each of the six parts is compared by itself: a `*` does not reach over a colon of the head. */
function arn(value: string): ValueTest | string {
  const parts = splitArn(value)
  if (parts === null) return 'is not an ARN'
  const templates: Template[] = []
  for (const part of Object.values(parts)) {
    const parse = parseTemplate(part, true)
    if (parse.kind === 'invalid') return parse.message
    templates.push(parse.template)
  }
  return {
    variables: templates.flatMap((template) => template.variables),
    passes(actual, variables) {
      const filled = templates.map((template) => fill(template, variables))
      if (filled.includes(null)) return null
      const given: Arn | null = splitArn(actual)
      return given !== null && Object.values(given).every((part, n) => matches(patternOf(filled[n]!), part))
    },
    time: NEVER,
  }
}
