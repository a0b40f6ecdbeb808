/** What one HTTP connection may take. Durations in milliseconds, sizes in bytes. */
export interface HttpLimits {
  /** For a whole head: from the end of the handshake, later from its first byte. */
  readonly headerTimeoutMs: number
  /** For a whole body, from the moment its request is taken up. */
  readonly bodyTimeoutMs: number
  /** Between an answer and the first byte of the next request. */
  readonly idleTimeoutMs: number
  /** Request line and header fields together. */
  readonly headerBytes: number
  /** Number of header fields. */
  readonly headers: number
  /** Body of a request that is forwarded as it comes. */
  readonly bodyBytes: number
}

/** Payload of an HTTPS publish, and body of a request whose signature covers it: wire specification §3.4, §6. */
export const PUBLISH_BYTES = 131_072

/** A connection's whole life: wire specification §7.1, §8. */
export const LIFETIME_MS = 86_400_000

/** Requests that may wait behind the one being served; a client that pipelines more is cut off. */
export const MAX_WAITING = 16

/** How long the rest of a refused request is read and thrown away, so that the answer is not lost to a reset. */
export const LINGER_MS = 2_000
/** And at most so many bytes of what it was still sending: room for a body that was refused while it came. */
export const LINGER_BYTES = 262_144

/** Runs something later, and returns what calls it off. */
export type Timer = (run: () => void, ms: number) => () => void

export const timer: Timer = (run, ms) => {
  const timeout = setTimeout(run, ms)
  return () => clearTimeout(timeout)
}
