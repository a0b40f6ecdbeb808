// Whatever Mosquitto refuses must be refused behind the gate too: a packet that we answer in the broker's place, take a part
// of, or pass on changed could get a device further than the broker alone would let it. The same bytes go straight to a
// Mosquitto and through brokergate to the same Mosquitto; what the client sees and what another client of the broker sees
// must never be more. Where it is less, the reason stands in STRICTER and in docs/stricter-than-the-broker.md.
import { readFileSync } from 'node:fs'
import test, { type ExecutionContext } from 'ava'
import { parseConnect } from '../../src/mqtt/connect.ts'
import { readSubscribe } from '../../src/mqtt/subscribe.ts'
import { seeded } from '../mqtt/fakes.ts'
import { type Sequence, table } from '../support/differential-cases.ts'
import { generated } from '../support/differential-random.ts'
import {
  named,
  openTap,
  openWitness,
  type Packet,
  PINGREQ,
  packetsOf,
  type Seen,
  say,
  seenOf,
  type Tap,
  type Witness,
} from '../support/differential-run.ts'
import { openDoor, startMosquitto } from '../support/e2e.ts'
import { folderFor, freePort } from '../support/proxy.ts'

const SEED = Number(process.env.DIFFERENTIAL_SEED ?? Math.floor(Math.random() * 1_000_000))
/** Sequences at random; as many again are the same with some bytes changed. */
const COUNT = Number(process.env.DIFFERENTIAL_COUNT ?? 200)
/** On a machine that is busy with others, those at random are cut off here; the log says how many were compared. */
const WITHIN_MS = Number(process.env.DIFFERENTIAL_MS ?? 25_000)
/** How long silence has to last to be an answer; longer when a sequence is tried again. */
const SILENCE_MS = [60, 1_000] as const

const CONNECT = 1
const CONNACK = 2
const PUBLISH = 3
const SUBSCRIBE = 8
const UNSUBSCRIBE = 10
const PING = 12
const DISCONNECT = 14

interface Stricter {
  /** As it stands in the first column of the page. */
  readonly what: string
  /** Whether this packet, the first that did not go on as it was, is such a one. */
  matches(packet: Packet, version: 4 | 5, before: readonly Packet[]): boolean
}

/** Why CONNECT is refused, in our words. */
const connectFault = (packet: Packet): string => {
  if (packet.type !== CONNECT) return ''
  const read = parseConnect(packet.bytes)
  return 'kind' in read && read.kind === 'refused' ? read.detail : ''
}
const request = (packet: Packet, version: 4 | 5) =>
  packet.type === SUBSCRIBE || packet.type === UNSUBSCRIBE
    ? readSubscribe(packet.body, packet.type === SUBSCRIBE ? 'subscribe' : 'unsubscribe', version)
    : null
const FLAGS: Readonly<Record<number, number>> = { 6: 2, 8: 2, 10: 2 }

/** Where the gate says no and Mosquitto 2.0 says yes. Each has to be met, and whatever is met has to be here. */
const STRICTER: readonly Stricter[] = [
  { what: 'MQTT 3.1 (`MQIsdp`, level 3)', matches: (packet) => /protocol MQIsdp|level 3\b/.test(connectFault(packet)) },
  { what: 'The bridge bit in the protocol level', matches: (packet) => /level 13[0-9]\b/.test(connectFault(packet)) },
  {
    what: 'A CONNECT above `limits.connectSize`',
    matches: ({ type, bytes }) => type === CONNECT && bytes.length > 65_536,
  },
  {
    what: 'Authentication data without a method',
    matches: (packet) => connectFault(packet).startsWith('authentication data'),
  },
  {
    what: 'A property of CONNECT or its will with a value that it may not have',
    matches: (packet) => /has a value it may not have/.test(connectFault(packet)),
  },
  { what: 'Packets that only a broker sends', matches: ({ type }) => [2, 9, 11, 13].includes(type) },
  {
    what: 'Reserved flags of a packet',
    matches: ({ type, flags }) => type !== PUBLISH && flags !== (FLAGS[type] ?? 0),
  },
  { what: 'A PINGREQ with a body', matches: ({ type, body }) => type === PING && body.length > 0 },
  {
    what: 'A subscription identifier in a PUBLISH of the device',
    matches: ({ type, body }, version) => type === PUBLISH && version === 5 && body.includes(0x0b),
  },
  {
    what: 'No Local on a shared subscription',
    matches: ({ type, body }, version) =>
      type === SUBSCRIBE && version === 5 && body.includes('$share/') && request({ type, body } as Packet, 5) === null,
  },
  {
    what: 'A shared subscription without a group',
    matches: (packet, version) =>
      packet.type === SUBSCRIBE &&
      request(packet, version)?.filters.some(({ text }) => /^\$share\/(?:\/|\+\/|[^/]*$|[^/]*\/$)/.test(text)) === true,
  },
  {
    what: 'A packet id whose SUBSCRIBE or UNSUBSCRIBE is not answered yet',
    matches: (packet, version, before) => {
      const id = request(packet, version)?.packetId
      return id !== undefined && before.some((other) => request(other, version)?.packetId === id)
    },
  },
  { what: 'A wrong packet whose end has not come', matches: () => false },
  { what: 'A session that ends for a fault, and the answers under way', matches: () => false },
]
const [CUT_SHORT, AT_ONCE] = STRICTER.slice(-2) as [Stricter, Stricter]

