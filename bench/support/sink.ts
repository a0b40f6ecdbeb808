import { createServer, type Socket } from 'node:net'

// The least broker that a proxy can stand before: it says yes to CONNECT, QoS 1 PUBLISH and PINGREQ, and keeps nothing.

const CONNECT = 1
const PUBLISH = 3
const PINGREQ = 12
const DISCONNECT = 14

export interface Sink {
  readonly port: number
  /** Connections that are open right now. */
  readonly open: number
  /** CONNECT packets so far. */
  readonly connects: number
  close(): Promise<void>
}

export function startSink(): Promise<Sink> {
  const sockets = new Set<Socket>()
  let connects = 0
  const server = createServer({ noDelay: true }, (socket) => {
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket))
    socket.on('error', () => socket.destroy())
    let version = 4
    let rest: Buffer = Buffer.alloc(0)
    socket.on('data', (chunk: Buffer) => {
      rest = rest.length === 0 ? chunk : Buffer.concat([rest, chunk])
      for (let packet = cut(rest); packet !== null; packet = cut(rest)) {
        rest = rest.subarray(packet.end)
        if (packet.type === CONNECT) {
          connects++
          // The level stands behind the protocol's name.
          version = packet.body[2 + packet.body.readUInt16BE(0)] ?? 4
          socket.write(version === 5 ? Buffer.of(0x20, 3, 0, 0, 0) : Buffer.of(0x20, 2, 0, 0))
        } else if (packet.type === PUBLISH && (packet.flags & 0x06) === 0x02) {
          const at = 2 + packet.body.readUInt16BE(0)
          socket.write(Buffer.of(0x40, 2, packet.body[at]!, packet.body[at + 1]!))
        } else if (packet.type === PINGREQ) {
          socket.write(Buffer.of(0xd0, 0))
        } else if (packet.type === DISCONNECT) {
          socket.end()
        }
      }
    })
  })
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(0, '127.0.0.1', () => {
      const address = server.address()
      resolve({
        port: typeof address === 'object' && address !== null ? address.port : 0,
        get open() {
          return sockets.size
        },
        get connects() {
          return connects
        },
        close() {
          for (const socket of sockets) socket.destroy()
          return new Promise((done) => server.close(() => done()))
        },
      })
    })
  })
}

interface Packet {
  readonly type: number
  readonly flags: number
  readonly body: Buffer
  /** Where the next one begins. */
  readonly end: number
}

/** The first packet, or null while it is not all there. */
function cut(bytes: Buffer): Packet | null {
  let length = 0
  for (let at = 1; at < Math.min(bytes.length, 5); at++) {
    const digit = bytes[at]!
    length += (digit & 0x7f) * 128 ** (at - 1)
    if (digit >= 0x80) continue
    const end = at + 1 + length
    if (bytes.length < end) return null
    return { type: bytes[0]! >> 4, flags: bytes[0]! & 0x0f, body: bytes.subarray(at + 1, end), end }
  }
  return null
}
