import { once } from 'node:events'
import { Agent, request } from 'node:https'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import mqttPacket, { type IConnectPacket, type Packet } from 'mqtt-packet'
import { WebSocket } from 'websocket'
import { brokergate, witness } from '../support/clients.ts'
import { eventually } from '../support/e2e.ts'
import { farewellOf, many, publisher } from '../support/fleet.ts'
import { ca, device as certificate, type Gateway, openGateway } from '../support/gateway.ts'
import { type RawDevice, rawDevice } from '../support/raw-mqtt.ts'

/**
 * The end of the program as a fleet sees it: everybody is told in the words of its protocol, nothing that was
 * acknowledged is missing at the broker, and it is over within the grace period.
 */

const size = (name: string, normal: number): number => Number(process.env[name] ?? normal)
const MQTT = size('E2E_DRAIN_MQTT', 80)
const WSS = size('E2E_DRAIN_WSS', 10)
const HTTP = size('E2E_DRAIN_HTTP', 6)
const PUBLISHERS = size('E2E_DRAIN_PUBLISHERS', 30)

interface Browser {
  readonly heard: Packet[]
  readonly closed: Promise<number>
}

/** MQTT 5 over a WebSocket, let in by the authorizer. */
async function browser(t: ExecutionContext, gateway: Gateway, clientId: string): Promise<Browser> {
  const name = 'customwss.test'
  const options = { ca: ca.certPem, servername: name, headers: { host: name } }
  const socket = new WebSocket(`wss://127.0.0.1:${gateway.ports.web}/mqtt`, 'mqtt', options)
  t.teardown(() => socket.terminate())
  const heard: Packet[] = []
  const parser = mqttPacket.parser({ protocolVersion: 5 })
  parser.on('packet', (packet) => heard.push(packet))
  socket.on('message', (data) => parser.parse(data as Buffer))
  socket.on('error', () => {})
  const closed = new Promise<number>((resolve) => socket.on('close', (code) => resolve(code)))
  await once(socket, 'open')
  const connect = { cmd: 'connect', protocolId: 'MQTT', protocolVersion: 5, clean: true, clientId, keepalive: 60 }
  socket.send(mqttPacket.generate(connect as IConnectPacket, { protocolVersion: 5 }))
  await eventually(() => heard.some(({ cmd }) => cmd === 'connack'), 'CONNACK over WSS')
  return { heard, closed }
}

interface Kept {
  /** A publish over HTTPS on the connection; `connection` of its answer. */
  publish(): Promise<{ readonly status: number; readonly connection: string | undefined }>
  readonly closed: Promise<unknown>
}

/** One HTTPS connection that is kept, after one publish. */
async function kept(t: ExecutionContext, gateway: Gateway, slow = false): Promise<Kept> {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 })
  t.teardown(() => agent.destroy())
  const closed = Promise.withResolvers<unknown>()
  const host = slow ? 'customhttps.test' : 'localhost'
  const port = slow ? gateway.ports.web : gateway.ports.https
  const publish: Kept['publish'] = () =>
    new Promise((resolve, reject) => {
      const sent = request(
        {
          agent,
          host: '127.0.0.1',
          port,
          path: '/topics/kept?qos=1',
          method: 'POST',
          servername: host,
          headers: { host },
          ca: ca.certPem,
          ...(!slow && { cert: certificate.chainPem, key: certificate.keyPem }),
        },
        (response) => {
          response.resume()
          response.on('end', () =>
            resolve({ status: response.statusCode ?? 0, connection: response.headers.connection }),
          )
        },
      )
      sent.on('socket', (socket) => socket.once('close', closed.resolve))
      sent.on('error', reject)
      sent.end('hello')
    })
  if (!slow) await publish()
  return { publish, closed: closed.promise }
}

const ended = (devices: readonly RawDevice[]) => Promise.all(devices.map((one) => one.end(30_000)))

test.serial(
  'row 26: at the stop signal every protocol is told in its own words, and all is over within the grace period',
  async (t) => {
    const gateway = await openGateway(t, { drain: '{ grace: 10s, serverReference: "eu2.example.com:8883" }' })
    const { proxy, ports } = gateway
    const fives = await many(MQTT, (n) => rawDevice(t, { port: ports.mqtt, version: 5, clientId: `five-${n}` }))
    const fours = await many(MQTT / 4, (n) => rawDevice(t, { port: ports.mqtt, version: 4, clientId: `four-${n}` }))
    await Promise.all([...fives, ...fours].map((one) => one.hear('connack', 30_000)))
    const browsers = await many(WSS, (n) => browser(t, gateway, `browser-${n}`))
    const idle = await many(HTTP, () => kept(t, gateway))
    // Its authorizer is asked when the signal comes, and answers later.
    const mayAnswer = Promise.withResolvers<void>()
    const { answer } = gateway
    gateway.answer = async (question, response) => {
      await mayAnswer.promise
      await answer(question, response)
    }
    const running = await kept(t, gateway, true)
    const asked = gateway.asked.length
    const answered = running.publish()
    await eventually(() => gateway.asked.length > asked, 'the authorizer is asked')

    const startedAt = Date.now()
    proxy.child.kill('SIGTERM')
    await eventually(() => proxy.output().includes('draining'), 'the drain begins')
    t.true((await proxy.metric('brokergate_draining')) <= 1)
    mayAnswer.resolve()
    t.deepEqual(await answered, { status: 200, connection: 'close' })
    await Promise.all([...idle.map(({ closed }) => closed), ended(fives), ended(fours)])
    const codes = await Promise.all(browsers.map(({ closed }) => closed))
    t.deepEqual(await proxy.stop('SIGCONT'), { code: 0, signal: null })
    const tookMs = Date.now() - startedAt

    for (const one of fives) {
      t.like(farewellOf(one), { reasonCode: 0x9c, properties: { serverReference: 'eu2.example.com:8883' } })
    }
    for (const one of fours) t.is(farewellOf(one), null)
    for (const { heard } of browsers) t.like(heard.at(-1), { cmd: 'disconnect', reasonCode: 0x9c })
    t.deepEqual(new Set(codes), new Set([1001]))
    t.like(
      proxy.lines().find(({ message }) => message === 'drained'),
      { told: fives.length + fours.length + browsers.length, cut: 0 },
    )
    t.log(`${fives.length} of MQTT 5, ${fours.length} of 3.1.1, ${WSS} over WSS, ${HTTP + 1} of HTTP: ${tookMs} ms`)
  },
)

