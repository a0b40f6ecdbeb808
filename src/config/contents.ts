import { readFileSync } from 'node:fs'
import { PATHS, type Settings } from './schema.ts'
import type { Path } from './tree.ts'

/** Settings that name files which are not read here: they are followed by themselves, or loaded as code. */
const FOLLOWED: ReadonlySet<string> = new Set(['domains.*.clientTrust.crl.files.*', 'events.*.path'])

export interface Named {
  readonly path: Path
  readonly file: string
}

/** The files whose contents are a part of the settings: certificates, keys and CAs. */
export function namedFiles(settings: Settings): readonly Named[] {
  return PATHS.filter(({ setting, must }) => must === 'file' && !FOLLOWED.has(setting)).flatMap(({ setting }) =>
    found(settings, setting.split('.'), []),
  )
}

/** Files that the settings name and that somebody else follows. */
export function followedFiles(settings: Settings): readonly string[] {
  return [...FOLLOWED].flatMap((setting) => found(settings, setting.split('.'), []).map(({ file }) => file))
}

function found(value: unknown, [step, ...rest]: readonly string[], path: Path): readonly Named[] {
  if (step === undefined) return typeof value === 'string' ? [{ path, file: value }] : []
  if (typeof value !== 'object' || value === null) return []
  if (step !== '*') return Object.hasOwn(value, step) ? found(value[step as never], rest, [...path, step]) : []
  const inside = Array.isArray(value) ? [...value.entries()] : Object.entries(value)
  return inside.flatMap(([key, one]) => found(one, rest, [...path, key]))
}

export type Contents =
  | { readonly kind: 'read'; readonly files: Readonly<Record<string, string>> }
  | { readonly kind: 'unreadable'; readonly named: Named }

/** Each file once. */
export function readContents(settings: Settings): Contents {
  const files: Record<string, string> = Object.create(null)
  for (const named of namedFiles(settings)) {
    try {
      files[named.file] ??= readFileSync(named.file, 'utf8')
    } catch {
      return { kind: 'unreadable', named }
    }
  }
  return { kind: 'read', files }
}
