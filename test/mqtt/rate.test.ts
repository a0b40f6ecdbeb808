import test from 'ava'
import { TokenBucket } from '../../src/mqtt/rate.ts'
import { ManualClock } from './gate-rig.ts'

test('as many a second as it says, and no more after a longer rest', (t) => {
  const clock = new ManualClock()
  const bucket = new TokenBucket(3, clock)
  const burst = () => [1, 2, 3, 4].map(() => bucket.take())
  t.deepEqual(burst(), [true, true, true, false])
  clock.pass(334)
  t.deepEqual([bucket.take(), bucket.take()], [true, false])
  clock.pass(60_000)
  t.deepEqual(burst(), [true, true, true, false])
})

test('a debt tells how long it takes to pay', (t) => {
  const clock = new ManualClock()
  const bucket = new TokenBucket(1_000, clock)
  t.is(bucket.owe(1_000), 0)
  t.is(bucket.owe(500), 500)
  clock.pass(250)
  t.is(bucket.owe(0), 250)
  clock.pass(250)
  t.is(bucket.owe(0), 0)
})
