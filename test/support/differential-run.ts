import { once } from 'node:events'
import { connect as connectTcp, createServer, type Socket } from 'node:net'
import { connect as connectTls, createSecureContext } from 'node:tls'
import { packetOf } from '../../src/mqtt/bytes.ts'
import { type Sequence, WAY } from './differential-cases.ts'
import { ca, device } from './e2e.ts'
import type { Teardowns } from './proxy.ts'

// What a client sees, what a witness at the broker sees, and what a tap before the broker sees of one sequence.

export interface Packet {
  readonly type: number
  readonly flags: number
  readonly body: Buffer
  readonly bytes: Buffer
}

/** Whole packets in front of a stream, and what is left; `broken` when a Remaining Length cannot be one. */
export function packetsOf(stream: Buffer): { packets: Packet[]; rest: Buffer; broken: boolean } {
  const packets: Packet[] = []
  let at = 0
  for (;;) {
    let length = 0
    let header = at + 1
    for (; header < stream.length && header < at + 5; header++) {
      length += (stream[header]! & 0x7f) * 128 ** (header - at - 1)
      if (stream[header]! < 0x80) break
    }
    if (header === at + 5) return { packets, rest: stream.subarray(at), broken: true }
    const end = header + 1 + length
    if (header >= stream.length || end > stream.length) return { packets, rest: stream.subarray(at), broken: false }
    const first = stream[at]!
    const [body, bytes] = [stream.subarray(header + 1, end), stream.subarray(at, end)]
    packets.push({ type: first >> 4, flags: first & 15, body, bytes })
    at = end
  }
}

/** What came of one sequence on one way to the broker. */
export interface Seen {
  readonly heard: readonly Packet[]
  /** The other side ended it while we would have gone on. */
  readonly closed: boolean
  /** Messages that reached another client: QoS, RETAIN, topic name and payload. */
  readonly published: readonly string[]
}

/** What is said after every sequence: its answer shows that all before it has been dealt with. */
export const PINGREQ = Buffer.of(0xc0, 0)
const PINGRESP = 13
const DEADLINE_MS = 5_000
const BETWEEN_MS = 25

export type Way = 'direct' | 'gate'

/** A sequence whose client id and will nobody has had. */
export interface Named extends Sequence {
  readonly letters: string
}

export function named(sequence: Sequence, number: number): Named {
  const letters = `Z${number.toString(36).padStart(WAY.length - 1, '0')}`
  const packets = sequence.packets.map((packet) => {
    const copy = Buffer.from(packet)
    for (let at = copy.indexOf(WAY); at >= 0; at = copy.indexOf(WAY)) copy.write(letters, at)
    return copy
  })
  return { ...sequence, packets, letters }
}

/** What the witness saw of this sequence: without wills of others, and its own as any other's would be. */
export function seenOf(published: readonly string[], { letters }: Named): string[] {
  const own = Buffer.from(letters).toString('hex')
  return published.map((message) => message.replace(own, 'own')).filter((message) => !OF_OTHERS.test(message))
}
/** Such letters in the payload, which stands last and in hexadecimal. */
const OF_OTHERS = /5a(?:3\d|[67][\da-f]){3}[\da-f]*$/

const tls = { secureContext: createSecureContext({ ca: ca.certPem, cert: device.chainPem, key: device.keyPem }) }

/**
 * Says the sequence and a PINGREQ, and waits for the answer to that or for the end. Where the last packet is cut short, and
 * nothing but silence can be the answer, it waits `silenceMs`.
 */
export async function say(
  sequence: Sequence,
  way: Way,
  port: number,
  silenceMs: number,
): Promise<Omit<Seen, 'published'>> {
  const host = '127.0.0.1'
  const socket: Socket =
    way === 'direct'
      ? connectTcp({ host, port, noDelay: true })
      : connectTls({ host, port, servername: 'localhost', ...tls })
  socket.setNoDelay(true)
  let stream: Buffer = Buffer.alloc(0)
  let closed = false
  let told = () => {}
  const changed = () => told()
  socket.on('data', (chunk: Buffer) => {
    stream = Buffer.concat([stream, chunk])
    changed()
  })
  socket.on('error', () => {})
  for (const event of ['end', 'close'])
    socket.on(event, () => {
      closed = true
      changed()
    })
  const until = async (done: () => boolean, ms: number): Promise<void> => {
    if (done() || closed) return
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, ms)
      told = () => {
        if (!done() && !closed) return
        clearTimeout(timer)
        resolve()
      }
    })
    told = () => {}
  }
  await once(socket, way === 'direct' ? 'connect' : 'secureConnect')
  const packets = [...sequence.packets, PINGREQ]
  const all = Buffer.concat(packets)
  const { manner } = sequence
  if (manner === 'at once') socket.write(all)
  else if (manner === 'one by one') {
    for (const packet of packets) {
      if (closed) break
      socket.write(packet)
      await until(() => false, BETWEEN_MS)
    }
  } else {
    const cut = manner === 'after connack' ? packets[0]!.length : Math.min(manner, all.length)
    socket.write(all.subarray(0, cut))
    if (manner === 'after connack') {
      const whole = packetsOf(packets[0]!)
      if (whole.packets.length === 1) await until(() => stream.length > 0, DEADLINE_MS)
    } else await new Promise((resolve) => setImmediate(resolve))
    if (!closed) socket.write(all.subarray(cut))
  }
  const { packets: said, rest } = packetsOf(all)
  const asked = said.filter(({ type }) => type === PINGREQ[0]! >> 4).length
  const answers = () => packetsOf(stream).packets.filter(({ type }) => type === PINGRESP).length >= asked
  await until(() => rest.length === 0 && asked > 0 && answers(), rest.length === 0 ? DEADLINE_MS : silenceMs)
  const seen = { heard: packetsOf(stream).packets, closed }
  if (!socket.destroyed && !closed) {
    socket.end()
    await until(() => false, DEADLINE_MS)
  }
  socket.destroy()
  return { heard: packetsOf(stream).packets, closed: seen.closed }
}

