/** What an alias stands for, in the eyes of its sender. */
export interface Aliased {
  readonly topic: Buffer
  /** The receiver has got a publish that defined it so. False after one that did not go on. */
  told: boolean
}

/** Most bytes of topic names that the aliases of one direction may hold. */
const MAX_BYTES = 1_048_576

/**
 * Topic aliases of one direction (MQTT 5.0 §3.3.2.3.4), as their sender set them. A publish that is denied defines its
 * alias all the same, only its receiver does not know; so the two views are kept apart.
 */
export class TopicAliases {
  readonly #byAlias = new Map<number, Aliased>()
  #bytes = 0

  get(alias: number): Aliased | undefined {
    return this.#byAlias.get(alias)
  }

  /** @returns null when that is more than may be held */
  define(alias: number, bytes: Buffer, from: number, to: number): Aliased | null {
    const before = this.#byAlias.get(alias)
    if (before !== undefined && before.topic.compare(bytes, from, to) === 0) return before
    this.#bytes += to - from - (before?.topic.length ?? 0)
    if (this.#bytes > MAX_BYTES) return null
    // A copy: a slice would keep the whole chunk from being freed.
    const aliased = { topic: Buffer.from(bytes.subarray(from, to)), told: false }
    this.#byAlias.set(alias, aliased)
    return aliased
  }
}
