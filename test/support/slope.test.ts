import test from 'ava'
import { type Sample, slopeOf, troughs } from './slope.ts'

const line = (life: string, level: number, perUnit: number, count = 10): Sample[] =>
  Array.from({ length: count }, (_, at) => ({ life, at, value: level + perUnit * at }))

test('a straight line has its own slope, and no error', (t) => {
  const { perUnit, standardError, samples } = slopeOf(line('a', 5, 2))
  t.is(perUnit, 2)
  t.true(standardError < 1e-9)
  t.is(samples, 10)
})

test('lives of different levels have their trend in common: a smaller successor is no fall', (t) => {
  const first = line('a', 100, 1)
  const second = line('b', 10, 1).map((sample) => ({ ...sample, at: sample.at + 10 }))
  t.true(Math.abs(slopeOf([...first, ...second]).perUnit - 1) < 1e-9)
})

test('noise makes an error that is larger than what it hides', (t) => {
  const noisy = line('a', 0, 0).map((sample) => ({ ...sample, value: sample.at % 2 === 0 ? 1 : -1 }))
  const { perUnit, standardError } = slopeOf(noisy)
  t.true(Math.abs(perUnit) < 2 * standardError)
})

test('too few samples tell nothing', (t) => {
  t.is(slopeOf(line('a', 1, 1, 2)).standardError, Number.POSITIVE_INFINITY)
  t.is(slopeOf([]).standardError, Number.POSITIVE_INFINITY)
})

test('of a sawtooth the troughs are kept, one for each life and stretch', (t) => {
  const saw = Array.from({ length: 12 }, (_, at) => ({ life: 'a', at, value: at % 4 === 1 ? 10 : 50 }))
  t.deepEqual(
    troughs(saw, 4).map(({ at, value }) => [at, value]),
    [
      [1, 10],
      [5, 10],
      [9, 10],
    ],
  )
})
