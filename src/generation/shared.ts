import { createHash } from 'node:crypto'

/** A part in use, and how many generations use it. */
interface Held {
  readonly part: unknown
  readonly close: () => void | Promise<void>
  readonly isCurrent: () => boolean
  uses: number
}

export interface Keeping<T> {
  /** What tells it from others of its kind: all that it was made of. */
  readonly key: readonly unknown[]
  readonly close: (part: T) => void | Promise<void>
  /** Whether what it was made of is still as it was; true unless told. */
  readonly isCurrent?: (part: T) => boolean
}

/**
 * Parts that outlive a generation of the settings: a generation that asks for what an earlier one has, made of the same,
 * gets that very object, so that its connections, its health and what waits in it survive a reload. What nobody uses any
 * more is closed.
 */
export class SharedParts {
  readonly #held = new Map<string, Held>()

  /** For one generation. */
  lease(): Lease {
    return new Lease(this.#held)
  }

  get size(): number {
    return this.#held.size
  }
}

/** What one generation uses. */
export class Lease {
  readonly #held: Map<string, Held>
  /** Kinds in the order in which they were first asked for: a kind may need those before it. */
  readonly #mine = new Map<string, Map<string, Held>>()

  constructor(held: Map<string, Held>) {
    this.#held = held
  }

  /** @throws what `make` throws; then nothing is kept */
  use<T>(kind: string, keeping: Keeping<T>, make: () => T): T {
    return this.#known(kind, keeping) ?? this.#keep(kind, keeping, make())
  }

  /** As `use`, of what takes its time to be made; one generation is made at a time. */
  async useLater<T>(kind: string, keeping: Keeping<T>, make: () => Promise<T>): Promise<T> {
    return this.#known(kind, keeping) ?? this.#keep(kind, keeping, await make())
  }

  /**
   * Gives everything back; resolves when what nobody else uses is closed, the last kind first. Rejects with the first that
   * could not be, once all have been tried.
   */
  async release(): Promise<void> {
    const kinds = [...this.#mine.values()].reverse()
    this.#mine.clear()
    const failures: unknown[] = []
    for (const kind of kinds) {
      const closing = Array.from(kind, async ([key, held]) => {
        held.uses--
        if (held.uses > 0) return
        if (this.#held.get(key) === held) this.#held.delete(key)
        await held.close()
      })
      for (const result of await Promise.allSettled(closing)) {
        if (result.status === 'rejected') failures.push(result.reason)
      }
    }
    if (failures.length > 0) throw failures[0]
  }

  #known<T>(kind: string, { key }: Keeping<T>): T | null {
    const name = nameOf(kind, key)
    const mine = this.#mine.get(kind)?.get(name)
    // Of one kind and key there is one type of part.
    if (mine !== undefined) return mine.part as T
    const held = this.#held.get(name)
    if (held === undefined || !held.isCurrent()) return null
    held.uses++
    this.#note(kind, name, held)
    return held.part as T
  }

  #keep<T>(kind: string, { key, close, isCurrent }: Keeping<T>, part: T): T {
    const name = nameOf(kind, key)
    const held: Held = { part, close: () => close(part), isCurrent: () => isCurrent?.(part) ?? true, uses: 1 }
    // One of an earlier generation, if there is one, is that generation's alone from now on.
    this.#held.set(name, held)
    this.#note(kind, name, held)
    return part
  }

  #note(kind: string, name: string, held: Held): void {
    const mine = this.#mine.get(kind)
    if (mine === undefined) this.#mine.set(kind, new Map([[name, held]]))
    else mine.set(name, held)
  }
}

/** Hashed, because keys hold passwords and private keys. */
const nameOf = (kind: string, key: readonly unknown[]): string =>
  createHash('sha256')
    .update(JSON.stringify([kind, ...key]))
    .digest('base64')
