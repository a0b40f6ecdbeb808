import { once } from 'node:events'
import test, { type ExecutionContext } from 'ava'
import type { IConnackPacket, IPublishPacket } from 'mqtt-packet'
import type { Message } from '../../src/backend/message.ts'
import { type PublisherOptions, publisher } from '../../src/backend/publisher.ts'
import { tcp } from '../../src/backend/tcp.ts'
import { FAILURES, type FailureCode, ProxyError } from '../../src/errors.ts'
import { until } from '../mqtt/fakes.ts'
import { type Script, type Session, scriptedBroker } from '../support/scripted-broker.ts'
import { freePort, NEVER } from './conformance.ts'

const MESSAGE: Message = {
  topic: 'a/b',
  payload: Buffer.from('hello'),
  qos: 1,
  retain: false,
  contentType: null,
  responseTopic: null,
  correlationData: null,
  messageExpirySeconds: null,
  payloadIsUtf8: null,
  userProperties: [],
}

const message = (changes: Partial<Message> = {}): Message => ({ ...MESSAGE, ...changes })

function publisherTo(t: ExecutionContext, port: number, changes: Partial<PublisherOptions> = {}) {
  const backend = tcp({
    name: 'main',
    identity: { username: null, password: null, clientId: null, keepAlive: 'device' },
    servers: [{ host: '127.0.0.1', port }],
    balance: 'leastconn',
    connectTimeoutMs: 5_000,
    proxyHeader: null,
    tls: null,
    onDial: () => {},
  })
  const made = publisher({
    backend,
    username: null,
    password: null,
    connections: 2,
    timeoutMs: 20_000,
    queue: 1_000,
    principalProperty: null,
    addressProperty: null,
    ...changes,
  })
  t.teardown(async () => {
    await backend.close()
    await made.close()
  })
  return made
}

async function pair(t: ExecutionContext, script: Script = {}, changes: Partial<PublisherOptions> = {}) {
  const broker = await scriptedBroker(t, script)
  return { broker, to: publisherTo(t, broker.port, changes) }
}

const codeOf = (publishing: Promise<void>): Promise<'ok' | FailureCode> =>
  publishing.then(
    () => 'ok',
    (error: unknown) => (error instanceof ProxyError ? error.code : 'ERR_INTERNAL'),
  )

/** A broker that keeps its acknowledgements until it is told. */
function holding() {
  const held: { readonly packet: IPublishPacket; readonly session: Session }[] = []
  return {
    held,
    publish: (packet: IPublishPacket, session: Session) => void held.push({ packet, session }),
    release() {
      for (const { packet, session } of held.splice(0)) session.ack(packet)
    },
  }
}

test('QoS 1 resolves when the broker has acknowledged it, and not before', async (t) => {
  const { held, publish, release } = holding()
  const { to } = await pair(t, { publish })
  let done = false
  const publishing = to.publish(message(), NEVER).then(() => {
    done = true
  })
  await until(() => held.length === 1)
  t.false(done)
  release()
  await publishing
  t.true(done)
})

test('QoS 0 resolves when it is written to a connected broker', async (t) => {
  const { broker, to } = await pair(t)
  await to.publish(message({ qos: 0, retain: true, payload: Buffer.alloc(0) }), NEVER)
  await until(() => broker.publishes.length === 1)
  t.like(broker.publishes[0], { topic: 'a/b', qos: 0, retain: true, payload: Buffer.alloc(0) })
})

test('everything that MQTT 5 can say of a message arrives', async (t) => {
  const { broker, to } = await pair(t)
  await to.publish(
    message({
      payload: new Uint8Array([0, 255]),
      contentType: 'text/plain',
      responseTopic: 'r',
      correlationData: new Uint8Array([1, 2]),
      messageExpirySeconds: 60,
      payloadIsUtf8: false,
      userProperties: [
        ['a', '1'],
        ['__proto__', 'x'],
        ['a', '2'],
      ],
    }),
    NEVER,
  )
  const [packet] = broker.publishes
  t.deepEqual(packet!.payload, Buffer.from([0, 255]))
  t.like(packet!.properties, {
    contentType: 'text/plain',
    responseTopic: 'r',
    correlationData: Buffer.from([1, 2]),
    messageExpiryInterval: 60,
    payloadFormatIndicator: false,
  })
  t.deepEqual(packet!.properties!.userProperties!.a, ['1', '2'])
})

