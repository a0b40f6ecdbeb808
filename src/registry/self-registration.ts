import type { X509Certificate } from 'node:crypto'
import { type FailureCode, ProxyError } from '../errors.ts'
import type { RegisteredCa } from './cas.ts'
import { sha256 } from './certificate-index.ts'
import type { RegisteredRecord } from './overlay.ts'
import type { CertificateEntry } from './registry.ts'
import type { Provision } from './template.ts'

// Devices that register themselves at their first connection: wire specification §2.4.

/** What goes to `$aws/events/certificates/registered/<caCertificateId>`. */
export interface RegisteredEvent {
  readonly certificateId: string
  readonly caCertificateId: string
  /** Of this message, in ms since 1970. */
  readonly timestamp: number
  readonly certificateStatus: 'PENDING_ACTIVATION'
  readonly awsAccountId: string
  /** In ms since 1970, as a text. */
  readonly certificateRegistrationTimestamp: string
}

export type RegisterAnswer =
  /** It stands on the disk. */
  | 'written'
  /** It, or a certificate that could be taken for it, was there before. */
  | 'known'
  /** As many as this CA may bring in a minute were there before it. */
  | 'capped'

/** The one that may write: the process itself, or the primary behind a link. */
export interface Registrar {
  /** @throws when it could not be written; then nothing is registered */
  register(registry: string, record: RegisteredRecord, maxPerMinute: number): Promise<RegisterAnswer>
}

/** How a first connection ended, as `provisions_total` counts it. */
export type ProvisionResult = 'pending' | 'success' | 'client_error' | 'server_error' | 'throttled'

export interface SelfRegistrationOptions {
  /** As the settings name it. */
  readonly registry: string
  readonly registrar: Registrar
  readonly accountId: string
  readonly counted: (result: ProvisionResult) => void
  /** Told at every attempt of a device that waits to be activated. */
  readonly registered: (event: RegisteredEvent) => void
  readonly now?: () => number
}

/** Why the connection ends all the same. */
export interface NotYet {
  readonly code: FailureCode
  readonly detail: string
}

export interface SelfRegistration {
  /**
   * Of a certificate that nobody knows and that this CA signed. Nobody is admitted by it: a device that was registered
   * just now is, as at AWS IoT Core, when it comes again.
   *
   * @throws {ProxyError} ERR_IDENTITY_FAULT when it could not be written down
   */
  attempt(certificate: X509Certificate, ca: RegisteredCa): Promise<NotYet>
  /** A device that waits to be activated came again. */
  waits(entry: CertificateEntry): void
}

const PENDING: Provision = {
  thing: null,
  exclusive: false,
  status: 'ACTIVE',
  policies: [],
  documents: new Map(),
}

export function selfRegistration(options: SelfRegistrationOptions): SelfRegistration {
  const now = options.now ?? Date.now

  function tell(certificateId: string, ca: string, registeredAt: number): void {
    options.registered({
      certificateId,
      caCertificateId: ca,
      timestamp: now(),
      certificateStatus: 'PENDING_ACTIVATION',
      awsAccountId: options.accountId,
      certificateRegistrationTimestamp: String(registeredAt),
    })
  }

  async function write(
    certificate: X509Certificate,
    fingerprint: string,
    ca: RegisteredCa,
    made: Provision,
    status: RegisteredRecord['status'],
  ): Promise<RegisterAnswer> {
    const record: RegisteredRecord = {
      kind: 'registered',
      at: now(),
      fingerprint,
      der: certificate.raw.toString('base64'),
      ca: ca.id,
      status,
      policies: [...made.policies],
      thing: made.thing === null ? null : { ...made.thing, attributes: { ...made.thing.attributes } },
      exclusive: made.exclusive,
      documents: Object.fromEntries(made.documents),
    }
    try {
      return await options.registrar.register(options.registry, record, ca.maxPerMinute)
    } catch (error) {
      options.counted('server_error')
      throw new ProxyError('ERR_IDENTITY_FAULT', 'the device could not be registered', { cause: error })
    }
  }

  function capped(): NotYet {
    options.counted('throttled')
    return { code: 'ERR_CERTIFICATE_NOT_REGISTERED', detail: 'its CA brings more new devices than maxPerMinute allows' }
  }

  async function provision(certificate: X509Certificate, fingerprint: string, ca: RegisteredCa): Promise<NotYet> {
    if (ca.autoRegister.kind !== 'template') throw new TypeError('a CA without a template')
    const filled = ca.autoRegister.template.fill(certificate, fingerprint)
    if (filled.kind === 'failed') {
      options.counted('client_error')
      return { code: 'ERR_CERTIFICATE_NOT_REGISTERED', detail: `the template does not fit: ${filled.reason}` }
    }
    const answer = await write(certificate, fingerprint, ca, filled.provision, filled.provision.status)
    if (answer === 'capped') return capped()
    if (answer === 'written') options.counted('success')
    return {
      code: 'ERR_CERTIFICATE_INACTIVE',
      detail: 'registered just now from the template of its CA; it is looked up when it connects again',
    }
  }

  return {
    async attempt(certificate, ca) {
      const fingerprint = sha256(certificate.raw)
      if (ca.autoRegister.kind === 'no') throw new TypeError('a CA that registers nobody')
      if (ca.autoRegister.kind === 'template') return provision(certificate, fingerprint, ca)
      const answer = await write(certificate, fingerprint, ca, PENDING, 'PENDING_ACTIVATION')
      if (answer === 'capped') return capped()
      if (answer === 'written') options.counted('pending')
      tell(fingerprint, ca.id, now())
      return { code: 'ERR_CERTIFICATE_INACTIVE', detail: 'registered just now; it waits to be activated' }
    },
    waits({ fingerprint, registration }) {
      if (registration !== undefined) tell(fingerprint, registration.ca, registration.at)
    },
  }
}
