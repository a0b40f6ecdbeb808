import type { Authenticated, HttpProof } from '../auth/authenticator.ts'
import type { Identify } from '../auth/identify.ts'
import type { Backend } from '../backend/backend.ts'
import type { Members } from '../collections/ring.ts'
import type { ProtocolHandler, SecuredConnection, Serving, Trace } from '../connection.ts'
import type { Metrics } from '../control/metrics.ts'
import type { ByteStream } from '../relay.ts'
import type { Store } from '../store/store.ts'
import type { Domain } from '../tls/domains.ts'
import type { DomainRules } from './domain-rules.ts'
import type { GateClock } from './gate.ts'
import type { KeepAliveWheel } from './keep-alive.ts'
import type { Lifetimes } from './lifetimes.ts'
import type { Tell } from './presence.ts'
import type { Seats } from './seats.ts'
import type { DeniedAction, LiveSession, Parting, SessionTimes } from './session-contract.ts'
import type { Shield } from './shield.ts'

// What serves MQTT to the rest of the program, and what it is made of.

export interface SessionLimits extends SessionTimes {
  /** For the whole CONNECT, from the end of the handshake. */
  readonly connectTimeoutMs: number
  /** Largest CONNECT, in bytes. */
  readonly connectBytes: number
}

export interface SessionParts {
  readonly metrics: Metrics
  readonly wheel: KeepAliveWheel
  readonly lifetimes: Lifetimes
  readonly store: Store
  readonly identify: Identify
  /** How many sessions there may be; absent: as many as come. */
  readonly seats?: Seats
  /** Of the rates; the system's unless given. */
  readonly clock?: GateClock
  limitsFor(domain: Domain): SessionLimits
  rulesFor(domain: Domain): DomainRules
  /**
   * What is said by now about the sessions of a connection that may have been let in by earlier settings; null: its domain
   * is gone, or has no longer the way in that it took.
   */
  rulesInForce(connection: SecuredConnection): DomainRules | null
  backendFor(domain: Domain): Backend
  /** Of backends whose sessions outlive them; absent, none do. */
  readonly shieldFor?: (backend: Backend) => Shield | null
  /** Told of what policies deny, per packet: whoever logs it bounds it. */
  denied(told: DeniedAction): void
  /** Of what happens to devices; null: nobody wants to know. */
  tellFor(domain: Domain): Tell | null
}

/** MQTT that comes over another protocol of the same connection: the frames of a WebSocket, as bytes. */
export interface Arrival {
  readonly stream: ByteStream
  /** The request that upgraded; an authorizer sees it beside CONNECT. */
  readonly http: HttpProof | null
  /** Who was proved by the upgrade; null: CONNECT has to. */
  readonly who: Authenticated | null
}

export interface MqttHandler extends ProtocolHandler {
  readonly live: Members<LiveSession>
  /** As `serve`, over the arrival's stream. The first admission of the connection is the one that counts. */
  serveArrival(connection: SecuredConnection, arrival: Arrival, trace: Trace, signal: AbortSignal): Promise<Serving>
  /** Registry or settings have changed: every live session is judged once more, a slice a turn, so that none waits for it. */
  rejudge(): Promise<void>
  /** From now on whoever sends CONNECT is sent away instead. */
  turnAway(parting: Pick<Parting, 'code' | 'serverReference'>): void
}
