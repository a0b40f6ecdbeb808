/** What is known under a name, in the order in which the names came. For names that come and go with connections: D1. */
export class Table<V> implements Iterable<readonly [key: string, value: V]> {
  /** Where it is. Of what has left, the Map may keep the name. */
  readonly #places = new Map<string, number>()
  readonly #values: (V | undefined)[] = []
  readonly #free: number[] = []

  get size(): number {
    return this.#places.size
  }

  get(key: string): V | undefined {
    const at = this.#places.get(key)
    return at === undefined ? undefined : this.#values[at]
  }

  set(key: string, value: V): void {
    let at = this.#places.get(key)
    if (at === undefined) {
      at = this.#free.pop() ?? this.#values.length
      this.#places.set(key, at)
    }
    this.#values[at] = value
  }

  /** True when it was known. */
  delete(key: string): boolean {
    const at = this.#places.get(key)
    if (at === undefined) return false
    this.#values[at] = undefined
    this.#free.push(at)
    return this.#places.delete(key)
  }

  /** Those that are known now, whatever comes and goes meanwhile. */
  [Symbol.iterator](): ArrayIterator<readonly [key: string, value: V]> {
    return Array.from(this.#places, ([key, at]) => [key, this.#values[at] as V] as const).values()
  }
}
