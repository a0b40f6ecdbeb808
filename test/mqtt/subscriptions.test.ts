import test from 'ava'
import type { FailureCode } from '../../src/errors.ts'
import { packetOf } from '../../src/mqtt/bytes.ts'
import type { GateOptions } from '../../src/mqtt/gate.ts'
import { AWS_IOT_RULES, OPEN_RULES } from '../../src/mqtt/limits.ts'
import { chunked, hex } from './fakes.ts'
import { connectedRig, permitOf } from './gate-rig.ts'

/** Filters that begin with `n` are denied. */
const permit = permitOf({ 'iot:Subscribe': (resource) => !resource.startsWith('topicfilter/n') })
const v5 = { version: 5, permit } as const

const bare = (octets: string): string => octets.replaceAll(' ', '')

interface Exchange {
  readonly device: string
  readonly asks?: string
  /** What the broker then says, and what the device gets in the end. */
  readonly broker?: string
  readonly heard?: string
  readonly faults?: readonly FailureCode[]
  readonly told?: readonly string[]
}

const exchange = test.macro<[options: Partial<GateOptions>, exchange: Exchange]>(
  (t, options, { device, asks = '', broker = '', heard = '', faults = [], told }) => {
    const said = hex(device)
    const answered = hex(broker)
    for (let size = 1; size <= Math.max(said.length, answered.length); size++) {
      const rig = connectedRig(options)
      rig.fromDevice(...chunked(said, size))
      t.is(rig.broker.hex, bare(asks), `chunks of ${size}`)
      rig.fromBroker(...chunked(answered, size))
      t.is(rig.device.hex, bare(heard), `chunks of ${size}`)
      t.deepEqual(rig.faults, [...faults])
      if (told !== undefined) t.deepEqual(rig.told, [...told])
    }
  },
)

// Filters here: a, b allowed; n, n/# denied.

test(
  'what is allowed goes on as it came, and its SUBACK too',
  exchange,
  { permit },
  {
    device: '820a 0001 000161 00 000162 01',
    asks: '820a 0001 000161 00 000162 01',
    broker: '9004 0001 0001',
    heard: '9004 0001 0001',
    told: ['subscribed a b'],
  },
)

test(
  'one denied filter of three is cut out, and its place in SUBACK is ours',
  exchange,
  { permit },
  {
    device: '820e 0001 000161 00 00016e 01 000162 02 c000',
    asks: '820a 0001 000161 00 000162 02 c000',
    broker: '9004 0001 0080 d000',
    heard: '9005 0001 008080 d000',
    told: ['iot:Subscribe topicfilter/n ERR_ACTION_DENIED', 'subscribed a'],
  },
)

test('MQTT 5: properties and options of the others stay, reasons and properties of SUBACK too', exchange, v5, {
  device: '821a 0001 09 0b05 2600017800017a 00016e 2d 000161 1e 0003 6e2f23 01',
  asks: '8210 0001 09 0b05 2600017800017a 000161 1e',
  broker: '9008 0001 04 1f000178 02',
  heard: '900a 0001 04 1f000178 870287',
  told: [
    'iot:Subscribe topicfilter/n ERR_ACTION_DENIED',
    'iot:Subscribe topicfilter/n/# ERR_ACTION_DENIED',
    'subscribed a',
  ],
})

test(
  'all denied: we answer, and the broker knows nothing of it',
  exchange,
  { permit },
  {
    device: '820a 0001 00016e 00 00016e 01 c000',
    asks: 'c000',
    heard: '9004 0001 8080',
  },
)
test('MQTT 5: all denied', exchange, v5, { device: '8207 0001 00 00016e 00', heard: '9004 0001 00 87' })

test(
  'report only: all of it goes on',
  exchange,
  { permit, reportOnly: true },
  {
    device: '8206 0001 00016e 00',
    asks: '8206 0001 00016e 00',
    told: ['iot:Subscribe topicfilter/n ERR_ACTION_DENIED'],
  },
)

test(
  '3.1.1 under aws-iot: a denied filter ends the session',
  exchange,
  { permit, rules: AWS_IOT_RULES },
  {
    device: '820a 0001 000161 00 00016e 00',
    faults: ['ERR_ACTION_DENIED'],
  },
)
test(
  'MQTT 5 under aws-iot: a denied filter is 0x87',
  exchange,
  { ...v5, rules: AWS_IOT_RULES },
  {
    device: '820b 0001 00 000161 00 00016e 00',
    asks: '8207 0001 00 000161 00',
    broker: '9004 0001 00 00',
    heard: '9005 0001 00 0087',
  },
)

