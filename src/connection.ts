import type { X509Certificate } from 'node:crypto'
import type { Authenticated } from './auth/authenticator.ts'
import type { FailureCode, ProxyError } from './errors.ts'
import type { ClientHello } from './listener/client-hello.ts'
import type { Visit } from './listener/lane.ts'
import type { Permit } from './policy/permit.ts'
import type { ByteStream } from './relay.ts'
import type { Admission, Protocol } from './tls/admission.ts'
import type { Domain } from './tls/domains.ts'

/** Where a connection comes from; it is the same at every stage. */
export interface Origin {
  /** Unique within the fleet of processes; on every log line about this device. */
  readonly id: string
  /** The port whose rows of the matrix apply: the listener's own, or its `as`. */
  readonly port: number
  /** The device's address: the socket's peer, or what a trusted PROXY header said. */
  readonly remoteAddress: string
  readonly remotePort: number
  /** `performance.now()` at accept, in milliseconds. */
  readonly acceptedAt: number
  /** What the governor knows of it. */
  readonly visit?: Visit | undefined
}

/** What the stages before TLS need of a socket; one of `node:net` is one. */
export interface AcceptedSocket extends ByteStream {
  readonly remoteAddress?: string | undefined
  readonly remotePort?: number | undefined
  /** All that was written is out, and our side is closed. */
  readonly writableFinished: boolean
  /** Bytes that were looked at, to be read once more; only while it is paused. */
  unshift(chunk: Buffer): unknown
  /** What has come and is not read; null when there is nothing. Only while it is paused. */
  read(): unknown
  /** Gone once what was written is out. */
  destroySoon(): unknown
  listeners(event: 'close'): unknown[]
  on(event: 'data', listener: (chunk: Buffer) => void): unknown
  on(event: 'drain' | 'end' | 'close' | 'error', listener: () => void): unknown
  once(event: 'end' | 'close' | 'finish', listener: () => void): unknown
}

/** Stage 1. A socket, nothing believed yet. */
export interface AcceptedConnection extends Origin {
  readonly socket: AcceptedSocket
  /** Of the device's first flight, where that is its hello alone; null until it has come, or when early data follows. */
  readonly flightBytes: number | null
}

/** Stage 2. TLS is up; the admissions left are the ones the ClientHello allows. */
export interface SecuredConnection extends Origin {
  /** A `TLSSocket` where HTTP comes next; where MQTT does, it may be of the second transport. */
  readonly tls: SecureStream
  /** As the ClientHello had it, in lower case; one of the domain's. */
  readonly serverName: string
  readonly domain: Domain
  readonly admissions: readonly Admission[]
  /** What the device presented and proved possession of; null when none was asked for or none came. */
  readonly peer: PeerCertificate | null
  /** Whether TLS went on with an earlier session. */
  readonly resumed?: boolean
  /** `performance.now()` when TLS was up, in milliseconds. */
  readonly securedAt: number
}

export interface SecureStream extends ByteStream {
  /** Ours, as the device reached it. */
  readonly localAddress?: string | undefined
  readonly localPort?: number | undefined
}

/** The client certificate as presented, possession proved by the handshake, nothing else believed. */
export interface PeerCertificate {
  readonly leaf: X509Certificate
  /**
   * Leaf first, as the device sent it (Bun goes on into the domain's own CAs). On Bun it is made when it is asked for:
   * ask once. @throws {ProxyError} ERR_HANDSHAKE_FAILED where it is longer than `MAX_CHAIN`, or the connection has ended
   */
  readonly chain: readonly X509Certificate[]
  /** The TLS library's verdict against the domain's CAs: null is «a valid path for client authentication». */
  readonly verifyError: string | null
  /** Whether this was said and proved in an earlier handshake whose session goes on; the verdict is from then, too. */
  readonly resumed?: boolean
}

/** Stage 3. We know who, and what it was granted. */
export interface AuthenticatedConnection extends SecuredConnection {
  readonly who: Authenticated
}

/** Stage 4. It may connect, under this client id. Only this may reach a backend. */
export interface AuthorizedConnection extends AuthenticatedConnection {
  /** As the broker sees it: assigned where the device sent none, with the tenant's prefix. */
  readonly clientId: string
  readonly permit: Permit
}

/** Why a connection ended; the label of `connections_closed_total`. */
export type CloseReason = 'downstream' | 'upstream' | 'probe' | FailureCode

/** What every log line and metric of one connection needs; filled in as the stages pass. */
export interface Trace {
  stage: 'accept' | 'hello' | 'queue' | 'handshake' | 'authenticate' | 'request' | 'connect' | 'open' | 'relay'
  mode: string | null
  protocol: Protocol | null
  serverName: string | null
  /** Whose JA4 the log tells. */
  hello: Pick<ClientHello, 'ja4'> | null
  tlsVersion: string | null
  principal: string | null
  clientId: string | null
  mqttVersion: number | null
  backend: string | null
  upstream: string | null
  /** Milliseconds from accept to each milestone; null when it was not reached. */
  helloMs: number | null
  handshakeMs: number | null
  connectedMs: number | null
  /** HTTP requests taken up on this connection. */
  requests: number
  bytesIn: number
  bytesOut: number
  packetsIn: number
  packetsOut: number
}

/** What has begun and goes on by itself. Wrapped, or whoever waits for the beginning would wait for the end. */
export interface Serving {
  /** Resolves when both sides are closed, with what ended it. Never rejects. */
  readonly over: Promise<CloseReason | ProxyError>
}

/** Serves one application protocol over an established TLS connection, to its end. */
export interface ProtocolHandler {
  readonly protocol: Protocol
  /** Resolves when nothing but the end is left to wait for. @throws {ProxyError} when it ended before */
  serve(connection: SecuredConnection, trace: Trace, signal: AbortSignal): Promise<Serving>
}
