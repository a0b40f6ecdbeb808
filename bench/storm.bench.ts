import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Bench, Context } from './harness/bench.ts'
import { cpuBetween, readCpu, startWorker } from './harness/proc.ts'
import { able, deviceAt, fleet, type Side, settled, startSide, stopSide } from './harness/sides.ts'
import { percentiles } from './harness/statistics.ts'
import { openMany } from './load/connects.ts'
import type { Device } from './load/device.ts'
import { payloadOf } from './load/packets.ts'
import { publishOpenLoop } from './load/publishers.ts'
import type { StormOptions, StormResult } from './load/storm.ts'
import { TOPIC_OF } from './peers/brokergate.ts'

const CALM = 'publish before the storm'
const DURING = 'publish during the storm'
/** The first storm finds a process that has just started, and code that has hardly run; the others what the first left. */
const AT_FIRST = 'publish during the first storm'
const STORMS = 3
/** A storm on Node takes its time, and the later ones tell little that the first does not. */
const stormsOn = (peer: string): number => (peer === 'node' ? 1 : STORMS)

export const bench: Bench = {
  title: 'What happens when 5,000 devices come back at once?',
  about:
    '5,000 devices with mutual TLS want to connect within one second and try again when they are refused, from a process of their own that yields to the measurement. Meanwhile 50 sessions publish at QoS 1 on a fixed schedule: latency counts from when each was due. The first of three storms finds a process that has just started.',
  figures: {
    seconds: { label: 'until the last is back', unit: 's', better: 'less' },
    p99Ms: { label: 'p99', unit: 'ms', better: 'less' },
    p50Ms: { label: 'p50', unit: 'ms', better: 'less' },
    maxMs: { label: 'worst', unit: 'ms', better: 'less' },
    refused: { label: 'refused tries', unit: '', better: 'less' },
    cpuUs: { label: 'CPU per device', unit: 'µs', better: 'less' },
    busy: { label: 'proxy busy', unit: '%', better: 'less' },
  },
  async run(context) {
    const rounds = context.smoke ? 1 : Math.max(1, Math.floor(context.rounds / 5))
    const kinds = able(context, {})
    for (const { name } of context.smoke ? [] : kinds) {
      if (stormsOn(name) < STORMS)
        context.gap({ case: DURING, peer: name, reason: 'left out for time: one storm only' })
    }
    for (let round = 1; round <= rounds; round++) {
      for (const kind of kinds) {
        context.progress(`round ${round} of ${rounds}, ${kind.name}`)
        const side = await startSide(context, kind, {})
        try {
          for (let nth = 0; nth < (context.smoke ? 2 : stormsOn(kind.name)); nth++) {
            if (nth > 0) await settled(side)
            await storm(
              context,
              side,
              nth === 0 ? { first: true, round } : { first: false, round: (round - 1) * (STORMS - 1) + nth },
            )
          }
        } finally {
          await stopSide(side)
        }
      }
    }
  },
}

async function storm(
  context: Context,
  side: Side,
  { first, round }: { readonly first: boolean; readonly round: number },
): Promise<void> {
  const size = context.smoke
    ? { devices: 80, publishers: 5, ratePerSecond: 50, calmMs: 400 }
    : { devices: 5_000, publishers: 50, ratePerSecond: 100, calmMs: 2_000 }
  const devices = await openMany(0, size.publishers, 8, (index) => deviceAt(side, fleet(context.materials), index))
  try {
    const calm = await publishing(devices, size.ratePerSecond, sleep(size.calmMs))
    if (!first) context.measured({ case: CALM, peer: side.label, round, values: percentiles(calm) })

    const connects = side.broker.sink!.connects
    const before = readCpu(side.peer.pid)
    const options: StormOptions = {
      folder: context.materials.folder,
      port: side.peer.ports.mqtt,
      devices: size.devices,
      overMs: 1_000,
      first: 0,
    }
    const worker = startWorker(join(import.meta.dirname, 'load/storm.ts'), options, context.cores.load)
    try {
      const result = worker.answer.then((line): StormResult => JSON.parse(line))
      const publishes = await publishing(devices, size.ratePerSecond, result)
      const { seconds, refused, p50Ms, p99Ms, maxMs } = await result
      const cpuUs = cpuBetween(before, readCpu(side.peer.pid))
      const came = side.broker.sink!.connects - connects
      if (came < size.devices) throw new Error(`${side.label}: ${size.devices} are back, the broker saw ${came}`)
      const values = { seconds, refused, p50Ms, p99Ms, maxMs }
      const more = { cpuUs: cpuUs / size.devices, busy: cpuUs / 1e4 / seconds }
      context.measured({
        case: `${DEVICES(size.devices)} come back${first ? ', just started' : ''}`,
        peer: side.label,
        round,
        values: { ...values, ...more },
      })
      context.measured({ case: first ? AT_FIRST : DURING, peer: side.label, round, values: percentiles(publishes) })
    } finally {
      await worker.stop()
    }
  } finally {
    for (const device of devices) device.destroy()
  }
}

const DEVICES = (count: number): string => `${count.toLocaleString('en-US')} devices`

/** Publishes in pieces of half a second until `until`; all latencies, sorted. */
async function publishing(
  devices: readonly Device[],
  ratePerSecond: number,
  until: Promise<unknown>,
): Promise<number[]> {
  let over = false
  const done = until.finally(() => {
    over = true
  })
  done.catch(() => {})
  const all: number[] = []
  do {
    const total = Math.max(1, Math.round(ratePerSecond / 2))
    const options = { devices, topic: TOPIC_OF, payload: payloadOf(128), ratePerSecond, total }
    all.push(...(await publishOpenLoop(options)).latenciesMs)
  } while (!over)
  await done
  return all.sort((a, b) => a - b)
}
