import { openMany } from '../load/connects.ts'
import type { Device } from '../load/device.ts'
import { type PublishLoad, publishFor } from '../load/publishers.ts'
import type { Context } from './bench.ts'
import { cpuBetween, readCpu } from './proc.ts'
import { deviceAt, fleet, inTurn, isOurs, type Side } from './sides.ts'

// Sessions that stay and publish, at all peers in turn.

export interface Crowd {
  readonly side: Side
  readonly label: string
  readonly devices: readonly Device[]
}

export const SESSIONS = { full: 100, smoke: 8 }

export async function crowdOf(context: Context, side: Side): Promise<Crowd> {
  context.progress(`connecting devices to ${side.label}`)
  const identities = fleet(context.materials)
  const count = context.smoke ? SESSIONS.smoke : SESSIONS.full
  const devices = await openMany(0, count, 16, (index) => deviceAt(side, identities, index))
  const suites = new Set(devices.map(({ facts }) => `${facts.protocol} ${facts.cipher}`))
  if (suites.size > 1) throw new Error(`${side.label}: not the same work: ${[...suites].join(', ')}`)
  return { side, label: side.label, devices }
}

export interface PublishCase {
  readonly name: string
  readonly load: PublishLoad
}

/** `loadOf` lets a crowd wrap its packets in its own way. */
export async function comparePublishes(
  context: Context,
  crowds: readonly Crowd[],
  cases: readonly PublishCase[],
  loadOf: (crowd: Crowd, load: PublishLoad) => PublishLoad = (_, load) => load,
): Promise<void> {
  const [rampMs, measureMs] = context.smoke ? [20, 100] : [80, 500]
  // As for connections: what is compiled while it runs needs its time, the others none.
  const warmUpMs = (crowd: Crowd): number => (context.smoke ? 50 : isOurs(crowd.side.peer) ? 1_000 : 600)
  const suites = new Set(crowds.map(({ devices }) => devices[0]!.facts.cipher))
  if (suites.size > 1) throw new Error(`not the same work: ${[...suites].join(', ')}`)
  for (const { name, load } of cases) {
    // Round 0 warms up.
    for (let round = 0; round <= context.rounds; round++) {
      for (const crowd of inTurn(crowds, round)) {
        context.progress(`${name}: round ${round} of ${context.rounds}, ${crowd.label}`)
        const { peer, broker } = crowd.side
        const published = await publishFor({
          devices: crowd.devices,
          load: loadOf(crowd, load),
          sink: broker.sink,
          rampMs,
          measureMs: round === 0 ? warmUpMs(crowd) : measureMs,
          read: () => readCpu(peer.pid),
        }).catch((error: Error) => {
          throw new Error(`${crowd.label}, ${name}, round ${round}: ${error.message}`)
        })
        if (round === 0) continue
        const { operations, seconds } = published
        const cpuUs = cpuBetween(published.before, published.after)
        const values = { cpuUs: cpuUs / operations, perSecond: operations / seconds, busy: cpuUs / 1e4 / seconds }
        context.measured({ case: name, peer: crowd.label, round, values, facts: { operations } })
      }
    }
  }
}

export function leave(crowds: readonly Crowd[]): void {
  for (const { devices } of crowds) for (const device of devices) device.destroy()
}
