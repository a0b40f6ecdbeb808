import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { get } from 'node:http'
import { availableParallelism, cpus, release } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { connect, type SecureContext, type TLSSocket } from 'node:tls'
import { packetOf } from '../src/mqtt/bytes.ts'
import { createDevice } from './support/load.ts'
import { type Materials, makeMaterials, SERVER_NAME } from './support/peers.ts'
import { canPin, cpuBetween, pinSelf, readCpu, type Started, startProcess, temporaryFolder } from './support/proc.ts'
import { type Sink, startSink } from './support/sink.ts'

/**
 * What does a policy cost where it is asked for every message? The whole program, twice: once with a policy that allows
 * everything, once with one of 20 statements. CPU time of its process per QoS 1 publish and PUBACK, TLS and sockets included.
 */
export const question = 'relay-policy'

const ROOT = join(import.meta.dirname, '..')
const PROXY_CORE = 0
const LOAD_CORE = 1
const PAYLOAD_BYTES = 128
const READY_WITHIN_MS = 15_000
/** More would be too much for what inspection gives. */
const TARGET_RATIO = 1.25

interface Size {
  readonly rounds: number
  readonly sessions: number
  /** Publishes per round and side, by how many are in flight on a session. */
  readonly perRound: Readonly<Record<number, number>>
}
const FULL: Size = { rounds: 11, sessions: 100, perRound: { 1: 20_000, 16: 60_000 } }
const SMOKE: Size = { rounds: 2, sessions: 10, perRound: { 1: 500, 16: 2_000 } }

const ARN = 'arn:aws:iot:us-east-1:000000000000'
const OPEN = [{ Effect: 'Allow', Action: 'iot:*', Resource: '*' }]

/** As fleets write them: who may connect, denials with wildcards, grants for other kinds of devices, and last our own. */
const STATEMENTS = [
  { Effect: 'Allow', Action: 'iot:Connect', Resource: `${ARN}:client/*` },
  ...['*/secret/*', 'admin/*', '*/firmware', 'fleet/*/reset'].map((topic) => ({
    Effect: 'Deny',
    Action: ['iot:Publish', 'iot:Receive', 'iot:RetainPublish'],
    Resource: `${ARN}:topic/${topic}`,
  })),
  ...Array.from({ length: 13 }, (_, n) => ({
    Effect: 'Allow',
    Action: ['iot:Publish', 'iot:Receive'],
    Resource: [`${ARN}:topic/plant-${n}/*/state`, `${ARN}:topic/fleet/*/channel-${n}`],
  })),
  { Effect: 'Allow', Action: 'iot:Subscribe', Resource: `${ARN}:topicfilter/fleet/\${iot:ClientId}/*` },
  { Effect: 'Allow', Action: ['iot:Publish', 'iot:Receive'], Resource: `${ARN}:topic/fleet/\${iot:ClientId}/*` },
]

interface Side {
  readonly name: string
  readonly program: Started
  readonly sink: Sink
  readonly devices: readonly Publisher[]
  /** Microseconds of CPU per message, by messages in flight. */
  readonly cpuUs: Map<number, number[]>
}

/** Prints a JSON line per measurement on standard output and a table on standard error. */
export async function run({ smoke }: { readonly smoke: boolean }): Promise<void> {
  const size = smoke ? SMOKE : FULL
  const cores = availableParallelism()
  if (cores > 1) pinSelf(LOAD_CORE)
  const folder = temporaryFolder('brokergate-bench-')
  const sides: Side[] = []
  try {
    const materials = makeMaterials(folder)
    const pinned = canPin && cores > 1
    print({
      question,
      smoke,
      pinned,
      cores,
      cpu: cpus()[0]?.model,
      kernel: release(),
      statements: STATEMENTS.length,
      ...size,
    })
    for (const [name, statements] of [
      ['open', OPEN],
      [`${STATEMENTS.length} statements`, STATEMENTS],
    ] as const) {
      sides.push(await open(name, statements, materials, size.sessions))
    }
    for (const [key, count] of Object.entries(size.perRound)) await compare(sides, Number(key), count, size.rounds)
  } finally {
    for (const { program, sink, devices } of sides) {
      for (const device of devices) device.leave()
      await program.stop()
      await sink.close()
    }
    rmSync(folder, { recursive: true, force: true })
  }
}

