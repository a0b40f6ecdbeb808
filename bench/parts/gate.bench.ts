import { cpus, release } from 'node:os'
import { NO_METRICS } from '../../src/control/metrics.ts'
import { Gate, SYSTEM_CLOCK } from '../../src/mqtt/gate.ts'
import { KeepAliveWheel } from '../../src/mqtt/keep-alive.ts'
import { OPEN_RULES } from '../../src/mqtt/limits.ts'
import type { MqttVersion } from '../../src/mqtt/reason.ts'
import { parsePolicyDocument } from '../../src/policy/document.ts'
import { grantsOf } from '../../src/policy/grants.ts'
import { NO_VARIABLES, OPEN_PERMIT, type Permit } from '../../src/policy/permit.ts'
import type { Way } from '../../src/relay.ts'

/**
 * What does the gate cost a packet? Nanoseconds of CPU of the inspection alone, in this process: an open permit beside a
 * policy of 20 statements. What a socket, TLS and the broker cost comes on top of both; see README.
 */
export const question = 'gate'

const ARN = { partition: 'aws', region: 'us-east-1', accountId: '000000000000' }
const STATEMENTS = 20
const PAYLOAD_BYTES = 128
/** Read by TLS at once, in bytes. */
const CHUNK_BYTES = 16_384
/** Sessions taken in turn, so that what one leaves in the caches is not there for the next. */
const SESSIONS = 100

interface Size {
  readonly rounds: number
  readonly packets: number
}
const FULL: Size = { rounds: 9, packets: 2_000_000 }
const SMOKE: Size = { rounds: 2, packets: 100_000 }

/** Each device may do what its own topics need, as fleets write it; the last statement is the one that applies. */
function policy(): Permit {
  const resources = (kind: string, topic: string) => `arn:aws:iot:us-east-1:000000000000:${kind}/${topic}`
  const document = {
    Version: '2012-10-17',
    Statement: Array.from({ length: STATEMENTS }, (_, n) => ({
      Effect: n % 5 === 4 ? 'Deny' : 'Allow',
      Action: ['iot:Publish', 'iot:RetainPublish', 'iot:Receive'],
      Resource: n === STATEMENTS - 2 ? resources('topic', 'fleet/*/telemetry') : resources('topic', `other-${n}/*/x`),
    })),
  }
  const parse = parsePolicyDocument(document)
  if (parse.kind === 'invalid') throw new Error(parse.issues.map(({ message }) => message).join(', '))
  return grantsOf([parse.document]).permit(ARN, NO_VARIABLES)
}

/** A QoS 1 publish and the PUBACK that answers it. */
function publishOf(version: MqttVersion, topic: string, id: number): Buffer {
  const name = Buffer.from(topic)
  const properties = version === 5 ? 1 : 0
  const remaining = 2 + name.length + 2 + properties + PAYLOAD_BYTES
  const packet = Buffer.alloc(3 + remaining)
  packet[0] = 0x32
  packet[1] = (remaining & 0x7f) | 0x80
  packet[2] = remaining >> 7
  packet.writeUInt16BE(name.length, 3)
  name.copy(packet, 5)
  packet.writeUInt16BE(id, 5 + name.length)
  return packet
}

interface Load {
  readonly name: string
  readonly version: MqttVersion
  readonly permit: Permit
  /** Topics that one device publishes to in turn. */
  readonly topics: number
  /** Packets in a chunk: one where a device waits for each answer. */
  readonly perChunk: number
}

interface Session {
  readonly gate: Gate
  readonly publishes: Buffer
  readonly answers: Buffer
}

