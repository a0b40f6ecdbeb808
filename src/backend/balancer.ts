export type Balance = 'leastconn' | 'roundrobin'

/** How long a server is left alone after its first failure in a row; doubles with each further one. */
export const REST_MS = 1_000
export const MAX_REST_MS = 30_000

interface State {
  /** Streams open or being opened. */
  active: number
  /** Failures in a row; 0 is a server in good health. */
  failures: number
  /** On the clock given; until then the server is chosen only when nothing better is left. */
  restsUntilMs: number
}

/**
 * Chooses among the servers of one backend, by index. No sockets and no timers: the caller says what
 * happened, and the clock and the dice are arguments.
 *
 * - A server that failed rests 1 s, doubling to 30 s. Up to half of each rest is left to chance, so
 *   that many workers do not come back to a recovering broker in the same moment.
 * - After a rest one choice probes the server; the others go elsewhere until the probe succeeded.
 * - When every server rests, they are chosen all the same: perhaps is better than no.
 */
export class Balancer {
  readonly #balance: Balance
  readonly #nowMs: () => number
  readonly #random: () => number
  readonly #servers: readonly State[]
  #next = 0

  constructor(count: number, balance: Balance, nowMs: () => number, random: () => number) {
    this.#balance = balance
    this.#nowMs = nowMs
    this.#random = random
    this.#servers = Array.from({ length: count }, () => ({ active: 0, failures: 0, restsUntilMs: 0 }))
  }

  /** The server to try next, active from now until `ended`; null when all have been tried. */
  choose(tried: ReadonlySet<number>): number | null {
    const nowMs = this.#nowMs()
    let best: number | null = null
    // Each search starts behind the last choice: that is all of round robin, and breaks leastconn's ties.
    for (let step = 0; step < this.#servers.length; step++) {
      const at = (this.#next + step) % this.#servers.length
      if (!tried.has(at) && (best === null || this.#isBetter(at, best, nowMs))) best = at
    }
    if (best === null) return null
    this.#next = (best + 1) % this.#servers.length
    const server = this.#servers[best]!
    server.active++
    // A probe counts as failed until it has succeeded, which sends everybody else past this server.
    if (server.failures > 0 && server.restsUntilMs <= nowMs) this.#rest(server, nowMs)
    return best
  }

  succeeded(at: number): void {
    const server = this.#servers[at]!
    server.failures = 0
    server.restsUntilMs = 0
  }

  failed(at: number): void {
    const server = this.#servers[at]!
    const nowMs = this.#nowMs()
    // A hundred attempts under way when a broker dies are one failure, not a hundred in a row.
    if (server.restsUntilMs <= nowMs) this.#rest(server, nowMs)
  }

  ended(at: number): void {
    this.#servers[at]!.active--
  }

  #rest(server: State, nowMs: number): void {
    const restMs = Math.min(MAX_REST_MS, REST_MS * 2 ** server.failures)
    server.failures++
    server.restsUntilMs = nowMs + restMs * (1 - this.#random() / 2)
  }

  #isBetter(at: number, than: number, nowMs: number): boolean {
    const one = this.#servers[at]!
    const other = this.#servers[than]!
    const rests = one.restsUntilMs > nowMs
    if (rests !== other.restsUntilMs > nowMs) return !rests
    return this.#balance === 'leastconn' && one.active < other.active
  }
}
