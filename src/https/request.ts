import { randomUUID } from 'node:crypto'
import { createServer } from 'node:http'
import type { CloseReason, ProtocolHandler } from '../connection.ts'

/** From the end of the handshake to the end of the answer. */
const DEADLINE_MS = 10_000

/**
 * HTTP/1.1 on 443 without a private ALPN name, on 443 with `x-amzn-http-ca` and on 8443: the WebSocket and HTTPS rows
 * of the matrix. They are known and not served yet, and the answer says so in the data plane's form.
 */
export function httpsHandler(deadlineMs: number = DEADLINE_MS): ProtocolHandler {
  const server = createServer((request, response) => {
    const traceId = randomUUID()
    const body = JSON.stringify({ message: 'This way in is not served by this version of brokergate', traceId })
    request.resume()
    response.writeHead(501, {
      'content-type': 'application/json',
      'content-length': Buffer.byteLength(body),
      'x-amzn-ErrorType': 'NotImplementedException:',
      'x-amzn-RequestId': traceId,
      connection: 'close',
    })
    response.end(body)
  })
  server.on('upgrade', (_request, socket) => {
    socket.end('HTTP/1.1 501 Not Implemented\r\ncontent-length: 0\r\nconnection: close\r\n\r\n')
  })
  return {
    protocol: 'https',
    serve(connection, trace, signal) {
      trace.stage = 'connect'
      const { tls } = connection
      return new Promise<CloseReason>((resolve) => {
        // A server that never listens does not run its own timeouts, and an idle timeout is fed by every byte: one
        // deadline for the whole stay is what a dripping stranger cannot stretch.
        const cut = () => tls.destroy()
        const timer = setTimeout(cut, deadlineMs)
        const closed = () => {
          clearTimeout(timer)
          signal.removeEventListener('abort', cut)
          resolve('ERR_MODE_UNSERVED')
        }
        if (tls.destroyed) return closed()
        tls.once('close', closed)
        signal.addEventListener('abort', cut, { once: true })
        if (signal.aborted) return cut()
        server.emit('connection', tls)
      })
    },
  }
}
