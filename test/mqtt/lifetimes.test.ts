import test from 'ava'
import { type Due, Lifetimes } from '../../src/mqtt/lifetimes.ts'

function lifetimesAt(start: number) {
  let now = start
  const lifetimes = new Lifetimes(() => now)
  const told: string[] = []
  const mortal = (name: string) => ({ due: (what: Due) => told.push(`${name} ${what}`) })
  const pass = (ms: number) => {
    now += ms
    lifetimes.tick()
  }
  return { lifetimes, told, mortal, pass }
}

test('a deadline is due when its time is over, not before, and within a second', (t) => {
  const { lifetimes, told, mortal, pass } = lifetimesAt(123_456)
  lifetimes.add(123_456 + 300_000, 'end', mortal('a'))
  pass(299_999)
  t.deepEqual(told, [])
  pass(1_001)
  t.deepEqual(told, ['a end'])
  t.is(lifetimes.size, 0)
})

test('what was due already is due with the next tick', (t) => {
  const { lifetimes, told, mortal, pass } = lifetimesAt(5_000)
  lifetimes.add(-1, 'end', mortal('a'))
  t.deepEqual(told, [])
  pass(1_000)
  t.deepEqual(told, ['a end'])
})

test('after a stall everything that came due meanwhile is told, the earlier first', (t) => {
  const { lifetimes, told, mortal, pass } = lifetimesAt(0)
  lifetimes.add(3_000, 'end', mortal('b'))
  lifetimes.add(2_000, 'refresh', mortal('a'))
  pass(60_000)
  t.deepEqual(told, ['a refresh', 'b end'])
})

test('what is removed is never told, also by somebody who is told in the same second', (t) => {
  const { lifetimes, told, mortal, pass } = lifetimesAt(0)
  const b = lifetimes.add(1_000, 'end', mortal('b'))
  lifetimes.remove(b)
  lifetimes.remove(b)
  const c = { due: () => lifetimes.remove(d) }
  lifetimes.add(2_000, 'end', c)
  const d = lifetimes.add(2_000, 'end', mortal('d'))
  pass(10_000)
  t.deepEqual(told, [])
  t.is(lifetimes.size, 0)
})

test('after a long time with nothing to do, nothing is made up for', (t) => {
  const { lifetimes, told, mortal, pass } = lifetimesAt(0)
  pass(1_000_000_000_000)
  lifetimes.add(1_000_000_001_000, 'end', mortal('a'))
  pass(1_000)
  t.deepEqual(told, ['a end'])
})
