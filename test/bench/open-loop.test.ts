import test from 'ava'
import fc from 'fast-check'
import { due, dueAt, runOpenLoop } from '../../bench/load/open-loop.ts'

test('the first arrival is due at once, the others at their distance', (t) => {
  t.is(due(-1, 100, 5), 0)
  t.is(due(0, 100, 5), 1)
  t.is(due(9.9, 100, 5), 1)
  t.is(due(10, 100, 5), 2)
  t.is(due(1_000, 100, 5), 5)
})

test('an arrival is due when the schedule says so, at every rate', (t) => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 100_000 }), fc.integer({ min: 0, max: 10_000 }), (rate, index) => {
      const at = dueAt(index, rate)
      t.true(due(at + 1e-6, rate, index + 10) > index)
      if (index > 0) t.true(due(at - 500 / rate, rate, index + 10) <= index)
    }),
  )
})

/** A clock that stands until somebody waits, and then jumps. */
function jumpingClock(jumpsMs: readonly number[]) {
  let now = 1_000
  const jumps = [...jumpsMs]
  return {
    clock: () => now,
    wait(then: () => void) {
      now += jumps.shift() ?? 1
      queueMicrotask(then)
    },
  }
}

test('a stall of the load moves no arrival: what was due in it is sent with the time it was due', async (t) => {
  const fired: [index: number, dueMs: number][] = []
  const result = await runOpenLoop({
    ratePerSecond: 100,
    total: 6,
    fire: (index, dueMs) => void fired.push([index, dueMs]),
    // 50 ms pass before the second look.
    ...jumpingClock([50]),
  })
  t.deepEqual(fired, [
    [0, 1_000],
    [1, 1_010],
    [2, 1_020],
    [3, 1_030],
    [4, 1_040],
    [5, 1_050],
  ])
  // Those due at 10 and 20 ms were sent 40 and 30 ms late.
  t.is(result.late, 2)
})

test('a load that keeps up is never late', async (t) => {
  const { late } = await runOpenLoop({ ratePerSecond: 1_000, total: 50, fire() {}, ...jumpingClock([]) })
  t.is(late, 0)
})
