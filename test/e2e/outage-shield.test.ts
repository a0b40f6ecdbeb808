// A broker is killed and started again under a fleet that is at work. Without the shield every device loses its connection
// and comes back at once, all of them together. With it no device notices, and that must not cost a single message: what the
// broker has not acknowledged is said to it again, in its order and marked as such, and whoever was acknowledged is delivered.
import { request } from 'node:http'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import mqttPacket, { type IPublishPacket, type Packet } from 'mqtt-packet'
import { type Door, eventually, openDoor, sleep } from '../support/e2e.ts'
import { type MosquittoProcess, mosquittoProcess } from '../support/mosquitto-process.ts'
import { folderFor, OPEN_POLICIES, write } from '../support/proxy.ts'
import { type RawDevice, rawDevice } from '../support/raw-mqtt.ts'

const DEVICES = Number(process.env.E2E_DEVICES ?? 50)
const WAIT_MS = 30_000
const TOPIC = 'shield/t'

interface Member {
  readonly device: RawDevice
  readonly version: 4 | 5
  readonly name: string
  /** Payloads by the packet id they were last sent under. */
  readonly sent: Map<number, string>
  readonly acknowledged: Set<string>
  /** PUBLISHes that came, in order. */
  readonly got: IPublishPacket[]
  pongs: number
  nextId: number
}

/** A session that the broker keeps; acknowledges what it gets. */
async function member(t: ExecutionContext, port: number, name: string, version: 4 | 5, clean = false): Promise<Member> {
  const device = await rawDevice(t, {
    port,
    version,
    clientId: name,
    connect: { clean, ...(version === 5 && { properties: { sessionExpiryInterval: clean ? 0 : 600 } }) },
  })
  const one: Member = { device, version, name, sent: new Map(), acknowledged: new Set(), got: [], pongs: 0, nextId: 1 }
  const parser = mqttPacket.parser({ protocolVersion: version })
  parser.on('packet', (packet: Packet) => {
    if (packet.cmd === 'puback') one.acknowledged.add(one.sent.get(packet.messageId!)!)
    else if (packet.cmd === 'pingresp') one.pongs++
    else if (packet.cmd === 'publish') {
      one.got.push(packet)
      if (packet.qos === 1) device.say({ cmd: 'puback', messageId: packet.messageId! })
    }
  })
  device.socket.on('data', (chunk: Buffer) => parser.parse(chunk))
  await device.hear('connack', WAIT_MS)
  return one
}

function publish(one: Member, count: number): void {
  for (let index = 0; index < count; index++) {
    const messageId = one.nextId++
    const payload = `${one.name} ${messageId}`
    one.sent.set(messageId, payload)
    one.device.say({ cmd: 'publish', topic: TOPIC, payload, qos: 1, messageId, dup: false, retain: false })
  }
}

async function fleet(
  t: ExecutionContext,
  port: number,
  clean = false,
): Promise<{ subscriber: Member; members: Member[] }> {
  const subscriber = await member(t, port, 'subscriber', 5)
  subscriber.device.say({ cmd: 'subscribe', messageId: 1, subscriptions: [{ topic: TOPIC, qos: 1 }] })
  await subscriber.device.hear('suback', WAIT_MS)
  const members: Member[] = []
  for (let index = 0; index < DEVICES; index++) {
    members.push(await member(t, port, `d-${index}`, index % 2 === 0 ? 4 : 5, clean))
  }
  return { subscriber, members }
}

const backend = ({ port }: MosquittoProcess, shield: string) =>
  `kind: tcp, servers: [ { address: "127.0.0.1:${port}" } ], connectTimeout: 2s${shield}`

const held = ({ proxy }: Door) => proxy.metric('brokergate_shielded_sessions{backend="main"}')
const outcome = ({ proxy }: Door, name: string) =>
  proxy.metric(`brokergate_shield_outcomes_total{backend="main",outcome="${name}"}`)

const allAcknowledged = (members: readonly Member[]) =>
  members.every(({ sent, acknowledged }) => acknowledged.size === new Set(sent.values()).size)

