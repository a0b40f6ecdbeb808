import test from 'ava'
import { GOVERNOR, SESSIONS, SHEDDING } from '../../src/config/governor-schema.ts'
import { contradictions } from '../../src/config/rules.ts'

const of = (shedding: unknown) =>
  contradictions({ shedding })
    .filter(({ path }) => path[0] === 'shedding')
    .map(({ path, message }) => `${path.join('.')} ${message}`)

test('without a word everything has a number, and limits that need a reason are off', (t) => {
  const governor = GOVERNOR.parse(undefined)
  t.deepEqual(governor.full, { inFlight: 512, perSecond: null })
  t.deepEqual(governor.resumed, { inFlight: 1_024, perSecond: null })
  t.deepEqual(governor.queue, { size: 8_192, timeout: 6_000 })
  t.deepEqual(governor.perAddress, { connections: null, inFlight: null, ipv6Prefix: 64 })
  t.deepEqual(SESSIONS.parse(undefined), { most: null, perPrincipal: null })
  t.deepEqual(SHEDDING.parse(undefined), {
    lag: { trickle: 250, refuse: 1_000, stall: 400 },
    memory: { limit: null, trickle: 85, refuse: 92 },
    descriptors: { trickle: 85, refuse: 95 },
    fullPerSecond: 50,
  })
})

test('a limit of memory is a size of any machine', (t) => {
  t.is(SHEDDING.parse({ memory: { limit: '4096MiB' } }).memory.limit, 4_294_967_296)
  for (const limit of ['4096', '0MiB', '1KiB', 4_096, 'none'])
    t.false(SHEDDING.safeParse({ memory: { limit } }).success)
})

test('few come before none: a first stage above the second is refused, also against what is not written', (t) => {
  t.deepEqual(of({ lag: { trickle: '2s', refuse: '3s' }, memory: { trickle: 80 } }), [])
  t.deepEqual(of({ lag: { trickle: '2s' } }), ['shedding.lag.trickle is above refuse, which is 1s'])
  t.deepEqual(of({ memory: { trickle: 90, refuse: 80 }, descriptors: { refuse: 50 } }), [
    'shedding.memory.trickle is above refuse, which is 80',
    'shedding.descriptors.trickle is above refuse, which is 50',
  ])
})
