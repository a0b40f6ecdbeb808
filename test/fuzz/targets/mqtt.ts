import mqttPacket, { type IConnectPacket, type IPublishPacket, type ISubscribePacket, type Packet } from 'mqtt-packet'
import { FAILURES } from '../../../src/errors.ts'
import { packetOf } from '../../../src/mqtt/bytes.ts'
import { readConnack, rewriteConnack } from '../../../src/mqtt/connack.ts'
import { type ConnectRead, readConnect } from '../../../src/mqtt/connect.ts'
import { disconnectWithin } from '../../../src/mqtt/disconnect.ts'
import { INBOUND, OUTBOUND, PacketCursor } from '../../../src/mqtt/packet-cursor.ts'
import { PROPERTY } from '../../../src/mqtt/properties.ts'
import { PublishHead, READ } from '../../../src/mqtt/publish-head.ts'
import type { MqttVersion } from '../../../src/mqtt/reason.ts'
import { rewriteConnect } from '../../../src/mqtt/rewrite.ts'
import { readSubscribe, readSubscribeAnswer } from '../../../src/mqtt/subscribe.ts'
import { FakeStream, hex } from '../../mqtt/fakes.ts'
import { FROM_BROKER, FROM_DEVICE } from '../../mqtt/packet-samples.ts'
import { type Below, counted, must, pieces, type Target } from '../target.ts'

/** The first packet as mqtt-packet reads it; null where it refuses it or waits for more. */
function theirs(bytes: Buffer, version?: MqttVersion): Packet | null {
  const parser = mqttPacket.parser(version === undefined ? {} : { protocolVersion: version })
  let packet: Packet | null = null
  let refused = false
  parser.on('packet', (found) => {
    packet ??= found
  })
  parser.on('error', () => {
    refused = true
  })
  try {
    parser.parse(Buffer.from(bytes))
  } catch {
    return null
  }
  return refused ? null : packet
}

const samples = (from: Readonly<Record<MqttVersion, readonly string[]>>, type: number): Buffer[] =>
  [4, 5].flatMap((version) =>
    from[version as MqttVersion]
      .filter((text) => Number.parseInt(text[0]!, 16) === type)
      .map((text) => Buffer.concat([Buffer.of(version), bodyOf(hex(text))])),
  )
/** What stands behind the fixed header. */
function bodyOf(packet: Buffer): Buffer {
  let at = 1
  while ((packet[at++]! & 0x80) !== 0);
  return packet.subarray(at)
}
/** The first byte of these inputs chooses the version, for both have to be met. */
const versionOf = (input: Buffer): MqttVersion => ((input[0] ?? 0) % 2 === 0 ? 4 : 5)

const TABLES = [INBOUND[4], INBOUND[5], OUTBOUND[4], OUTBOUND[5]] as const
const MOST = 1_000

/** Where packets end and why it stops, by the words of the standard and nothing else. */
function boundaries(bytes: Uint8Array, table: Uint8Array): string {
  const told: string[] = []
  let at = 0
  while (at < bytes.length) {
    const first = bytes[at]!
    if (table[first] !== 1) return [...told, `fault ${at}`].join()
    let length = 0
    let end = at + 1
    for (; ; end++) {
      if (end >= bytes.length) return [...told, 'header'].join()
      length += (bytes[end]! & 0x7f) * 128 ** (end - at - 1)
      if (bytes[end]! < 0x80) break
      if (end - at === 4) return [...told, `fault ${end}`].join()
    }
    if (length > MOST) return [...told, `fault ${end}`].join()
    told.push(`${first} ${length}`)
    at = end + 1 + length
    if (at > bytes.length) return [...told, 'body'].join()
  }
  return told.join()
}

function follow(chunks: readonly Uint8Array[], table: Uint8Array): string {
  const cursor = new PacketCursor(table, MOST)
  const told: string[] = []
  let before = 0
  let inBody = false
  for (const chunk of chunks) {
    let at = 0
    while (at < chunk.length) {
      const next = cursor.advance(chunk, at)
      if (cursor.fault !== null) return [...told, `fault ${before + next}`].join()
      must(next > at, 'it does not move')
      at = next
      if (cursor.atHeader) told.push(`${(cursor.type << 4) | cursor.flags} ${cursor.remainingLength}`)
      inBody = cursor.atHeader ? !cursor.atEnd : inBody && !cursor.atEnd
    }
    before += chunk.length
  }
  return (cursor.atEnd ? told : [...told, inBody ? 'body' : 'header']).join()
}