/** Nobody was closed, all that was sent is acknowledged, and the subscriber has each once but for what is marked. */
function nothingLost(t: ExecutionContext, subscriber: Member, members: readonly Member[]): void {
  for (const { device, name } of [subscriber, ...members]) t.false(device.closed, name)
  const acknowledged = members.flatMap((one) => [...one.acknowledged])
  const got = subscriber.got.map(({ payload }) => payload.toString())
  t.deepEqual(
    acknowledged.filter((payload) => !got.includes(payload)),
    [],
    'acknowledged and not delivered',
  )
  const unmarked = subscriber.got.filter(({ dup }) => !dup).map(({ payload }) => payload.toString())
  t.is(new Set(unmarked).size, unmarked.length, 'twice without being marked')
  for (const one of members) {
    const own = unmarked
      .filter((payload) => payload.startsWith(`${one.name} `))
      .map((text) => Number(text.split(' ')[1]))
    t.deepEqual(
      own,
      [...own].sort((a, b) => a - b),
      `the order of ${one.name}`,
    )
  }
}

test.serial(
  `the broker is killed and started again under ${DEVICES} devices: none sees it, and no message is lost`,
  async (t) => {
    t.timeout(170_000)
    const broker = await mosquittoProcess(t, folderFor(t), { persistence: true })
    const door = await openDoor(t, { backend: backend(broker, ', outageShield: { hold: 60s }') })
    const { subscriber, members } = await fleet(t, door.port)
    for (const one of members) publish(one, 4)
    await eventually(() => allAcknowledged(members), 'the first messages', WAIT_MS)
    await eventually(() => subscriber.got.length >= 4 * DEVICES, 'the first deliveries', WAIT_MS)
    // On disk by then: what the broker acknowledged and forgot would be its own affair.
    await sleep(1_500)

    // In flight when it dies: written to the broker, and never read by it.
    broker.freeze()
    for (const one of members) publish(one, 3)
    await sleep(500)
    await broker.kill()
    await eventually(() => held(door).then((n) => n === DEVICES + 1), 'all of them held', WAIT_MS)
    const listed = Number(await outcome(door, 'resumed'))
    t.is(listed, 0)
    // While it is away.
    for (const one of members) {
      publish(one, 3)
      one.device.say({ cmd: 'pingreq' })
    }
    await eventually(() => members.every(({ pongs }) => pongs === 1), 'PINGRESP without a broker', WAIT_MS)
    t.false(allAcknowledged(members))
    await sleep(2_000)
    const started = performance.now()
    await broker.start()
    await eventually(() => held(door).then((n) => n === 0), 'nobody held', WAIT_MS)
    const back = performance.now() - started
    await eventually(() => allAcknowledged(members), 'all acknowledged', WAIT_MS)
    await eventually(() => subscriber.got.length >= 10 * DEVICES, 'all delivered', WAIT_MS)
    nothingLost(t, subscriber, members)
    t.is(await outcome(door, 'resumed'), DEVICES + 1)
    t.log(
      `${DEVICES + 1} held; all back ${back.toFixed(0)} ms after the start; ${subscriber.got.length} deliveries of ${10 * DEVICES}`,
    )

    // And on as ever, in both directions.
    for (const one of members) publish(one, 1)
    await eventually(() => allAcknowledged(members), 'messages afterwards', WAIT_MS)
    await eventually(() => subscriber.got.length >= 11 * DEVICES, 'deliveries afterwards', WAIT_MS)
    nothingLost(t, subscriber, members)
    t.notRegex(door.proxy.output(), /unhandled|uncaught/i)
  },
)

test.serial('a broker that is shut down says goodbye, and is waited for all the same; three times over', async (t) => {
  t.timeout(170_000)
  const broker = await mosquittoProcess(t, folderFor(t), { persistence: true })
  const door = await openDoor(t, { backend: backend(broker, ', outageShield: { hold: 60s }') })
  const { subscriber, members } = await fleet(t, door.port)
  for (let round = 1; round <= 3; round++) {
    for (const one of members) publish(one, 1)
    await broker.kill('SIGTERM')
    for (const one of members) publish(one, 1)
    await sleep(600)
    await broker.start()
    await eventually(() => held(door).then((n) => n === 0), 'nobody held', WAIT_MS)
    await eventually(() => allAcknowledged(members), 'all acknowledged', WAIT_MS)
  }
  await eventually(() => subscriber.got.length >= 6 * DEVICES, 'all delivered', WAIT_MS)
  nothingLost(t, subscriber, members)
})

