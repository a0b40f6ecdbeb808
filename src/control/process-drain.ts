import { type Clock, FAREWELL_SHARE, farewell, type Leaving, REAL_CLOCK } from './farewell.ts'
import type { Log } from './log.ts'
import type { MetricsParts } from './metrics.ts'

/** How one process is to end; goes over IPC as JSON. */
export interface DrainOrder {
  readonly graceMs: number
  /** Farewells a second of this process; null spreads them over the time there is. */
  readonly pacePerSecond: number | null
  /** Where devices of MQTT 5 are to go; null: the same address again. */
  readonly serverReference: string | null
  /**
   * What becomes of connections that were accepted and have no session yet: another process may have taken over, and
   * nobody shall notice (served), or there is none (turned away).
   */
  readonly newcomers: 'served' | 'turned away'
}

/** What a drain needs of a proxy that runs in this process. */
export interface Drainable {
  readonly live: { readonly connections: number }
  stopAccepting(): Promise<void>
  turnAway(parting: { readonly code: 'ERR_DRAINING'; readonly serverReference: string | null }): void
  stopEntering(): void
  leaving(): Iterable<Leaving>
  close(): Promise<void>
}

export interface DrainTold {
  readonly drains: MetricsParts['drains']
  readonly log: Log
  /** Connections that have not ended yet, every second or so. */
  readonly remaining?: (count: number) => void
  readonly clock?: Clock
}

/** Between two lines of the log about one drain. */
const LOG_EVERY_MS = 5_000
/** For the last words to brokers, after the grace period. */
const CLOSE_MS = 500
/** For those on their way in to come as far as CONNECT, at most. */
const ENTERING_MS = { served: 10_000, 'turned away': 1_000 } as const

/** Ends everything that lives in this process within the grace period. Returns how many connections were cut off. */
export async function drainProcess(running: Drainable, order: DrainOrder, told: DrainTold): Promise<number> {
  const { graceMs, pacePerSecond, serverReference, newcomers } = order
  const { drains, log, clock = REAL_CLOCK } = told
  const code = 'ERR_DRAINING'
  const remaining = () => running.live.connections
  const startedAt = clock.now()
  const at = remaining()
  drains.draining(true)
  await running.stopAccepting()
  if (newcomers === 'turned away') running.turnAway({ code, serverReference })
  const entering = setTimeout(() => running.stopEntering(), Math.min(ENTERING_MS[newcomers], graceMs * FAREWELL_SHARE))
  const mayLog = logPace(clock)
  try {
    const result = await farewell({
      code,
      serverReference,
      graceMs,
      pacePerSecond,
      here: () => running.leaving(),
      remaining,
      progress(progress) {
        drains.remaining('process', progress.remaining)
        told.remaining?.(progress.remaining)
        if (mayLog()) log.info({ ...progress }, 'draining')
      },
      clock,
    })
    drains.ended(result.left === 0 ? 'done' : 'cut')
    const facts = {
      connections: at,
      told: result.told,
      cut: result.left,
      durationMs: Math.round(clock.now() - startedAt),
    }
    if (result.left > 0) log.warn(facts, 'the grace period was too short: the connections that were left are cut off')
    else log.info(facts, 'drained')
    return result.left
  } finally {
    clearTimeout(entering)
    running.stopEntering()
    // What is under way toward brokers has had its time.
    if ((await Promise.race([running.close().then(() => true), clock.sleep(CLOSE_MS).then(() => false)])) === false) {
      log.warn({}, 'connections toward brokers were not closed in good order')
    }
  }
}

/** True at most every five seconds, from five seconds on: a line of the log may be written. */
export function logPace(clock: Clock): () => boolean {
  let loggedAt = clock.now()
  return () => {
    if (clock.now() - loggedAt < LOG_EVERY_MS) return false
    loggedAt = clock.now()
    return true
  }
}
