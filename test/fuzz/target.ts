import { createHash } from 'node:crypto'
import { randomFrom } from '../support/random.ts'

/** Whole numbers in [0, below). */
export type Below = (below: number) => number

/** One parser under fire, and what must hold of its answer to any bytes at all. */
export interface Target {
  readonly name: string
  /** Inputs that are right. */
  corpus(): readonly Buffer[]
  /** Pieces of the language, put in and written over. */
  readonly tokens?: readonly (string | Buffer)[]
  readonly maxBytes: number
  /** Kinds of answers that a campaign must meet: one that only ever hits the first check tests the first check. */
  readonly kinds: readonly string[]
  /** Cases of one run of `npm test`. */
  readonly cases: number
  /**
   * Answers with the kind of answer. Whatever it throws is a finding: that of the parser which may not throw, or that of
   * `must`. `below` depends on nothing but the input, so that a finding can be had again from its bytes alone.
   */
  check(input: Buffer, below: Below): string | Promise<string>
}

export function must(holds: boolean, what: string): asserts holds {
  if (!holds) throw new Error(what)
}

const hashOf = (input: Buffer): Buffer => createHash('sha256').update(input).digest()

/** The same input, the same numbers. FNV-1a, because it stands before every case. */
export function belowOf(input: Buffer): Below {
  let hash = 0x811c9dc5
  for (let at = 0; at < input.length; at++) hash = Math.imul(hash ^ input[at]!, 0x01000193)
  return randomFrom(hash)
}

export const fixtureName = (target: string, input: Buffer): string =>
  `${target}-${hashOf(input).toString('hex').slice(0, 12)}`

/** Cuts the input into one to four pieces, some of them of one byte; the same bytes together. */
export function pieces(input: Buffer, below: Below): Buffer[] {
  const cuts = Array.from({ length: 1 + below(3) }, () => below(input.length + 1)).sort((a, b) => a - b)
  const all: Buffer[] = []
  let from = 0
  for (const cut of [...cuts, input.length]) {
    // A copy: who keeps a piece may not see the next one behind it.
    if (cut > from) all.push(Buffer.from(input.subarray(from, cut)))
    from = cut
  }
  return all
}

/**
 * The bytes behind a counter: every index that is read is one look, and one outside is told. For readers that use nothing
 * but indices, `length` and `subarray`.
 */
export function counted(bytes: Uint8Array): { readonly view: Uint8Array; looks(): number; outside(): number } {
  let looks = 0
  let outside = 0
  const wrap = (target: Uint8Array): Uint8Array =>
    new Proxy(target, {
      get(_, key) {
        if (key === 'length') return target.length
        if (key === 'subarray') return (from: number, to: number) => wrap(target.subarray(from, to))
        if (typeof key !== 'string' || !/^-?\d+$/.test(key)) throw new Error(`the parser uses ${String(key)}`)
        looks += 1
        if (!(Number(key) >= 0 && Number(key) < target.length)) outside += 1
        return target[Number(key)]
      },
    })
  return { view: wrap(bytes), looks: () => looks, outside: () => outside }
}
