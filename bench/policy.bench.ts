import type { Bench } from './harness/bench.ts'
import { PUBLISH_FIGURES } from './harness/figures.ts'
import { comparePublishes, crowdOf, leave } from './harness/publish.ts'
import { isOurs, withSides } from './harness/sides.ts'
import { payloadOf } from './load/packets.ts'
import { TOPIC_OF } from './peers/brokergate.ts'

const CASES = [
  { name: 'QoS 1, 128 B, one in flight', qos: 1, inFlight: 1 },
  { name: 'QoS 1, 128 B, 16 in flight', qos: 1, inFlight: 16 },
  { name: 'QoS 0, 128 B, bursts of 16', qos: 0, inFlight: 16 },
] as const

export const bench: Bench = {
  title: 'What does it cost to ask the policy for each message?',
  about:
    'As «publish», with registered devices whose policy has 20 statements with variables and wildcards; the one that allows is among the last, and a Deny is looked at each time. Beside it, in the same run, a policy that allows everything, and relays that have none.',
  figures: PUBLISH_FIGURES,
  references: ['brokergate, open', 'haproxy', 'nginx'],
  async run(context) {
    await withSides(
      context,
      [
        { setup: { trust: 'registry', policyStatements: 20 }, only: isOurs },
        { only: isOurs, suffix: ', open' },
        { only: (kind) => !isOurs(kind) },
      ],
      async (sides) => {
        if (!sides.some(({ setup }) => setup.policyStatements > 1)) return
        const crowds = []
        for (const side of sides) crowds.push(await crowdOf(context, side))
        const cases = CASES.map(({ name, qos, inFlight }) => {
          return { name, load: { qos, inFlight, payload: payloadOf(128), topic: TOPIC_OF } }
        })
        await comparePublishes(context, crowds, cases)
        leave(crowds)
      },
    )
  },
}
