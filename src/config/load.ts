import { accessSync, constants, readdirSync, readFileSync, realpathSync, statSync } from 'node:fs'
import { dirname, isAbsolute, join, relative, resolve } from 'node:path'
import { looseRights } from '../file-rights.ts'
import { applyEnvironment, settingNamesAt } from './environment.ts'
import { contradictions } from './rules.ts'
import { PATHS, SECRETS, SETTINGS, type Settings } from './schema.ts'
import {
  type Issue,
  issueAt,
  keyPlaceOf,
  matches,
  mergeTree,
  type Path,
  parseTree,
  pathText,
  placeOf,
  type Tree,
  toPlain,
  treeAt,
} from './tree.ts'

export type { Issue } from './tree.ts'

export type Loaded =
  | {
      readonly kind: 'valid'
      readonly settings: Settings
      /** Everything that was read or is named to be read, and the folders of `include`: what a reload watches. */
      readonly files: readonly string[]
      /** Files that others on this machine may read or change and should not; in the form of an issue. */
      readonly warnings: readonly string[]
      /** Something that is wrong with a setting, with its place. */
      issueAt(path: Path, message: string): Issue
    }
  | {
      readonly kind: 'invalid'
      readonly issues: readonly Issue[]
      /** As above, as far as it was read: what has to change for another answer. */
      readonly files: readonly string[]
    }

/**
 * Reads the file, what it includes and the environment into frozen settings, or says everything that is wrong with
 * them at once. Never throws for what an operator wrote, and never repeats a secret.
 */
export function loadSettings(file: string, env: NodeJS.ProcessEnv): Loaded {
  const main = resolve(file)
  const files = new Set<string>()
  const issues: Issue[] = []
  const tree = readTrees(main, files, issues)
  // Half a configuration would only bring issues about the half that is missing.
  if (tree === null || issues.length > 0) return invalid(issues, [main, ...files])

  const root = mergeAll(tree, issues)
  applyEnvironment(root, env, dirname(main), issues)
  const read = [...files]
  const secretFiles = resolveSecrets(root, env, files, issues)
  resolvePaths(root, files, issues)

  const input = toPlain(root)
  const parsed = SETTINGS.safeParse(input)
  for (const issue of parsed.error?.issues ?? []) {
    const path = issue.path.map((step) => (typeof step === 'number' ? step : String(step)))
    if (issue.code === 'unrecognized_keys') {
      const known = settingNamesAt(root, path).join(', ')
      if (known === '') {
        // Within a secret; what stands there as a key may be the secret itself.
        issues.push(issueAt(placeOf(root, path), path, 'expected a text, { file: … } or { env: … }'))
        continue
      }
      for (const key of issue.keys) {
        const at = [...path, key]
        if (isRemnant(root, at)) issues.push(issueAt(keyPlaceOf(root, at), path, REMNANT))
        else issues.push(issueAt(keyPlaceOf(root, at), at, `is not a setting, expected one of: ${known}`))
      }
    } else if (isRemnant(root, path)) {
      issues.push(issueAt(keyPlaceOf(root, path), path.slice(0, -1), REMNANT))
    } else if (issue.code === 'invalid_key') {
      issues.push(issueAt(keyPlaceOf(root, path), path, issue.issues[0]?.message ?? issue.message))
    } else {
      issues.push(issueAt(placeOf(root, path), path, issue.message))
    }
  }
  for (const { path, message } of contradictions(input)) {
    if (issues.some((issue) => issue.path === pathText(path))) continue
    issues.push(issueAt(placeOf(root, path), path, message))
  }
  if (issues.length > 0 || !parsed.success) return invalid(issues, files)

  const { include: _, ...settings } = parsed.data
  // The one path with a default; a path that was written is absolute by now.
  settings.admin.socket = resolve(dirname(main), settings.admin.socket)
  return {
    kind: 'valid',
    settings: freeze(settings),
    files: [...files],
    warnings: rightsWarnings(read, secretFiles),
    issueAt: (path, message) => issueAt(placeOf(root, path), path, message),
  }
}

/** Where the program that runs with this file is administered, whatever else is wrong with it; null: it does not say. */
export function adminSocketOf(file: string): string | null {
  try {
    const tree = parseTree(readFileSync(file, 'utf8'), file, dirname(file))
    const socket = 'kind' in tree ? treeAt(tree, ['admin', 'socket']) : null
    return socket?.kind === 'scalar' && typeof socket.value === 'string' ? resolve(dirname(file), socket.value) : null
  } catch {
    return null
  }
}

