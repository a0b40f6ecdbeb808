import type { Bench, Context } from './harness/bench.ts'
import { BUSY, CPU, RATE } from './harness/figures.ts'
import { cpuBetween, readCpu } from './harness/proc.ts'
import { deviceAt, inTurn, type Side, type SidesOptions, settled, withSides } from './harness/sides.ts'
import { createIdentity, openDevice } from './load/device.ts'
import { helloWithoutServerName, refusedHello } from './load/hello.ts'
import { startWebhook } from './load/webhook.ts'
import { SERVER_NAME, TOKEN_NAME } from './peers/materials.ts'

export const bench: Bench = {
  title: 'What does a stranger cost?',
  about:
    'One operation is a TCP connection that is refused and closed: for a ClientHello without server name, a certificate of another CA, or a token with a signature of nobody (ALPN mqtt). Every one is seen to be refused, and the broker sees none of them.',
  figures: { cpuUs: { ...CPU, label: 'CPU per refusal' }, perSecond: RATE, busy: BUSY },
  async run(context) {
    const hello = await helloWithoutServerName()
    const hellos = { case: 'no server name', setup: { strictSni: true }, warmUp: 15_000, perRound: 5_000 }
    await refusals(context, hellos, (side) => refusedHello(side.peer.ports.mqtt, hello))
    const stranger = [createIdentity(context.materials.caPem, SERVER_NAME, context.materials.stranger)]
    const certificates = { case: 'certificate of another CA', warmUp: 2_000, perRound: 1_000 }
    await refusals(context, certificates, async (side, index) => {
      await mustFail(openDevice(deviceAt(side, stranger, index)))
    })
    const nobody = [createIdentity(context.materials.caPem, TOKEN_NAME, null)]
    const webhook = await startWebhook()
    try {
      const extra = { https: false, wss: false, authorizerUrl: webhook.url, signedTokens: true, shareForSeconds: null }
      const tokens = { case: 'token with a bad signature', setup: { extra }, warmUp: 2_000, perRound: 1_000 }
      await refusals(context, tokens, async (side, index) => {
        const username = `bench?token=${index}&token-signature=${encodeURIComponent(BAD_SIGNATURE)}`
        const device = deviceAt(side, nobody, index, { alpn: 'mqtt', username, password: 'x' })
        await mustFail(openDevice({ ...device, port: side.peer.ports.web }))
      })
      if (webhook.asked > 0) throw new Error('the authorizer was asked about a token with a bad signature')
    } finally {
      await webhook.close()
    }
  },
}

/** As long as one by an RSA key of 2,048 bits. */
const BAD_SIGNATURE = Buffer.alloc(256, 7).toString('base64')

const CONCURRENCY = 8
/** A round is over then, however few there were. */
const ROUND_MS = 1_500
const WARM_UP_MS = 3_000

interface Options extends SidesOptions {
  readonly case: string
  /** Refusals before anything is measured, and in a round. */
  readonly warmUp: number
  readonly perRound: number
}

async function refusals(context: Context, options: Options, one: (side: Side, index: number) => Promise<void>) {
  const { warmUp, perRound } = context.smoke ? { warmUp: 20, perRound: 60 } : options
  const many = async (side: Side, count: number, withinMs: number) => {
    let next = 0
    const from = performance.now()
    const lane = async () => {
      while (next < count && performance.now() - from < withinMs) await one(side, next++)
    }
    await Promise.all(Array.from({ length: CONCURRENCY }, lane))
    const seconds = (performance.now() - from) / 1_000
    await settled(side)
    return { seconds, count: next }
  }
  await withSides(context, options, async (sides) => {
    for (const side of sides) await many(side, warmUp, WARM_UP_MS)
    for (let round = 1; round <= context.rounds; round++) {
      for (const side of inTurn(sides, round)) {
        context.progress(`${options.case}: round ${round} of ${context.rounds}, ${side.label}`)
        const before = readCpu(side.peer.pid)
        const { seconds, count } = await many(side, perRound, ROUND_MS)
        const cpuUs = cpuBetween(before, readCpu(side.peer.pid))
        if ((side.broker.sink?.connects ?? 0) > 0) throw new Error(`${side.label}: a stranger came to the broker`)
        const values = { cpuUs: cpuUs / count, perSecond: count / seconds, busy: cpuUs / 1e4 / seconds }
        context.measured({ case: options.case, peer: side.label, round, values })
      }
    }
  })
}

async function mustFail(opening: ReturnType<typeof openDevice>): Promise<void> {
  const device = await opening.catch(() => null)
  if (device === null) return
  device.destroy()
  throw new Error('a stranger was let in')
}
