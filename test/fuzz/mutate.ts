import type { Below } from './target.ts'

/** Numbers at which readers go wrong: ends of ranges, signs, powers of two and their neighbors. */
const INTERESTING = [
  0, 1, 2, 3, 4, 7, 8, 15, 16, 31, 32, 63, 64, 100, 126, 127, 128, 129, 200, 255, 256, 257, 511, 512, 1_023, 1_024,
  4_095, 4_096, 16_383, 16_384, 16_385, 32_767, 32_768, 65_534, 65_535, 65_536, 2_097_151, 2_097_152, 268_435_455,
  268_435_456, 0x7fffffff, 0x80000000, 0xffffffff,
] as const
/** Bytes that mean something in text. */
const PUNCTUATION = Buffer.from('\0\t\n\r "#$%&\'()*+,-./:;<=>?@[\\]^_`{|}~\x7f\x80\xc0\xff', 'latin1')

type Change = (from: Scratch, below: Below) => void

/** Bytes that grow and shrink in place, never past the bound. */
class Scratch {
  readonly bytes: Buffer
  length = 0
  constructor(maxBytes: number) {
    this.bytes = Buffer.alloc(maxBytes)
  }

  set(input: Uint8Array): void {
    this.length = Math.min(input.length, this.bytes.length)
    this.bytes.set(input.subarray(0, this.length))
  }

  remove(at: number, count: number): void {
    const cut = Math.min(count, this.length - at)
    this.bytes.copyWithin(at, at + cut, this.length)
    this.length -= cut
  }

  insert(at: number, piece: Uint8Array): void {
    const more = Math.min(piece.length, this.bytes.length - this.length)
    this.bytes.copyWithin(at + more, at, this.length)
    this.bytes.set(piece.subarray(0, more), at)
    this.length += more
  }

  overwrite(at: number, piece: Uint8Array): void {
    this.bytes.set(piece.subarray(0, this.length - at), at)
  }
}

const varint = (value: number): Buffer => {
  const digits: number[] = []
  do {
    digits.push((value % 128) | (value >= 128 ? 0x80 : 0))
    value = Math.floor(value / 128)
  } while (value > 0)
  return Buffer.from(digits)
}

/** An interesting number as a length is written: in one, two, three or four bytes, or as MQTT does. */
function numberAs(below: Below): Buffer {
  const value = INTERESTING[below(INTERESTING.length)]!
  const width = below(5)
  if (width === 4) return varint(value)
  const wide = Buffer.alloc(4)
  wide.writeUInt32BE(value)
  return wide.subarray(3 - width)
}

function changesOf(corpus: readonly Buffer[], tokens: readonly Buffer[]): readonly Change[] {
  const place = (from: Scratch, below: Below) => below(from.length)
  const token = (below: Below) => tokens[below(tokens.length)]!
  const all: Change[] = [
    // a bit, a byte, one more or less
    (from, below) => {
      from.bytes[place(from, below)]! ^= 1 << below(8)
    },
    (from, below) => {
      from.bytes[place(from, below)] = below(256)
    },
    (from, below) => {
      from.bytes[place(from, below)]! += below(2) === 0 ? 1 : -1
    },
    // near the front, where most of the structure is
    (from, below) => {
      from.bytes[below(Math.min(from.length, 64))] = below(256)
    },
    (from, below) => {
      from.bytes[place(from, below)] = PUNCTUATION[below(PUNCTUATION.length)]!
    },
    // lies about lengths
    (from, below) => from.overwrite(place(from, below), numberAs(below)),
    (from, below) => from.insert(place(from, below), numberAs(below)),
    // cut, take out, repeat, copy elsewhere
    (from, below) => {
      if (below(4) === 0) from.length = place(from, below)
    },
    (from, below) => from.remove(place(from, below), 1 + below(16)),
    (from, below) => {
      const at = place(from, below)
      const piece = Buffer.from(from.bytes.subarray(at, Math.min(at + 1 + below(32), from.length)))
      for (let times = 1 << below(6); times > 0; times--) from.insert(at, piece)
    },
    (from, below) => {
      const at = place(from, below)
      from.bytes.copyWithin(below(from.length), at, Math.min(at + 1 + below(64), from.length))
    },
    // the front of one and the back of another
    (from, below) => {
      const other = corpus[below(corpus.length)]!
      from.length = place(from, below)
      from.insert(from.length, other.subarray(below(other.length + 1)))
    },
  ]
  if (tokens.length === 0) return all
  const put: Change = (from, below) => from.insert(below(from.length + 1), token(below))
  const over: Change = (from, below) => from.overwrite(place(from, below), token(below))
  return [...all, put, put, over]
}

/** Makes inputs that are almost right: one to five small changes to a good one, now and then none. */
export function mutator(corpus: readonly Buffer[], tokens: readonly (string | Buffer)[], maxBytes: number) {
  const scratch = new Scratch(maxBytes)
  const changes = changesOf(
    corpus,
    tokens.map((token) => Buffer.from(token as Buffer)),
  )
  return (below: Below): Buffer => {
    scratch.set(corpus[below(corpus.length)]!)
    if (below(64) !== 0) {
      for (let count = 1 + below(5); count > 0 && scratch.length > 0; count--) {
        changes[below(changes.length)]!(scratch, below)
      }
    }
    return Buffer.from(scratch.bytes.subarray(0, scratch.length))
  }
}
