import { rmSync } from 'node:fs'
import { availableParallelism, cpus, release } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import { connectMany, connectOnce, createDevice, type Device, type Facts } from './support/load.ts'
import { type Materials, makeMaterials, PEERS, type Peer, SERVER_NAME } from './support/peers.ts'
import { canPin, cpuBetween, pinSelf, readCpu, temporaryFolder } from './support/proc.ts'
import { type Sink, startSink } from './support/sink.ts'

/**
 * What does a device that connects cost? A full mutual TLS 1.3 handshake, the connection to the broker, CONNECT and
 * CONNACK, and the end of it all: CPU time of all the proxy's processes per device, beside HAProxy in the same run.
 */
export const question = 'handshake'

const PROXY_CORE = 0
const LOAD_CORE = 1
const SETTLE_WITHIN_MS = 5_000
/** What is still done for closed connections is done in this time. */
const QUIET_MS = 300

interface Size {
  readonly rounds: number
  readonly warmUp: number
  readonly perRound: number
  readonly concurrency: number
  readonly roundWithinMs: number
}

const FULL: Size = { rounds: 9, warmUp: 8_000, perRound: 1_000, concurrency: 8, roundWithinMs: 20_000 }
const SMOKE: Size = { rounds: 2, warmUp: 50, perRound: 100, concurrency: 8, roundWithinMs: 2_000 }

interface Side {
  readonly peer: Peer
  readonly sink: Sink
  readonly cpuUs: number[]
}

/** Prints a JSON line per measurement on standard output and a table on standard error. @throws when there is no answer */
export async function run({ smoke }: { readonly smoke: boolean }): Promise<void> {
  const size = smoke ? SMOKE : FULL
  const cores = availableParallelism()
  if (cores > 1) pinSelf(LOAD_CORE)
  const pinned = canPin && cores > 1
  const folder = temporaryFolder('brokergate-bench-')
  const sides: Side[] = []
  try {
    const materials = makeMaterials(folder)
    for (const kind of PEERS) {
      if (kind.version() === null) {
        if (!smoke) throw new Error(`${kind.name} is not installed, so there is nothing to compare with`)
        process.stderr.write(`${kind.name} is not installed: not compared\n`)
        continue
      }
      const sink = await startSink()
      try {
        sides.push({ peer: await kind.start(materials, sink.port, PROXY_CORE), sink, cpuUs: [] })
      } catch (error) {
        await sink.close()
        throw error
      }
    }
    print({ question, smoke, pinned, cores, cpu: cpus()[0]?.model, kernel: release(), load: runtime(), ...size })
    const device = createDevice(materials.caPem, SERVER_NAME, materials.device)
    const facts = new Set<string>()
    for (const side of sides) {
      await mustRefuse(side, materials)
      await load(side, device, size, size.warmUp)
    }
    for (let round = 1; round <= size.rounds; round++) {
      // Now one first, now the other: what the machine does meanwhile falls on both.
      for (const side of round % 2 === 1 ? sides : sides.toReversed()) {
        const measured = await measure(side, device, size)
        side.cpuUs.push(measured.cpuUs)
        facts.add(JSON.stringify(measured.facts))
        print({ question, peer: side.peer.name, version: side.peer.version, round, ...measured })
      }
    }
    if (facts.size !== 1) throw new Error(`not the same work: ${[...facts].join(', ')}`)
    report(sides, pinned)
  } finally {
    for (const { peer, sink } of sides) {
      await peer.stop()
      await sink.close()
    }
    rmSync(folder, { recursive: true, force: true })
  }
}

/** A proxy that lets everybody in would be fast. */
async function mustRefuse({ peer, sink }: Side, { caPem, device, stranger }: Materials): Promise<void> {
  for (const [who, refused] of [
    ['a device without a certificate', createDevice(caPem, SERVER_NAME, null)],
    ['a device of another CA', createDevice(caPem, SERVER_NAME, stranger)],
    ['an unknown server name', createDevice(caPem, 'other.example.com', device)],
  ] as const) {
    const before = sink.connects
    const passed = await connectOnce(peer.port, refused, 'refused').then(
      () => true,
      () => false,
    )
    if (passed || sink.connects !== before) throw new Error(`${peer.name} lets in ${who}`)
  }
}

