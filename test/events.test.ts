import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import test from 'ava'
import { type FailureCode, ProxyError } from '../src/errors.ts'
import {
  brokerSink,
  connectedEvent,
  connectFailedEvent,
  disconnectedEvent,
  logSink,
  moduleSink,
  registeredEvent,
  type SessionFacts,
  subscriptionEvent,
} from '../src/events.ts'

const FACTS: SessionFacts = {
  clientId: 'dev-7',
  principalId: 'ab'.repeat(32),
  thingName: null,
  remoteAddress: '198.51.100.4',
  sessionIdentifier: '7c1f0a52-0d6e-4b1f-9a53-2f6f1f0e9b11',
  versionNumber: 3,
}

test('connected says who, from where and which connection of this id it is', (t) => {
  const event = connectedEvent(FACTS)
  t.is(event?.topic, 'presence/connected/dev-7')
  t.like(event?.body, {
    clientId: 'dev-7',
    eventType: 'connected',
    sessionIdentifier: FACTS.sessionIdentifier,
    principalIdentifier: FACTS.principalId,
    ipAddress: '198.51.100.4',
    versionNumber: 3,
  })
  t.false('thingName' in (event?.body ?? {}))
  t.is(connectedEvent({ ...FACTS, thingName: 'sensor-1' })?.body.thingName, 'sensor-1')
})

test('disconnected has the reason, and says whether the device wished it', (t) => {
  t.like(disconnectedEvent(FACTS, 'CLIENT_INITIATED_DISCONNECT')?.body, { clientInitiatedDisconnect: true })
  t.like(disconnectedEvent(FACTS, 'CONNECTION_LOST')?.body, {
    clientInitiatedDisconnect: false,
    disconnectReason: 'CONNECTION_LOST',
    versionNumber: 3,
  })
})

test('connect_failed, subscribed and unsubscribed stand on their own topics', (t) => {
  t.is(connectFailedEvent(FACTS)?.topic, 'presence/connect_failed/dev-7')
  t.is(connectFailedEvent(FACTS)?.body.connectFailureReason, 'AUTHORIZATION_FAILED')
  t.like(subscriptionEvent('subscribed', FACTS, ['cmd/dev-7', 'cfg/#']), {
    topic: 'subscriptions/subscribed/dev-7',
    body: { topics: ['cmd/dev-7', 'cfg/#'] },
  })
  t.is(subscriptionEvent('unsubscribed', FACTS, ['a'])?.topic, 'subscriptions/unsubscribed/dev-7')
})

test('a client id that would be a wildcard in the topic is not told', (t) => {
  for (const clientId of ['a+b', '#', 'a\0b']) t.is(connectedEvent({ ...FACTS, clientId }), null)
})

test('nor is one for which a broker would close the connection that all publishes are on', (t) => {
  for (const clientId of ['a\u0001', 'a\u009f', 'a\ufffe', 'a\u{1ffff}', 'a\ufdd0']) {
    t.is(connectFailedEvent({ ...FACTS, clientId }), null)
  }
  t.not(connectedEvent({ ...FACTS, clientId: 'pumpe-ä-\u{1f600}' }), null)
})

test('of very many filters the first are named, and the others counted', (t) => {
  const topics = Array.from({ length: 1_000 }, (_, n) => `t/${n}`)
  const { body } = subscriptionEvent('subscribed', FACTS, topics)!
  t.deepEqual([body.topics, body.topicsLeftOut], [topics.slice(0, 100), 900])
})

test('a certificate that was seen first is told under its CA, as it is', (t) => {
  const event = {
    certificateId: 'c1',
    caCertificateId: 'ca1',
    timestamp: 1_500_000_000_000,
    certificateStatus: 'PENDING_ACTIVATION',
    awsAccountId: '123456789012',
    certificateRegistrationTimestamp: '1500000000000',
  } as const
  t.deepEqual(registeredEvent(event), { topic: 'certificates/registered/ca1', body: event })
})

