import { createServer, type Socket } from 'node:net'

// The least broker that a proxy can stand before: it says yes to CONNECT, SUBSCRIBE, QoS 1 PUBLISH and PINGREQ, counts,
// publishes when told to, and keeps nothing.

const CONNECT = 1
const PUBLISH = 3
const SUBSCRIBE = 8
const PINGREQ = 12
const DISCONNECT = 14

/** Head of the packets that we look into: type, length, and what comes before a packet id. */
const LONGEST_HEAD = 512

export interface Sink {
  readonly port: number
  /** Connections that are open right now. */
  readonly open: number
  /** CONNECT, PUBLISH by QoS, and SUBSCRIBE packets so far. */
  readonly connects: number
  readonly qos0: number
  readonly qos1: number
  readonly subscribes: number
  /**
   * Told how many QoS 0 PUBLISH came from a client at once, by its client id. It lets the load keep a number of them in
   * flight without a byte more on the wire.
   */
  onQos0: ((clientId: string, count: number) => void) | null
  /** Writes a packet to everybody who has subscribed; to how many. */
  publish(packet: Buffer): number
  close(): Promise<void>
}

export function startSink(): Promise<Sink> {
  const sockets = new Set<Socket>()
  const subscribers = new Set<Socket>()
  const counts = { connects: 0, qos0: 0, qos1: 0, subscribes: 0 }
  let onQos0: Sink['onQos0'] = null
  const server = createServer({ noDelay: true }, (socket) => {
    sockets.add(socket)
    socket.on('close', () => {
      sockets.delete(socket)
      subscribers.delete(socket)
    })
    socket.on('error', () => socket.destroy())
    let version = 4
    let clientId = ''
    const reader = packetReader({
      connect(body) {
        counts.connects++
        // The level stands behind the protocol's name, the client id behind flags, keep alive and properties.
        const at = 2 + body.readUInt16BE(0)
        version = body[at] ?? 4
        const idAt = at + 4 + (version === 5 ? 1 + (body[at + 4] ?? 0) : 0)
        clientId = body.toString('utf8', idAt + 2, idAt + 2 + body.readUInt16BE(idAt))
        socket.write(version === 5 ? Buffer.of(0x20, 3, 0, 0, 0) : Buffer.of(0x20, 2, 0, 0))
      },
      subscribe(packetId) {
        counts.subscribes++
        subscribers.add(socket)
        socket.write(
          Buffer.of(0x90, version === 5 ? 4 : 3, packetId >> 8, packetId & 0xff, ...(version === 5 ? [0, 0] : [0])),
        )
      },
      ping: () => void socket.write(Buffer.of(0xd0, 0)),
      disconnect: () => void socket.end(),
    })
    socket.on('data', (chunk: Buffer) => {
      const { qos0, acks } = reader(chunk)
      if (acks !== null) {
        counts.qos1 += acks.length / 4
        socket.write(acks)
      }
      if (qos0 > 0) {
        counts.qos0 += qos0
        onQos0?.(clientId, qos0)
      }
    })
  })
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen({ port: 0, host: '127.0.0.1', backlog: 4_096 }, () => {
      const address = server.address()
      resolve({
        port: typeof address === 'object' && address !== null ? address.port : 0,
        get open() {
          return sockets.size
        },
        get connects() {
          return counts.connects
        },
        get qos0() {
          return counts.qos0
        },
        get qos1() {
          return counts.qos1
        },
        get subscribes() {
          return counts.subscribes
        },
        get onQos0() {
          return onQos0
        },
        set onQos0(listener) {
          onQos0 = listener
        },
        publish(packet) {
          for (const socket of subscribers) socket.write(packet)
          return subscribers.size
        },
        close() {
          for (const socket of sockets) socket.destroy()
          return new Promise((done) => server.close(() => done()))
        },
      })
    })
  })
}

interface Answers {
  connect(body: Buffer): void
  subscribe(packetId: number): void
  ping(): void
  disconnect(): void
}

interface Read {
  /** QoS 0 PUBLISH whose last byte came. */
  readonly qos0: number
  /** The PUBACKs that are due, in order. */
  readonly acks: Buffer | null
}

/**
 * Counts packets in a stream of chunks. Bodies of PUBLISH are skipped, not kept: a packet of 128 KiB in forty chunks
 * costs forty subtractions. Only heads that are cut, and whole packets of the other kinds, are joined.
 */
export function packetReader(answers: Answers): (chunk: Buffer) => Read {
  let kept: Buffer | null = null
  /** Bytes of the current PUBLISH that are still to come. */
  let skip = 0
  let skippedQos = 0
  let skippedId = 0
  return (chunk) => {
    let qos0 = 0
    const ids: number[] = []
    const finished = () => {
      if (skippedQos === 0) qos0++
      else ids.push(skippedId)
    }
    let bytes = chunk
    if (kept !== null) {
      bytes = Buffer.concat([kept, chunk])
      kept = null
    }
    let at = 0
    if (skip > 0) {
      const taken = Math.min(skip, bytes.length)
      skip -= taken
      at = taken
      if (skip === 0) finished()
    }
    while (at < bytes.length) {
      const head = headOf(bytes, at)
      if (head === null) {
        kept = bytes.subarray(at)
        break
      }
      const { type, qos, bodyAt, end } = head
      if (type === PUBLISH) {
        const idAt = bodyAt + 2 + (bytes.length >= bodyAt + 2 ? bytes.readUInt16BE(bodyAt) : LONGEST_HEAD)
        if (bytes.length < Math.min(end, idAt + 2)) {
          kept = bytes.subarray(at)
          break
        }
        skippedQos = qos
        skippedId = qos === 0 ? 0 : bytes.readUInt16BE(idAt)
        if (end <= bytes.length) finished()
        else skip = end - bytes.length
      } else if (end > bytes.length) {
        kept = bytes.subarray(at)
        break
      } else if (type === CONNECT) answers.connect(bytes.subarray(bodyAt, end))
      else if (type === SUBSCRIBE) answers.subscribe(bytes.readUInt16BE(bodyAt))
      else if (type === PINGREQ) answers.ping()
      else if (type === DISCONNECT) answers.disconnect()
      at = end
    }
    return { qos0, acks: ids.length === 0 ? null : pubacks(ids) }
  }
}

function pubacks(ids: readonly number[]): Buffer {
  const bytes = Buffer.allocUnsafe(ids.length * 4)
  for (const [index, id] of ids.entries()) {
    bytes.writeUInt16BE(0x4002, index * 4)
    bytes.writeUInt16BE(id, index * 4 + 2)
  }
  return bytes
}

interface Head {
  readonly type: number
  readonly qos: number
  readonly bodyAt: number
  /** Where the next packet begins. */
  readonly end: number
}

/** Null while the length is not all there. */
function headOf(bytes: Buffer, from: number): Head | null {
  let length = 0
  for (let at = from + 1; at < Math.min(bytes.length, from + 5); at++) {
    const digit = bytes[at]!
    length += (digit & 0x7f) * 128 ** (at - from - 1)
    if (digit >= 0x80) continue
    return { type: bytes[from]! >> 4, qos: (bytes[from]! >> 1) & 3, bodyAt: at + 1, end: at + 1 + length }
  }
  return null
}
