import { spawnSync } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { type EventEmitter, once } from 'node:events'
import { chmod, mkdtemp, rm, stat, writeFile } from 'node:fs/promises'
import { connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { type IClientOptions, MqttClient } from 'mqtt'
import { generate, type IConnackPacket, type IPublishPacket } from 'mqtt-packet'
import { embedded, startEmbeddedBroker } from '../../src/backend/embedded.ts'
import { allOf, behavesLikeABackend, CONNECTION, listening, NEVER, received } from './conformance.ts'

async function folder(t: ExecutionContext): Promise<string> {
  // `mkdtemp` makes it 0700; the name stays far below what a socket's path may have.
  const path = await mkdtemp(join(tmpdir(), 'bg-'))
  t.teardown(() => rm(path, { recursive: true, force: true }))
  return path
}

function backendAt(path: string) {
  return embedded({
    name: 'embedded',
    identity: { username: null, password: null, clientId: null, keepAlive: 'device' },
    path,
    connectTimeoutMs: 20_000,
    onDial: () => {},
  })
}

async function started(t: ExecutionContext) {
  const path = join(await folder(t), 'broker.sock')
  const errors: Error[] = []
  const broker = await startEmbeddedBroker({ path, onError: (error) => errors.push(error) })
  t.teardown(() => broker.close())
  return { path, broker, errors }
}

/** MQTT.js types its events in a way that `once` does not take. */
function heard(client: MqttClient, event: 'connect' | 'message' | 'close'): Promise<unknown[]> {
  return once(client as unknown as EventEmitter, event)
}

async function device(t: ExecutionContext, path: string, options: IClientOptions = {}): Promise<MqttClient> {
  const client = new MqttClient(() => connect({ path }), { reconnectPeriod: 0, clientId: randomUUID(), ...options })
  client.on('error', () => {})
  t.teardown(() => client.endAsync(true))
  await heard(client, 'connect')
  return client
}

async function message(client: MqttClient) {
  const [topic, payload, packet] = (await heard(client, 'message')) as [string, Buffer, IPublishPacket]
  return { topic, payload: String(payload), qos: packet.qos, retain: packet.retain }
}

behavesLikeABackend(test, 'embedded', async (t) => ({
  backendTo: async (serve) => {
    const path = join(await folder(t), 'stub.sock')
    await listening(t, createServer({ allowHalfOpen: true }, serve), { path })
    return backendAt(path)
  },
  unreachable: async () => backendAt(join(await folder(t), 'nobody.sock')),
  connection: CONNECTION,
}))

const VERSIONS = [
  { name: 'MQTT 3.1.1', options: { protocolVersion: 4 } },
  { name: 'MQTT 5', options: { protocolVersion: 5 } },
] as const satisfies { name: string; options: IClientOptions }[]

for (const { name, options } of VERSIONS) {
  for (const qos of [0, 1, 2] as const) {
    test(`${name}: QoS ${qos} arrives as QoS ${qos}`, async (t) => {
      const { path } = await started(t)
      const [from, to] = [await device(t, path, options), await device(t, path, options)]
      await to.subscribeAsync('a/+', { qos })
      const arrives = message(to)
      await from.publishAsync('a/b', 'hi', { qos })
      t.deepEqual(await arrives, { topic: 'a/b', payload: 'hi', qos, retain: false })
    })
  }

  test(`${name}: a retained message waits for its subscribers`, async (t) => {
    const { path } = await started(t)
    await (await device(t, path, options)).publishAsync('a/b', 'hi', { qos: 1, retain: true })
    const to = await device(t, path, options)
    const arrives = message(to)
    await to.subscribeAsync('a/b', { qos: 1 })
    t.deepEqual(await arrives, { topic: 'a/b', payload: 'hi', qos: 1, retain: true })
  })

  test(`${name}: the will is sent when the device vanishes, and not when it says goodbye`, async (t) => {
    const { path } = await started(t)
    const to = await device(t, path, options)
    await to.subscribeAsync('will/#', { qos: 1 })
    const will = (topic: string) =>
      ({ ...options, will: { topic, payload: Buffer.from('gone'), qos: 1, retain: false } }) as const
    const polite = await device(t, path, will('will/polite'))
    const rude = await device(t, path, will('will/rude'))
    const arrives = message(to)
    await polite.endAsync()
    rude.stream.destroy()
    t.deepEqual(await arrives, { topic: 'will/rude', payload: 'gone', qos: 1, retain: false })
  })

  test(`${name}: a session outlives its connection`, async (t) => {
    const { path } = await started(t)
    const clientId = randomUUID()
    const kept: IClientOptions = { ...options, clientId, clean: false, properties: { sessionExpiryInterval: 3_600 } }
    const first = await device(t, path, kept)
    await first.subscribeAsync('a/b', { qos: 1 })
    await first.endAsync()
    await (await device(t, path, options)).publishAsync('a/b', 'hi', { qos: 1 })
    const again = new MqttClient(() => connect({ path }), { reconnectPeriod: 0, ...kept })
    t.teardown(() => again.endAsync(true))
    const [[connack], arrived] = await Promise.all([heard(again, 'connect'), message(again)])
    t.true((connack as IConnackPacket).sessionPresent)
    t.deepEqual(arrived, { topic: 'a/b', payload: 'hi', qos: 1, retain: false })
  })

  test(`${name}: a second connection with the client id ends the first`, async (t) => {
    const { path } = await started(t)
    const clientId = randomUUID()
    const first = await device(t, path, { ...options, clientId })
    const closes = heard(first, 'close')
    await device(t, path, { ...options, clientId })
    await closes
    t.pass()
  })
}

test('a CONNECT through the backend is answered', async (t) => {
  const { path } = await started(t)
  const backend = backendAt(path)
  t.teardown(() => backend.close())
  const { stream, peer } = await backend.open(CONNECTION, NEVER)
  t.is(peer, path)
  stream.write(
    generate({
      cmd: 'connect',
      clientId: 'device-1',
      protocolId: 'MQTT',
      protocolVersion: 4,
      clean: true,
      keepalive: 0,
    }),
  )
  t.is(await received(stream, '1234'), '\x20\x02\x00\x00')
})

test('packets that come before the CONNACK are kept, a thousand of them', async (t) => {
  const { path } = await started(t)
  const to = await device(t, path)
  await to.subscribeAsync('a', { qos: 0 })
  const all = new Promise<void>((resolve) => to.on('message', (_, payload) => String(payload) === '999' && resolve()))
  const socket = connect({ path })
  t.teardown(() => socket.destroy())
  const packets = Array.from({ length: 1_000 }, (_, i) =>
    generate({ cmd: 'publish', topic: 'a', payload: String(i), qos: 0, dup: false, retain: false }),
  )
  const hello = generate({
    cmd: 'connect',
    clientId: 'eager',
    protocolId: 'MQTT',
    protocolVersion: 4,
    clean: true,
    keepalive: 0,
  })
  socket.write(Buffer.concat([hello, ...packets]))
  await all
  t.pass()
})

test('garbage ends its own connection and nothing else', async (t) => {
  const { path, errors } = await started(t)
  const hello = generate({
    cmd: 'connect',
    clientId: 'g',
    protocolId: 'MQTT',
    protocolVersion: 5,
    clean: true,
    keepalive: 0,
  })
  const garbage = [
    Buffer.alloc(64),
    Buffer.alloc(64, 0xff),
    Buffer.from('GET / HTTP/1.1\r\n\r\n'),
    hello.subarray(0, hello.length - 3),
    Buffer.concat([hello, hello]),
    Buffer.concat([hello, Buffer.alloc(64, 0xff)]),
    Buffer.concat([hello, Buffer.from('\x30\x03\x00\x01#')]),
    Buffer.concat([hello, Buffer.from('\x82\x06\x00\x01\x00\x00\x00\x00', 'latin1')]),
  ]
  for (const bytes of garbage) {
    const socket = connect({ path })
    socket.on('error', () => {})
    socket.end(bytes)
    await allOf(socket)
  }
  const client = await device(t, path)
  await client.publishAsync('still', 'here', { qos: 1 })
  t.true(errors.length > 0)
})

test('close ends every connection and takes the socket away', async (t) => {
  const { path, broker } = await started(t)
  const clients = [await device(t, path), await device(t, path, { protocolVersion: 5 })]
  const silent = connect({ path })
  await once(silent, 'connect')
  const gone = [...clients.map((client) => heard(client, 'close')), allOf(silent)]
  await broker.close()
  await Promise.all(gone)
  await t.throwsAsync(stat(path), { code: 'ENOENT' })
  await broker.close()
})

test('the socket and its folder are open to their owner alone', async (t) => {
  const path = join(await folder(t), 'run', 'broker.sock')
  const broker = await startEmbeddedBroker({ path })
  t.teardown(() => broker.close())
  t.is((await stat(join(path, '..'))).mode & 0o777, 0o700)
  t.is((await stat(path)).mode & 0o777, 0o600)
})

test('a folder open to others is refused', async (t) => {
  const path = await folder(t)
  await chmod(path, 0o755)
  await t.throwsAsync(startEmbeddedBroker({ path: join(path, 'broker.sock') }), { message: /0700/ })
})

test('a socket in use is refused, and what a crash left behind is replaced', async (t) => {
  const { path, broker } = await started(t)
  await t.throwsAsync(startEmbeddedBroker({ path }), { message: /another process/ })
  await device(t, path)
  await broker.close()
  // A socket file without a listener, as after a crash.
  const script = `require('net').createServer().listen({path:${JSON.stringify(path)}},()=>process.kill(process.pid,'SIGKILL'))`
  spawnSync(process.execPath, ['-e', script])
  t.true((await stat(path)).isSocket())
  const again = await startEmbeddedBroker({ path })
  await device(t, path)
  await again.close()
})

test('a file that is no socket is left alone', async (t) => {
  const path = join(await folder(t), 'broker.sock')
  await writeFile(path, 'precious')
  await t.throwsAsync(startEmbeddedBroker({ path }), { message: /not a socket/ })
})

test('a path too long for a socket is refused', async (t) => {
  const path = join(await folder(t), 'x'.repeat(100))
  await t.throwsAsync(startEmbeddedBroker({ path }), { message: /bytes/ })
})
