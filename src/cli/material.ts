import { isDeepStrictEqual } from 'node:util'
import { followedFiles, readContents } from '../config/contents.ts'
import { formatIssue, formatWholeIssue, type Issue, loadSettings } from '../config/load.ts'
import { changesBetween, restartsNeeded } from '../config/restart.ts'
import type { Material } from '../generation/material.ts'

export type ReadMaterial =
  | {
      readonly kind: 'read'
      readonly material: Material
      /** What differs from before, by setting and by file; everything where there was nothing. */
      readonly changed: readonly string[]
      readonly files: readonly string[]
      /** Of files that others on this machine may read or change. */
      readonly warnings: readonly string[]
    }
  | {
      readonly kind: 'refused'
      readonly issues: readonly string[]
      /** What has to change for another answer. */
      readonly files: readonly string[]
    }

/**
 * Settings and the contents of the files that they name, each read once; or all that is wrong, a change that this process
 * cannot follow included.
 */
export function readMaterial(file: string, env: NodeJS.ProcessEnv, before: Material | null): ReadMaterial {
  const loaded = loadSettings(file, env)
  const refused = (issues: readonly Issue[]): ReadMaterial => {
    return {
      kind: 'refused',
      issues: issues.map(before === null ? formatIssue : formatWholeIssue),
      files: loaded.files,
    }
  }
  if (loaded.kind === 'invalid') return refused(loaded.issues)
  const { settings, issueAt } = loaded
  const restarts = before === null ? [] : restartsNeeded(before.settings, settings)
  if (restarts.length > 0) return refused(restarts.map((path) => issueAt(path, 'needs a restart to be changed')))
  const contents = readContents(settings)
  // It was there a moment ago.
  if (contents.kind === 'unreadable')
    return refused([issueAt(contents.named.path, `no such file: ${contents.named.file}`)])
  const followed = new Set(followedFiles(settings))
  return {
    kind: 'read',
    material: { number: (before?.number ?? 0) + 1, settings, files: contents.files },
    changed:
      before === null
        ? Object.keys(settings)
        : [...changesBetween(before.settings, settings), ...changedFiles(before.files, contents.files)],
    files: loaded.files.filter((name) => !followed.has(name)),
    warnings: loaded.warnings,
  }
}

/** Those that both name, with other contents; what is named by one alone shows in the settings. */
function changedFiles(before: Material['files'], after: Material['files']): readonly string[] {
  return Object.keys(after).filter(
    (file) => before[file] !== undefined && !isDeepStrictEqual(before[file], after[file]),
  )
}
