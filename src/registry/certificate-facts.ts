import type { X509Certificate } from 'node:crypto'
import { LRUCache } from 'lru-cache'
import { type CertificateKeys, keysOf } from './certificate-index.ts'
import { subjectField } from './subject.ts'

/** What a certificate says of itself, whoever believes it. */
export interface CertificateFacts {
  readonly keys: CertificateKeys
  /** Milliseconds since 1970; NaN where the library cannot tell. */
  readonly validFrom: number
  readonly validTo: number
  /** Null when there is none, or more than one; see `subjectField`. */
  readonly commonName: string | null
  /** OIDs of the extended key usage; null: it is absent, and all are allowed. */
  readonly purposes: readonly string[] | null
  /** Null: of a kind that the library does not know. */
  readonly key: KeyFacts | null
}

export interface KeyFacts {
  /** `rsa`, `rsa-pss`, `ec`, … */
  readonly kind: string | undefined
  /** RSA, else 0. */
  readonly bits: number
  /** RSA, else 0. */
  readonly exponent: bigint
  /** As OpenSSL names it; empty where it has no name. */
  readonly curve: string
}

/** Certificates whose facts are kept, some kilobyte each: those who come back do so within days. */
const MAX_KNOWN = 8_192
/** By SHA-256 of the whole certificate. None of it can change, and to ask the library costs a tenth of a handshake. */
const known = new LRUCache<string, CertificateFacts>({ max: MAX_KNOWN })

export function factsOf(certificate: X509Certificate): CertificateFacts {
  const fingerprint = certificate.fingerprint256
  const before = known.get(fingerprint)
  if (before !== undefined) return before
  // Node calls the extended key usage `keyUsage`.
  const purposes = certificate.keyUsage as readonly string[] | undefined
  const facts: CertificateFacts = {
    keys: keysOf(certificate.raw),
    validFrom: certificate.validFromDate.getTime(),
    validTo: certificate.validToDate.getTime(),
    commonName: subjectField(certificate, 'CN'),
    purposes: purposes ?? null,
    key: keyOf(certificate),
  }
  known.set(fingerprint, facts)
  return facts
}

function keyOf(certificate: X509Certificate): KeyFacts | null {
  let key: X509Certificate['publicKey']
  try {
    key = certificate.publicKey
  } catch {
    return null
  }
  const { modulusLength = 0, publicExponent = 0n, namedCurve = '' } = key.asymmetricKeyDetails ?? {}
  return { kind: key.asymmetricKeyType, bits: modulusLength, exponent: publicExponent, curve: namedCurve }
}
