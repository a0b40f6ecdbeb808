import { createHash } from 'node:crypto'
import { LRUCache } from 'lru-cache'
import { Table } from '../collections/table.ts'
import type { Answer } from './answer.ts'

export interface OutcomeCacheOptions {
  /** Monotonic, in milliseconds. */
  readonly now: () => number
  /** In [0, 1). */
  readonly random: () => number
  /** Most answers that are kept. */
  readonly max?: number
}

/** An answer, and when it was given. */
export interface Dated {
  readonly answer: Answer
  readonly answeredAt: number
}

type Ask = (signal: AbortSignal) => Promise<Answer>

/** A no is remembered for so long, and up to twice as long: what was mended must work soon. */
const LEAST_REFUSAL_MS = 1_000
const MAX_ANSWERS = 10_000

interface Flight {
  readonly key: string
  readonly answer: Promise<Dated>
  readonly ending: AbortController
  waiting: number
}

/**
 * Answers of authorizers, kept for who sends exactly the same again; one question under way for each.
 *
 * - A yes is kept for as long as was asked, and never past its refresh; a no for seconds; a fault never.
 * - A question ends when the last of those who wait for it has left.
 */
export class OutcomeCache {
  readonly #options: OutcomeCacheOptions
  readonly #kept: LRUCache<string, Dated & { readonly until: number }>
  readonly #flights = new Table<Flight>()

  constructor(options: OutcomeCacheOptions) {
    this.#options = options
    this.#kept = new LRUCache({ max: options.max ?? MAX_ANSWERS })
  }

  /** @param keepMs for a yes; 0 keeps none */
  async get(key: string, keepMs: number, ask: Ask, signal: AbortSignal): Promise<Dated> {
    const kept = this.#kept.get(key)
    if (kept !== undefined) {
      if (this.#options.now() < kept.until) return kept
      this.#kept.delete(key)
    }
    const flight = this.#flights.get(key) ?? this.#start(key, keepMs, ask)
    return this.#join(flight, signal)
  }

  #start(key: string, keepMs: number, ask: Ask): Flight {
    const ending = new AbortController()
    const answer = ask(ending.signal)
      .then((given): Dated => {
        const answeredAt = this.#options.now()
        const until = answeredAt + this.#lifetimeOf(given, keepMs)
        const dated = { answer: given, answeredAt, until }
        if (until > answeredAt) this.#kept.set(key, dated)
        return dated
      })
      .finally(() => {
        if (this.#flights.get(key) === flight) this.#flights.delete(key)
      })
    const flight: Flight = { key, answer, ending, waiting: 0 }
    // When all have left, nobody is there to hear how it ended.
    answer.catch(() => {})
    this.#flights.set(key, flight)
    return flight
  }

  #lifetimeOf(answer: Answer, keepMs: number): number {
    if (answer.kind === 'yes') return Math.min(keepMs, answer.refreshAfterMs ?? keepMs, answer.disconnectAfterMs)
    return Math.min(keepMs, LEAST_REFUSAL_MS * (1 + this.#options.random()))
  }

  #join(flight: Flight, signal: AbortSignal): Promise<Dated> {
    flight.waiting += 1
    return new Promise((resolve, reject) => {
      const leave = () => {
        reject(signal.reason)
        flight.waiting -= 1
        if (flight.waiting > 0) return
        flight.ending.abort(signal.reason)
        // A newcomer must not wait for a question that is being called off.
        if (this.#flights.get(flight.key) === flight) this.#flights.delete(flight.key)
      }
      if (signal.aborted) return leave()
      signal.addEventListener('abort', leave, { once: true })
      flight.answer.finally(() => signal.removeEventListener('abort', leave)).then(resolve, reject)
    })
  }
}

/** SHA-256 over fields, each behind its length, so that no two lists of fields read alike; null is not the empty field. */
export function keyOver(fields: readonly (string | Uint8Array | null)[]): string {
  const hash = createHash('sha256')
  for (const field of fields) {
    if (field === null) {
      hash.update('-:')
      continue
    }
    const bytes = typeof field === 'string' ? Buffer.from(field, 'utf8') : field
    hash.update(`${bytes.length}:`).update(bytes)
  }
  return hash.digest('base64')
}
