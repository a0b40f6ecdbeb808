import type { Bench } from './harness/bench.ts'
import { PUBLISH_FIGURES } from './harness/figures.ts'
import { comparePublishes, crowdOf, leave, type PublishCase } from './harness/publish.ts'
import { inTurn, withSides } from './harness/sides.ts'
import { percentiles } from './harness/statistics.ts'
import { payloadOf } from './load/packets.ts'
import { publishOpenLoop } from './load/publishers.ts'
import { TOPIC_OF } from './peers/brokergate.ts'

const KIB = 1_024

const CASES: readonly (readonly [name: string, qos: 0 | 1, inFlight: number, bytes: number])[] = [
  ['QoS 1, 128 B, one in flight', 1, 1, 128],
  ['QoS 1, 128 B, 16 in flight', 1, 16, 128],
  ['QoS 0, 128 B, one in flight', 0, 1, 128],
  ['QoS 0, 128 B, bursts of 16', 0, 16, 128],
  ['QoS 0, 64 B, bursts of 64', 0, 64, 64],
  ['QoS 1, 1 KiB, 16 in flight', 1, 16, KIB],
  ['QoS 1, 16 KiB, one in flight', 1, 1, 16 * KIB],
  ['QoS 1, 128 KiB, one in flight', 1, 1, 128 * KIB],
]

/** What every peer can bear while it shares a machine with its load. */
const OPEN_LOOP = { full: { ratePerSecond: 1_000, total: 1_000 }, smoke: { ratePerSecond: 200, total: 40 } }

export const bench: Bench = {
  title: 'What does a message to the broker cost?',
  about:
    'One operation is a PUBLISH from one of 100 sessions to the broker, with its PUBACK at QoS 1; so many are in flight on each session at any time. In an open loop they are sent on a fixed schedule, and latency counts from when each was due.',
  figures: {
    ...PUBLISH_FIGURES,
    p50Ms: { label: 'PUBACK p50', unit: 'ms', better: 'less' },
    p99Ms: { label: 'PUBACK p99', unit: 'ms', better: 'less' },
  },
  async run(context) {
    await withSides(context, { sinkOnly: false }, async (sides) => {
      const crowds = []
      for (const side of sides) crowds.push(await crowdOf(context, side))
      const cases = CASES.map(([name, qos, inFlight, bytes]): PublishCase => {
        return { name, load: { qos, inFlight, payload: payloadOf(bytes), topic: TOPIC_OF } }
      }).filter(({ name, load }) => {
        if (context.broker === 'sink' || load.qos === 1) return true
        context.gap({ case: name, peer: null, reason: 'QoS 0 in flight is counted at the sink' })
        return false
      })
      await comparePublishes(context, crowds, cases)
      const { ratePerSecond, total } = context.smoke ? OPEN_LOOP.smoke : OPEN_LOOP.full
      const name = `QoS 1, 128 B, open loop of ${ratePerSecond} a second`
      for (let round = 1; round <= context.rounds; round++) {
        for (const { label, devices } of inTurn(crowds, round)) {
          context.progress(`${name}: round ${round} of ${context.rounds}, ${label}`)
          const options = { devices, topic: TOPIC_OF, payload: payloadOf(128), ratePerSecond, total }
          const { latenciesMs, late } = await publishOpenLoop(options)
          const { p50Ms, p99Ms } = percentiles(latenciesMs)
          context.measured({ case: name, peer: label, round, values: { p50Ms, p99Ms }, facts: { late } })
        }
      }
      leave(crowds)
    })
  },
}
