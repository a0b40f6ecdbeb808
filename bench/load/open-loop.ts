// Arrivals on a fixed schedule, whatever the other side does: a proxy that stalls does not make its devices wait with
// their next message, so latency is counted from when a message was due, not from when we came to send it.

/** How many of `total` arrivals are due after so long, at so many per second; the first at once. */
export function due(elapsedMs: number, ratePerSecond: number, total: number): number {
  if (elapsedMs < 0) return 0
  return Math.min(total, Math.floor((elapsedMs * ratePerSecond) / 1_000 + 1e-9) + 1)
}

/** When an arrival is due, milliseconds after the first. */
export function dueAt(index: number, ratePerSecond: number): number {
  return (index * 1_000) / ratePerSecond
}

export interface OpenLoop {
  readonly ratePerSecond: number
  readonly total: number
  /** Sends arrival `index`, which was due at `dueMs` of the clock. Must not throw. */
  readonly fire: (index: number, dueMs: number) => void
  readonly clock?: () => number
  readonly wait?: (then: () => void) => void
}

/** A timer as fine as there is: what it is late by is part of the latency that is told. */
const NEXT_TICK_MS = 1

/** Resolves when the last arrival was sent; with how many were sent more than 20 ms after they were due. */
export function runOpenLoop(options: OpenLoop): Promise<{ readonly late: number }> {
  const { ratePerSecond, total, fire } = options
  const clock = options.clock ?? (() => performance.now())
  const wait = options.wait ?? ((then) => void setTimeout(then, NEXT_TICK_MS))
  const from = clock()
  let sent = 0
  let late = 0
  return new Promise((resolve) => {
    const tick = () => {
      for (let upTo = due(clock() - from, ratePerSecond, total); sent < upTo; sent++) {
        const dueMs = from + dueAt(sent, ratePerSecond)
        if (clock() - dueMs > LATE_MS) late++
        fire(sent, dueMs)
      }
      if (sent < total) wait(tick)
      else resolve({ late })
    }
    tick()
  })
}

const LATE_MS = 20
