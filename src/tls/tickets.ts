import { createHash, hkdfSync, type X509Certificate } from 'node:crypto'
import { LRUCache } from 'lru-cache'
import type { TlsRuntime } from './policies.ts'

/** What the TLS libraries do with tickets, as far as it decides where they may be given. Tests hold it to the truth. */
export interface TicketFacts {
  /**
   * Whether `ticketKeys` counts. Bun checks the option and drops it: each context has a random key of its own, so a
   * session resumes at the process and in the period that made it, and is a full handshake anywhere else.
   */
  readonly sharesKeys: boolean
  /** Whether a resumed session has the whole chain that was presented, or the device's own certificate alone. */
  readonly keepsChain: boolean
}

// biome-ignore format: a table is read down its columns
export const TICKET_FACTS: Readonly<Record<TlsRuntime, TicketFacts>> = {
  openssl:   { sharesKeys: true,  keepsChain: false },
  boringssl: { sharesKeys: false, keepsChain: true  },
}

/** All that decides who is let in, and so which sessions are whose. */
export interface AdmissionFacts {
  readonly serverNames: readonly string[]
  readonly authenticationType: string
  readonly applicationProtocol: string
  readonly endpointType: string
  readonly wantsCertificate: boolean
  readonly trustMode: string
  /** Those in the context: none where no certificate is asked for. */
  readonly caCertificates: readonly X509Certificate[]
  readonly registry: string | null
  readonly tlsPolicy: string
  readonly generation: number
}

/** RFC 5246 and OpenSSL allow 32 bytes. The option is text, so 32 hex digits: 128 bits of the hash. */
const SESSION_ID_CONTEXT_DIGITS = 32

/** Differs wherever admission differs: SHA-256, 64 lower-case hex digits. */
export function admissionHash(facts: AdmissionFacts): string {
  const cas = facts.caCertificates.map((ca) => ca.fingerprint256).sort()
  const rest = [
    facts.serverNames,
    facts.authenticationType,
    facts.applicationProtocol,
    facts.endpointType,
    facts.wantsCertificate,
    facts.trustMode,
    facts.registry,
    facts.tlsPolicy,
    facts.generation,
  ]
  return createHash('sha256')
    .update(JSON.stringify([cas, ...rest]))
    .digest('hex')
}

/**
 * So that a session made under other rules cannot be resumed here. Always set: unset, OpenSSL fails every returning
 * client that was asked for a certificate.
 */
export function sessionIdContext(facts: AdmissionFacts): string {
  return admissionHash(facts).slice(0, SESSION_ID_CONTEXT_DIGITS)
}

/** As both libraries take them: 16 bytes name, 16 HMAC, 16 AES. */
const TICKET_KEY_BYTES = 48

/** The ticket keys of one context: nobody without the secret can tell them, and no two contexts have the same. */
export function ticketKeys(secret: Uint8Array, facts: AdmissionFacts): Buffer {
  const info = `brokergate session tickets ${admissionHash(facts)}`
  return Buffer.from(hkdfSync('sha256', secret, Buffer.alloc(0), info, TICKET_KEY_BYTES))
}

const MAX_REMEMBERED = 10_000
/** Longer than a device waits before it tries again. */
const REMEMBERED_MS = 10 * 60 * 1_000

/**
 * Addresses from which a resumed session was refused. A device that got another certificate may still resume with the
 * former one, and would be refused until its ticket ends: its next handshake is a full one.
 */
export class RefusedResumptions {
  readonly #addresses: LRUCache<string, true>

  constructor(now?: () => number) {
    this.#addresses = new LRUCache({
      max: MAX_REMEMBERED,
      ttl: REMEMBERED_MS,
      ...(now !== undefined && { perf: { now }, ttlResolution: 0 }),
    })
  }

  add(address: string): void {
    this.#addresses.set(address, true)
  }

  has(address: string): boolean {
    return this.#addresses.has(address)
  }
}
