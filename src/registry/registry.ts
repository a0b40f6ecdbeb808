import type { X509Certificate } from 'node:crypto'
import { type Grants, NO_GRANTS } from '../policy/permit.ts'
import type { RegisteredCa } from './cas.ts'
import { factsOf } from './certificate-facts.ts'
import { CertificateIndex } from './certificate-index.ts'
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
  /** Set where the program registered it at its first connection. */
  readonly registration?: Registration | undefined
}

export interface Registration {
  /** Id of the CA that signed it: SHA-256 of its DER. */
  readonly ca: string
  /** Milliseconds since 1970. */
  readonly at: number
}

export type Recognition =
  /** This very certificate, octet by octet. */
  | { readonly kind: 'registered'; readonly entry: CertificateEntry }
  /**
   * Not this certificate, but the same signed part (`contents`) or only the same issuer and serial number (`number`): an
   * ECDSA signature (r, s) can be changed to (r, n − s) by anybody. Its entry may refuse it and never admits it.
   */
  | { readonly kind: 'twin'; readonly entry: CertificateEntry; readonly same: 'contents' | 'number' }
  /** Not DER as certificates are, so that a twin could not be told from a stranger. */
  | { readonly kind: 'unreadable' }
  | { readonly kind: 'unknown' }

/** What is known of devices: one generation of it; a change makes another. */
export interface Registry {
  /** Number of certificates. */
  readonly size: number
  find(certificate: X509Certificate): Recognition
  /** Every certificate once, with the status that counts; for lists that people read. */
  entries(): Iterable<CertificateEntry>
  /** The ACTIVE CA whose key signed this certificate; null when none did, or it is past its own dates. */
  issuerOf(certificate: X509Certificate): RegisteredCa | null
  /** The policies of these names together. No name, no permission; one that is not known, and nothing is granted. */
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

export type RegistryParts = Partial<Omit<Registry, 'size' | 'find' | 'entries'>>

/**
 * @param learned what the program learnt by itself; for status the stricter of both counts
 * @throws {RangeError} for two entries of one fingerprint: `files.ts` says which, before it comes to this
 */
export function createRegistry(
  entries: Iterable<CertificateEntry> | CertificateIndex,
  rest: RegistryParts = {},
  learned: CertificateIndex = new CertificateIndex(),
): Registry {
  const written = entries instanceof CertificateIndex ? entries : indexOf(entries)

  const counting = (fingerprint: string) => combined(written.get(fingerprint), learned.get(fingerprint))
  const strictest = (...lists: readonly (readonly string[])[]): CertificateEntry | undefined => {
    let found: CertificateEntry | undefined
    for (const list of lists) {
      for (const fingerprint of list) {
        const entry = counting(fingerprint)
        if (entry !== undefined) found = found === undefined ? entry : stricter(found, entry)
      }
    }
    return found
  }

  return {
    get size() {
      let size = written.size
      for (const { fingerprint } of learned.entries()) {
        if (written.get(fingerprint) === undefined && counting(fingerprint) !== undefined) size++
      }
      return size
    },
    *entries() {
      for (const { fingerprint } of written.entries()) yield counting(fingerprint)!
      for (const { fingerprint } of learned.entries()) {
        const entry = written.get(fingerprint) === undefined ? counting(fingerprint) : undefined
        if (entry !== undefined) yield entry
      }
    },
    issuerOf: rest.issuerOf ?? (() => null),
    grants: rest.grants ?? (() => NO_GRANTS),
    things: rest.things ?? (() => NO_THINGS),
    accessKey: rest.accessKey ?? (() => null),
    authorizer: rest.authorizer ?? (() => null),
    find(certificate) {
      const { fingerprint, twin } = factsOf(certificate).keys
      const entry = counting(fingerprint)
      if (twin === null) return entry === undefined ? { kind: 'unreadable' } : { kind: 'registered', entry }
      const signed = strictest(written.withContents(twin.contents), learned.withContents(twin.contents))
      if (entry !== undefined) {
        // Somebody may have registered the twin as well; a status taken from one is taken from both.
        return { kind: 'registered', entry: signed === undefined ? entry : stricter(entry, signed) }
      }
      // (issuer, serial) only here: self-signed devices may share both, and each is registered by its own fingerprint.
      const numbered = strictest(written.withNumber(twin.number), learned.withNumber(twin.number))
      if (signed !== undefined) {
        const strict = numbered === undefined ? signed : stricter(signed, numbered)
        return { kind: 'twin', entry: strict, same: 'contents' }
      }
      return numbered === undefined ? { kind: 'unknown' } : { kind: 'twin', entry: numbered, same: 'number' }
    },
  }
}

/** @throws {RangeError} for two entries of one fingerprint */
export function indexOf(entries: Iterable<CertificateEntry>): CertificateIndex {
  const index = new CertificateIndex()
  for (const entry of entries) {
    if (index.get(entry.fingerprint) !== undefined) throw new RangeError(`${entry.fingerprint} is registered twice`)
    index.set(entry)
  }
  return index
}

/**
 * What the operator wrote and what the program learnt of one certificate. That a device waits to be activated says only
 * that nobody had written of it: once somebody has, that counts.
 */
function combined(
  written: CertificateEntry | undefined,
  learned: CertificateEntry | undefined,
): CertificateEntry | undefined {
  if (learned === undefined) return written
  if (written === undefined) {
    // Never registered here, only switched off and on again: as unknown as before.
    return learned.status === 'ACTIVE' && learned.registration === undefined ? undefined : learned
  }
  if (learned.status === 'PENDING_ACTIVATION' || STRICTNESS[learned.status] <= STRICTNESS[written.status])
    return written
  return { ...written, status: learned.status }
}

function stricter(a: CertificateEntry, b: CertificateEntry): CertificateEntry {
  return STRICTNESS[b.status] > STRICTNESS[a.status] ? b : a
}
