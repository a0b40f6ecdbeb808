import type { X509Certificate } from 'node:crypto'
import { Socket } from 'node:net'
import { type SecureContext, TLSSocket } from 'node:tls'
import type { AcceptedSocket, PeerCertificate } from '../connection.ts'
import { ProxyError } from '../errors.ts'
import { type Presenter, presentedBy } from '../lifted/native.ts'
import { canLift, LiftedTcp } from '../lifted/tcp.ts'
import { LiftedTls, nativeOf } from '../lifted/tls.ts'

export interface HandshakeOptions {
  readonly context: SecureContext
  /** Ask for a client certificate. One that does not come is no error here: the identity stage judges. */
  readonly requestCert: boolean
  /** The one name to select, which the client has offered; null answers without the extension. */
  readonly alpn: string | null
  /** Milliseconds left of the domain's handshake timeout. */
  readonly deadlineMs: number
  /** On the runtime's own socket, where it can be; the stream is then no `Duplex`. */
  readonly lift?: boolean
  /** Aborted with a ProxyError, the handshake fails with that; otherwise with ERR_DRAINING. */
  readonly signal?: AbortSignal
}

export interface Secured {
  /**
   * Paused and with every byte: nothing is read from it before someone listens for data. Listen at once, or look at
   * `readableEnded` and `destroyed` first: a device may already have gone.
   */
  readonly tls: TLSSocket | LiftedTls
  /** `TLSv1.2` or `TLSv1.3`. */
  readonly version: string
  /** Whether an earlier session goes on: then `peer` is what was proved when that was made. */
  readonly resumed: boolean
  /**
   * Null when none was asked for or none came. That none came is told by its absence and by nothing else: the TLS
   * library's verdict is an error then, too. An RSA-PSS device key under BoringSSL also arrives as none.
   */
  readonly peer: PeerCertificate | null
}

/** Certificates a device may present, its own included. */
export const MAX_CHAIN = 8
/** Their size in all, as DER. Both libraries stop at about the same size on their own. */
export const MAX_CHAIN_BYTES = 100 * 1_024

const MAX_MESSAGE = 200

/** The part of Node's binding that tells how the chain was judged; Bun has it, too. No public call is right on both. */
interface Judged {
  readonly ssl?: { verifyError?(): { readonly code?: string; readonly message?: string } | null | undefined } | null
}

/** Of streams of both transports. */
interface Events {
  on(event: string, listener: (...args: unknown[]) => void): unknown
  off(event: string, listener: (...args: unknown[]) => void): unknown
}

const ignore = (): void => {}

/** Node says faults of a socket that no tls.Server controls through `_tlsError` only, and leaves the closing to us. */
function closeOnFault(this: TLSSocket, error: Error): void {
  this.destroy(error)
}

/**
 * Brings TLS up on a socket whose first bytes were looked at and given back.
 *
 * The client's certificate is asked for and its possession proved, but no certificate is turned away: strangers are
 * refused by the identity stage, which has the registry. Rejects with ERR_HANDSHAKE_FAILED, ERR_HANDSHAKE_TIMEOUT or
 * the signal's reason; both sockets are destroyed then.
 */
export function handshake(socket: AcceptedSocket, options: HandshakeOptions): Promise<Secured> {
  const { promise, resolve, reject } = Promise.withResolvers<Secured>()
  // Stays for the life of the socket: an error that nobody waits for must not end the process.
  socket.on('error', ignore)

  const aborted = () => {
    const reason: unknown = options.signal?.reason
    return reason instanceof ProxyError ? reason : new ProxyError('ERR_DRAINING', 'stopped during the handshake')
  }
  if (options.signal?.aborted || socket.destroyed) {
    socket.destroy()
    reject(options.signal?.aborted ? aborted() : new ProxyError('ERR_HANDSHAKE_FAILED', 'the client had gone'))
    return promise
  }

  const liftable = socket instanceof LiftedTcp || (options.lift === true && socket instanceof Socket && canLift(socket))
  const lifted = liftable ? new LiftedTls() : null
  let tls: TLSSocket | LiftedTls
  try {
    tls = lifted ?? wrapped(socket, options)
  } catch (cause) {
    socket.destroy()
    reject(new ProxyError('ERR_HANDSHAKE_FAILED', bounded(cause), { cause }))
    return promise
  }
  const events: Events = tls

  let settled = false
  const settle = (): boolean => {
    if (settled) return false
    settled = true
    clearTimeout(timer)
    options.signal?.removeEventListener('abort', onAbort)
    // What is left on an idle session costs memory: nothing of this call stays behind.
    socket.off('close', onClose)
    events.off('error', onFault)
    events.off('_tlsError', onFault)
    events.off('end', onClose)
    events.off('close', onClose)
    events.off('secure', onSecure)
    return true
  }
  const fail = (error: ProxyError) => {
    if (!settle()) return
    reject(error)
    tls.destroy()
    socket.destroy()
  }
  const onFault = (error: unknown) => {
    if (!settled) fail(new ProxyError('ERR_HANDSHAKE_FAILED', bounded(error), { cause: error }))
  }
  const onAbort = () => fail(aborted())
  const onClose = () => {
    if (!settled) fail(new ProxyError('ERR_HANDSHAKE_FAILED', 'the client hung up during the handshake'))
  }
  const onSecure = () => {
    try {
      const resumed = tls.isSessionReused()
      const peer = options.requestCert ? peerOf(tls, resumed) : null
      const version = versionOf(tls.getProtocol())
      if (settle()) resolve({ tls, version, resumed, peer })
    } catch (error) {
      if (error instanceof ProxyError) fail(error)
      else onFault(error)
    }
  }

  const timer = setTimeout(
    () => fail(new ProxyError('ERR_HANDSHAKE_TIMEOUT', 'no TLS within the handshake timeout')),
    Math.max(0, options.deadlineMs),
  )
  options.signal?.addEventListener('abort', onAbort, { once: true })
  events.on('error', onFault)
  events.on('_tlsError', onFault)
  events.on('secure', onSecure)
  // With half-close allowed, a client that only ends its side would otherwise be waited for until the deadline.
  events.on('end', onClose)
  events.on('close', onClose)
  if (lifted === null) socket.on('close', onClose)
  else {
    try {
      lifted.begin(socket as Socket | LiftedTcp, options)
    } catch (error) {
      onFault(error)
    }
  }
  return promise
}

