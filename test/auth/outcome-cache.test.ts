import test from 'ava'
import fc from 'fast-check'
import { type Answer, REFUSED } from '../../src/auth/answer.ts'
import { keyOver, OutcomeCache } from '../../src/auth/outcome-cache.ts'
import { NO_GRANTS } from '../../src/policy/permit.ts'

const SIGNAL = new AbortController().signal

const yes = (refreshAfterMs: number | null = null): Answer => ({
  kind: 'yes',
  principalId: 'a',
  attributes: {},
  documents: [],
  grants: NO_GRANTS,
  policies: [],
  disconnectAfterMs: 86_400_000,
  refreshAfterMs,
})

function cacheAt(clock: { now: number }, random = 0, max?: number) {
  const cache = new OutcomeCache({ now: () => clock.now, random: () => random, ...(max !== undefined && { max }) })
  let asked = 0
  const get = (key: string, keepMs: number, answer: Answer | Error, signal = SIGNAL) =>
    cache.get(
      key,
      keepMs,
      async () => {
        asked++
        if (answer instanceof Error) throw answer
        return answer
      },
      signal,
    )
  return { cache, get, asked: () => asked }
}

const kept = test.macro({
  async exec(t, _: string, answer: Answer, keepMs: number, expectedMs: number, random?: number) {
    const clock = { now: 1_000 }
    const { get, asked } = cacheAt(clock, random)
    await get('k', keepMs, answer)
    clock.now += expectedMs - 1
    const dated = await get('k', keepMs, answer)
    t.is(asked(), expectedMs > 0 ? 1 : 2)
    if (expectedMs > 0) t.is(dated.answeredAt, 1_000)
    clock.now += 1
    await get('k', keepMs, answer)
    t.is(asked(), expectedMs > 0 ? 2 : 3)
  },
  title: (_, what: string, _answer, _keep, ms: number) => `${what} is kept for ${ms} ms`,
})
test(kept, 'a yes', yes(), 60_000, 60_000)
test(kept, 'a yes that must be refreshed sooner', yes(10_000), 60_000, 10_000)
test(kept, 'a no', REFUSED, 60_000, 1_000)
test(kept, 'a no, by chance', REFUSED, 60_000, 1_500, 0.5)
test(kept, 'a no where less is set', REFUSED, 500, 500)

test('a fault is not kept', async (t) => {
  const { get, asked } = cacheAt({ now: 0 })
  await t.throwsAsync(get('k', 60_000, new Error('x')))
  t.is((await get('k', 60_000, yes())).answer.kind, 'yes')
  t.is(asked(), 2)
})

test('no more answers are kept than there is room for', async (t) => {
  const { get, asked } = cacheAt({ now: 0 }, 0, 2)
  for (const key of ['a', 'b', 'c', 'a']) await get(key, 60_000, yes())
  t.is(asked(), 4)
  await get('c', 60_000, yes())
  t.is(asked(), 4)
})

/** A question that the test answers. */
function held() {
  let end: (answer: Answer) => void = () => {}
  let fail: (error: Error) => void = () => {}
  let asked = 0
  let signal: AbortSignal | null = null
  const ask = (given: AbortSignal) => {
    asked++
    signal = given
    return new Promise<Answer>((resolve, reject) => {
      end = resolve
      fail = reject
      given.addEventListener('abort', () => reject(given.reason), { once: true })
    })
  }
  return {
    ask,
    end: (answer: Answer) => end(answer),
    fail: (error: Error) => fail(error),
    asked: () => asked,
    signal: () => signal,
  }
}

test('one question is under way for one key, and all get its answer or its fault', async (t) => {
  const { cache } = cacheAt({ now: 0 })
  const one = held()
  const asking = Array.from({ length: 10 }, () => cache.get('k', 60_000, one.ask, SIGNAL))
  t.is(one.asked(), 1)
  one.end(yes())
  for (const { answer } of await Promise.all(asking)) t.is(answer.kind, 'yes')

  const two = held()
  const failing = Array.from({ length: 3 }, () => cache.get('other', 60_000, two.ask, SIGNAL))
  two.fail(new Error('x'))
  for (const one of failing) await t.throwsAsync(one, { message: 'x' })
})

test('a question ends when the last who waits for it has left, and a newcomer asks anew', async (t) => {
  const { cache } = cacheAt({ now: 0 })
  const [one, two] = [new AbortController(), new AbortController()]
  const first = held()
  const asking = [cache.get('k', 60_000, first.ask, one.signal), cache.get('k', 60_000, first.ask, two.signal)]
  one.abort(new Error('left'))
  await t.throwsAsync(asking[0]!, { message: 'left' })
  t.false(first.signal()?.aborted)
  two.abort(new Error('left too'))
  await t.throwsAsync(asking[1]!, { message: 'left too' })
  t.true(first.signal()?.aborted)
  const second = held()
  const again = cache.get('k', 60_000, second.ask, SIGNAL)
  t.is(second.asked(), 1)
  second.end(yes())
  t.is((await again).answer.kind, 'yes')
})

test('who has left before asking is not answered', async (t) => {
  const { get } = cacheAt({ now: 0 })
  await t.throwsAsync(get('k', 60_000, yes(), AbortSignal.abort(new Error('gone'))), { message: 'gone' })
})

test('two lists of fields have one key only if they are the same list', (t) => {
  const field = fc.oneof(fc.constant(null), fc.string({ maxLength: 4 }), fc.constantFrom('1:a', '-:', '0:', ':'))
  fc.assert(
    fc.property(fc.array(field, { maxLength: 4 }), fc.array(field, { maxLength: 4 }), (one, other) => {
      t.is(keyOver(one) === keyOver(other), JSON.stringify(one) === JSON.stringify(other))
    }),
  )
  t.not(keyOver(['ab', 'c']), keyOver(['a', 'bc']))
  t.not(keyOver([null]), keyOver(['']))
})
