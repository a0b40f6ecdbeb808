import { type LookupAddress, lookup as systemLookup } from 'node:dns'
import { isIP, type LookupFunction } from 'node:net'

/** How long an answer is taken without asking again. A look-up does not tell how long its answer holds. */
export const FRESH_MS = 5_000
/** The same for an answer whose addresses did not let us in, and for «there is no such name». */
export const DOUBTED_MS = 1_000
/** The oldest answer that is better than none, while the resolver fails. */
export const STALE_MS = 3_600_000
/** Whoever has an older answer waits no longer for a newer one. */
export const PATIENCE_MS = 500
/** Whoever has none waits so long. */
export const LOOKUP_DEADLINE_MS = 5_000
/** A look-up that was never answered holds a thread of the runtime; only then another one for the same name is begun. */
export const FORGOTTEN_MS = 60_000

export interface ResolverOptions {
  /** `dns.lookup` unless told: the system's own, with `/etc/hosts`, so that a name means here what it means elsewhere. */
  readonly lookup?: LookupFunction | undefined
  /** Milliseconds, monotonic; `performance.now` unless told. */
  readonly now?: (() => number) | undefined
  /** Calls once after so many milliseconds; what it returns calls it off. */
  readonly after?: ((ms: number, call: () => void) => () => void) | undefined
}

type Answer = (error: NodeJS.ErrnoException | null, addresses: readonly LookupAddress[]) => void

interface Question {
  readonly sinceMs: number
  readonly waiting: Set<Answer>
}

interface Name {
  addresses: readonly LookupAddress[]
  /** When they were told. */
  toldAtMs: number
  /** Somebody could not be reached there, since they were told. */
  doubted: boolean
  /** The resolver's last word, where it was no address. */
  failed: { readonly error: NodeJS.ErrnoException; readonly atMs: number } | null
  asking: Question | null
}

/** The resolver says no; everything else is trouble of its own. */
const NO_SUCH_NAME = new Set(['ENOTFOUND', 'ENODATA'])

/**
 * Names of brokers to addresses, in front of the system's resolver. That is a blocking call on one of a few threads: many
 * devices that come back at once would ask it the same thing, and a name whose servers are silent would keep them all busy.
 *
 * - One question at a time for a name, whoever waits for it; each waits no longer than its own deadline.
 * - An answer is taken for 5 s, or for 1 s once nobody could be reached there. The next one is then waited for.
 * - While the resolver fails, the last answer goes on being used, for an hour. That there is no such name is an answer.
 */
export class Resolver {
  readonly #source: LookupFunction
  readonly #now: () => number
  readonly #after: (ms: number, call: () => void) => () => void
  /** As many as there are names in the settings. */
  readonly #names = new Map<string, Name>()

  constructor({ lookup, now, after }: ResolverOptions = {}) {
    // Without `all` it answers in another form; it is never asked so.
    this.#source = lookup ?? (systemLookup as LookupFunction)
    this.#now = now ?? (() => performance.now())
    this.#after = after ?? startTimer
  }

  /** In place of `dns.lookup` for `net.connect`, which tries several addresses in turn by itself (RFC 8305). */
  readonly lookup: LookupFunction = (hostname, options, callback) => {
    this.#resolve(hostname, options.hints ?? 0, (error, addresses) => {
      if (error !== null) {
        callback(error, options.all ? [] : '', 0)
        return
      }
      const { family } = options
      const fitting = family === 4 || family === 6 ? addresses.filter((each) => each.family === family) : addresses
      const [first] = fitting
      if (first === undefined) callback(fault('ENOTFOUND', `${hostname} has no address of IPv${family}`), '', 0)
      else if (options.all) callback(null, [...fitting])
      else callback(null, first.address, first.family)
    })
  }

  /** Nobody could be reached at what the name stood for: the next one asks again. */
  doubt(hostname: string): void {
    const name = this.#names.get(hostname)
    if (name !== undefined) name.doubted = true
  }

  #resolve(hostname: string, hints: number, answer: Answer): void {
    const family = isIP(hostname)
    if (family !== 0) {
      answer(null, [{ address: hostname, family }])
      return
    }
    const name = this.#nameOf(hostname)
    const { failed } = name
    if (this.#isFresh(name)) answer(null, name.addresses)
    // It failed a moment ago; asking at once again would get the same.
    else if (failed !== null && this.#now() - failed.atMs < DOUBTED_MS) this.#best(name, failed.error, answer)
    else this.#wait(hostname, name, this.#ask(hostname, hints, name), answer)
  }

  #nameOf(hostname: string): Name {
    let name = this.#names.get(hostname)
    if (name === undefined) {
      name = { addresses: [], toldAtMs: Number.NEGATIVE_INFINITY, doubted: false, failed: null, asking: null }
      this.#names.set(hostname, name)
    }
    return name
  }

  #isFresh({ toldAtMs, doubted }: Name): boolean {
    return this.#now() - toldAtMs < (doubted ? DOUBTED_MS : FRESH_MS)
  }

  /** What is known by now, be it old; else why not. */
  #best({ addresses, toldAtMs }: Name, error: NodeJS.ErrnoException, answer: Answer): void {
    const usable = addresses.length > 0 && this.#now() - toldAtMs < STALE_MS
    if (usable) answer(null, addresses)
    else answer(error, [])
  }

  #wait(hostname: string, name: Name, { waiting }: Question, answer: Answer): void {
    const late = () => {
      if (!waiting.delete(told)) return
      this.#best(name, fault('ETIMEDOUT', `no answer of the resolver for ${hostname}`), answer)
    }
    const told: Answer = (error, addresses) => {
      callOff()
      answer(error, addresses)
    }
    waiting.add(told)
    const callOff = this.#after(name.addresses.length > 0 ? PATIENCE_MS : LOOKUP_DEADLINE_MS, late)
  }

  #ask(hostname: string, hints: number, name: Name): Question {
    const before = name.asking
    if (before !== null && this.#now() - before.sinceMs < FORGOTTEN_MS) return before
    const question: Question = { sinceMs: this.#now(), waiting: new Set() }
    name.asking = question
    // After this call: whoever asks is on the list by then, even if the answer comes at once.
    queueMicrotask(() => {
      try {
        this.#source(hostname, { all: true, hints }, (error, found) => this.#answered(name, question, error, found))
      } catch (error) {
        this.#answered(name, question, error as NodeJS.ErrnoException, [])
      }
    })
    return question
  }

  #answered(
    name: Name,
    question: Question,
    error: NodeJS.ErrnoException | null,
    found: string | LookupAddress[] | undefined,
  ): void {
    if (name.asking === question) name.asking = null
    const addresses = typeof found === 'string' ? [{ address: found, family: isIP(found) }] : (found ?? [])
    const waiting = [...question.waiting]
    question.waiting.clear()
    if (error === null && addresses.length > 0) {
      name.addresses = addresses
      name.toldAtMs = this.#now()
      name.doubted = false
      name.failed = null
      for (const answer of waiting) answer(null, addresses)
      return
    }
    const failure = error ?? fault('ENOTFOUND', 'the resolver has no address')
    name.failed = { error: failure, atMs: this.#now() }
    if (NO_SUCH_NAME.has(failure.code ?? '')) name.addresses = []
    for (const answer of waiting) this.#best(name, failure, answer)
  }
}

function fault(code: string, message: string): NodeJS.ErrnoException {
  return Object.assign(new Error(`${code}: ${message}`), { code })
}

function startTimer(ms: number, call: () => void): () => void {
  const timer = setTimeout(call, ms)
  return () => clearTimeout(timer)
}
