import type { PeerCertificate, SecuredConnection } from '../connection.ts'
import type { FailureCode } from '../errors.ts'
import type { Permit } from '../policy/permit.ts'

/** How an identity was proved; `backend` leaves the judgement to the broker. */
export type AuthMethod = 'x509' | 'sigv4' | 'custom' | 'custom-x509' | 'backend'

/** The proof a device presents; `kind` is the admission's `auth`. */
export type Credentials =
  | { readonly kind: 'x509'; readonly peer: PeerCertificate | null }
  | { readonly kind: 'backend' }

export interface Principal {
  /** Safe to log: certificate SHA-256 fingerprint (64 lower-case hex digits), or the domain for `backend`. */
  readonly id: string
  readonly method: AuthMethod
  /** Values that templates and policy variables may read. */
  readonly attributes: Readonly<Record<string, string>>
}

export type AuthOutcome =
  | { readonly kind: 'authenticated'; readonly principal: Principal; readonly permit: Permit }
  | { readonly kind: 'denied'; readonly code: FailureCode; readonly detail: string }

/** Decides who a device is. A denial is an answer; only a fault is thrown. */
export interface Authenticator<C extends Credentials = Credentials> {
  readonly method: C['kind']
  /** @throws {ProxyError} ERR_IDENTITY_FAULT when no answer could be had. */
  authenticate(credentials: C, connection: SecuredConnection, signal: AbortSignal): Promise<AuthOutcome>
}
