import { Table } from '../collections/table.ts'
import { Claims } from './claims.ts'
import type { Claim, ClaimAnswer, Store } from './store.ts'

/**
 * The primary holds the store, its workers ask it. What one has to say to the other in a turn of the event loop is one
 * message, in order: a message costs more than what it says. `store` tells it from others on the channel.
 */
type ToPrimary = { readonly store: 'asked'; readonly words: readonly (Asking | Giving)[] }
type Asking = { readonly request: number; readonly claim: Claim }
type Giving = { readonly key: string; readonly session: string }

type ToWorker = { readonly store: 'told'; readonly words: readonly (Answering | Taking)[] }
type Answering = { readonly request: number; readonly answer: ClaimAnswer }
type Taking = { readonly lost: string }

/** For the primary to answer; it does so in well under a millisecond unless something is wrong. */
const CLAIM_DEADLINE_MS = 2_000
/** Claims of one worker without an answer yet; beyond it the primary is in trouble and more would not help. */
const MAX_PENDING = 10_000

export interface LinkedStore extends Store {
  /** To be called with every message of the primary; false when it is not for the store. */
  heard(message: unknown): boolean
}

export interface LinkOptions {
  readonly deadlineMs?: number | undefined
  /** Calls once, when what this turn has brought has been dealt with. */
  readonly soon?: (call: () => void) => void
}

/** The store as a worker sees it. */
export function linkedStore(
  send: (message: unknown) => void,
  { deadlineMs = CLAIM_DEADLINE_MS, soon = setImmediate }: LinkOptions = {},
): LinkedStore {
  const listeners = new Set<(session: string) => void>()
  const pending = new Table<(answer: ClaimAnswer) => void>()
  let requests = 0
  let words: (Asking | Giving)[] = []

  const flush = (): void => {
    const message: ToPrimary = { store: 'asked', words }
    words = []
    send(message)
  }
  // Both as soon as the turn is over: a device that comes back at another worker before its release would take over from
  // nobody, and that it may do once a second only.
  const say = (word: Asking | Giving): void => {
    if (words.push(word) === 1) soon(flush)
  }
  const release = (key: string, session: string): void => say({ key, session })

  return {
    claim(claim) {
      if (pending.size >= MAX_PENDING) return Promise.reject(new Error(`${MAX_PENDING} claims without an answer`))
      const request = ++requests
      const key = String(request)
      return new Promise((resolve, reject) => {
        const timer = setTimeout(() => {
          pending.delete(key)
          // Should it be granted after all, it is given back: words keep their order.
          if (!claim.tentative) release(claim.key, claim.session)
          reject(new Error(`no answer to a claim in ${deadlineMs} ms`))
        }, deadlineMs)
        pending.set(key, (answer) => {
          clearTimeout(timer)
          pending.delete(key)
          resolve(answer)
        })
        say({ request, claim })
      })
    },
    release,
    onLost(listener) {
      listeners.add(listener)
      return () => listeners.delete(listener)
    },
    heard(message) {
      const told = message as ToWorker | null
      if (told?.store !== 'told') return false
      for (const word of told.words) {
        if ('lost' in word) for (const listener of listeners) listener(word.lost)
        else pending.get(String(word.request))?.(word.answer)
      }
      return true
    },
  }
}

export interface StoreServer {
  /** To be called with every message of a worker; false when it is not for the store. */
  heard(message: unknown, workerId: number): boolean
  /** The worker is gone: what its sessions held is free. */
  ended(workerId: number): void
  readonly claims: Claims
}

/** The store as the primary keeps it. */
export function storeServer(send: (workerId: number, message: unknown) => void, now?: () => number): StoreServer {
  /** Of the message that is being heard, by worker. */
  const words = new Map<number, (Answering | Taking)[]>()
  const say = (workerId: number, word: Answering | Taking): void => {
    const said = words.get(workerId)
    if (said === undefined) words.set(workerId, [word])
    else said.push(word)
  }
  const claims = new Claims((session, workerId) => say(workerId, { lost: session }), now)
  // Its last messages may come after its end, and nobody would release what they claim. Numbers are never used again.
  const gone = new Set<number>()
  return {
    claims,
    heard(message, workerId) {
      const asked = message as ToPrimary | null
      if (asked?.store !== 'asked') return false
      for (const word of asked.words) {
        if (!('claim' in word)) claims.release(word.key, word.session)
        else if (!gone.has(workerId)) {
          const answer = claims.claim(word.claim, workerId)
          say(workerId, { request: word.request, answer })
        }
      }
      for (const [worker, said] of words) {
        const told: ToWorker = { store: 'told', words: said }
        send(worker, told)
      }
      words.clear()
      return true
    },
    ended(workerId) {
      gone.add(workerId)
      claims.releaseAll(workerId)
    },
  }
}
