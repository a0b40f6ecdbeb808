// Lengths that promise more than anybody should hold: what is declared is refused before it is buffered, and what is
// allowed passes without being kept.
import type { Socket } from 'node:net'
import { sleep } from '../support/e2e.ts'
import type { Gateway } from '../support/gateway.ts'
import { BINARY, frame } from '../wss/frames.ts'
import { crowd } from './crowd.ts'
import { row } from './row.ts'
import { residentOf, treeOf } from './tree.ts'
import { listenTo, secure, webSocket } from './ways.ts'

const EACH = 25
/** What is required, and what would be a fault whatever the machine. */
const REQUIRED_GROWTH = 64 * 1_048_576
const MOST_GROWTH = 160 * 1_048_576
/** What goes on does so up to here, in bytes, and then waits to be closed. */
const MOST_SENT = 8 * 1_048_576

const text = (value: string | Buffer): Buffer => {
  const bytes = Buffer.from(value as Buffer)
  return Buffer.concat([Buffer.of(bytes.length >> 8, bytes.length & 0xff), bytes])
}
const varint = (value: number): Buffer => {
  const digits: number[] = []
  do {
    digits.push((value & 0x7f) | (value > 0x7f ? 0x80 : 0))
    value >>= 7
  } while (value > 0)
  return Buffer.from(digits)
}
const packet = (first: number, ...parts: readonly Buffer[]): Buffer => {
  const body = Buffer.concat(parts)
  return Buffer.concat([Buffer.of(first), varint(body.length), body])
}
const connect = (version: 4 | 5, id: string): Buffer =>
  packet(0x10, text('MQTT'), Buffer.of(version, 2, 0, 60), version === 5 ? Buffer.of(0) : Buffer.alloc(0), text(id))
const USER_PROPERTY = Buffer.concat([Buffer.of(0x26), text('a'), text('b')])
const PROPERTIES = Buffer.alloc(100_000 * USER_PROPERTY.length, USER_PROPERTY)
const TOKEN = Buffer.alloc(10 * 1_048_576, 'eyJhbGciOiJFUzI1NiJ9.')
const PAUSE_AFTER = 524_288
const filler = Buffer.alloc(65_536, 0x61)

interface Bomb {
  readonly name: string
  /** What the refusal looks like: a word in what comes back; null where it is closed in silence. */
  readonly refusal: RegExp | null
  open(gateway: Gateway, at: number): Promise<Socket>
  /** Said at once. */
  readonly head: (at: number) => Buffer
  /** Whether more follows for as long as it is taken. */
  readonly goesOn: boolean
}

const mqtt = ({ ports }: Gateway, at: number) => secure(ports.mqtt, at)
const https = ({ ports }: Gateway, at: number) => secure(ports.https, at)
const id = (at: number) => `bomb-${at}`

// biome-ignore format: a table is read down its columns
const BOMBS: readonly Bomb[] = [
  { name: 'a CONNECT that declares 256 MB', refusal: null, open: mqtt, head: () => Buffer.from('10ffffff7f', 'hex'), goesOn: true },
  { name: 'a PUBLISH that declares 256 MB', refusal: null, open: mqtt, head: (at) => Buffer.concat([connect(5, id(at)), Buffer.from('30ffffff7f', 'hex')]), goesOn: true },
  { name: 'a topic of 64 KB', refusal: null, open: mqtt, head: (at) => Buffer.concat([connect(5, id(at)), packet(0x30, text(Buffer.alloc(65_535, 0x61)), Buffer.of(0))]), goesOn: false },
  { name: '100,000 user properties in CONNECT', refusal: null, open: mqtt, head: (at) => packet(0x10, text('MQTT'), Buffer.of(5, 2, 0, 60), varint(PROPERTIES.length), PROPERTIES, text(id(at))), goesOn: false },
  { name: '100,000 user properties in PUBLISH', refusal: null, open: mqtt, head: (at) => Buffer.concat([connect(5, id(at)), packet(0x30, text('t'), varint(PROPERTIES.length), PROPERTIES)]), goesOn: false },
  { name: 'a token of 10 MB', refusal: /^HTTP\/1\.1 (?:4\d\d)/, open: https, head: () => Buffer.concat([Buffer.from('POST /topics/t HTTP/1.1\r\nHost: localhost\r\nToken: '), TOKEN]), goesOn: false },
  { name: 'a chunk of 1 GB', refusal: /^HTTP\/1\.1 413/, open: https, head: () => Buffer.from('POST /topics/t HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n40000000\r\n'), goesOn: true },
  { name: 'a WebSocket frame of 4 GB', refusal: null, open: webSocket, head: (at) => Buffer.concat([frame(BINARY, connect(4, id(at))), frame(BINARY, '', { declared: 1n << 32n })]), goesOn: true },
]