test('the log sink writes one line with the whole body', (t) => {
  const lines: unknown[] = []
  const sink = logSink({ log: { info: (fields, message) => lines.push([fields, message]) } })
  sink.send({ topic: 'presence/connected/a', body: { clientId: 'a' } })
  t.deepEqual(lines, [[{ event: 'lifecycle', lifecycle: { clientId: 'a' } }, 'event: presence/connected/a']])
})

/** A broker that can be away, and a clock that waits for nobody. */
function away(options: { queue?: number } = {}) {
  const sent: string[] = []
  const counts = { sent: 0, dropped: 0 }
  const rests: (() => void)[] = []
  const state = { up: true, faults: new Map<string, FailureCode>() }
  const sink = brokerSink({
    topicPrefix: '$aws/events',
    publish: async (topic, payload) => {
      if (!state.up) throw new Error('away')
      const fault = state.faults.get(topic.slice('$aws/events/'.length))
      if (fault !== undefined) throw new ProxyError(fault, 'refused')
      sent.push(`${topic} ${Buffer.from(payload)}`)
    },
    count: (result) => {
      counts[result]++
    },
    wait: () => new Promise((resolve) => rests.push(resolve)),
    random: () => 0,
    closeMs: 20,
    ...options,
  })
  const settle = async () => {
    for (let turn = 0; turn < 20; turn++) await Promise.resolve()
  }
  const wake = async () => {
    for (const rest of rests.splice(0)) rest()
    await settle()
  }
  return { sink, sent, counts, state, settle, wake }
}
const FINAL = ['ERR_ACTION_DENIED', 'ERR_INTERNAL', 'ERR_PAYLOAD_TOO_LARGE', 'ERR_REQUEST_INVALID', 'ERR_TOPIC_INVALID']
const event = (n: number) => ({ topic: `presence/connected/d${n}`, body: { n } })

test('an event is published below the prefix as JSON', async (t) => {
  const { sink, sent, counts, settle } = away()
  sink.send(event(1))
  await settle()
  t.deepEqual(sent, ['$aws/events/presence/connected/d1 {"n":1}'])
  t.deepEqual(counts, { sent: 1, dropped: 0 })
  await sink.close()
})

test('while the broker is away events wait, and are sent when it is back', async (t) => {
  const { sink, sent, counts, state, settle, wake } = away()
  state.up = false
  for (let n = 0; n < 100; n++) sink.send(event(n))
  await settle()
  await wake()
  t.deepEqual([sent.length, counts.dropped], [0, 0])
  state.up = true
  for (let turn = 0; turn < 10; turn++) await wake()
  t.is(sent.length, 100)
  t.deepEqual(counts, { sent: 100, dropped: 0 })
  await sink.close()
})

test('past the bound of the queue the oldest are dropped, and counted', async (t) => {
  const { sink, sent, counts, state, settle, wake } = away({ queue: 10 })
  state.up = false
  sink.send(event(0))
  await settle()
  for (let n = 1; n <= 30; n++) sink.send(event(n))
  await settle()
  state.up = true
  for (let turn = 0; turn < 10; turn++) await wake()
  t.is(sent.length, 10)
  t.is(counts.sent + counts.dropped, 31)
  t.true(sent.some((line) => line.includes('"n":30')))
  await sink.close()
})

test('closing gives the events that wait a moment, then counts them as dropped', async (t) => {
  const { sink, counts, state, settle } = away()
  state.up = false
  sink.send(event(1))
  sink.send(event(2))
  await settle()
  await sink.close()
  t.deepEqual(counts, { sent: 0, dropped: 2 })
  sink.send(event(3))
  t.is(counts.dropped, 3)
})