test.serial('whoever comes in while the program ends is sent elsewhere in its CONNACK', async (t) => {
  const gateway = await openGateway(t, { drain: '{ grace: 8s, serverReference: "eu2.example.com:8883" }' })
  const { proxy, ports } = gateway
  const stays = await rawDevice(t, { port: ports.mqtt, version: 5, clientId: 'stays' })
  await stays.hear('connack')
  // TLS is up, and CONNECT comes after the signal.
  const late = await rawDevice(t, { port: ports.mqtt, version: 5, clientId: 'late', silent: true })
  proxy.child.kill('SIGTERM')
  await eventually(() => proxy.output().includes('draining'), 'the drain begins')
  late.connect()
  t.like(await late.hear('connack'), { reasonCode: 0x9c, properties: { serverReference: 'eu2.example.com:8883' } })
  await late.end()
  t.like(await stays.hear('disconnect', 20_000), { reasonCode: 0x9c })
  t.deepEqual(await proxy.stop('SIGCONT'), { code: 0, signal: null })
})

for (const workers of [1, 2]) {
  test.serial(
    `with ${workers} process${workers > 1 ? 'es' : ''}: what was acknowledged through the stop signal is at the broker, every message of it`,
    async (t) => {
      const gateway = await openGateway(t, { workers, drain: '{ grace: 6s }' })
      const seen = await witness(t, gateway, 'qos1/#')
      const { proxy, ports } = gateway
      const publishers = await many(PUBLISHERS, (n) =>
        publisher(t, 'qos1/t', { port: ports.mqtt, version: n % 2 === 0 ? 5 : 4, clientId: `p-${n}` }),
      )
      await eventually(() => publishers.every(({ acknowledged }) => acknowledged.size > 20), 'all publish')
      proxy.child.kill('SIGTERM')
      const lines = await eventually(async () => {
        const text = await brokergate(['status', '-c', join(gateway.dir, 'brokergate.yaml')])
        return /, draining$/m.test(text) && (workers === 1 || /draining, \d+ connections left/.test(text)) && text
      }, 'the status says how far it is')
      t.log(lines)
      await ended(publishers.map(({ device }) => device))
      t.deepEqual(await proxy.stop('SIGCONT'), { code: 0, signal: null })
      const acknowledged = publishers.flatMap((one) => [...one.acknowledged])
      const arrived = () => new Set(seen.map(({ payload }) => payload))
      await eventually(
        () => {
          const there = arrived()
          return acknowledged.every((payload) => there.has(payload))
        },
        'every acknowledged message',
        60_000,
      )
      const sent = publishers.reduce((sum, one) => sum + one.sent.size, 0)
      const there = arrived()
      const known = new Set(acknowledged)
      const silently = [...there].filter((payload) => !known.has(payload)).length
      t.is(seen.length, there.size, 'none is there twice')
      // Each device is given time for the answers that are under way; on a busy machine some of it may be too short.
      t.true(silently <= PUBLISHERS / 5, `${silently} at the broker without an acknowledgement`)
      t.log(`${sent} sent, ${acknowledged.length} acknowledged, ${there.size} at the broker`)
      for (const { device } of publishers.filter((_, n) => n % 2 === 0))
        t.like(farewellOf(device), { reasonCode: 0x8b })
    },
  )
}

test.serial(
  'a grace period that is too short is told with how many were cut off, and the exit code is 0',
  async (t) => {
    const { proxy, ports } = await openGateway(t, { drain: '{ grace: 1s }' })
    const devices = await many(5, (n) => rawDevice(t, { port: ports.mqtt, version: 5, clientId: `deaf-${n}` }))
    await Promise.all(devices.map((one) => one.hear('connack')))
    // They do not answer our end with theirs.
    for (const { socket } of devices) socket.pause()
    t.deepEqual(await proxy.stop(), { code: 0, signal: null })
    const line = proxy.lines().find(({ message }) => String(message).includes('grace period was too short'))
    t.like(line, { level: 'warn', cut: 5 })
  },
)

test.serial(
  'load balancers are given time before the listeners close, and a second signal ends it all at once',
  async (t) => {
    const { proxy, ports } = await openGateway(t, { drain: '{ grace: 60s, settle: 60s }' })
    proxy.child.kill('SIGTERM')
    await eventually(() => proxy.output().includes('draining'), 'the drain begins')
    const device = await rawDevice(t, { port: ports.mqtt, version: 5, clientId: 'just-in-time' })
    t.like(await device.hear('connack'), { reasonCode: 0 })
    t.deepEqual(await proxy.stop(), { code: 1, signal: null })
  },
)
