// A fleet is connected and talks while everything that can be changed is changed, again and again: certificates, CAs,
// registries, policies, brokers, listeners, limits. Nobody may be closed, no acknowledged message may be lost, and what
// was replaced must be gone at the end. `E2E_RELOAD_SESSIONS=5000` is the full size.
import test, { type ExecutionContext } from 'ava'
import type { MqttClient } from 'mqtt'
import {
  ca,
  eventually,
  knock,
  mqttClient,
  openFiles,
  residentBytes,
  server,
  sleep,
  startMosquitto,
  startSink,
} from '../support/e2e.ts'
import { createCa, issueServer } from '../support/pki.ts'
import { folderFor, freePort, OPEN_POLICIES, write } from '../support/proxy.ts'
import { domain, openReloadable, type Reloadable, settled } from '../support/reloads.ts'

const SESSIONS = Number(process.env.E2E_RELOAD_SESSIONS ?? 300)
const RELOADS = Number(process.env.E2E_RELOAD_COUNT ?? 20)
const FLOWS = Math.min(50, Math.ceil(SESSIONS / 10))
/** Connecting at once. */
const AT_ONCE = 50
/** The wait between two publishes of one device. */
const PACE_MS = 20

const other = issueServer(ca, { serverNames: ['localhost'], ips: ['127.0.0.1'] })
const PAIRS = [server, other]
const spareCa = createCa({ commonName: 'spare' })

for (const workers of [1, 2]) {
  test.serial(
    `${RELOADS} reloads of everything under ${SESSIONS} sessions that talk, on ${workers} worker${workers === 1 ? '' : 's'}`,
    (t) => reloadAll(t, workers),
  )
}

async function reloadAll(t: ExecutionContext, workers: number): Promise<void> {
  t.timeout(600_000)
  const dir = folderFor(t)
  const brokerPort = await freePort()
  await startMosquitto(t, dir, `listener ${brokerPort} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n`)
  const elsewhere = await startSink(t)
  const extra = await freePort()
  const gate = await openReloadable(t, {
    workers,
    brokerPort,
    files: {
      'registry-0/policies.yaml': OPEN_POLICIES,
      'registry-1/policies.yaml': OPEN_POLICIES,
      'spare.pem': spareCa.certPem,
    },
  })
  const pids = await pidsOf(gate)
  const before = { files: pids.map(openFiles), resident: pids.map(residentBytes) }

  const closed: string[] = []
  const idle: Awaited<ReturnType<typeof knock>>[] = []
  for (let at = 0; at < SESSIONS - FLOWS; at += AT_ONCE) {
    const names = Array.from({ length: Math.min(AT_ONCE, SESSIONS - FLOWS - at) }, (_, n) => `idle-${at + n}`)
    const joined = await Promise.all(
      names.map(async (name) => {
        const device = await knock(gate.port, name)
        device.socket.on('close', () => closed.push(name))
        t.teardown(() => device.socket.destroy())
        device.socket.resume()
        return device
      }),
    )
    idle.push(...joined)
  }
  const flows: Flow[] = []
  for (let n = 0; n < FLOWS; n++) flows.push(await startFlow(t, gate.port, n, closed))

  const took: number[] = []
  let refused = 0
  for (let n = 1; n <= RELOADS; n++) {
    const broken = n === Math.ceil(RELOADS / 3) ? 'pair' : n === Math.ceil((2 * RELOADS) / 3) ? 'text' : null
    changeAll(gate, n, { brokerPort, elsewhere: elsewhere.port, extra, broken })
    const from = performance.now()
    const reloaded = await gate.post()
    took.push(performance.now() - from)
    t.is(reloaded.kind, broken === null ? 'done' : 'refused', JSON.stringify(reloaded))
    if (broken !== null) refused++
    // Somebody comes by the new settings and goes again.
    if (broken === null) (await knock(gate.port, `guest-${n}`)).leave()
  }
  await sleep(500)
  const results = await Promise.all(flows.map((flow) => flow.stop()))
  t.deepEqual(closed, [], 'nobody was closed')
  const sum = (of: (result: FlowResult) => number) => results.reduce((total, result) => total + of(result), 0)
  t.is(
    sum(({ lost }) => lost),
    0,
  )
  t.is(
    sum(({ twice }) => twice),
    0,
  )
  t.true(results.every(({ acknowledged }) => acknowledged > 0))
  t.is(await gate.proxy.metric('brokergate_sessions'), SESSIONS)
  t.is(await gate.proxy.metric('brokergate_config_reloads_total{result="refused"}'), refused)
  t.is(await gate.proxy.metric('brokergate_config_generation'), 1 + RELOADS - refused)
  t.log({
    workers,
    sessions: SESSIONS,
    reloads: RELOADS,
    refused,
    publishes: sum(({ acknowledged }) => acknowledged),
    worstAckMs: Math.round(Math.max(...results.map(({ worstMs }) => worstMs))),
    reloadMs: { median: Math.round(took.sort((a, b) => a - b)[took.length >> 1]!), most: Math.round(took.at(-1)!) },
  })

  // All go, and with them what only they used.
  for (const device of idle) device.leave()
  await Promise.all(flows.map((flow) => flow.end()))
  await settled(gate, 1 + RELOADS - refused)
  await eventually(async () => (await gate.proxy.metric('brokergate_sessions')) === 0, 'the end of all sessions')
  await eventually(() => pids.every((pid, at) => openFiles(pid) <= before.files[at]! + 8), 'the descriptors')
  t.log({ residentMiB: pids.map((pid, at) => [before.resident[at]!, residentBytes(pid)].map((n) => n >> 20)) })
}

