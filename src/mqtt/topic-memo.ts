/** [hot] A device that publishes to the same few topics has no string made of them. */

const SLOTS = 4
/** Longer names are judged again each time, so that a session does not hold them. */
const MAX_BYTES = 256

/** What was found about the last few topic names, by their bytes. */
export class TopicMemo<T> {
  readonly #names: (Buffer | null)[] = [null, null, null, null]
  readonly #values: (T | null)[] = [null, null, null, null]

  find(bytes: Buffer, from: number, to: number): T | null {
    const length = to - from
    if (length === 0) return null
    const slot = slotOf(length, bytes[to - 1]!)
    const name = this.#names[slot]
    if (name === null || name === undefined || name.length !== length) return null
    // From behind, where topics differ.
    for (let at = length - 1; at >= 0; at--) if (name[at] !== bytes[from + at]) return null
    return this.#values[slot]!
  }

  keep(bytes: Buffer, from: number, to: number, value: T): T {
    const length = to - from
    if (length === 0 || length > MAX_BYTES) return value
    const slot = slotOf(length, bytes[to - 1]!)
    this.#names[slot] = Buffer.from(bytes.subarray(from, to))
    this.#values[slot] = value
    return value
  }

  forget(): void {
    this.#names.fill(null)
    this.#values.fill(null)
  }
}

const slotOf = (length: number, last: number): number => (length ^ last) & (SLOTS - 1)