/** Mosquitto 2.0 forgets the will of a session that sends CONNECT again; MQTT wants it published (5.0 §3.1.2.5). */
const forgetsTheWill = (sequence: Sequence): boolean =>
  packetsOf(Buffer.concat(sequence.packets))
    .packets.slice(1)
    .some(({ type }) => type === CONNECT)

/** What tells a client that it got somewhere; what it is told no with is not among them. */
function gains({ heard }: Pick<Seen, 'heard'>): string[] {
  return heard.flatMap(({ type, flags, body, bytes }) => {
    // What a CONNACK grants in numbers is the gate's to lower.
    if (type === CONNACK) return body[1] === 0 ? ['connected'] : []
    if (type === DISCONNECT) return []
    if (type === PUBLISH) return [`publish ${flags & 7} ${body.toString('hex')}`]
    if (type === 9) {
      const codes = [...body.subarray(2)].map((code, place) =>
        code < 0x80 ? `suback ${body.readUInt16BE(0)} ${place} ${code}` : '',
      )
      return codes.filter((code) => code !== '')
    }
    const failed = type >= 4 && type <= 7 && body.length > 2 && body[2]! >= 0x80
    return failed ? [] : [bytes.subarray(0, 4).toString('hex')]
  })
}

/** What is in `more` and not in `less`, each as often as it is there. */
function beyond(more: readonly string[], less: readonly string[]): string[] {
  const left = [...less]
  return more.filter((one) => {
    const at = left.indexOf(one)
    if (at >= 0) left.splice(at, 1)
    return at < 0
  })
}

interface Comparison {
  /** Every packet to the gate, PINGREQ included. */
  readonly said: Buffer
  readonly direct: Seen
  readonly gate: Seen
  /** What the broker got from the gate, by connection. */
  readonly taken: readonly Buffer[]
}

/** How the gate let the device get further; empty when it did not. */
function further(sequence: Sequence, { direct, gate }: Comparison): string[] {
  const reasons: string[] = []
  if (direct.closed && !gate.closed) reasons.push('the session goes on')
  const published = beyond(gate.published, direct.published)
  if (published.length > 0 && !forgetsTheWill(sequence)) reasons.push(`others got ${published.join(', ')}`)
  return reasons
}

/** What the client was told that the broker alone would not have told it. */
function toldMore({ direct, gate }: Comparison): string[] {
  const more = beyond(gains(gate), gains(direct))
  return more.length > 0 ? [`the client got ${more.join(', ')}`] : []
}

/** The first packet that did not reach the broker as it was, those before it, and what the broker got instead. */
function firstChanged({ said, taken }: Comparison) {
  const sent = packetsOf(said)
  const arrived = taken.length === 0 ? [] : packetsOf(taken[0]!).packets
  // CONNECT may be written anew; everything else goes on as it is, or not.
  let at = arrived.length === 0 ? 0 : 1
  while (at < sent.packets.length && arrived[at]?.bytes.equals(sent.packets[at]!.bytes) === true) at++
  return { packet: sent.packets[at] ?? sent.rest, before: sent.packets.slice(0, at), instead: arrived.slice(at) }
}

/** What the gate withheld, as the row that says so; `same` when nothing, null when no row has it. */
function judge(sequence: Sequence, comparison: Comparison): Stricter | 'same' | null {
  const { direct, gate } = comparison
  const withheld = [...beyond(gains(direct), gains(gate)), ...beyond(direct.published, gate.published)]
  if (withheld.length === 0 && direct.closed === gate.closed) return 'same'
  const { packet, before } = firstChanged(comparison)
  const row = Buffer.isBuffer(packet)
    ? direct.closed || packet.length === 0
      ? undefined
      : CUT_SHORT
    : STRICTER.find((one) => one.matches(packet, sequence.version, before))
  if (row !== undefined) return row
  // Both refuse what came later, and the gate knows it before the broker has answered what came ahead.
  return direct.closed && gate.closed && comparison.taken.length > 0 ? AT_ONCE : null
}

let names = 0

async function compare(
  sequence: Sequence,
  ports: Ports,
  witness: Witness,
  tap: Tap,
  silenceMs: number,
): Promise<Comparison> {
  const [alone, behind] = [named(sequence, names++), named(sequence, names++)]
  const said = Buffer.concat([...behind.packets, PINGREQ])
  const direct = await say(alone, 'direct', ports.broker, silenceMs)
  const directPublished = seenOf(await witness.seen(), alone)
  const gate = await say(behind, 'gate', ports.gate, silenceMs)
  const taken = await tap.taken()
  const gatePublished = seenOf(await witness.seen(), behind)
  return { direct: { ...direct, published: directPublished }, gate: { ...gate, published: gatePublished }, taken, said }
}

