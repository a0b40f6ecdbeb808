import test from 'ava'
import fc from 'fast-check'
import { percentiles, quantile, ratio, short, spread } from '../../bench/harness/statistics.ts'

test('a quantile lies between its two neighbours', (t) => {
  t.is(quantile([1, 2, 3, 4], 0.5), 2.5)
  t.is(quantile([1, 2, 3, 4], 0), 1)
  t.is(quantile([1, 2, 3, 4], 1), 4)
  t.is(quantile([7], 0.99), 7)
  t.is(quantile([], 0.5), Number.NaN)
})

test('a spread does not depend on the order of the rounds', (t) => {
  t.deepEqual(spread([30, 10, 50, 20, 40]), { median: 30, min: 10, max: 50, low: 20, high: 40, rounds: 5 })
})

test('the parts of a spread are in order, whatever was measured', (t) => {
  fc.assert(
    fc.property(
      fc.array(fc.double({ noNaN: true, noDefaultInfinity: true, min: 0, max: 1e9 }), { minLength: 1 }),
      (values) => {
        const { min, low, median, high, max } = spread(values)
        t.true(min <= low && low <= median && median <= high && high <= max)
      },
    ),
  )
})

test('a ratio is taken round by round', (t) => {
  // The machine was twice as slow in round 2, for both: the ratio knows nothing of it.
  const ours = new Map([
    [1, 10],
    [2, 20],
  ])
  const theirs = new Map([
    [1, 20],
    [2, 40],
  ])
  t.deepEqual(ratio(ours, theirs), { median: 0.5, min: 0.5, max: 0.5, low: 0.5, high: 0.5, rounds: 2 })
})

test('rounds that only one of two was measured in make no ratio', (t) => {
  t.is(ratio(new Map([[1, 10]]), new Map([[2, 10]])), null)
  t.is(ratio(new Map([[1, 10]]), new Map([[1, 0]])), null)
})

test('percentiles are those of sorted latencies', (t) => {
  const latencies = Array.from({ length: 101 }, (_, at) => at)
  t.deepEqual(percentiles(latencies), { p50Ms: 50, p90Ms: 90, p99Ms: 99, maxMs: 100 })
})

for (const [value, text] of [
  [0, '0'],
  [0.0123, '0.012'],
  [0.4826, '0.483'],
  [1.234, '1.23'],
  [12.34, '12.3'],
  [123.4, '123'],
  [12345.6, '12,346'],
  [Number.NaN, '–'],
  [Number.POSITIVE_INFINITY, '–'],
] as const) {
  test(`${value} is written ${text}`, (t) => {
    t.is(short(value), text)
  })
}
