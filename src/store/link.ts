import { Table } from '../collections/table.ts'
import { Claims } from './claims.ts'
import type { Claim, ClaimAnswer, Store } from './store.ts'

/** The primary holds the store, its workers ask it. Messages carry `store`, so that others can share the channel. */
type ToPrimary =
  | { readonly store: 'claim'; readonly request: number; readonly claim: Claim }
  | { readonly store: 'release'; readonly key: string; readonly session: string }

type ToWorker =
  | { readonly store: 'answer'; readonly request: number; readonly answer: ClaimAnswer }
  | { readonly store: 'lost'; readonly session: string }

/** For the primary to answer; it does so in well under a millisecond unless something is wrong. */
const CLAIM_DEADLINE_MS = 2_000
/** Claims of one worker without an answer yet; beyond it the primary is in trouble and more would not help. */
const MAX_PENDING = 10_000

export interface LinkedStore extends Store {
  /** To be called with every message of the primary; false when it is not for the store. */
  heard(message: unknown): boolean
}

/** The store as a worker sees it. */
export function linkedStore(send: (message: unknown) => void, deadlineMs = CLAIM_DEADLINE_MS): LinkedStore {
  const listeners = new Set<(session: string) => void>()
  const pending = new Table<(answer: ClaimAnswer) => void>()
  let requests = 0
  const tell = (message: ToPrimary): void => send(message)

  return {
    claim(claim) {
      if (pending.size >= MAX_PENDING) return Promise.reject(new Error(`${MAX_PENDING} claims without an answer`))
      const request = ++requests
      const key = String(request)
      return new Promise((resolve, reject) => {
        const timer = setTimeout(() => {
          pending.delete(key)
          // Should it be granted after all, it is given back: messages keep their order.
          if (!claim.tentative) tell({ store: 'release', key: claim.key, session: claim.session })
          reject(new Error(`no answer to a claim in ${deadlineMs} ms`))
        }, deadlineMs)
        pending.set(key, (answer) => {
          clearTimeout(timer)
          pending.delete(key)
          resolve(answer)
        })
        tell({ store: 'claim', request, claim })
      })
    },
    release: (key, session) => tell({ store: 'release', key, session }),
    onLost(listener) {
      listeners.add(listener)
      return () => listeners.delete(listener)
    },
    heard(message) {
      const told = message as ToWorker | null
      if (told?.store === 'answer') pending.get(String(told.request))?.(told.answer)
      else if (told?.store === 'lost') for (const listener of listeners) listener(told.session)
      else return false
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
  const tell = (workerId: number, message: ToWorker): void => send(workerId, message)
  const claims = new Claims((session, workerId) => tell(workerId, { store: 'lost', session }), now)
  // Its last messages may come after its end, and nobody would release what they claim. Numbers are never used again.
  const gone = new Set<number>()
  return {
    claims,
    heard(message, workerId) {
      const told = message as ToPrimary | null
      if (told?.store === 'claim') {
        if (gone.has(workerId)) return true
        tell(workerId, { store: 'answer', request: told.request, answer: claims.claim(told.claim, workerId) })
      } else if (told?.store === 'release') claims.release(told.key, told.session)
      else return false
      return true
    },
    ended(workerId) {
      gone.add(workerId)
      claims.releaseAll(workerId)
    },
  }
}
