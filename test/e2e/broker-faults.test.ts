// A broker fails in many ways, and a device must be told in all of them, in its own version of MQTT and in time: one that
// waits for ever does not try elsewhere. And when the broker is back, nothing of ours may stand in the way any longer: no
// rest, no remembered refusal, no address of yesterday.
import test, { type ExecutionContext } from 'ava'
import type { IConnackPacket } from 'mqtt-packet'
import { type Door, eventually, openDoor, openFiles } from '../support/e2e.ts'
import { type BrokerMode, FAULTS, faultyBroker } from '../support/faulty-broker.ts'
import { type FaultyDns, faultyDns } from '../support/faulty-dns.ts'
import { folderFor } from '../support/proxy.ts'
import { type RawDevice, rawDevice } from '../support/raw-mqtt.ts'

const CLIENTS = Number(process.env.E2E_CLIENTS ?? 12)
const CONNECT_TIMEOUT_MS = 1_500
const CONNACK_TIMEOUT_MS = 10_000
/** What a busy machine may take on top. */
const SLACK_MS = 5_000
const BACK_MS = 2_000

/** How long the device waits at the most, and whether the broker's own word reaches it. */
const DEADLINES: Readonly<Record<(typeof FAULTS)[number], number>> = {
  refuse: 0,
  reset: 0,
  hangup: 0,
  blackhole: CONNECT_TIMEOUT_MS,
  silent: CONNACK_TIMEOUT_MS,
  drip: CONNACK_TIMEOUT_MS,
  garbage: 0,
  busy: 0,
}

const isRoot = process.getuid?.() === 0
const asRoot = isRoot ? test.serial : test.serial.skip

function codeOf(packet: unknown): number {
  const { returnCode, reasonCode } = packet as IConnackPacket
  return reasonCode ?? returnCode ?? -1
}

/** Devices of both versions at once; what each was told, and after how long. */
async function knockAll(t: ExecutionContext, port: number, count: number, ms: number) {
  return Promise.all(
    Array.from({ length: count }, async (_, index) => {
      const version = index % 2 === 0 ? 4 : 5
      const device: RawDevice = await rawDevice(t, { port, version })
      const started = performance.now()
      const code = codeOf(await device.hear('connack', ms))
      return { version, code, ms: performance.now() - started, device }
    }),
  )
}

/** A device that tries until it is let in; how long that took. */
async function back(t: ExecutionContext, port: number): Promise<number> {
  const started = performance.now()
  await eventually(
    async () => {
      const device = await rawDevice(t, { port, version: 5 })
      const code = await device.hear('connack', BACK_MS + SLACK_MS).then(codeOf, () => -1)
      if (code === 0) device.say({ cmd: 'disconnect' })
      device.socket.destroy()
      return code === 0
    },
    'a device let in again',
    30_000,
  )
  return performance.now() - started
}

const backend = (port: number, host = '127.0.0.1') =>
  `kind: tcp, servers: [ { address: "${host}:${port}" } ], connectTimeout: ${CONNECT_TIMEOUT_MS}ms`

function quiet(t: ExecutionContext, { proxy }: Door): void {
  t.is(proxy.child.exitCode, null)
  t.notRegex(proxy.output(), /unhandled|uncaught/i)
}

test.serial(
  'a broker that fails, in every way: the device is told so in its version, in time, and let in afterwards',
  async (t) => {
    t.timeout(240_000)
    const broker = await faultyBroker(t)
    const door = await openDoor(t, { backend: backend(broker.port) })
    await back(t, door.port)
    const files = openFiles(door.proxy.child.pid!)
    for (const fault of FAULTS) {
      await broker.become(fault)
      const told = await knockAll(t, door.port, CLIENTS, DEADLINES[fault] + SLACK_MS)
      for (const { version, code } of told) t.is(code, version === 4 ? 3 : fault === 'garbage' ? code : 0x88, fault)
      const slowest = Math.max(...told.map(({ ms }) => ms))
      await broker.become('serve')
      const ms = await back(t, door.port)
      t.log(
        `${fault}: told after ${slowest.toFixed(0)} ms at most, let in ${ms.toFixed(0)} ms after the broker was back`,
      )
      t.true(ms < BACK_MS, `${fault}: ${ms} ms`)
      for (const { device } of told) device.socket.destroy()
    }
    await eventually(() => door.proxy.metric('brokergate_sessions').then((n) => n === 0), 'no session left')
    await eventually(() => openFiles(door.proxy.child.pid!) <= files + 8, 'descriptors as before')
    quiet(t, door)
  },
)

test.serial('a broker that is slow to answer is waited for', async (t) => {
  const broker = await faultyBroker(t, 'slow')
  const door = await openDoor(t, { backend: backend(broker.port) })
  for (const { code } of await knockAll(t, door.port, CLIENTS, SLACK_MS * 2)) t.is(code, 0)
})

test.serial(
  'a broker that goes and comes ten times, with an end or a reset: every session ends, and each time they are let in',
  async (t) => {
    t.timeout(240_000)
    const broker = await faultyBroker(t)
    const door = await openDoor(t, { backend: backend(broker.port) })
    for (let round = 0; round < 10; round++) {
      const told = await knockAll(t, door.port, CLIENTS, SLACK_MS * 2)
      for (const { code } of told) t.is(code, 0)
      await broker.become('refuse')
      broker.cut(round % 2 === 0 ? 'end' : 'reset')
      await Promise.all(told.map(({ device }) => device.end(SLACK_MS * 2)))
      for (const { version, device } of told) {
        const farewell = device.heard.find(({ cmd }) => cmd === 'disconnect')
        t.is((farewell as { reasonCode?: number } | undefined)?.reasonCode, version === 5 ? 0x80 : undefined)
      }
      await broker.become('serve')
      const ms = await back(t, door.port)
      t.true(ms < BACK_MS, `round ${round}: ${ms} ms`)
    }
    await eventually(() => door.proxy.metric('brokergate_sessions').then((n) => n === 0), 'no session left')
    quiet(t, door)
  },
)

