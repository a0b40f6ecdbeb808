import { connect as connectTcp, isIP, type LookupFunction, type Socket } from 'node:net'
import {
  checkServerIdentity,
  connect as connectTls,
  createSecureContext,
  type SecureContext,
  type TLSSocket,
} from 'node:tls'
import type { AuthorizedConnection } from '../connection.ts'
import { ProxyError } from '../errors.ts'
import type { Backend, Upstream, UpstreamIdentity } from './backend.ts'
import { type Balance, Balancer } from './balancer.ts'

/** Where one broker listens: a host (name, IPv4, IPv6 without brackets) and port, or a unix socket. */
export type Server = { readonly host: string; readonly port: number } | { readonly path: string }

export interface BackendTls {
  /** PEM; null trusts the runtime's own list. */
  readonly ca: readonly string[] | null
  /** Sent as SNI and looked for in the certificate; null takes the server's host. */
  readonly serverName: string | null
  /** PEM certificate chain and key that we show to a broker which asks. */
  readonly cert: string | null
  readonly key: string | null
}

/** How one attempt at one server ended; the `result` metric label. */
export type DialResult = 'connected' | 'refused' | 'timeout' | 'untrusted' | 'canceled'

export interface TcpOptions {
  readonly name: string
  readonly identity: UpstreamIdentity
  readonly servers: readonly Server[]
  readonly balance: Balance
  /** For one whole `open`: name look-up, TCP, TLS, and every server tried. */
  readonly connectTimeoutMs: number
  /** Bytes that come first on every stream, ahead of TLS: a PROXY header; null writes none. */
  readonly proxyHeader: ((connection: AuthorizedConnection | null) => Uint8Array) | null
  readonly tls: BackendTls | null
  readonly onDial: (result: DialResult, seconds: number) => void
  /** Milliseconds, monotonic; `performance.now` unless told. */
  readonly now?: () => number
  /** 0 ≤ x < 1; `Math.random` unless told. */
  readonly random?: () => number
  /** `dns.lookup` unless told. */
  readonly lookup?: LookupFunction
}

/** Silence after which the kernel asks whether the broker's machine is still there. */
const KEEP_ALIVE_MS = 60_000

/** Our own shortage, which says nothing about the server. */
const OURS = new Set(['EMFILE', 'ENFILE', 'ENOBUFS', 'ENOMEM'])

/** The other end of a TLS handshake went away: no verdict on trust, so another server may be tried. */
const WENT_AWAY = new Set(['ECONNRESET', 'ECONNABORTED', 'EPIPE', 'ENOTCONN', 'EHOSTUNREACH', 'ENETUNREACH'])

/**
 * An MQTT broker over TCP, TLS or a unix socket; several of them are balanced.
 *
 * - In: an authenticated connection. Out: a stream on which nobody has said anything yet, except for
 *   the PROXY header where one is asked for. It does not flow until somebody listens to `data`.
 * - Units: milliseconds; `onDial` alone takes seconds, as metrics do.
 * - Errors: ERR_BACKEND_REFUSED, ERR_BACKEND_TIMEOUT: every server was tried once, the last one's
 *   answer is told. ERR_BACKEND_UNTRUSTED ends the attempt at once and is never followed by plaintext.
 *   An aborted signal ends it at once too, with the signal's own ProxyError where it carries one.
 * - With TLS 1.3 a broker judges our certificate after our side is done (RFC 8446 §4.4.2): its refusal
 *   is then the end of the stream, not an error of `open`.
 *
 * @throws from the factory, when the certificates or the key of `tls` cannot be read.
 */