function checkCursor(input: Buffer, below: Below): string {
  const table = TABLES[below(TABLES.length)]!
  const whole = follow([input], table)
  must(whole === boundaries(input, table), `other packets than there are: ${whole}`)
  must(follow(pieces(input, below), table) === whole, 'in pieces they are others')
  if (below(64) === 0) {
    const { view, looks, outside } = counted(input)
    follow([view], table)
    must(outside() === 0 && looks() <= input.length, `${looks()} looks, ${outside()} outside`)
  }
  return whole.includes('fault') ? 'fault' : /header|body/.test(whole) ? 'within' : 'whole'
}

const streams = (): Buffer[] =>
  [FROM_DEVICE, FROM_BROKER].flatMap((from) =>
    ([4, 5] as const).flatMap((version) => {
      const packets = from[version].map(hex)
      return [Buffer.concat(packets), Buffer.concat(packets.toReversed()), Buffer.concat(packets.slice(0, 4))]
    }),
  )

export const PACKET_CURSOR: Target = {
  name: 'packet-cursor',
  corpus: streams,
  tokens: ['c000', '30ffffffff7f', '308080808001', 'e000', '2002', '30e807', '30e907'].map(hex),
  maxBytes: 4_096,
  kinds: ['fault', 'within', 'whole'],
  cases: 15_000,
  check: checkCursor,
}

const text = (value: string | Buffer): Buffer => {
  const bytes = Buffer.from(value as Buffer)
  return Buffer.concat([Buffer.of(bytes.length >> 8, bytes.length & 0xff), bytes])
}
const connect = (packet: Partial<IConnectPacket>): Buffer =>
  mqttPacket.generate({
    cmd: 'connect',
    protocolId: 'MQTT',
    protocolVersion: 4,
    clean: true,
    clientId: 'lamp',
    keepalive: 60,
    ...packet,
  } as IConnectPacket)

const MAX_CONNECT = 4_096

function readInPieces(chunks: readonly Buffer[]): Promise<ConnectRead> {
  const stream = new FakeStream()
  const reading = readConnect(stream, MAX_CONNECT, 60_000)
  stream.say(...chunks, null)
  return reading
}

function told(read: ConnectRead): string {
  if (read.kind !== 'connect') return JSON.stringify(read)
  const { bytes, packet: _, ...rest } = read.connect
  return JSON.stringify([bytes.toString('hex'), rest])
}

function checkConnected({ connect: one, rest }: Extract<ConnectRead, { kind: 'connect' }>, input: Buffer): string {
  must(Buffer.concat([one.bytes, rest ?? Buffer.alloc(0)]).equals(input), 'bytes are lost')
  const { bytes, layout, clientId, version } = one
  const [from, to] = layout.clientId
  must(bytes.subarray(from, to).equals(text(clientId)), 'the client id lies elsewhere')
  must(
    bytes[layout.flags] !== undefined && bytes.readUInt16BE(layout.keepAlive) === one.keepAliveSeconds,
    'the keep alive lies elsewhere',
  )
  const other = theirs(bytes) as IConnectPacket | null
  must(other?.cmd === 'connect' && other.clientId === clientId, 'mqtt-packet reads another client id')
  must(other.clean === one.cleanStart && other.keepalive === one.keepAliveSeconds, 'mqtt-packet reads other flags')
  // Written anew it is the same but for what was changed, to whoever reads it.
  const changed = rewriteConnect(one, {
    clientId: 'tenant-lamp',
    keepAliveSeconds: 30,
    credentials: { username: 'u', password: null },
  })
  const again = theirs(changed) as IConnectPacket | null
  must(
    again?.cmd === 'connect' && again.clientId === 'tenant-lamp' && again.keepalive === 30,
    'rewritten it is no such CONNECT',
  )
  must(again.username === 'u' && again.password === undefined, 'rewritten it has other credentials')
  must(JSON.stringify(again.will) === JSON.stringify(other.will), 'rewritten it has another will')
  must(JSON.stringify(again.properties) === JSON.stringify(other.properties), 'rewritten it has other properties')
  return version === 4 ? 'connect 3.1.1' : 'connect 5'
}

