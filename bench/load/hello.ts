import { connect, createServer, type Socket } from 'node:net'
import { connect as connectTls } from 'node:tls'

// ClientHellos that are refused before any key work: the same octets each time cost the load nothing.

/** What a TLS client of this runtime says first when it names no server. RFC 8446 §4.1.2. */
export function helloWithoutServerName(): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const server = createServer((socket: Socket) => {
      let seen = Buffer.alloc(0)
      socket.on('error', () => {})
      socket.on('data', (chunk: Buffer) => {
        seen = Buffer.concat([seen, chunk])
        // Record header: type, version, length.
        if (seen.length < 5 || seen.length < 5 + seen.readUInt16BE(3)) return
        socket.destroy()
        server.close()
        resolve(seen)
      })
    })
    server.once('error', reject)
    server.listen(0, '127.0.0.1', () => {
      const address = server.address()
      const port = typeof address === 'object' && address !== null ? address.port : 0
      connectTls({ host: '127.0.0.1', port, rejectUnauthorized: false }).on('error', () => {})
    })
  })
}

const HANDSHAKE_RECORD = 0x16
const WITHIN_MS = 10_000

/** TCP, the hello, and what comes until the other side ends. Rejects when it begins a handshake. */
export function refusedHello(port: number, hello: Buffer): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: '127.0.0.1', port, noDelay: true }, () => socket.write(hello))
    const timer = setTimeout(() => {
      socket.destroy()
      reject(new Error('not refused in time'))
    }, WITHIN_MS)
    socket.on('data', (chunk: Buffer) => {
      if (chunk[0] !== HANDSHAKE_RECORD) return
      socket.destroy()
      reject(new Error('a ClientHello without server name is answered with a handshake'))
    })
    socket.on('error', () => {})
    socket.on('close', () => {
      clearTimeout(timer)
      resolve()
    })
  })
}
