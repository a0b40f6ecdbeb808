import { Claims } from './claims.ts'
import type { Store } from './store.ts'

/** The store of a process that is alone. */
export function memoryStore(now?: () => number): Store {
  const listeners = new Set<(session: string) => void>()
  const claims = new Claims((session) => {
    for (const listener of listeners) listener(session)
  }, now)
  return {
    // A listener that throws rejects, as any fault of a store does.
    claim: async (claim) => claims.claim(claim, 0),
    release: (key, session) => claims.release(key, session),
    onLost(listener) {
      listeners.add(listener)
      return () => listeners.delete(listener)
    },
  }
}