export function tcp(options: TcpOptions): Backend {
  const now = options.now ?? (() => performance.now())
  const balancer = new Balancer(options.servers.length, options.balance, now, options.random ?? Math.random)
  const context = options.tls === null ? null : contextOf(options.tls)
  const streams = new Set<Socket>()
  const closing = new AbortController()

  /** One attempt at one server, ended by success, failure, deadline or signal; leaves no socket behind. */
  function dial(
    server: Server,
    header: Uint8Array | null,
    deadlineMs: number,
    signals: readonly AbortSignal[],
  ): Promise<Socket> {
    return new Promise((resolve, reject) => {
      const socket = connectTcp({
        ...('path' in server ? { path: server.path } : { host: server.host, port: server.port }),
        ...(options.lookup === undefined ? {} : { lookup: options.lookup }),
        // A device may finish sending and still wait for its last messages.
        allowHalfOpen: true,
      })
      let stream = socket

      const settle = (error: ProxyError | null): void => {
        clearTimeout(timer)
        for (const signal of signals) signal.removeEventListener('abort', onAbort)
        socket.off('connect', onConnect)
        for (const each of new Set([socket, stream])) each.off('error', onError).off('close', onClose)
        if (error === null) resolve(stream)
        else {
          stream.destroy()
          socket.destroy()
          reject(error)
        }
      }
      const onAbort = (): void => settle(canceled(signals))
      const onError = (cause: NodeJS.ErrnoException): void => settle(failure(cause, stream !== socket))
      const onClose = (): void => settle(new ProxyError('ERR_BACKEND_REFUSED', 'closed before it was open'))
      const onConnect = (): void => {
        socket.setNoDelay(true)
        socket.setKeepAlive(true, KEEP_ALIVE_MS)
        if (header !== null) socket.write(header)
        if (context === null) settle(null)
        else startTls(context)
      }
      const startTls = (secureContext: SecureContext): void => {
        let tls: TLSSocket
        try {
          tls = secure(socket, server, options.tls!.serverName, secureContext)
        } catch (cause) {
          settle(new ProxyError('ERR_BACKEND_UNTRUSTED', messageOf(cause), { cause }))
          return
        }
        stream = tls
        watch(tls)
        tls.once('secureConnect', () => {
          // Asked again, because a runtime that forgot `rejectUnauthorized` would otherwise open the door.
          const trusted = tls.authorized
          settle(trusted ? null : new ProxyError('ERR_BACKEND_UNTRUSTED', 'the certificate was not verified'))
        })
      }
      const watch = (each: Socket): void => {
        // Stays for good: an error that nobody listens to would end the process. `close` tells the session.
        each.on('error', ignore)
        each.on('error', onError)
        each.on('close', onClose)
      }
      const timer = setTimeout(() => settle(new ProxyError('ERR_BACKEND_TIMEOUT', 'no answer in time')), deadlineMs)
      for (const signal of signals) signal.addEventListener('abort', onAbort)
      watch(socket)
      socket.once('connect', onConnect)
    })
  }

  return {
    name: options.name,
    identity: options.identity,

    async open(connection, signal) {
      const endsAtMs = now() + options.connectTimeoutMs
      const signals = [signal, closing.signal]
      const header = options.proxyHeader?.(connection) ?? null
      const tried = new Set<number>()
      let last = new ProxyError('ERR_BACKEND_REFUSED', `backend ${options.name} has no servers`)
      for (;;) {
        if (isAborted(signals)) throw canceled(signals)
        const leftMs = endsAtMs - now()
        const at = tried.size > 0 && leftMs <= 0 ? null : balancer.choose(tried)
        if (at === null) throw last
        const server = options.servers[at]!
        // A fair share each: the first black hole must not eat the time of a healthy neighbor.
        const shareMs = Math.max(1, leftMs / (options.servers.length - tried.size))
        tried.add(at)
        const startedMs = now()
        try {
          const stream = await dial(server, header, shareMs, signals)
          // Between the promise's answer and this line the signal may have come.
          if (isAborted(signals)) {
            stream.destroy()
            throw canceled(signals)
          }
          // Its `close` may be over already, and nobody would ever hear of it again.
          if (stream.destroyed) throw new ProxyError('ERR_BACKEND_REFUSED', 'closed as it opened')
          streams.add(stream)
          options.onDial('connected', (now() - startedMs) / 1_000)
          balancer.succeeded(at)
          stream.once('close', () => {
            streams.delete(stream)
            balancer.ended(at)
          })
          return { stream, peer: peerOf(server) } satisfies Upstream
        } catch (thrown) {
          const error = thrown instanceof ProxyError ? thrown : failure(thrown as Error, false)
          const aborted = isAborted(signals)
          balancer.ended(at)
          options.onDial(aborted ? 'canceled' : RESULTS[error.code]!, (now() - startedMs) / 1_000)
          if (aborted) throw error
          if (!isOurs(error)) balancer.failed(at)
          last = new ProxyError(error.code, `${peerOf(server)}: ${error.message}`, { cause: error.cause })
          if (!last.failure.retry) throw last
        }
      }
    },

    async close() {
      closing.abort(new ProxyError('ERR_BACKEND_REFUSED', `backend ${options.name} is closed`))
      await Promise.all(
        Array.from(streams, (stream) => {
          const closed = new Promise<void>((resolve) => stream.once('close', () => resolve()))
          stream.destroy()
          return closed
        }),
      )
    },
  }
}

