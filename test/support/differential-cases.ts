import { packetOf } from '../../src/mqtt/bytes.ts'
import type { MqttVersion } from '../../src/mqtt/reason.ts'

// Packet sequences, right ones and wrong ones, for a broker and for what stands before it.

/**
 * Stands in client ids and wills for four letters that are new each time: no session is resumed by another, and a will that
 * is published long after its session can be told from what others say.
 */
export const WAY = 'WAYS'

export interface Sequence {
  readonly name: string
  readonly version: MqttVersion
  /** The first is a CONNECT, or what stands in its place. */
  readonly packets: readonly Buffer[]
  /** How it is written: all at once, after CONNACK, cut in two anywhere, or so slowly that each answer comes in between. */
  readonly manner: 'at once' | 'after connack' | 'one by one' | number
}

export const u16 = (value: number): Buffer => Buffer.of((value >> 8) & 0xff, value & 0xff)
export const bytes = (hex: string): Buffer => Buffer.from(hex.replaceAll(' ', ''), 'hex')
export const text = (value: string | Buffer): Buffer => {
  const field = Buffer.from(value)
  return Buffer.concat([u16(field.length), field])
}
const properties = (version: MqttVersion, list: Buffer = Buffer.alloc(0)): Buffer =>
  version === 4 ? Buffer.alloc(0) : Buffer.concat([varint(list.length), list])

function varint(value: number): Buffer {
  const digits: number[] = []
  do {
    digits.push((value & 0x7f) | (value > 0x7f ? 0x80 : 0))
    value >>= 7
  } while (value > 0)
  return Buffer.from(digits)
}

interface ConnectParts {
  readonly protocol?: string
  readonly level?: number
  readonly flags?: number
  readonly keepAlive?: number
  readonly list?: Buffer
  readonly clientId?: string | Buffer
  /** What follows the client id. */
  readonly rest?: readonly Buffer[]
}

export function connect(version: MqttVersion, parts: ConnectParts = {}): Buffer {
  const {
    protocol = 'MQTT',
    level = version,
    flags = 2,
    keepAlive = 60,
    list,
    clientId = `d-${WAY}`,
    rest = [],
  } = parts
  return packetOf(0x10, [
    text(protocol),
    Buffer.of(level, flags),
    u16(keepAlive),
    properties(version, list),
    text(clientId),
    ...rest,
  ])
}

export const will = (version: MqttVersion, topic: string | Buffer, list?: Buffer): readonly Buffer[] => [
  properties(version, list),
  text(topic),
  text(`will-${WAY}`),
]

interface PublishParts {
  readonly flags?: number
  readonly id?: number | null
  readonly list?: Buffer
  readonly payload?: string | Buffer
}

/** QoS stands in `flags` as in the packet: 2 is QoS 1. */
export function publish(version: MqttVersion, topic: string | Buffer, parts: PublishParts = {}): Buffer {
  const { flags = 0, id = (flags & 6) === 0 ? null : 7, list, payload = 'p' } = parts
  return packetOf(0x30 | flags, [
    text(topic),
    id === null ? Buffer.alloc(0) : u16(id),
    properties(version, list),
    Buffer.from(payload),
  ])
}

type Entry = readonly [filter: string | Buffer, options: number]

export const subscribe = (version: MqttVersion, entries: readonly Entry[], list?: Buffer, id = 9): Buffer =>
  packetOf(0x82, [
    u16(id),
    properties(version, list),
    ...entries.flatMap(([filter, options]) => [text(filter), Buffer.of(options)]),
  ])

export const unsubscribe = (
  version: MqttVersion,
  filters: readonly (string | Buffer)[],
  list?: Buffer,
  id = 11,
): Buffer => packetOf(0xa2, [u16(id), properties(version, list), ...filters.map(text)])

export const pubrel = (id: number): Buffer => packetOf(0x62, [u16(id)])