/** Connections of the ordinary kind before them. */
const WARM = 100
const ORDINARY: readonly (readonly [begin: Bomb['open'], bytes: (at: number) => Buffer])[] = [
  [mqtt, (at) => connect(5, id(1_000 + at))],
  [
    https,
    () =>
      Buffer.from('POST /topics/warm HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n'),
  ],
  [webSocket, (at) => frame(BINARY, connect(4, id(2_000 + at)))],
]

row(
  {
    number: 13,
    title: 'lengths that promise too much',
    required: 'closed at the limit, at most 64 MB more',
    seconds: 20,
    kept: 8,
  },
  async (chaos) => {
    const { t } = chaos
    const gateway = await chaos.start({ extra: 'limits: { packetSize: 128KiB, topicSize: 1KiB }' })
    const pids = treeOf(gateway.proxy.child.pid!)
    // Ordinary work first, so that growth is the bombs' and not that of a program which just began.
    await crowd(
      Array.from({ length: 3 * WARM }, (_, at) => at),
      25,
      async (at) => {
        const [begin, bytes] = ORDINARY[at % ORDINARY.length]!
        const socket = await begin(gateway, at)
        socket.resume()
        await new Promise((resolve) => socket.write(bytes(at), resolve))
        socket.end()
      },
    )
    const before = residentOf(pids)
    let peak = before
    const sampler = setInterval(() => {
      peak = Math.max(peak, residentOf(pids))
    }, 20)
    chaos.defer(() => clearInterval(sampler))
    const grown: string[] = []
    const explode = async ({ name, refusal, open, head, goesOn }: Bomb, at: number) => {
      const socket = await open(gateway, at)
      const heard = listenTo(socket)
      let sent = 0
      const say = (bytes: Buffer) => {
        sent += bytes.length
        return socket.write(bytes)
      }
      say(head(at))
      while (goesOn && !heard.over() && sent < MOST_SENT) {
        const roomy = say(filler)
        // A socket that was reset takes everything; of its end it tells when there is time to.
        if (roomy || sent % PAUSE_AFTER < filler.length) await sleep(5)
        else await Promise.race([heard.ended, new Promise<void>((resolve) => socket.once('drain', resolve))])
      }
      const deadline = new Promise((_, reject) => setTimeout(reject, 60_000, new Error(`${name}: not closed`)).unref())
      await Promise.race([heard.ended, deadline])
      if (refusal !== null && heard.bytes().length > 0) t.regex(heard.bytes().toString('latin1'), refusal, name)
      socket.destroy()
    }
    for (const [number, bomb] of BOMBS.entries()) {
      const until = peak
      await crowd(Array<Bomb>(EACH).fill(bomb), EACH, (each, at) => explode(each, number * EACH + at))
      grown.push(`${bomb.name}: ${((peak - until) / 1_048_576).toFixed(0)} MB`)
    }
    chaos.note(grown.join(', '))
    clearInterval(sampler)
    t.true(peak - before < MOST_GROWTH, `${((peak - before) / 1_048_576).toFixed(0)} MB more`)
    const gap = peak - before > REQUIRED_GROWTH ? `${((peak - before) / 1_048_576).toFixed(0)} MB more` : null
    return {
      gap,
      injected: `${BOMBS.length * EACH} connections: ${BOMBS.map(({ name }) => name).join(', ')}`,
      seen: `all closed, ${((peak - before) / 1_048_576).toFixed(0)} MB more`,
    }
  },
)
