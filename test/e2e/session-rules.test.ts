// Who may connect, as whom, under which limits, and for how long: real MQTT.js devices, the real program, a real
// Mosquitto. What went wrong elsewhere: two live sessions under one client id on two workers, a stranger who throws out
// somebody else's device, and a policy that is taken away and goes on for as long as the session does.
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import test, { type ExecutionContext } from 'ava'
import mqtt, { type IClientOptions, type IConnackPacket, type IDisconnectPacket, type MqttClient } from 'mqtt'
import { issueDevice } from '../../src/cli/pki.ts'
import { ca, eventually, mqttClient, openDoor, sleep, startMosquitto } from '../support/e2e.ts'
import { folderFor, freePort, write } from '../support/proxy.ts'

const exec = promisify(execFile)
const MAIN = new URL('../../src/main.ts', import.meta.url).pathname
const other = issueDevice(ca, { commonName: 'device-2' })
const OTHER = { cert: other.chainPem, key: other.keyPem }

async function world(t: ExecutionContext, options: { extra?: string; workers?: number; policies?: string } = {}) {
  const brokerPort = await freePort()
  await startMosquitto(t, folderFor(t), `listener ${brokerPort} 127.0.0.1\nallow_anonymous true`)
  return openDoor(t, {
    backend: `kind: tcp, servers: [ { address: "127.0.0.1:${brokerPort}" } ]`,
    workers: options.workers ?? 1,
    ...(options.extra !== undefined && { extra: options.extra }),
    ...(options.policies !== undefined && { files: { 'registry/policies.yaml': options.policies } }),
  })
}

/** Why the other side ended it: the reason of DISCONNECT, or null where none came. */
async function farewell(client: MqttClient): Promise<number | null> {
  let reason: number | null = null
  client.on('disconnect', (packet: IDisconnectPacket) => {
    reason = packet.reasonCode ?? 0
  })
  client.on('error', () => {})
  if (client.connected) await new Promise<void>((resolve) => client.once('close', () => resolve()))
  return reason
}

/** The CONNACK code that refused it. */
const refusal = async (t: ExecutionContext, port: number, options: Record<string, unknown>): Promise<unknown> => {
  const error = await t.throwsAsync(mqttClient(t, port, { protocolVersion: 5, ...options }))
  return (error as { code?: unknown }).code
}

test('one client id has one session among two workers: the newcomer wins and the loser hears 0x8E', async (t) => {
  const { port, proxy } = await world(t, { workers: 2 })
  let live = await mqttClient(t, port, { clientId: 'lamp', protocolVersion: 5 })
  for (let round = 0; round < 5; round++) {
    const lost = farewell(live)
    // Not twice within a second.
    await sleep(1_100)
    const newcomer = await mqttClient(t, port, { clientId: 'lamp', protocolVersion: 5 })
    t.is(await lost, 0x8e)
    live = newcomer
  }
  const lines = await proxy.until(() => {
    const ended = proxy.lines().filter(({ reason }) => reason === 'session_taken_over')
    return ended.length === 5 && ended
  }, 'five lines in the log')
  t.log(`losers on workers ${lines.map(({ worker }) => worker)}`)
  t.true(live.connected)
  // Too soon.
  t.is(await refusal(t, port, { clientId: 'lamp' }), 0x97)
  t.true(live.connected)
})

test('another principal never takes a live client id, on either worker', async (t) => {
  const { port } = await world(t, { workers: 2 })
  const live = await mqttClient(t, port, { clientId: 'lamp', protocolVersion: 5 })
  for (let attempt = 0; attempt < 6; attempt++) t.is(await refusal(t, port, { clientId: 'lamp', ...OTHER }), 0x85)
  t.true(live.connected)
  await live.endAsync()
  await eventually(
    () => mqttClient(t, port, { clientId: 'lamp', protocolVersion: 5, ...OTHER }).then((client) => client.connected),
    'the id is free',
  )
})

