import { setImmediate } from 'node:timers/promises'
import test from 'ava'
import { explain } from '../../src/policy/explain.ts'
import { grantsOf } from '../../src/policy/grants.ts'
import type { ArnHead } from '../../src/policy/permit.ts'
import { randomFrom } from '../support/pki.ts'
import { documentOf, values } from './support.ts'

/**
 * The compiled permit against an evaluator that is written for nothing but to be read: it looks at the JSON itself, with
 * regular expressions, and shares no line with the engine.
 */

interface Json {
  readonly Effect: 'Allow' | 'Deny'
  readonly Action: string | readonly string[]
  readonly Resource: string | readonly string[]
  readonly Condition?: Readonly<Record<string, Readonly<Record<string, unknown>>>>
}

type Given = Readonly<Record<string, readonly string[]>>

interface World {
  readonly head: ArnHead
  readonly given: Given
  readonly seconds: number
}

const list = <T>(value: T | readonly T[]): readonly T[] => (Array.isArray(value) ? value : [value as T])
const quote = (text: string): string => text.replace(/[\\^$.*+?()[\]{}|/]/g, '\\$&')

const seen = new Map<string, RegExp>()

function fits(source: string, flags: string, text: string): boolean {
  const key = `${flags}${source}`
  const known = seen.get(key) ?? new RegExp(`^${source}$`, flags)
  if (seen.size > 50_000) seen.clear()
  seen.set(key, known)
  return known.test(text)
}

const sources = new Map<string, string>()

