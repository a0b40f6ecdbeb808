// Peers that are slow on purpose, at every stage at once: a byte a second is enough to look alive, so only a deadline for
// the whole of a stage ends them, and while they are there everybody else must not notice.
import type { Socket } from 'node:net'
import { eventually } from '../support/e2e.ts'
import type { Gateway } from '../support/gateway.ts'
import { fixtures } from '../support/hello-build.ts'
import { BINARY, frame } from '../wss/frames.ts'
import { crowd } from './crowd.ts'
import { row } from './row.ts'
import { plain, secure, webSocket } from './ways.ts'

const SOCKETS = 500
const BODY_TIMEOUT_S = 15
/** The required second, and what a busy machine may add before its timers run. In milliseconds. */
const EARLY_MS = 1_000
const LATE_MS = 10_000
/** A peer that does not close is given so long to read why. */
const LINGER_MS = 2_000

/** MQTT 3.1.1 with a client id of 200 bytes: at a byte a second it takes minutes. */
const CONNECT = Buffer.concat([
  Buffer.from('10d401', 'hex'),
  Buffer.from('00044d5154540402003c00c8', 'hex'),
  Buffer.alloc(200, 0x61),
])

interface Slow {
  readonly socket: Socket
  /** What it goes on to say, a byte a second. */
  readonly rest: Buffer
  /** When its stage began, by `performance.now()`. */
  readonly from: number
}

type Stage = readonly [name: string, deadlineMs: number, begin: (gateway: Gateway, at: number) => Promise<Slow>]

// biome-ignore format: a table is read down its columns
const STAGES: readonly Stage[] = [
  ['hello', 5_000, async ({ ports }, at) => {
    const from = performance.now()
    return { socket: await plain(ports.mqtt, at), rest: REAL_HELLO, from }
  }],
  ['handshake', 10_000, async ({ ports }, at) => {
    const from = performance.now()
    const socket = await plain(ports.mqtt, at)
    socket.write(OUR_HELLO)
    return { socket, rest: Buffer.from(`1603030100${'00'.repeat(256)}`, 'hex'), from }
  }],
  ['CONNECT', 10_000, async ({ ports }, at) => {
    const socket = await secure(ports.mqtt, at)
    return { socket, rest: CONNECT, from: performance.now() }
  }],
  ['HTTP head', 10_000, async ({ ports }, at) => {
    const socket = await secure(ports.https, at)
    return { socket, rest: Buffer.from(`POST /topics/slow HTTP/1.1\r\nHost: localhost\r\nX: ${'a'.repeat(200)}`), from: performance.now() }
  }],
  ['HTTP body', BODY_TIMEOUT_S * 1_000, async ({ ports }, at) => {
    const socket = await secure(ports.https, at)
    socket.write('POST /topics/slow HTTP/1.1\r\nHost: localhost\r\nContent-Length: 200\r\n\r\n')
    return { socket, rest: Buffer.alloc(200, 0x61), from: performance.now() }
  }],
  ['WebSocket frame', 10_000, async (gateway, at) => {
    const socket = await webSocket(gateway, at)
    return { socket, rest: frame(BINARY, CONNECT), from: performance.now() }
  }],
]
const REAL_HELLO = fixtures().find(({ client }) => client === 'openssl-3.0')!.bytes
/** A real one for the name that the program has: that of wget. */
const OUR_HELLO = fixtures().find(({ serverName }) => serverName === 'localhost')!.bytes

row(
  {
    number: 3,
    title: 'peers that drip at every stage',
    required: 'all closed by the deadline of the stage ± 1 s, good client p99 < 100 ms',
    seconds: 40,
    kept: 8,
  },
  async (chaos) => {
    const { t } = chaos
    const gateway = await chaos.start({ extra: `limits: { http: { bodyTimeout: ${BODY_TIMEOUT_S}s } }` })
    const slow = new Set<{ readonly one: Slow; said: number }>()
    const sinceBegin = new Map<string, number[]>(STAGES.map(([name]) => [name, []]))
    const refused = new Map<string, number[]>(STAGES.map(([name]) => [name, []]))
    const closed = new Map<string, number[]>(STAGES.map(([name]) => [name, []]))
    const timer = setInterval(() => {
      for (const each of slow) {
        if (!each.one.socket.destroyed) each.one.socket.write(each.one.rest.subarray(each.said, ++each.said))
      }
    }, 1_000)
    chaos.defer(() => clearInterval(timer))
    const all = STAGES.flatMap((stage) => Array.from({ length: SOCKETS }, () => stage))
    const opening = chaos.good.span()
    let retried = 0
    await crowd(all, 20, async ([name, , begin], at) => {
      let began = performance.now()
      // A machine that is too busy to come to its stage in time is turned away like any other slow peer.
      const again = () => {
        retried++
        began = performance.now()
        return begin(gateway, at)
      }
      const one = await begin(gateway, at).catch(again).catch(again)
      const entry = { one, said: 0 }
      slow.add(entry)
      chaos.defer(() => one.socket.destroy())
      const seen = new Set<Map<string, number[]>>()
      const note = (into: Map<string, number[]>) => {
        if (seen.has(into)) return
        seen.add(into)
        into.get(name)!.push(performance.now() - one.from)
        if (into === refused) sinceBegin.get(name)!.push(performance.now() - began)
      }
      // The first word after the silence is the refusal; for the handshake it is the library's half of it.
      one.socket.on('data', () => name !== 'handshake' && note(refused))
      for (const event of ['end', 'close', 'error'] as const) {
        one.socket.once(event, () => {
          note(refused)
          note(closed)
          slow.delete(entry)
          one.socket.destroy()
        })
      }
    })
    const quiet = chaos.good.span()
    const before = opening()
    await eventually(() => slow.size === 0, 'all slow peers are closed', 60_000)
    const during = quiet()
    const told = STAGES.map(([name, deadlineMs]) => {
      const [first, last] = [Math.min(...refused.get(name)!), Math.max(...refused.get(name)!)]
      const gone = Math.max(...closed.get(name)!)
      t.is(closed.get(name)!.length, SOCKETS, name)
      // The stage may have begun for the program before this busy process learnt of it, but not before it knocked.
      const earliest = Math.min(...sinceBegin.get(name)!)
      t.true(earliest >= deadlineMs - EARLY_MS, `${name}: refused after ${earliest} ms`)
      t.true(last <= deadlineMs + LATE_MS, `${name}: refused after ${last} ms`)
      t.true(gone <= deadlineMs + LINGER_MS + LATE_MS, `${name}: closed after ${gone} ms`)
      const seconds = (ms: number) => (ms / 1_000).toFixed(1)
      return `${name} ${seconds(first)} to ${seconds(last)} s of ${deadlineMs / 1_000} s, the last gone at ${seconds(gone)} s`
    })
    chaos.note(
      `good client while ${all.length} came p99 ${before.p99.toFixed(0)} ms, while they dripped ${during.p99.toFixed(0)} ms`,
    )
    if (retried > 0) chaos.note(`${retried} had to knock again`)
    return {
      injected: `${SOCKETS} peers at each of ${STAGES.length} stages, all at once, a byte a second`,
      seen: `all ${all.length} refused and closed: ${told.join('; ')}`,
    }
  },
)