/** Text that is none, or that some would rather not see. */
// biome-ignore format: one a line
export const ODD_TEXTS: readonly (readonly [string, Buffer])[] = [
  ['nothing', Buffer.alloc(0)],
  ['U+0000', bytes('61 00 62')],
  ['a control character', bytes('61 01 62')],
  ['DEL', bytes('61 7f')],
  ['U+0085', bytes('61 c285')],
  ['U+FEFF', bytes('efbbbf 61')],
  ['U+FFFF', bytes('61 efbfbf')],
  ['U+FDD0', bytes('61 efb790')],
  ['U+1FFFF', bytes('f09fbfbf')],
  ['a surrogate', bytes('61 eda080')],
  ['a lone continuation', bytes('61 80')],
  ['an overlong slash', bytes('61 c0af')],
  ['a cut sequence', bytes('61 e282')],
  ['over U+10FFFF', bytes('f4908080')],
  ['0xff', bytes('61 ff')],
  ['four bytes', bytes('f09f9880')],
  ['a wildcard +', Buffer.from('a/+')],
  ['a wildcard #', Buffer.from('a/#')],
  ['an empty level', Buffer.from('a//b')],
  ['a slash', Buffer.from('/')],
  ['a space', Buffer.from(' ')],
  ['$SYS', Buffer.from('$SYS/broker/x')],
  ['$x', Buffer.from('$x/y')],
  ['$', Buffer.from('$')],
  ['$share as a name', Buffer.from('$share/g/t')],
  ['200 slashes', Buffer.alloc(200, '/')],
  ['201 slashes', Buffer.alloc(201, '/')],
  ['300 levels', Buffer.from('a/'.repeat(300))],
  ['65,535 bytes', Buffer.alloc(65_535, 'x')],
]

// biome-ignore format: one a line
export const ODD_FILTERS: readonly string[] = [
  '#', '+', '+/+', 'a/#', 'a/+/b', '/#', '/+', 'a#', 'a/b#', '#/a', 'a/#/b', 'a+', '+a', 'a/+b/c', '##', '++', '/+/#', '$SYS/#', '$x/#', '$share/g/a/#',
  '$share/g/+', '$share/g/', '$share/g', '$share//a', '$share/', '$share', '$share/+/a', '$share/g#/a', '$share/g/#/a', '$share/g/a#', '$queue/a', '$sharex/g/a',
]

/** Properties of every kind, as id and value; some stand where they may, most where they may not. */
// biome-ignore format: one a line
export const PROPERTIES: readonly string[] = [
  '0100', '0101', '0102', '02 0000003c', '02 00000000', '03 0001 74', '03 0001 ff', '08 0001 72', '08 0001 2b', '08 0001 23', '08 0000', '09 0001 ff', '0b 01', '0b 00',
  '0b ffffff7f', '0b 80808001', '11 0000003c', '11 ffffffff', '12 0001 61', '13 003c', '15 0001 6d', '16 0001 6d', '17 00', '17 01', '17 02', '18 0000003c',
  '19 00', '19 01', '19 02', '1a 0001 61', '1c 0001 61', '1f 0001 61', '21 0001', '21 0000', '22 0000', '22 000a', '23 0001', '23 0000', '23 ffff', '23 000b',
  '24 01', '25 01', '26 0001 61 0001 62', '26 0001 61 0001 ff', '26 0000 0000', '26 0001 61', '27 00000200', '27 00000000', '28 01', '29 01', '2a 01',
  '00', '04', '7f', '8001', '21 00', '02 00', '26 ffff 61',
  // Twice, and some together.
  '0101 0101', '02 0000003c 02 0000003c', '23 0001 23 0001', '21 0001 21 0001', '15 0001 6d 16 0001 6d', '16 0001 6d 15 0001 6d', '26 0001 61 0001 62 26 0001 61 0001 62', '0b 01 0b 02',
]

