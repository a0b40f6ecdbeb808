import test from 'ava'
import { Lifetimes } from '../../src/mqtt/lifetimes.ts'
import { SlowConsumer } from '../../src/mqtt/slow-consumer.ts'

function rig() {
  const clock = { now: 0 }
  const lifetimes = new Lifetimes(() => clock.now)
  let stuck = 0
  const consumer = new SlowConsumer(lifetimes, 10_000, () => stuck++)
  return {
    consumer,
    lifetimes,
    stuck: () => stuck,
    pass(seconds: number) {
      for (let second = 0; second < seconds; second++) {
        clock.now += 1_000
        lifetimes.tick()
      }
    },
  }
}

test('whoever takes nothing for so long is stuck, once', (t) => {
  const { consumer, pass, stuck, lifetimes } = rig()
  consumer.full(true)
  pass(9)
  t.is(stuck(), 0)
  pass(1)
  t.is(stuck(), 1)
  pass(100)
  t.is(stuck(), 1)
  t.is(lifetimes.size, 0)
})

test('whoever takes everything now and then is not, and has one deadline at a time', (t) => {
  const { consumer, pass, stuck, lifetimes } = rig()
  for (let round = 0; round < 100; round++) {
    consumer.full(true)
    t.true(lifetimes.size <= 1)
    pass(1)
    consumer.full(false)
  }
  t.is(stuck(), 0)
  pass(20)
  t.is(stuck(), 0)
  t.is(lifetimes.size, 0)
})

test('the time counts from when it was last empty', (t) => {
  const { consumer, pass, stuck } = rig()
  consumer.full(true)
  pass(5)
  consumer.full(false)
  consumer.full(true)
  pass(9)
  t.is(stuck(), 0)
  pass(1)
  t.is(stuck(), 1)
})

test('stopped, nothing is left of it', (t) => {
  const { consumer, pass, stuck, lifetimes } = rig()
  consumer.full(true)
  consumer.stop()
  t.is(lifetimes.size, 0)
  pass(20)
  t.is(stuck(), 0)
})