test('the broker is told who sent a message and from where, behind what the device says', async (t) => {
  const { broker, to } = await pair(t, {}, { principalProperty: 'principal', addressProperty: 'address' })
  const origin = { principal: 'AKIDEXAMPLE', address: '192.0.2.7' }
  await to.publish(message({ userProperties: [['a', '1']] }), NEVER, origin)
  t.deepEqual(
    { ...broker.publishes[0]!.properties!.userProperties },
    { a: '1', principal: 'AKIDEXAMPLE', address: '192.0.2.7' },
  )
  await to.publish(message(), NEVER)
  t.is(broker.publishes[1]!.properties?.userProperties, undefined)
})

test('a device cannot say who it is in a user property that is ours', async (t) => {
  const { broker, to } = await pair(t, {}, { principalProperty: 'principal', addressProperty: 'address' })
  for (const name of ['principal', 'address']) {
    t.is(await codeOf(to.publish(message({ userProperties: [[name, 'admin']] }), NEVER)), 'ERR_REQUEST_INVALID')
  }
  t.is(broker.publishes.length, 0)
})

test('CONNECT is a clean session with the credentials of the backend and a client id of its own', async (t) => {
  const { broker, to } = await pair(t, {}, { username: 'gate', password: 'secret' })
  const other = publisherTo(t, broker.port)
  await to.publish(message(), NEVER)
  await other.publish(message(), NEVER)
  const [one, two] = broker.connects
  t.like(one, { clean: true, protocolVersion: 5, username: 'gate', password: Buffer.from('secret') })
  t.falsy(two!.username)
  for (const { clientId } of broker.connects) {
    t.regex(clientId, new RegExp(`^brokergate-[0-9A-Za-z-]+-${process.pid}-[0-9]+$`))
  }
  t.not(one!.clientId, two!.clientId)
})

test('publishes share one connection until it is busy, then a second one, and never a third', async (t) => {
  const { held, publish, release } = holding()
  const { broker, to } = await pair(t, { publish })
  const publishing = Array.from({ length: 31 }, () => to.publish(message(), NEVER))
  await until(() => held.length === 31)
  t.is(broker.connects.length, 1)
  publishing.push(...Array.from({ length: 100 }, () => to.publish(message(), NEVER)))
  await until(() => held.length === 131)
  await until(() => broker.connects.length === 2)
  publishing.push(...Array.from({ length: 100 }, () => to.publish(message(), NEVER)))
  await until(() => held.length === 231)
  release()
  await Promise.all(publishing)
  t.is(broker.connects.length, 2)
})

test("no more is in flight than the broker's Receive Maximum, and the rest waits in order", async (t) => {
  const { held, publish, release } = holding()
  const connack = () => ({ properties: { receiveMaximum: 2 } })
  const { broker, to } = await pair(t, { publish, connack }, { connections: 1 })
  const publishing = Array.from({ length: 7 }, (_, at) => to.publish(message({ topic: `t/${at}` }), NEVER))
  for (const most of [2, 2, 2, 1]) {
    await until(() => held.length === most)
    release()
  }
  await Promise.all(publishing)
  t.deepEqual(
    broker.publishes.map(({ topic }) => topic),
    ['t/0', 't/1', 't/2', 't/3', 't/4', 't/5', 't/6'],
  )
})

