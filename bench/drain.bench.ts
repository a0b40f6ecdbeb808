import type { Bench } from './harness/bench.ts'
import { cpuBetween, readCpu } from './harness/proc.ts'
import { able, deviceAt, fleet, startSide, stopSide } from './harness/sides.ts'
import { openMany } from './load/connects.ts'
import { type Device, sourceAddress } from './load/device.ts'

/** MQTT 5.0 §3.14. */
const DISCONNECT = 0xe0
const SLICE_MS = 100

export const bench: Bench = {
  title: 'How does it go away with 5,000 sessions on it?',
  about:
    'It is asked to end with a grace of five seconds, each in its own way: SIGTERM, or SIGUSR1 for HAProxy and SIGQUIT for nginx. A session is told when a DISCONNECT with a reason comes before the connection ends, and the most that end within a tenth of a second are those that come back at once elsewhere.',
  figures: {
    burst: { label: 'most ended in 0.1 s', unit: '', better: 'less' },
    told: { label: 'sessions told', unit: '%', better: 'more' },
    seconds: { label: 'until it has ended', unit: 's', better: 'less' },
    cpuUs: { label: 'CPU per session', unit: 'µs', better: 'less' },
  },
  async run(context) {
    const count = context.smoke ? 60 : 5_000
    const graceSeconds = context.smoke ? 1 : 5
    const identities = fleet(context.materials)
    const options = { setup: { graceSeconds } }
    for (const kind of able(context, options)) {
      if (kind.name === 'node') {
        context.gap({ case: null, peer: kind.name, reason: 'left out for time: it drains as on Bun' })
        continue
      }
      const side = await startSide(context, kind, options)
      const devices: Device[] = []
      try {
        for (let from = 0; from < count; from += 500) {
          context.progress(`${side.label}: ${from} of ${count} sessions`)
          devices.push(
            ...(await openMany(from, Math.min(count, from + 500), 16, (index) =>
              deviceAt(side, identities, index, { version: 5, localAddress: sourceAddress(index) }),
            )),
          )
        }
        let told = 0
        const endedAt: number[] = []
        const { promise: all, resolve } = Promise.withResolvers<void>()
        for (const device of devices) {
          device.onData = (chunk) => {
            if (chunk[0] === DISCONNECT) told++
          }
          device.onClose = () => {
            endedAt.push(performance.now())
            if (endedAt.length === count) resolve()
          }
        }
        context.progress(`${side.label}: ending`)
        const from = { at: performance.now(), cpu: readCpu(side.peer.pid) }
        let cpu = from.cpu
        const watch = setInterval(() => {
          const now = readCpu(side.peer.pid)
          if (now.threads.size >= cpu.threads.size) cpu = now
        }, 100)
        side.peer.drain()
        const patience = AbortSignal.timeout((graceSeconds + PATIENCE_SECONDS) * 1_000)
        await Promise.race([
          Promise.all([side.peer.ended, all]),
          new Promise((_, reject) => {
            patience.onabort = () =>
              reject(new Error(`${side.label} does not end: ${count - endedAt.length} sessions left`))
          }),
        ])
        patience.onabort = null
        clearInterval(watch)
        const values = {
          burst: mostWithin(endedAt, SLICE_MS),
          told: (told / count) * 100,
          seconds: (performance.now() - from.at) / 1_000,
          cpuUs: cpuBetween(from.cpu, cpu) / count,
        }
        context.measured({ case: `${count.toLocaleString('en-US')} sessions`, peer: side.label, round: 1, values })
      } finally {
        for (const device of devices) device.destroy()
        await stopSide(side)
      }
    }
  },
}

const PATIENCE_SECONDS = 20

/** The most of these moments that lie within one window; they come in order. */
export function mostWithin(times: readonly number[], windowMs: number): number {
  let most = 0
  let from = 0
  for (const [at, time] of times.entries()) {
    while (times[from]! <= time - windowMs) from++
    most = Math.max(most, at - from + 1)
  }
  return most
}
