import type { Bench } from './harness/bench.ts'
import { BUSY, CPU, RATE } from './harness/figures.ts'
import { cpuBetween, readCpu } from './harness/proc.ts'
import { type Crowd, crowdOf, leave } from './harness/publish.ts'
import { inTurn, withSides } from './harness/sides.ts'
import { percentiles } from './harness/statistics.ts'
import { subscribed } from './load/device.ts'
import { runOpenLoop } from './load/open-loop.ts'
import { payloadOf, publishPacket } from './load/packets.ts'

export const bench: Bench = {
  title: 'What does a message to a hundred devices cost?',
  about:
    'One operation is the delivery of a QoS 0 PUBLISH of 128 B from the broker to one of 100 subscribed devices; the broker sends to all at once, on a fixed schedule, and latency counts from when it was due until the device has it.',
  figures: {
    cpuUs: { ...CPU, label: 'CPU per delivery' },
    p50Ms: { label: 'delivered p50', unit: 'ms', better: 'less' },
    p99Ms: { label: 'delivered p99', unit: 'ms', better: 'less' },
    perSecond: RATE,
    busy: BUSY,
  },
  async run(context) {
    await withSides(context, {}, async (sides) => {
      const crowds = []
      for (const side of sides) {
        const crowd = await crowdOf(context, side)
        for (const device of crowd.devices) await subscribed(device, `fleet/+/${device.clientId}/#`)
        crowds.push(crowd)
      }
      const [ratePerSecond, perRound] = context.smoke ? [20, 6] : [80, 80]
      for (let round = 0; round <= context.rounds; round++) {
        for (const crowd of inTurn(crowds, round)) {
          context.progress(`round ${round} of ${context.rounds}, ${crowd.label}`)
          const before = readCpu(crowd.side.peer.pid)
          const { latenciesMs, seconds } = await fanOut(crowd, ratePerSecond, perRound)
          const cpuUs = cpuBetween(before, readCpu(crowd.side.peer.pid))
          if (round === 0) continue
          const operations = latenciesMs.length
          const { p50Ms, p99Ms } = percentiles(latenciesMs)
          const values = {
            cpuUs: cpuUs / operations,
            p50Ms,
            p99Ms,
            perSecond: operations / seconds,
            busy: cpuUs / 1e4 / seconds,
          }
          context.measured({
            case: 'QoS 0, 128 B, 100 devices',
            peer: crowd.label,
            round,
            values,
            facts: { operations },
          })
        }
      }
      leave(crowds)
    })
  },
}

const WITHIN_MS = 15_000

/** @throws when a device does not get its messages, whole */
async function fanOut({ side, devices }: Crowd, ratePerSecond: number, messages: number) {
  const packet = publishPacket('fleet/plant-7/all/command', payloadOf(128), 0)
  const dueTimes: number[] = []
  const latenciesMs: number[] = []
  const total = messages * devices.length
  const { promise: all, resolve, reject } = Promise.withResolvers<void>()
  all.catch(() => {})
  for (const device of devices) {
    let bytes = 0
    let seen = 0
    device.onClose = () => reject(new Error(`${device.clientId} was closed`))
    device.onData = (chunk) => {
      const now = performance.now()
      for (bytes += chunk.length; bytes >= packet.length; bytes -= packet.length) {
        latenciesMs.push(now - dueTimes[seen++]!)
      }
      if (latenciesMs.length === total) resolve()
    }
  }
  const from = performance.now()
  await runOpenLoop({
    ratePerSecond,
    total: messages,
    fire(_, dueMs) {
      dueTimes.push(dueMs)
      const reached = side.broker.sink!.publish(packet)
      if (reached !== devices.length) reject(new Error(`${reached} subscribers, ${devices.length} devices`))
    },
  })
  const timer = setTimeout(() => reject(new Error(`${latenciesMs.length} of ${total} were delivered`)), WITHIN_MS)
  try {
    await all
  } finally {
    clearTimeout(timer)
    for (const device of devices) device.onClose = () => {}
  }
  return { latenciesMs: latenciesMs.sort((a, b) => a - b), seconds: (performance.now() - from) / 1_000 }
}
