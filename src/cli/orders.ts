import { serverNames } from '../backend/server-names.ts'
import type { Settings } from '../config/schema.ts'
import type { DrainOrder } from '../control/process-drain.ts'

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
