/** What workers (and replicas) share. The memory version beside it is one process; `link.ts` reaches it over IPC. */
export interface Store {
  /**
   * Asks for a client id; claims of one key are decided one after the other, whoever asks. A session that loses its id
   * by it is told through `onLost`, in its own process.
   * Rejects when no answer could be had in time; nothing is claimed then.
   */
  claim(claim: Claim): Promise<ClaimAnswer>
  /** The session is over; says nothing when it has lost the key meanwhile. */
  release(key: string, session: string): void
  /** Told of sessions of this process that lost their key. Returns what ends the telling. */
  onLost(listener: (session: string) => void): () => void
}

export interface Claim {
  /** The client id as the broker sees it, and the backend. */
  readonly key: string
  /** Whoever is connected under a key lets only the same owner take it over. */
  readonly owner: string
  /** Unique within the fleet of processes. */
  readonly session: string
  /** Most claims of this key per second; null for no limit. */
  readonly perSecond: number | null
  /** True only asks: is it somebody else's? Nothing is claimed, counted or lost by it. */
  readonly tentative: boolean
}

export type ClaimAnswer =
  /** `version` counts the claims of this key that were granted; it begins again after an hour without one. */
  | { readonly kind: 'granted'; readonly version: number }
  /** Somebody else is connected under this key. */
  | { readonly kind: 'taken' }
  /** Too soon after the last one. */
  | { readonly kind: 'rate' }