/** Of a text that was not quoted: `password: ab,cd` between braces is `password: ab` and a key `cd` without a value. */
const REMNANT = 'holds a name without a value; a text with a comma must be quoted'

/** Whether the last step is such a key: it may be half a secret, and is not repeated. */
function isRemnant(root: Tree, path: readonly (string | number)[]): boolean {
  const value = treeAt(root, path)
  if (value?.kind !== 'scalar' || value.value !== null || typeof path.at(-1) !== 'string') return false
  return !settingNamesAt(root, path.slice(0, -1)).includes(String(path.at(-1)))
}

/** `file:line:column: path: message`, the file as seen from the current folder. */
export function formatIssue(issue: Issue): string {
  const near = isAbsolute(issue.file) ? relative(process.cwd(), issue.file) : issue.file
  return formatWholeIssue({ ...issue, file: near === '' || near.startsWith('..') ? issue.file : near })
}

/** The same for somebody who may be in another folder. */
export function formatWholeIssue(issue: Issue): string {
  const place = issue.line === 0 ? issue.file : `${issue.file}:${issue.line}:${issue.column}`
  return [place, issue.path, issue.message].filter((part) => part !== '').join(': ')
}

function invalid(issues: readonly Issue[], files: Iterable<string>): Loaded {
  const sorted = issues.toSorted((a, b) =>
    a.file === b.file ? a.line - b.line || a.column - b.column : a.file < b.file ? -1 : 1,
  )
  return { kind: 'invalid', issues: sorted, files: [...new Set(files)] }
}

/** The file's tree first, then those of its includes, each followed by its own. */
function readTrees(file: string, files: Set<string>, issues: Issue[], seen = new Set<string>()): Tree[] | null {
  const nowhere = { file, line: 0, column: 0, folder: dirname(file) }
  let text: string
  try {
    text = readFileSync(file, 'utf8')
    seen.add(realpathSync(file))
  } catch (error) {
    issues.push(issueAt(nowhere, [], whyUnreadable(error)))
    return null
  }
  files.add(file)
  const parsed = parseTree(text, file, dirname(file))
  if (!('kind' in parsed)) {
    issues.push(...parsed)
    return null
  }
  const trees = [parsed]
  const include = treeAt(parsed, ['include'])
  if (include === null) return trees
  if (parsed.kind === 'map') parsed.entries.delete('include')
  const wanted = include.kind === 'list' ? include.items : [include]
  for (const [at, item] of wanted.entries()) {
    const path = include.kind === 'list' ? ['include', at] : ['include']
    if (item.kind !== 'scalar' || typeof item.value !== 'string') {
      issues.push(issueAt(item.place, path, 'expected a path or a list of paths'))
      continue
    }
    const target = resolve(item.place.folder, item.value)
    const found = includedFiles(target, files)
    if (typeof found === 'string') {
      issues.push(issueAt(item.place, path, `${found}: ${target}`))
      continue
    }
    for (const next of found) {
      if (seen.has(realpathSync(next))) issues.push(issueAt(item.place, path, `is read already: ${next}`))
      else trees.push(...(readTrees(next, files, issues, seen) ?? []))
    }
  }
  return trees
}

/** A file itself, or the *.yaml of a folder in the order of their names; a text says why neither. */
function includedFiles(target: string, files: Set<string>): readonly string[] | string {
  try {
    if (!statSync(target).isDirectory()) return [target]
    files.add(target)
    // Names with a dot in front are an editor's, or Kubernetes' own in a mounted ConfigMap.
    const inside = readdirSync(target).filter((name) => /^[^.].*\.ya?ml$/.test(name))
    return inside.sort().map((name) => join(target, name))
  } catch (error) {
    return whyUnreadable(error)
  }
}

function mergeAll(trees: readonly Tree[], issues: Issue[]): Tree {
  const [root, ...others] = trees
  for (const other of others) mergeTree(root!, other, [], issues)
  return root!
}

/** Of the configuration's own files, and of those that hold secrets, by the first setting that is in each. */
function rightsWarnings(read: readonly string[], secretFiles: ReadonlyMap<string, Issue>): readonly string[] {
  return [
    ...[...secretFiles].flatMap(([file, issue]) =>
      looseRights(file, 'secret').map((problem) =>
        formatIssue({ ...issue, message: `${file} holds a secret and ${problem}` }),
      ),
    ),
    ...read
      .filter((file) => !secretFiles.has(file))
      .flatMap((file) => looseRights(file, 'settings').map((problem) => `${file} ${problem}`)),
  ]
}

