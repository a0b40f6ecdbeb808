import { availableParallelism } from 'node:os'
import type { DrainedServers } from '../backend/drained.ts'
import { serverNames } from '../backend/server-names.ts'
import type { Settings } from '../config/schema.ts'
import type { Log } from '../control/log.ts'
import type { MetricsParts } from '../control/metrics.ts'
import type { DrainOrder } from '../control/process-drain.ts'
import { Emptier } from '../control/server-drains.ts'
import type { LiveSession } from '../mqtt/session-contract.ts'

/** The end of the instance: nobody is left to serve those who are still on the way in. */
export function shutdownOrder({ drain }: Pick<Settings, 'drain'>): DrainOrder {
  const { grace: graceMs, pace: pacePerSecond, serverReference } = drain
  return { graceMs, pacePerSecond, serverReference, newcomers: 'turned away' }
}

/** The end of one worker whose place is taken: its devices come back to the same address, and nobody is refused. */
export function restartOrder(settings: Pick<Settings, 'drain'>): DrainOrder {
  return { ...shutdownOrder(settings), serverReference: null, newcomers: 'served' }
}

/** What may be drained, by backend. */
export function serversOf({ backends }: Pick<Settings, 'backends'>): ReadonlyMap<string, readonly string[]> {
  return new Map(Object.entries(backends).map(([name, backend]) => [name, serverNames(backend)]))
}

export interface EmptyingOptions {
  readonly drained: DrainedServers
  readonly sessions: () => Iterable<LiveSession>
  /** Those in force. */
  readonly settings: () => Settings
  readonly log: Log
  readonly metrics: Pick<MetricsParts, 'drains'>
}

/** Ends the sessions of drained servers in this process, at its share of the pace. */
export function emptierOf({ settings, metrics, ...rest }: EmptyingOptions): Emptier {
  return new Emptier({
    ...rest,
    backends: () => Object.keys(settings().backends),
    order() {
      const { workers, drain } = settings()
      const processes = workers === 'auto' ? availableParallelism() : workers
      return { graceMs: drain.grace, pacePerSecond: drain.pace === null ? null : drain.pace / processes }
    },
    drains: metrics.drains,
  })
}
