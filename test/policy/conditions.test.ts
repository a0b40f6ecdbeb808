import test from 'ava'
import { dateOf } from '../../src/policy/compare.ts'
import { compileCondition, operatorName } from '../../src/policy/conditions.ts'
import { values } from './support.ts'

type Given = Readonly<Record<string, string | readonly string[]>>

function holds(
  operator: string,
  expected: readonly string[],
  given: Given,
  effect: 'Allow' | 'Deny' = 'Allow',
): boolean {
  const parse = compileCondition(operator, 'key:k', expected, effect)
  if (parse.kind === 'invalid') throw new Error(parse.message)
  return parse.condition.holds(values(given))
}

const one = (value: string): Given => ({ 'key:k': value })
const ABSENT: Given = {}
const EMPTY: Given = { 'key:k': [] }

// biome-ignore format: a table is read down its columns
const ROWS: readonly (readonly [operator: string, expected: readonly string[], given: Given, holds: boolean])[] = [
  ['StringEquals',               ['a'],                   one('a'),              true],
  ['StringEquals',               ['a'],                   one('A'),              false],
  ['StringEquals',               ['a', 'b'],              one('b'),              true],
  ['StringEquals',               ['a*'],                  one('ab'),             false],
  ['StringEquals',               ['a*'],                  one('a*'),             true],
  ['StringEquals',               ['${*}'],                one('*'),              true],
  ['StringEquals',               ['x${v:v}'],             { ...one('xy'), 'v:v': 'y' }, true],
  ['StringNotEquals',            ['a', 'b'],              one('b'),              false],
  ['StringNotEquals',            ['a', 'b'],              one('c'),              true],
  ['StringEqualsIgnoreCase',     ['aB'],                  one('Ab'),             true],
  ['StringNotEqualsIgnoreCase',  ['aB'],                  one('Ab'),             false],
  ['StringLike',                 ['a*', 'b?'],            one('b/'),             true],
  ['StringLike',                 ['a*', 'b?'],            one('b'),              false],
  ['StringLike',                 ['a${*}'],               one('ab'),             false],
  ['StringNotLike',              ['a*'],                  one('ab'),             false],
  ['NumericEquals',              ['10'],                  one('10.0'),           true],
  ['NumericEquals',              ['10'],                  one('ten'),            false],
  ['NumericNotEquals',           ['10'],                  one('ten'),            true],
  ['NumericLessThan',            ['10'],                  one('9'),              true],
  ['NumericLessThan',            ['10'],                  one('10'),             false],
  ['NumericLessThanEquals',      ['10'],                  one('10'),             true],
  ['NumericGreaterThan',         ['-1.5'],                one('-1'),             true],
  ['NumericGreaterThanEquals',   ['10'],                  one('9.99'),           false],
  ['DateEquals',                 ['2030-01-01T00:00:00Z'],one('2030-01-01T01:00:00+01:00'), true],
  ['DateNotEquals',              ['2030-01-01'],          one('2030-01-02'),     true],
  ['DateLessThan',               ['2030-01-01'],          one('2029-12-31T23:59:59Z'), true],
  ['DateLessThanEquals',         ['2030'],                one('2030-01'),        true],
  ['DateGreaterThan',            ['1893456000'],          one('2030-01-01T00:00:01Z'), true],
  ['DateGreaterThanEquals',      ['2030-01-01'],          one('yesterday'),      false],
  ['Bool',                       ['true'],                one('true'),           true],
  ['Bool',                       ['TRUE'],                one('true'),           true],
  ['Bool',                       ['false'],               one('true'),           false],
  ['IpAddress',                  ['123.45.167.89'],       one('123.45.167.89'),  true],
  ['IpAddress',                  ['123.45.167.89'],       one('123.45.167.88'),  false],
  ['IpAddress',                  ['10.0.0.0/8', '::1'],   one('::1'),            true],
  ['IpAddress',                  ['10.0.0.0/8'],          one('::ffff:10.1.2.3'),true],
  ['IpAddress',                  ['0.0.0.0/0'],           one('2001:db8::1'),    false],
  ['IpAddress',                  ['::/0'],                one('10.1.2.3'),       false],
  ['IpAddress',                  ['fe80::/10'],           one('fe80::1%eth0'),   true],
  ['IpAddress',                  ['2001:DB8:1234::/48'],  one('2001:db8:1234:5::6'), true],
  ['IpAddress',                  ['10.0.0.0/8'],          one('unix'),           false],
  ['NotIpAddress',               ['10.0.0.0/8'],          one('11.0.0.1'),       true],
  ['NotIpAddress',               ['10.0.0.0/8'],          one('10.0.0.1'),       false],
  ['ArnEquals',                  ['arn:aws:iot:*:1:topic/*'], one('arn:aws:iot:r:1:topic/a:b'), true],
  ['ArnLike',                    ['arn:aws:s:*:1:a/*'],   one('arn:aws:s:r:2:b:1:a/c'), false],
  ['ArnLike',                    ['arn:aws:s:*:1:a/*'],   one('a/b'),            false],
  ['ArnNotEquals',               ['arn:aws:iot:r:1:a'],   one('arn:aws:iot:r:1:b'), true],
  ['ArnNotLike',                 ['arn:aws:iot:r:1:*'],   one('arn:aws:iot:r:1:b'), false],
  // a key that is absent: IAM user guide, "Condition operators", under "Important"
  ['StringEquals',               ['a'],                   ABSENT,                false],
  ['StringEquals',               ['a'],                   EMPTY,                 false],
  ['StringNotEquals',            ['a'],                   ABSENT,                true],
  ['ArnNotLike',                 ['arn:aws:iot:r:1:*'],   ABSENT,                true],
  ['NumericLessThan',            ['1'],                   ABSENT,                false],
  ['NotIpAddress',               ['10.0.0.0/8'],          ABSENT,                true],
  ['StringEqualsIfExists',       ['a'],                   ABSENT,                true],
  ['StringEqualsIfExists',       ['a'],                   one('b'),              false],
  ['Null',                       ['true'],                ABSENT,                true],
  ['Null',                       ['true'],                EMPTY,                 true],
  ['Null',                       ['true'],                one('a'),              false],
  ['Null',                       ['false'],               one('a'),              true],
  ['Null',                       ['false'],               ABSENT,                false],
  // sets: IAM user guide, "Multivalued context keys"
  ['ForAllValues:StringEquals',  ['a', 'b'],              { 'key:k': ['a', 'b'] }, true],
  ['ForAllValues:StringEquals',  ['a', 'b'],              { 'key:k': ['a', 'c'] }, false],
  ['ForAllValues:StringEquals',  ['a', 'b'],              EMPTY,                 true],
  ['ForAllValues:StringEquals',  ['a', 'b'],              ABSENT,                true],
  ['ForAllValues:StringEquals',  [],                      EMPTY,                 true],
  ['ForAllValues:StringEquals',  [],                      one('a'),              false],
  ['ForAllValues:StringNotEquals', ['a'],                 { 'key:k': ['b', 'c'] }, true],
  ['ForAllValues:StringNotEquals', ['a'],                 { 'key:k': ['a', 'c'] }, false],
  ['ForAnyValue:StringEquals',   ['a', 'b'],              { 'key:k': ['c', 'b'] }, true],
  ['ForAnyValue:StringEquals',   ['a', 'b'],              { 'key:k': ['c', 'd'] }, false],
  ['ForAnyValue:StringEquals',   ['a'],                   EMPTY,                 false],
  ['ForAnyValue:StringNotEquals',['a'],                   ABSENT,                false],
  ['ForAnyValue:StringNotEquals',['a'],                   { 'key:k': ['a', 'b'] }, true],
  ['ForAnyValue:StringEqualsIfExists', ['a'],             ABSENT,                true],
  ['ForAnyValue:StringLike',     ['a*'],                  { 'key:k': ['b', 'ab'] }, true],
]