test('a full queue is told at once, in messages and in bytes', async (t) => {
  const { held, publish, release } = holding()
  const connack = () => ({ properties: { receiveMaximum: 1 } })
  const { to } = await pair(t, { publish, connack }, { connections: 1, queue: 2 })
  const publishing = [to.publish(message(), NEVER)]
  await until(() => held.length === 1)
  publishing.push(to.publish(message(), NEVER), to.publish(message(), NEVER))
  t.is(await codeOf(to.publish(message(), NEVER)), 'ERR_PUBLISH_BUSY')
  for (let left = 3; left > 0; left--) {
    await until(() => held.length === 1)
    release()
  }
  await Promise.all(publishing)
  t.is(await codeOf(to.publish(message({ payload: Buffer.alloc(16_777_217) }), NEVER)), 'ERR_PUBLISH_BUSY')
})

test('a broker that is away is told at once, and tried again only after a rest', async (t) => {
  let nowMs = 0
  const port = await freePort()
  let dials = 0
  const to = publisherTo(t, port, {
    now: () => nowMs,
    random: () => 0,
    backend: {
      name: 'main',
      open: async () => {
        dials++
        throw new ProxyError('ERR_BACKEND_REFUSED', `attempt ${dials}`)
      },
    },
  })
  const both = [codeOf(to.publish(message(), NEVER)), codeOf(to.publish(message({ qos: 0 }), NEVER))]
  t.deepEqual(await Promise.all(both), ['ERR_BACKEND_REFUSED', 'ERR_BACKEND_REFUSED'])
  t.is(dials, 1)
  // 200 ms, doubling to 5 s.
  for (const [atMs, expected] of [
    [199, 1],
    [200, 2],
    [599, 2],
    [600, 3],
    [1_400, 4],
    [3_000, 5],
    [6_200, 6],
    [11_199, 6],
    [11_200, 7],
  ] as const) {
    nowMs = atMs
    t.is(await codeOf(to.publish(message(), NEVER)), 'ERR_BACKEND_REFUSED')
    t.is(dials, expected, `after ${atMs} ms`)
  }
})

test('a fault of the way to the broker is a 5xx too', async (t) => {
  const open = async () => {
    throw new TypeError('broken')
  }
  const to = publisherTo(t, 1, { backend: { name: 'main', open } })
  t.is(await codeOf(to.publish(message(), NEVER)), 'ERR_INTERNAL')
})

test('when the connection breaks, what was not acknowledged fails and is never sent again', async (t) => {
  const { held, publish } = holding()
  const { broker, to } = await pair(t, { publish }, { connections: 1 })
  const lost = Array.from({ length: 5 }, (_, at) => codeOf(to.publish(message({ topic: `lost/${at}` }), NEVER)))
  await until(() => held.length === 5)
  held[0]!.session.ack(held[0]!.packet)
  t.is(await lost[0], 'ok')
  held[0]!.session.socket.destroy()
  t.deepEqual(await Promise.all(lost), ['ok', ...Array.from({ length: 4 }, () => 'ERR_BACKEND_LOST')])
  held.length = 0
  const next = to.publish(message({ topic: 'next' }), NEVER)
  await until(() => held.length === 1)
  held[0]!.session.ack(held[0]!.packet)
  await next
  t.is(broker.publishes.filter(({ topic }) => topic.startsWith('lost/')).length, 5)
  t.is(broker.connects.length, 2)
})

test("a broker's end of the stream, its other half open, fails what is in flight", async (t) => {
  const { to } = await pair(t, { publish: (_, session) => session.socket.end() })
  t.is(await codeOf(to.publish(message(), NEVER)), 'ERR_BACKEND_LOST')
})

test("a broker's DISCONNECT fails what is in flight", async (t) => {
  const { to } = await pair(t, { publish: (_, session) => session.say({ cmd: 'disconnect', reasonCode: 0x8b }) })
  t.is(await codeOf(to.publish(message(), NEVER)), 'ERR_BACKEND_LOST')
})