async function compare(sides: readonly Side[], inFlight: number, count: number, rounds: number): Promise<void> {
  for (const side of sides) await publish(side, inFlight, count)
  for (let round = 1; round <= rounds; round++) {
    for (const side of round % 2 === 1 ? sides : sides.toReversed()) {
      const before = readCpu(side.program.pid)
      const from = performance.now()
      const done = await publish(side, inFlight, count)
      const perSecond = Math.round((done * 1_000) / (performance.now() - from))
      const cpuUs = cpuBetween(before, readCpu(side.program.pid)) / done
      side.cpuUs.set(inFlight, [...(side.cpuUs.get(inFlight) ?? []), cpuUs])
      print({ question, side: side.name, inFlight, round, cpuUs: rounded(cpuUs), perSecond })
    }
  }
  const [base, judged] = sides.map(({ cpuUs }) => cpuUs.get(inFlight) ?? [])
  // Round by round: what the machine did in a round, it did to both.
  const ratio = spread(
    judged!.map((value, round) => value / base![round]!),
    3,
  )
  const figures = { open: spread(base!), judged: spread(judged!) }
  print({
    question,
    summary: true,
    inFlight,
    cpuUs: figures,
    ratio,
    target: TARGET_RATIO,
    met: ratio.median <= TARGET_RATIO,
  })
  process.stderr.write(
    `QoS 1, ${PAYLOAD_BYTES} B, ${inFlight} in flight: ${figures.open.median} µs open, ${figures.judged.median} µs with ` +
      `${STATEMENTS.length} statements: ${ratio.median} × (${ratio.min}–${ratio.max}), at most ${TARGET_RATIO} wanted\n`,
  )
}

async function publish({ devices, program }: Side, inFlight: number, count: number): Promise<number> {
  const each = Math.ceil(count / devices.length)
  await Promise.race([Promise.all(devices.map((device) => device.publish(each, inFlight))), program.failed])
  return each * devices.length
}

async function open(
  name: string,
  statements: readonly object[],
  materials: Materials,
  sessions: number,
): Promise<Side> {
  const sink = await startSink()
  const port = freePortFor(name)
  const folder = join(materials.folder, name.replaceAll(' ', '-'))
  mkdirSync(join(folder, 'registry'), { recursive: true, mode: 0o700 })
  const document = JSON.stringify({ Version: '2012-10-17', Statement: statements })
  writeFileSync(join(folder, 'registry/policies.yaml'), `policies:\n  devices: ${document}\n`)
  const file = join(folder, 'brokergate.yaml')
  writeFileSync(file, configuration(port, sink.port))
  const program = startProcess(join(ROOT, 'node_modules/.bin/bun'), ['src/main.ts', 'run', '-c', file], {
    cwd: ROOT,
    core: PROXY_CORE,
    logFile: join(folder, 'brokergate.out'),
  })
  try {
    await Promise.race([ready(port + 1), program.failed])
    const { context } = createDevice(materials.caPem, SERVER_NAME, materials.device)
    const devices: Publisher[] = []
    for (let number = 0; number < sessions; number++) {
      devices.push(await Publisher.connect(port, context, `device-${`${number}`.padStart(6, '0')}`))
    }
    return { name, program, sink, devices, cpuUs: new Map() }
  } catch (error) {
    await program.stop()
    await sink.close()
    throw error
  }
}

/** `log.level: warn`: a line per session is not what is asked. */
const configuration = (
  port: number,
  sinkPort: number,
): string => `listeners: [ { bind: "127.0.0.1:${port}", as: 8883 } ]
domains:
  - serverNames: [ ${SERVER_NAME} ]
    certificates: [ { cert: ../server.pem, key: ../server.key } ]
    registry: main
    clientTrust: { mode: ca, ca: [ ../ca.pem ], policies: [ devices ] }
    backend: sink
registries: { main: { path: registry } }
backends: { sink: { kind: tcp, servers: [ { address: "127.0.0.1:${sinkPort}" } ] } }
metrics: { bind: "127.0.0.1:${port + 1}" }
admin: { socket: admin.sock }
workers: 1
drain: { grace: 0s }
log: { level: warn, format: json }
`

