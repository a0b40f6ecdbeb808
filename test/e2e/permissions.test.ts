// What a device may do, packet by packet, before a real Mosquitto that would allow it everything. Items 18 and 21 to 29
// of the acceptance checklist name themselves.
import test from 'ava'
import type { Packet } from 'mqtt-packet'
import { connectDevice, withCertificate, witness } from '../support/clients.ts'
import { eventually, sleep } from '../support/e2e.ts'
import { type Gateway, openGateway, powerless, TOKEN, write, yes } from '../support/gateway.ts'
import { forWholeFile } from '../support/proxy.ts'
import { rawDevice } from '../support/raw-mqtt.ts'

const ARN = 'arn:aws:iot:us-east-1:000000000000'
const statement = (effect: string, action: string, ...resources: string[]) => ({
  Effect: effect,
  Action: `iot:${action}`,
  Resource: resources.map((tail) => (tail === '*' ? '*' : `${ARN}:${tail}`)),
})
const document = (...statements: object[]) => JSON.stringify({ Version: '2012-10-17', Statement: statements })

const POLICIES = {
  'registry/policies/limited.json': document(
    statement('Allow', 'Connect', '*'),
    statement('Allow', 'Publish', 'topic/out/${iot:ClientId}/*', 'topic/$aws/rules/*', 'topic/deep/*', 'topic/both/*'),
    statement('Deny', 'Publish', 'topic/both/not'),
    statement('Allow', 'Subscribe', 'topicfilter/some/*', 'topicfilter/in/*'),
    statement('Allow', 'Receive', 'topic/in/*'),
  ),
}
const LIMITED = `certificates:
  - { file: certs/device.pem, status: ACTIVE, policies: [ limited ] }
  - { file: certs/powerless.pem, status: ACTIVE }
policies:
  limited: { file: policies/limited.json }
  everything: { file: policies/everything.json }
`

const file = forWholeFile(test)
let open: Gateway
let aws: Gateway
test.before(async () => {
  open = await openGateway(file, { registry: LIMITED, files: POLICIES })
  aws = await openGateway(file, {
    registry: LIMITED,
    files: POLICIES,
    domain: '    limits: { profile: aws-iot }',
    extra: 'events: [ { kind: broker, backend: main, topicPrefix: "$aws/events" }, { kind: log } ]',
  })
})

const VERSIONS = [4, 5] as const
/** 0 for what went well, also where nobody listened (0x10), else the reason. */
const reasonOf = (packet: Packet): number => {
  const { reasonCode = 0 } = packet as { reasonCode?: number }
  return reasonCode < 0x80 ? 0 : reasonCode
}

