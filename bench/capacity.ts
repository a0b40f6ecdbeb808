import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { short } from './harness/statistics.ts'
import { type Answer, cellOf } from './harness/summary.ts'

// A fleet's size → cores and memory, with constants that were measured.

interface Constant {
  readonly key: keyof Constants
  readonly what: string
  readonly unit: string
  readonly from: { readonly question: string; readonly case: string; readonly figure: string }
}

/** Of one worker. */
export interface Constants {
  readonly connectUs: number
  readonly resumedUs: number
  readonly messageUs: number
  readonly deliveryUs: number
  readonly sessionKb: number
  readonly processMb: number
}

const CONSTANTS: readonly Constant[] = [
  {
    key: 'connectUs',
    what: 'CPU of a device that connects',
    unit: 'µs',
    from: { question: 'handshake', case: 'certificates of a CA', figure: 'cpuUs' },
  },
  {
    key: 'resumedUs',
    what: 'CPU of one that comes back with a ticket',
    unit: 'µs',
    from: { question: 'resumption', case: 'TLS 1.3 tickets, certificates of a CA', figure: 'cpuUs' },
  },
  {
    key: 'messageUs',
    what: 'CPU of a QoS 1 message of 128 B, alone, with 20 statements',
    unit: 'µs',
    from: { question: 'policy', case: 'QoS 1, 128 B, one in flight', figure: 'cpuUs' },
  },
  {
    key: 'deliveryUs',
    what: 'CPU of a delivery to a device',
    unit: 'µs',
    from: { question: 'fan-out', case: 'QoS 0, 128 B, 100 devices', figure: 'cpuUs' },
  },
  {
    key: 'sessionKb',
    what: 'memory of an idle session',
    unit: 'KB',
    from: { question: 'memory', case: '5,000 sessions', figure: 'kilobytes' },
  },
  {
    key: 'processMb',
    what: 'memory of a worker before its first session',
    unit: 'MB',
    from: { question: 'start', case: 'one worker', figure: 'megabytes' },
  },
]

const PEER = 'brokergate'

/** Rows of RESULTS.md, which `constantsOf` reads back. */
export function capacityRows(answers: readonly Answer[]): readonly (readonly string[])[] {
  return CONSTANTS.map(({ what, unit, from }) => {
    const cell = cellOf(answers, { ...from, peer: PEER })
    return [what, cell === null ? '–' : `${short(cell.spread.median)} ${unit}`, `${from.question}, ${from.case}`]
  })
}

/** The constants in a RESULTS.md; NaN for what was not measured. */
export function constantsOf(page: string): Constants {
  const entries = CONSTANTS.map(({ key, what }) => {
    const cells = page
      .split('\n')
      .find((line) => line.startsWith(`| ${what} |`))
      ?.split('|')
    return [key, Number.parseFloat(cells?.[2]?.replaceAll(',', '') ?? '')] as const
  })
  const read: Partial<Record<keyof Constants, number>> = Object.fromEntries(entries)
  const of = (key: keyof Constants): number => read[key] ?? Number.NaN
  return {
    connectUs: of('connectUs'),
    resumedUs: of('resumedUs'),
    messageUs: of('messageUs'),
    deliveryUs: of('deliveryUs'),
    sessionKb: of('sessionKb'),
    processMb: of('processMb'),
  }
}

export interface Fleet {
  readonly devices: number
  /** Full handshakes a second. */
  readonly connects: number
  /** Those that come back with a ticket. */
  readonly resumed: number
  /** Messages a second, from devices and to them. */
  readonly messages: number
  readonly deliveries: number
}

export interface Need {
  readonly cores: number
  readonly memoryMb: number
}

/** Of a core, so much is used on average: the rest is for moments that are not. */
export const USED_SHARE = 0.6

/** What does not happen needs no constant. */
const work = (perSecond: number, us: number): number => (perSecond === 0 ? 0 : perSecond * us)

export function need(fleet: Fleet, constants: Constants): Need {
  const cpuUs =
    work(fleet.connects, constants.connectUs) +
    work(fleet.resumed, constants.resumedUs) +
    work(fleet.messages, constants.messageUs) +
    work(fleet.deliveries, constants.deliveryUs)
  const cores = cpuUs / 1e6 / USED_SHARE
  const memoryMb = Math.max(1, Math.ceil(cores)) * constants.processMb + (fleet.devices * constants.sessionKb) / 1_024
  return { cores, memoryMb }
}

/** `devices=100000,connects=50,messages=20000`; null when it is not of this form. */
export function parseFleet(text: string): Fleet | null {
  const fleet = { devices: 0, connects: 0, resumed: 0, messages: 0, deliveries: 0 }
  for (const part of text.split(',')) {
    const [, name, value] = /^(devices|connects|resumed|messages|deliveries)=(\d+)$/.exec(part.trim()) ?? []
    if (name === undefined) return null
    fleet[name as keyof Fleet] = Number(value)
  }
  return fleet
}

/** Prints what a fleet needs; the exit code. */
export function capacityText(text: string): number {
  const fleet = parseFleet(text)
  if (fleet === null) {
    process.stderr.write(
      '--capacity takes devices=N,connects=N,resumed=N,messages=N,deliveries=N; what is left out is 0\n',
    )
    return 2
  }
  let page: string
  try {
    page = readFileSync(join(import.meta.dirname, 'RESULTS.md'), 'utf8')
  } catch {
    process.stderr.write('there are no results yet: npm run bench -- --results\n')
    return 1
  }
  const { cores, memoryMb } = need(fleet, constantsOf(page))
  if (!Number.isFinite(cores) || !Number.isFinite(memoryMb)) {
    process.stderr.write('the last results lack a constant that this needs\n')
    return 1
  }
  process.stdout.write(
    `${short(cores)} cores (so ${Math.max(1, Math.ceil(cores))} workers) and ${short(memoryMb)} MB, like those of bench/RESULTS.md\n`,
  )
  return 0
}