/** One session, kept; it publishes to a topic of its own and counts the PUBACKs. */
class Publisher {
  readonly #socket: TLSSocket
  readonly #topic: Buffer
  #id = 0
  #left = 0
  #unanswered = 0
  #rest = 0
  #done: (() => void) | null = null
  #failed: ((error: Error) => void) | null = null

  constructor(socket: TLSSocket, clientId: string) {
    this.#socket = socket
    this.#topic = field(`fleet/${clientId}/telemetry`)
    socket.on('data', (chunk: Buffer) => this.#answered(chunk))
    socket.on('close', () => this.#failed?.(new Error(`${clientId} was cut off`)))
  }

  static connect(port: number, secureContext: SecureContext, clientId: string): Promise<Publisher> {
    return new Promise((resolve, reject) => {
      const socket = connect({ host: '127.0.0.1', port, servername: SERVER_NAME, secureContext })
      socket.setNoDelay(true)
      socket.on('error', reject)
      socket.once('close', () => reject(new Error(`${clientId}: closed before CONNACK`)))
      socket.once('secureConnect', () =>
        socket.write(packetOf(0x10, [field('MQTT'), Buffer.of(4, 2, 0, 0), field(clientId)])),
      )
      socket.once('data', (connack: Buffer) => {
        if (connack.toString('hex') !== '20020000') return reject(new Error(`${clientId}: ${connack.toString('hex')}`))
        resolve(new Publisher(socket, clientId))
      })
    })
  }

  /** Resolves when all of them are acknowledged; what is acknowledged together is followed by as many in one write. */
  publish(count: number, inFlight: number): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#left = count
      this.#done = resolve
      this.#failed = reject
      this.#say(Math.min(inFlight, count))
    })
  }

  leave(): void {
    this.#failed = null
    this.#socket.destroy()
  }

  #say(count: number): void {
    const packets: Buffer[] = []
    for (let n = 0; n < count; n++) {
      this.#id = (this.#id % 65_535) + 1
      packets.push(packetOf(0x32, [this.#topic, Buffer.of(this.#id >> 8, this.#id & 255), PAYLOAD]))
    }
    this.#left -= count
    this.#unanswered += count
    this.#socket.write(Buffer.concat(packets))
  }

  /** Nothing but PUBACKs comes, four bytes each. */
  #answered(chunk: Buffer): void {
    const bytes = this.#rest + chunk.length
    this.#rest = bytes % 4
    const answers = Math.floor(bytes / 4)
    if (answers === 0) return
    this.#unanswered -= answers
    if (this.#left > 0) this.#say(Math.min(answers, this.#left))
    else if (this.#unanswered === 0) this.#done?.()
  }
}

const PAYLOAD = Buffer.alloc(PAYLOAD_BYTES, 'x')

function field(text: string): Buffer {
  const bytes = Buffer.from(text)
  return Buffer.concat([Buffer.of(bytes.length >> 8, bytes.length & 255), bytes])
}

/** Two ports of each side's own, below those that the system gives to clients. */
function freePortFor(name: string): number {
  return (name === 'open' ? 20_000 : 24_000) + 2 * Math.floor(Math.random() * 2_000)
}

async function ready(port: number): Promise<void> {
  const until = performance.now() + READY_WITHIN_MS
  for (;;) {
    const yes = await new Promise<boolean>((resolve) => {
      const request = get({ host: '127.0.0.1', port, path: '/readyz', agent: false }, (response) => {
        response.resume()
        resolve(response.statusCode === 200)
      })
      request.on('error', () => resolve(false))
    })
    if (yes) return
    if (performance.now() > until) throw new Error(`not ready in ${READY_WITHIN_MS} ms`)
    await sleep(50)
  }
}

function spread(values: readonly number[], digits = 2) {
  const sorted = values.toSorted((a, b) => a - b)
  return {
    median: rounded(sorted[sorted.length >> 1]!, digits),
    min: rounded(sorted[0]!, digits),
    max: rounded(sorted.at(-1)!, digits),
  }
}

function rounded(value: number, digits = 2): number {
  return Number(value.toFixed(digits))
}

function print(line: object): void {
  process.stdout.write(`${JSON.stringify(line)}\n`)
}
