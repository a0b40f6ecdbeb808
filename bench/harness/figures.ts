import type { Figure } from './bench.ts'

// Figures that several questions tell.

export const CPU: Figure = { label: 'CPU per operation', unit: 'µs', better: 'less' }
/** How much of its cores the proxy used: at 100 % it was the limit, below that the load was. */
export const BUSY: Figure = { label: 'proxy busy', unit: '%', better: 'less' }
export const RATE: Figure = { label: 'rate', unit: '/s', better: 'more' }

export const CONNECT_FIGURES: Readonly<Record<string, Figure>> = {
  cpuUs: { ...CPU, label: 'CPU per device' },
  perSecond: RATE,
  busy: BUSY,
  p50Ms: { label: 'CONNACK p50', unit: 'ms', better: 'less' },
  p99Ms: { label: 'CONNACK p99', unit: 'ms', better: 'less' },
}

export const PUBLISH_FIGURES: Readonly<Record<string, Figure>> = {
  cpuUs: { ...CPU, label: 'CPU per message' },
  perSecond: RATE,
  busy: BUSY,
}