async function load(side: Side, device: Device, size: Size, count: number) {
  const { concurrency, roundWithinMs: withinMs } = size
  const result = await connectMany({ port: side.peer.port, device, count, concurrency, withinMs })
  if (result.done === 0 || result.failed > 0) {
    throw new Error(
      `${side.peer.name}: ${result.failed} of ${result.done + result.failed} failed: ${result.firstFailure}`,
    )
  }
  await settled(side)
  return result
}

async function settled({ peer, sink }: Side): Promise<void> {
  const until = performance.now() + SETTLE_WITHIN_MS
  while (sink.open > 0) {
    if (performance.now() > until) throw new Error(`${peer.name} still holds ${sink.open} connections to the broker`)
    await sleep(10)
  }
  await sleep(QUIET_MS)
}

interface Measured {
  readonly operations: number
  /** CPU time of the proxy per operation, microseconds. */
  readonly cpuUs: number
  readonly perSecond: number
  readonly p50Ms: number
  readonly p99Ms: number
  readonly facts: Facts
}

async function measure(side: Side, device: Device, size: Size): Promise<Measured> {
  const connects = side.sink.connects
  const before = readCpu(side.peer.pid)
  const { done, seconds, latenciesMs, facts } = await load(side, device, size, size.perRound)
  const cpu = cpuBetween(before, readCpu(side.peer.pid))
  if (side.sink.connects - connects !== done)
    throw new Error(`${side.peer.name}: the broker saw another number of devices`)
  if (facts === null || facts.resumed) throw new Error(`${side.peer.name}: not a full handshake`)
  return {
    operations: done,
    cpuUs: rounded(cpu / done),
    perSecond: rounded(done / seconds),
    p50Ms: quantile(latenciesMs, 0.5),
    p99Ms: quantile(latenciesMs, 0.99),
    facts,
  }
}

function report(sides: readonly Side[], pinned: boolean): void {
  const reference = sides.find(({ peer }) => peer.name === 'haproxy')?.cpuUs
  const rows = sides.map(({ peer, cpuUs }) => {
    const cpu = spread(cpuUs)
    // Round by round: what the machine did in a round, it did to both.
    const ratio =
      reference === undefined
        ? null
        : spread(
            cpuUs.map((value, round) => value / reference[round]!),
            2,
          )
    const { name, version } = peer
    print({ question, peer: name, version, summary: true, pinned, rounds: cpuUs.length, cpuUs: cpu, ofHaproxy: ratio })
    return [
      name,
      `${cpu.median}`,
      `${cpu.min}–${cpu.max}`,
      ratio === null ? '–' : `${ratio.median} (${ratio.min}–${ratio.max})`,
      version,
    ]
  })
  const table = [['proxy', 'µs CPU', 'range', 'of haproxy', 'version'], ...rows]
  const widths = table[0]!.map((_, column) => Math.max(...table.map((row) => row[column]!.length)))
  process.stderr.write('\nFull mTLS handshake, CONNECT and CONNACK: CPU per device, median of the rounds\n')
  for (const row of table) {
    const line = row.map((cell, column) => cell.padEnd(widths[column]!)).join('  ')
    process.stderr.write(`${line.trimEnd()}\n`)
  }
  if (!pinned) process.stderr.write('Not pinned: proxies and load shared cores, take the figures with care.\n')
}

function spread(values: readonly number[], digits = 1) {
  const sorted = values.toSorted((a, b) => a - b)
  const [min, median, max] = [0, 0.5, 1].map((share) => quantile(sorted, share, digits))
  return { median, min, max }
}

function print(line: object): void {
  process.stdout.write(`${JSON.stringify(line)}\n`)
}

function quantile(sorted: readonly number[], share: number, digits = 1): number {
  const at = (sorted.length - 1) * share
  const low = sorted[Math.floor(at)] ?? Number.NaN
  const high = sorted[Math.ceil(at)] ?? Number.NaN
  return rounded(low + (high - low) * (at - Math.floor(at)), digits)
}

function rounded(value: number, digits = 1): number {
  return Number(value.toFixed(digits))
}

function runtime(): string {
  return process.versions.bun === undefined ? `node ${process.versions.node}` : `bun ${process.versions.bun}`
}
