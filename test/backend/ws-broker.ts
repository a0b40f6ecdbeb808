import { createServer, type IncomingMessage } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { Duplex } from 'node:stream'
import type { ExecutionContext } from 'ava'
import type { WebSocketStream } from '../../src/wss/stream.ts'
import { upgrade } from '../../src/wss/upgrade.ts'
import { listening, type Serve } from './conformance.ts'

/** A byte stream as the Duplex that a broker stub takes. */
export function duplexOf(stream: WebSocketStream): Duplex {
  const duplex = new Duplex({
    allowHalfOpen: true,
    read: () => void stream.resume(),
    write(chunk: Buffer, _encoding, done) {
      if (stream.write(chunk)) done()
      else drained = done
    },
    final(done) {
      stream.end()
      done()
    },
    destroy(error, done) {
      stream.destroy()
      done(error)
    },
  })
  let drained: (() => void) | null = null
  stream.on('drain', () => {
    const done = drained
    drained = null
    done?.()
  })
  stream.pause()
  stream.on('data', (chunk) => {
    if (!duplex.push(chunk)) stream.pause()
  })
  stream.on('end', () => duplex.push(null))
  stream.on('close', () => duplex.destroy())
  return duplex
}

export interface WsBroker {
  readonly port: number
  readonly requests: IncomingMessage[]
}

/** A broker stub that is reached by WebSocket; with TLS where a certificate is given. */
export async function wsServer(
  t: ExecutionContext,
  serve: Serve,
  tls: { readonly cert: string; readonly key: string } | null = null,
): Promise<WsBroker> {
  const requests: IncomingMessage[] = []
  const server = tls === null ? createServer() : createTlsServer({ ...tls })
  server.on('upgrade', (request, socket, head) => {
    requests.push(request)
    const limits = { maxMessageBytes: 1_048_576, firstMessageBytes: Number.POSITIVE_INFINITY }
    const result = upgrade(request, socket, head, limits)
    if (result.kind === 'accepted') serve(duplexOf(result.stream))
    else socket.destroy()
  })
  server.on('tlsClientError', () => {})
  await listening(t, server, { host: '127.0.0.1', port: 0 })
  return { port: (server.address() as AddressInfo).port, requests }
}
