import test from 'ava'
import { type FirstByteTable, INBOUND, OUTBOUND, PacketCursor } from '../../src/mqtt/packet-cursor.ts'
import { chunked, hex, seeded } from './fakes.ts'

const LARGEST = 268_435_455

/** [type, remaining length, offset of the byte after the header] of every packet, and the offsets where packets end. */
function follow(table: FirstByteTable, chunks: readonly Buffer[], maxBytes = LARGEST) {
  const cursor = new PacketCursor(table, maxBytes)
  const headers: [type: number, length: number, at: number][] = []
  const ends: number[] = []
  let base = 0
  for (const chunk of chunks) {
    let at = 0
    while (at < chunk.length && cursor.fault === null) {
      at = cursor.advance(chunk, at)
      if (cursor.atHeader) headers.push([cursor.type, cursor.remainingLength, base + at])
      if (cursor.fault === null && cursor.atEnd) ends.push(base + at)
    }
    base += cursor.fault === null ? chunk.length : at
    if (cursor.fault !== null) break
  }
  return { headers, ends, fault: cursor.fault, at: base }
}

const publish = (length: number, header: string) => Buffer.concat([hex(header), Buffer.alloc(length, 0xff)])

// Bodies of 0xff, so that a byte taken for a header is seen at once.
const STREAM = Buffer.concat([
  hex('c000'),
  publish(127, '30 7f'),
  publish(128, '3d 8001'),
  hex('4002 ffff 5002 ffff 6202 ffff 7002 ffff'),
  publish(16_383, '32 ff7f'),
  publish(16_384, '34 808001'),
  hex('c000 c000'),
  publish(1, '30 01'),
  publish(70_000, '31 f0a204'),
  hex('e000'),
])

test('packets have the same boundaries whatever the chunks', (t) => {
  const whole = follow(INBOUND[4], [STREAM])
  t.is(whole.fault, null)
  t.deepEqual(
    whole.headers.map(([type, length]) => [type, length]),
    [
      [12, 0],
      [3, 127],
      [3, 128],
      [4, 2],
      [5, 2],
      [6, 2],
      [7, 2],
      [3, 16_383],
      [3, 16_384],
      [12, 0],
      [12, 0],
      [3, 1],
      [3, 70_000],
      [14, 0],
    ],
  )
  t.deepEqual(whole.ends.slice(0, 4), [2, 131, 262, 266])
  t.is(whole.ends.at(-1), STREAM.length)
  for (const size of [1, 2, 3, 7, 128, 1_460, 16_384]) {
    t.deepEqual(follow(INBOUND[4], chunked(STREAM, size)), whole, `chunks of ${size}`)
  }
})

const PUBLISH = ['30', '31', '32', '33', '34', '35', '38', '39', '3a', '3b', '3c', '3d']
const ACKS = ['40', '50', '62', '70']
const KNOWN = new Set([...'10 20 82 90 a2 b0 c0 d0 e0 f0'.split(' '), ...PUBLISH, ...ACKS])
const LEGAL = {
  'device 3.1.1': [INBOUND[4], [...PUBLISH, ...ACKS, '82', 'a2', 'c0', 'e0']],
  'device 5': [INBOUND[5], [...PUBLISH, ...ACKS, '82', 'a2', 'c0', 'e0', 'f0']],
  'broker 3.1.1': [OUTBOUND[4], ['20', ...PUBLISH, ...ACKS, '90', 'b0', 'd0']],
  'broker 5': [OUTBOUND[5], ['20', ...PUBLISH, ...ACKS, '90', 'b0', 'd0', 'e0', 'f0']],
} as const

for (const [who, [table, legal]] of Object.entries(LEGAL)) {
  test(`all 256 first bytes have their verdict: ${who} [MQTT-2.1.3-1]`, (t) => {
    for (let first = 0; first < 256; first++) {
      const octet = first.toString(16).padStart(2, '0')
      const expected = legal.some((known) => known === octet)
        ? null
        : KNOWN.has(octet)
          ? 'ERR_PACKET_UNEXPECTED'
          : 'ERR_PACKET_MALFORMED'
      t.is(follow(table, [Buffer.from([first, 0])]).fault, expected, `0x${octet}`)
    }
  })
}

test('a remaining length of four bytes is the longest, with its largest value', (t) => {
  const found = follow(INBOUND[5], [hex('30 ffffff7f')])
  t.deepEqual(found, { headers: [[3, LARGEST, 5]], ends: [], fault: null, at: 5 })
})

test('a remaining length of five bytes is a fault at its fourth byte, in one chunk and in single bytes', (t) => {
  for (const size of [6, 1]) {
    const found = follow(INBOUND[5], chunked(hex('30 8080808001'), size))
    t.deepEqual(found, { headers: [], ends: [], fault: 'ERR_PACKET_MALFORMED', at: 4 })
  }
})

test('a packet of the limit passes and one byte more is a fault before its body', (t) => {
  t.is(follow(INBOUND[4], [hex('30 8001')], 128).fault, null)
  const found = follow(INBOUND[4], [hex('c000 30 8101 ff')], 128)
  t.deepEqual(found, { headers: [[12, 0, 2]], ends: [2], fault: 'ERR_PACKET_TOO_LARGE', at: 4 })
})

test('a fault after good packets is told at the offset of the byte at fault', (t) => {
  const found = follow(INBOUND[4], [hex('c000 3001ff 20020000')])
  t.deepEqual([found.ends, found.fault, found.at], [[2, 5], 'ERR_PACKET_UNEXPECTED', 5])
})

test('500 000 mutated streams neither throw nor move the cursor back or out of the chunk', (t) => {
  const random = seeded(0x5eed)
  const seedStream = Buffer.from(STREAM.subarray(0, 290))
  const tables = [INBOUND[4], INBOUND[5], OUTBOUND[4], OUTBOUND[5]]
  let faults = 0
  let wrong = 0
  for (let run = 0; run < 500_000; run++) {
    const from = Math.floor(random() * 200)
    const bytes = Buffer.from(seedStream.subarray(from, from + 1 + Math.floor(random() * 60)))
    for (let hits = Math.floor(random() * 4); hits >= 0; hits--) {
      bytes[Math.floor(random() * bytes.length)] = Math.floor(random() * 256)
    }
    const cursor = new PacketCursor(tables[run & 3]!, 1 << (run % 29))
    const cut = Math.floor(random() * (bytes.length + 1))
    for (const chunk of [bytes.subarray(0, cut), bytes.subarray(cut)]) {
      let at = 0
      while (at < chunk.length && cursor.fault === null) {
        const next = cursor.advance(chunk, at)
        // Every step makes way, unless it ends in a fault.
        if (next > chunk.length || next < at || (next === at && cursor.fault === null)) wrong++
        at = next
      }
    }
    if (cursor.fault !== null) faults++
    else if (cursor.remainingLength > 1 << (run % 29) && cursor.atHeader) wrong++
  }
  t.is(wrong, 0)
  t.true(faults > 50_000 && faults < 500_000, `${faults} faults`)
})

test('a cursor keeps nothing of what it has seen: 16 million packets leave the heap as it was', (t) => {
  const chunk = Buffer.alloc(65_536, 'c000', 'hex')
  const cursor = new PacketCursor(INBOUND[4], LARGEST)
  const before = process.memoryUsage().heapUsed
  let packets = 0
  for (let round = 0; round < 512; round++) {
    for (let at = 0; at < chunk.length; packets++) at = cursor.advance(chunk, at)
  }
  t.is(packets, 16_777_216)
  t.true(process.memoryUsage().heapUsed - before < 64 * 1_048_576)
})
