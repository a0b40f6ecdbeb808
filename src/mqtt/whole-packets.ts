import { MAX_REMAINING, PacketCursor } from './packet-cursor.ts'

/** Every first byte is taken: whether it may stand there is another's to judge. */
const ANY = new Uint8Array(256).fill(1)

/** Sees a packet before it goes on, whole, fixed header included. False: it does not go on. */
export type See = (packet: Buffer) => boolean

/**
 * Cuts a stream into whole packets: what a chunk's end has cut is kept until the rest of it comes. A packet larger than
 * may be kept goes on in pieces, and its begin is shown in its place.
 */
export class WholePackets {
  /** The packet under way is one of those that go on in pieces. */
  oversized = false
  readonly #most: number
  readonly #see: See
  readonly #seeOversized: (begin: Buffer) => void
  readonly #cursor = new PacketCursor(ANY, MAX_REMAINING)
  #tail: Buffer[] = []
  #tailBytes = 0

  constructor(mostBytes: number, see: See, seeOversized: (begin: Buffer) => void) {
    this.#most = mostBytes
    this.#see = see
    this.#seeOversized = seeOversized
  }

  /** The begin of the packet under way, as far as it is kept. */
  get tail(): readonly Buffer[] {
    return this.#tail
  }

  get tailBytes(): number {
    return this.#tailBytes
  }

  /** @returns what goes on: mostly the chunk itself */
  push(chunk: Buffer): readonly Buffer[] {
    const cursor = this.#cursor
    const goes: Buffer[] = []
    let run = 0
    let start = 0
    let at = 0
    const pass = (to: number) => {
      if (run < to) goes.push(run === 0 && to === chunk.length ? chunk : chunk.subarray(run, to))
      run = to
    }
    while (at < chunk.length && cursor.fault === null) {
      if (cursor.atEnd) start = at
      at = cursor.advance(chunk, at)
      if (cursor.fault !== null || !cursor.atEnd) continue
      if (this.#tailBytes > 0) {
        const packet = Buffer.concat([...this.#tail, chunk.subarray(0, at)])
        this.#forgetTail()
        if (this.#see(packet)) goes.push(packet)
        run = at
      } else if (this.oversized) this.oversized = false
      else if (!this.#see(chunk.subarray(start, at))) {
        pass(start)
        run = at
      }
    }
    // No packets from here on; whoever reads it will say so.
    if (cursor.fault !== null) {
      goes.push(...this.#tail)
      this.#forgetTail()
      pass(chunk.length)
    } else if (cursor.atEnd || this.oversized) pass(chunk.length)
    else this.#keep(chunk, this.#tailBytes > 0 ? 0 : start, pass, goes)
    return goes
  }

  #keep(chunk: Buffer, from: number, pass: (to: number) => void, goes: Buffer[]): void {
    pass(from)
    this.#tail.push(chunk.subarray(from))
    this.#tailBytes += chunk.length - from
    if (this.#tailBytes <= this.#most) return
    this.#seeOversized(Buffer.concat(this.#tail))
    goes.push(...this.#tail)
    this.#forgetTail()
    this.oversized = true
  }

  #forgetTail(): void {
    this.#tail = []
    this.#tailBytes = 0
  }
}
