import { once } from 'node:events'
import test, { type ExecutionContext } from 'ava'
import { DrainedServers } from '../../src/backend/drained.ts'
import type { Message } from '../../src/backend/message.ts'
import { publisher } from '../../src/backend/publisher.ts'
import { tcp } from '../../src/backend/tcp.ts'
import { until } from '../mqtt/fakes.ts'
import { type Script, scriptedBroker } from '../support/scripted-broker.ts'
import { CONNECTION, echo, NEVER, tcpServer } from './conformance.ts'

function backendOver(t: ExecutionContext, ports: readonly number[]) {
  const drained = new DrainedServers()
  const backend = tcp({
    name: 'main',
    identity: { username: null, password: null, clientId: null, keepAlive: 'device' },
    servers: ports.map((port) => ({ host: '127.0.0.1', port })),
    balance: 'roundrobin',
    connectTimeoutMs: 20_000,
    proxyHeader: null,
    tls: null,
    drained: (peer) => drained.has('main', peer),
    onDial: () => {},
  })
  t.teardown(() => backend.close())
  const drain = (...names: readonly number[]) =>
    drained.replace(names.map((port) => ({ backend: 'main', server: `127.0.0.1:${port}` })))
  return { backend, drained, drain, open: () => backend.open(CONNECTION, NEVER) }
}

test('a drained server is not chosen, and what is open on it stays open', async (t) => {
  const ports = [await tcpServer(t, echo), await tcpServer(t, echo)] as const
  const { drain, open } = backendOver(t, ports)
  const before = await open()
  t.is(before.peer, `127.0.0.1:${ports[0]}`)
  drain(ports[0])
  for (let n = 0; n < 4; n++) t.is((await open()).peer, `127.0.0.1:${ports[1]}`)
  t.not(before.stream.destroyed, true)
  drain()
  const peers = await Promise.all([open(), open()])
  t.is(new Set(peers.map(({ peer }) => peer)).size, 2)
})

test('not even the last server is chosen when it is drained, nor one that another backend drains', async (t) => {
  const ports = [await tcpServer(t, echo), await tcpServer(t, echo)] as const
  const { drain, drained, open } = backendOver(t, ports)
  drain(...ports)
  const error = await t.throwsAsync(open(), { code: 'ERR_BACKEND_REFUSED' } as object)
  t.regex(error.message, /every server of it is drained/)
  drained.replace(ports.map((port) => ({ backend: 'other', server: `127.0.0.1:${port}` })))
  await t.notThrowsAsync(open())
})

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

test('publishes of ours move to another server; what is in flight is answered first', async (t) => {
  const acks: (() => void)[] = []
  const script: Script = { publish: (packet, session) => void acks.push(() => session.ack(packet)) }
  const [one, other] = [await scriptedBroker(t, script), await scriptedBroker(t)]
  const { backend, drained, drain } = backendOver(t, [one.port, other.port])
  const pool = publisher({
    backend,
    username: null,
    password: null,
    connections: 1,
    timeoutMs: 20_000,
    queue: 10,
    principalProperty: null,
    addressProperty: null,
    drained,
  })
  t.teardown(() => pool.close())
  const first = pool.publish(MESSAGE, NEVER)
  await until(() => acks.length === 1)
  drain(one.port)
  t.is(one.farewells.length, 0, 'its answer is awaited')
  await pool.publish(MESSAGE, NEVER)
  t.is(other.publishes.length, 1)
  const [session] = one.sessions
  const closed = once(session!.socket, 'close')
  acks[0]!()
  await first
  await closed
  t.is(one.farewells.length, 1)
})

test('a pool with nothing to do leaves a drained server at once', async (t) => {
  const broker = await scriptedBroker(t)
  const { backend, drained, drain } = backendOver(t, [broker.port])
  const options = { connections: 1, timeoutMs: 20_000, queue: 10, principalProperty: null, addressProperty: null }
  const pool = publisher({ backend, username: null, password: null, ...options, drained })
  await pool.publish(MESSAGE, NEVER)
  const [session] = broker.sessions
  const closed = once(session!.socket, 'close')
  drain(broker.port)
  await closed
  t.is(broker.farewells.length, 1)
  await pool.close()
  // Nobody is told any more.
  t.notThrows(() => drain())
})
