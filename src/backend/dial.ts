import { connect as connectTcp, isIP, type Socket } from 'node:net'
import {
  checkServerIdentity,
  connect as connectTls,
  createSecureContext,
  type SecureContext,
  type TLSSocket,
} from 'node:tls'
import { ProxyError } from '../errors.ts'
import type { Resolver } from './resolve.ts'

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

/** Silence after which the kernel asks whether the broker's machine is still there. */
const KEEP_ALIVE_MS = 60_000

/** The other end of a TLS handshake went away: no verdict on trust, so another server may be tried. */
const WENT_AWAY = new Set(['ECONNRESET', 'ECONNABORTED', 'EPIPE', 'ENOTCONN', 'EHOSTUNREACH', 'ENETUNREACH'])

export interface DialOptions {
  readonly server: Server
  /** Bytes that come first, ahead of TLS; null writes none. */
  readonly header: Uint8Array | null
  /** null: no TLS. */
  readonly tls: { readonly context: SecureContext; readonly serverName: string | null } | null
  readonly deadlineMs: number
  readonly signals: readonly AbortSignal[]
  readonly resolver: Resolver
}

/** One attempt at one server, ended by success, failure, deadline or signal; leaves no socket behind. */
export function dial(options: DialOptions): Promise<Socket> {
  const { server, header, tls, deadlineMs, signals } = options
  return new Promise((resolve, reject) => {
    const socket = connectTcp({
      ...('path' in server
        ? { path: server.path }
        : { host: server.host, port: server.port, lookup: options.resolver.lookup }),
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
        // What the device or we ourselves called off says nothing about the address.
        if ('host' in server && !isAborted(signals)) options.resolver.doubt(server.host)
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
      if (tls === null) settle(null)
      else startTls(tls.context, tls.serverName)
    }
    const startTls = (context: SecureContext, serverName: string | null): void => {
      let secured: TLSSocket
      try {
        secured = secure(socket, server, serverName, context)
      } catch (cause) {
        settle(new ProxyError('ERR_BACKEND_UNTRUSTED', messageOf(cause), { cause }))
        return
      }
      stream = secured
      watch(secured)
      secured.once('secureConnect', () => {
        // Asked again, because a runtime that forgot `rejectUnauthorized` would otherwise open the door.
        const trusted = secured.authorized
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

export function contextOf(tls: BackendTls): SecureContext {
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

/** A shortage of ours, which says nothing about the server: descriptors, memory, local ports. */
const OURS = new Set(['EMFILE', 'ENFILE', 'ENOBUFS', 'ENOMEM', 'EADDRNOTAVAIL'])

export function failure(cause: NodeJS.ErrnoException, duringTls: boolean): ProxyError {
  const code = codeOf(cause)
  if (OURS.has(code)) return new ProxyError('ERR_DIAL_EXHAUSTED', messageOf(cause), { cause })
  if (code === 'ETIMEDOUT') return new ProxyError('ERR_BACKEND_TIMEOUT', messageOf(cause), { cause })
  if (duringTls && !WENT_AWAY.has(code)) return new ProxyError('ERR_BACKEND_UNTRUSTED', messageOf(cause), { cause })
  return new ProxyError('ERR_BACKEND_REFUSED', messageOf(cause), { cause })
}

export function isAborted(signals: readonly AbortSignal[]): boolean {
  return signals.some((signal) => signal.aborted)
}

export function canceled(signals: readonly AbortSignal[]): ProxyError {
  const cause: unknown = signals.find((signal) => signal.aborted)?.reason
  if (cause instanceof ProxyError) return cause
  const isTimeout = cause instanceof Error && cause.name === 'TimeoutError'
  return new ProxyError(isTimeout ? 'ERR_BACKEND_TIMEOUT' : 'ERR_BACKEND_REFUSED', 'the attempt was canceled', {
    cause,
  })
}

export function peerOf(server: Server): string {
  if ('path' in server) return server.path
  return `${server.host.includes(':') ? `[${server.host}]` : server.host}:${server.port}`
}

/** Of several addresses that were tried, the code that all of them have in common; one of another kind says more. */
function codeOf(cause: NodeJS.ErrnoException): string {
  if (!(cause instanceof AggregateError)) return cause.code ?? ''
  const codes = cause.errors.map((error: NodeJS.ErrnoException) => error.code ?? '')
  return codes.find((code) => !OURS.has(code)) ?? codes[0] ?? ''
}

/** An AggregateError of several addresses has no message of its own. */
function messageOf(cause: unknown): string {
  if (!(cause instanceof Error)) return String(cause)
  return cause.message || ((cause as NodeJS.ErrnoException).code ?? cause.name)
}

function ignore(): void {}
