// The main job on real input: real devices over mutual TLS, through the real program, to a real Mosquitto. Whatever
// Mosquitto does for a device that connects to it directly, it must do through the proxy.
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { promisify } from 'node:util'
import test, { type ExecutionContext } from 'ava'
import mqtt, { type IClientOptions, type MqttClient } from 'mqtt'
import { mqttClient, startMosquitto } from '../support/e2e.ts'
import { createCa, createCrl, type Issued, issueDevice, issueServer } from '../support/pki.ts'
import { folderFor, freePort, OPEN_POLICIES, type RunningProxy, startProxy, write } from '../support/proxy.ts'

const exec = promisify(execFile)

const ca = createCa({ commonName: 'e2e fleet' })
const server = issueServer(ca, { serverNames: ['localhost', 'pass.test'], ips: ['127.0.0.1', '::1'] })
const device = issueDevice(ca, { commonName: 'device-1' })
const inactive = issueDevice(ca, { commonName: 'device-2' })
const revoked = issueDevice(ca, { commonName: 'device-3' })
const stranger = issueDevice(ca, { commonName: 'device-4' })
const HOUR = 3_600_000
const expired = issueDevice(ca, {
  commonName: 'device-5',
  notBefore: new Date(Date.now() - 48 * HOUR),
  notAfter: new Date(Date.now() - 24 * HOUR),
})

interface World {
  readonly dir: string
  readonly proxy: RunningProxy
  readonly mqttPort: number
  readonly alpnPort: number
  readonly brokerPort: number
  /** New connections that Mosquitto has seen so far. */
  brokerConnections(): number
}

async function world(t: ExecutionContext, options: { workers?: number } = {}): Promise<World> {
  const dir = folderFor(t)
  const [mqttPort, alpnPort, brokerPort, passwordPort, metricsPort] = [
    await freePort(),
    await freePort(),
    await freePort(),
    await freePort(),
    await freePort(),
  ]
  write(dir, 'ca.pem', ca.certPem)
  write(dir, 'server.pem', server.chainPem)
  write(dir, 'server.key', server.keyPem)
  for (const [name, issued] of Object.entries({ device, inactive, revoked, stranger, expired }) as [string, Issued][]) {
    write(dir, `${name}.pem`, issued.chainPem)
    write(dir, `${name}.key`, issued.keyPem)
    write(dir, `registry/certs/${name}.pem`, issued.certPem)
  }
  write(
    dir,
    'registry/devices.yaml',
    `certificates:
  - { file: certs/device.pem, status: ACTIVE, policies: [ devices ] }
  - { file: certs/inactive.pem, status: INACTIVE }
  - { file: certs/revoked.pem, status: REVOKED }
  - { file: certs/expired.pem, status: ACTIVE, policies: [ devices ] }
${OPEN_POLICIES}`,
  )
  await exec('mosquitto_passwd', ['-c', '-b', write(dir, 'passwords', ''), 'alice', 'wonderland'])
  const open = await startMosquitto(t, dir, `listener ${brokerPort} 127.0.0.1\nallow_anonymous true`)
  await startMosquitto(
    t,
    folderFor(t),
    `listener ${passwordPort} 127.0.0.1\nallow_anonymous false\npassword_file ${dir}/passwords`,
  )
  const config = write(
    dir,
    'brokergate.yaml',
    `listeners:
  - { bind: "127.0.0.1:${mqttPort}", as: 8883 }
  - { bind: "[::1]:${mqttPort}", as: 8883 }
  - { bind: "127.0.0.1:${alpnPort}", as: 443 }
domains:
  - serverNames: [ localhost ]
    certificates: [ { cert: server.pem, key: server.key } ]
    registry: main
    backend: open
  - serverNames: [ pass.test ]
    certificates: [ { cert: server.pem, key: server.key } ]
    authenticationType: BACKEND
    applicationProtocol: SECURE_MQTT
    backend: passwords
backends:
  open: { kind: tcp, servers: [ { address: "127.0.0.1:${brokerPort}" } ] }
  passwords: { kind: tcp, servers: [ { address: "127.0.0.1:${passwordPort}" } ] }
registries: { main: { path: registry } }
metrics: { bind: "127.0.0.1:${metricsPort}" }
admin: { socket: admin.sock }
workers: ${options.workers ?? 1}
drain: { grace: 5s }
log: { format: json }
`,
  )
  const proxy = await startProxy(t, config, metricsPort)
  return {
    dir,
    proxy,
    mqttPort,
    alpnPort,
    brokerPort,
    brokerConnections: () => open.log().split('New connection from').length - 1,
  }
}