test(
  'a filter whose wildcards do not fit ends the session, whatever stands beside it [MQTT-4.7.1-2]',
  exchange,
  { version: 5 },
  {
    device: '820c 0001 00 000162 00 0002 612b 00',
    faults: ['ERR_PACKET_MALFORMED'],
  },
)
test(
  'a shared subscription without a group is 0x8F [MQTT-4.8.2-1]',
  exchange,
  { version: 5 },
  {
    device: '820f 0001 00 0009 2473686172652f2f61 00',
    heard: '9004 0001 00 8f',
  },
)
test(
  'the shared filter is judged as it was sent',
  exchange,
  { permit: permitOf({ 'iot:Subscribe': (r) => r === 'topicfilter/$share/g/n' }) },
  {
    device: '820f 0001 000a 2473686172652f672f6e 00',
    asks: '820f 0001 000a 2473686172652f672f6e 00',
  },
)

test(
  'a QoS above the ceiling is granted lower, the other options stay',
  exchange,
  { version: 5, rules: { ...OPEN_RULES, maxQoS: 0 } },
  {
    device: '820b 0001 00 000161 2e 000162 00',
    asks: '820b 0001 00 000161 2c 000162 00',
    broker: '9005 0001 00 0000',
    heard: '9005 0001 00 0000',
  },
)
test(
  'QoS 2 under aws-iot ends the session',
  exchange,
  { version: 5, rules: AWS_IOT_RULES },
  {
    device: '8207 0001 00 000161 02',
    faults: ['ERR_QOS_UNSUPPORTED'],
  },
)
test(
  'a subscription identifier where there are none',
  exchange,
  { version: 5, rules: AWS_IOT_RULES },
  {
    device: '8209 0001 02 0b01 000161 00',
    faults: ['ERR_SUBSCRIPTION_ID_UNSUPPORTED'],
  },
)
test(
  'more filters than a SUBSCRIBE may have are all refused',
  exchange,
  { version: 5, rules: { ...OPEN_RULES, filtersPerSubscribe: 1 } },
  {
    device: '820b 0001 00 000161 00 000162 00',
    heard: '9005 0001 00 9797',
    told: ['limit filters'],
  },
)
test(
  'a filter of too many bytes',
  exchange,
  { rules: { ...OPEN_RULES, topicBytes: 1 } },
  {
    device: '820b 0001 000161 00 00026161 00',
    asks: '8206 0001 000161 00',
    broker: '9003 0001 00',
    heard: '9004 0001 0080',
    told: ['limit topic', 'subscribed a'],
  },
)

for (const [what, version, octets] of [
  ['without a filter [MQTT-3.8.3-2]', 4, '8202 0001'],
  ['of packet id 0', 4, '8206 0000 000161 00'],
  ['of QoS 3', 4, '8206 0001 000161 03'],
  ['of 3.1.1 with options of MQTT 5', 4, '8206 0001 000161 04'],
  ['without options', 4, '8205 0001 000161'],
  ['whose filter is longer than the packet', 4, '8206 0001 000261 00'],
  ['whose filter is no text', 4, '8206 0001 0001ff 00'],
  ['with an empty filter', 4, '8205 0001 0000 00'],
  ['with a property of another packet', 5, '8209 0001 02 2301 000161 00'],
  ['with two identifiers', 5, '820b 0001 04 0b010b01 000161 00'],
  ['with identifier 0', 5, '8209 0001 02 0b00 000161 00'],
  ['of No Local on a shared subscription [MQTT-3.8.3-4]', 5, '8210 0001 00 000a 2473686172652f672f6e 04'],
  ['with reserved options', 5, '8207 0001 00 000161 40'],
] as const) {
  test(
    `a SUBSCRIBE ${what} ends the session`,
    exchange,
    { version },
    { device: octets, faults: ['ERR_PACKET_MALFORMED'] },
  )
}

test('UNSUBSCRIBE goes on, and what the broker says of it is told', exchange, v5, {
  device: 'a20a 0001 00 000161 0002 6e31',
  asks: 'a20a 0001 00 000161 0002 6e31',
  broker: 'b005 0001 00 0011',
  heard: 'b005 0001 00 0011',
  told: ['unsubscribed a'],
})
test(
  '3.1.1: UNSUBACK has no codes',
  exchange,
  { permit },
  {
    device: 'a205 0001 000161',
    asks: 'a205 0001 000161',
    broker: 'b002 0001',
    heard: 'b002 0001',
    told: ['unsubscribed a'],
  },
)

test('a filter twice in one UNSUBSCRIBE is told as often as it was there', exchange, v5, {
  device: 'a209 0001 00 000161 000161',
  asks: 'a209 0001 00 000161 000161',
  broker: 'b005 0001 00 0011',
  heard: 'b005 0001 00 0011',
  told: ['unsubscribed a'],
})

/** SUBSCRIBE or UNSUBSCRIBE of so many filters, and the answer that grants them all. */
function massOf(kind: 'subscribe' | 'unsubscribe', count: number): readonly [Buffer, Buffer] {
  const filters = Array.from({ length: count }, (_, n) => {
    const text = n.toString(36).padStart(4, '0')
    return Buffer.concat([Buffer.from([0, 4]), Buffer.from(text), Buffer.alloc(kind === 'subscribe' ? 1 : 0)])
  })
  const head = Buffer.from([0, 1, 0])
  return kind === 'subscribe'
    ? [packetOf(0x82, [head, ...filters]), packetOf(0x90, [head, Buffer.alloc(count)])]
    : [packetOf(0xa2, [head, ...filters]), packetOf(0xb0, [head, Buffer.alloc(count)])]
}

