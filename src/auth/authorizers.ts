import { LRUCache } from 'lru-cache'
import type { AuthorizerEntry } from '../registry/entries.ts'
import type { Asked, AskedDeps } from './authorizer.ts'
import { jwt } from './jwt.ts'
import { moduleAuthorizer } from './module.ts'
import { OutcomeCache } from './outcome-cache.ts'
import { password } from './password.ts'
import { webhook } from './webhook.ts'

/** The authorizers of one generation, each with its connections, keys and circuit breaker, and the answers they gave. */
export interface Authorizers {
  /** The one of an entry; entries that say the same, whatever generation of a registry they are of, share it. */
  of(entry: AuthorizerEntry): Asked
  readonly cache: OutcomeCache
  readonly deps: AskedDeps
  close(): void
}

/** AWS IoT Core has 100 in an account; those that are not asked any more make room. */
const MAX_AUTHORIZERS = 256

export function createAuthorizers(deps: Pick<AskedDeps, 'metrics'> & Partial<Omit<AskedDeps, 'metrics'>>): Authorizers {
  const all: AskedDeps = {
    now: () => performance.now(),
    wallClock: Date.now,
    random: Math.random,
    ...deps,
  }
  const asked = new LRUCache<string, Asked>({ max: MAX_AUTHORIZERS, dispose: (one) => one.close() })
  return {
    of(entry) {
      const key = `${entry.name} ${entry.digest}`
      const known = asked.get(key)
      if (known !== undefined) return known
      const made = askedOf(entry, all)
      asked.set(key, made)
      return made
    },
    cache: new OutcomeCache(all),
    deps: all,
    close: () => asked.clear(),
  }
}

function askedOf(entry: AuthorizerEntry, deps: AskedDeps): Asked {
  switch (entry.kind) {
    case 'webhook':
      return webhook(entry, deps)
    case 'jwt':
      return jwt(entry, deps)
    case 'password':
      return password(entry, deps)
    case 'module':
      return moduleAuthorizer(entry, deps)
  }
}
