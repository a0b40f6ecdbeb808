import type { PeerCertificate, SecuredConnection } from '../connection.ts'
import type { FailureCode } from '../errors.ts'
import type { Grants, Variables } from '../policy/permit.ts'
import type { Things } from '../registry/entries.ts'

/** How an identity was proved; `backend` leaves the judgement to the broker. */
export type AuthMethod = 'x509' | 'sigv4' | 'custom' | 'custom-x509' | 'backend'

/** An HTTP request as it came: what was signed, and where parameters of an authorizer may stand. */
export interface HttpProof {
  readonly method: string
  /** Request target exactly as on the wire, query included. */
  readonly target: string
  /** Name, value, name, value … in the order and spelling of the wire. */
  readonly rawHeaders: readonly string[]
  /** Whole body of a signed HTTPS request; null where it is not read yet, and on a WebSocket upgrade. */
  readonly body: Uint8Array | null
}

/** The fields of CONNECT that can prove something. */
export interface MqttProof {
  readonly clientId: string
  readonly username: string | null
  readonly password: Uint8Array | null
}

/** The proof a device presents; `kind` is the admission's `auth`. */
export type Credentials =
  | { readonly kind: 'x509'; readonly peer: PeerCertificate | null }
  | { readonly kind: 'backend' }
  | { readonly kind: 'sigv4'; readonly http: HttpProof }
  /** `http` alone at an upgrade or an HTTPS request, `mqtt` alone on plain MQTT, both when CONNECT came over WSS. */
  | { readonly kind: 'custom'; readonly http: HttpProof | null; readonly mqtt: MqttProof | null }
  | {
      readonly kind: 'custom-x509'
      readonly peer: PeerCertificate | null
      readonly http: HttpProof | null
      readonly mqtt: MqttProof | null
    }

export interface Principal {
  /**
   * Safe to log: certificate SHA-256 fingerprint (64 lower-case hex digits), access key id, an authorizer's
   * principalId, or the domain for `backend`.
   */
  readonly id: string
  readonly method: AuthMethod
  /** Values that templates of `identity` may read. */
  readonly attributes: Readonly<Record<string, string>>
}

export interface Authenticated {
  readonly kind: 'authenticated'
  readonly principal: Principal
  readonly grants: Grants
  /** Policy variables of the principal itself: certificate fields and the like. */
  readonly variables: Variables
  /** The things attached to the principal; empty without a registry. */
  readonly things: Things
  /** From now on the monotonic clock; null: as long as it likes. */
  readonly disconnectAfterMs: number | null
  /** From now; null: `refresh` is never due. */
  readonly refreshAfterMs: number | null
  /** Asks again, as at the beginning; anything but `authenticated` ends the connection. */
  refresh(signal: AbortSignal): Promise<AuthOutcome>
  /** Judges once more by what the registry says now, calling nobody and waiting for nothing. */
  rejudge(): AuthOutcome
}

export type AuthOutcome =
  | Authenticated
  | { readonly kind: 'denied'; readonly code: FailureCode; readonly detail: string }

/** Of a live connection, by a reload: nothing says any more who may come this way. */
export const GONE: AuthOutcome & { readonly kind: 'denied' } = {
  kind: 'denied',
  code: 'ERR_AUTHORIZATION_ENDED',
  detail: 'the settings have no such domain, or it has no such way in any more',
}

/** Decides who a device is. A denial is an answer; only a fault is thrown. */
export interface Authenticator<C extends Credentials = Credentials> {
  readonly method: C['kind']
  /** @throws {ProxyError} ERR_IDENTITY_FAULT or ERR_AUTHORIZER_UNAVAILABLE when no answer could be had. */
  authenticate(credentials: C, connection: SecuredConnection, signal: AbortSignal): Promise<AuthOutcome>
}
