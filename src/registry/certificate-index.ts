import { createHash, hash } from 'node:crypto'
import { type CertificateParts, certificateParts } from './der.ts'
import type { CertificateEntry } from './registry.ts'

/** The octets by which a certificate is looked up; `contents` and `number` only where it is DER as certificates are. */
export interface CertificateKeys {
  /** SHA-256 of the DER, 64 lower-case hex digits. */
  readonly fingerprint: string
  readonly twin: {
    /** SHA-256 of tbsCertificate: the same in every malleated copy. */
    readonly contents: string
    /** SHA-256 of issuer and serial number. */
    readonly number: string
  } | null
}

export function keysOf(der: Uint8Array): CertificateKeys {
  const parts = certificateParts(der)
  return { fingerprint: sha256(der), twin: parts === null ? null : twinKeys(parts) }
}

function twinKeys(parts: CertificateParts) {
  return {
    contents: sha256(parts.tbs),
    // The issuer is one DER element and says its own length, so the two cannot run into each other.
    number: createHash('sha256').update(parts.issuer).update(parts.serial).digest('hex'),
  }
}

export function sha256(bytes: Uint8Array): string {
  return hash('sha256', bytes, 'hex')
}

const NONE: readonly string[] = []

/** Entries by fingerprint; and by contents and by issuer and serial number the fingerprints that have them. */
export class CertificateIndex {
  readonly #entries = new Map<string, CertificateEntry>()
  readonly #byContents = new Map<string, readonly string[]>()
  readonly #byNumber = new Map<string, readonly string[]>()

  get size(): number {
    return this.#entries.size
  }

  get(fingerprint: string): CertificateEntry | undefined {
    return this.#entries.get(fingerprint)
  }

  entries(): IterableIterator<CertificateEntry> {
    return this.#entries.values()
  }

  /** Fingerprints of entries with the same signed part. */
  withContents(contents: string): readonly string[] {
    return this.#byContents.get(contents) ?? NONE
  }

  /** Fingerprints of entries with the same issuer and serial number. */
  withNumber(number: string): readonly string[] {
    return this.#byNumber.get(number) ?? NONE
  }

  /** Adds an entry, or puts it in the place of the one with its fingerprint. */
  set(entry: CertificateEntry): void {
    const known = this.#entries.get(entry.fingerprint)
    this.#entries.set(entry.fingerprint, entry)
    if (entry.der === null || (known !== undefined && known.der !== null)) return
    const parts = certificateParts(entry.der)
    if (parts === null) return
    const { contents, number } = twinKeys(parts)
    this.#byContents.set(contents, [...this.withContents(contents), entry.fingerprint])
    this.#byNumber.set(number, [...this.withNumber(number), entry.fingerprint])
  }
}