const certificate = (dir: string, name: string): string[] => [
  '--cafile',
  `${dir}/ca.pem`,
  '--cert',
  `${dir}/${name}.pem`,
  '--key',
  `${dir}/${name}.key`,
]

/** A device of this file's own fleet; `localhost` by name, as Mosquitto's clients have it. */
const client = (t: ExecutionContext, port: number, options: IClientOptions = {}): Promise<MqttClient> =>
  mqttClient(t, port, { host: 'localhost', ca: ca.certPem, cert: device.chainPem, key: device.keyPem, ...options })

const message = (subscriber: MqttClient): Promise<{ topic: string; text: string; qos: number; retain: boolean }> =>
  new Promise((resolve) => {
    subscriber.once('message', (topic, payload, packet) =>
      resolve({ topic, text: payload.toString(), qos: packet.qos, retain: packet.retain }),
    )
  })

test.serial(
  'mosquitto_pub and mosquitto_sub deliver on 8883 and with ALPN x-amzn-mqtt-ca on 443, over IPv4 and IPv6',
  async (t) => {
    const { dir, mqttPort, alpnPort, proxy } = await world(t, { workers: 2 })
    const sub = spawn('mosquitto_sub', [
      '-h',
      'localhost',
      '-p',
      String(mqttPort),
      ...certificate(dir, 'device'),
      '-i',
      'sub',
      '-t',
      'hello/#',
      '-C',
      '3',
      '-W',
      '10',
      '-d',
    ])
    let output = ''
    sub.stdout.on('data', (chunk: Buffer) => {
      output += chunk.toString()
    })
    const done = once(sub, 'exit')
    // Mosquitto's client keeps its output to itself until it ends, so the proxy is asked.
    await proxy.until(
      () => proxy.metric('brokergate_packets_total{direction="out",type="suback"}').then((n) => n === 1),
      'subscribed',
    )
    const publish = (args: string[], text: string) =>
      exec('mosquitto_pub', [...args, ...certificate(dir, 'device'), '-q', '1', '-t', 'hello/world', '-m', text])
    await publish(['-h', 'localhost', '-p', String(mqttPort)], 'one')
    await publish(['-h', 'localhost', '-p', String(alpnPort), '--tls-alpn', 'x-amzn-mqtt-ca', '-V', '5'], 'two')
    // Mosquitto's clients take SNI from the host, and `localhost` need not be an IPv6 name on every machine.
    const six = await client(t, mqttPort, { host: '::1' })
    await six.publishAsync('hello/world', 'three', { qos: 1 })
    await six.endAsync()
    const [code] = await done
    t.is(code, 0, output)
    for (const text of ['one', 'two', 'three']) t.true(output.includes(`\n${text}\n`), text)
    await proxy.until(
      () => proxy.lines().some((line) => line.event === 'session' && line.remoteAddress === '::1'),
      'the IPv6 session',
    )
  },
)