function wrapped(socket: AcceptedSocket, { context, requestCert, alpn }: HandshakeOptions): TLSSocket {
  if (!(socket instanceof Socket)) throw new TypeError('not a socket of node:net')
  const tls = new TLSSocket(socket, {
    isServer: true,
    secureContext: context,
    requestCert,
    // Authorization is ours; see above.
    rejectUnauthorized: false,
    ...(alpn === null ? {} : { ALPNProtocols: [alpn] }),
  })
  // Half-close: a device may finish sending and still wait for its last messages.
  tls.allowHalfOpen = true
  // Both stay.
  tls.on('error', ignore)
  tls.on('_tlsError', closeOnFault)
  return tls
}

/**
 * What the device presented, within bounds; null when it presented nothing. Bun goes on from there with CAs of the
 * context that issued the last one, whether the device sent them or not; they count here, too.
 */
function peerOf(tls: TLSSocket | LiftedTls, resumed: boolean): PeerCertificate | null {
  const native = nativeOf(tls)
  if (native !== null) {
    const leaf = native.getPeerX509Certificate()
    return leaf ? new NativePeer(leaf, verdictOf(tls), resumed, native) : null
  }
  if (!(tls instanceof TLSSocket)) return null
  const leaf = tls.getPeerX509Certificate()
  if (!leaf) return null
  const chain: X509Certificate[] = []
  for (let next: X509Certificate | undefined = leaf; next && chain.length <= MAX_CHAIN; next = next.issuerCertificate) {
    chain.push(next)
  }
  return { leaf, chain: withinBounds(chain), verifyError: verdictOf(tls), resumed }
}

/**
 * On Bun the chain is 30 to 100 µs of work and kilobytes for as long as the session lives, and most decisions need the leaf
 * alone: whoever asks for the chain pays for it, and meets its bounds.
 */
class NativePeer implements PeerCertificate {
  readonly leaf: X509Certificate
  readonly verifyError: string | null
  readonly resumed: boolean
  readonly #native: Presenter

  constructor(leaf: X509Certificate, verifyError: string | null, resumed: boolean, native: Presenter) {
    this.leaf = leaf
    this.verifyError = verifyError
    this.resumed = resumed
    this.#native = native
  }

  get chain(): readonly X509Certificate[] {
    const chain = presentedBy(this.#native, MAX_CHAIN)
    if (chain.length === 0) throw new ProxyError('ERR_HANDSHAKE_FAILED', 'the client has gone, and its chain with it')
    return withinBounds(chain)
  }
}

function withinBounds(chain: readonly X509Certificate[]): readonly X509Certificate[] {
  if (chain.length > MAX_CHAIN) {
    throw new ProxyError('ERR_HANDSHAKE_FAILED', `the client sent more than ${MAX_CHAIN} certificates`)
  }
  if (chain.reduce((bytes, { raw }) => bytes + raw.length, 0) > MAX_CHAIN_BYTES) {
    throw new ProxyError('ERR_HANDSHAKE_FAILED', `the client's certificates are larger than ${MAX_CHAIN_BYTES} bytes`)
  }
  return chain
}

/**
 * The TLS library's verdict on the chain, as its code. `authorized` will not do: on Node it stays false for a socket
 * wrapped in this way.
 */
function verdictOf(tls: TLSSocket | LiftedTls): string | null {
  const judged = tls instanceof LiftedTls ? tls : (tls as unknown as Judged).ssl
  // Without the binding nothing is known, and nothing known is not a yes.
  if (typeof judged?.verifyError !== 'function') return 'UNKNOWN'
  const error = judged.verifyError()
  return error ? (error.code ?? error.message ?? 'UNKNOWN') : null
}

/** The runtime makes a text of each; a session keeps one that all have. */
const VERSIONS = ['TLSv1.3', 'TLSv1.2']

function versionOf(said: string | null): string {
  return VERSIONS.find((version) => version === said) ?? said ?? 'unknown'
}

/** One printable line: the reason may quote bytes that the client chose. */
function bounded(error: unknown): string {
  const { code, reason, message } = error as { code?: string; reason?: string; message?: string }
  const text = [code, reason ?? message ?? String(error)].filter(Boolean).join(': ')
  return text.replaceAll(/[^\x20-\x7e]+/g, ' ').slice(0, MAX_MESSAGE)
}
