import type { TLSSocket } from 'node:tls'
import { type Identity, openTls } from './device.ts'

// HTTP/1.1 over TLS, as little of it as devices need.

const WITHIN_MS = 15_000

export interface HttpConnection {
  readonly socket: TLSSocket
  /** Writes a whole request; resolves with the status when the answer is whole. One at a time. */
  ask(request: Buffer): Promise<number>
  close(): Promise<void>
}

export function openHttp(port: number, identity: Identity): Promise<HttpConnection> {
  return new Promise((resolve, reject) => {
    const socket = openTls({ port, identity })
    let waiting: { resolve: (status: number) => void; reject: (error: Error) => void } | null = null
    let seen: Buffer = Buffer.alloc(0)
    let failure: Error | null = null
    const { promise: closed, resolve: onClosed } = Promise.withResolvers<void>()
    const timer = setTimeout(() => socket.destroy(new Error('no handshake in time')), WITHIN_MS)
    socket.on('data', (chunk: Buffer) => {
      seen = seen.length === 0 ? chunk : Buffer.concat([seen, chunk])
      const answer = wholeAnswer(seen)
      if (answer === null) return
      seen = seen.subarray(answer.end)
      waiting?.resolve(answer.status)
      waiting = null
    })
    socket.on('error', (error) => {
      failure = error
    })
    socket.on('close', () => {
      clearTimeout(timer)
      const error = failure ?? new Error('the connection was closed before an answer')
      reject(error)
      waiting?.reject(error)
      onClosed()
    })
    socket.once('secureConnect', () => {
      clearTimeout(timer)
      resolve({
        socket,
        ask(request) {
          return new Promise((answered, failed) => {
            waiting = { resolve: answered, reject: failed }
            socket.write(request)
          })
        },
        close() {
          socket.end()
          return closed
        },
      })
    })
  })
}

/** Null while head and body are not all there; an answer without Content-Length has no body here. */
export function wholeAnswer(bytes: Buffer): { readonly status: number; readonly end: number } | null {
  const headEnd = bytes.indexOf('\r\n\r\n')
  if (headEnd < 0) return null
  const head = bytes.toString('latin1', 0, headEnd)
  const status = Number(/^HTTP\/1\.1 (\d{3})/.exec(head)?.[1] ?? Number.NaN)
  const end = headEnd + 4 + Number(/\r\ncontent-length: *(\d+)/i.exec(head)?.[1] ?? 0)
  return bytes.length < end ? null : { status, end }
}

export function publishRequest(host: string, topic: string, qos: 0 | 1, payload: Buffer): Buffer {
  const head = `POST /topics/${topic}?qos=${qos} HTTP/1.1\r\nHost: ${host}\r\nContent-Length: ${payload.length}\r\n\r\n`
  return Buffer.concat([Buffer.from(head), payload])
}

/** The upgrade of MQTT over WebSocket, with a token. */
export function upgradeRequest(host: string, token: string): Buffer {
  return Buffer.from(
    `GET /mqtt HTTP/1.1\r\nHost: ${host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n` +
      'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n' +
      `Sec-WebSocket-Protocol: mqtt\r\ntoken: ${token}\r\n\r\n`,
  )
}
