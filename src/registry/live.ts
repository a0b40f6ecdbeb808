import { type RegistryContents, registryOf } from './contents.ts'
import { type ReadRegistryOptions, readRegistry, type ValidRegistryFiles } from './files.ts'
import { OverlayReader } from './overlay.ts'
import type { LiveRegistry, Registry } from './registry.ts'
import { type FileWatch, factsSinceReading, watchFiles } from './watch.ts'

/** Where what goes on is told; never a secret. The log of the process is one. */
export interface RegistryLog {
  info(fields: Readonly<Record<string, unknown>>, message: string): void
  warn(fields: Readonly<Record<string, unknown>>, message: string): void
  error(fields: Readonly<Record<string, unknown>>, message: string): void
}

export const NO_LOG: RegistryLog = { info() {}, warn() {}, error() {} }

export interface LiveOptions {
  /** As the settings name it. */
  readonly name: string
  readonly env?: NodeJS.ProcessEnv
  /** Folder of the overlay; null: nothing is learnt. */
  readonly state: string | null
  readonly log: RegistryLog
  /** Counted: a reading that took effect, or one that was refused and changed nothing. */
  readonly reloaded: (registry: string, result: 'ok' | 'refused') => void
  /** As for `watchFiles`. */
  readonly pollMs?: number
}

export interface WatchedRegistry extends LiveRegistry {
  readonly name: string
  readonly warnings: readonly string[]
  /** What the files said when they last took effect, without what was learnt. */
  readonly contents: RegistryContents
  /** From now on changes of the files take effect. */
  watch(): void
  /** Whether the files are as they were when they took effect last. */
  isCurrent(): boolean
  /** Reads on in the overlay now, instead of when its file is seen to have grown. */
  readOverlay(): void
}

export type LiveResult =
  | { readonly kind: 'live'; readonly live: WatchedRegistry }
  | { readonly kind: 'invalid'; readonly issues: readonly string[] }

/**
 * A registry that follows its folder. It is always read whole and takes the place of the former one at once; files that do
 * not parse, or name what does not exist, change nothing. Nothing is watched before `watch`.
 */
export function liveRegistry(path: string, options: LiveOptions): LiveResult {
  const readAt = Date.now()
  const overlay = options.state === null ? null : new OverlayReader(options.state)
  const read: ReadRegistryOptions = { state: overlay !== null, ...(options.env !== undefined && { env: options.env }) }
  const first = readRegistry(path, read)
  const learned = overlay?.readOn()
  const damage = learned?.kind === 'damaged' ? [learned.issue] : []
  if (first.kind === 'invalid') return { kind: 'invalid', issues: [...first.issues, ...damage] }
  if (damage.length > 0) return { kind: 'invalid', issues: damage }
  return { kind: 'live', live: new Live(path, options, read, first, overlay, readAt) }
}

class Live implements WatchedRegistry {
  readonly name: string
  readonly warnings: readonly string[]
  readonly #path: string
  readonly #options: LiveOptions
  readonly #read: ReadRegistryOptions
  readonly #overlay: OverlayReader | null
  readonly #readAt: number
  /** Of the files when they took effect; null while they may have been changing. */
  #facts: string | null
  readonly #listeners = new Set<() => void>()
  #contents: RegistryContents
  #files: readonly string[]
  #current: Registry
  #watches: readonly FileWatch[] = []
  /** What was wrong with the overlay last: said once, not at every look. */
  #damage: string | null = null

  constructor(
    path: string,
    options: LiveOptions,
    read: ReadRegistryOptions,
    first: ValidRegistryFiles,
    overlay: OverlayReader | null,
    readAt: number,
  ) {
    this.name = options.name
    this.warnings = first.warnings
    this.#path = path
    this.#options = options
    this.#read = read
    this.#overlay = overlay
    this.#readAt = readAt
    this.#contents = first.contents
    this.#files = first.files
    this.#facts = this.#factsSince(readAt)
    this.#current = registryOf(first.contents, overlay?.overlay ?? null)
  }

  get contents(): RegistryContents {
    return this.#contents
  }

  get current(): Registry {
    return this.#current
  }

  onChange(listener: () => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  isCurrent(): boolean {
    return this.#facts !== null && this.#facts === this.#factsSince(Number.POSITIVE_INFINITY)
  }

  watch(): void {
    if (this.#watches.length > 0) return
    const { pollMs } = this.#options
    const common = { readAt: this.#readAt, ...(pollMs !== undefined && { pollMs }) }
    const paths = () => [this.#path, ...this.#files]
    const watches = [watchFiles({ ...common, paths, onChange: () => this.#readFiles() })]
    const overlay = this.#overlay
    if (overlay !== null) {
      const onChange = () => this.readOverlay()
      watches.push(watchFiles({ ...common, paths: () => [overlay.file], debounceMs: 0, onChange }))
    }
    this.#watches = watches
  }

  readOverlay(): void {
    if (this.#overlay === null) return
    const read = this.#overlay.readOn()
    if (read.kind === 'damaged') {
      // What was learnt before still counts.
      if (this.#damage !== read.issue) this.#options.log.error({ registry: this.name }, read.issue)
      this.#damage = read.issue
      return
    }
    this.#damage = null
    if (read.records > 0) this.#swap(this.#contents)
  }

  close(): void {
    for (const watch of this.#watches) watch.close()
    this.#watches = []
    this.#listeners.clear()
  }

  #factsSince(readAt: number): string | null {
    return factsSinceReading([this.#path, ...this.#files], readAt)
  }

  #readFiles(): void {
    const { log, reloaded } = this.#options
    const readAt = Date.now()
    const read = this.#readAgain()
    if ('broken' in read) {
      this.#facts = null
      for (const issue of read.broken) log.error({ registry: this.name }, issue)
      log.error({ registry: this.name, issues: read.broken.length }, 'registry not reloaded; the former one goes on')
      reloaded(this.name, 'refused')
      return
    }
    for (const warning of read.warnings) log.warn({ registry: this.name }, warning)
    this.#facts = this.#factsSince(readAt)
    this.#swap(read.contents)
    reloaded(this.name, 'ok')
    log.info({ registry: this.name, certificates: this.#current.size }, 'registry reloaded')
  }

  /** Never throws: whatever a file holds, the process goes on with what it has. */
  #readAgain(): ValidRegistryFiles | { readonly broken: readonly string[] } {
    try {
      const read = readRegistry(this.#path, this.#read)
      if (read.kind === 'valid') {
        this.#files = read.files
        return read
      }
      // A file that the broken version names may be the one that mends it.
      this.#files = [...new Set([...this.#files, ...read.files])]
      return { broken: read.issues }
    } catch (error) {
      return { broken: [`${this.#path}:1: : ${error instanceof Error ? error.message : String(error)}`] }
    }
  }

  #swap(contents: RegistryContents): void {
    this.#contents = contents
    this.#current = registryOf(contents, this.#overlay?.overlay ?? null)
    for (const listener of this.#listeners) {
      try {
        listener()
      } catch (error) {
        this.#options.log.error({ registry: this.name, error }, 'a change of the registry was not passed on')
      }
    }
  }
}
