import { createHash, type X509Certificate } from 'node:crypto'
import { type CertificateParts, certificateParts } from './der.ts'

export type CertificateStatus = 'ACTIVE' | 'INACTIVE' | 'REVOKED' | 'PENDING_ACTIVATION'

/** Where two entries mean the same certificate, the stricter counts. */
const STRICTNESS: Readonly<Record<CertificateStatus, number>> = {
  ACTIVE: 0,
  PENDING_ACTIVATION: 1,
  INACTIVE: 2,
  REVOKED: 3,
}

export interface CertificateEntry {
  /** SHA-256 of the DER, 64 lower-case hex digits. */
  readonly fingerprint: string
  readonly status: CertificateStatus
  /** Null when only the fingerprint is known: then its twins cannot be told. */
  readonly der: Uint8Array | null
}

export type Recognition =
  /** This very certificate, octet by octet. */
  | { readonly kind: 'registered'; readonly entry: CertificateEntry }
  /**
   * Not this certificate, but the same signed part or the same issuer and serial number: an ECDSA signature (r, s) can be
   * changed to (r, n − s) by anybody. Its entry may refuse it and never admits it.
   */
  | { readonly kind: 'twin'; readonly entry: CertificateEntry }
  /** Not DER as certificates are, so that a twin could not be told from a stranger. */
  | { readonly kind: 'unreadable' }
  | { readonly kind: 'unknown' }

/** What is known of certificates. */
export interface Registry {
  /** Number of entries. */
  readonly size: number
  find(certificate: X509Certificate): Recognition
}

/** @throws {RangeError} for two entries of one fingerprint: `files.ts` says which, before it comes to this */
export function createRegistry(entries: Iterable<CertificateEntry>): Registry {
  const byFingerprint = new Map<string, CertificateEntry>()
  const byTbs = new Map<string, CertificateEntry>()
  const bySerial = new Map<string, CertificateEntry>()
  for (const entry of entries) {
    if (byFingerprint.has(entry.fingerprint)) throw new RangeError(`${entry.fingerprint} is registered twice`)
    byFingerprint.set(entry.fingerprint, entry)
    const parts = entry.der === null ? null : certificateParts(entry.der)
    if (parts === null) continue
    keepStricter(byTbs, tbsKey(parts), entry)
    keepStricter(bySerial, serialKey(parts), entry)
  }

  return {
    size: byFingerprint.size,
    find(certificate) {
      const parts = certificateParts(certificate.raw)
      const entry = byFingerprint.get(sha256(certificate.raw))
      if (parts === null) return entry === undefined ? { kind: 'unreadable' } : { kind: 'registered', entry }
      const signed = byTbs.get(tbsKey(parts))
      if (entry !== undefined) {
        // Somebody may have registered the twin as well; a status taken from one is taken from both.
        return { kind: 'registered', entry: signed === undefined ? entry : stricter(entry, signed) }
      }
      // (issuer, serial) only here: self-signed devices may share both, and each is registered by its own fingerprint.
      const numbered = bySerial.get(serialKey(parts))
      if (signed !== undefined && numbered !== undefined) return { kind: 'twin', entry: stricter(signed, numbered) }
      const twin = signed ?? numbered
      return twin === undefined ? { kind: 'unknown' } : { kind: 'twin', entry: twin }
    },
  }
}

function keepStricter(index: Map<string, CertificateEntry>, key: string, entry: CertificateEntry): void {
  const other = index.get(key)
  index.set(key, other === undefined ? entry : stricter(other, entry))
}

function stricter(a: CertificateEntry, b: CertificateEntry): CertificateEntry {
  return STRICTNESS[b.status] > STRICTNESS[a.status] ? b : a
}

function tbsKey(parts: CertificateParts): string {
  return sha256(parts.tbs)
}

/** The issuer is one DER element and says its own length, so the two cannot run into each other. */
function serialKey(parts: CertificateParts): string {
  return createHash('sha256').update(parts.issuer).update(parts.serial).digest('hex')
}

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex')
}