test('a broker that says CONNACK and DISCONNECT in one breath leaves no dead connection behind', async (t) => {
  let rounds = 0
  const broker = await scriptedBroker(t, {
    connack: () => {
      rounds++
      if (rounds > 1) return {}
      const [session] = broker.sessions
      session!.socket.write(Buffer.from('2003000000e0028b00', 'hex'))
      return null
    },
  })
  let nowMs = 0
  const to = publisherTo(t, broker.port, { now: () => nowMs })
  t.is(await codeOf(to.publish(message(), NEVER)), 'ERR_BACKEND_LOST')
  nowMs = 10_000
  t.is(await codeOf(to.publish(message(), NEVER)), 'ok')
})

/** Deadlines that come when the test says so. */
function deadlines() {
  const running = new Set<() => void>()
  return {
    timer(_ms: number, fire: () => void) {
      running.add(fire)
      return () => void running.delete(fire)
    },
    pass() {
      for (const fire of running) fire()
      running.clear()
    },
  }
}

test('a broker that is silent for the whole deadline loses the connection, and the next publish gets another', async (t) => {
  const { held, publish, release } = holding()
  const { timer, pass } = deadlines()
  const { broker, to } = await pair(t, { publish }, { timer, connections: 1 })
  const silence = codeOf(to.publish(message(), NEVER))
  await until(() => held.length === 1)
  pass()
  t.is(await silence, 'ERR_BACKEND_TIMEOUT')
  held.length = 0
  const next = codeOf(to.publish(message(), NEVER))
  await until(() => held.length === 1)
  release()
  t.is(await next, 'ok')
  t.is(broker.connects.length, 2)
})

test('what else is in flight to a silent broker is lost with the connection', async (t) => {
  const { held, publish } = holding()
  let expire = () => {}
  const timer = (_ms: number, fire: () => void) => {
    if (held.length === 0) expire = fire
    return () => {}
  }
  const { to } = await pair(t, { publish }, { timer, connections: 1 })
  const first = codeOf(to.publish(message(), NEVER))
  await until(() => held.length === 1)
  const second = codeOf(to.publish(message(), NEVER))
  await until(() => held.length === 2)
  expire()
  t.deepEqual(await Promise.all([first, second]), ['ERR_BACKEND_TIMEOUT', 'ERR_BACKEND_LOST'])
})

test('a broker that never answers CONNECT is a timeout', async (t) => {
  const { timer, pass } = deadlines()
  const { broker, to } = await pair(t, { connack: () => null }, { timer })
  const publishing = codeOf(to.publish(message(), NEVER))
  await until(() => broker.connects.length === 1)
  pass()
  t.is(await publishing, 'ERR_BACKEND_TIMEOUT')
})

test('a device that has gone does not hide the silence of a broker', async (t) => {
  const { held, publish } = holding()
  const { timer, pass } = deadlines()
  const { broker, to } = await pair(t, { publish }, { timer, connections: 1 })
  const gone = new AbortController()
  const publishing = codeOf(to.publish(message(), gone.signal))
  await until(() => held.length === 1)
  gone.abort()
  t.is(await publishing, 'ERR_BACKEND_REFUSED')
  pass()
  await until(() => broker.sessions.size === 0)
  t.pass()
})

// biome-ignore format: a table is read down its columns
const PUBACKS: readonly (readonly [number, 'ok' | FailureCode])[] = [
  [0x00, 'ok'],                     // success
  [0x10, 'ok'],                     // no matching subscribers
  [0x80, 'ERR_BACKEND_REFUSED'],    // unspecified
  [0x83, 'ERR_BACKEND_REFUSED'],    // implementation specific
  [0x87, 'ERR_ACTION_DENIED'],      // not authorized
  [0x90, 'ERR_TOPIC_INVALID'],
  [0x91, 'ERR_BACKEND_REFUSED'],    // packet identifier in use
  [0x97, 'ERR_QUOTA_EXCEEDED'],
  [0x99, 'ERR_REQUEST_INVALID'],    // payload format
]