export const CONNECT: Target = {
  name: 'connect',
  corpus: () => [
    connect({}),
    connect({ clientId: '', keepalive: 0 }),
    connect({ username: 'someone?x-amz-customauthorizer-name=a', password: Buffer.from('secret') }),
    connect({ will: { topic: 'gone', payload: Buffer.from('bye'), qos: 1, retain: true } }),
    connect({
      protocolVersion: 5,
      properties: { sessionExpiryInterval: 60, receiveMaximum: 10, maximumPacketSize: 1_000, topicAliasMaximum: 3 },
    }),
    connect({
      protocolVersion: 5,
      properties: {
        authenticationMethod: 'm',
        authenticationData: Buffer.from('d'),
        userProperties: { a: 'b', c: 'd' },
      },
    }),
    connect({
      protocolVersion: 5,
      username: 'u',
      password: Buffer.from('p'),
      will: {
        topic: 'gone',
        payload: Buffer.from('bye'),
        qos: 2,
        retain: false,
        properties: { willDelayInterval: 5, contentType: 't', responseTopic: 'r', userProperties: { x: 'y' } },
      },
    }),
    Buffer.concat([connect({}), hex('c000')]),
  ],
  tokens: [
    text('MQTT'),
    text('MQIsdp'),
    hex('04'),
    hex('05'),
    hex('1100000010'),
    hex('210001'),
    hex('27000000ff'),
    hex('26000161000162'),
    hex('c000'),
    text('ä+#/'),
    text('a\0b'),
  ],
  maxBytes: 4_200,
  kinds: ['connect 3.1.1', 'connect 5', 'refused'],
  cases: 6_000,
  async check(input, below) {
    const read = await readInPieces([Buffer.from(input)])
    must(told(await readInPieces(pieces(input, below))) === told(read), 'in pieces it is another answer')
    if (read.kind === 'connect') return checkConnected(read, input)
    if (read.kind === 'refused') must(read.code in FAILURES, `a code ${read.code}`)
    else must(input.length === 0, 'gone, and it has spoken')
    return read.kind
  },
}

/** Reads it as ever more of the body comes, and tells what it asked for on the way. */
function readHead(
  body: Buffer,
  qos: number,
  version: MqttVersion,
  step: (asked: number) => number,
): { head: PublishHead; answer: number } {
  const head = new PublishHead()
  let have = 0
  for (;;) {
    const answer = head.read(body, 0, have, body.length, qos, version)
    if (answer <= READ) return { head, answer }
    must(answer > have, 'it asks for what it has')
    must(answer <= body.length, 'it asks for more than the packet has')
    have = Math.min(body.length, step(answer))
  }
}

export const PUBLISH_HEAD: Target = {
  name: 'publish-head',
  corpus: () => [...samples(FROM_DEVICE, 3), ...samples(FROM_BROKER, 3)],
  tokens: [
    '0101',
    '0200000001',
    '03000174',
    '08000172',
    '0900020102',
    '0b01',
    '0bffffffff7f',
    '230001',
    '26000161000162',
    '0000',
    'ffffff7f',
  ].map(hex),
  maxBytes: 2_048,
  kinds: ['read 4', 'read 5', 'malformed'],
  cases: 12_000,
  check(input, below) {
    const version = versionOf(input)
    const body = input.subarray(1)
    const qos = below(3)
    const { head, answer } = readHead(body, qos, version, (asked) => asked)
    const hasty = readHead(body, qos, version, () => body.length)
    must(hasty.answer === answer, 'read at once it is another answer')
    if (answer !== READ) return 'malformed'
    must(JSON.stringify(hasty.head) === JSON.stringify(head), 'read at once it is another head')
    must(head.end <= body.length && head.payloadBytes === body.length - head.end, 'the payload lies elsewhere')
    const other = theirs(packetOf(0x30 | (qos << 1), [body]), version) as IPublishPacket | null
    if (other?.cmd === 'publish') {
      const payload = Buffer.from(other.payload as Buffer)
      must(payload.equals(body.subarray(head.end)), 'mqtt-packet reads another payload')
      must(
        Buffer.from(other.topic).equals(body.subarray(head.topicAt, head.topicEnd)) || other.topic.includes('\ufffd'),
        'mqtt-packet reads another topic',
      )
      must(qos === 0 || other.messageId === head.packetId, 'mqtt-packet reads another packet id')
      must((other.properties?.topicAlias ?? -1) === head.alias, 'mqtt-packet reads another alias')
    }
    return `read ${version}`
  },
}

export const SUBSCRIBE: Target = {
  name: 'subscribe',
  corpus: () => [
    ...samples(FROM_DEVICE, 8),
    ...samples(FROM_DEVICE, 10),
    ...samples(FROM_BROKER, 9),
    ...samples(FROM_BROKER, 11),
  ],
  tokens: [
    '0003612f2b01',
    '000d24736861726f2f672f612f2301',
    '0b05',
    '26000161000162',
    '1f000172',
    '00',
    '0bffffff7f',
  ].map(hex),
  maxBytes: 2_048,
  kinds: ['request', 'answer', 'refused'],
  cases: 12_000,
  check(input, below) {
    const version = versionOf(input)
    const body = input.subarray(1)
    const kind = below(4) === 0 ? 'unsubscribe' : 'subscribe'
    const answer = readSubscribeAnswer(body, version)
    if (answer !== null) must(answer.codesAt <= body.length, 'codes beyond the end')
    const request = readSubscribe(body, kind, version)
    if (request === null) return answer === null ? 'refused' : 'answer'
    must(request.packetId > 0 && request.filters.length > 0, 'a request of nothing')
    let at = request.filtersAt
    for (const filter of request.filters) {
      must(filter.at === at && filter.end > filter.at, 'filters do not follow each other')
      must(body.subarray(at + 2, at + 2 + filter.bytes).equals(Buffer.from(filter.text)), 'a filter lies elsewhere')
      at = filter.end
    }
    must(at === body.length, 'bytes behind the filters')
    const other = theirs(packetOf(kind === 'subscribe' ? 0x82 : 0xa2, [body]), version) as ISubscribePacket | null
    if (other?.cmd === 'subscribe') {
      must(
        JSON.stringify(other.subscriptions.map(({ topic }) => topic)) ===
          JSON.stringify(request.filters.map((one) => one.text)),
        'mqtt-packet reads other filters',
      )
      must(other.messageId === request.packetId, 'mqtt-packet reads another packet id')
    }
    return 'request'
  },
}

