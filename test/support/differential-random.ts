import { packetOf } from '../../src/mqtt/bytes.ts'
import type { MqttVersion } from '../../src/mqtt/reason.ts'
import {
  bytes,
  connect,
  ODD_FILTERS,
  ODD_PACKETS,
  ODD_TEXTS,
  PROPERTIES,
  publish,
  pubrel,
  type Sequence,
  subscribe,
  text,
  u16,
  unsubscribe,
  will,
} from './differential-cases.ts'

type Random = () => number

/** Sequences at random, most of them right; `count` of them and as many with some bytes changed. */
export function generated(random: Random, count: number): Sequence[] {
  const below = (limit: number) => Math.floor(random() * limit)
  const pick = <T>(from: readonly T[]): T => from[below(from.length)]!
  const sometimes = (share: number) => random() < share
  const sequences: Sequence[] = []
  const listFor = (allowed: readonly string[]): Buffer =>
    Buffer.concat(
      Array.from({ length: sometimes(0.4) ? 1 + below(3) : 0 }, () =>
        bytes(sometimes(0.9) ? pick(allowed) : pick(PROPERTIES)),
      ),
    )
  const topic = (): string | Buffer =>
    sometimes(0.9) ? pick(['t/a', 't/b', 't/a/b', 't/ä', 't//', 't/$x']) : pick(ODD_TEXTS.slice(0, -1))[1]
  const filter = (): string | Buffer =>
    sometimes(0.85)
      ? pick(['t/#', 't/+', 't/a', 't/+/b', '$share/g/t/a'])
      : sometimes(0.7)
        ? pick(ODD_FILTERS)
        : topic()
  const options = (version: MqttVersion) =>
    sometimes(0.9) ? below(3) | (version === 5 ? below(3) << 4 : 0) : below(256)
  const id = () => (sometimes(0.97) ? 1 + below(5) : 0)

  const one = (version: MqttVersion): Buffer => {
    switch (below(10)) {
      case 0:
      case 1:
      case 2:
      case 3: {
        const flags = pick([0, 0, 2, 2, 4, 1, 3, 5, 0xa, 0xc, 8, 6])
        return publish(version, topic(), {
          flags,
          ...((flags & 6) !== 0 && { id: id() }),
          list: listFor([
            '0101',
            '02 0000003c',
            '03 0001 74',
            '08 0001 72',
            '09 0001 ff',
            '23 0001',
            '23 0002',
            '26 0001 61 0001 62',
          ]),
          payload: pick(['', 'p', 'payload']),
        })
      }
      case 4:
        return pubrel(id())
      case 5:
      case 6:
        return subscribe(
          version,
          Array.from({ length: 1 + below(3) }, () => [filter(), options(version)] as const),
          listFor(['0b 01', '26 0001 61 0001 62']),
          id(),
        )
      case 7:
        return unsubscribe(version, Array.from({ length: 1 + below(2) }, filter), listFor(['26 0001 61 0001 62']), id())
      case 8:
        return packetOf(pick([0x40, 0x50, 0x70]), [u16(id())])
      default:
        return sometimes(0.7) ? bytes('c000') : bytes(pick(ODD_PACKETS))
    }
  }
  const opening = (version: MqttVersion): Buffer => {
    if (sometimes(0.5)) return connect(version)
    const withWill = sometimes(0.5)
    const [user, word] = [sometimes(0.4), sometimes(0.2)]
    return connect(version, {
      flags:
        (sometimes(0.9) ? 2 : 0) |
        (withWill ? 4 | (below(3) << 3) | (below(2) << 5) : 0) |
        (user ? 0x80 : 0) |
        (word ? 0x40 : 0),
      keepAlive: pick([0, 10, 60, 65_535]),
      list: listFor(['11 0000003c', '17 01', '19 01', '21 0005', '22 0005', '26 0001 61 0001 62', '27 00000200']),
      rest: [
        ...(withWill ? will(version, topic(), listFor(['0101', '02 0000003c', '03 0001 74', '18 00000001'])) : []),
        ...(user ? [text('user')] : []),
        ...(word ? [text('word')] : []),
      ],
    })
  }
  for (let number = 0; number < count; number++) {
    const version = number % 2 === 0 ? 4 : 5
    const packets = [opening(version), ...Array.from({ length: below(7) }, () => one(version))]
    const manner = (['at once', 'after connack', below(80)] as const)[below(3)]!
    sequences.push({ name: `generated ${number}`, version, packets, manner })
    const place = below(packets.length)
    const changed = packets.map((packet, at) => (at === place || sometimes(0.1) ? mutated(packet, random) : packet))
    sequences.push({ name: `mutated ${number}`, version, packets: changed, manner })
  }
  return sequences
}

/** Some bytes of one packet changed; mostly its length goes with them, so that what follows is still a packet. */
function mutated(packet: Buffer, random: Random): Buffer {
  const below = (limit: number) => Math.floor(random() * limit)
  let header = 1
  while (header < packet.length && (packet[header]! & 0x80) !== 0) header++
  let first = packet[0]!
  let body = Buffer.from(packet.subarray(header + 1))
  for (let changes = 1 + below(2); changes > 0; changes--) {
    const at = below(Math.min(body.length, 60))
    const kind = below(8)
    if (kind === 0) first ^= 1 << below(4)
    else if (kind === 1) first = below(256)
    else if (kind === 2) body = Buffer.concat([body.subarray(0, at), Buffer.of(below(256)), body.subarray(at)])
    else if (kind === 3) body = Buffer.concat([body.subarray(0, at), body.subarray(at + 1 + below(3))])
    else if (kind === 4) body = Buffer.from(body.subarray(0, at))
    else if (at < body.length) body[at] = kind === 5 ? body[at]! ^ (1 << below(8)) : kind === 6 ? below(256) : below(4)
  }
  if (random() < 0.92) return packetOf(first, [body])
  return Buffer.concat([Buffer.of(first), packet.subarray(1, header + 1), body])
}
