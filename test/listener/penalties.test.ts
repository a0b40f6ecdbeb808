import test from 'ava'
import { admissionCounters } from '../../src/control/admission-metrics.ts'
import { Penalties } from '../../src/listener/penalties.ts'
import type { Place } from '../../src/listener/places.ts'

const SETTINGS = { certificates: 5_000, addressAfter: 3, addressWithin: 60_000, addressPause: 10_000 }

function rig(over: Partial<typeof SETTINGS> = {}, max?: number) {
  const clock = { now: 0, random: 0.5 }
  const counters = admissionCounters()
  const penalties = new Penalties({
    settings: { ...SETTINGS, ...over },
    counters,
    now: () => clock.now,
    random: () => clock.random,
    ...(max !== undefined && { max }),
  })
  const place = (key = '192.0.2.1'): Place => ({ key, connections: 1, inFlight: 0, proved: 0 })
  const strike = (times: number, at: Place, code = 'ERR_CERTIFICATE_UNTRUSTED_CA' as const) => {
    for (let time = 0; time < times; time++) penalties.refused('a.example', at, code)
  }
  return { clock, counters, penalties, place, strike }
}

test('a refused certificate is refused again with the same code, for a jittered time, in its domain only', (t) => {
  const { clock, counters, penalties } = rig()
  penalties.remember('a.example', 'AB:CD', 'ERR_CERTIFICATE_REVOKED')
  t.throws(() => penalties.recall('a.example', () => 'AB:CD'), { code: 'ERR_CERTIFICATE_REVOKED' })
  t.notThrows(() => penalties.recall('b.example', () => 'AB:CD'))
  t.notThrows(() => penalties.recall('a.example', () => 'AB:CE'))
  clock.now = 7_499
  t.throws(() => penalties.recall('a.example', () => 'AB:CD'))
  clock.now = 7_500
  t.notThrows(() => penalties.recall('a.example', () => 'AB:CD'))
  t.is(counters.refused.certificate_refused, 2)
})

test('what is our own fault, or what a device grows into or out of, is asked again', (t) => {
  const { penalties } = rig()
  for (const code of [
    'ERR_IDENTITY_FAULT',
    'ERR_AUTHORIZER_UNAVAILABLE',
    'ERR_CRL_EXPIRED',
    'ERR_CERTIFICATE_NOT_YET_VALID',
    'ERR_CERTIFICATE_INACTIVE',
    'ERR_CERTIFICATE_NOT_REGISTERED',
  ] as const) {
    penalties.remember('a.example', 'AB:CD', code)
    t.notThrows(() => penalties.recall('a.example', () => 'AB:CD'), code)
  }
})

test('while nothing is remembered no fingerprint is worked out', (t) => {
  const { penalties } = rig()
  penalties.recall('a.example', () => {
    throw t.fail()
  })
  t.pass()
})

test('an address pauses after so many refusals, and not before', (t) => {
  const { clock, counters, penalties, place, strike } = rig()
  const here = place()
  strike(2, here)
  t.notThrows(() => penalties.check('a.example', here))
  strike(1, here)
  t.throws(() => penalties.check('a.example', here), { code: 'ERR_ADDRESS_REFUSED' })
  t.notThrows(() => penalties.check('b.example', here))
  t.notThrows(() => penalties.check('a.example', place('192.0.2.2')))
  clock.now = 14_999
  t.throws(() => penalties.check('a.example', here))
  clock.now = 15_000
  t.notThrows(() => penalties.check('a.example', here))
  t.is(counters.refused.address_refused, 2)
})

test('refusals that come slowly are no reason to pause', (t) => {
  const { clock, penalties, place, strike } = rig()
  const here = place()
  for (let time = 0; time < 10; time++) {
    clock.now += 30_001
    strike(1, here)
  }
  t.notThrows(() => penalties.check('a.example', here))
})

test('one device that is known, now or in between, keeps its address out of it', (t) => {
  const { penalties, place, strike } = rig()
  const [between, live] = [place('192.0.2.1'), place('192.0.2.2')]
  strike(2, between)
  penalties.accepted('a.example', between)
  strike(2, between)
  t.notThrows(() => penalties.check('a.example', between))

  live.proved = 1
  strike(100, live)
  live.proved = 0
  t.notThrows(() => penalties.check('a.example', live))
  strike(3, live)
  live.proved = 1
  t.notThrows(() => penalties.check('a.example', live))
})

test('of a pausing address one in eight is let through, so that a good device behind it gets in', (t) => {
  const { clock, penalties, place, strike } = rig()
  const here = place()
  strike(3, here)
  clock.random = 0.124
  t.notThrows(() => penalties.check('a.example', here))
  clock.random = 0.126
  t.throws(() => penalties.check('a.example', here))
})

test('faults of ours and of the broker do not count against an address', (t) => {
  const { penalties, place } = rig()
  const here = place()
  for (let time = 0; time < 100; time++) {
    penalties.refused('a.example', here, 'ERR_IDENTITY_FAULT')
    penalties.refused('a.example', here, 'ERR_BACKEND_REFUSED')
    penalties.refused('a.example', here, 'ERR_KEEP_ALIVE_TIMEOUT')
  }
  t.is(penalties.size, 0)
})

test('a change of the registry forgets everything', (t) => {
  const { penalties, place, strike } = rig()
  const here = place()
  strike(3, here)
  penalties.remember('a.example', 'AB:CD', 'ERR_CERTIFICATE_REVOKED')
  penalties.clear()
  t.is(penalties.size, 0)
  t.notThrows(() => penalties.check('a.example', here))
  t.notThrows(() => penalties.recall('a.example', () => 'AB:CD'))
})

test('no more is remembered than there is room for, and 0 remembers nothing', (t) => {
  const { penalties, place, strike } = rig({}, 10)
  for (let index = 0; index < 100; index++) {
    strike(1, place(`192.0.2.${index}`))
    penalties.remember('a.example', `${index}`, 'ERR_CERTIFICATE_REVOKED')
  }
  t.is(penalties.size, 20)
  const off = rig({ certificates: 0, addressPause: 0 })
  off.strike(100, off.place())
  off.penalties.remember('a.example', 'AB', 'ERR_CERTIFICATE_REVOKED')
  t.is(off.penalties.size, 0)
})
