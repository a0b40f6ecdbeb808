import { setTimeout as sleep } from 'node:timers/promises'
import type { Bench } from './harness/bench.ts'
import { cpuBetween, readCpu, residentBytes } from './harness/proc.ts'
import { able, deviceAt, fleet, startSide, stopSide } from './harness/sides.ts'
import { openDevice } from './load/device.ts'

export const bench: Bench = {
  title: 'How soon does it serve?',
  about:
    'From the start of the process until it is ready (brokergate says so at /readyz, the others take a connection), and until the first device has its CONNACK; and the memory that it then has.',
  figures: {
    connackMs: { label: 'to the first CONNACK', unit: 'ms', better: 'less' },
    readyMs: { label: 'to ready', unit: 'ms', better: 'less' },
    cpuMs: { label: 'CPU until then', unit: 'ms', better: 'less' },
    megabytes: { label: 'resident then', unit: 'MB', better: 'less' },
  },
  async run(context) {
    const identities = fleet(context.materials)
    const kinds = able(context, {})
    for (let round = 1; round <= context.rounds; round++) {
      for (const kind of kinds) {
        const side = await startSide(context, kind, {})
        try {
          const { startedMs, pid } = side.peer
          const from = performance.now()
          const device = await openDevice(deviceAt(side, identities, 0))
          const connackMs = startedMs + performance.now() - from
          device.destroy()
          const cpuMs = cpuBetween(NOTHING, readCpu(pid)) / 1_000
          const megabytes = residentBytes(pid) / 1_048_576
          const values = { connackMs, readyMs: startedMs, cpuMs, megabytes }
          context.measured({ case: 'one worker', peer: side.label, round, values })
        } finally {
          await stopSide(side)
        }
        await sleep(50)
      }
    }
  },
}

const NOTHING = { threads: new Map<string, number>(), processes: new Map<number, number>() }