/** Packets that stand alone behind a good CONNECT. */
// biome-ignore format: one a line
export const ODD_PACKETS: readonly string[] = [
  '00 00', '10 00', '20 02 0000', '20 03 000000', '90 03 0009 00', '90 04 0009 00 00', 'b0 02 0009', 'b0 04 0009 00 00', 'd0 00', 'f0 00', 'f0 01 00', 'f0 02 18 00', 'f0 07 18 05 15 0002 6d6d',
  'c0 00', 'c1 00', 'c0 01 00', 'c0 80 00', 'c0 8000', 'e0 00', 'e1 00', 'e0 01 00', 'e0 01 04', 'e0 02 00 00', 'e0 01 81', 'e0 01 ff', 'e0 07 00 05 11 00000000', 'e0 07 00 05 11 0000003c', 'e0 02 04 05',
  '40 02 0007', '40 02 0000', '40 00', '40 01 00', '41 02 0007', '40 03 0007 00', '40 04 0007 00 00', '40 03 0007 99', '40 03 0007 10', '40 05 0007 00 00 00',
  '50 02 0007', '50 02 0000', '50 00', '52 02 0007', '50 03 0007 87', '50 03 0007 42',
  '62 02 0007', '62 02 0000', '60 02 0007', '62 00', '62 01 00', '62 03 0007 92', '62 03 0007 00', '62 03 0007 77', '66 02 0007',
  '70 02 0007', '70 00', '72 02 0007', '70 03 0007 92', '70 03 0007 01',
  '30 00', '30 01 00', '30 02 0000', '30 03 0000 00', '30 02 0005', '36 07 0001 61 0007 70 70', '38 04 0001 61 70', '3a 06 0001 61 0007 70', '32 05 0001 61 0000', '32 06 0001 61 0000 00', '32 03 0001 61', '30 ff ff ff ff', '30 ff ff ff ff 7f',
  '82 00', '82 02 0009', '82 03 0009 00', '80 06 0009 0001 61 00', '83 06 0009 0001 61 00', '82 05 0009 0001 61', '82 06 0000 0001 61 00', '82 07 0000 00 0001 61 00', '82 04 0009 00 00',
  'a2 00', 'a2 02 0009', 'a2 03 0009 00', 'a0 05 0009 0001 61', 'a2 05 0000 0001 61', 'a2 06 0000 00 0001 61', 'a2 04 0009 0000', 'a2 05 0009 00 0000', 'a2 04 0009 0005',
]

