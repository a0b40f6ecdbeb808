// Devices do not leave as the standards have it: a lorry drives into a tunnel, a battery is empty, a modem resets. Were each of
// them to leave a descriptor, a timer or a connection to the broker behind, the fleet would eat the gateway up by doing nothing.
import { readFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { connect as connectTls } from 'node:tls'
import test from 'ava'
import {
  CONNACK,
  ca,
  device,
  eventually,
  knock,
  openDoor,
  openFiles,
  residentBytes,
  startSink,
} from '../support/e2e.ts'

const SILENT = Number(process.env.E2E_SILENT ?? 300)
const RESETS = Number(process.env.E2E_RESETS ?? 1_000)
const AT_ONCE = 50
const KEEP_ALIVE_SECONDS = 4
/** Runtimes keep a few descriptors for themselves once they have been busy. */
const DESCRIPTOR_SLACK = 8
const PARTS = 5
/** Garbage that waits for its collection, some 60 KiB a connection on Node, and what may stay of each. */
const BREATH_BYTES = 128 * 1_048_576
const KEPT_BYTES = 2 * 1_024

/** CONNECT of 3.1.1 with this keep alive; the whole shorter than 128 bytes. */
function connectPacket(clientId: string, keepAlive: number): Buffer {
  const id = Buffer.from(clientId)
  const head = Buffer.from([0, 4, 0x4d, 0x51, 0x54, 0x54, 4, 2, 0, keepAlive, 0, id.length])
  return Buffer.concat([Buffer.from([0x10, head.length + id.length]), head, id])
}

/** TLS and CONNECT; `then` has the TCP socket below, once CONNACK is there. */
function session(
  port: number,
  clientId: string,
  keepAlive: number,
  then: (raw: Socket, write: (b: Buffer) => void) => void,
) {
  return new Promise<Socket>((resolve, reject) => {
    const raw = connect({ host: '127.0.0.1', port })
    const tls = connectTls({
      socket: raw,
      servername: 'localhost',
      ca: ca.certPem,
      cert: device.chainPem,
      key: device.keyPem,
    })
    raw.on('error', reject)
    tls.on('error', reject)
    tls.on('secureConnect', () => tls.write(connectPacket(clientId, keepAlive)))
    tls.on('data', (chunk: Buffer) => {
      if (!chunk.subarray(0, 4).equals(CONNACK)) return reject(new Error(`CONNACK ${chunk.toString('hex')}`))
      then(raw, (bytes) => tls.write(bytes))
      resolve(raw)
    })
  })
}

async function many(count: number, work: (index: number) => Promise<unknown>): Promise<void> {
  let next = 0
  await Promise.all(
    Array.from({ length: Math.min(AT_ONCE, count) }, async () => {
      while (next < count) await work(next++)
    }),
  )
}

test.serial(
  `${SILENT} devices that fall silent are gone after 1.5 times their keep alive, with all that they had`,
  async (t) => {
    t.timeout(170_000)
    const sink = await startSink(t)
    const door = await openDoor(t, { backend: `kind: tcp, servers: [ { address: "127.0.0.1:${sink.port}" } ]` })
    const pid = door.proxy.child.pid!
    const sessions = () => door.proxy.metric('brokergate_sessions')
    const first = await knock(door.port, 'first')
    first.leave()
    await eventually(() => sessions().then((n) => n === 0), 'the first session gone')
    const files = openFiles(pid)

    const sockets: Socket[] = []
    t.teardown(() => {
      for (const socket of sockets) socket.destroy()
    })
    // Not even the end of the connection is read: as seen from the gateway, nobody is there.
    await many(SILENT, async (index) =>
      sockets.push(await session(door.port, `silent-${index}`, KEEP_ALIVE_SECONDS, (raw) => raw.pause())),
    )
    const last = performance.now()
    await eventually(() => sessions().then((n) => n === 0), 'all of them reaped', 60_000)
    const reaped = (performance.now() - last) / 1_000
    t.is(await door.proxy.metric('brokergate_connections_closed_total{reason="keep_alive_timeout"}'), SILENT)
    await eventually(() => sink.live.size === 0, 'no connection to the broker', 20_000)
    await eventually(() => openFiles(pid) <= files + DESCRIPTOR_SLACK, 'descriptors as before', 20_000)
    t.log(`the last was reaped ${reaped.toFixed(1)} s after it had connected; keep alive ${KEEP_ALIVE_SECONDS} s`)
    t.true(reaped < 1.5 * KEEP_ALIVE_SECONDS + 10)
    t.notRegex(door.proxy.output(), /unhandled|uncaught/i)
  },
)

test.serial(`${RESETS} devices that reset in the middle of a packet leave nothing behind`, async (t) => {
  t.timeout(170_000)
  const sink = await startSink(t)
  const door = await openDoor(t, { backend: `kind: tcp, servers: [ { address: "127.0.0.1:${sink.port}" } ]` })
  const pid = door.proxy.child.pid!
  const good = await knock(door.port, 'good')
  t.teardown(() => good.socket.destroy())
  const reset = (index: number) =>
    session(door.port, `reset-${index}`, 60, (raw, write) => {
      raw.on('error', () => {})
      // The begin of a publish whose rest never comes.
      write(Buffer.from([0x30, 100, 0, 1, 0x61]))
      setTimeout(() => raw.resetAndDestroy(), 1 + (index % 10))
    })
  await many(100, reset)
  await eventually(() => door.proxy.metric('brokergate_sessions').then((n) => n === 1), 'the first hundred gone')
  const files = openFiles(pid)
  const memory: number[] = [residentBytes(pid)]
  for (let part = 0; part < PARTS; part++) {
    await many(RESETS / PARTS, reset)
    memory.push(residentBytes(pid))
  }
  await eventually(() => door.proxy.metric('brokergate_sessions').then((n) => n === 1), 'the good one alone', 60_000)
  await eventually(() => sink.live.size === 1, 'one connection to the broker', 20_000)
  await eventually(() => openFiles(pid) <= files + DESCRIPTOR_SLACK, 'descriptors as before', 20_000)
  t.log(`resident after each fifth: ${memory.map((bytes) => Math.round(bytes / 1_048_576)).join(', ')} MiB`)
  // The heap is a sawtooth: what must not rise are its troughs.
  const [first, last] = [Math.min(...memory.slice(0, 3)), Math.min(...memory.slice(3))]
  t.true(last - first < BREATH_BYTES + KEPT_BYTES * RESETS, `${last - first} bytes more`)
  t.notRegex(door.proxy.output(), /unhandled|uncaught/i)
})

test.serial('the kernel asks after both ends of a session that is silent', async (t) => {
  const sink = await startSink(t)
  const door = await openDoor(t, { backend: `kind: tcp, servers: [ { address: "127.0.0.1:${sink.port}" } ]` })
  const one = await knock(door.port, 'silent')
  t.teardown(() => one.socket.destroy())
  // Established (01), with the timer of keep-alive (02): proc(5).
  const timers = (side: 'local' | 'remote', port: number) => {
    const wanted = `:${port.toString(16).toUpperCase().padStart(4, '0')}`
    return ['tcp', 'tcp6']
      .flatMap((file) => readFileSync(`/proc/net/${file}`, 'utf8').split('\n'))
      .map((line) => line.trim().split(/\s+/))
      .filter((fields) => fields[side === 'local' ? 1 : 2]?.endsWith(wanted) && fields[3] === '01')
      .filter((fields) => fields[5]?.startsWith('02'))
  }
  await eventually(() => timers('local', door.port).length === 1, 'keep-alive toward the device')
  await eventually(() => timers('remote', sink.port).length === 1, 'keep-alive toward the broker')
  t.pass()
})