async function pidsOf(gate: Reloadable): Promise<readonly number[]> {
  const { workers } = await gate.status()
  return [gate.proxy.child.pid!, ...workers.map(({ pid }) => pid)]
}

interface Around {
  readonly brokerPort: number
  readonly elsewhere: number
  readonly extra: number
  readonly broken: 'pair' | 'text' | null
}

/** Certificate, CAs, registry, backend, listeners, limits and more, each another one than before. */
function changeAll(gate: Reloadable, n: number, { brokerPort, elsewhere, extra, broken }: Around): void {
  const pair = PAIRS[n % 2]!
  write(gate.dir, 'server.pem', pair.chainPem)
  write(gate.dir, 'server.key', broken === 'pair' ? PAIRS[(n + 1) % 2]!.keyPem : pair.keyPem)
  const even = n % 2 === 0
  gate.configure({
    listeners: `  - { bind: "127.0.0.1:${gate.port}", as: 8883, helloTimeout: ${5 + n}s }\n${even ? `  - { bind: "127.0.0.1:${extra}", as: 8883 }` : ''}`,
    domains: domain(`    handshakeTimeout: ${10 + n}s\n`).replace(
      'ca: [ ca.pem ]',
      even ? 'ca: [ ca.pem, spare.pem ]' : 'ca: [ ca.pem ]',
    ),
    registries: `  main: { path: registry-${n % 2} }`,
    backends:
      broken === 'text'
        ? '  main: ['
        : `  main: { kind: tcp, servers: [ { address: "127.0.0.1:${even ? brokerPort : elsewhere}" } ], connectTimeout: ${5 + n}s }`,
    rest: `limits: { connectTimeout: ${10 + n}s }\nevents: [ ${even ? '{ kind: log }' : ''} ]`,
  })
}

interface FlowResult {
  readonly acknowledged: number
  /** Acknowledged to the sender and never received. */
  readonly lost: number
  /** Received twice without the mark of a duplicate. */
  readonly twice: number
  /** From a publish to its acknowledgement. */
  readonly worstMs: number
}

interface Flow {
  stop(): Promise<FlowResult>
  end(): Promise<void>
}

/** One device that publishes at QoS 1, one after the other, and receives all of it itself. */
async function startFlow(t: ExecutionContext, port: number, n: number, closed: string[]): Promise<Flow> {
  const topic = `flow/${n}`
  const client: MqttClient = await mqttClient(t, port, { clientId: `flow-${n}`, protocolVersion: n % 2 === 0 ? 4 : 5 })
  let ending = false
  client.on('close', () => {
    if (!ending) closed.push(topic)
  })
  const received = new Map<number, number>()
  let twice = 0
  client.on('message', (_topic, payload, packet) => {
    const number = Number(payload.toString())
    if (received.has(number) && !packet.dup) twice++
    received.set(number, (received.get(number) ?? 0) + 1)
  })
  await client.subscribeAsync(topic, { qos: 1 })
  let going = true
  let acknowledged = 0
  let worstMs = 0
  const running = (async () => {
    while (going) {
      const from = performance.now()
      await client.publishAsync(topic, String(acknowledged), { qos: 1 })
      worstMs = Math.max(worstMs, performance.now() - from)
      acknowledged++
      await sleep(PACE_MS)
    }
  })()
  return {
    async stop() {
      going = false
      await running
      await eventually(() => received.size >= acknowledged, `the last messages of ${topic}`).catch(() => {})
      const lost = Array.from({ length: acknowledged }, (_, number) => received.has(number)).filter(
        (got) => !got,
      ).length
      return { acknowledged, lost, twice, worstMs }
    },
    async end() {
      ending = true
      await client.endAsync()
    },
  }
}
