/** So that no key is taken for an index of an array. */
const MARK = '.'

/**
 * What is known under a name, in the order in which the names came. For names that come and go with connections: D1. Any
 * string is a name, `__proto__` too.
 */
export class Table<V> implements Iterable<readonly [key: string, value: V]> {
  size = 0
  readonly #values: Record<string, V> = Object.create(null)

  get(key: string): V | undefined {
    return this.#values[MARK + key]
  }

  has(key: string): boolean {
    return MARK + key in this.#values
  }

  set(key: string, value: V): void {
    const name = MARK + key
    if (!(name in this.#values)) this.size++
    this.#values[name] = value
  }

  /** True when it was known. */
  delete(key: string): boolean {
    const name = MARK + key
    if (!(name in this.#values)) return false
    delete this.#values[name]
    this.size--
    return true
  }

  values(): V[] {
    return Object.values(this.#values)
  }

  /** Those that are known now, whatever comes and goes meanwhile. */
  [Symbol.iterator](): ArrayIterator<readonly [key: string, value: V]> {
    return Object.entries(this.#values)
      .map(([name, value]) => [name.slice(MARK.length), value] as const)
      .values()
  }
}