for (const protocolVersion of [4, 5] as const) {
  test.serial(
    `MQTT.js, protocol ${protocolVersion}: QoS 0, 1 and 2, retained, will and a persistent session come through unchanged`,
    async (t) => {
      const { mqttPort, proxy } = await world(t)
      const options: IClientOptions = { protocolVersion }
      const subscriber = await client(t, mqttPort, options)
      const publisher = await client(t, mqttPort, options)

      await subscriber.subscribeAsync('t/#', { qos: 2 })
      for (const qos of [0, 1, 2] as const) {
        const arrived = message(subscriber)
        await publisher.publishAsync(`t/${qos}`, `qos ${qos}`, { qos })
        t.deepEqual(await arrived, { topic: `t/${qos}`, text: `qos ${qos}`, qos, retain: false })
      }

      await publisher.publishAsync('kept', 'still here', { qos: 1, retain: true })
      const late = await client(t, mqttPort, options)
      const kept = message(late)
      await late.subscribeAsync('kept', { qos: 1 })
      t.deepEqual(await kept, { topic: 'kept', text: 'still here', qos: 1, retain: true })

      await subscriber.subscribeAsync('wills/#', { qos: 1 })
      const will = message(subscriber)
      const doomed = await client(t, mqttPort, {
        ...options,
        will: { topic: 'wills/doomed', payload: Buffer.from('gone'), qos: 1, retain: false },
      })
      doomed.stream.destroy()
      t.like(await will, { topic: 'wills/doomed', text: 'gone' })

      const clientId = `persistent-${protocolVersion}`
      const keep: IClientOptions =
        protocolVersion === 4
          ? { clean: false, clientId }
          : { clean: false, clientId, properties: { sessionExpiryInterval: 60 } }
      const sleeper = await client(t, mqttPort, { ...options, ...keep })
      await sleeper.subscribeAsync('queued', { qos: 1 })
      await sleeper.endAsync()
      await publisher.publishAsync('queued', 'while you slept', { qos: 1 })
      const woken = mqtt.connect({
        protocol: 'mqtts',
        host: 'localhost',
        port: mqttPort,
        ca: ca.certPem,
        cert: device.chainPem,
        key: device.keyPem,
        servername: 'localhost',
        reconnectPeriod: 0,
        ...options,
        ...keep,
      } as IClientOptions)
      t.teardown(() => woken.end(true))
      t.like(await message(woken), { topic: 'queued', text: 'while you slept' })
      t.is(await proxy.metric('brokergate_identities_total{method="x509",result="ok"}'), 6)
    },
  )
}

test.serial(
  'with BACKEND the broker judges user name and password, and no client certificate is asked for',
  async (t) => {
    const { mqttPort, proxy } = await world(t)
    const backend = { servername: 'pass.test', cert: undefined, key: undefined } as unknown as IClientOptions
    const alice = await client(t, mqttPort, { ...backend, username: 'alice', password: 'wonderland' })
    t.true(alice.connected)
    const refused = await t.throwsAsync(client(t, mqttPort, { ...backend, username: 'alice', password: 'wrong' }))
    t.regex(refused.message, /Not authorized|Connection refused/)
    await alice.endAsync()
    await proxy.until(
      () => proxy.metric('brokergate_connects_total{result="refused_by_broker",version="3.1.1"}').then((n) => n === 1),
      'the refusal',
    )
    t.false(proxy.output().includes('wonderland'))
  },
)

test.serial('telemetry in the user name of an X.509 device never reaches the broker as credentials', async (t) => {
  // A Mosquitto that knows only alice refuses every CONNECT with another name; the device is let in because its
  // telemetry was replaced by the backend's own credentials.
  const { dir, proxy } = await world(t)
  await proxy.stop()
  const [port, passwordPort, metricsPort] = [await freePort(), await freePort(), await freePort()]
  await startMosquitto(
    t,
    folderFor(t),
    `listener ${passwordPort} 127.0.0.1\nallow_anonymous false\npassword_file ${dir}/passwords`,
  )
  write(dir, 'broker-password', 'wonderland\n')
  const config = write(
    dir,
    'telemetry.yaml',
    `listeners: [ { bind: "127.0.0.1:${port}", as: 8883 } ]
domains:
  - serverNames: [ localhost ]
    certificates: [ { cert: server.pem, key: server.key } ]
    registry: main
    backend: main
backends:
  main:
    kind: tcp
    servers: [ { address: "127.0.0.1:${passwordPort}" } ]
    identity: { username: alice, password: { file: broker-password } }
registries: { main: { path: registry } }
metrics: { bind: "127.0.0.1:${metricsPort}" }
admin: { socket: telemetry.sock }
workers: 1
log: { format: json }
`,
  )
  const second = await startProxy(t, config, metricsPort)
  for (const protocolVersion of [4, 5] as const) {
    const connected = await client(t, port, {
      protocolVersion,
      username: '?SDK=JavaScript&Version=2.2.15',
      password: 'x',
    })
    t.true(connected.connected)
    await connected.endAsync()
  }
  t.false(second.output().includes('wonderland'))
})

