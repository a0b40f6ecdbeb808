import test from 'ava'
import type { CloseReason } from '../src/connection.ts'
import { FAILURES, type FailureCode } from '../src/errors.ts'
import {
  brokerSink,
  connectedEvent,
  connectFailedEvent,
  DISCONNECT_REASONS,
  type DisconnectReason,
  disconnectedEvent,
  disconnectReason,
  logSink,
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

test('a certificate that was seen first is told under its CA', (t) => {
  const registeredAt = new Date(1_500_000_000_000)
  t.like(registeredEvent({ certificateId: 'c1', caCertificateId: 'ca1', accountId: '123456789012', registeredAt }), {
    topic: 'certificates/registered/ca1',
    body: { certificateId: 'c1', caCertificateId: 'ca1', certificateStatus: 'PENDING_ACTIVATION' },
  })
})

const ends = test.macro({
  exec(t, reason: CloseReason, expected: DisconnectReason, goodbye?: boolean, websocket?: boolean) {
    const fault = reason in FAILURES ? FAILURES[reason as FailureCode].fault : null
    t.is(disconnectReason(reason, goodbye === true, fault, websocket === true), expected)
  },
  title: (_, reason: CloseReason, expected: DisconnectReason, goodbye?: boolean, websocket?: boolean) =>
    `${reason}${goodbye ? ' after a goodbye' : ''}${websocket ? ' over WebSocket' : ''} is ${expected}`,
})
test(ends, 'downstream', 'CLIENT_INITIATED_DISCONNECT', true)
test(ends, 'downstream', 'CONNECTION_LOST')
test(ends, 'upstream', 'SERVER_ERROR')
test(ends, 'ERR_SESSION_TAKEN_OVER', 'DUPLICATE_CLIENTID')
test(ends, 'ERR_KEEP_ALIVE_TIMEOUT', 'MQTT_KEEP_ALIVE_TIMEOUT')
test(ends, 'ERR_MAX_CONNECT_TIME', 'WEBSOCKET_TTL_EXPIRATION', false, true)
test(ends, 'ERR_MAX_CONNECT_TIME', 'CUSTOMAUTH_TTL_EXPIRATION')
test(ends, 'ERR_CERTIFICATE_REVOKED', 'AUTH_ERROR')
test(ends, 'ERR_PACKET_MALFORMED', 'CLIENT_ERROR')
test(ends, 'ERR_BACKEND_LOST', 'SERVER_ERROR')
test(ends, 'ERR_ADMINISTRATIVE', 'API_INITIATED_DISCONNECT')

test('every failure has a reason of the list', (t) => {
  for (const code of Object.keys(FAILURES) as FailureCode[]) {
    t.true(DISCONNECT_REASONS.includes(disconnectReason(code, false, FAILURES[code].fault, false)), code)
  }
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
  const state = { up: true }
  const sink = brokerSink({
    topicPrefix: '$aws/events',
    publish: async (topic, payload) => {
      if (!state.up) throw new Error('away')
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
