import type { ClientRequest, IncomingMessage } from 'node:http'
import type { LookupFunction, Socket } from 'node:net'
import type { AuthorizedConnection } from '../connection.ts'
import { ProxyError } from '../errors.ts'
import type { ByteStream } from '../relay.ts'
import { WebSocketStream } from '../wss/stream.ts'
import { LateClosingWebSocket, webSocketOptions } from '../wss/web-socket.ts'
import type { Backend } from './backend.ts'
import { type Attempt, type BalancedOptions, balanced } from './balanced.ts'
import { type BackendTls, canceled, contextOf, dial, isAborted } from './dial.ts'
import { Resolver } from './resolve.ts'

export interface WsServer {
  readonly host: string
  readonly port: number
  /** Path and query of the request (RFC 9112 §3.2). */
  readonly target: string
  /** `wss:`, which is TLS. */
  readonly secure: boolean
}

export interface WsOptions extends BalancedOptions {
  readonly servers: readonly WsServer[]
  /** For the servers that are `secure`. */
  readonly tls: BackendTls
  /** Sent with every upgrade; they may be secrets. */
  readonly headers: Readonly<Record<string, string>>
  /** Largest message from the broker, which is held whole until its last byte. */
  readonly maxMessageBytes: number
  /** As `TcpOptions` has it. */
  readonly proxyHeader: ((connection: AuthorizedConnection | null) => Uint8Array) | null
  /** What answers for names behind the cache; `dns.lookup` unless told. */
  readonly lookup?: LookupFunction
}

/**
 * An MQTT broker that speaks WebSocket: dialled as `tcp` dials, then upgraded with subprotocol `mqtt`, a connection of
 * its own for each session. Redirects are not followed, compression is not offered, and any answer other than a right
 * 101 is ERR_BACKEND_REFUSED: the next server may do better. Deadlines and errors are otherwise those of `tcp`.
 *
 * @throws from the factory, when the certificates or the key of `tls` cannot be read.
 */
export function ws(options: WsOptions): Backend {
  const { servers, proxyHeader } = options
  const resolver = new Resolver({ lookup: options.lookup })
  const now = options.now ?? (() => performance.now())
  const tls = servers.some(({ secure }) => secure)
    ? { context: contextOf(options.tls), serverName: options.tls.serverName }
    : null
  return balanced(options, {
    servers,
    peerOf,
    async attempt({ connection, ...attempt }) {
      const { server, deadlineMs } = attempt
      const endsAtMs = now() + deadlineMs
      const header = proxyHeader?.(connection) ?? null
      const socket = await dial({ ...attempt, header, tls: server.secure ? tls : null, resolver })
      return shake(socket, { ...attempt, deadlineMs: Math.max(1, endsAtMs - now()) }, options)
    },
  })
}

/** The opening handshake over a connected socket (RFC 6455 §4.1); leaves no socket behind when it fails. */
function shake(
  socket: Socket,
  { server, deadlineMs, signals }: Omit<Attempt<WsServer>, 'connection'>,
  { headers, maxMessageBytes }: WsOptions,
): Promise<ByteStream> {
  return new Promise((resolve, reject) => {
    if (isAborted(signals)) {
      socket.destroy()
      reject(canceled(signals))
      return
    }
    // The socket is dialled, and its certificate verified, so the scheme here says nothing about TLS.
    const webSocket = new LateClosingWebSocket(`ws://${hostOf(server)}:${server.port}${server.target}`, 'mqtt', {
      ...webSocketOptions(maxMessageBytes),
      followRedirects: false,
      headers: { ...headers, host: hostHeader(server) },
      createConnection: () => socket,
    })
    const settle = (result: ByteStream | ProxyError): void => {
      clearTimeout(timer)
      for (const signal of signals) signal.removeEventListener('abort', onAbort)
      webSocket.off('open', onOpen).off('unexpected-response', onResponse).off('error', onError)
      if (result instanceof ProxyError) {
        // What the package says on its way out is no news.
        webSocket.on('error', ignore)
        socket.destroy()
        webSocket.terminate()
        reject(result)
      } else resolve(result)
    }
    const refuse = (detail: string, cause?: unknown) =>
      settle(new ProxyError('ERR_BACKEND_REFUSED', `WebSocket upgrade: ${detail}`, { cause }))
    const onAbort = (): void => settle(canceled(signals))
    const onOpen = (): void => {
      const first = Number.POSITIVE_INFINITY
      settle(new WebSocketStream(webSocket, socket, { role: 'client', firstMessageBytes: first }))
    }
    const onResponse = (request: ClientRequest, { statusCode }: IncomingMessage): void => {
      request.on('error', ignore)
      refuse(`answered with HTTP ${statusCode}`)
    }
    const onError = (error: Error): void => refuse(error.message, error)
    const timer = setTimeout(
      () => settle(new ProxyError('ERR_BACKEND_TIMEOUT', 'WebSocket upgrade: no answer in time')),
      deadlineMs,
    )
    for (const signal of signals) signal.addEventListener('abort', onAbort)
    webSocket.on('open', onOpen).on('unexpected-response', onResponse).on('error', onError)
  })
}

const hostOf = ({ host }: WsServer): string => (host.includes(':') ? `[${host}]` : host)

/** Without the port that the scheme implies (RFC 9110 §7.2). */
function hostHeader(server: WsServer): string {
  return server.port === (server.secure ? 443 : 80) ? hostOf(server) : `${hostOf(server)}:${server.port}`
}

/** Without the query, which may hold a secret. */
export function peerOf(server: WsServer): string {
  const path = server.target.split('?', 1)[0]
  return `${server.secure ? 'wss' : 'ws'}://${hostHeader(server)}${path}`
}

function ignore(): void {}