for (const version of VERSIONS) {
  test.serial(
    `item 18, version ${version}: topicfilter/some/* grants some/#; without Receive nothing comes`,
    async (t) => {
      const device = await rawDevice(t, { port: open.ports.mqtt, version, clientId: `d18-${version}` })
      await device.hear('connack')
      device.say({
        cmd: 'subscribe',
        messageId: 1,
        subscriptions: [
          { topic: 'some/#', qos: 1 },
          { topic: 'in/#', qos: 1 },
        ],
      } as Packet)
      t.like(await device.hear('suback'), { messageId: 1, granted: [1, 1] })
      const broker = await connectDevice(t, `mqtt://127.0.0.1:${open.brokerPort}`)
      await broker.publishAsync('some/thing', 'secret', { qos: 1 })
      await broker.publishAsync('in/thing', 'news', { qos: 1 })
      t.like(await device.hear('publish'), { topic: 'in/thing' })
      await sleep(200)
      t.is(device.heard.filter(({ cmd }) => cmd === 'publish').length, 1)
    },
  )

  test.serial(`version ${version}: one denied filter of a SUBSCRIBE is cut out, the others are granted`, async (t) => {
    const device = await rawDevice(t, { port: open.ports.mqtt, version })
    await device.hear('connack')
    const subscriptions = ['in/a', 'forbidden/#', 'in/b'].map((topic) => ({ topic, qos: 1 }))
    device.say({ cmd: 'subscribe', messageId: 7, subscriptions } as Packet)
    t.like(await device.hear('suback'), { messageId: 7, granted: [1, version === 5 ? 0x87 : 0x80, 1] })
  })

  test.serial(`version ${version}: a denied QoS 1 publish never reaches the broker`, async (t) => {
    const seen = await witness(t, open, '#')
    const device = await rawDevice(t, { port: open.ports.mqtt, version, clientId: `pub-${version}` })
    await device.hear('connack')
    device.say({
      cmd: 'publish',
      topic: `out/pub-${version}/x`,
      payload: 'mine',
      qos: 1,
      messageId: 1,
      dup: false,
      retain: false,
    })
    t.is(reasonOf(await device.hear('puback')), 0)
    device.say({
      cmd: 'publish',
      topic: 'out/another/x',
      payload: 'not mine',
      qos: 1,
      messageId: 2,
      dup: false,
      retain: false,
    })
    if (version === 5) t.is(reasonOf(await device.hear('puback')), 0x87)
    else await device.end()
    await sleep(200)
    t.deepEqual(
      seen.filter(({ topic }) => topic.startsWith('out/')).map(({ payload }) => payload),
      ['mine'],
    )
  })

  test.serial(`item 21, version ${version}, aws-iot: a QoS 2 publish has no PUBREC`, async (t) => {
    const device = await rawDevice(t, { port: aws.ports.mqtt, version, clientId: `d21-${version}` })
    const connack = await device.hear('connack')
    if (version === 5) t.like(connack, { properties: { maximumQoS: 1 } })
    device.say({
      cmd: 'publish',
      topic: `out/d21-${version}/x`,
      payload: 'x',
      qos: 2,
      messageId: 1,
      dup: false,
      retain: false,
    })
    if (version === 5) t.is(reasonOf(await device.hear('disconnect')), 0x9b)
    await device.end()
    t.false(device.heard.some(({ cmd }) => cmd === 'pubrec'))
  })

  test.serial(
    `item 24, version ${version}, aws-iot: eight slashes are refused, Basic Ingest and seven pass`,
    async (t) => {
      const device = await rawDevice(t, { port: aws.ports.mqtt, version, clientId: `d24-${version}` })
      await device.hear('connack')
      const publish = (topic: string, messageId: number) =>
        device.say({ cmd: 'publish', topic, payload: 'x', qos: 1, messageId, dup: false, retain: false })
      publish('$aws/rules/r/1/2/3/4/5/6/7/8', 1)
      t.is(reasonOf(await device.hear('puback')), 0)
      publish('deep/2/3/4/5/6/7/8/9', 2)
      if (version === 5) t.is(reasonOf(await device.hear('disconnect')), 0x90)
      await device.end()
    },
  )

  test.serial(`item 25, version ${version}, aws-iot: a payload of 131,073 bytes ends the session`, async (t) => {
    const device = await rawDevice(t, { port: aws.ports.mqtt, version, clientId: `d25-${version}` })
    await device.hear('connack')
    const topic = `out/d25-${version}/x`
    const publish = (bytes: number, messageId: number) =>
      device.say({ cmd: 'publish', topic, payload: Buffer.alloc(bytes), qos: 1, messageId, dup: false, retain: false })
    publish(131_072, 1)
    t.is(reasonOf(await device.hear('puback')), 0)
    publish(131_073, 2)
    await device.end()
    t.is(device.heard.filter(({ cmd }) => cmd === 'puback').length, 1)
  })

  test.serial(`item 27, version ${version}: Deny and Allow on the same resource is denied`, async (t) => {
    const device = await rawDevice(t, { port: open.ports.mqtt, version })
    await device.hear('connack')
    const publish = (topic: string, messageId: number) =>
      device.say({ cmd: 'publish', topic, payload: 'x', qos: 1, messageId, dup: false, retain: false })
    publish('both/yes', 1)
    t.is(reasonOf(await device.hear('puback')), 0)
    publish('both/not', 2)
    if (version === 5) t.is(reasonOf(await device.hear('puback')), 0x87)
    else await device.end()
  })

  test.serial(`item 29, version ${version}: a will that may not be published refuses CONNECT`, async (t) => {
    const events = await witness(t, aws, '$aws/events/presence/connect_failed/#')
    const clientId = `d29-${version}`
    const device = await rawDevice(t, {
      port: aws.ports.mqtt,
      version,
      clientId,
      connect: { will: { topic: 'elsewhere', payload: Buffer.from('gone'), qos: 0, retain: false } },
    })
    if (version === 5) t.is(reasonOf(await device.hear('connack')), 0x87)
    await device.end()
    const event = await eventually(
      () => events.find(({ topic }) => topic === `$aws/events/presence/connect_failed/${clientId}`),
      'connect_failed',
    )
    t.like(JSON.parse(event.payload), { connectFailureReason: 'AUTHORIZATION_FAILED' })
  })

  test.serial(`version ${version}: an entry without a policy may not even connect`, async (t) => {
    const device = await rawDevice(t, { port: open.ports.mqtt, version, certificate: powerless })
    const connack = (await device.hear('connack')) as { returnCode?: number; reasonCode?: number }
    t.is(version === 5 ? connack.reasonCode : connack.returnCode, version === 5 ? 0x87 : 5)
    await device.end()
  })
}

