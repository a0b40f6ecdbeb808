import type { PolicyDocument } from '../policy/document.ts'
import { grantsOf } from '../policy/grants.ts'
import { type Grants, NO_GRANTS } from '../policy/permit.ts'
import { issuerFinder, type RegisteredCa } from './cas.ts'
import { CertificateIndex } from './certificate-index.ts'
import { type AccessKey, type AuthorizerEntry, NO_THINGS, type Thing, type Things } from './entries.ts'
import type { Learned } from './overlay.ts'
import { createRegistry, type Registry } from './registry.ts'

/** What the files of one registry say, read and checked. */
export interface RegistryContents {
  readonly certificates: CertificateIndex
  readonly things: ReadonlyMap<string, Thing>
  readonly policies: ReadonlyMap<string, PolicyDocument>
  readonly cas: readonly RegisteredCa[]
  readonly accessKeys: ReadonlyMap<string, AccessKey>
  readonly authorizers: ReadonlyMap<string, AuthorizerEntry>
}

/** A registry that knows nobody. */
export const EMPTY_CONTENTS: RegistryContents = {
  certificates: new CertificateIndex(),
  things: new Map(),
  policies: new Map(),
  cas: [],
  accessKeys: new Map(),
  authorizers: new Map(),
}

/** Combinations of policies that are compiled once; more than operators write, and no more than fits. */
const MAX_GRANTS = 4_096

/** One generation: what the operator wrote, and what the program learnt by itself where it writes that down. */
export function registryOf(contents: RegistryContents, learned: Learned | null): Registry {
  const grants = new Map<string, Grants>()
  /** Of the lists themselves, which are the same objects for as long as an entry or a domain is. */
  const grantsOfList = new WeakMap<readonly string[], Grants>()
  const parts = {
    issuerOf: issuerFinder(contents.cas),
    accessKey: (id: string) => contents.accessKeys.get(id) ?? null,
    authorizer: (name: string) => contents.authorizers.get(name) ?? null,
    things(names: readonly string[], exclusive: boolean): Things {
      // What the operator wrote of a thing counts before what a template made of it.
      const attached = names.flatMap((name) => contents.things.get(name) ?? learned?.things.get(name) ?? [])
      return thingsOf(attached, exclusive)
    },
    grants(names: readonly string[]): Grants {
      const same = grantsOfList.get(names)
      if (same !== undefined) return same
      const key = JSON.stringify(names)
      const known = grants.get(key)
      if (known !== undefined) {
        grantsOfList.set(names, known)
        return known
      }
      const documents = names.flatMap((name) => contents.policies.get(name) ?? learned?.policies.get(name) ?? [])
      // A policy that is not there may have been the one that denies.
      const made = documents.length === names.length ? grantsOf(documents) : NO_GRANTS
      if (grants.size >= MAX_GRANTS) grants.clear()
      grants.set(key, made)
      grantsOfList.set(names, made)
      return made
    },
  }
  return createRegistry(contents.certificates, parts, learned?.certificates)
}

function thingsOf(attached: readonly Thing[], exclusive: boolean): Things {
  const [first] = attached
  if (first === undefined) return NO_THINGS
  // Exclusive means one; of several none can be meant.
  if (exclusive) return attached.length === 1 ? { of: () => first, exclusive: first } : NO_THINGS
  const byName = new Map(attached.map((thing) => [thing.name, thing]))
  return { of: (clientId) => byName.get(clientId) ?? null, exclusive: null }
}
