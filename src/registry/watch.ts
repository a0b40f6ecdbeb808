import { type BigIntStats, type FSWatcher, realpathSync, statSync, watch } from 'node:fs'
import { stat } from 'node:fs/promises'
import { dirname } from 'node:path'

export interface WatchOptions {
  /** Files and folders; asked again after each change. */
  readonly paths: () => Iterable<string>
  /** When their contents were read, in ms since 1970: what has changed since then is a change. */
  readonly readAt: number
  /** Something is not as it was. */
  readonly onChange: () => void
  /** From the first event to the look: an editor or a mounted volume changes several things at once. */
  readonly debounceMs?: number
  /** Between two looks without any event, for file systems that send none. Longer where there are many files. */
  readonly pollMs?: number
}

export interface FileWatch {
  close(): void
}

const DEBOUNCE_MS = 100
const POLL_MS = 1_000
/** A poll asks for each file: at most 250 of them a second, whatever their number. */
const POLL_MS_PER_FILE = 4

/**
 * Watches folders, never single files: a file that is replaced by a rename, or a symbolic link that is turned (as in a
 * mounted ConfigMap), is an event of its folder. Events only say when to look; what changed is told by size, times and
 * inode, so that an event too many costs nothing and an event too few is made good by the poll.
 */
export function watchFiles(options: WatchOptions): FileWatch {
  const debounceMs = options.debounceMs ?? DEBOUNCE_MS
  const watchers = new Map<string, FSWatcher>()
  let closed = false
  let due: NodeJS.Timeout | null = null
  let looking = false
  let again = false
  let paths = [...options.paths()]
  const seen = new Map(paths.map((path) => [path, factsSince(path, options.readAt)]))

  function arm(): void {
    const wanted = new Set(paths.flatMap(foldersOf))
    for (const [folder, watcher] of watchers) {
      if (wanted.has(folder)) continue
      watcher.close()
      watchers.delete(folder)
    }
    for (const folder of wanted) {
      if (watchers.has(folder)) continue
      try {
        const watcher = watch(folder, { persistent: false }, soon)
        // The folder is gone; the poll notices when it is back.
        watcher.on('error', () => forget(folder, watcher))
        watchers.set(folder, watcher)
      } catch {
        // Not there, or no watches left: the poll does it alone.
      }
    }
  }

  function forget(folder: string, watcher: FSWatcher): void {
    watcher.close()
    if (watchers.get(folder) === watcher) watchers.delete(folder)
  }

  function soon(): void {
    if (closed || due !== null) return
    due = setTimeout(() => {
      due = null
      void look()
    }, debounceMs)
    due.unref()
  }

  async function look(): Promise<void> {
    again = looking
    if (looking || closed) return
    looking = true
    let changed = false
    for (const path of paths) {
      const facts = await factsOf(path)
      if (seen.get(path) === facts) continue
      seen.set(path, facts)
      changed = true
    }
    looking = false
    if (closed) return
    if (changed) {
      const readAt = Date.now()
      options.onChange()
      paths = [...options.paths()]
      const named = new Set(paths)
      for (const path of seen.keys()) if (!named.has(path)) seen.delete(path)
      for (const path of paths) if (!seen.has(path)) seen.set(path, factsSince(path, readAt))
    }
    // A folder that was replaced has the same name and another inode: its watch sees nothing any more.
    rearm()
    if (again) soon()
  }

  const inodes = new Map<string, number>()
  function rearm(): void {
    for (const [folder, watcher] of watchers) {
      const inode = statSync(folder, { throwIfNoEntry: false })?.ino
      if (inode !== undefined && inodes.get(folder) === inode) continue
      forget(folder, watcher)
    }
    arm()
    inodes.clear()
    for (const folder of watchers.keys()) {
      const inode = statSync(folder, { throwIfNoEntry: false })?.ino
      if (inode !== undefined) inodes.set(folder, inode)
    }
  }

  rearm()
  const pollMs = Math.max(options.pollMs ?? POLL_MS, paths.length * POLL_MS_PER_FILE)
  const poll = setInterval(() => void look(), pollMs)
  poll.unref()

  return {
    close() {
      closed = true
      clearInterval(poll)
      if (due !== null) clearTimeout(due)
      for (const watcher of watchers.values()) watcher.close()
      watchers.clear()
    },
  }
}

/** The folders whose events tell of a path: its own, that of where it leads to, and itself where it is one. */
function foldersOf(path: string): string[] {
  const folders = [dirname(path)]
  try {
    const real = realpathSync(path)
    folders.push(statSync(real).isDirectory() ? real : dirname(real))
  } catch {
    // Not there yet: its folder tells when it comes.
  }
  return folders
}

async function factsOf(path: string): Promise<string> {
  return text(await stat(path, { bigint: true }).catch(() => null))
}

/** File systems keep times in steps of a few milliseconds. */
const TIME_STEP_MS = 20

/** Tells whether any of these files has changed between two calls; never the same while it may be changing. */
export function factsSinceReading(paths: Iterable<string>, readAt: number): string | null {
  const facts = Array.from(new Set(paths), (path) => `${path} ${factsSince(path, readAt)}`)
  return facts.some((one) => one.endsWith(CHANGED_SINCE)) ? null : facts.join('\n')
}

const CHANGED_SINCE = 'changed since'

/** Facts to compare with later; none that fit when the path may have changed after it was read. */
function factsSince(path: string, readAt: number): string {
  try {
    const facts = statSync(path, { bigint: true })
    return Number(facts.ctimeMs) >= readAt - TIME_STEP_MS ? CHANGED_SINCE : text(facts)
  } catch {
    return text(null)
  }
}

function text(facts: BigIntStats | null): string {
  return facts === null ? 'none' : `${facts.dev} ${facts.ino} ${facts.size} ${facts.mtimeNs} ${facts.ctimeNs}`
}
