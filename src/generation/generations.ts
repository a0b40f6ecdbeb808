/** What lives as long as the connections that it let in. */
export interface Mortal {
  readonly number: number
  /** No connection begins here any more. */
  retire(): void
  /** Nobody is left. */
  close(): Promise<void>
}

/** A connection's hold on the generation that let it in. */
export interface Hold<G> {
  readonly generation: G
  /** At its very end; whatever comes after the first is nothing. */
  leave(): void
}

/** No closure: one lives with each connection. */
class Held<G extends Mortal> implements Hold<G> {
  readonly generation: G
  #of: Generations<G> | null

  constructor(generation: G, of: Generations<G>) {
    this.generation = generation
    this.#of = of
  }

  leave(): void {
    const of = this.#of
    this.#of = null
    of?.left(this.generation)
  }
}

export interface GenerationsOptions {
  /** Told after each change: the numbers of those that live, the oldest first. */
  readonly changed: (live: readonly number[]) => void
  /** A generation could not be closed in good order. */
  readonly failed: (error: unknown) => void
}

/**
 * The generation in force, and earlier ones for as long as a connection is left that they let in. A connection is served
 * whole by one generation; new ones begin with the newest.
 */
export class Generations<G extends Mortal> {
  readonly #options: GenerationsOptions
  /** Connections by generation, the oldest first. */
  readonly #counts = new Map<G, number>()
  #current: G
  readonly #closing = new Set<Promise<void>>()

  constructor(first: G, options: GenerationsOptions) {
    this.#options = options
    this.#current = first
    this.#counts.set(first, 0)
    this.#changed()
  }

  get current(): G {
    return this.#current
  }

  get live(): readonly number[] {
    return Array.from(this.#counts.keys(), ({ number }) => number)
  }

  get all(): Iterable<G> {
    return this.#counts.keys()
  }

  /** For one connection, to be left at its very end. */
  enter(): Hold<G> {
    const generation = this.#current
    this.#counts.set(generation, this.#counts.get(generation)! + 1)
    return new Held(generation, this)
  }

  /** From here on connections begin with the next one. */
  replace(next: G): void {
    const former = this.#current
    this.#current = next
    this.#counts.set(next, 0)
    former.retire()
    if (this.#counts.get(former) === 0) this.#end(former)
    this.#changed()
  }

  /** All of them, whoever is left; resolves when they are closed. */
  async close(): Promise<void> {
    // The newest may use what older ones made.
    for (const generation of [...this.#counts.keys()].reverse()) this.#end(generation)
    await Promise.all(this.#closing)
  }

  /** Of one of its connections; its hold says so, once. */
  left(generation: G): void {
    const count = this.#counts.get(generation)
    // Closed with everything else.
    if (count === undefined) return
    this.#counts.set(generation, count - 1)
    if (count > 1 || generation === this.#current) return
    this.#end(generation)
    this.#changed()
  }

  #end(generation: G): void {
    this.#counts.delete(generation)
    const closing: Promise<void> = generation
      .close()
      .catch(this.#options.failed)
      .finally(() => this.#closing.delete(closing))
    this.#closing.add(closing)
  }

  #changed(): void {
    this.#options.changed(this.live)
  }
}
