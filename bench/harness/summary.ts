import type { Figure, Gap, Measurement } from './bench.ts'
import { ratio, type Spread, spread } from './statistics.ts'

// Measurements of all rounds become one answer: medians and spread by case, peer and figure.

export interface Cell {
  readonly spread: Spread
  /** Of the same figure of another peer, round by round. */
  readonly ratios: Readonly<Record<string, Spread>>
}

export interface PeerAnswer {
  readonly peer: string
  readonly cells: Readonly<Record<string, Cell>>
}

export interface CaseAnswer {
  readonly name: string
  readonly peers: readonly PeerAnswer[]
}

export interface Answer {
  readonly question: string
  readonly title: string
  readonly about: string
  readonly figures: Readonly<Record<string, Figure>>
  /** Peers that the others are told as shares of, where they were measured. */
  readonly references: readonly string[]
  readonly cases: readonly CaseAnswer[]
  readonly gaps: readonly Gap[]
  /** Null when it was answered. */
  readonly failure: string | null
  readonly seconds: number
}

export function casesOf(
  measurements: readonly Measurement[],
  figures: Readonly<Record<string, Figure>>,
  /** Their order; a name may have something behind it. */
  order: readonly string[],
): CaseAnswer[] {
  const names = unique(measurements.map((one) => one.case))
  return names.map((name) => {
    const ofCase = measurements.filter((one) => one.case === name)
    const place = (peer: string) => order.findIndex((one) => peer === one || peer.startsWith(`${one},`))
    const peers = unique(ofCase.map(({ peer }) => peer)).toSorted((a, b) => place(a) - place(b) || a.localeCompare(b))
    const series = (peer: string, figure: string) =>
      new Map(
        ofCase.flatMap(({ peer: whose, round, values }) => {
          const value = values[figure]
          return whose === peer && value !== undefined && Number.isFinite(value) ? [[round, value] as const] : []
        }),
      )
    return {
      name,
      peers: peers.map((peer) => ({ peer, cells: cellsOf(peer, peers, series, Object.keys(figures)) })),
    }
  })
}

function cellsOf(
  peer: string,
  peers: readonly string[],
  series: (peer: string, figure: string) => ReadonlyMap<number, number>,
  figures: readonly string[],
): Record<string, Cell> {
  const cells: Record<string, Cell> = {}
  for (const figure of figures) {
    const mine = series(peer, figure)
    if (mine.size === 0) continue
    const ratios: Record<string, Spread> = {}
    for (const other of peers) {
      const found = other === peer ? null : ratio(mine, series(other, figure))
      if (found !== null) ratios[other] = found
    }
    cells[figure] = { spread: spread([...mine.values()]), ratios }
  }
  return cells
}

const unique = (values: readonly string[]): readonly string[] => [...new Set(values)]

/** HAProxy and nginx, or what stands in for them: the last of the peers where none of these was measured. */
export function referencesOf({ references }: Pick<Answer, 'references'>, { peers }: CaseAnswer): readonly string[] {
  if (peers.length < 2) return []
  const measured = references.filter((name) => peers.some(({ peer }) => peer === name))
  return measured.length > 0 ? measured : [peers.at(-1)!.peer]
}

/** The cell of an answer, or null. */
export function cellOf(
  answers: readonly Answer[],
  where: { readonly question: string; readonly case: string; readonly peer: string; readonly figure: string },
): Cell | null {
  const found = answers
    .find(({ question }) => question === where.question)
    ?.cases.find(({ name }) => name === where.case)
  return found?.peers.find(({ peer }) => peer === where.peer)?.cells[where.figure] ?? null
}
