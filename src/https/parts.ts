import type { IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'
import type { Authenticated, HttpProof } from '../auth/authenticator.ts'
import type { Identify } from '../auth/identify.ts'
import type { Publisher } from '../backend/publisher.ts'
import type { SecuredConnection } from '../connection.ts'
import type { FailureCode } from '../errors.ts'
import type { MqttHandler } from '../mqtt/handler.ts'
import type { Permit } from '../policy/permit.ts'
import type { ByteStream } from '../relay.ts'
import type { Domain } from '../tls/domains.ts'
import type { Answered } from './exchange.ts'
import type { Forwarder, HttpBackend } from './forward.ts'
import type { HttpLimits, Timer } from './limits.ts'
import type { PublishLimits } from './publish.ts'
import type { Route } from './routes.ts'

/** A WebSocket as the bytes of its messages. */
export interface MessageStream extends ByteStream {
  /** What the device did against the protocol, once it did. */
  readonly fault?: { readonly code: FailureCode; readonly detail: string } | null
  /** Of our Close: 1000, or 1001 when this process goes away (RFC 6455 §7.4.1). */
  closeCode?: 1000 | 1001
}

export type WebSocketUpgrade =
  | { readonly kind: 'accepted'; readonly stream: MessageStream }
  | { readonly kind: 'refused'; readonly code: FailureCode; readonly detail: string }

/** Everything behind the front. */
export interface FrontParts {
  readonly limits: HttpLimits
  readonly timer?: Timer
  /** Aborted when no new connections are taken: those that are here end with their running or their first request. */
  readonly draining?: AbortSignal
  readonly identify: Identify
  /** Whether the request carries anything of Signature Version 4. */
  presentsSigV4(http: HttpProof): boolean
  /** Whether it carries anything for a custom authorizer. */
  presentsCustom(http: HttpProof, tokenKeyNames: readonly string[]): boolean
  /** Names of the token parameters of the domain's authorizers. */
  tokenKeyNames(domain: Domain): readonly string[]
  hasDefaultAuthorizer(domain: Domain): boolean
  /** What a principal may do over HTTPS, where there is no client id. */
  permitFor(connection: SecuredConnection, who: Authenticated): Permit
  publishLimits(domain: Domain): PublishLimits
  /** Where the publishes of a domain go. */
  publisher(domain: Domain): Publisher
  /** Whether another session of the domain has a place; absent: always. @throws {ProxyError} why it has none */
  room?(domain: Domain): void
  websocket(request: IncomingMessage, socket: Duplex, head: Buffer): WebSocketUpgrade
  readonly serveMqtt: MqttHandler['serveArrival']
  routes(domain: Domain): readonly Route[]
  httpBackend(name: string): HttpBackend
  readonly forwarder: Forwarder
  /** Told of every request once its answer is known, for metrics and the log. */
  answered(connection: SecuredConnection, answered: Answered): void
}
