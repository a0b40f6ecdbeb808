import { constants, X509Certificate } from 'node:crypto'
import type { SecureContextOptions } from 'node:tls'
import {
  ADMISSIONS,
  type Admission,
  type ApplicationProtocol,
  type AuthenticationType,
  type EndpointType,
  explicitAdmissions,
} from './admission.ts'
import { contextOptions, type TlsRuntime } from './policies.ts'
import { TICKET_FACTS } from './tickets.ts'

// What the settings say of a domain, and what that means for its ways in and its TLS contexts.

export type TrustMode = 'registry' | 'ca' | 'registry-or-ca' | 'registry-and-ca'

export interface CertificateOptions {
  /** Leaf first, then what leads to the root. */
  readonly certPem: string
  readonly keyPem: string
  /** Only for messages. */
  readonly certFile: string
  readonly keyFile: string
}

export interface DomainOptions {
  readonly serverNames: readonly string[]
  readonly enabled: boolean
  /** One, or one RSA and one ECDSA. */
  readonly certificates: readonly CertificateOptions[]
  readonly tlsPolicy: string
  readonly authenticationType: AuthenticationType
  readonly applicationProtocol: ApplicationProtocol
  readonly endpointType: EndpointType
  readonly trustMode: TrustMode
  /** PEM files' contents, each with one or more certificates; used in the CA modes only. */
  readonly caPems: readonly string[]
  readonly handshakeTimeoutMs: number
  readonly backend: string
  readonly registry: string | null
  /** Null: every handshake is a full one. */
  readonly sessionTickets: { readonly lifetimeMs: number } | null
  /** Whether more of a device's chain is looked at than its own certificate: by CAs, revocation lists or a callback. */
  readonly judgesChains: boolean
}

export interface DomainsOptions {
  readonly generation: number
  readonly domains: readonly DomainOptions[]
}

/** As server names are compared: lower case, without a dot at the end. */
export const normal = (serverName: string): string => serverName.toLowerCase().replace(/\.$/, '')

/** The certificates of a PEM text, in their order. Throws on one that cannot be read. */
export function certificatesOf(pem: string): X509Certificate[] {
  const blocks = pem.match(/-----BEGIN (?:TRUSTED )?CERTIFICATE-----[^-]*-----END (?:TRUSTED )?CERTIFICATE-----/g) ?? []
  return blocks.map((block) => new X509Certificate(block))
}

export const trustsCa = (options: DomainOptions): boolean => options.trustMode !== 'registry'

export function rowsOf({ authenticationType, applicationProtocol }: DomainOptions): readonly Admission[] {
  return authenticationType === 'DEFAULT' ? ADMISSIONS : explicitAdmissions(authenticationType, applicationProtocol)
}

/** A resumed device is judged as one that came anew; so the library must give back all that is looked at. */
export function mayResume(options: DomainOptions, wantsCertificate: boolean, runtime: TlsRuntime): boolean {
  return !wantsCertificate || !options.judgesChains || TICKET_FACTS[runtime].keepsChain
}

/**
 * No compression; the server's order of suites counts; a client may not renegotiate. BoringSSL has no compression and no
 * renegotiation for servers at all, and its constants are 0.
 */
const SECURE_OPTIONS =
  constants.SSL_OP_NO_RENEGOTIATION | constants.SSL_OP_NO_COMPRESSION | constants.SSL_OP_CIPHER_SERVER_PREFERENCE

/**
 * On OpenSSL, NO_TICKET in TLS 1.3 still sends two messages named NewSessionTicket that hold only a session id, and
 * Node gives no way to send none. Nothing redeems them: Node keeps no server-side sessions unless asked to.
 */
const WITHOUT_TICKETS = SECURE_OPTIONS | constants.SSL_OP_NO_TICKET

/** What sessions of a context are sealed with, and how long they last. */
export interface Sealing {
  readonly keys: Buffer
  readonly lifetimeMs: number
}

export function secureContextOptions(
  options: DomainOptions,
  idContext: string,
  wantsCertificate: boolean,
  runtime: TlsRuntime,
  sealing: Sealing | null,
): SecureContextOptions {
  const policy = contextOptions(options.tlsPolicy, runtime)
  if (policy.kind === 'refused') throw new Error(policy.detail)
  return {
    cert: options.certificates.map((certificate) => certificate.certPem),
    key: options.certificates.map((certificate) => certificate.keyPem),
    // An empty list and not `undefined`, which would load the default roots: 140 CAs whose devices nobody meant.
    ca: wantsCertificate && trustsCa(options) ? [...options.caPems] : [],
    // A listed intermediate is trusted for what it is; its root need not be listed too.
    allowPartialTrustChain: true,
    minVersion: policy.minVersion,
    maxVersion: policy.maxVersion,
    ...(policy.ciphers === null ? {} : { ciphers: policy.ciphers }),
    ...(policy.dhe ? { dhparam: 'auto' } : {}),
    honorCipherOrder: true,
    secureOptions: sealing === null ? WITHOUT_TICKETS : SECURE_OPTIONS,
    sessionIdContext: idContext,
    ...(sealing === null
      ? {}
      : { ticketKeys: sealing.keys, sessionTimeout: Math.max(1, Math.floor(sealing.lifetimeMs / 1_000)) }),
  }
}
