import test from 'ava'
import fc from 'fast-check'
import { type Balance, Balancer, REST_MS } from '../../src/backend/balancer.ts'

const NONE: ReadonlySet<number> = new Set()

/** A balancer, a clock that stands still unless moved, and dice that always give the longest rest. */
function make(count: number, balance: Balance = 'roundrobin', random = () => 0) {
  const clock = { ms: 1_000_000 }
  const balancer = new Balancer(count, balance, () => clock.ms, random)
  /** Chooses and forgets at once, as an attempt that was over quickly. */
  const turn = (tried: ReadonlySet<number> = NONE) => {
    const at = balancer.choose(tried)
    if (at !== null) balancer.ended(at)
    return at
  }
  const turns = (times: number) => Array.from({ length: times }, () => turn())
  return { balancer, clock, turn, turns }
}

test('roundrobin takes them in turn', (t) => {
  t.deepEqual(make(3).turns(7), [0, 1, 2, 0, 1, 2, 0])
})

test('leastconn takes the one with the fewest streams, and ties in turn', (t) => {
  const { balancer, turns } = make(3, 'leastconn')
  t.deepEqual([balancer.choose(NONE), balancer.choose(NONE), balancer.choose(NONE)], [0, 1, 2])
  balancer.ended(1)
  t.deepEqual(turns(2), [1, 1])
  balancer.ended(0)
  balancer.ended(2)
  t.deepEqual(turns(4), [2, 0, 1, 2])
})

test('an attempt under way counts as a stream', (t) => {
  const { balancer } = make(2, 'leastconn')
  t.deepEqual(
    [0, 1, 2, 3].map(() => balancer.choose(NONE)),
    [0, 1, 0, 1],
  )
})

test('what has been tried is not chosen again, and in the end nothing is', (t) => {
  const { turn } = make(2)
  t.is(turn(new Set([0])), 1)
  t.is(turn(new Set([0, 1])), null)
  t.is(make(0).turn(), null)
})

test('a server that failed rests, then one choice probes it', (t) => {
  const { balancer, clock, turns } = make(2)
  balancer.failed(0)
  t.deepEqual(turns(3), [1, 1, 1])
  clock.ms += REST_MS - 1
  t.deepEqual(turns(2), [1, 1])
  clock.ms += 1
  t.deepEqual(turns(3), [0, 1, 1], 'one probe, the others go elsewhere')
})

test('a probe that succeeds ends the rest', (t) => {
  const { balancer, clock, turns } = make(2)
  balancer.failed(0)
  clock.ms += REST_MS
  t.deepEqual(turns(1), [0])
  balancer.succeeded(0)
  t.deepEqual(turns(2), [1, 0])
})

test('rests double from 1 s to 30 s', (t) => {
  const { balancer, clock, turn } = make(2)
  const rests: number[] = []
  balancer.failed(0)
  for (let probe = 0; probe < 8; probe++) {
    const startMs = clock.ms
    // Server 1 takes every turn until server 0 is due again; that turn is a probe, and it fails.
    while (turn() !== 0) clock.ms += 500
    balancer.failed(0)
    rests.push(clock.ms - startMs)
  }
  t.deepEqual(rests, [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000])
})

test('a hundred attempts that fail together are one failure', (t) => {
  const { balancer, clock, turn } = make(2)
  for (let i = 0; i < 100; i++) balancer.failed(0)
  clock.ms += REST_MS
  t.is(turn(new Set([1])), 0)
  t.is(turn(), 1)
})

test('up to half of a rest is left to chance', (t) => {
  const { balancer, clock, turns } = make(2, 'roundrobin', () => 0.999_999)
  balancer.failed(0)
  clock.ms += REST_MS / 2 - 1
  t.deepEqual(turns(2), [1, 1])
  clock.ms += 2
  t.true(turns(2).includes(0))
})

test('when all rest, they are chosen all the same', (t) => {
  const { balancer, turns } = make(2)
  balancer.failed(0)
  balancer.failed(1)
  t.deepEqual(turns(4), [0, 1, 0, 1])
})

test('one attempt comes to every server once, whatever happened before', (t) => {
  const event = fc.record({ at: fc.nat(4), kind: fc.constantFrom('failed', 'succeeded', 'chosen', 'later') })
  fc.assert(
    fc.property(fc.constantFrom<Balance>('leastconn', 'roundrobin'), fc.array(event), (balance, events) => {
      const { balancer, clock, turn } = make(5, balance, Math.random)
      for (const { at, kind } of events) {
        if (kind === 'failed') balancer.failed(at)
        else if (kind === 'succeeded') balancer.succeeded(at)
        else if (kind === 'chosen') balancer.choose(NONE)
        else clock.ms += at * 700
      }
      const tried = new Set<number>()
      for (let step = 0; step < 5; step++) tried.add(turn(tried)!)
      t.deepEqual([...tried].sort(), [0, 1, 2, 3, 4])
      t.is(turn(tried), null)
    }),
  )
})
