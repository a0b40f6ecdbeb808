import { readFileSync, rmSync } from 'node:fs'
import { availableParallelism, cpus, release } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { connect, type TLSSocket } from 'node:tls'
import { canPin, cpuBetween, pinSelf, readCpu, startProcess, temporaryFolder } from '../harness/proc.ts'
import { startSink } from '../load/sink.ts'
import { readMaterials, SERVER_NAME, writeMaterials } from '../peers/materials.ts'

/**
 * What does MQTT over WebSocket cost above MQTT over TLS? The relay alone, without sessions and policies, on both ways
 * at once in one process: CPU time per PUBLISH, whose last in each batch is QoS 1 and is waited for.
 */
export const question = 'wss-stream'

const RELAY_CORE = 0
const LOAD_CORE = 1
const START_WITHIN_MS = 10_000

interface Load {
  readonly name: string
  readonly payloadBytes: number
  /** Publishes in one write, each in a frame of its own. */
  readonly batch: number
  readonly perRound: number
}

const LOADS: readonly Load[] = [
  { name: '128 B, one in flight', payloadBytes: 128, batch: 1, perRound: 20_000 },
  { name: '128 B, 16 in a batch', payloadBytes: 128, batch: 16, perRound: 100_000 },
  { name: '128 B, 256 in a batch', payloadBytes: 128, batch: 256, perRound: 400_000 },
  { name: '16 KiB, one in flight', payloadBytes: 16_384, batch: 1, perRound: 8_000 },
]

const WAYS = ['plain', 'wss'] as const
type Way = (typeof WAYS)[number]

/** Prints a JSON line per measurement on standard output and a table on standard error. */
export async function run({ smoke }: { readonly smoke: boolean }): Promise<void> {
  const rounds = smoke ? 2 : 7
  const devices = smoke ? 4 : 20
  const cores = availableParallelism()
  if (cores > 1) pinSelf([LOAD_CORE])
  const folder = temporaryFolder('brokergate-bench-')
  const sink = await startSink()
  try {
    writeMaterials(folder, 1)
    const { caPem } = readMaterials(folder)
    const runtime = process.versions.bun === undefined ? `node ${process.versions.node}` : `bun ${process.versions.bun}`
    print({ question, smoke, pinned: canPin && cores > 1, cores, cpu: cpus()[0]?.model, kernel: release(), runtime })
    const logFile = join(folder, 'relay.out')
    const script = join(import.meta.dirname, 'wss-relay.ts')
    const files = ['server.pem', 'server.key'].map((name) => join(folder, name))
    const relay = startProcess(process.execPath, [script, ...files, String(sink.port)], {
      cwd: folder,
      cores: [RELAY_CORE],
      logFile,
    })
    try {
      const ports = await Promise.race([portsOf(logFile), relay.failed])
      for (const load of LOADS) await compare(load, { rounds, devices, smoke, ports, caPem, pid: relay.pid })
    } finally {
      await relay.stop()
    }
  } finally {
    await sink.close()
    rmSync(folder, { recursive: true, force: true })
  }
}

interface Setup {
  readonly rounds: number
  readonly devices: number
  readonly smoke: boolean
  readonly ports: Readonly<Record<Way, number>>
  readonly caPem: string
  readonly pid: number
}

async function compare(load: Load, { rounds, devices, smoke, ports, caPem, pid }: Setup): Promise<void> {
  const perDevice = Math.ceil(load.perRound / (smoke ? 50 : 1) / devices / load.batch)
  const operations = perDevice * devices * load.batch
  const figures: Record<Way, number[]> = { plain: [], wss: [] }
  // Round 0 warms up.
  for (let round = 0; round <= rounds; round++) {
    for (const way of round % 2 === 1 ? WAYS : WAYS.toReversed()) {
      const open = await Promise.all(Array.from({ length: devices }, () => device(way, ports[way], caPem)))
      const bytes = batchOf(load, way)
      const before = readCpu(pid)
      await Promise.all(open.map((one) => one.publish(bytes, perDevice)))
      const cpuUs = cpuBetween(before, readCpu(pid)) / operations
      for (const one of open) one.close()
      await sleep(50)
      if (round === 0) continue
      figures[way].push(cpuUs)
      print({ question, load: load.name, way, round, operations, cpuUs: rounded(cpuUs) })
    }
  }
  const median = (way: Way) => rounded(figures[way].toSorted((a, b) => a - b)[Math.floor(figures[way].length / 2)]!)
  const [plain, wss] = [median('plain'), median('wss')]
  print({ question, load: load.name, summary: true, rounds, plainUs: plain, wssUs: wss, ratio: rounded(wss / plain) })
  process.stderr.write(`${load.name.padEnd(24)} plain ${plain} µs, wss ${wss} µs, × ${rounded(wss / plain)}\n`)
}