interface Refusal {
  readonly what: string
  readonly args: (dir: string) => string[]
  readonly alpn?: boolean
  readonly series: string
  readonly reason: string
  readonly stage: string
  readonly alert: number | null
}

const hello = (reason: string): string => `brokergate_hellos_total{result="${reason}"}`
const identity = (reason: string): string => `brokergate_identities_total{method="x509",result="${reason}"}`
const named = ['-servername', 'localhost']
const shows = (dir: string, name: string): string[] => [
  ...named,
  '-cert',
  `${dir}/${name}.pem`,
  '-key',
  `${dir}/${name}.key`,
]

// biome-ignore format: a table is read down its columns
const REFUSALS: readonly Refusal[] = [
  { what: 'no server name',            args: () => ['-noservername'],                         series: hello('sni_missing'),      reason: 'sni_missing',      stage: 'hello', alert: 109 },
  { what: 'a wrong server name',       args: () => ['-servername', 'other.test'],             series: hello('sni_unknown'),      reason: 'sni_unknown',      stage: 'hello', alert: 112 },
  { what: 'a wrong ALPN name on 443',  args: () => [...named, '-alpn', 'h2'], alpn: true,     series: hello('alpn_unsupported'), reason: 'alpn_unsupported', stage: 'hello', alert: 120 },
  { what: 'no certificate',            args: () => named,                                     series: identity('certificate_absent'),         reason: 'certificate_absent',         stage: 'authenticate', alert: null },
  { what: 'an unregistered certificate', args: (dir) => shows(dir, 'stranger'),               series: identity('certificate_not_registered'), reason: 'certificate_not_registered', stage: 'authenticate', alert: null },
  { what: 'an inactive certificate',   args: (dir) => shows(dir, 'inactive'),                 series: identity('certificate_inactive'),       reason: 'certificate_inactive',       stage: 'authenticate', alert: null },
  { what: 'a revoked certificate',     args: (dir) => shows(dir, 'revoked'),                  series: identity('certificate_revoked'),        reason: 'certificate_revoked',        stage: 'authenticate', alert: null },
  { what: 'an expired certificate',    args: (dir) => shows(dir, 'expired'),                  series: identity('certificate_expired'),        reason: 'certificate_expired',        stage: 'authenticate', alert: null },
]

test.serial(
  'every stranger is refused at its stage, counted by reason, and the broker never hears of it',
  async (t) => {
    const { dir, mqttPort, alpnPort, proxy, brokerConnections } = await world(t)
    for (const { what, args, alpn, series, reason, stage, alert } of REFUSALS) {
      const before = await proxy.metric(series)
      const seen = await new Promise<string>((resolve) => {
        const child = spawn('openssl', [
          's_client',
          '-connect',
          `127.0.0.1:${alpn ? alpnPort : mqttPort}`,
          '-CAfile',
          `${dir}/ca.pem`,
          ...args(dir),
        ])
        let text = ''
        child.stdout.on('data', (chunk: Buffer) => {
          text += chunk.toString()
        })
        child.stderr.on('data', (chunk: Buffer) => {
          text += chunk.toString()
        })
        // Standard input stays open: it is the proxy that must close.
        child.once('exit', () => resolve(text))
      })
      if (alert === null) t.notRegex(seen, /SSL alert number/, what)
      else t.regex(seen, new RegExp(`SSL alert number ${alert}\\b`), what)
      await proxy.until(() => proxy.metric(series).then((n) => n === before + 1), `${what}: ${series}`)
      const line = await proxy.until(() => proxy.lines().find((found) => found.reason === reason), `${what}: log line`)
      t.is(line.stage, stage, what)
    }
    t.is(brokerConnections(), 0)
    t.is(await proxy.metric('brokergate_backend_dials_total{backend="open",result="ok"}'), 0)
  },
)

