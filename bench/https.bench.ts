import type { Bench, Context } from './harness/bench.ts'
import { BUSY, CPU, RATE } from './harness/figures.ts'
import { cpuBetween, readCpu } from './harness/proc.ts'
import { fleet, inTurn, type Side, withSides } from './harness/sides.ts'
import { percentiles } from './harness/statistics.ts'
import type { Identity } from './load/device.ts'
import { type HttpConnection, openHttp, publishRequest } from './load/http.ts'
import { payloadOf } from './load/packets.ts'
import { SERVER_NAME } from './peers/materials.ts'

const CASES = [
  { name: 'QoS 0, kept connections', qos: 0, kept: true },
  { name: 'QoS 1, kept connections', qos: 1, kept: true },
  { name: 'QoS 0, a new connection each', qos: 0, kept: false },
  { name: 'QoS 1, a new connection each', qos: 1, kept: false },
] as const

type Case = (typeof CASES)[number]

const OK = 200

export const bench: Bench = {
  title: 'What does a publish over HTTPS cost?',
  about:
    'One operation is a POST of 128 B by a device with a certificate until its answer 200, for QoS 1 after the PUBACK of the broker: over 16 connections that are kept, or each over a connection of its own with a full mutual handshake.',
  figures: {
    cpuUs: { ...CPU, label: 'CPU per publish' },
    perSecond: RATE,
    busy: BUSY,
    p50Ms: { label: 'answer p50', unit: 'ms', better: 'less' },
    p99Ms: { label: 'answer p99', unit: 'ms', better: 'less' },
  },
  async run(context) {
    const extra = { https: true, wss: false, authorizerUrl: null, signedTokens: false, shareForSeconds: null }
    await withSides(context, { setup: { extra } }, async (sides) => {
      const identities = fleet(context.materials)
      for (const one of CASES) {
        for (let round = 0; round <= context.rounds; round++) {
          for (const side of inTurn(sides, round)) {
            context.progress(`${one.name}: round ${round} of ${context.rounds}, ${side.label}`)
            const values = await publishes(context, side, identities, one)
            if (round > 0) context.measured({ case: one.name, peer: side.label, round, values })
          }
        }
      }
    })
  },
}

/** A round is over then, however few there were. */
const ROUND_MS = 1_500

const LANES = { kept: 16, fresh: 8 }

async function publishes(context: Context, side: Side, identities: readonly Identity[], { qos, kept }: Case) {
  const most = context.smoke ? 60 : kept ? 2_000 : 250
  const payload = payloadOf(128)
  const port = side.peer.ports.https
  const request = publishRequest(SERVER_NAME, 'fleet/plant-7/https/state', qos, payload)
  const sink = side.broker.sink!
  const atSink = () => (qos === 0 ? sink.qos0 : sink.qos1)
  const latenciesMs: number[] = []
  let next = 0
  let from = 0
  const more = () => next < most && performance.now() - from < ROUND_MS
  const open = (index: number) => openHttp(port, identities[index % identities.length]!)
  const one = async (connection: HttpConnection, begun: number) => {
    const status = await connection.ask(request)
    if (status !== OK) throw new Error(`${side.label}: a publish was answered ${status}`)
    latenciesMs.push(performance.now() - begun)
  }
  const connections = kept ? await Promise.all(Array.from({ length: LANES.kept }, (_, at) => open(at))) : []
  const lanes = kept
    ? connections.map((connection) => async () => {
        while (more()) {
          next++
          await one(connection, performance.now())
        }
      })
    : Array.from({ length: LANES.fresh }, () => async () => {
        while (more()) {
          const begun = performance.now()
          const connection = await open(next++)
          await one(connection, begun)
          await connection.close()
        }
      })
  from = performance.now()
  const before = { cpu: readCpu(side.peer.pid), sink: atSink(), at: from }
  await Promise.all(lanes.map((lane) => lane()))
  const seconds = (performance.now() - before.at) / 1_000
  const count = latenciesMs.length
  const cpuUs = cpuBetween(before.cpu, readCpu(side.peer.pid))
  for (const connection of connections) await connection.close()
  // At QoS 0 the answer may be ahead of the broker.
  const until = performance.now() + 2_000
  while (atSink() - before.sink < count && performance.now() < until) await new Promise((then) => setTimeout(then, 5))
  if (atSink() - before.sink !== count) {
    throw new Error(`${side.label}: ${count} publishes, ${atSink() - before.sink} came to the broker`)
  }
  const { p50Ms, p99Ms } = quantiles(latenciesMs)
  return { cpuUs: cpuUs / count, perSecond: count / seconds, busy: cpuUs / 1e4 / seconds, p50Ms, p99Ms }
}

const quantiles = (values: readonly number[]) => percentiles(values.toSorted((a, b) => a - b))
