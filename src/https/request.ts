import { randomUUID } from 'node:crypto'
import { createServer } from 'node:http'
import type { CloseReason, ProtocolHandler } from '../connection.ts'

const HEADERS_TIMEOUT_MS = 10_000
const REQUEST_TIMEOUT_MS = 30_000

/**
 * HTTP/1.1 on 443 without a private ALPN name, on 443 with `x-amzn-http-ca` and on 8443: the WebSocket and HTTPS rows
 * of the matrix. They are known and not served yet, and the answer says so in the data plane's form.
 */
export function httpsHandler(): ProtocolHandler {
  const server = createServer(
    { headersTimeout: HEADERS_TIMEOUT_MS, requestTimeout: REQUEST_TIMEOUT_MS },
    (request, response) => {
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
    },
  )
  server.on('upgrade', (_request, socket) => {
    socket.end('HTTP/1.1 501 Not Implemented\r\ncontent-length: 0\r\nconnection: close\r\n\r\n')
  })
  return {
    protocol: 'https',
    serve(connection, trace) {
      trace.stage = 'connect'
      return new Promise<CloseReason>((resolve) => {
        connection.tls.once('close', () => resolve('ERR_MODE_UNSERVED'))
        // The server's own timeouts begin with the first byte; this one ends a device that never speaks.
        connection.tls.setTimeout(HEADERS_TIMEOUT_MS, () => connection.tls.destroy())
        server.emit('connection', connection.tls)
      })
    },
  }
}
