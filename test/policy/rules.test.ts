import test from 'ava'
import fc from 'fast-check'
import { matches, type Piece, patternOf } from '../../src/policy/pattern.ts'
import { ResourceSet } from '../../src/policy/rules.ts'
import { resourcesOutside } from '../../src/policy/statement.ts'
import { ARN, documentOf, HEAD } from './support.ts'

const text = fc.string({ unit: fc.constantFrom('a', 'b', '/', '😀', '\uffff'), maxLength: 6 })
const piece: fc.Arbitrary<Piece> = fc.oneof(
  { weight: 3, arbitrary: text.map((value): Piece => ({ kind: 'text', text: value })) },
  { weight: 2, arbitrary: fc.constant<Piece>({ kind: 'any' }) },
  { weight: 1, arbitrary: fc.constant<Piece>({ kind: 'one' }) },
)
const patterns = fc.array(fc.array(piece, { minLength: 1, maxLength: 5 }).map(patternOf), { maxLength: 30 })

test('a set has what one of its patterns matches, however many there are', (t) => {
  fc.assert(
    fc.property(patterns, fc.array(text, { minLength: 1, maxLength: 10 }), (all, resources) => {
      const set = new ResourceSet(all)
      for (const resource of resources) {
        t.is(
          set.has(resource),
          all.some((pattern) => matches(pattern, resource)),
          JSON.stringify([all, resource]),
        )
      }
      t.is(set.empty, all.length === 0)
    }),
    { numRuns: 5_000 },
  )
  t.pass()
})

test('a set covers a prefix only if it has everything under it', (t) => {
  fc.assert(
    fc.property(patterns, text, text, (all, prefix, rest) => {
      const set = new ResourceSet(all)
      if (set.covers(prefix)) t.true(set.has(prefix + rest))
    }),
    { numRuns: 5_000 },
  )
  t.pass()
})

test('resources that can never match under a head are told', (t) => {
  const here = `${ARN}topic/a`
  const elsewhere = 'arn:aws:iot:eu-west-1:123456789012:topic/${iot:ClientId}'
  const document = documentOf({
    Effect: 'Allow',
    Action: '*',
    Resource: ['*', here, elsewhere, 'arn:*:iot:*:*:topic/a', 'arn:aws:greengrass:r:1:x'],
  })
  t.deepEqual(resourcesOutside(document, HEAD), [elsewhere])
})