for (const [reason, code] of PUBACKS) {
  test(`a PUBACK with reason 0x${reason.toString(16)} is ${code}, and the connection goes on`, async (t) => {
    let first = true
    const { broker, to } = await pair(t, {
      publish: (packet, session) => {
        session.ack(packet, first ? reason : 0)
        first = false
      },
    })
    t.is(await codeOf(to.publish(message(), NEVER)), code)
    t.is(await codeOf(to.publish(message(), NEVER)), 'ok')
    t.is(broker.connects.length, 1)
  })
}

/** As a broker of MQTT 3.1.1 answers a CONNECT of 5. */
const only311: Script['connack'] = ({ protocolVersion }) =>
  protocolVersion === 5 ? { reasonCode: 0x84, returnCode: 1 } : {}

test('a broker that refuses MQTT 5 is spoken to in 3.1.1, from then on at once', async (t) => {
  const { broker, to } = await pair(t, { connack: only311 }, { connections: 1 })
  t.is(await codeOf(to.publish(message(), NEVER)), 'ok')
  for (const { socket } of broker.sessions) socket.destroy()
  await until(() => broker.sessions.size === 0)
  t.not(await codeOf(to.publish(message(), NEVER)), 'ERR_INTERNAL')
  await until(() => broker.connects.length >= 3)
  t.deepEqual(
    broker.connects.map(({ protocolVersion }) => protocolVersion),
    [5, 4, 4],
  )
})

test('a broker whose refusal of MQTT 5 is in the form of 3.1.1 is understood', async (t) => {
  const broker = await scriptedBroker(t, {
    connack: ({ protocolVersion }) => {
      if (protocolVersion !== 5) return {}
      for (const { socket } of broker.sessions) socket.end(Buffer.from('20020001', 'hex'))
      return null
    },
  })
  t.is(await codeOf(publisherTo(t, broker.port).publish(message(), NEVER)), 'ok')
})

// biome-ignore format: a table is read down its columns
const EXTRAS: readonly Partial<Message>[] = [
  { contentType: 'a' },
  { responseTopic: 'a' },
  { correlationData: new Uint8Array() },
  { messageExpirySeconds: 1 },
  { payloadIsUtf8: false },
  { userProperties: [['a', 'b']] },
]

for (const extra of EXTRAS) {
  test(`${Object.keys(extra)} toward a broker of 3.1.1 is refused instead of dropped`, async (t) => {
    const { broker, to } = await pair(t, { connack: only311 })
    const error = await t.throwsAsync(to.publish(message(extra), NEVER), { code: 'ERR_REQUEST_INVALID' })
    t.is(error.message, 'the broker behind speaks MQTT 3.1.1 only')
    t.is(broker.publishes.length, 0)
    t.is(await codeOf(to.publish(message(), NEVER)), 'ok')
  })
}

test('user properties that the settings want and the broker cannot carry are a fault of ours', async (t) => {
  const { to } = await pair(t, { connack: only311 }, { principalProperty: 'principal' })
  t.is(await codeOf(to.publish(message(), NEVER, { principal: 'a', address: 'b' })), 'ERR_BACKEND_PROTOCOL')
})

test('a broker that speaks neither version is a fault of the backend', async (t) => {
  const { to } = await pair(t, { connack: () => ({ reasonCode: 0x84, returnCode: 1 }) })
  t.is(await codeOf(to.publish(message(), NEVER)), 'ERR_BACKEND_PROTOCOL')
})

test('a broker that refuses our credentials is a backend that refuses', async (t) => {
  const { broker, to } = await pair(t, { connack: () => ({ reasonCode: 0x87, returnCode: 5 }) })
  t.is(await codeOf(to.publish(message(), NEVER)), 'ERR_BACKEND_REFUSED')
  t.is(broker.connects.length, 1)
})

