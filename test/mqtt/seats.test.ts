import test from 'ava'
import type { Principal } from '../../src/auth/authenticator.ts'
import { admissionCounters } from '../../src/control/admission-metrics.ts'
import { refusal } from '../../src/mqtt/reason.ts'
import { type SeatLimits, Seats } from '../../src/mqtt/seats.ts'

const principal = (id: string, method: Principal['method'] = 'x509'): Principal =>
  ({ id, method, attributes: {} }) as unknown as Principal

function rig(limits: Partial<SeatLimits>) {
  const counters = admissionCounters()
  const state = { overloaded: false }
  const seats = new Seats({
    limitsFor: () => ({ most: null, perPrincipal: null, ...limits }),
    overloaded: () => state.overloaded,
    counters,
  })
  return { seats, counters, state }
}

test('a domain has so many sessions; one that ends makes room, once', (t) => {
  const { seats, counters } = rig({ most: 2 })
  const first = seats.take('a.example', principal('1'))
  seats.take('a.example', principal('2'))
  t.throws(() => seats.take('a.example', principal('3')), { code: 'ERR_DOMAIN_SESSIONS' })
  t.throws(() => seats.check('a.example'), { code: 'ERR_DOMAIN_SESSIONS' })
  t.notThrows(() => seats.check('b.example'))
  first.leave()
  first.leave()
  t.notThrows(() => seats.take('a.example', principal('3')))
  t.throws(() => seats.take('a.example', principal('4')))
  t.is(counters.refused.domain_sessions, 3)
})

test('a principal has so many sessions in a domain, and who is refused takes nothing', (t) => {
  const { seats, counters } = rig({ most: 3, perPrincipal: 1 })
  const first = seats.take('a.example', principal('1'))
  t.throws(() => seats.take('a.example', principal('1')), { code: 'ERR_PRINCIPAL_SESSIONS' })
  t.notThrows(() => seats.take('a.example', principal('1', 'sigv4')))
  t.notThrows(() => seats.take('a.example', principal('2')))
  t.throws(() => seats.take('a.example', principal('3')), { code: 'ERR_DOMAIN_SESSIONS' })
  first.leave()
  t.notThrows(() => seats.take('a.example', principal('1')))
  t.is(counters.refused.principal_sessions, 1)
})

test('devices that only the broker knows share no principal', (t) => {
  const { seats } = rig({ perPrincipal: 1 })
  seats.take('a.example', principal('a.example', 'backend' as Principal['method']))
  t.notThrows(() => seats.take('a.example', principal('a.example', 'backend' as Principal['method'])))
})

test('without limits nothing is counted, and overload refuses all the same', (t) => {
  const { seats, counters, state } = rig({})
  seats.take('a.example', principal('1'))
  t.is(seats.size, 0)
  state.overloaded = true
  t.throws(() => seats.take('a.example', principal('1')), { code: 'ERR_OVERLOADED' })
  t.is(counters.refused.overloaded, 1)
})

test('each version of MQTT has words for it: server busy, quota exceeded, and server unavailable', (t) => {
  t.is(refusal('ERR_OVERLOADED', 5)?.toString('hex'), '2003008900')
  t.is(refusal('ERR_DOMAIN_SESSIONS', 5)?.toString('hex'), '2003009700')
  t.is(refusal('ERR_PRINCIPAL_SESSIONS', 5)?.toString('hex'), '2003009700')
  for (const code of ['ERR_OVERLOADED', 'ERR_DOMAIN_SESSIONS', 'ERR_PRINCIPAL_SESSIONS'] as const) {
    t.is(refusal(code, 4)?.toString('hex'), '20020003')
  }
})