for (const kind of ['subscribe', 'unsubscribe'] as const) {
  test(`the work of one ${kind.toUpperCase()} and its answer grows with its filters, not with their square`, (t) => {
    let compared = 0
    // Every look at a filter by its place or its value, in whatever list it stands.
    const { indexOf, includes } = Array.prototype
    const counted = <T extends typeof indexOf | typeof includes>(search: T) =>
      function (this: readonly unknown[], ...args: Parameters<T>) {
        compared += this.length
        return Reflect.apply(search, this, args)
      }
    Object.assign(Array.prototype, { indexOf: counted(indexOf), includes: counted(includes) })
    try {
      const rig = connectedRig({ version: 5, rules: { ...OPEN_RULES, subscriptions: 100_000 } })
      const [asked, answer] = massOf(kind, 20_000)
      rig.fromDevice(asked)
      rig.fromBroker(answer)
      t.is(rig.device.bytes.length, answer.length)
    } finally {
      Object.assign(Array.prototype, { indexOf, includes })
    }
    t.true(compared < 20_000, `${compared} comparisons`)
  })
}

test('SUBACKs out of order find their SUBSCRIBEs', (t) => {
  const rig = connectedRig({ permit })
  rig.fromDevice(hex('820a 0001 00016e 00 000161 00 820a 0002 000162 00 00016e 00'))
  rig.fromBroker(hex('9003 0002 01 9003 0001 00'))
  t.is(rig.device.hex, bare('9004 0002 0180 9004 0001 8000'))
})

test('one id for two unanswered SUBSCRIBEs ends the session [MQTT-2.2.1-3]', (t) => {
  const rig = connectedRig({ permit })
  rig.fromDevice(hex('8206 0001 000161 00 8206 0001 000162 00'))
  t.deepEqual([rig.broker.hex, rig.faults], [bare('8206 0001 000161 00'), ['ERR_PACKET_UNEXPECTED']])
})

test('a SUBACK of another number of codes is no answer', (t) => {
  for (const codes of ['9002 0001', '9004 0001 0000']) {
    const rig = connectedRig({ permit })
    rig.fromDevice(hex('820a 0001 00016e 00 000161 00'))
    rig.fromBroker(hex(codes))
    t.deepEqual([rig.device.hex, rig.faults], ['', ['ERR_BACKEND_PROTOCOL']])
  }
})

test('a SUBACK that nobody asked for goes on', (t) => {
  const rig = connectedRig({ permit })
  rig.fromDevice(hex('8206 0001 000161 00'))
  rig.fromBroker(hex('9003 0007 00'))
  t.is(rig.device.hex, bare('9003 0007 00'))
})

test('subscriptions are counted by filter: refused ones and those given up do not count', (t) => {
  const rig = connectedRig({ version: 5, rules: { ...OPEN_RULES, subscriptions: 2 } })
  const ask = (id: string, filter: string, answer: string) => {
    rig.device.chunks.length = 0
    rig.fromDevice(hex(`8207 ${id} 00 0001${filter} 00`))
    if (rig.device.hex === '') rig.fromBroker(hex(`9004 ${id} 00 ${answer}`))
    return rig.device.hex.slice(-2)
  }
  t.is(ask('0001', '61', '00'), '00')
  t.is(ask('0002', '62', '87'), '87')
  t.is(ask('0003', '63', '00'), '00')
  t.is(ask('0004', '64', '00'), '97')
  t.is(ask('0005', '61', '01'), '01', 'the same filter again')
  rig.fromDevice(hex('a206 0006 00 000161'))
  rig.fromBroker(hex('b004 0006 00 00'))
  t.is(ask('0007', '64', '00'), '00')
  t.is(rig.traffic.gate.limits.subscriptions, 1)
})

test('a SUBSCRIBE larger than is held ends the session before it is there', (t) => {
  const rig = connectedRig({ permit })
  rig.fromDevice(hex('82818010'))
  t.deepEqual([rig.broker.hex, rig.faults], ['', ['ERR_PACKET_TOO_LARGE']])
})

test('unanswered SUBSCRIBEs have a bound', (t) => {
  const rig = connectedRig({ permit })
  const filter = '61'.repeat(65_535)
  for (let id = 1; id <= 20 && rig.faults.length === 0; id++) {
    rig.fromDevice(Buffer.concat([hex('82848004'), Buffer.from([0, id]), hex(`ffff${filter}00`)]))
  }
  t.deepEqual(rig.faults, ['ERR_QUOTA_EXCEEDED'])
})
