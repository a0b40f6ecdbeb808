// HTTPS publishes are answered 200 when the broker has them. A broker that is killed in between must cost refusals, never
// a message that was acknowledged: here a real Mosquitto is killed and restarted twice under a flood of publishes.
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import test, { type ExecutionContext } from 'ava'
import mqtt from 'mqtt'
import { publisher } from '../../src/backend/publisher.ts'
import { tcp } from '../../src/backend/tcp.ts'
import { eventually } from '../support/e2e.ts'
import { folderFor, freePort, write } from '../support/proxy.ts'
import { flood, PLAIN } from '../support/publishes.ts'

const here = spawnSync('mosquitto', ['-h']).error === undefined
// Skipped where no Mosquitto is installed.
const withMosquitto = here ? test.serial : test.serial.skip

function publisherTo(t: ExecutionContext, port: number, connections = 2) {
  const backend = tcp({
    name: 'main',
    identity: { username: null, password: null, clientId: null, keepAlive: 'device' },
    servers: [{ host: '127.0.0.1', port }],
    balance: 'leastconn',
    connectTimeoutMs: 2_000,
    proxyHeader: null,
    tls: null,
    onDial: () => {},
  })
  const to = publisher({
    backend,
    username: null,
    password: null,
    connections,
    timeoutMs: 10_000,
    queue: 1_000,
    principalProperty: 'principal',
    addressProperty: null,
  })
  t.teardown(async () => {
    await to.close()
    await backend.close()
  })
  return to
}

/** A Mosquitto that can be killed and started again on its port, its log kept. */
async function mosquitto(t: ExecutionContext, lines = '') {
  const port = await freePort()
  const file = write(
    folderFor(t),
    'mosquitto.conf',
    `listener ${port} 127.0.0.1\nallow_anonymous true\nuser root\nlog_type all\nlog_dest stderr\npersistence false\n${lines}\n`,
  )
  let log = ''
  let child = spawnOne()

  function spawnOne() {
    const started = spawn('mosquitto', ['-c', file], { stdio: ['ignore', 'ignore', 'pipe'] })
    started.stderr.on('data', (chunk: Buffer) => {
      log += chunk.toString()
    })
    return started
  }
  const running = (times: number) =>
    eventually(() => (log.match(/mosquitto version .* running/g) ?? []).length >= times, `start ${times}`)

  t.teardown(() => child.kill('SIGKILL'))
  await running(1)
  let times = 1
  return {
    port,
    log: () => log,
    async restart() {
      const gone = once(child, 'exit')
      child.kill('SIGKILL')
      await gone
      child = spawnOne()
      await running(++times)
    },
  }
}

withMosquitto('2,000 publishes while Mosquitto is killed twice: each acknowledged one was received', async (t) => {
  const broker = await mosquitto(t)
  const to = publisherTo(t, broker.port)
  let up: Promise<void> = Promise.resolve()
  const { acknowledged, statuses } = await flood(to, 2_000, 50, async (ended, failed) => {
    if (ended === 500 || ended === 1_200) up = broker.restart()
    if (!failed) return
    await up
    await eventually(
      () =>
        to.publish({ ...PLAIN, topic: 'back' }, new AbortController().signal).then(
          () => true,
          () => false,
        ),
      'back',
    )
  })
  t.is(acknowledged.size + statuses.length, 2_000)
  t.true(acknowledged.size > 1_500, `${acknowledged.size} acknowledged`)
  t.deepEqual(
    statuses.filter((status) => status < 500 || status > 504),
    [],
  )
  // Mosquitto writes this line when it has taken the message, which is before its PUBACK.
  const lines = broker.log().matchAll(/Received PUBLISH from \S+ \(d0, q1, r0, m\d+, 'flood\/(m\d+)'/g)
  const received = new Set(Array.from(lines, ([, payload]) => payload))
  t.deepEqual(
    [...acknowledged].filter((payload) => !received.has(payload)),
    [],
  )
})

withMosquitto(
  'a subscriber of Mosquitto hears every acknowledged message, with all that MQTT 5 says of it',
  async (t) => {
    const broker = await mosquitto(t)
    const to = publisherTo(t, broker.port)
    const subscriber = await mqtt.connectAsync({
      host: '127.0.0.1',
      port: broker.port,
      protocolVersion: 5,
      reconnectPeriod: 0,
    })
    t.teardown(() => subscriber.endAsync(true))
    const heard = new Map<string, mqtt.IPublishPacket>()
    subscriber.on('message', (_topic, payload, packet) => heard.set(payload.toString(), packet))
    await subscriber.subscribeAsync('#', { qos: 1 })
    const { acknowledged, statuses } = await flood(to, 2_000, 100, () => {})
    t.deepEqual(statuses, [])
    await eventually(() => [...acknowledged].every((payload) => heard.has(payload)), 'every message')
    await to.publish(
      {
        ...PLAIN,
        payload: Buffer.from('last'),
        contentType: 'text/plain',
        responseTopic: 'r',
        payloadIsUtf8: true,
        correlationData: Buffer.from('c'),
        messageExpirySeconds: 60,
        userProperties: [
          ['a', '1'],
          ['a', '2'],
        ],
      },
      new AbortController().signal,
      { principal: 'AKIDEXAMPLE', address: '192.0.2.7' },
    )
    const { properties } = await eventually(() => heard.get('last'), 'the last message')
    t.like(properties, {
      contentType: 'text/plain',
      responseTopic: 'r',
      payloadFormatIndicator: true,
      correlationData: Buffer.from('c'),
    })
    t.deepEqual({ ...properties!.userProperties }, { a: ['1', '2'], principal: 'AKIDEXAMPLE' })
  },
)

withMosquitto('a message larger than Mosquitto takes is refused, and the connection goes on', async (t) => {
  const broker = await mosquitto(t, 'max_packet_size 10000')
  const to = publisherTo(t, broker.port)
  const signal = new AbortController().signal
  await t.throwsAsync(to.publish({ ...PLAIN, payload: Buffer.alloc(10_000) }, signal), {
    code: 'ERR_PAYLOAD_TOO_LARGE',
  })
  await to.publish(PLAIN, signal)
  t.is((broker.log().match(/New client connected/g) ?? []).length, 1)
})
