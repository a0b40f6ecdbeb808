import { type Connects, connectMany } from '../load/connects.ts'
import type { DeviceOptions } from '../load/device.ts'
import type { Context } from './bench.ts'
import { cpuBetween, readCpu } from './proc.ts'
import { deviceAt, fleet, inTurn, isOurs, type Side, type SidesOptions, settled, withSides } from './sides.ts'
import { percentiles } from './statistics.ts'

// Devices that connect and go, at all peers in turn.

export interface ConnectsQuestion extends SidesOptions {
  readonly case: string
  readonly resumed?: boolean
  /** More setups that are measured beside the first. */
  readonly beside?: readonly SidesOptions[]
  /** Another device than one with a certificate on the port of MQTT. */
  readonly device?: (side: Side, index: number) => DeviceOptions
  /** @throws when what was done is not what was asked; after each round. */
  readonly verify?: (side: Side, done: number) => void
  /** Once for each peer, before anything is measured. */
  readonly before?: (side: Side) => Promise<void>
}

interface Size {
  readonly perRound: number
  readonly withinMs: number
  /** Until what is compiled while it runs has been: brokergate needs seconds of that, the others none. */
  readonly warmUp: number
  readonly warmUpMs: { readonly ours: number; readonly others: number }
}

const FULL: Size = { perRound: 500, withinMs: 2_000, warmUp: 7_000, warmUpMs: { ours: 7_000, others: 800 } }
const SMOKE: Size = { perRound: 40, withinMs: 2_000, warmUp: 24, warmUpMs: { ours: 2_000, others: 2_000 } }
const CONCURRENCY = 8

export async function compareConnects(context: Context, question: ConnectsQuestion): Promise<void> {
  const { resumed: resumes = false } = question
  const size = context.smoke ? SMOKE : FULL
  const identities = fleet(context.materials)
  await withSides(context, [question, ...(question.beside ?? [])], async (sides) => {
    const tickets = new Map(sides.map((side) => [side, new Map<number, Buffer>()]))
    const deviceOf = (side: Side) => (index: number) => {
      if (question.device !== undefined) return question.device(side, index)
      const at = index % RETURNING
      const mine = tickets.get(side)!
      if (!resumes) return deviceAt(side, identities, index)
      const onSession = (ticket: Buffer) => void mine.set(at, ticket)
      return deviceAt(side, identities, at, { session: mine.get(at), onSession })
    }
    for (const side of sides) {
      context.progress(`${question.case}: warming up ${side.peer.name}`)
      await question.before?.(side)
      await connects(side, size.warmUp, isOurs(side.peer) ? size.warmUpMs.ours : size.warmUpMs.others, deviceOf(side))
    }
    const seen = new Map<string, string>()
    for (let round = 1; round <= context.rounds; round++) {
      for (const side of inTurn(sides, round)) {
        context.progress(`${question.case}: round ${round} of ${context.rounds}, ${side.peer.name}`)
        const before = { cpu: readCpu(side.peer.pid), connects: side.broker.sink?.connects ?? null }
        const { done, resumed, seconds, latenciesMs, facts } = await connects(
          side,
          size.perRound,
          size.withinMs,
          deviceOf(side),
        )
        const cpuUs = cpuBetween(before.cpu, readCpu(side.peer.pid))
        const after = side.broker.sink?.connects ?? null
        if (after !== null && after - before.connects! !== done) {
          throw new Error(`${side.peer.name}: ${done} devices connected, the broker saw ${after - before.connects!}`)
        }
        if (facts === null || resumed !== (resumes ? done : 0)) {
          throw new Error(`${side.peer.name}: ${resumed} of ${done} handshakes were resumed`)
        }
        question.verify?.(side, done)
        seen.set(side.label, `${facts.protocol} ${facts.cipher}`)
        const { p50Ms, p99Ms } = percentiles(latenciesMs)
        const values = {
          cpuUs: cpuUs / done,
          perSecond: done / seconds,
          busy: cpuUs / 1e4 / seconds,
          p50Ms,
          p99Ms,
        }
        context.measured({
          case: question.case,
          peer: side.label,
          round,
          values,
          facts: { ...facts, operations: done },
        })
      }
    }
    if (new Set(seen.values()).size > 1) throw new Error(`not the same work: ${JSON.stringify([...seen])}`)
  })
}

/** How many devices the tickets are kept of; each comes back in turn. */
const RETURNING = 16

async function connects(
  side: Side,
  count: number,
  withinMs: number,
  device: (index: number) => DeviceOptions,
): Promise<Connects> {
  const result = await connectMany({ count, concurrency: CONCURRENCY, withinMs, device })
  const { done, failed, firstFailure } = result
  if (done === 0 || failed > 0) {
    throw new Error(`${side.label}: ${failed} of ${done + failed} failed: ${firstFailure}`)
  }
  await settled(side)
  return result
}
