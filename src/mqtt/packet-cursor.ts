/**
 * [hot] Allocates nothing per packet: integer states, fields instead of results, tables instead of branches.
 */
import type { FailureCode } from '../errors.ts'

const TYPE = 0
const LENGTH = 1
const BODY = 2

/** The most that Remaining Length can say, in bytes (MQTT 5.0 §1.5.5). */
export const MAX_REMAINING = 268_435_455

/** Verdict on a packet's first byte (control packet type and flags) for one direction and version. */
export type FirstByteTable = Uint8Array
const LEGAL = 1
const UNEXPECTED = 2

/** MQTT 5.0 §2.1.2 and §2.1.3 (3.1.1 has the same numbers): which types each side may send, and with which flags. */
function firstBytes(legalTypes: readonly number[]): FirstByteTable {
  const table = new Uint8Array(256)
  for (let first = 0; first < 256; first++) {
    const type = first >> 4
    const flags = first & 0x0f
    const flagsFit =
      type === 3 ? (flags & 0b0110) !== 0b0110 : flags === (type === 6 || type === 8 || type === 10 ? 2 : 0)
    if (type === 0 || !flagsFit) continue
    table[first] = legalTypes.includes(type) ? LEGAL : UNEXPECTED
  }
  return table
}

/** What a device may send after CONNECT, by protocol level. */
export const INBOUND: Readonly<Record<4 | 5, FirstByteTable>> = {
  4: firstBytes([3, 4, 5, 6, 7, 8, 10, 12, 14]),
  5: firstBytes([3, 4, 5, 6, 7, 8, 10, 12, 14, 15]),
}

/** What a broker may send, CONNACK included; that it comes once and first is the session's to check. */
export const OUTBOUND: Readonly<Record<4 | 5, FirstByteTable>> = {
  4: firstBytes([2, 3, 4, 5, 6, 7, 9, 11, 13]),
  5: firstBytes([2, 3, 4, 5, 6, 7, 9, 11, 13, 14, 15]),
}

/**
 * Finds where MQTT packets begin and end in a byte stream, without looking inside them.
 *
 * One cursor per direction per connection. `advance` touches at most five bytes of each packet; the
 * body is stepped over by arithmetic, whatever its size. A fault is a state, not an exception, so that
 * the bytes before it can still be forwarded.
 */
export class PacketCursor {
  /** Control packet type (1–15) and flags of the packet the cursor stands in. */
  type = 0
  flags = 0
  /** Remaining Length in bytes (MQTT 5.0 §2.1.4), complete once the body begins. */
  remainingLength = 0
  /** True right after the last byte of a packet's fixed header. */
  atHeader = false
  /** Set once, never cleared: the stream cannot be followed any further. */
  fault: FailureCode | null = null

  readonly #table: FirstByteTable
  readonly #maxBytes: number
  #state = TYPE
  #shift = 0
  #left = 0

  /** @param maxBytes largest Remaining Length accepted, in bytes */
  constructor(table: FirstByteTable, maxBytes: number) {
    this.#table = table
    this.#maxBytes = maxBytes
  }

  /** True between packets: at the start, and right after the last byte of a packet. */
  get atEnd(): boolean {
    return this.#state === TYPE
  }

  /** Over so many bytes of the body, which the caller knows to be there. */
  skip(bytes: number): void {
    this.#left -= bytes
    if (this.#left === 0) this.#state = TYPE
  }

  /**
   * Over one packet that lies whole in the chunk and is of no watched type: what `advance` does in two steps, for most of
   * what a session carries. Between packets only; sets `type` and `flags`.
   * @param watched bits of control packet types
   * @returns the offset after it; 0: it is another case, and nothing has changed
   */
  step(chunk: Uint8Array, at: number, watched: number): number {
    const { length } = chunk
    if (at + 2 > length) return 0
    const first = chunk[at]!
    if (this.#table[first] !== LEGAL || (watched & (1 << (first >> 4))) !== 0) return 0
    let byte = chunk[at + 1]!
    let remaining = byte & 0x7f
    at += 2
    for (let shift = 7; byte & 0x80; shift += 7) {
      if (shift === 28 || at === length) return 0
      byte = chunk[at++]!
      remaining |= (byte & 0x7f) << shift
    }
    const end = at + remaining
    if (end > length || remaining > this.#maxBytes) return 0
    this.type = first >> 4
    this.flags = first & 0x0f
    return end
  }

  /**
   * Moves from `at` to the end of the packet's header, to the end of the packet, or to the end of the
   * chunk, whichever comes first. On a fault it returns the offset of the byte at fault.
   */
  advance(chunk: Uint8Array, at: number): number {
    this.atHeader = false
    if (this.#state === BODY) {
      const here = chunk.length - at
      if (this.#left > here) {
        this.#left -= here
        return chunk.length
      }
      at += this.#left
      this.#left = 0
      this.#state = TYPE
      return at
    }
    while (at < chunk.length) {
      const byte = chunk[at]!
      if (this.#state === TYPE) {
        const verdict = this.#table[byte]
        if (verdict !== LEGAL) {
          this.fault = verdict === UNEXPECTED ? 'ERR_PACKET_UNEXPECTED' : 'ERR_PACKET_MALFORMED'
          return at
        }
        this.type = byte >> 4
        this.flags = byte & 0x0f
        this.remainingLength = 0
        this.#shift = 0
        this.#state = LENGTH
        at++
        continue
      }
      // At most four length bytes, so the shift never reaches the sign bit.
      this.remainingLength |= (byte & 0x7f) << this.#shift
      this.#shift += 7
      if (byte & 0x80) {
        if (this.#shift === 28) {
          this.fault = 'ERR_PACKET_MALFORMED'
          return at
        }
        at++
        continue
      }
      if (this.remainingLength > this.#maxBytes) {
        this.fault = 'ERR_PACKET_TOO_LARGE'
        return at
      }
      this.#left = this.remainingLength
      this.#state = this.#left === 0 ? TYPE : BODY
      this.atHeader = true
      return at + 1
    }
    return at
  }
}
