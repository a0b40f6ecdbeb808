import type { Bench, Context } from './harness/bench.ts'
import { compareConnects } from './harness/compare.ts'
import { CONNECT_FIGURES } from './harness/figures.ts'
import { deviceAt, isOurs } from './harness/sides.ts'
import { createIdentity } from './load/device.ts'
import { startWebhook } from './load/webhook.ts'
import { TOKEN_NAME } from './peers/materials.ts'

export const bench: Bench = {
  title: 'What does a device with a token cost?',
  about:
    'As «handshake», by devices without certificate (ALPN mqtt) that a custom authorizer lets in: it is asked over HTTP each time, or its answer is shared for a minute between connections that sent the same.',
  figures: CONNECT_FIGURES,
  async run(context) {
    await connects(context, 'asked each time', null)
    await connects(context, 'answer shared', 60)
  },
}

/** So many devices in turn: twice those that are there at once, or one would take the place of itself. */
const RETURNING = 16

async function connects(context: Context, name: string, shareForSeconds: number | null): Promise<void> {
  const webhook = await startWebhook()
  const nobody = [createIdentity(context.materials.caPem, TOKEN_NAME, null)]
  let askedBefore = 0
  try {
    await compareConnects(context, {
      case: name,
      setup: {
        extra: { https: false, wss: false, authorizerUrl: webhook.url, signedTokens: false, shareForSeconds },
      },
      only: isOurs,
      device: (side, index) => ({
        ...deviceAt(side, nobody, index % RETURNING),
        port: side.peer.ports.web,
        alpn: 'mqtt',
        username: 'bench?token=allow',
        password: 'x',
      }),
      verify(side, done) {
        const asked = webhook.asked - askedBefore
        askedBefore = webhook.asked
        if (shareForSeconds === null ? asked < done : asked > done / 2) {
          throw new Error(`${side.label}: ${done} devices, and the authorizer was asked ${asked} times`)
        }
      },
    })
  } finally {
    await webhook.close()
  }
}
