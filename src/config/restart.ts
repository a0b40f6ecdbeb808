import { isDeepStrictEqual } from 'node:util'
import type { Settings } from './schema.ts'
import type { Path } from './tree.ts'

/**
 * What a reload cannot change, by section: all of it, some of it, or nothing. What is bound or chosen once for a process
 * is here; a section that is new must be decided upon, or this does not compile.
 */
// biome-ignore format: a table is read down its columns
export const NEEDS_RESTART: { readonly [S in keyof Settings]: 'all' | readonly (keyof Settings[S] & string)[] } = {
  aws:        [],
  listeners:  [],
  domains:    [],
  backends:   [],
  registries: [],
  limits:     [],
  events:     [],
  metrics:    ['bind'],
  admin:      ['socket'],
  workers:    'all',
  transport:  'all',
  governor: [],
  shedding: [],
  ticketKeys: ['rotation'],
  drain:      [],
  reload:     [],
  log:        ['format'],
}

/** Settings that have another value than before and keep the former one until a restart. */
export function restartsNeeded(before: Settings, after: Settings): readonly Path[] {
  const paths = Object.entries(NEEDS_RESTART).flatMap(([section, keys]): readonly Path[] =>
    keys === 'all' ? [[section]] : keys.map((key) => [section, key]),
  )
  const changed = paths.filter((path) => !isDeepStrictEqual(at(before, path), at(after, path)))
  const embedded = Object.keys(after.backends).find((name) => after.backends[name]!.kind === 'embedded')
  // It is started with the process, if a backend asks for it.
  return embedded === undefined || hasEmbedded(before) ? changed : [...changed, ['backends', embedded, 'kind']]
}

const hasEmbedded = ({ backends }: Settings): boolean => Object.values(backends).some(({ kind }) => kind === 'embedded')

function at(value: unknown, path: Path): unknown {
  return path.reduce<unknown>((inside, step) => (inside as Record<string, unknown>)[step], value)
}

/** What differs, as paths of at most two steps: `domains[0]`, `backends.main`, `drain.grace`. Never a value. */
export function changesBetween(before: Settings, after: Settings): readonly string[] {
  const changes: string[] = []
  for (const section of Object.keys(after) as (keyof Settings)[]) {
    const [one, other] = [before[section], after[section]]
    if (isDeepStrictEqual(one, other)) continue
    if (typeof one !== 'object' || typeof other !== 'object') {
      changes.push(section)
      continue
    }
    for (const key of new Set([...Object.keys(one), ...Object.keys(other)])) {
      if (isDeepStrictEqual(one[key as never], other[key as never])) continue
      changes.push(Array.isArray(other) ? `${section}[${key}]` : `${section}.${key}`)
    }
  }
  return changes
}
