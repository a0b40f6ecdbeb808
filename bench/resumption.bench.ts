import type { Bench } from './harness/bench.ts'
import { compareConnects } from './harness/compare.ts'
import { CONNECT_FIGURES } from './harness/figures.ts'

export const bench: Bench = {
  title: 'What does a device that comes back with a ticket cost?',
  about:
    'As «handshake», but each device resumes its TLS 1.3 session with the ticket that it was given last. Every handshake that is counted was a resumed one.',
  figures: CONNECT_FIGURES,
  async run(context) {
    await compareConnects(context, {
      case: 'TLS 1.3 tickets, certificates of a CA',
      setup: { resumption: true },
      sinkOnly: false,
      resumed: true,
    })
    await compareConnects(context, {
      case: 'TLS 1.3 tickets, registered devices',
      setup: { resumption: true, trust: 'registry' },
      sinkOnly: false,
      resumed: true,
    })
  },
}
