import test from 'ava'
import { campaign } from './campaign.ts'
import { mutator } from './mutate.ts'
import { shrink } from './shrink.ts'
import { belowOf, counted, must, pieces, type Target } from './target.ts'

const target = (check: Target['check']): Target => ({
  name: 'one',
  corpus: () => [Buffer.from('an input that is right, {"a":1}')],
  tokens: ['BOOM'],
  maxBytes: 200,
  kinds: ['fine'],
  cases: 1,
  check,
})

test('a parser that throws is found, and the input shrinks to what makes it throw', async (t) => {
  const broken = target((input) => {
    if (input.includes('BOOM')) throw new TypeError('it broke at 17')
    return 'fine'
  })
  const { findings, kinds } = await campaign(broken, { seed: 1, cases: 10_000, ms: 60_000 })
  t.is(findings.length, 1)
  t.is(findings[0]!.input.toString(), 'BOOM')
  t.is(findings[0]!.message, 'TypeError: it broke at 17')
  t.true(kinds.get('fine')! > 1_000)
})

test('a property that does not hold is found, also when the answer is a promise', async (t) => {
  const broken = target(async (input) => {
    must(input.length < 100, `${input.length} bytes`)
    return 'fine'
  })
  const { findings } = await campaign(broken, { seed: 1, cases: 10_000, ms: 60_000 })
  t.deepEqual(
    findings.map(({ input }) => input.length),
    [100],
  )
})

test('the same seed brings the same inputs, within their bound, and another seed others', (t) => {
  const corpus = [Buffer.alloc(50, 1), Buffer.from('other')]
  const run = (seed: number) => {
    const make = mutator(corpus, ['x'], 64)
    const below = belowOf(Buffer.from([seed]))
    return Array.from({ length: 2_000 }, () => make(below))
  }
  t.deepEqual(run(1), run(1))
  t.notDeepEqual(run(1), run(2))
  t.true(run(3).every((input) => input.length <= 64))
  t.true(new Set(run(3).map((input) => input.toString('hex'))).size > 1_500)
})

test('shrinking keeps what fails and makes the rest plain', async (t) => {
  const input = Buffer.from('abcdefgXhijklmnopqYrstuvwxyz')
  const smallest = await shrink(
    input,
    (candidate) => candidate.indexOf('X') < candidate.indexOf('Y') && candidate.includes('X') && candidate.length >= 5,
  )
  t.is(smallest.length, 5)
  t.regex(smallest.toString(), /X.*Y/)
  t.is(smallest.toString().replace(/[XY0]/g, ''), '')
})

test('pieces are the input, cut', (t) => {
  const input = Buffer.from('0123456789')
  for (let seed = 0; seed < 200; seed++) {
    const cut = pieces(input, belowOf(Buffer.from([seed])))
    t.deepEqual(Buffer.concat(cut), input)
    t.true(cut.length <= 5 && cut.every((piece) => piece.length > 0))
  }
})

test('looks are counted, and those outside are told', (t) => {
  const { view, looks, outside } = counted(Buffer.from('abc'))
  t.is(view[0], 97)
  t.is(view.subarray(1, 2)[0], 98)
  t.is(view[3], undefined)
  t.deepEqual([looks(), outside()], [3, 1])
})