test.serial('a broker that is away is CONNACK 3 for 3.1.1 and 0x88 for MQTT 5', async (t) => {
  const dir = folderFor(t)
  const [port, nobody, metricsPort] = [await freePort(), await freePort(), await freePort()]
  write(dir, 'ca.pem', ca.certPem)
  write(dir, 'server.pem', server.chainPem)
  write(dir, 'server.key', server.keyPem)
  const crl = createCrl(ca, { revoked: [] })
  write(dir, 'fleet.crl', crl.pem)
  write(dir, 'registry/policies.yaml', OPEN_POLICIES)
  const config = write(
    dir,
    'brokergate.yaml',
    `listeners: [ { bind: "127.0.0.1:${port}", as: 8883 } ]
domains:
  - serverNames: [ localhost ]
    certificates: [ { cert: server.pem, key: server.key } ]
    registry: main
    clientTrust: { mode: ca, ca: [ ca.pem ], crl: { files: [ fleet.crl ] }, policies: [ devices ] }
    backend: away
registries: { main: { path: registry } }
backends: { away: { kind: tcp, servers: [ { address: "127.0.0.1:${nobody}" } ] } }
metrics: { bind: "127.0.0.1:${metricsPort}" }
admin: { socket: admin.sock }
workers: 1
log: { format: json }
`,
  )
  const proxy = await startProxy(t, config, metricsPort)
  const three = await t.throwsAsync(client(t, port, { protocolVersion: 4 }))
  t.is((three as { code?: number }).code, 3)
  const five = await t.throwsAsync(client(t, port, { protocolVersion: 5 }))
  t.is((five as { code?: number }).code, 0x88)
  t.is(await proxy.metric('brokergate_connects_total{result="backend_refused",version="3.1.1"}'), 1)
})

test.serial('SIGTERM stops accepting, tells MQTT 5 sessions 0x8B and ends with exit code 0', async (t) => {
  const { mqttPort, proxy } = await world(t, { workers: 2 })
  const five = await client(t, mqttPort, { protocolVersion: 5 })
  const goodbye = new Promise<number | undefined>((resolve) => {
    five.once('disconnect', (packet) => resolve(packet.reasonCode))
  })
  const ended = proxy.stop('SIGTERM')
  t.is(await goodbye, 0x8b)
  t.deepEqual(await ended, { code: 0, signal: null })
})

test.serial('a second SIGTERM ends at once, whatever the grace', async (t) => {
  const { mqttPort, proxy } = await world(t, { workers: 2 })
  // Two sessions: the farewell of the second one is due only later in the grace period.
  await client(t, mqttPort, { protocolVersion: 5 })
  await client(t, mqttPort, { protocolVersion: 4 })
  proxy.child.kill('SIGTERM')
  await proxy.until(() => proxy.lines().some((line) => line.message === 'draining'), 'draining')
  const { code } = await proxy.stop('SIGTERM')
  t.is(code, 1)
  t.false(proxy.lines().some((line) => line.message === 'ended'))
})

test.serial('a worker that is killed is replaced and counted, and the door stays open', async (t) => {
  const { mqttPort, proxy } = await world(t, { workers: 2 })
  const victim = Number(proxy.lines().find((line) => line.message === 'worker ready')?.workerPid)
  t.true(victim > 0)
  process.kill(victim, 'SIGKILL')
  await proxy.until(
    () => proxy.metric('brokergate_worker_exits_total{reason="signal"}').then((n) => n === 1),
    'the exit',
  )
  await proxy.until(() => proxy.metric('brokergate_workers').then((n) => n === 2), 'the replacement')
  const connected = await client(t, mqttPort)
  t.true(connected.connected)
})
