import { createHash, type X509Certificate } from 'node:crypto'
import { type Grants, OPEN_GRANTS } from '../policy/permit.ts'
import { type CertificateParts, certificateParts } from './der.ts'
import { type AccessKey, type AuthorizerEntry, NO_THINGS, type Things } from './entries.ts'

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
  /** Names of policies; none means no permission. */
  readonly policies: readonly string[]
  /** Names of things it is attached to; with `exclusive` exactly one. */
  readonly things: readonly string[]
  readonly exclusive: boolean
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

/** What is known of devices: one generation of it; a change makes another. */
export interface Registry {
  /** Number of certificates. */
  readonly size: number
  find(certificate: X509Certificate): Recognition
  /** The policies of these names together. No name, no permission; a name that is not known grants nothing. */
  grants(policies: readonly string[]): Grants
  things(names: readonly string[], exclusive: boolean): Things
  accessKey(id: string): AccessKey | null
  authorizer(name: string): AuthorizerEntry | null
}

/** The registry in force; stays the same object while its contents change. */
export interface LiveRegistry {
  readonly current: Registry
  /** Told after each change that took effect. Returns what ends the telling. */
  onChange(listener: () => void): () => void
  close(): void
}

/** @throws {RangeError} for two entries of one fingerprint: `files.ts` says which, before it comes to this */
export function createRegistry(
  entries: Iterable<CertificateEntry>,
  rest: Partial<Pick<Registry, 'grants' | 'things' | 'accessKey' | 'authorizer'>> = {},
): Registry {
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
    grants: rest.grants ?? (() => OPEN_GRANTS),
    things: rest.things ?? (() => NO_THINGS),
    accessKey: rest.accessKey ?? (() => null),
    authorizer: rest.authorizer ?? (() => null),
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