/** Puts the text in the place of `{ file: … }` and `{ env: … }`; answers with every file that holds a secret. */
function resolveSecrets(
  root: Tree,
  env: NodeJS.ProcessEnv,
  files: Set<string>,
  issues: Issue[],
): ReadonlyMap<string, Issue> {
  const secretFiles = new Map<string, Issue>()
  const holds = (file: string, place: Issue) => {
    if (!secretFiles.has(file)) secretFiles.set(file, place)
  }
  for (const setting of SECRETS) {
    for (const { path, value, replace } of matches(root, setting.split('.'))) {
      // What came from the environment stands in no file.
      if (value.kind === 'scalar' && files.has(value.place.file))
        holds(value.place.file, issueAt(value.place, path, ''))
      if (value.kind !== 'map' || value.entries.size !== 1) continue
      const [source] = value.entries.keys()
      const named = treeAt(value, [source ?? ''])
      if (named?.kind !== 'scalar' || typeof named.value !== 'string') continue
      if (source !== 'file' && source !== 'env') continue
      const found =
        source === 'env'
          ? secretFromEnv(named.value, env)
          : secretFromFile(resolve(named.place.folder, named.value), files)
      if (source === 'file') holds(resolve(named.place.folder, named.value), issueAt(named.place, path, ''))
      if ('missing' in found) issues.push(issueAt(named.place, [...path, source], found.missing))
      replace({ kind: 'scalar', place: named.place, value: 'missing' in found ? '' : found.text })
    }
  }
  return secretFiles
}

type Secret = { readonly text: string } | { readonly missing: string }

function secretFromEnv(name: string, env: NodeJS.ProcessEnv): Secret {
  if (!isVariableName(name)) return { missing: 'expected the name of an environment variable' }
  const text = env[name]
  if (text === undefined) return { missing: `no such environment variable: ${name}` }
  return text === '' ? { missing: `the environment variable is empty: ${name}` } : { text }
}

function secretFromFile(file: string, files: Set<string>): Secret {
  if (!isOneLine(file)) return { missing: NOT_A_PATH }
  try {
    const text = readFileSync(file, 'utf8').replace(/\r?\n$/, '')
    files.add(file)
    return text === '' ? { missing: `the file is empty: ${file}` } : { text }
  } catch (error) {
    return { missing: `${whyUnreadable(error)}: ${file}` }
  }
}

/** Makes every path absolute, each from the file that names it, and looks whether it leads anywhere. */
function resolvePaths(root: Tree, files: Set<string>, issues: Issue[]): void {
  for (const { setting, must } of PATHS) {
    for (const { path, value, replace } of matches(root, setting.split('.'))) {
      if (value.kind !== 'scalar' || typeof value.value !== 'string' || value.value === '') continue
      const target = resolve(value.place.folder, value.value)
      replace({ ...value, value: target })
      if (!isOneLine(target)) {
        issues.push(issueAt(value.place, path, NOT_A_PATH))
        continue
      }
      const problem = must === 'new' ? null : whyNot(target, must)
      if (problem !== null) issues.push(issueAt(value.place, path, `${problem}: ${target}`))
      // One that is missing may come.
      if (must === 'file') files.add(target)
    }
  }
}

/** A key or certificate in the place of its path is a common mistake; it is not repeated. */
const NOT_A_PATH = 'expected the path of a file, this is its contents'
const isOneLine = (path: string): boolean => !/[\r\n]|-----BEGIN/.test(path)

/** What stands in the place of a name may be the secret itself. POSIX.1-2024 §8.1. */
const isVariableName = (name: string): boolean => /^[A-Za-z_]\w*$/.test(name)

function whyNot(target: string, must: 'file' | 'folder'): string | null {
  try {
    const isFolder = statSync(target).isDirectory()
    if (must === 'file' && isFolder) return 'expected a file, this is a folder'
    if (must === 'folder' && !isFolder) return 'expected a folder, this is a file'
    accessSync(target, constants.R_OK)
    return null
  } catch (error) {
    return whyUnreadable(error, must)
  }
}

function whyUnreadable(error: unknown, what: 'file' | 'folder' = 'file'): string {
  const code = error instanceof Error && 'code' in error ? String(error.code) : 'unknown'
  if (code === 'ENOENT' || code === 'ENOTDIR') return `no such ${what}`
  return code === 'EISDIR' ? 'expected a file, this is a folder' : `cannot be read (${code})`
}

function freeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null && !Object.isFrozen(value)) {
    Object.freeze(value)
    for (const inside of Object.values(value)) freeze(inside)
  }
  return value
}
