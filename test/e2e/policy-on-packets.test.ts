// What a policy forbids is told to a real client in its own words, and a real broker never sees it: MQTT.js over mutual
// TLS, through the real program, to Mosquitto. A gate that answers in the broker's place is easily one answer short or one
// too many, and then a client hangs on a packet id for ever; so each session goes on to do what it may.
import test, { type ExecutionContext } from 'ava'
import type { IClientSubscribeOptions, IDisconnectPacket, MqttClient } from 'mqtt'
import { eventually, mqttClient, openDoor, startMosquitto } from '../support/e2e.ts'
import { folderFor, freePort } from '../support/proxy.ts'

const POLICIES = `policies:
  devices:
    Version: "2012-10-17"
    Statement:
      - { Effect: Allow, Action: ["iot:Connect"], Resource: "*" }
      - { Effect: Allow, Action: ["iot:Publish", "iot:Receive"], Resource: "arn:aws:iot:*:*:topic/open/*" }
      - { Effect: Allow, Action: ["iot:Subscribe"], Resource: ["arn:aws:iot:*:*:topicfilter/open/*", "arn:aws:iot:*:*:topicfilter/#"] }
      - { Effect: Allow, Action: ["iot:RetainPublish"], Resource: "arn:aws:iot:*:*:topic/open/kept" }
`

async function world(t: ExecutionContext) {
  const brokerPort = await freePort()
  const mosquitto = await startMosquitto(t, folderFor(t), `listener ${brokerPort} 127.0.0.1\nallow_anonymous true`)
  const door = await openDoor(t, {
    backend: `kind: tcp, servers: [ { address: "127.0.0.1:${brokerPort}" } ]`,
    files: { 'registry/policies.yaml': POLICIES },
  })
  return { ...door, brokerPort, mosquitto }
}

/** A client straight at the broker, that nobody restricts. */
const insider = (t: ExecutionContext, port: number, options: object = {}) =>
  // With a key MQTT.js would speak TLS whatever the protocol.
  mqttClient(t, port, { protocol: 'mqtt', cert: undefined, key: undefined, ...options })

const granted = async (client: MqttClient, filters: string[], options: IClientSubscribeOptions = { qos: 1 }) =>
  (await client
    .subscribeAsync(filters, options)
    .catch((error: { packet?: { granted?: number[] } }) => error)) as unknown

for (const protocolVersion of [4, 5] as const) {
  const name = protocolVersion === 4 ? '3.1.1' : '5'

  test(`MQTT ${name}: denied filters of a SUBSCRIBE are refused, the others are in force`, async (t) => {
    const { port, brokerPort } = await world(t)
    const client = await mqttClient(t, port, { protocolVersion })
    const answer = new Promise<number[]>((resolve) => {
      client.on('packetreceive', (packet) => {
        if (packet.cmd === 'suback') resolve(packet.granted as number[])
      })
    })
    await granted(client, ['closed/a', 'open/a', 'open/b', 'closed/#'])
    t.deepEqual(await answer, protocolVersion === 4 ? [0x80, 1, 1, 0x80] : [0x87, 1, 1, 0x87])
    const heard: string[] = []
    client.on('message', (topic) => heard.push(topic))
    const sender = await insider(t, brokerPort)
    for (const topic of ['closed/a', 'open/a', 'open/b']) await sender.publishAsync(topic, '', { qos: 1 })
    await eventually(() => heard.length >= 2, 'both messages')
    t.deepEqual(heard, ['open/a', 'open/b'])
  })

  test(`MQTT ${name}: deliveries that may not be received are taken from the broker, at every QoS`, async (t) => {
    const { port, brokerPort, proxy } = await world(t)
    const client = await mqttClient(t, port, { protocolVersion })
    await client.subscribeAsync('#', { qos: 2 })
    const heard: string[] = []
    client.on('message', (topic) => heard.push(topic))
    const sender = await insider(t, brokerPort)
    // More than Mosquitto keeps in flight (20): without acknowledgements in the device's place it would stand still.
    for (let n = 0; n < 60; n++) await sender.publishAsync(`closed/${n}`, 'x', { qos: [0, 1, 2][n % 3] as 0 | 1 | 2 })
    for (const qos of [0, 1, 2] as const) await sender.publishAsync(`open/${qos}`, 'x', { qos })
    await eventually(() => heard.length >= 3, 'the three that may be received')
    t.deepEqual(heard.sort(), ['open/0', 'open/1', 'open/2'])
    t.is(await proxy.metric('brokergate_packets_denied_total{action="iot:Receive"}'), 60)
  })
}

test('MQTT 5: a denied publish is PUBACK or PUBREC 0x87, and the session goes on', async (t) => {
  const { port, brokerPort } = await world(t)
  const client = await mqttClient(t, port, { protocolVersion: 5 })
  const watcher = await insider(t, brokerPort)
  const seen: string[] = []
  watcher.on('message', (topic) => seen.push(topic))
  await watcher.subscribeAsync('#', { qos: 2 })
  for (let n = 0; n < 20; n++) {
    const qos = n % 2 === 0 ? 1 : 2
    // MQTT.js tells the reason code as the error's.
    await t.throwsAsync(client.publishAsync('closed/a', '', { qos }), { code: 0x87 as never })
    await client.publishAsync(`open/${n}`, '', { qos })
  }
  await t.throwsAsync(client.publishAsync('open/a', '', { qos: 1, retain: true }), { code: 0x87 as never })
  await client.publishAsync('open/kept', '', { qos: 1, retain: true })
  await eventually(() => seen.length >= 21, 'what was allowed')
  t.deepEqual(
    seen.filter((topic) => topic.startsWith('closed')),
    [],
  )
  const said = new Promise<IDisconnectPacket>((resolve) => client.on('disconnect', resolve))
  client.publish('closed/a', '', { qos: 0 })
  t.is((await said).reasonCode, 0x87)
})

test('MQTT 3.1.1: a denied publish ends the connection, and the broker never saw it', async (t) => {
  for (const qos of [0, 1, 2] as const) {
    const { port, mosquitto } = await world(t)
    const client = await mqttClient(t, port, { protocolVersion: 4 })
    const closed = new Promise<void>((resolve) => client.on('close', resolve))
    client.publish('closed/secret', '', { qos }, () => {})
    await closed
    t.notRegex(mosquitto.log(), /closed\/secret/)
  }
})

test('MQTT 5: aliases of a real client, over topics it may and may not publish to', async (t) => {
  const { port, brokerPort } = await world(t)
  const client = await mqttClient(t, port, { protocolVersion: 5, autoAssignTopicAlias: true })
  const watcher = await insider(t, brokerPort)
  const seen: string[] = []
  watcher.on('message', (topic, payload) => seen.push(`${topic} ${payload}`))
  await watcher.subscribeAsync('#', { qos: 1 })
  const expected: string[] = []
  // More topics than aliases, so that they are given anew, by allowed and by denied publishes.
  for (let n = 0; n < 120; n++) {
    const topic = `${n % 3 === 0 ? 'closed' : 'open'}/${n % 17}`
    if (topic.startsWith('open')) expected.push(`${topic} ${n}`)
    await client.publishAsync(topic, `${n}`, { qos: 1 }).catch((error: { code?: number }) => t.is(error.code, 0x87))
  }
  await eventually(() => seen.length >= expected.length, 'every allowed message')
  t.deepEqual(seen, expected)
})