test.serial('item 22: the same client id twice: the first gets 0x8E, and the event says so', async (t) => {
  const events = await witness(t, aws, '$aws/events/presence/disconnected/#')
  const options = { port: aws.ports.mqtt, version: 5, clientId: 'twice' } as const
  const first = await rawDevice(t, options)
  await first.hear('connack')
  await sleep(1_100)
  const second = await rawDevice(t, options)
  t.is(reasonOf(await second.hear('connack')), 0)
  t.is(reasonOf(await first.hear('disconnect')), 0x8e)
  await first.end()
  const event = await eventually(() => events.find(({ topic }) => topic.endsWith('/twice')), 'disconnected')
  t.like(JSON.parse(event.payload), { disconnectReason: 'DUPLICATE_CLIENTID', clientInitiatedDisconnect: false })
  t.false(second.closed)
})

test.serial('item 23: a keep alive of 10 is told as Server Keep Alive 30', async (t) => {
  const device = await rawDevice(t, { port: aws.ports.mqtt, version: 5, connect: { keepalive: 10 } })
  t.like(await device.hear('connack'), { properties: { serverKeepAlive: 30 } })
})

test.serial('items 26 and 28: set INACTIVE while connected, the device is gone within a second', async (t) => {
  const gateway = await openGateway(t, { registry: LIMITED, files: POLICIES })
  const client = await connectDevice(t, `mqtts://127.0.0.1:${gateway.ports.mqtt}`, {
    ...withCertificate,
    protocolVersion: 5,
  })
  const gone = new Promise<number>((resolve) => client.once('disconnect', (packet) => resolve(packet.reasonCode ?? 0)))
  const from = performance.now()
  write(gateway.dir, 'registry/registry.yaml', LIMITED.replace('ACTIVE, policies', 'INACTIVE, policies'))
  t.is(await gone, 0x87)
  t.log(`${Math.round(performance.now() - from)} ms`)
})

test.serial('a policy detached while connected denies at once, and a broken registry changes nothing', async (t) => {
  const gateway = await openGateway(t, { registry: LIMITED, files: POLICIES })
  const device = await rawDevice(t, { port: gateway.ports.mqtt, version: 5, clientId: 'live' })
  await device.hear('connack')
  const publish = async (messageId: number) => {
    device.say({ cmd: 'publish', topic: 'out/live/x', payload: 'x', qos: 1, messageId, dup: false, retain: false })
    return reasonOf(await device.hear('puback'))
  }
  t.is(await publish(1), 0)
  write(gateway.dir, 'registry/policies/limited.json', '{ "Version": ')
  await eventually(() => gateway.proxy.output().includes('limited.json'), 'a line about the broken policy')
  t.is(await publish(2), 0)
  write(gateway.dir, 'registry/policies/limited.json', document(statement('Allow', 'Connect', '*')))
  let messageId = 3
  await eventually(async () => (await publish(messageId++)) === 0x87, 'the narrowed permit', 3_000)
})

test.serial('an answer of an authorizer without policies denies', async (t) => {
  open.answer = (asked, response) => void response.end(JSON.stringify({ ...yes(asked), policyDocuments: [] }))
  await t.throwsAsync(
    connectDevice(t, `mqtts://127.0.0.1:${open.ports.web}`, {
      ALPNProtocols: ['mqtt'],
      username: `u?x-amz-customauthorizer-name=open&MyToken=${TOKEN}`,
    }),
    { message: /not authorized/i },
  )
})

test.serial('events of a broker outage wait, and are told when it is back', async (t) => {
  const gateway = await openGateway(t, {
    extra: 'events: [ { kind: broker, backend: main }, { kind: log } ]',
  })
  const device = await rawDevice(t, { port: gateway.ports.mqtt, version: 5, clientId: 'outage' })
  await device.hear('connack')
  await eventually(
    async () => (await gateway.proxy.metric('brokergate_lifecycle_events_total{result="sent"}')) >= 1,
    'the first event',
  )
  await gateway.stopBroker()
  await device.end()
  await eventually(() => gateway.proxy.output().includes('presence/disconnected/outage'), 'the event in the log')
  await gateway.startBroker()
  const seen = await witness(t, gateway, '$aws/events/#')
  const event = await eventually(
    () => seen.find(({ topic }) => topic === '$aws/events/presence/disconnected/outage'),
    'the event that waited',
  )
  t.like(JSON.parse(event.payload), { disconnectReason: 'SERVER_ERROR', clientInitiatedDisconnect: false })
  t.is(await gateway.proxy.metric('brokergate_lifecycle_events_total{result="dropped"}'), 0)
})
