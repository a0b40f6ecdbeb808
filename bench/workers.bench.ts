import type { Bench } from './harness/bench.ts'
import { compareConnects } from './harness/compare.ts'
import { CONNECT_FIGURES } from './harness/figures.ts'

/** Cores that two workers and their load want. */
const ENOUGH = 4

export const bench: Bench = {
  title: 'What do two workers cost, and what do they give?',
  about:
    'As «handshake», with one worker on one core and two on two. Where there are only two cores, two workers share one of them with the load: then the rate says nothing, and only the CPU time per device counts.',
  figures: CONNECT_FIGURES,
  references: ['brokergate, one worker', 'haproxy, one worker'],
  async run(context) {
    const only = ({ name }: { readonly name: string }) => ['brokergate', 'haproxy'].includes(name)
    if (context.cores.proxy.length + context.cores.load.length < ENOUGH) {
      context.gap({
        case: 'rate',
        peer: null,
        reason: `two workers and their load want ${ENOUGH} cores; here are fewer`,
      })
    }
    await compareConnects(context, {
      case: 'full handshakes',
      only,
      suffix: ', one worker',
      beside: [{ only, setup: { workers: 2 }, suffix: ', two workers' }],
    })
  },
}