/** Variables and escapes of a text, as a regular expression; null when a variable has no usable value. */
function regex(text: string, star: string, one: string, given: Given): string | null {
  if (/\$\{[a-z]/.test(text)) return translate(text, star, one, given)
  const key = star + text
  const known = sources.get(key) ?? translate(text, star, one, {})!
  if (sources.size > 50_000) sources.clear()
  sources.set(key, known)
  return known
}

function translate(text: string, star: string, one: string, given: Given): string | null {
  let missing = false
  const source = text.replace(
    /\$\{([*?$])\}|\$\(([*?$])\)|\$\{([^}]*)\}|\*|\?|[\s\S]/gu,
    (token: string, curly?: string, round?: string, name?: string) => {
      if (curly !== undefined || round !== undefined) return quote(curly ?? round!)
      if (name !== undefined) {
        const value = given[name]
        if (value?.length !== 1 || value[0]!.length > 1024 || /[*$+?#]/.test(value[0]!)) missing = true
        return quote(value?.[0] ?? '')
      }
      return token === '*' ? star : token === '?' ? one : quote(token)
    },
  )
  return missing ? null : source
}

function resourceFits(text: string, resource: string, { head, given }: World): boolean {
  if (text === '*') return true
  const parts = text.split(':')
  const front = parts.slice(0, 5).map((part) => regex(part, '[^:]*', '[^:]', given))
  const source = [...front, regex(parts.slice(5).join(':'), '[\\s\\S]*', '[\\s\\S]', given)]
  if (source.includes(null)) return false
  const full = `arn:${head.partition}:iot:${head.region}:${head.accountId}:${resource}`
  return fits(source.join(':'), 'u', full)
}

/** One value of the policy against one of the key; null when the policy's cannot be filled in. */
function pair(base: string, expected: string, actual: string, given: Given): boolean | null {
  if (base.startsWith('Numeric') || base.startsWith('Date')) {
    const number = (text: string): number =>
      base.startsWith('Date') && text.includes('-')
        ? Date.parse(text) / 1000
        : text.trim() === ''
          ? Number.NaN
          : Number(text)
    const a = number(actual)
    const b = number(expected)
    if (base.endsWith('LessThan')) return a < b
    if (base.endsWith('LessThanEquals')) return a <= b
    if (base.endsWith('GreaterThan')) return a > b
    if (base.endsWith('GreaterThanEquals')) return a >= b
    return a === b
  }
  if (base.endsWith('IpAddress')) {
    const bits = (address: string) =>
      address
        .split('.')
        .map((n) => Number(n).toString(2).padStart(8, '0'))
        .join('')
    const [net, length = '32'] = expected.split('/')
    return (
      /^\d+\.\d+\.\d+\.\d+$/.test(actual) &&
      bits(actual).slice(0, Number(length)) === bits(net!).slice(0, Number(length))
    )
  }
  const wild = base.endsWith('Like') || base.startsWith('Arn')
  const source = regex(expected, wild ? '[\\s\\S]*' : '\\*', wild ? '[\\s\\S]' : '\\?', given)
  if (source === null) return null
  return fits(source, base.includes('IgnoreCase') || base === 'Bool' ? 'iu' : 'u', actual)
}

function conditionHolds(
  operator: string,
  key: string,
  expected: readonly string[],
  effect: string,
  world: World,
): boolean {
  const given: Given = {
    ...world.given,
    'aws:CurrentTime': [new Date(world.seconds * 1000).toISOString()],
    'aws:EpochTime': [String(world.seconds)],
  }
  const actual = given[key] ?? []
  if (operator === 'Null') return expected.includes(String(actual.length === 0))
  const [, set = '', name = '', optional] = /^(?:(ForAllValues|ForAnyValue):)?(.*?)(IfExists)?$/.exec(operator)!
  const negated = name.includes('Not')
  if (actual.length === 0) {
    if (optional !== undefined || set === 'ForAllValues') return true
    return set === 'ForAnyValue' ? false : negated
  }
  const good = actual.map((value) => {
    const results = expected.map((text) => pair(name.replace('Not', ''), text, value, world.given))
    if (results.includes(true)) return !negated
    return negated && !(effect === 'Allow' && results.includes(null))
  })
  if (set === 'ForAllValues') return !good.includes(false)
  if (set === 'ForAnyValue') return good.includes(true)
  return effect === 'Allow' ? !good.includes(false) : good.includes(true)
}

function naive(statements: readonly Json[], action: string, resource: string, world: World): boolean {
  const rest = Object.fromEntries(
    Object.entries(world.given).filter(([name]) => name !== 'iot:ConnectAttributes' && name !== 'iot:LastWillTopic'),
  )
  const here = action === 'iot:Connect' ? world : { ...world, given: rest }
  const applying = statements.filter(
    ({ Effect, Action, Resource, Condition = {} }) =>
      list(Action).some((text) => fits(regex(text, '.*', '.', {})!, 'i', action)) &&
      list(Resource).some((text) => resourceFits(text, resource, world)) &&
      Object.entries(Condition).every(([operator, keys]) =>
        Object.entries(keys).every(([key, expected]) =>
          conditionHolds(operator, key, list(expected).map(String), Effect, here),
        ),
      ),
  )
  return applying.some(({ Effect }) => Effect === 'Allow') && !applying.some(({ Effect }) => Effect === 'Deny')
}

type Random = (below: number) => number
const ACTIONS = ['iot:Connect', 'iot:Publish', 'iot:RetainPublish', 'iot:Subscribe', 'iot:Receive']
const ACTION_TEXTS = [
  ...ACTIONS,
  'iot:*',
  '*',
  'iot:Pub*',
  'IOT:RECEIVE',
  'iot:*ublish',
  'iot:Receiv?',
  'iot:GetThingShadow',
]
const CHARS = ['a', 'a', 'b', '/', '/', 'A', ':', '.', '+', '#', '$', '😀', '\\', '(', '{']
const WILD = ['*', '*', '?', '${iot:ClientId}', '${iot:ClientId}', '${x:none}', '$(*)', '${?}', '${$}']
const TYPES = ['topic/', 'topic/', 'topic/', 'topicfilter/', 'client/', '', 'top*c/', '*']
const HEADS = [
  'aws:iot:r1:1',
  'aws:iot:r1:1',
  'aws:iot:*:*',
  '*:iot:r?:1',
  'aws:iot:r2:1',
  'aws:iot:r1:2',
  'aws:s3:r1:1',
]

const pick = <T>(random: Random, from: readonly T[]): T => from[random(from.length)]!
const several = <T>(random: Random, most: number, make: () => T): T[] => Array.from({ length: random(most + 1) }, make)

function text(random: Random, from: readonly string[], most: number): string {
  // `${` and `$(` begin something; what begins nothing is written so that it stays text.
  return several(random, most, () => pick(random, from))
    .join('')
    .replace(/\$([({])(?=$|[^*?$ix])/gu, '$1')
}

function resourceText(random: Random): string {
  if (random(8) === 0) return '*'
  const tail =
    pick(random, TYPES) +
    text(
      random,
      [...CHARS, ...WILD].filter((char) => !'({'.includes(char)),
      5,
    )
  return `arn:${pick(random, HEADS)}:${tail === '' ? 'x' : tail}`
}

const STRINGS = ['a', 'A', 'b', 'a*', '?', '${iot:ClientId}', '${x:none}', 'PersistentConnect', 'LastWill', '${*}', '']
const KEYS = ['iot:ClientId', 'iot:DomainName', 'iot:ConnectAttributes', 'x:none', 'x:number']
// biome-ignore format: a table is read down its columns
const OPERATORS: readonly (readonly [name: string, keys: readonly string[], values: readonly unknown[]])[] = [
  ['StringEquals',              KEYS, STRINGS],
  ['StringNotEquals',           KEYS, STRINGS],
  ['StringEqualsIgnoreCase',    KEYS, STRINGS],
  ['StringNotEqualsIgnoreCase', KEYS, STRINGS],
  ['StringLike',                KEYS, STRINGS],
  ['StringNotLike',             KEYS, STRINGS],
  ['NumericEquals',             ['x:number', 'x:none', 'iot:ClientId', 'aws:EpochTime'], ['1', 2, '1000', '-1.5']],
  ['NumericNotEquals',          ['x:number', 'x:none', 'aws:EpochTime'],                 ['1', 2, '1000', '-1.5']],
  ['NumericLessThan',           ['x:number', 'aws:EpochTime'],                           ['1', 2, '1000']],
  ['NumericGreaterThanEquals',  ['x:number', 'aws:EpochTime'],                           ['1', 2, '1000']],
  ['DateLessThan',              ['aws:CurrentTime', 'aws:EpochTime'], ['2001-09-09T01:46:40Z', '2001-09-09', '1000000001']],
  ['DateGreaterThan',           ['aws:CurrentTime', 'aws:EpochTime'], ['2001-09-09T01:46:40Z', '2001-09-09', '1000000001']],
  ['DateNotEquals',             ['aws:CurrentTime', 'aws:EpochTime'], ['2001-09-09T01:46:40Z', '2001-09-09', '1000000001']],
  ['Bool',                      ['x:bool', 'x:none'],                 [true, 'false', 'TRUE']],
  ['IpAddress',                 ['aws:SourceIp', 'x:none'],           ['10.0.0.0/8', '10.1.2.3', '0.0.0.0/0']],
  ['NotIpAddress',              ['aws:SourceIp', 'x:none'],           ['10.0.0.0/8', '10.1.2.3', '11.0.0.0/9']],
  ['ArnLike',                   ['iot:LastWillTopic'],                ['arn:aws:iot:r1:1:topic/a*', 'arn:aws:iot:r1:1:topic/${iot:ClientId}']],
  ['ArnNotEquals',              ['iot:LastWillTopic'],                ['arn:aws:iot:r1:1:topic/a*', 'arn:aws:iot:r1:1:topic/${iot:ClientId}']],
]

function condition(random: Random): Record<string, Record<string, unknown>> {
  const found: Record<string, Record<string, unknown>> = {}
  for (let n = random(3); n > 0; n--) {
    const [name, keys, from] = pick(random, OPERATORS)
    const set = pick(random, ['', '', 'ForAllValues:', 'ForAnyValue:'])
    const operator = random(12) === 0 ? 'Null' : `${set}${name}${random(4) === 0 ? 'IfExists' : ''}`
    const some = operator === 'Null' ? [pick(random, ['true', 'false'])] : several(random, 2, () => pick(random, from))
    const expected = some.length === 0 && !operator.startsWith('For') ? [pick(random, from)] : some
    found[operator] = {
      ...found[operator],
      [pick(random, keys)]: expected.length === 1 && random(2) === 0 ? expected[0] : expected,
    }
  }
  return found
}

function statement(random: Random): Json {
  return {
    Effect: random(3) === 0 ? 'Deny' : 'Allow',
    Action: [pick(random, ACTION_TEXTS), ...several(random, 2, () => pick(random, ACTION_TEXTS))],
    Resource:
      random(3) === 0
        ? resourceText(random)
        : [resourceText(random), ...several(random, 3, () => resourceText(random))],
    ...(random(3) === 0 && { Condition: condition(random) }),
  }
}

function world(random: Random): World {
  const maybe = (name: string, from: readonly (readonly string[])[]): Given =>
    random(4) === 0 ? {} : { [name]: pick(random, from) }
  return {
    head: { partition: 'aws', region: 'r1', accountId: '1' },
    seconds: 1_000_000_000 + random(3),
    given: {
      ...maybe('iot:ClientId', [['a'], ['b'], ['A'], ['a/b'], ['a*'], ['+'], ['😀'], ['']]),
      ...maybe('iot:DomainName', [['a'], ['b']]),
      ...maybe('iot:ConnectAttributes', [[], ['PersistentConnect'], ['LastWill'], ['PersistentConnect', 'LastWill']]),
      ...maybe('iot:LastWillTopic', [['arn:aws:iot:r1:1:topic/a'], ['arn:aws:iot:r1:1:topic/a:b'], ['none']]),
      ...maybe('aws:SourceIp', [['10.1.2.3'], ['11.1.2.3'], ['::1']]),
      ...maybe('x:number', [['1'], ['2'], ['1000'], ['x']]),
      ...maybe('x:bool', [['true'], ['False']]),
    },
  }
}

const QUESTIONS = 2
const DOCUMENTS = 100_000
/** In parts, so that a slow machine shows that it goes on: between them results are told. */
const PARTS = 20
const PER_PART = DOCUMENTS / PARTS

function differs(seed: number, counts: { allowed: number; denied: number }): string | null {
  const random = randomFrom(seed)
  const statements = Array.from({ length: 1 + random(4) }, () => statement(random))
  const now = world(random)
  const { head: arn, seconds } = now
  const variables = values(now.given)
  const document = documentOf(...statements)
  const permit = grantsOf([document], { seconds: () => seconds }).permit(arn, variables)
  for (let n = 0; n < QUESTIONS; n++) {
    const action = pick(random, ACTIONS)
    const resource = pick(random, TYPES.slice(0, 5)) + text(random, CHARS, 5)
    const expected = naive(statements, action, resource, now)
    counts[expected ? 'allowed' : 'denied']++
    // In words for some of them: it takes longer.
    const inWords =
      seed % 20 === 0 ? explain([document], { arn, variables, action, resource, seconds }).allowed : expected
    if (permit.allows(action, resource) !== expected || inWords !== expected) {
      return `seed ${seed}: ${action} ${resource} ${expected} ${JSON.stringify({ statements, now })}`
    }
    if (permit.allowsAll('iot:Publish') && action === 'iot:Publish' && resource.startsWith('topic/') && !expected) {
      return `seed ${seed}: not all is allowed: ${resource} ${JSON.stringify({ statements, now })}`
    }
  }
  return null
}

for (let part = 0; part < PARTS; part++) {
  const first = part * PER_PART
  test.serial(
    `documents ${first} to ${first + PER_PART - 1} are decided as the naive evaluator decides them`,
    async (t) => {
      await setImmediate()
      const counts = { allowed: 0, denied: 0 }
      for (let seed = first; seed < first + PER_PART; seed++) {
        const difference = differs(seed, counts)
        if (difference !== null) return t.fail(difference)
      }
      // Both answers must be common, or the comparison says little.
      t.true(counts.allowed > PER_PART / 10 && counts.denied > PER_PART / 10, JSON.stringify(counts))
    },
  )
}