for (const code of FINAL) {
  test(`what the broker refuses with ${code} is dropped, and the others are not held up by it`, async (t) => {
    const { sink, sent, counts, state, settle } = away()
    state.faults.set('presence/connected/d1', code as FailureCode)
    for (let n = 0; n < 3; n++) sink.send(event(n))
    await settle()
    t.deepEqual([sent.length, counts], [2, { sent: 2, dropped: 1 }])
    await sink.close()
  })
}

test('an event with which one connection after the other is lost is given up', async (t) => {
  const { sink, sent, counts, state, settle, wake } = away()
  state.faults.set('presence/connected/d0', 'ERR_BACKEND_LOST')
  sink.send(event(0))
  await settle()
  for (let turn = 0; turn < 3; turn++) await wake()
  t.is(counts.dropped, 0, 'a broker may be restarted some times')
  for (let turn = 0; turn < 10; turn++) await wake()
  sink.send(event(1))
  await wake()
  t.deepEqual([sent.length, counts], [1, { sent: 1, dropped: 1 }])
  await sink.close()
})

test('a topic or a body that no broker takes is dropped at once', async (t) => {
  const { sink, sent, counts, settle } = away()
  sink.send({ topic: `presence/connected/${'a'.repeat(65_520)}`, body: {} })
  sink.send({ topic: 'subscriptions/subscribed/a', body: { topics: ['a'.repeat(131_072)] } })
  await settle()
  t.deepEqual([sent, counts], [[], { sent: 0, dropped: 2 }])
  await sink.close()
})

test('events that wait have a bound in bytes too', async (t) => {
  const { sink, sent, counts, state, settle, wake } = away()
  state.up = false
  sink.send(event(0))
  await settle()
  const large = { topics: ['a'.repeat(100_000)] }
  for (let n = 0; n < 200; n++) sink.send({ topic: `subscriptions/subscribed/${n}`, body: large })
  state.up = true
  for (let turn = 0; turn < 20; turn++) await wake()
  t.is(counts.sent + counts.dropped, 201)
  t.true(sent.reduce((sum, line) => sum + line.length, 0) <= 16_777_216 + 100_100)
  t.true(sent.at(-1)!.startsWith('$aws/events/subscriptions/subscribed/199'))
  await sink.close()
})

const asModule = (text: string): string => {
  const file = join(mkdtempSync(join(tmpdir(), 'brokergate-sink-')), 'sink.mjs')
  writeFileSync(file, text)
  return file
}

test('a module is made with its options and told of events; what it throws stays with it', async (t) => {
  const file = asModule(`export default (options) => ({
    send(event) { options.seen.push(event.topic); throw new Error('mine') },
    close() { options.seen.push('closed') },
  })`)
  t.teardown(() => rmSync(dirname(file), { recursive: true }))
  const seen: string[] = []
  const sink = await moduleSink(file, { seen })
  t.notThrows(() => sink.send(event(1)))
  await sink.close()
  t.deepEqual(seen, ['presence/connected/d1', 'closed'])
})

test('a module that fails later fails alone', async (t) => {
  const file = asModule(`export default () => ({
    async send() { throw new Error('later') },
    close() {},
  })`)
  t.teardown(() => rmSync(dirname(file), { recursive: true }))
  const unheard: unknown[] = []
  const listen = (error: unknown) => unheard.push(error)
  process.on('unhandledRejection', listen)
  t.teardown(() => process.off('unhandledRejection', listen))
  const sink = await moduleSink(file, {})
  sink.send(event(1))
  await new Promise((resolve) => setImmediate(resolve))
  await sink.close()
  t.deepEqual(unheard, [])
})

for (const [name, text] of [
  ['without a default export', 'export const sink = 1'],
  ['that makes no sink', 'export default () => ({ send: 1 })'],
] as const) {
  test(`a module ${name} is refused`, async (t) => {
    const file = asModule(text)
    t.teardown(() => rmSync(dirname(file), { recursive: true }))
    await t.throwsAsync(moduleSink(file, {}), { message: /default export|made nothing/ })
  })
}