/** A packet of MQTT 5 behind the byte that chooses the version. */
const inFive = (packet: Packet): Buffer =>
  Buffer.concat([Buffer.of(5), bodyOf(mqttPacket.generate(packet, { protocolVersion: 5 }))])

const EDITS = new Map<number, number | string>([
  [PROPERTY.serverKeepAlive, 30],
  [PROPERTY.assignedClientId, 'assigned'],
  [PROPERTY.maximumQoS, 1],
])

export const CONNACK: Target = {
  name: 'connack',
  corpus: () => [
    hex('040000'),
    hex('040005'),
    hex('0500'.padEnd(8, '0')),
    ...[
      {
        sessionExpiryInterval: 3_600,
        receiveMaximum: 10,
        maximumQoS: 1,
        retainAvailable: true,
        maximumPacketSize: 4_096,
      },
      { assignedClientIdentifier: 'abcd', sharedSubscriptionAvailable: true, wildcardSubscriptionAvailable: true },
      { reasonString: 'not authorized', userProperties: { a: 'b' }, serverKeepAlive: 30 },
      {
        authenticationMethod: 'm',
        authenticationData: Buffer.from('d'),
        responseInformation: 'r',
        serverReference: 's',
      },
    ].map((properties) => inFive({ cmd: 'connack', reasonCode: 0, sessionPresent: false, properties } as Packet)),
  ],
  tokens: ['13003c', '1f000172', '26000161000162', '1500016d', '1600016d', '2401', '12000161'].map(hex),
  maxBytes: 1_024,
  kinds: ['read 4', 'read 5', 'refused'],
  cases: 12_000,
  check(input) {
    const version = versionOf(input)
    const body = input.subarray(1)
    const connack = readConnack(body, version)
    if (connack === null) return 'refused'
    if (version === 4) {
      must(rewriteConnack(body, 4, EDITS).equals(packetOf(0x20, [body])), 'on 3.1.1 something is changed')
      return 'read 4'
    }
    const packet = rewriteConnack(body, 5, EDITS)
    must(packet.length <= body.length + 64, `${packet.length} bytes of ${body.length}`)
    const again = readConnack(bodyOf(packet), 5)
    must(again !== null && again.code === connack.code, 'rewritten it is no CONNACK')
    for (const [id, value] of EDITS) must(again.properties.get(id) === value, `rewritten, property ${id} is another`)
    for (const [id, value] of connack.properties) {
      if (!EDITS.has(id)) must(again.properties.get(id) === value, `rewritten, property ${id} is lost`)
    }
    return 'read 5'
  },
}

export const DISCONNECT: Target = {
  name: 'disconnect',
  corpus: () => [
    hex('0000'),
    ...[
      { sessionExpiryInterval: 255 },
      { reasonString: 'bye', sessionExpiryInterval: 1 },
      { sessionExpiryInterval: 256, serverReference: 'a', reasonString: 'b', userProperties: { a: 'b' } },
    ].map((properties) => inFive({ cmd: 'disconnect', reasonCode: 4, properties } as Packet).subarray(1)),
  ],
  tokens: ['11ffffffff', '1f000172', '26000161000162', '1c000161'].map(hex),
  maxBytes: 1_024,
  kinds: ['stays', 'lowered', 'refused'],
  cases: 12_000,
  check(input, below) {
    const most = below(3) * 100
    let packet: Buffer | null
    try {
      packet = disconnectWithin(input, most)
    } catch (error) {
      if (error instanceof RangeError) return 'refused'
      throw error
    }
    if (packet === null) return 'stays'
    must(packet.length <= input.length + 8, 'it grows')
    must(disconnectWithin(bodyOf(packet), most) === null, 'lowered, and still too much')
    return 'lowered'
  },
}