interface OneDevice {
  /** Sends the batch so many times, each after the PUBACK of the one before. */
  publish(batch: Buffer, times: number): Promise<void>
  close(): void
}

/** PUBACK as the sink sends it, as it is or in a frame. */
const PUBACK_BYTES: Readonly<Record<Way, number>> = { plain: 4, wss: 6 }

async function device(way: Way, port: number, caPem: string): Promise<OneDevice> {
  const socket = await secured(port, caPem)
  let answered: (() => void) | null = null
  let failed: ((error: Error) => void) | null = null
  let bytes = 0
  if (way === 'wss') await upgraded(socket)
  socket.on('data', (chunk: Buffer) => {
    bytes += chunk.length
    if (bytes < PUBACK_BYTES[way]) return
    bytes -= PUBACK_BYTES[way]
    answered?.()
  })
  socket.on('close', () => failed?.(new Error('the relay closed')))
  return {
    async publish(batch, times) {
      for (let sent = 0; sent < times; sent++) {
        const answer = new Promise<void>((resolve, reject) => {
          answered = resolve
          failed = reject
        })
        socket.write(batch)
        await answer
      }
    },
    close: () => socket.destroy(),
  }
}

function secured(port: number, ca: string): Promise<TLSSocket> {
  return new Promise((resolve, reject) => {
    const socket = connect({ port, host: '127.0.0.1', ca, servername: SERVER_NAME }, () => {
      socket.setNoDelay(true)
      socket.off('error', reject).on('error', () => {})
      resolve(socket)
    })
    socket.once('error', reject)
  })
}

function upgraded(socket: TLSSocket): Promise<void> {
  return new Promise((resolve, reject) => {
    socket.once('data', (answer) => {
      if (String(answer).startsWith('HTTP/1.1 101 ')) resolve()
      else reject(new Error(`not upgraded: ${answer}`))
    })
    socket.write(
      `GET /mqtt HTTP/1.1\r\nHost: ${SERVER_NAME}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n` +
        'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n' +
        'Sec-WebSocket-Protocol: mqtt\r\n\r\n',
    )
  })
}

/** QoS 0 publishes to `t`, the last one QoS 1 with packet id 1. */
function batchOf({ payloadBytes, batch }: Load, way: Way): Buffer {
  const packets = Array.from({ length: batch }, (_, at) => {
    const isLast = at === batch - 1
    const variable = Buffer.from(isLast ? '0001740001' : '000174', 'hex')
    const remaining = variable.length + payloadBytes
    const digits: number[] = []
    for (let left = remaining; left > 0 || digits.length === 0; left = Math.floor(left / 128)) {
      digits.push((left % 128) | (left >= 128 ? 0x80 : 0))
    }
    const packet = Buffer.concat([Buffer.of(isLast ? 0x32 : 0x30, ...digits), variable, Buffer.alloc(payloadBytes, 7)])
    return way === 'wss' ? masked(packet) : packet
  })
  return Buffer.concat(packets)
}

const MASK = Buffer.from('37fa213d', 'hex')

function masked(payload: Buffer): Buffer {
  const { length } = payload
  const head = length < 126 ? Buffer.of(0x82, 0x80 | length) : Buffer.of(0x82, 0xfe, length >> 8, length & 0xff)
  return Buffer.concat([head, MASK, payload.map((byte, at) => byte ^ MASK[at & 3]!)])
}

async function portsOf(logFile: string): Promise<Readonly<Record<Way, number>>> {
  const until = performance.now() + START_WITHIN_MS
  while (performance.now() < until) {
    const line = readFileSync(logFile, 'utf8')
      .split('\n')
      .find((text) => text.startsWith('{'))
    if (line !== undefined) return JSON.parse(line) as Readonly<Record<Way, number>>
    await sleep(20)
  }
  throw new Error('the relay did not start')
}

function print(line: object): void {
  process.stdout.write(`${JSON.stringify(line)}\n`)
}

function rounded(value: number): number {
  return Number(value.toFixed(2))
}
