import type { Settings } from '../config/schema.ts'
import type { CloseReason } from '../connection.ts'
import type { Log } from '../control/log.ts'
import type { Metrics } from '../control/metrics.ts'
import { describe, Pressure, type PressureState } from '../control/pressure.ts'

/** Endings that are told by metrics and, where somebody looks for them, at level debug. */
export const QUIET: ReadonlySet<CloseReason> = new Set<CloseReason>([
  'probe',
  'ERR_HANDSHAKE_QUEUE',
  'ERR_HANDSHAKE_WAIT',
  'ERR_ADDRESS_CONNECTIONS',
  'ERR_ADDRESS_REFUSED',
])

/** Watches over this process; what it finds is in the log, once. */
export function watchPressure(
  { shedding }: Settings,
  log: Log,
  metrics: Metrics,
  changed: (state: PressureState) => void,
): Pressure {
  return new Pressure({
    settings: shedding,
    counters: metrics.admission,
    changed(state) {
      const words = describe(state)
      log[words === null ? 'info' : 'warn']({ event: 'pressure' }, words ?? 'no shedding any more')
      changed(state)
    },
  })
}
