import type { Principal } from '../auth/authenticator.ts'
import { Table } from '../collections/table.ts'
import type { AdmissionCounters } from '../control/admission-metrics.ts'
import { type FailureCode, ProxyError } from '../errors.ts'

/** Most sessions of this process; null is no limit. */
export interface SeatLimits {
  readonly most: number | null
  readonly perPrincipal: number | null
}

export interface SeatsOptions {
  /** By the name of the domain. */
  limitsFor(domain: string): SeatLimits
  /** Whether there is too little of something for more sessions at all. */
  overloaded(): boolean
  readonly counters: AdmissionCounters
}

/** One session's place. */
export interface Seat {
  /** Once is enough. */
  leave(): void
}

const NO_SEAT: Seat = { leave() {} }

/** How many sessions a domain and a principal have in this process; nothing is counted where nothing is limited. */
export class Seats {
  readonly #options: SeatsOptions
  readonly #taken = new Table<number>()

  constructor(options: SeatsOptions) {
    this.#options = options
  }

  /** Before a broker is dialled. @throws {ProxyError} ERR_OVERLOADED, ERR_DOMAIN_SESSIONS, ERR_PRINCIPAL_SESSIONS */
  take(domain: string, principal: Principal): Seat {
    this.check(domain)
    const { most, perPrincipal } = this.#options.limitsFor(domain)
    const keys: string[] = []
    if (most !== null) keys.push(domainKey(domain))
    // Devices that only the broker knows have no principal of their own.
    if (perPrincipal !== null && principal.method !== 'backend') {
      const key = principalKey(domain, principal)
      if (this.#count(key) >= perPrincipal) {
        throw this.#refusal('ERR_PRINCIPAL_SESSIONS', `${perPrincipal} sessions of this principal`)
      }
      keys.push(key)
    }
    if (keys.length === 0) return NO_SEAT
    for (const key of keys) this.#taken.set(key, this.#count(key) + 1)
    let taken = true
    return {
      leave: () => {
        if (!taken) return
        taken = false
        for (const key of keys) this.#give(key)
      },
    }
  }

  /** Whether the next one of this domain has a place, as far as can be said before it is known. @throws as `take` */
  check(domain: string): void {
    if (this.#options.overloaded()) {
      throw this.#refusal('ERR_OVERLOADED', 'too little time, memory or descriptors for another session')
    }
    const { most } = this.#options.limitsFor(domain)
    if (most !== null && this.#count(domainKey(domain)) >= most) {
      throw this.#refusal('ERR_DOMAIN_SESSIONS', `${most} sessions of this domain`)
    }
  }

  get size(): number {
    return this.#taken.size
  }

  #count(key: string): number {
    return this.#taken.get(key) ?? 0
  }

  #give(key: string): void {
    const left = this.#count(key) - 1
    if (left > 0) this.#taken.set(key, left)
    else this.#taken.delete(key)
  }

  #refusal(code: keyof typeof REASONS, detail: string): ProxyError {
    this.#options.counters.refused[REASONS[code]]++
    return new ProxyError(code, detail)
  }
}

const REASONS = {
  ERR_OVERLOADED: 'overloaded',
  ERR_DOMAIN_SESSIONS: 'domain_sessions',
  ERR_PRINCIPAL_SESSIONS: 'principal_sessions',
} as const satisfies Partial<Record<FailureCode, string>>

/** A domain's name has no line feed in it. */
const domainKey = (domain: string): string => domain
const principalKey = (domain: string, { method, id, attributes }: Principal): string =>
  `${domain}\n${method} ${attributes.authorizer ?? ''} ${id}`
