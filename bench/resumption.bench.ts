import type { Bench } from './harness/bench.ts'
import { compareConnects } from './harness/compare.ts'
import { CONNECT_FIGURES } from './harness/figures.ts'

export const bench: Bench = {
  title: 'What does a device that comes back with a ticket cost?',
  about:
    'As «handshake», but each device resumes its TLS 1.3 session with the ticket that it was given last. Every handshake that is counted was a resumed one.',
  figures: CONNECT_FIGURES,
  run: (context) =>
    compareConnects(context, {
      case: 'TLS 1.3 tickets',
      setup: { resumption: true },
      sinkOnly: false,
      resumed: true,
    }),
}