test.serial('without the shield all of them are closed', async (t) => {
  t.timeout(120_000)
  const broker = await mosquittoProcess(t, folderFor(t), { persistence: true })
  const door = await openDoor(t, { backend: backend(broker, '') })
  const { subscriber, members } = await fleet(t, door.port)
  await broker.kill()
  await Promise.all([subscriber, ...members].map(({ device }) => device.end(WAIT_MS)))
  t.true([subscriber, ...members].every(({ device }) => device.closed))
  t.is(await held(door), 0)
})

test.serial('a broker that comes back without its sessions: the devices are closed, and counted', async (t) => {
  t.timeout(120_000)
  const broker = await mosquittoProcess(t, folderFor(t), { persistence: false })
  const door = await openDoor(t, { backend: backend(broker, ', outageShield: { hold: 60s }') })
  const { subscriber, members } = await fleet(t, door.port)
  const others: Member[] = []
  for (const version of [4, 5] as const) {
    const one = await member(t, door.port, `listener-${version}`, version)
    one.device.say({ cmd: 'subscribe', messageId: 1, subscriptions: [{ topic: 'shield/other', qos: 1 }] })
    await one.device.hear('suback', WAIT_MS)
    others.push(one)
  }
  const clean = await member(t, door.port, 'clean', 4, true)
  clean.device.say({ cmd: 'subscribe', messageId: 1, subscriptions: [{ topic: 'shield/other', qos: 1 }] })
  await clean.device.hear('suback', WAIT_MS)
  await broker.kill()
  // The broker keeps nothing of it, so there is nothing to wait for.
  await clean.device.end(WAIT_MS)
  await eventually(() => held(door).then((n) => n === DEVICES + 3), 'the others held', WAIT_MS)
  for (const one of members) publish(one, 2)
  await broker.start()
  await Promise.all([subscriber, ...others].map(({ device }) => device.end(WAIT_MS)))
  await eventually(() => held(door).then((n) => n === 0), 'nobody held', WAIT_MS)
  t.is(await outcome(door, 'session_gone'), 3)
  t.is(await outcome(door, 'no_session'), 1)
  // Who only publishes has nothing at the broker that could be gone.
  await eventually(() => allAcknowledged(members), 'all acknowledged', WAIT_MS)
  t.true(members.every(({ device }) => !device.closed))
  t.is(await outcome(door, 'resumed'), DEVICES)
})

test.serial('a broker that does not come back: the devices are told when their time is over', async (t) => {
  t.timeout(120_000)
  const broker = await mosquittoProcess(t, folderFor(t), { persistence: true })
  const door = await openDoor(t, { backend: backend(broker, ', outageShield: { hold: 2s }') })
  const { subscriber, members } = await fleet(t, door.port)
  await broker.kill()
  await Promise.all([subscriber, ...members].map(({ device }) => device.end(WAIT_MS)))
  for (const one of members) {
    t.is(farewellOf(one), one.version === 5 ? 0x80 : undefined)
  }
  t.is(await outcome(door, 'expired'), DEVICES + 1)
  t.is(await held(door), 0)
})

test.serial('a drain while they are held: each is told at once, and the program ends', async (t) => {
  t.timeout(120_000)
  const broker = await mosquittoProcess(t, folderFor(t), { persistence: true })
  const door = await openDoor(t, {
    backend: backend(broker, ', outageShield: { hold: 60s }'),
    extra: 'drain: { grace: 5s }',
  })
  const { subscriber, members } = await fleet(t, door.port)
  await broker.kill()
  await eventually(() => held(door).then((n) => n === DEVICES + 1), 'all of them held', WAIT_MS)
  const stopped = door.proxy.stop('SIGTERM')
  await Promise.all([subscriber, ...members].map(({ device }) => device.end(WAIT_MS)))
  t.is((await stopped).code, 0)
  const told = [subscriber, ...members].filter(({ version }) => version === 5)
  for (const one of told) t.is(farewellOf(one), 0x8b)
})