const RESULTS: Readonly<Record<string, DialResult>> = {
  ERR_BACKEND_REFUSED: 'refused',
  ERR_BACKEND_TIMEOUT: 'timeout',
  ERR_BACKEND_UNTRUSTED: 'untrusted',
}

function contextOf(tls: BackendTls): SecureContext {
  return createSecureContext({
    minVersion: 'TLSv1.2',
    ...(tls.ca === null ? {} : { ca: [...tls.ca] }),
    ...(tls.cert === null ? {} : { cert: tls.cert }),
    ...(tls.key === null ? {} : { key: tls.key }),
  })
}

/** TLS over a connected socket. The name in the certificate is ours to say, so no default can creep in. */
function secure(socket: Socket, server: Server, serverName: string | null, secureContext: SecureContext): TLSSocket {
  const name = serverName ?? ('host' in server ? server.host : 'localhost')
  return connectTls({
    socket,
    secureContext,
    rejectUnauthorized: true,
    host: name,
    // An IP address is not a server name (RFC 6066 §3); it is looked for among the certificate's IP names.
    ...(isIP(name) === 0 ? { servername: name } : {}),
    checkServerIdentity: (_, certificate) => checkServerIdentity(name, certificate),
  })
}

function failure(cause: NodeJS.ErrnoException, duringTls: boolean): ProxyError {
  const code = cause.code ?? ''
  if (code === 'ETIMEDOUT') return new ProxyError('ERR_BACKEND_TIMEOUT', messageOf(cause), { cause })
  if (duringTls && !WENT_AWAY.has(code)) return new ProxyError('ERR_BACKEND_UNTRUSTED', messageOf(cause), { cause })
  return new ProxyError('ERR_BACKEND_REFUSED', messageOf(cause), { cause })
}

function isAborted(signals: readonly AbortSignal[]): boolean {
  return signals.some((signal) => signal.aborted)
}

function canceled(signals: readonly AbortSignal[]): ProxyError {
  const cause: unknown = signals.find((signal) => signal.aborted)?.reason
  if (cause instanceof ProxyError) return cause
  const isTimeout = cause instanceof Error && cause.name === 'TimeoutError'
  return new ProxyError(isTimeout ? 'ERR_BACKEND_TIMEOUT' : 'ERR_BACKEND_REFUSED', 'the attempt was canceled', {
    cause,
  })
}

function isOurs(error: ProxyError): boolean {
  return OURS.has((error.cause as NodeJS.ErrnoException | undefined)?.code ?? '')
}

function peerOf(server: Server): string {
  if ('path' in server) return server.path
  return `${server.host.includes(':') ? `[${server.host}]` : server.host}:${server.port}`
}

/** An AggregateError of several addresses has no message of its own. */
function messageOf(cause: unknown): string {
  if (!(cause instanceof Error)) return String(cause)
  return cause.message || ((cause as NodeJS.ErrnoException).code ?? cause.name)
}

function ignore(): void {}
