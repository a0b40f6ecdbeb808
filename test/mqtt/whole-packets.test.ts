import test from 'ava'
import { WholePackets } from '../../src/mqtt/whole-packets.ts'
import { hex } from './fakes.ts'

/** PINGREQ, a QoS 0 publish of `a` with «hello», SUBSCRIBE, a publish of 200 bytes, DISCONNECT. */
const PACKETS = [
  'c000',
  '3008 0001 61 68656c6c6f',
  '8206 0001 0001 61 01',
  `30c801 0001 61 ${'78'.repeat(197)}`,
  'e000',
].map(hex)
const ALL = Buffer.concat(PACKETS)

function rig(most = 1_024, keep: (packet: Buffer) => boolean = () => true) {
  const seen: string[] = []
  const begins: string[] = []
  const packets = new WholePackets(
    most,
    (packet) => {
      seen.push(packet.toString('hex'))
      return keep(packet)
    },
    (begin) => begins.push(begin.toString('hex')),
  )
  return { packets, seen, begins, push: (chunk: Buffer) => Buffer.concat(packets.push(chunk)).toString('hex') }
}

const texts = PACKETS.map((packet) => packet.toString('hex'))

test('a chunk of whole packets goes on as it is, each of them seen', (t) => {
  const { packets, seen } = rig()
  const [goes, ...others] = packets.push(ALL)
  t.is(goes, ALL)
  t.deepEqual(others, [])
  t.deepEqual(seen, texts)
})

test('wherever two chunks meet, the same packets are seen, and only whole ones go on', (t) => {
  for (let at = 1; at < ALL.length; at++) {
    const { push, packets, seen } = rig()
    const first = push(ALL.subarray(0, at))
    t.is(first.length / 2 + packets.tailBytes, at)
    t.true(texts.join('').startsWith(first))
    t.is(first + push(ALL.subarray(at)), texts.join(''))
    t.deepEqual(seen, texts, `split at ${at}`)
    t.is(packets.tailBytes, 0)
  }
})

test('byte by byte it is the same', (t) => {
  const { push, seen } = rig()
  t.is(Array.from(ALL, (byte) => push(Buffer.from([byte]))).join(''), texts.join(''))
  t.deepEqual(seen, texts)
})

test('what is refused does not go on, wherever it stands and however it is cut', (t) => {
  for (const [index, refused] of texts.entries()) {
    const rest = texts.filter((_, place) => place !== index).join('')
    for (let at = 1; at < ALL.length; at++) {
      const { push } = rig(1_024, (packet) => packet.toString('hex') !== refused)
      t.is(push(ALL.subarray(0, at)) + push(ALL.subarray(at)), rest)
    }
  }
})

test('a packet that is too large goes on in pieces, its begin shown once, and the next ones are seen again', (t) => {
  const { packets, push, seen, begins } = rig(16)
  const large = PACKETS[3]!
  t.is(push(large.subarray(0, 10)), '')
  t.is(push(large.subarray(10, 30)), large.subarray(0, 30).toString('hex'))
  t.true(packets.oversized)
  t.deepEqual(begins, [large.subarray(0, 30).toString('hex')])
  const rest = Buffer.concat([large.subarray(30), PACKETS[0]!])
  t.is(push(rest), rest.toString('hex'))
  t.false(packets.oversized)
  t.deepEqual(seen, ['c000'])
})

test('what is no MQTT any more goes on as it is', (t) => {
  const { push, seen } = rig()
  t.is(push(hex('c000 30ff')), 'c000')
  t.is(push(hex('ffffff')), '30ffffffff')
  t.is(push(hex('c000')), 'c000')
  t.deepEqual(seen, ['c000'])
})
