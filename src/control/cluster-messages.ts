import type { DrainOrder } from './process-drain.ts'
import type { Snapshot } from './snapshots.ts'

// What a primary and its workers say to each other. `message` carries what others say over the same channel.

export type ToWorker =
  | { readonly brokergate: 'scrape'; readonly request: number }
  | { readonly brokergate: 'drain'; readonly order: DrainOrder }
  | { readonly brokergate: 'message'; readonly data: unknown }

export type ToPrimary =
  | { readonly brokergate: 'ready' }
  /** Connections that a drain has not ended yet. */
  | { readonly brokergate: 'left'; readonly remaining: number }
  | { readonly brokergate: 'snapshot'; readonly request: number | null; readonly snapshot: Snapshot }
  | { readonly brokergate: 'message'; readonly data: unknown }

/** For the last messages of a worker that is already gone. */
export const LAST_WORDS_MS = 500
