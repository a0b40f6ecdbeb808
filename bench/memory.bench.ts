import { setTimeout as sleep } from 'node:timers/promises'
import type { Bench } from './harness/bench.ts'
import { cpuBetween, readCpu, residentBytes } from './harness/proc.ts'
import { able, deviceAt, fleet, startSide, stopSide } from './harness/sides.ts'
import { openMany } from './load/connects.ts'
import { type Device, sourceAddress } from './load/device.ts'

/** A level that would begin later than this after the first is not begun. */
const PATIENCE_MS = 45_000

export const bench: Bench = {
  title: 'How much memory does an idle session hold?',
  about:
    'Devices connect to a fresh process with mutual TLS and stay silent. What is told is how much the resident memory of all its processes has grown since before the first, divided by the sessions, after two seconds of rest. Buffers of the kernel are not in it.',
  figures: {
    kilobytes: { label: 'per session', unit: 'KB', better: 'less' },
    megabytes: { label: 'resident in all', unit: 'MB', better: 'less' },
    idleCpu: { label: 'CPU at rest', unit: '%', better: 'less' },
  },
  async run(context) {
    const levels = context.smoke ? [100] : [1_000, 5_000, 9_000]
    const restMs = context.smoke ? 300 : 2_000
    const identities = fleet(context.materials)
    // One after the other: a machine holds only so many descriptors, and a level is reached once.
    for (const kind of able(context, {})) {
      const side = await startSide(context, kind, {})
      const devices: Device[] = []
      try {
        await sleep(restMs)
        const before = residentBytes(side.peer.pid)
        const begun = performance.now()
        for (const level of levels) {
          const name = `${level.toLocaleString('en-US')} sessions`
          if (performance.now() - begun > PATIENCE_MS) {
            context.gap({
              case: name,
              peer: side.label,
              reason: 'this machine was too busy to connect so many in time',
            })
            continue
          }
          const step = 500
          while (devices.length < level) {
            context.progress(`${side.label}: ${devices.length} of ${level} sessions`)
            const to = Math.min(level, devices.length + step)
            devices.push(
              ...(await openMany(devices.length, to, 16, (index) =>
                deviceAt(side, identities, index, { localAddress: sourceAddress(index) }),
              )),
            )
          }
          await sleep(restMs)
          const from = { cpu: readCpu(side.peer.pid), at: performance.now() }
          await sleep(restMs / 2)
          const idleCpu = cpuBetween(from.cpu, readCpu(side.peer.pid)) / 10 / (performance.now() - from.at)
          const after = residentBytes(side.peer.pid)
          const open = side.broker.sink!.open
          if (open !== level) throw new Error(`${side.label}: ${level} devices, the broker has ${open} connections`)
          const values = { kilobytes: (after - before) / level / 1_024, megabytes: after / 1_048_576, idleCpu }
          context.measured({ case: name, peer: side.label, round: 1, values })
        }
      } finally {
        for (const device of devices) device.destroy()
        await stopSide(side)
      }
    }
  },
}