async function doorWithDns(t: ExecutionContext, brokerPort: number): Promise<{ door: Door; dns: FaultyDns }> {
  const dns = await faultyDns(t, folderFor(t))
  const door = await openDoor(t, { backend: backend(brokerPort, 'broker.test'), prefix: dns.prefix })
  return { door, dns }
}

asRoot(
  'a resolver that fails: NXDOMAIN, SERVFAIL and silence are told in time, and the good answer counts at once',
  async (t) => {
    t.timeout(180_000)
    const broker = await faultyBroker(t)
    const { door, dns } = await doorWithDns(t, broker.port)
    for (const mode of ['silent', 'servfail', 'nxdomain'] as const) {
      dns.mode = mode
      const before = dns.asked
      // What was said a moment ago is remembered for a second: until then nobody is asked.
      const told = await eventually(async () => {
        const answers = await knockAll(t, door.port, CLIENTS, CONNECT_TIMEOUT_MS + SLACK_MS)
        for (const { version, code } of answers) t.is(code, version === 4 ? 3 : 0x88, mode)
        return dns.asked > before ? answers : null
      }, 'a new question')
      t.log(
        `${mode}: told after ${Math.max(...told.map(({ ms }) => ms)).toFixed(0)} ms at most, ${dns.asked} questions`,
      )
    }
    dns.mode = 'answer'
    const ms = await back(t, door.port)
    t.log(`let in ${ms.toFixed(0)} ms after the resolver was back`)
    // One that was asked while it was silent has its own second to wait for.
    t.true(ms < 3 * BACK_MS, `${ms} ms`)
    quiet(t, door)
  },
)

asRoot(
  'while the resolver is silent its last answer lets devices in, and an address that changed is dialled',
  async (t) => {
    t.timeout(120_000)
    const broker = await faultyBroker(t)
    const { door, dns } = await doorWithDns(t, broker.port)
    await back(t, door.port)
    dns.mode = 'silent'
    // Until the answer is no longer fresh, and then some.
    const until = performance.now() + 7_000
    let worst = 0
    while (performance.now() < until) worst = Math.max(worst, await back(t, door.port))
    t.log(`let in within ${worst.toFixed(0)} ms while the resolver was silent, ${dns.asked} questions`)
    t.true(worst < BACK_MS, `${worst} ms`)

    dns.mode = 'answer'
    // Nobody listens there: the broker has moved, and the name does not say so yet.
    dns.address = '127.0.0.77'
    const [told] = await eventually(async () => {
      const answers = await knockAll(t, door.port, 1, CONNECT_TIMEOUT_MS + SLACK_MS)
      return answers[0]!.code === 0x03 || answers[0]!.code === 0x88 ? answers : null
    }, 'a dial to the new address')
    t.truthy(told)
    dns.address = '127.0.0.1'
    const ms = await back(t, door.port)
    t.log(`at the new address ${ms.toFixed(0)} ms after the name said so`)
    t.true(ms < BACK_MS, `${ms} ms`)
    quiet(t, door)
  },
)

const FEW_PORTS = `import fcntl,socket,struct
s=socket.socket()
fcntl.ioctl(s,0x8914,struct.pack('16sh',b'lo',0x41))`

asRoot('no local port left: told as our own shortage, counted, and no server is put to rest for it', async (t) => {
  // A network of its own with four ports, so that nobody else runs out; what speaks to it runs in it, too.
  const dir = folderFor(t)
  const { spawnSync } = await import('node:child_process')
  const { write } = await import('../support/proxy.ts')
  const script = write(
    dir,
    'dial.ts',
    `import { createServer } from 'node:net'
import { tcp } from '${new URL('../../src/backend/tcp.ts', import.meta.url).pathname}'
const dials = []
const server = createServer(() => {}).listen({ port: 20000, host: '127.0.0.1' }, async () => {
  const backend = tcp({ name: 'main', identity: { username: null, password: null, clientId: null, keepAlive: 'device' },
    servers: [{ host: '127.0.0.1', port: 20000 }], balance: 'leastconn', connectTimeoutMs: 5000, proxyHeader: null, tls: null,
    onDial: (result) => dials.push(result) })
  const signal = new AbortController().signal
  const open = []
  const codes = []
  for (let index = 0; index < 6; index++) {
    await backend.open(null, signal).then(({ stream }) => open.push(stream), (error) => codes.push(error.code))
  }
  open[0].destroy()
  await new Promise((resolve) => setTimeout(resolve, 100))
  console.log(JSON.stringify({ open: open.length, codes, dials }))
  process.exit()
})
`,
  )
  const run = `python3 -c "$1" && echo '40000 40003' > /proc/sys/net/ipv4/ip_local_port_range && exec "$2" "$3"`
  const { stdout, stderr } = spawnSync('unshare', ['-n', 'bash', '-c', run, '--', FEW_PORTS, process.execPath, script])
  t.log(String(stderr).slice(0, 300))
  const seen = JSON.parse(String(stdout)) as { open: number; codes: string[]; dials: BrokerMode[] }
  t.is(seen.open, 4)
  t.deepEqual(seen.codes, ['ERR_DIAL_EXHAUSTED', 'ERR_DIAL_EXHAUSTED'])
  t.deepEqual(seen.dials.slice(-2), ['exhausted', 'exhausted'] as unknown as BrokerMode[])
})