for (const [operator, expected, given, answer] of ROWS) {
  test(`${operator} ${JSON.stringify(expected)} ${answer ? 'holds' : 'does not hold'} for ${JSON.stringify(given)}`, (t) => {
    t.is(holds(operator, expected, given), answer)
    t.is(holds(operator.toLowerCase(), expected, given), answer)
  })
}

test('a key of several values without a set prefix is decided against the device', (t) => {
  const two = { 'key:k': ['a', 'b'] }
  t.false(holds('StringEquals', ['a'], two, 'Allow'))
  t.true(holds('StringEquals', ['a', 'b'], two, 'Allow'))
  t.true(holds('StringEquals', ['a'], two, 'Deny'))
  t.false(holds('StringNotEquals', ['a'], two, 'Allow'))
  t.true(holds('StringNotEquals', ['a'], two, 'Deny'))
})

test('a variable without a value never equals, and is no reason to allow', (t) => {
  t.false(holds('StringEquals', ['${v:v}'], one('a'), 'Allow'))
  t.false(holds('StringEquals', ['${v:v}'], one('a'), 'Deny'))
  t.false(holds('StringNotEquals', ['${v:v}'], one('a'), 'Allow'))
  t.true(holds('StringNotEquals', ['${v:v}'], one('a'), 'Deny'))
  t.false(holds('ArnNotLike', ['arn:aws:iot:r:1:${v:v}'], one('arn:aws:iot:r:1:b'), 'Allow'))
  t.true(holds('StringEquals', ['${v:v}', 'a'], one('a'), 'Allow'))
})

test('the value of a key is compared as it is, wildcards and all', (t) => {
  t.true(holds('StringEquals', ['a+#$'], one('a+#$')))
  t.true(holds('StringLike', ['a*'], one('a?')))
})

test('operators have one spelling, whatever the policy wrote', (t) => {
  t.is(operatorName('forallvalues:stringequalsifexists')?.spelling, 'ForAllValues:StringEqualsIfExists')
  for (const none of [
    '',
    ':',
    'IfExists',
    'ForAllValues:',
    'a:b:StringEquals',
    'ForAnyValue:Null',
    'BinaryEquals',
    '__proto__',
  ]) {
    t.is(operatorName(none), null, none)
  }
})

const DATES: readonly (readonly [text: string, seconds: number | null])[] = [
  ['2030', 1_893_456_000],
  ['2030-01', 1_893_456_000],
  ['2030-01-01', 1_893_456_000],
  ['2030-01-01T00:00Z', 1_893_456_000],
  ['2030-01-01T00:00:00.999Z', 1_893_456_000],
  ['2029-12-31T19:00:00-05:00', 1_893_456_000],
  ['1893456000', 1_893_456_000],
  ['2024-02-29', 1_709_164_800],
  ['2023-02-29', null],
  ['2030-13', null],
  ['2030-00', null],
  ['2030-01-00', null],
  ['2030-01-01T24:00Z', null],
  ['2030-01-01T00:00', null],
  ['2030-01-01T00:00+24:00', null],
  ['0050-01-01', null],
  ['', null],
]

for (const [text, seconds] of DATES) {
  test(`the date "${text}" is ${seconds ?? 'refused'} [NOTE-datetime]`, (t) => {
    t.is(dateOf(text), seconds)
  })
}
