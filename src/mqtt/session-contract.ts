import type { Authenticated } from '../auth/authenticator.ts'
import type { AuthorizedConnection, SecuredConnection, Trace } from '../connection.ts'
import type { Metrics } from '../control/metrics.ts'
import type { FailureCode } from '../errors.ts'
import type { Permit } from '../policy/permit.ts'
import type { ByteStream } from '../relay.ts'
import type { Asked } from './authorize.ts'
import type { ClientIds } from './client-id.ts'
import type { GateClock } from './gate.ts'
import type { Terms } from './in-force.ts'
import type { KeepAliveWheel } from './keep-alive.ts'
import type { Lifetimes } from './lifetimes.ts'
import type { Session } from './live-session.ts'
import type { Tell } from './presence.ts'
import type { Hold } from './takeover.ts'

// What a live session is to those around it, and what it has from them; nothing that runs.

/** A live session, for those who look at it or must end it from outside. */
export interface LiveSession {
  /** As the device and its policies know it. */
  readonly clientId: string
  readonly principal: string
  readonly domain: string
  /** Milliseconds since 1970. */
  readonly connectedAt: number
  /** The same for as long as the session lives; unique within the fleet of processes. */
  readonly id: string
  /** Its broker is away, and it waits for it. */
  readonly held?: boolean
  readonly backend: string
  /** The server of the backend, as `Upstream.peer` has it. */
  readonly upstream: string
  /** Since the device was last heard, in seconds or so. */
  readonly silence: number
  /** Answers of the broker under way to publishes of the device. */
  readonly owed: number
  /** It has ended, or is about to. */
  readonly gone: boolean
  close(code: FailureCode): void
  /** As `close`, once the broker has answered for what the device has said, and between packets of either side. */
  leave(parting: Parting): void
  /** Judges once more by what registry and settings say now. */
  rejudge(): void
}

/** How somebody is sent away who did nothing wrong. */
export interface Parting {
  readonly code: FailureCode
  /** Where to go instead, for those who can be told (MQTT 5.0 §4.11); null: the same address again. */
  readonly serverReference: string | null
  /** How long what is under way may take, in milliseconds. */
  readonly patienceMs: number
}

export interface SessionTimes {
  /** For the broker's CONNACK, from the moment it has CONNECT. */
  readonly connackTimeoutMs: number
  readonly halfCloseMs: number
}

/** A policy said no to something. */
export interface DeniedAction {
  readonly connection: Pick<SecuredConnection, 'id'>
  readonly trace: Pick<Trace, 'serverName' | 'principal' | 'clientId'>
  /** Of MQTT, or one that a route asks for. */
  readonly action: string
  readonly resource: string
  readonly code: FailureCode
  /** It was let pass, because the domain only reports. */
  readonly reported: boolean
}

export interface LiveSessionOptions {
  readonly limits: SessionTimes
  readonly connection: AuthorizedConnection
  readonly device: ByteStream
  readonly trace: Trace
  readonly asked: Asked
  readonly terms: Terms
  readonly hold: Hold
  /** Null: nobody wants to know. */
  readonly tell: Tell | null
}

/** What all sessions share that are served by the same one. */
export interface SessionHouse {
  readonly metrics: Metrics
  readonly wheel: KeepAliveWheel
  readonly lifetimes: Lifetimes
  readonly clock: GateClock
  /** Whether policies only report, by the settings of now. */
  reportOnly(connection: SecuredConnection): boolean
  /** The permit that goes with an identity that still holds, by the settings of now, or why there is none. */
  judge(connection: SecuredConnection, asked: Asked, ids: ClientIds, who: Authenticated): Permit | FailureCode
  denied(told: DeniedAction): void
  /** Both sides of it are closed. */
  left(session: Session): void
}
