import type { Bench } from './harness/bench.ts'
import { compareConnects } from './harness/compare.ts'
import { CONNECT_FIGURES } from './harness/figures.ts'
import { mustRefuse } from './harness/sides.ts'

export const bench: Bench = {
  title: 'What does a device that connects cost?',
  about:
    'One operation is TCP, a full mutual TLS 1.3 handshake, the connection to the broker, CONNECT, CONNACK, DISCONNECT, and the end of both connections; eight devices at a time, of a fleet with a certificate each.',
  figures: CONNECT_FIGURES,
  async run(context) {
    await compareConnects(context, {
      case: 'certificates of a CA',
      setup: {},
      sinkOnly: false,
      before: (side) => mustRefuse(side, context.materials),
    })
    await compareConnects(context, {
      case: 'registered devices, 20-statement policy',
      setup: { trust: 'registry', policyStatements: 20 },
      sinkOnly: false,
      before: (side) => mustRefuse(side, context.materials),
    })
  },
}