test('under aws-iot a device is told what holds, and what is over it is refused', async (t) => {
  const { port } = await world(t, { extra: 'limits: { profile: aws-iot }' })
  // The first packet is heard before the promise of the client is.
  const client = mqtt.connect({
    protocol: 'mqtts',
    host: '127.0.0.1',
    port,
    ca: ca.certPem,
    cert: other.chainPem,
    key: other.keyPem,
    servername: 'localhost',
    reconnectPeriod: 0,
    protocolVersion: 5,
    clientId: '',
    keepalive: 10,
    properties: { sessionExpiryInterval: 86_400 },
  } as IClientOptions)
  t.teardown(() => client.endAsync(true))
  const told = await new Promise<IConnackPacket>((resolve, reject) => {
    client.once('connect', resolve)
    client.once('error', reject)
  })
  const { assignedClientIdentifier, ...holds } = told.properties ?? {}
  t.regex(assignedClientIdentifier ?? '', /^[0-9a-f]{32}$/)
  t.like(holds, {
    serverKeepAlive: 30,
    sessionExpiryInterval: 3_600,
    receiveMaximum: 20,
    maximumQoS: 1,
    topicAliasMaximum: 8,
    maximumPacketSize: 149_504,
    subscriptionIdentifiersAvailable: false,
  })
  const will = { topic: 'gone', payload: 'bye', qos: 2, retain: false }
  t.is(await refusal(t, port, { clientId: 'w', will }), 0x9b)
  t.is(await refusal(t, port, { clientId: 'x'.repeat(129) }), 0x85)
  t.is(await refusal(t, port, { clientId: 'w', will: { ...will, qos: 0, topic: 'a/b/c/d/e/f/g/h/i' } }), 0x90)
  t.is(await refusal(t, port, { clientId: 'w', properties: { maximumPacketSize: 511 } }), 0x97)
})

const POLICIES = (connect: string) => `policies:
  devices:
    Version: "2012-10-17"
    Statement:
      - { Effect: Allow, Action: "iot:Connect", Resource: "${connect}" }
      - { Effect: Allow, Action: [ "iot:Publish", "iot:Subscribe", "iot:Receive" ], Resource: "*" }
`
const CLIENT = 'arn:aws:iot:us-east-1:000000000000:client/'

test('iot:Connect decides by client id, and a policy that is taken away ends the session with 0x87', async (t) => {
  const { port, dir } = await world(t, { policies: POLICIES(`${CLIENT}lamp*`) })
  t.is(await refusal(t, port, { clientId: 'door' }), 0x87)
  const error = await t.throwsAsync(mqttClient(t, port, { clientId: 'door' }))
  t.is((error as { code?: unknown } | undefined)?.code, 5)
  const [stays, goes] = [
    await mqttClient(t, port, { clientId: 'lamp-1', protocolVersion: 5 }),
    await mqttClient(t, port, { clientId: 'lamp-2', protocolVersion: 5 }),
  ]
  const lost = farewell(goes)
  write(dir, 'registry/policies.yaml', POLICIES(`${CLIENT}lamp-1`))
  t.is(await lost, 0x87)
  t.true(stays.connected)
  t.is(await refusal(t, port, { clientId: 'lamp-2' }), 0x87)
})

test('an operator sees who is connected on all workers, and ends one of them with 0x98', async (t) => {
  const { port, dir } = await world(t, { workers: 2 })
  const clients = await Promise.all(
    Array.from({ length: 6 }, (_, n) => mqttClient(t, port, { clientId: `lamp-${n}`, protocolVersion: 5 })),
  )
  const brokergate = (...words: string[]) =>
    exec(process.execPath, [MAIN, 'connections', ...words, '-c', join(dir, 'brokergate.yaml')]).then(
      ({ stdout }) => stdout,
      ({ stdout }: { stdout: string }) => stdout,
    )
  const listed = await brokergate()
  for (let n = 0; n < 6; n++) t.true(listed.includes(`"lamp-${n}"`))
  t.regex(listed, /6 connected/)
  const lost = farewell(clients[3]!)
  t.is(await brokergate('kick', 'lamp-3'), '1 ended\n')
  t.is(await lost, 0x98)
  t.is(await brokergate('kick', 'lamp-3'), 'nobody is connected under this client id\n')
  t.deepEqual(
    clients.map(({ connected }) => connected),
    [true, true, true, false, true, true],
  )
})
