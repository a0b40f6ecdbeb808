import type { Readiness } from './http.ts'
import { describe, type PressureState } from './pressure.ts'

// What the primary knows of its workers' pressure.

interface Notice {
  readonly brokergate: 'pressure'
  readonly state: PressureState
}

export const pressureNotice = (state: PressureState): Notice => ({ brokergate: 'pressure', state })

export interface PressurePrimary {
  /** True when it was for here. */
  heard(data: unknown, workerId: number): boolean
  ended(workerId: number): void
  /** In words, by worker; null where all is well. */
  of(workerId: number): string | null
  /** Ready is who has a worker that takes devices in. */
  readiness(readyWorkers: readonly number[]): Readiness
}

export function pressurePrimary(): PressurePrimary {
  const states = new Map<number, PressureState>()
  const of = (workerId: number): string | null => {
    const state = states.get(workerId)
    return state === undefined ? null : describe(state)
  }
  return {
    heard(data, workerId) {
      const { brokergate, state } = (data ?? {}) as Partial<Notice>
      if (brokergate !== 'pressure' || state === undefined) return false
      states.set(workerId, state)
      return true
    },
    ended: (workerId) => void states.delete(workerId),
    of,
    readiness(readyWorkers) {
      if (readyWorkers.length === 0) return { ready: false, reason: 'no worker is ready' }
      if (readyWorkers.some((id) => states.get(id)?.ready ?? true)) return { ready: true, reason: null }
      return { ready: false, reason: of(readyWorkers[0]!) }
    },
  }
}

/** Of a process that does it all. */
export const readinessOf = (state: PressureState): Readiness =>
  state.ready ? { ready: true, reason: null } : { ready: false, reason: describe(state) }