function sessionOf({ version, permit, topics, perChunk }: Load, number: number): Session {
  const way: Way = { pass() {}, say() {}, hold() {} }
  const gate = new Gate({
    version,
    rules: OPEN_RULES,
    permit,
    reportOnly: false,
    device: { topicAliasMaximum: 0, maximumPacketBytes: null },
    traffic: NO_METRICS.traffic,
    wheel: new KeepAliveWheel(),
    clock: SYSTEM_CLOCK,
    observer: {
      connack: () => null,
      fault(code) {
        throw new Error(code)
      },
      denied(action, resource) {
        throw new Error(`${action} ${resource} is denied`)
      },
      limited() {},
      subscribed() {},
      unsubscribed() {},
    },
  })
  gate.inbound.attached(way)
  gate.outbound.attached(way)
  gate.outbound.inspect(Buffer.from(version === 5 ? '2003000000' : '20020000', 'hex'))
  const ids = Array.from({ length: perChunk }, (_, n) => n + 1)
  const device = `device-${`${number}`.padStart(6, '0')}`
  const publishes = ids.map((id) => publishOf(version, `fleet/${device}/${id % topics}/telemetry`, id))
  return {
    gate,
    publishes: Buffer.concat(publishes),
    answers: Buffer.concat(ids.map((id) => Buffer.from([0x40, 2, id >> 8, id & 0xff]))),
  }
}

/** Nanoseconds of CPU per publish and its answer. */
function measure(load: Load, sessions: readonly Session[], packets: number): number {
  const turns = Math.ceil(packets / (load.perChunk * sessions.length))
  const before = process.cpuUsage()
  for (let turn = 0; turn < turns; turn++) {
    for (const { gate, publishes, answers } of sessions) {
      gate.inbound.inspect(publishes)
      gate.outbound.inspect(answers)
    }
  }
  const { user, system } = process.cpuUsage(before)
  return ((user + system) * 1_000) / (turns * load.perChunk * sessions.length)
}

/** Prints a JSON line per load on standard output and a table on standard error. */
export async function run({ smoke }: { readonly smoke: boolean }): Promise<void> {
  const { rounds, packets } = smoke ? SMOKE : FULL
  const permit = policy()
  const burst = Math.floor(CHUNK_BYTES / publishOf(5, 'fleet/device-000000/0/telemetry', 1).length)
  const loads: Load[] = []
  for (const version of [4, 5] as const) {
    for (const perChunk of [1, burst]) {
      const name = `${version === 4 ? '3.1.1' : '5'}, ${perChunk} a chunk`
      loads.push({ name: `${name}, open`, version, permit: OPEN_PERMIT, topics: 1, perChunk })
      loads.push({ name: `${name}, ${STATEMENTS} statements`, version, permit, topics: 1, perChunk })
      if (perChunk > 1)
        loads.push({ name: `${name}, ${STATEMENTS} statements, 16 topics`, version, permit, topics: 16, perChunk })
    }
  }
  const runtime = process.versions.bun === undefined ? `node ${process.versions.node}` : `bun ${process.versions.bun}`
  print({ question, smoke, cpu: cpus()[0]?.model, kernel: release(), runtime, rounds, packets })
  const sides = loads.map((load) => ({
    load,
    sessions: Array.from({ length: SESSIONS }, (_, number) => sessionOf(load, number)),
    ns: [] as number[],
  }))
  for (const { load, sessions } of sides) measure(load, sessions, packets / 4)
  for (let round = 1; round <= rounds; round++) {
    for (const { load, sessions, ns } of round % 2 === 1 ? sides : sides.toReversed()) {
      ns.push(measure(load, sessions, packets))
    }
  }
  process.stderr.write('\nGate alone: CPU per QoS 1 publish and its PUBACK, nanoseconds, median (least–most)\n')
  for (const { load, ns } of sides) {
    const sorted = ns.toSorted((a, b) => a - b)
    const [least, median, most] = [0, sorted.length >> 1, sorted.length - 1].map((at) => Math.round(sorted[at]!))
    print({ question, load: load.name, ns: { least, median, most } })
    process.stderr.write(`${load.name.padEnd(44)} ${median} (${least}–${most})\n`)
  }
}

function print(line: object): void {
  process.stdout.write(`${JSON.stringify(line)}\n`)
}
