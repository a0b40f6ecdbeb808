import type { X509Certificate } from 'node:crypto'
import { readFileSync, statSync } from 'node:fs'
import { type RevocationList, RevocationLists, readCrlFile } from './crl.ts'
import type { RegistryLog } from './live.ts'
import { codeOf } from './source.ts'
import { type FileWatch, watchFiles } from './watch.ts'

/** The revocation lists of some files; stays the same object while their contents change. */
export interface LiveRevocations {
  readonly current: RevocationLists
  onChange(listener: () => void): () => void
}

export interface RevocationOptions {
  readonly log: RegistryLog
  readonly reloaded: (result: 'ok' | 'refused') => void
}

interface Known {
  /** Size, times and inode: the file is read again only when they change. */
  readonly facts: string
  readonly lists: readonly RevocationList[]
}

/** Unlike a registry's, lists of a million entries are large: no file is read twice, whoever asks for it. */
export class RevocationFiles {
  readonly #options: RevocationOptions
  readonly #files = new Map<string, Known>()
  readonly #sets = new Map<string, LiveSet>()
  readonly #readAt = Date.now()
  #watch: FileWatch | null = null

  constructor(options: RevocationOptions) {
    this.#options = options
  }

  /**
   * One set for the same files and CAs, however many domains ask; sets of different ones share the lists themselves.
   * A text says what is wrong with a file.
   *
   * @param issuers CAs known beforehand; a list that one of them signed is verified now
   */
  open(
    files: readonly string[],
    issuers: readonly X509Certificate[],
  ): LiveRevocations | { readonly issues: readonly string[] } {
    const names = [...new Set(files)].sort()
    const key = [...names, ...issuers.map((issuer) => issuer.fingerprint256)].join('\n')
    const known = this.#sets.get(key)
    if (known !== undefined) return known
    const issues = names.flatMap((file) => this.#read(file) ?? [])
    if (issues.length > 0) return { issues }
    const set = new LiveSet(names, issuers, this.#listsOf(names))
    this.#sets.set(key, set)
    return set
  }

  /** Whether every file is as it was when it was read last. */
  isCurrent(): boolean {
    return Array.from(this.#files).every(([file, { facts }]) => factsOf(file) === facts)
  }

  /** From now on changes of the files take effect. */
  watch(): void {
    if (this.#watch !== null || this.#sets.size === 0) return
    this.#watch = watchFiles({
      paths: () => this.#files.keys(),
      readAt: this.#readAt,
      onChange: () => this.#reload(),
    })
  }

  close(): void {
    this.#watch?.close()
    this.#watch = null
    this.#sets.clear()
    this.#files.clear()
  }

  #listsOf(names: readonly string[]): readonly RevocationList[] {
    return names.flatMap((name) => this.#files.get(name)?.lists ?? [])
  }

  #reload(): void {
    const changed = new Set<string>()
    const issues: string[] = []
    for (const file of [...this.#files.keys()]) {
      const before = this.#files.get(file)
      const issue = this.#read(file)
      // What was revoked stays so: the file's former lists go on.
      if (issue !== null) issues.push(issue)
      else if (this.#files.get(file) !== before) changed.add(file)
    }
    for (const issue of issues) this.#options.log.error({}, issue)
    if (issues.length > 0) this.#options.reloaded('refused')
    if (changed.size === 0) return
    for (const set of this.#sets.values()) {
      if (set.files.some((file) => changed.has(file))) set.replace(this.#listsOf(set.files), this.#options.log)
    }
    this.#options.reloaded('ok')
    this.#options.log.info({ files: [...changed] }, 'revocation lists reloaded')
  }

  /** What is wrong; null when the file is known as it is now. */
  #read(file: string): string | null {
    try {
      const facts = factsOf(file)
      if (this.#files.get(file)?.facts === facts) return null
      const found = readCrlFile(readFileSync(file))
      if (found.kind === 'invalid') return `${file}: ${found.reason}`
      this.#files.set(file, { facts, lists: found.lists })
      return null
    } catch (error) {
      return `${file}: cannot be read: ${codeOf(error)}`
    }
  }
}

/** Empty where there is no such file. */
function factsOf(file: string): string {
  const facts = statSync(file, { bigint: true, throwIfNoEntry: false })
  if (facts === undefined) return ''
  const { dev, ino, size, mtimeNs, ctimeNs } = facts
  return `${dev} ${ino} ${size} ${mtimeNs} ${ctimeNs}`
}

class LiveSet implements LiveRevocations {
  readonly files: readonly string[]
  readonly #issuers: readonly X509Certificate[]
  readonly #listeners = new Set<() => void>()
  #current: RevocationLists

  constructor(files: readonly string[], issuers: readonly X509Certificate[], lists: readonly RevocationList[]) {
    this.files = files
    this.#issuers = issuers
    this.#current = new RevocationLists(lists, issuers)
  }

  get current(): RevocationLists {
    return this.#current
  }

  onChange(listener: () => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  replace(lists: readonly RevocationList[], log: RegistryLog): void {
    this.#current = new RevocationLists(lists, this.#issuers)
    for (const listener of this.#listeners) {
      try {
        listener()
      } catch (error) {
        log.error({ error }, 'a change of the revocation lists was not passed on')
      }
    }
  }
}
