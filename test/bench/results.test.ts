import test from 'ava'
import { capacityRows, constantsOf, need, parseFleet, USED_SHARE } from '../../bench/capacity.ts'
import { type Answer, casesOf } from '../../bench/harness/summary.ts'
import { standings } from '../../bench/harness/targets.ts'
import { chartName, resultsPage } from '../../bench/results.ts'
import { measured, runOf } from './samples.ts'

function answer(
  question: string,
  name: string,
  figure: string,
  values: Readonly<Record<string, readonly number[]>>,
): Answer {
  const figures = { [figure]: { label: 'CPU', unit: 'µs', better: 'less' } } as const
  const all = Object.entries(values).flatMap(([peer, rounds]) =>
    rounds.map((value, at) => measured({ question, case: name, peer, round: at + 1, values: { [figure]: value } })),
  )
  const cases = casesOf(all, figures, Object.keys(values))
  return {
    question,
    title: 'Q?',
    about: '',
    figures,
    references: ['haproxy'],
    cases,
    gaps: [],
    failure: null,
    seconds: 1,
  }
}

const HANDSHAKE = answer('handshake', 'certificates of a CA', 'cpuUs', {
  brokergate: [1_000, 1_200, 1_100],
  haproxy: [2_500, 3_000, 2_500],
})

test('what is to be reached is said to be reached, missed, or not measured', (t) => {
  const target = { what: 'x', question: 'handshake', case: 'certificates of a CA', figure: 'cpuUs', most: 0.45 }
  const [reached, missed, unknown] = standings(
    [HANDSHAKE],
    [
      { ...target, of: 'haproxy' },
      { ...target, of: 'haproxy', most: 0.3 },
      { ...target, of: 'nginx' },
    ],
  )
  t.is(reached?.ratio, 0.4)
  t.true(reached?.reached)
  t.false(missed?.reached)
  t.deepEqual([unknown?.ratio, unknown?.reached], [null, null])
})

test('the results name every row that is not reached', (t) => {
  const slow = answer('handshake', 'certificates of a CA', 'cpuUs', { brokergate: [3_000], haproxy: [1_000] })
  const page = resultsPage(runOf([slow]))
  t.regex(page, /\| full handshake, CPU \| 0\.45 × haproxy \| 3\.00 \| \*\*not reached\*\* \|/)
  t.regex(page, /\| resumed handshake, CPU \| 0\.5 × haproxy \| – \| not measured \|/)
})

test('a gap is in the results with its reason', (t) => {
  const gaps = [{ type: 'gap', question: 'handshake', case: null, peer: 'nginx', reason: 'is away' }] as const
  t.true(resultsPage(runOf([{ ...HANDSHAKE, gaps }])).includes('- not answered: nginx: is away'))
})

test('the name of a chart is a name of a file', (t) => {
  t.is(chartName('publish', 'QoS 1, 128 B, one in flight'), 'publish-qos-1-128-b-one-in-flight.svg')
})

test('constants are read back from the page that they were written to', (t) => {
  const page = resultsPage(runOf([HANDSHAKE, answer('memory', '5,000 sessions', 'kilobytes', { brokergate: [24.5] })]))
  const { connectUs, sessionKb, messageUs } = constantsOf(page)
  t.deepEqual([connectUs, sessionKb, messageUs], [1_100, 24.5, Number.NaN])
  t.is(capacityRows([HANDSHAKE]).length, 6)
})

test('cores follow from work per second, memory from sessions and workers', (t) => {
  const constants = { connectUs: 1_000, resumedUs: 500, messageUs: 20, deliveryUs: 10, sessionKb: 20, processMb: 90 }
  const fleet = { devices: 102_400, connects: 120, resumed: 0, messages: 30_000, deliveries: 0 }
  // 0.12 s of handshakes and 0.6 s of messages each second.
  const { cores, memoryMb } = need(fleet, constants)
  t.true(Math.abs(cores - 0.72 / USED_SHARE) < 1e-9)
  t.is(memoryMb, 2 * 90 + 2_000)
})

test('a fleet is told by its numbers, and nothing else', (t) => {
  t.deepEqual(parseFleet('devices=10,connects=2'), { devices: 10, connects: 2, resumed: 0, messages: 0, deliveries: 0 })
  t.is(parseFleet('devices=ten'), null)
  t.is(parseFleet('cars=3'), null)
})
