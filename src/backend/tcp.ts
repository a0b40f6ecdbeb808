import type { LookupFunction } from 'node:net'
import type { AuthorizedConnection } from '../connection.ts'
import { lifted } from '../lifted/tcp.ts'
import type { Backend } from './backend.ts'
import { type BalancedOptions, balanced } from './balanced.ts'
import { type BackendTls, contextOf, dial, peerOf, type Server } from './dial.ts'
import { Resolver } from './resolve.ts'

export type { DialResult } from './balanced.ts'
export type { BackendTls, Server } from './dial.ts'

export interface TcpOptions extends BalancedOptions {
  readonly servers: readonly Server[]
  /** Bytes that come first on every stream, ahead of TLS: a PROXY header; null writes none. */
  readonly proxyHeader: ((connection: AuthorizedConnection | null) => Uint8Array) | null
  readonly tls: BackendTls | null
  /** Whether streams without TLS are of the second transport, where they can be. */
  readonly lift?: boolean
  /** What answers for names behind the cache; `dns.lookup` unless told. */
  readonly lookup?: LookupFunction
}

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
  const { servers, proxyHeader } = options
  const resolver = new Resolver({ lookup: options.lookup })
  const tls = options.tls === null ? null : { context: contextOf(options.tls), serverName: options.tls.serverName }
  return balanced(options, {
    servers,
    peerOf,
    async attempt({ connection, ...attempt }) {
      const socket = await dial({ ...attempt, header: proxyHeader?.(connection) ?? null, tls, resolver })
      return options.lift === true && tls === null ? lifted(socket) : socket
    },
  })
}
