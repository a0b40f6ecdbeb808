import test from 'ava'
import { publishPacket, subscribePacket } from '../../bench/load/packets.ts'
import { packetReader } from '../../bench/load/sink.ts'

interface Seen {
  connects: string[]
  subscribes: number[]
  pings: number
  disconnects: number
}

function reader() {
  const seen: Seen = { connects: [], subscribes: [], pings: 0, disconnects: 0 }
  const read = packetReader({
    connect: (body) => void seen.connects.push(body.toString('hex')),
    subscribe: (id) => void seen.subscribes.push(id),
    ping: () => void seen.pings++,
    disconnect: () => void seen.disconnects++,
  })
  return { seen, read }
}

const CONNECT = Buffer.from('100d00044d51545404020000000161', 'hex')
const PINGREQ = Buffer.from('c000', 'hex')
const DISCONNECT = Buffer.from('e000', 'hex')
/** QoS 1, topic «t», packet id 0x1234, payload of three. */
const QOS1 = Buffer.from('32080001741234010203', 'hex')
/** QoS 0, topic «t», payload of two. */
const QOS0 = Buffer.from('30050001740102', 'hex')
const STREAM = Buffer.concat([CONNECT, QOS0, QOS1, PINGREQ, QOS1, subscribePacket('a/#'), QOS0, DISCONNECT])

function collect(chunks: readonly Buffer[]) {
  const { seen, read } = reader()
  let qos0 = 0
  const acks: Buffer[] = []
  for (const chunk of chunks) {
    const result = read(chunk)
    qos0 += result.qos0
    if (result.acks !== null) acks.push(result.acks)
  }
  return { ...seen, qos0, acks: Buffer.concat(acks).toString('hex') }
}

const WHOLE = {
  connects: ['00044d51545404020000000161'],
  subscribes: [1],
  pings: 1,
  disconnects: 1,
  qos0: 2,
  acks: '4002123440021234',
}

test('every packet of a chunk is counted, and PUBACKs come in one piece', (t) => {
  t.deepEqual(collect([STREAM]), WHOLE)
})

test('packets are the same at every split', (t) => {
  for (let at = 1; at < STREAM.length; at++) {
    t.deepEqual(collect([STREAM.subarray(0, at), STREAM.subarray(at)]), WHOLE, `split at ${at}`)
  }
})

test('packets are the same byte by byte', (t) => {
  t.deepEqual(collect([...STREAM].map((byte) => Buffer.of(byte))), WHOLE)
})

test('a large publish is counted once, when its last byte is there', (t) => {
  const packet = publishPacket('t', Buffer.alloc(200_000), 1, 7)
  const { read } = reader()
  let acks = 0
  for (let at = 0; at < packet.length; at += 16_384) {
    t.is(acks, 0)
    acks += read(packet.subarray(at, at + 16_384)).acks?.length ?? 0
  }
  t.is(acks, 4)
})
