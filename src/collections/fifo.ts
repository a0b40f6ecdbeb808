/**
 * First in, first out, and nothing else. Not a Map or Set: those walk past all that was deleted at their front each time
 * somebody looks there, and an array moves all that is left.
 */
export class Fifo<T> {
  #items: T[] = []
  #head = 0

  push(item: T): void {
    this.#items.push(item)
  }

  /** Undefined: there is none. */
  get first(): T | undefined {
    return this.#items[this.#head]
  }

  shift(): T | undefined {
    const item = this.#items[this.#head]
    if (item === undefined) return undefined
    this.#head++
    // When half of them are gone, the rest moves up: each is moved once on the average.
    if (this.#head * 2 >= this.#items.length) {
      this.#items = this.#items.slice(this.#head)
      this.#head = 0
    }
    return item
  }

  clear(): void {
    this.#items = []
    this.#head = 0
  }
}
