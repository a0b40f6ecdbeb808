/** [hot] A device that publishes to the same few topics has no string made of them. */

const SLOTS = 16
/** Longer names are read again each time, so that a session does not hold them. */
const MAX_BYTES = 256

/** What was found about the last few topic names, by their bytes. */
export class TopicMemo<T> {
  readonly #names = new Array<Buffer | null>(SLOTS).fill(null)
  readonly #values = new Array<T | null>(SLOTS).fill(null)

  find(bytes: Buffer, from: number, to: number): T | null {
    const length = to - from
    if (length === 0) return null
    const slot = slotOf(bytes, from, to)
    const name = this.#names[slot]!
    if (name === null || name.length !== length) return null
    // From behind, where topics differ.
    for (let at = length - 1; at >= 0; at--) if (name[at] !== bytes[from + at]) return null
    return this.#values[slot]!
  }

  keep(bytes: Buffer, from: number, to: number, value: T): T {
    const length = to - from
    if (length === 0 || length > MAX_BYTES) return value
    const slot = slotOf(bytes, from, to)
    this.#names[slot] = Buffer.from(bytes.subarray(from, to))
    this.#values[slot] = value
    return value
  }
}

/** By length and end: the topics of one device are of one make, and begin alike. */
function slotOf(bytes: Buffer, from: number, to: number): number {
  let mixed = to - from
  for (let at = Math.max(from, to - 16); at < to; at++) mixed = (Math.imul(mixed, 31) + bytes[at]!) | 0
  return (mixed ^ (mixed >>> 8) ^ (mixed >>> 16)) & (SLOTS - 1)
}
