import { mkdirSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Broker, startBroker } from '../load/broker.ts'
import { createIdentity, type DeviceOptions, type Identity, openDevice } from '../load/device.ts'
import { type Materials, SERVER_NAME } from '../peers/materials.ts'
import { type Peer, type PeerKind, PLAIN, type Setup } from '../peers/peer.ts'
import type { Context } from './bench.ts'
import { coresFor } from './proc.ts'

// The peers of a question, each with a broker of its own, all running while one is loaded.

const SETTLE_WITHIN_MS = 10_000
/** What is still done for closed connections is done in this time. */
const QUIET_MS = 200

export interface Side {
  /** The peer's name, with what is special about it here. */
  readonly label: string
  readonly peer: Peer
  readonly broker: Broker
  readonly setup: Setup
}

export interface SidesOptions {
  readonly setup?: Partial<Setup>
  /** Only these of the peers that were asked for. */
  readonly only?: (kind: PeerKind) => boolean
  /** For gaps. */
  readonly case?: string
  /** What is told behind the name of the peer, where one is there more than once. */
  readonly suffix?: string
  /** The question needs counts that only the sink has. */
  readonly sinkOnly?: boolean
}

let started = 0

/** Starts whoever can do it, tells of those who cannot, and ends them all after `use`. */
export async function withSides(
  context: Context,
  options: SidesOptions | readonly SidesOptions[],
  use: (sides: readonly Side[]) => Promise<void>,
): Promise<void> {
  const sides: Side[] = []
  try {
    for (const plan of [options].flat()) {
      for (const kind of able(context, plan)) sides.push(await startSide(context, kind, plan))
    }
    if (sides.length > 0) await use(sides)
  } finally {
    for (const side of sides) await stopSide(side)
  }
}

export const setupOf = (options: SidesOptions): Setup => ({ ...PLAIN, ...options.setup })

export const isOurs = (kind: { readonly name: string }): boolean => kind.name !== 'haproxy' && kind.name !== 'nginx'

/** The peers that can; the others become gaps. */
export function able(context: Context, options: SidesOptions): readonly PeerKind[] {
  return context.kinds.filter((kind) => {
    if (options.only?.(kind) === false) return false
    const reason = kind.cannot(setupOf(options))
    if (reason !== null) context.gap({ case: options.case ?? null, peer: kind.name + (options.suffix ?? ''), reason })
    return reason === null
  })
}

export async function startSide(context: Context, kind: PeerKind, options: SidesOptions): Promise<Side> {
  const setup = setupOf(options)
  context.progress(`starting ${kind.name}`)
  const folder = join(context.materials.folder, `${kind.name}-${process.pid}-${started++}`)
  mkdirSync(folder, { mode: 0o700 })
  const broker = await startBroker(options.sinkOnly === false ? context.broker : 'sink', folder, context.cores.load)
  try {
    const { proxy: cores } = coresFor(setup.workers, availableParallelism())
    const peer = await kind.start({ materials: context.materials, setup, brokerPort: broker.port, cores, folder })
    return { label: kind.name + (options.suffix ?? ''), peer, broker, setup }
  } catch (error) {
    await broker.stop()
    throw error
  }
}

export async function stopSide({ peer, broker }: Side): Promise<void> {
  await peer.stop()
  await broker.stop()
}

/** Now one first, now the other: what the machine does meanwhile falls on all. */
export function inTurn<T>(sides: readonly T[], round: number): readonly T[] {
  const shift = round % sides.length
  return [...sides.slice(shift), ...sides.slice(0, shift)]
}

/** No connection to the broker is left of what was done, and the proxy has come to rest. */
export async function settled({ peer, broker }: Side): Promise<void> {
  const until = performance.now() + SETTLE_WITHIN_MS
  while ((broker.sink?.open ?? 0) > 0) {
    if (performance.now() > until) throw new Error(`${peer.name} still holds ${broker.sink?.open} connections`)
    await sleep(5)
  }
  await sleep(QUIET_MS)
}

/** Identities of the fleet, in turn. */
export function fleet({ caPem, devices }: Materials, serverName = SERVER_NAME): readonly Identity[] {
  return devices.map((device) => createIdentity(caPem, serverName, device))
}

export function deviceAt(
  side: Side,
  identities: readonly Identity[],
  index: number,
  more: Partial<DeviceOptions> = {},
): DeviceOptions {
  return {
    port: side.peer.ports.mqtt,
    identity: identities[index % identities.length]!,
    clientId: `device-${index.toString().padStart(6, '0')}`,
    ...more,
  }
}

/** A proxy that lets everybody in would be fast. */
export async function mustRefuse({ peer, broker }: Side, { caPem, devices, stranger }: Materials): Promise<void> {
  const refused: readonly (readonly [string, Identity])[] = [
    ['a device without a certificate', createIdentity(caPem, SERVER_NAME, null)],
    ['a device of another CA', createIdentity(caPem, SERVER_NAME, stranger)],
    // It has one certificate and no choice to make.
    ...(peer.name === 'nginx'
      ? []
      : [['an unknown server name', createIdentity(caPem, 'other.example.com', devices[0] ?? null)] as const]),
  ]
  for (const [who, identity] of refused) {
    const before = broker.sink?.connects
    const passed = await openDevice({ port: peer.ports.mqtt, identity, clientId: 'refused' }).then(
      (device) => {
        device.destroy()
        return true
      },
      () => false,
    )
    if (passed || broker.sink?.connects !== before) throw new Error(`${peer.name} lets in ${who}`)
  }
}
