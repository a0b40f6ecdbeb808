import { writeSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { percentiles } from '../harness/statistics.ts'
import { readMaterials, SERVER_NAME } from '../peers/materials.ts'
import { createIdentity, type Device, openDevice, sourceAddress } from './device.ts'
import { runOpenLoop } from './open-loop.ts'

// bun bench/load/storm.ts <options as JSON>
// Many devices that want to be back at once, in a process beside the one whose latencies are measured. Each tries again
// after a random while when it is not let in, as devices do, and stays. One line of JSON when the last is back; ends with
// its input.

export interface StormOptions {
  readonly folder: string
  readonly port: number
  readonly devices: number
  /** They first try evenly over so long. */
  readonly overMs: number
  readonly first: number
}

export interface StormResult {
  /** From the first try until the last device is back. */
  readonly seconds: number
  /** Tries that were not let in. */
  readonly refused: number
  /** From when a device first wanted to until it was back. */
  readonly p50Ms: number
  readonly p99Ms: number
  readonly maxMs: number
}

const RETRY_MS = { least: 200, most: 1_000 }
const GIVE_UP_MS = 120_000

if (import.meta.main) {
  const options: StormOptions = JSON.parse(process.argv[2]!)
  const { folder, port, devices, overMs, first } = options
  const { caPem, devices: pairs } = readMaterials(folder)
  const identities = pairs.map((pair) => createIdentity(caPem, SERVER_NAME, pair))
  const here: Device[] = []
  const latenciesMs: number[] = []
  let refused = 0
  const from = performance.now()
  const back = Promise.withResolvers<void>()

  const come = async (index: number, dueMs: number): Promise<void> => {
    for (;;) {
      try {
        const device = { port, identity: identities[index % identities.length]!, clientId: `storm-${first + index}` }
        here.push(await openDevice({ ...device, dueMs, localAddress: sourceAddress(index) }))
        latenciesMs.push(performance.now() - dueMs)
        if (here.length === devices) back.resolve()
        return
      } catch (error) {
        refused++
        if (performance.now() - from > GIVE_UP_MS) {
          back.reject(error)
          return
        }
        await sleep(RETRY_MS.least + Math.random() * (RETRY_MS.most - RETRY_MS.least))
      }
    }
  }
  await runOpenLoop({
    ratePerSecond: (devices * 1_000) / overMs,
    total: devices,
    fire: (index, dueMs) => void come(index, dueMs),
  })
  await back.promise
  const seconds = (performance.now() - from) / 1_000
  const { p50Ms, p99Ms, maxMs } = percentiles(latenciesMs.sort((a, b) => a - b))
  writeSync(1, `${JSON.stringify({ seconds, refused, p50Ms, p99Ms, maxMs } satisfies StormResult)}\n`)
  process.stdin.on('end', () => process.exit()).resume()
}