const LIMITS: readonly (readonly [string, IConnackPacket['properties'], Partial<Message>, FailureCode])[] = [
  ['QoS 1 where only 0 is taken', { maximumQoS: 0 }, {}, 'ERR_QOS_UNSUPPORTED'],
  ['retain where nothing is retained', { retainAvailable: false }, { retain: true }, 'ERR_RETAIN_UNSUPPORTED'],
  ['a packet over the largest', { maximumPacketSize: 100 }, { payload: Buffer.alloc(100) }, 'ERR_PAYLOAD_TOO_LARGE'],
  [
    'properties over the largest packet',
    { maximumPacketSize: 100 },
    { userProperties: [['a', 'b'.repeat(100)]] },
    'ERR_PAYLOAD_TOO_LARGE',
  ],
]

for (const [what, properties, changes, code] of LIMITS) {
  test(`${what}, as the broker's CONNACK says, is refused and not sent`, async (t) => {
    const { broker, to } = await pair(t, { connack: () => ({ properties: properties! }) })
    t.is(await codeOf(to.publish(message(changes), NEVER)), code)
    t.is(broker.publishes.length, 0)
    t.true(FAILURES[code].http === null || FAILURES[code].http < 500)
  })
}

test('a device that goes takes back what waits, and leaves the place of what is in flight', async (t) => {
  const { held, publish, release } = holding()
  const connack = () => ({ properties: { receiveMaximum: 1 } })
  const { broker, to } = await pair(t, { publish, connack }, { connections: 1 })
  const [sent, waiting] = [new AbortController(), new AbortController()]
  const first = codeOf(to.publish(message({ topic: 'sent' }), sent.signal))
  await until(() => held.length === 1)
  const second = codeOf(to.publish(message({ topic: 'waiting' }), waiting.signal))
  waiting.abort()
  sent.abort(new ProxyError('ERR_DRAINING', 'gone'))
  t.deepEqual(await Promise.all([first, second]), ['ERR_DRAINING', 'ERR_BACKEND_REFUSED'])
  const third = codeOf(to.publish(message({ topic: 'third' }), NEVER))
  t.is(held.length, 1)
  release()
  await until(() => held.length === 1)
  release()
  t.is(await third, 'ok')
  t.deepEqual(
    broker.publishes.map(({ topic }) => topic),
    ['sent', 'third'],
  )
  t.is(await codeOf(to.publish(message(), AbortSignal.abort())), 'ERR_BACKEND_REFUSED')
})

test('close lets what is under way end, says DISCONNECT, and takes no more', async (t) => {
  const { held, publish, release } = holding()
  const { broker, to } = await pair(t, { publish })
  const publishing = codeOf(to.publish(message(), NEVER))
  await until(() => held.length === 1)
  const closing = to.close()
  t.is(await codeOf(to.publish(message(), NEVER)), 'ERR_DRAINING')
  release()
  t.is(await publishing, 'ok')
  await closing
  await to.close()
  t.is(broker.farewells.length, 1)
  await until(() => broker.sessions.size === 0)
})

test('close without a connection is over at once, and during an attempt ends it', async (t) => {
  const { to } = await pair(t)
  await to.close()
  const silent = await pair(t, { connack: () => null }, { timeoutMs: 100 })
  const publishing = codeOf(silent.to.publish(message(), NEVER))
  await silent.to.close()
  t.is(await publishing, 'ERR_BACKEND_TIMEOUT')
})

test('a connection that had nothing to do is closed with DISCONNECT, and opened again when it is needed', async (t) => {
  const { broker, to } = await pair(t, {}, { idleMs: 40 })
  await to.publish(message(), NEVER)
  const [session] = broker.sessions
  await once(session!.socket, 'close')
  t.is(broker.farewells.length, 1)
  await to.publish(message(), NEVER)
  t.is(broker.connects.length, 2)
})

test('a large payload goes through a stream that pushes back', async (t) => {
  const { broker, to } = await pair(t)
  const payload = Buffer.alloc(131_072, 'x')
  await Promise.all(
    Array.from({ length: 60 }, (_, at) => to.publish(message({ payload, qos: at % 2 === 0 ? 1 : 0 }), NEVER)),
  )
  await until(() => broker.publishes.length === 60)
  t.true(broker.publishes.every((packet) => payload.equals(packet.payload as Buffer)))
})