/** Another client of the broker that gets everything, and clears what is retained. */
export interface Witness {
  /** All that reached it since the last time. */
  seen(): Promise<string[]>
}

export async function openWitness(t: Teardowns, port: number): Promise<Witness> {
  const socket = connectTcp({ host: '127.0.0.1', port, noDelay: true })
  t.teardown(() => socket.destroy())
  await once(socket, 'connect')
  let rest: Buffer = Buffer.alloc(0)
  let seen: string[] = []
  const retained = new Set<string>()
  const barriers = new Map<string, () => void>()
  const field = (text: string | Buffer) => {
    const bytes = Buffer.from(text)
    return Buffer.concat([Buffer.of(bytes.length >> 8, bytes.length & 255), bytes])
  }
  socket.on('error', () => {})
  socket.on('data', (chunk: Buffer) => {
    const cut = packetsOf(Buffer.concat([rest, chunk]))
    rest = cut.rest
    for (const { type, flags, body } of cut.packets) {
      if (type !== 3) continue
      const topic = body.subarray(2, 2 + body.readUInt16BE(0)).toString('latin1')
      const payload = body.subarray(2 + topic.length + ((flags & 6) === 0 ? 0 : 2))
      if ((flags & 6) !== 0) socket.write(packetOf(0x40, [body.subarray(2 + topic.length, 4 + topic.length)]))
      // Its empty properties are the first byte of what follows.
      const text = payload.toString('hex')
      if (topic.startsWith('barrier/')) barriers.get(topic)?.()
      else seen.push(`${(flags >> 1) & 3} ${flags & 1} ${topic} ${text}`)
      if ((flags & 1) === 1) retained.add(topic)
    }
  })
  socket.write(packetOf(0x10, [field('MQTT'), Buffer.of(5, 2, 0, 0, 0), field('witness')]))
  // QoS 1, and RETAIN as the publisher set it: subscription options of MQTT 5.0 §3.8.3.1.
  const filters = ['#', '$x/#', '$queue/#', '$sharex/#'].map((filter) =>
    Buffer.concat([field(filter), Buffer.of(0x09)]),
  )
  socket.write(packetOf(0x82, [Buffer.of(0, 1, 0), ...filters]))
  let number = 0
  const barrier = async () => {
    const topic = `barrier/${number++}`
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error('the witness is cut off')), 10_000)
      barriers.set(topic, () => {
        clearTimeout(timer)
        resolve()
      })
      socket.write(packetOf(0x30, [field(topic), Buffer.of(0)]))
    })
    barriers.delete(topic)
  }
  await barrier()
  return {
    async seen() {
      await barrier()
      const found = seen
      seen = []
      if (retained.size > 0) {
        for (const topic of retained) socket.write(packetOf(0x31, [field(Buffer.from(topic, 'latin1')), Buffer.of(0)]))
        retained.clear()
        await barrier()
        retained.clear()
      }
      seen = []
      return found
    },
  }
}

/** Between the gate and the broker: what has gone on, and when all of it is over. */
export interface Tap {
  readonly port: number
  /** What went to the broker since the last time, by connection, once each has ended. */
  taken(): Promise<Buffer[]>
}

/** Of nobody else. */
const MARK_ADDRESS = '127.0.0.2'

export async function openTap(t: Teardowns, brokerPort: number): Promise<Tap> {
  const open = new Set<Promise<void>>()
  let marked = () => {}
  let streams: Buffer[][] = []
  const server = createServer({ noDelay: true, allowHalfOpen: true }, (from) => {
    from.on('error', () => {})
    if (from.remoteAddress === MARK_ADDRESS) {
      from.destroy()
      return marked()
    }
    const to = connectTcp({ host: '127.0.0.1', port: brokerPort, noDelay: true, allowHalfOpen: true })
    const chunks: Buffer[] = []
    streams.push(chunks)
    from.on('data', (chunk: Buffer) => chunks.push(chunk))
    to.on('error', () => {})
    from.pipe(to)
    to.pipe(from)
    from.on('close', () => to.destroySoon())
    to.on('close', () => from.destroySoon())
    // The broker ends its side when it has dealt with everything, the will included.
    const over = new Promise<void>((resolve) => to.on('close', () => resolve()))
    open.add(over)
    void over.then(() => open.delete(over))
  })
  server.listen({ host: '127.0.0.1', port: 0 })
  await once(server, 'listening')
  t.teardown(() => server.close())
  const { port } = server.address() as { port: number }
  /** Connections are accepted in their order: after one of ours, those that the gate had begun are here. */
  const mark = () =>
    new Promise<void>((resolve) => {
      const socket = connectTcp({ host: '127.0.0.1', port, localAddress: MARK_ADDRESS })
      socket.on('error', () => {})
      marked = () => {
        socket.destroy()
        resolve()
      }
    })
  return {
    port,
    async taken() {
      await mark()
      await Promise.all(open)
      const found = streams.map((chunks) => Buffer.concat(chunks))
      streams = []
      return found
    },
  }
}