/** Written by hand: each thing that may be wrong, once. */
export function table(): Sequence[] {
  const sequences: Sequence[] = []
  for (const version of [4, 5] as const) {
    const add = (name: string, ...packets: readonly Buffer[]) =>
      sequences.push({ name: `${version}: ${name}`, version, packets, manner: 'after connack' })
    const after = (name: string, ...packets: readonly Buffer[]) => add(name, connect(version), ...packets)
    const first = (name: string, parts: ConnectParts, ...packets: readonly Buffer[]) =>
      add(`CONNECT, ${name}`, connect(version, parts), ...packets)
    const own = subscribe(version, [['t/#', 2]])

    first('as it should be', {})
    for (const level of [0, 1, 2, 3, 6, 7, 0x83, 0x84, 0x85, 0xff]) first(`level ${level}`, { level })
    for (const protocol of ['', 'MQ', 'mqtt', 'MQTTX', 'MQIsdp']) first(`protocol "${protocol}"`, { protocol })
    first('MQIsdp level 3', { protocol: 'MQIsdp', level: 3 })
    for (let flags = 0; flags < 256; flags += 1) {
      if ((flags & 0x3f) > 0x08 && flags % 3 !== 0) continue
      const rest = [
        ...((flags & 4) !== 0 ? will(version, 't/will') : []),
        ...((flags & 0x80) !== 0 ? [text('user')] : []),
        ...((flags & 0x40) !== 0 ? [text('word')] : []),
      ]
      first(`flags 0x${flags.toString(16)}`, { flags, rest })
    }
    for (const flags of [0x82, 0x42, 0xc2, 6]) first(`flags 0x${flags.toString(16)} and nothing for them`, { flags })
    first('more than the flags say', { rest: [text('user')] })
    first('no client id, clean', { clientId: '' })
    first('no client id, not clean', { clientId: '', flags: 0 })
    for (const keepAlive of [0, 1, 65_535]) first(`keep alive ${keepAlive}`, { keepAlive })
    for (const [name, odd] of ODD_TEXTS) {
      if (odd.length < 1_000) first(`client id with ${name}`, { clientId: odd })
      first(`will topic with ${name}`, { flags: 6, rest: will(version, odd) })
      first(`user name with ${name}`, { flags: 0x82, rest: [text(odd)] })
      after(`topic with ${name}`, own, publish(version, odd, { flags: 2 }))
      after(`filter with ${name}`, subscribe(version, [[odd, 1]]))
      after(
        `filter with ${name} beside a good one`,
        subscribe(version, [
          [odd, 1],
          ['t/a', 1],
        ]),
        publish(version, 't/a'),
      )
      after(`unsubscribe with ${name}`, unsubscribe(version, [odd]))
    }
    for (const filter of ODD_FILTERS) {
      after(`filter ${filter}`, subscribe(version, [[filter, 0]]))
      after(`unsubscribe ${filter}`, unsubscribe(version, [filter]))
      after(
        `${filter} between good ones`,
        subscribe(version, [
          ['t/a', 1],
          [filter, 0],
          ['t/b', 2],
        ]),
        publish(version, 't/b'),
      )
    }
    for (const packet of ODD_PACKETS) after(packet, own, bytes(packet))
    for (let options = 0; options < 256; options = options < 0x40 ? options + 1 : options * 2) {
      after(
        `subscription options 0x${options.toString(16)}`,
        subscribe(version, [['t/a', options]]),
        publish(version, 't/a', { flags: 2 }),
      )
    }
    after('no local, shared', subscribe(version, [['$share/g/a', 4]]))
    for (let flags = 0; flags < 16; flags++) {
      after(
        `publish with flags ${flags}`,
        own,
        publish(version, 't/f', { flags }),
        publish(version, 't/g', { flags: 2, id: 8 }),
      )
      after(`publish with flags ${flags} and id 0`, publish(version, 't/f', { flags, id: 0 }))
    }
    after('QoS 2 to its end', own, publish(version, 't/q', { flags: 4, id: 1 }), pubrel(1))
    after(
      'QoS 2 twice',
      own,
      publish(version, 't/q', { flags: 4, id: 1 }),
      publish(version, 't/q', { flags: 0xc, id: 1 }),
      pubrel(1),
      pubrel(1),
    )
    after(
      'QoS 2, 30 in flight',
      ...Array.from({ length: 30 }, (_, n) => publish(version, 't/q', { flags: 4, id: n + 1 })),
    )
    after(
      'a packet id in use',
      subscribe(version, [['t/a', 1]]),
      subscribe(version, [['t/b', 1]]),
      publish(version, 't/b'),
    )
    after('a wrong packet, cut short', own, bytes('36 09 0003 7461'))
    after('two CONNECTs', connect(version), publish(version, 't/a'))
    after('after DISCONNECT', bytes('e000'), publish(version, 't/a'))
    first('will, and an end without DISCONNECT', { flags: 6, rest: will(version, 't/w') })
    first('will, and an end with DISCONNECT', { flags: 6, rest: will(version, 't/w') }, bytes('e000'))
    first('will, and a fault', { flags: 0x2e, rest: will(version, 't/w') }, bytes('0000'))
    add('PUBLISH before CONNECT', publish(version, 't/a', { flags: 2 }), connect(version))
    add('PINGREQ before CONNECT', bytes('c000'), connect(version))
    add('CONNECT with other flags', Buffer.concat([bytes('11'), connect(version).subarray(1)]))
    add('CONNECT of no bytes', bytes('1000'))
    if (version === 4) continue
    for (const hex of PROPERTIES) {
      const list = bytes(hex)
      first(`property ${hex}`, { list })
      first(`will property ${hex}`, { flags: 6, rest: will(5, 't/w', list) })
      after(`publish property ${hex}`, own, publish(5, 't/p', { flags: 2, list }))
      after(`subscribe property ${hex}`, subscribe(5, [['t/a', 1]], list), publish(5, 't/a'))
      after(`unsubscribe property ${hex}`, unsubscribe(5, ['t/a'], list))
      after(`DISCONNECT property ${hex}`, packetOf(0xe0, [Buffer.of(0), properties(5, list)]))
      after(`PUBACK property ${hex}`, packetOf(0x40, [u16(7), Buffer.of(0), properties(5, list)]))
      after(`PUBREL property ${hex}`, packetOf(0x62, [u16(7), Buffer.of(0), properties(5, list)]))
    }
    const alias = (number: number) => bytes(`23 ${number.toString(16).padStart(4, '0')}`)
    after(
      'an alias and its use',
      own,
      publish(5, 't/a', { list: alias(1) }),
      publish(5, '', { list: alias(1), flags: 2 }),
    )
    after('an alias nobody has set', own, publish(5, '', { list: alias(2), flags: 2 }))
    after(
      'an alias set anew',
      own,
      publish(5, 't/a', { list: alias(1) }),
      publish(5, 't/b', { list: alias(1) }),
      publish(5, '', { list: alias(1) }),
    )
    after('the highest alias', own, publish(5, 't/a', { list: alias(10) }), publish(5, '', { list: alias(10) }))
    after('an alias over the highest', own, publish(5, 't/a', { list: alias(11) }))
    after('no topic and no alias', own, publish(5, ''))
  }
  return sequences
}
