import { createHash } from 'node:crypto'
import { LRUCache } from 'lru-cache'
import type { AdmissionCounters } from '../control/admission-metrics.ts'
import { type FailureCode, ProxyError } from '../errors.ts'
import type { Place } from './places.ts'

/** Durations in milliseconds; 0 remembers nothing. */
export interface PenaltySettings {
  readonly certificates: number
  readonly addressAfter: number
  readonly addressWithin: number
  readonly addressPause: number
}

export interface PenaltyOptions {
  readonly settings: PenaltySettings
  readonly counters: AdmissionCounters
  /** Monotonic, in milliseconds. */
  readonly now?: () => number
  /** In [0, 1). */
  readonly random?: () => number
  /** Most certificates and most addresses that are remembered. */
  readonly max?: number
}

const MAX_REMEMBERED = 10_000

/**
 * Of a pausing address one in so many is let through all the same, or a good device behind the same address could be kept
 * out by a bad one for as long as that likes.
 */
const LET_THROUGH = 8

/**
 * What the same certificate would be told again a moment later, whatever else it says. Not among them is what a device
 * grows into (not yet valid), what registers it, and what is our own fault.
 */
const CERTIFICATE_CODES: ReadonlySet<FailureCode> = new Set<FailureCode>([
  'ERR_CERTIFICATE_REVOKED',
  'ERR_CERTIFICATE_EXPIRED',
  'ERR_CERTIFICATE_UNTRUSTED_CA',
  'ERR_CERTIFICATE_WEAK_KEY',
  'ERR_CERTIFICATE_CALLBACK',
])

/** Refusals that say that a stranger was here. */
const STRANGER_CODES: ReadonlySet<FailureCode> = new Set<FailureCode>([
  ...CERTIFICATE_CODES,
  'ERR_CERTIFICATE_ABSENT',
  'ERR_CERTIFICATE_NOT_REGISTERED',
  'ERR_CREDENTIALS_ABSENT',
  'ERR_CREDENTIALS_MALFORMED',
  'ERR_CREDENTIALS_REFUSED',
  'ERR_ACCESS_KEY_UNKNOWN',
  'ERR_SIGNATURE_MISMATCH',
  'ERR_SESSION_TOKEN_INVALID',
  'ERR_TOKEN_SIGNATURE',
])

interface Suspect {
  refusals: number
  since: number
  until: number
}

/**
 * Refusals that need not be worked out again. A certificate is refused at once for a few seconds; an address is closed
 * before any key work once `addressAfter` identities from it were refused within `addressWithin` and none was accepted: not
 * in between, and none that is still connected. One success clears the address, a change of the registry clears everything.
 */
export class Penalties {
  readonly #options: PenaltyOptions
  readonly #now: () => number
  readonly #random: () => number
  readonly #certificates: LRUCache<string, { readonly code: FailureCode; readonly until: number }>
  readonly #addresses: LRUCache<string, Suspect>
  #settings: PenaltySettings

  constructor(options: PenaltyOptions) {
    this.#options = options
    this.#settings = options.settings
    this.#now = options.now ?? (() => performance.now())
    this.#random = options.random ?? Math.random
    const { max = MAX_REMEMBERED } = options
    this.#certificates = new LRUCache({ max })
    this.#addresses = new LRUCache({ max })
  }

  /** @throws {ProxyError} what this certificate was told a moment ago */
  recall(domain: string, fingerprint: () => string): void {
    if (this.#certificates.size === 0) return
    const key = keyOf('certificate', domain, fingerprint())
    const known = this.#certificates.get(key)
    if (known === undefined) return
    if (this.#now() >= known.until) {
      this.#certificates.delete(key)
      return
    }
    this.#options.counters.refused.certificate_refused++
    throw new ProxyError(known.code, 'refused a moment ago')
  }

  remember(domain: string, fingerprint: string, code: FailureCode): void {
    const { certificates } = this.#settings
    if (certificates === 0 || !CERTIFICATE_CODES.has(code)) return
    const key = keyOf('certificate', domain, fingerprint)
    this.#certificates.set(key, { code, until: this.#now() + this.#jittered(certificates) })
  }

  /** @throws {ProxyError} ERR_ADDRESS_REFUSED */
  check(domain: string, place: Place): void {
    if (this.#addresses.size === 0 || place.proved > 0) return
    const suspect = this.#addresses.get(keyOf('address', domain, place.key))
    if (suspect === undefined || this.#now() >= suspect.until || this.#random() * LET_THROUGH < 1) return
    this.#options.counters.refused.address_refused++
    throw new ProxyError('ERR_ADDRESS_REFUSED', 'only refused identities came from this address')
  }

  /** A connection that got as far as TLS has ended with this. */
  refused(domain: string, place: Place, code: FailureCode): void {
    const { addressAfter, addressWithin, addressPause } = this.#settings
    if (addressPause === 0 || place.proved > 0 || !STRANGER_CODES.has(code)) return
    const key = keyOf('address', domain, place.key)
    const now = this.#now()
    let suspect = this.#addresses.get(key)
    if (suspect === undefined || now - suspect.since > addressWithin) {
      suspect = { refusals: 0, since: now, until: suspect?.until ?? 0 }
      this.#addresses.set(key, suspect)
    }
    suspect.refusals++
    if (suspect.refusals < addressAfter) return
    suspect.refusals = 0
    suspect.since = now
    suspect.until = now + this.#jittered(addressPause)
  }

  accepted(domain: string, place: Place): void {
    if (this.#addresses.size > 0) this.#addresses.delete(keyOf('address', domain, place.key))
  }

  /** Somebody may have been let in meanwhile. */
  clear(): void {
    this.#certificates.clear()
    this.#addresses.clear()
  }

  configure(settings: PenaltySettings): void {
    this.#settings = settings
    this.clear()
  }

  get size(): number {
    return this.#certificates.size + this.#addresses.size
  }

  /** So that those who were refused together do not come back together. */
  #jittered(ms: number): number {
    return ms * (1 + this.#random())
  }
}

/** Of a size that no client can choose; lengths in front, so that no two lists of fields are one text. */
function keyOf(...fields: readonly string[]): string {
  const hash = createHash('sha256')
  for (const field of fields) hash.update(`${Buffer.byteLength(field)}:${field}`)
  return hash.digest('base64')
}