interface Ports {
  readonly broker: number
  readonly gate: number
}

/** Allows as much, and has to be asked for each packet: then the gate follows ids and aliases as well. */
const ASKED = `policies:
  devices: { Version: "2012-10-17", Statement: [ { Effect: Allow, Action: "iot:*", Resource: "*" }, { Effect: Deny, Action: "iot:*", Resource: "arn:aws:iot:us-east-1:000000000000:*/never/*" } ] }
`

for (const [policy, files] of [
  ['a policy that allows everything', {}],
  ['a policy that is asked each time', { 'registry/policies.yaml': ASKED }],
] as const) {
  test.serial(`never laxer than Mosquitto: the same bytes straight to it and through the gate, ${policy}`, (t) =>
    compareAll(t, files),
  )
}

async function compareAll(t: ExecutionContext, files: Readonly<Record<string, string>>): Promise<void> {
  t.timeout(WITHIN_MS + 75_000)
  const broker = await freePort()
  await startMosquitto(t, folderFor(t), `listener ${broker} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true`)
  const tap = await openTap(t, broker)
  const witness = await openWitness(t, broker)
  const door = await openDoor(t, { backend: `kind: tcp, servers: [ { address: "127.0.0.1:${tap.port}" } ]`, files })
  const ports = { broker, gate: door.port }

  const byHand = table()
  const sequences = [...byHand, ...generated(seeded(SEED), COUNT)]
  const from = performance.now()
  const met = new Map<Stricter, number>()
  const wrong: string[] = []
  let again = 0
  let same = 0
  let messagesLost = 0
  let count = 0
  for (const sequence of sequences) {
    if (count >= byHand.length && performance.now() - from > WITHIN_MS) break
    count++
    const compared = (manner: Sequence['manner'], silenceMs: number) =>
      compare({ ...sequence, manner }, ports, witness, tap, silenceMs)
    let comparison = await compared(sequence.manner, SILENCE_MS[0])
    let reasons = further(sequence, comparison)
    if (reasons.length > 0) {
      // A machine with much else to do may have taken the end of a session for silence.
      comparison = await compared(sequence.manner, SILENCE_MS[1])
      reasons = further(sequence, comparison)
    }
    if (reasons.length === 0 && (toldMore(comparison).length > 0 || judge(sequence, comparison) === null)) {
      // What a client hears before a reset is luck, unless each answer is waited for.
      again++
      comparison = await compared('one by one', SILENCE_MS[1])
      reasons = [...further(sequence, comparison), ...toldMore(comparison)]
    }
    const told = () => tell(sequence, comparison)
    if (reasons.length > 0) wrong.push(`laxer, ${reasons.join('; ')}: ${told()}`)
    // Not one byte goes on that the device has not said, but for SUBSCRIBE, which may be cut.
    const { instead } = firstChanged(comparison)
    if (instead.some(({ type, bytes }) => type !== SUBSCRIBE && !comparison.said.includes(bytes))) {
      wrong.push(`the broker got what nobody said: ${told()}`)
    }
    const row = judge(sequence, comparison)
    if (row === null) wrong.push(`stricter, and no reason is written down: ${told()}`)
    else if (row === 'same') same++
    else met.set(row, (met.get(row) ?? 0) + 1)
    if (row === AT_ONCE) messagesLost += beyond(comparison.direct.published, comparison.gate.published).length
  }
  const ms = performance.now() - from
  t.log({ seed: SEED, sequences: sequences.length, compared: count, same, again, messagesLost, ms: Math.round(ms) })
  t.log(Object.fromEntries([...met].map(([{ what }, times]) => [what, times])))
  t.deepEqual(wrong.slice(0, 20), [], `${wrong.length} findings`)
  t.deepEqual(
    STRICTER.filter((row) => !met.has(row)).map(({ what }) => what),
    [],
    'rows that nothing meets any more',
  )
}

const tell = (sequence: Sequence, { direct, gate, taken }: Comparison): string =>
  [
    sequence.name,
    `  said  ${sequence.packets.map((packet) => packet.toString('hex')).join(' ')} (${sequence.manner})`,
    `  alone ${describe(direct)}`,
    `  gate  ${describe(gate)}`,
    `  broker got ${taken.map((bytes) => bytes.toString('hex')).join(' | ')}`,
  ].join('\n')

const describe = ({ heard, closed, published }: Seen): string =>
  `${heard.map(({ bytes }) => bytes.toString('hex').slice(0, 80)).join(' ')} ${closed ? 'closed' : 'open'}; others: ${published.join(', ')}`

test('the page of what is stricter has a row for each, and no other', (t) => {
  const page = readFileSync(new URL('../../docs/stricter-than-the-broker.md', import.meta.url), 'utf8')
  const rows = page
    .split('\n')
    .filter((line) => line.startsWith('| ') && !line.startsWith('| what') && !line.startsWith('| ---'))
  t.deepEqual(rows.map((row) => row.split(' | ')[0]!.slice(2).trim()).sort(), STRICTER.map(({ what }) => what).sort())
})
