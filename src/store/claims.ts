import { LRUCache } from 'lru-cache'
import { Fifo } from '../collections/fifo.ts'
import { Table } from '../collections/table.ts'
import type { Claim, ClaimAnswer } from './store.ts'

/** A live session is taken over at most once in this time, whatever the limits say. */
const TAKEOVER_PAUSE_MS = 1_000
/** What is known of a key that nobody holds is kept so long, for its rate. */
const MEMORY_MS = 1_000

/** How often a key was claimed is known so long after the last time, and of so many: some 75,000 with names of usual lengths. */
const VERSION_MS = 3_600_000
const MAX_VERSION_SIZE = 16_777_216
/** What one takes beside its name, in bytes; a client id may have 64 KiB. */
const VERSION_SIZE = 200

interface Entry {
  owner: string
  /** Null: nobody is connected, only the rate is remembered. */
  session: string | null
  /** The process of the session. */
  member: number
  /** Claims that may be granted now, at most `perSecond`, as of `countedAt`. */
  allowance: number
  countedAt: number
  takenOverAt: number
  /** When its session ended, where it has none. */
  idleSince: number
}

interface Rest {
  readonly key: string
  readonly since: number
}

/**
 * Who is connected under which key, decided in one place and one after the other: that order is what makes a race
 * between two workers end well.
 */
export class Claims {
  readonly #now: () => number
  readonly #lost: (session: string, member: number) => void
  readonly #entries = new Table<Entry>()
  /** Keys whose session ended, the oldest first; some have one again. */
  readonly #rests = new Fifo<Rest>()
  #held = 0
  readonly #versions: LRUCache<string, number>

  /** @param now monotonic, in milliseconds */
  constructor(lost: (session: string, member: number) => void, now: () => number = () => performance.now()) {
    this.#lost = lost
    this.#now = now
    this.#versions = new LRUCache({
      // Not `max`, for which the library has ready, from the start, whatever so many would take: 5 MB.
      maxSize: MAX_VERSION_SIZE,
      sizeCalculation: (_, key) => key.length + VERSION_SIZE,
      ttl: VERSION_MS,
      perf: { now },
    })
  }

  claim({ key, owner, session, perSecond, tentative }: Claim, member: number): ClaimAnswer {
    const now = this.#now()
    this.#forget(now)
    const entry = this.#entries.get(key)
    const held = entry !== undefined && entry.session !== null && entry.session !== session
    if (held && entry.owner !== owner) return { kind: 'taken' }
    const version = (this.#versions.get(key) ?? -1) + 1
    if (tentative) return { kind: 'granted', version }
    if (held && now - entry.takenOverAt < TAKEOVER_PAUSE_MS) return { kind: 'rate' }
    const allowance = perSecond === null ? 0 : allowanceOf(entry, perSecond, now)
    if (perSecond !== null && allowance < 1) return { kind: 'rate' }

    if (held) this.#lost(entry.session!, entry.member)
    if (entry === undefined || entry.session === null) this.#held++
    this.#entries.set(key, {
      owner,
      session,
      member,
      allowance: allowance - 1,
      countedAt: now,
      takenOverAt: held ? now : (entry?.takenOverAt ?? Number.NEGATIVE_INFINITY),
      idleSince: 0,
    })
    this.#versions.set(key, version)
    return { kind: 'granted', version }
  }

  release(key: string, session: string): void {
    const entry = this.#entries.get(key)
    if (entry?.session !== session) return
    entry.session = null
    entry.idleSince = this.#now()
    this.#held--
    this.#rests.push({ key, since: entry.idleSince })
  }

  /** A process is gone, and its sessions with it. */
  releaseAll(member: number): void {
    for (const [key, entry] of this.#entries) {
      if (entry.member === member && entry.session !== null) this.release(key, entry.session)
    }
  }

  /** Keys that somebody holds. */
  get held(): number {
    return this.#held
  }

  /** Held or remembered. */
  get size(): number {
    return this.#entries.size
  }

  #forget(now: number): void {
    for (let rest = this.#rests.first; rest !== undefined; rest = this.#rests.first) {
      const { key, since } = rest
      if (now - since < MEMORY_MS) return
      this.#rests.shift()
      const entry = this.#entries.get(key)
      if (entry?.session === null && entry.idleSince === since) this.#entries.delete(key)
    }
  }
}

/** A bucket that fills at `perSecond` and holds as many; an unknown key starts full. */
function allowanceOf(entry: Entry | undefined, perSecond: number, now: number): number {
  if (entry === undefined) return perSecond
  return Math.min(perSecond, Math.max(0, entry.allowance) + ((now - entry.countedAt) / 1_000) * perSecond)
}