test.serial('who comes again under the client id of a session that is held takes its place', async (t) => {
  t.timeout(120_000)
  const broker = await mosquittoProcess(t, folderFor(t), { persistence: true })
  const door = await openDoor(t, { backend: backend(broker, ', outageShield: { hold: 60s }') })
  const first = await member(t, door.port, 'same', 5)
  const other = await member(t, door.port, 'other', 4)
  await broker.kill()
  await eventually(() => held(door).then((n) => n === 2), 'both held', WAIT_MS)
  // It is refused itself, for there is no broker; but it is the one that the id belongs to.
  await member(t, door.port, 'same', 5)
  await first.device.end(WAIT_MS)
  t.is(farewellOf(first), 0x8e)
  t.is(await outcome(door, 'ended'), 1)
  t.false(other.device.closed)
})

test.serial(
  'the broker is killed in the middle of traffic, five times: no device sees it, and everything is acknowledged',
  async (t) => {
    t.timeout(170_000)
    const broker = await mosquittoProcess(t, folderFor(t), { persistence: true })
    const door = await openDoor(t, { backend: backend(broker, ', outageShield: { hold: 60s }') })
    const { subscriber, members } = await fleet(t, door.port)
    for (let round = 0; round < 5; round++) {
      let busy = true
      const traffic = (async () => {
        while (busy) {
          for (const one of members) if (one.sent.size - one.acknowledged.size < 10) publish(one, 1)
          await sleep(20)
        }
      })()
      await sleep(300)
      await broker.kill()
      await sleep(500)
      busy = false
      await traffic
      await broker.start()
      await eventually(() => held(door).then((n) => n === 0), 'nobody held', WAIT_MS)
      await eventually(() => allAcknowledged(members), 'all acknowledged', WAIT_MS)
    }
    for (const { device, name } of [subscriber, ...members]) t.false(device.closed, name)
    const sent = members.reduce((sum, one) => sum + one.sent.size, 0)
    t.log(
      `${sent} publishes, all acknowledged; ${subscriber.got.length} deliveries; ${await outcome(door, 'resumed')} resumed`,
    )
    t.is(await outcome(door, 'resumed'), 5 * (DEVICES + 1))
    t.notRegex(door.proxy.output(), /unhandled|uncaught/i)
  },
)

test.serial(
  'while they are held an operator sees them and can end them, and a policy that is taken away ends them at once',
  async (t) => {
    t.timeout(120_000)
    const broker = await mosquittoProcess(t, folderFor(t), { persistence: true })
    const door = await openDoor(t, { backend: backend(broker, ', outageShield: { hold: 60s }') })
    const { subscriber, members } = await fleet(t, door.port)
    await broker.kill()
    await eventually(() => held(door).then((n) => n === DEVICES + 1), 'all of them held', WAIT_MS)
    const ask = (path: string, body?: unknown) => admin(join(door.dir, 'admin.sock'), path, body)
    const { connections } = (await ask('/connections')) as { connections: { clientId: string; held?: true }[] }
    t.is(connections.filter((one) => one.held === true).length, DEVICES + 1)
    t.deepEqual(await ask('/kick', { clientId: 'subscriber' }), { kicked: 1 })
    await subscriber.device.end(WAIT_MS)
    t.is(farewellOf(subscriber), 0x98)
    write(door.dir, 'registry/policies.yaml', OPEN_POLICIES.replace('Allow', 'Deny'))
    await Promise.all(members.map(({ device }) => device.end(WAIT_MS)))
    for (const one of members) t.is(farewellOf(one), one.version === 5 ? 0x87 : undefined)
    t.is(await held(door), 0)
    t.is(await outcome(door, 'ended'), DEVICES + 1)
  },
)

const farewellOf = ({ device }: Member): number | undefined =>
  (device.heard.find(({ cmd }) => cmd === 'disconnect') as { reasonCode?: number } | undefined)?.reasonCode

function admin(socketPath: string, path: string, body?: unknown): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const call = request({ socketPath, path, method: body === undefined ? 'GET' : 'POST' }, (response) => {
      let text = ''
      response.on('data', (chunk: Buffer) => {
        text += chunk.toString()
      })
      response.on('end', () => resolve(JSON.parse(text)))
    })
    call.on('error', reject)
    call.setHeader('content-type', 'application/json')
    call.end(body === undefined ? undefined : JSON.stringify(body))
  })
}
