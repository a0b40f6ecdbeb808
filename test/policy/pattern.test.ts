import test from 'ava'
import fc from 'fast-check'
import { matches, type Pattern, type Piece, patternOf } from '../../src/policy/pattern.ts'
import { fill, parseTemplate } from '../../src/policy/template.ts'
import { values } from './support.ts'

function pattern(text: string): Pattern {
  const parse = parseTemplate(text, true)
  if (parse.kind === 'invalid') throw new Error(parse.message)
  return patternOf(fill(parse.template, values({}))!)
}

const KINDS: Readonly<Record<string, Pattern['kind']>> = {
  '': 'exact',
  abc: 'exact',
  'a${*}c': 'exact',
  '*': 'everything',
  '**': 'everything',
  'a*': 'prefix',
  'a**': 'prefix',
  'a?': 'glob',
  '*a': 'glob',
  'a*b': 'glob',
}

for (const [text, kind] of Object.entries(KINDS)) {
  test(`"${text}" is held as ${kind}`, (t) => {
    t.is(pattern(text).kind, kind)
  })
}

const ROWS: readonly (readonly [pattern: string, text: string, matches: boolean])[] = [
  ['', '', true],
  ['', 'a', false],
  ['*', '', true],
  ['?', '', false],
  ['?', '😀', true],
  ['??', '😀', false],
  ['*?', '😀', true],
  ['*??', '😀', false],
  ['*??', 'x😀', true],
  ['*???', 'x😀', false],
  ['?*?', '😀', false],
  ['a*a', 'a', false],
  ['a*a', 'aa', true],
  ['ab*ba', 'aba', false],
  ['*ab*ab*', 'ab', false],
  ['*ab*ab*', 'abab', true],
  ['*a?b*', 'aab', true],
  ['*a?b*', 'aaxb', true],
  ['*a?b*', 'ab', false],
  ['a*b*c', 'a/b/b/c', true],
  ['a*b*c', 'a/c/b', false],
  ['*.?', 'a.b', true],
  ['*.?', 'a.bc', false],
  ['line\n*', 'line\nbreak', true],
]

for (const [text, subject, expected] of ROWS) {
  test(`"${text.replace('\n', '\\n')}" ${expected ? 'matches' : 'does not match'} "${subject.replace('\n', '\\n')}"`, (t) => {
    t.is(matches(pattern(text), subject), expected)
  })
}

test('any pattern and any text agree with a regular expression', (t) => {
  const piece: fc.Arbitrary<Piece> = fc.oneof(
    fc.constant<Piece>({ kind: 'any' }),
    fc.constant<Piece>({ kind: 'one' }),
    fc.constantFrom('', 'a', 'b', 'ab', '.', '😀', '\n').map((text): Piece => ({ kind: 'text', text })),
  )
  const subject = fc.string({ unit: fc.constantFrom('a', 'b', '.', '😀', '\n'), maxLength: 10 })
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 8 }), subject, (pieces, text) => {
      const source = pieces.map((item) =>
        item.kind === 'any' ? '[\\s\\S]*' : item.kind === 'one' ? '[\\s\\S]' : item.text.replace('.', '\\.'),
      )
      t.is(matches(patternOf(pieces), text), new RegExp(`^${source.join('')}$`, 'u').test(text))
    }),
    { numRuns: 30_000 },
  )
  t.pass()
})

test('no topic makes a pattern slow', (t) => {
  const topic = 'a'.repeat(65_535)
  const hostile = [
    '*a*a*a*a*a*a*b',
    `*${'a'.repeat(1023)}b*`,
    `*b${'a'.repeat(1023)}*`,
    `${'*a?'.repeat(300)}b*`,
    `*${'?'.repeat(300)}b`,
  ]
  const started = performance.now()
  for (const text of hostile) t.false(matches(pattern(text), topic), text)
  // Backtracking would take longer than the world stands; this is for a machine that is busy otherwise.
  t.true(performance.now() - started < 5_000)
})
