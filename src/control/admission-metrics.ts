import type { Metric } from 'prom-client'

/** Why somebody was turned away before or instead of work, as `admission_refusals_total` names it. */
export const ADMISSION_REFUSALS = [
  'handshake_queue',
  'handshake_wait',
  'address_connections',
  'address_refused',
  'certificate_refused',
  'domain_sessions',
  'principal_sessions',
  'overloaded',
] as const
export type AdmissionRefusal = (typeof ADMISSION_REFUSALS)[number]

/** What can be short. */
export const PRESSURES = ['lag', 'memory', 'descriptors'] as const
export type PressureReason = (typeof PRESSURES)[number]

/** Written by the governor and the watch over this process with plain assignments, and read by the scrape. */
export interface AdmissionCounters {
  /** Hellos that wait for their handshake. */
  queued: number
  readonly inFlight: { full: number; resumed: number }
  /** Handshakes begun, of each kind as claimed. */
  readonly started: { full: number; resumed: number }
  /** Resumptions that were claimed and turned out full. */
  falseClaims: number
  readonly refused: Record<AdmissionRefusal, number>
  /** Stage by reason: 0 none, 1 few full handshakes, 2 no new connections. */
  readonly shedding: Record<PressureReason, number>
}

export function admissionCounters(): AdmissionCounters {
  const refused = Object.fromEntries(ADMISSION_REFUSALS.map((reason) => [reason, 0]))
  return {
    queued: 0,
    inFlight: { full: 0, resumed: 0 },
    started: { full: 0, resumed: 0 },
    falseClaims: 0,
    // `fromEntries` gives every reason a number; its type forgets which reasons.
    refused: refused as Record<AdmissionRefusal, number>,
    shedding: { lag: 0, memory: 0, descriptors: 0 },
  }
}

/** What these metrics are made with: `createMetrics` knows the table. */
export interface AdmissionMakers {
  counter(
    name: 'admission_refusals_total' | 'handshakes_started_total' | 'resumption_claims_failed_total',
    collect: (set: (labels: Record<string, string>, value: number) => void) => void,
  ): Metric
  gauge(
    name: 'handshakes_queued' | 'handshakes_in_flight' | 'shedding',
    collect: (set: (labels: Record<string, string>, value: number) => void) => void,
  ): Metric
}

export function admissionMetrics(counters: AdmissionCounters, { counter, gauge }: AdmissionMakers): void {
  counter('admission_refusals_total', (set) => {
    for (const reason of ADMISSION_REFUSALS) set({ reason }, counters.refused[reason])
  })
  counter('handshakes_started_total', (set) => {
    for (const kind of ['full', 'resumed'] as const) set({ kind }, counters.started[kind])
  })
  counter('resumption_claims_failed_total', (set) => set({}, counters.falseClaims))
  gauge('handshakes_queued', (set) => set({}, counters.queued))
  gauge('handshakes_in_flight', (set) => {
    for (const kind of ['full', 'resumed'] as const) set({ kind }, counters.inFlight[kind])
  })
  gauge('shedding', (set) => {
    for (const reason of PRESSURES) set({ reason }, counters.shedding[reason])
  })
}
