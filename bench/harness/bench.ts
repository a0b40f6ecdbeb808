import type { Materials } from '../peers/materials.ts'
import type { PeerKind } from '../peers/peer.ts'
import type { Cores } from './proc.ts'

/** One thing that is told of each measurement. */
export interface Figure {
  readonly label: string
  readonly unit: 'µs' | 'ms' | 's' | 'KB' | 'MB' | '/s' | '%' | ''
  readonly better: 'less' | 'more'
}

/** What a file `<question>.bench.ts` exports as `bench`. */
export interface Bench {
  /** The question, in words. */
  readonly title: string
  /** What one operation is, and how it is measured. */
  readonly about: string
  /** By the names of the values; the first is the one that is drawn. */
  readonly figures: Readonly<Record<string, Figure>>
  /** Whose figures the others are told as shares of; HAProxy and nginx unless told. */
  readonly references?: readonly string[]
  /** @throws when there is no answer */
  run(context: Context): Promise<void>
}

export type BrokerKind = 'sink' | 'mosquitto'

export interface Options {
  readonly smoke: boolean
  readonly rounds: number
  readonly broker: BrokerKind
  /** Names of peers; brokergate comes first. */
  readonly peers: readonly string[]
}

/** What a question is given. */
export interface Context extends Options {
  readonly kinds: readonly PeerKind[]
  readonly materials: Materials
  readonly cores: Cores
  /** One measurement of one peer. */
  measured(what: Omit<Measurement, 'type' | 'question'>): void
  /** What cannot be answered, and why: never silently. */
  gap(what: Omit<Gap, 'type' | 'question'>): void
  progress(text: string): void
}

export interface Measurement {
  readonly type: 'measurement'
  readonly question: string
  readonly case: string
  readonly peer: string
  readonly round: number
  readonly values: Readonly<Record<string, number>>
  /** What all peers had in common, or what else is worth knowing. */
  readonly facts?: Readonly<Record<string, unknown>>
}

export interface Gap {
  readonly type: 'gap'
  readonly question: string
  /** Null: no case of it. */
  readonly case: string | null
  /** Null: nobody. */
  readonly peer: string | null
  readonly reason: string
}

export interface Progress {
  readonly type: 'progress'
  readonly text: string
}

export interface Failure {
  readonly type: 'failure'
  readonly question: string
  readonly reason: string
}

/** A line that a question's process writes. */
export type Line = Measurement | Gap | Progress | Failure
