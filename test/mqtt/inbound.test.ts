import test, { type ExecutionContext } from 'ava'
import type { FailureCode } from '../../src/errors.ts'
import { LENIENT_DENIALS } from '../../src/mqtt/denials.ts'
import type { GateOptions } from '../../src/mqtt/gate.ts'
import { AWS_IOT_RULES, OPEN_RULES, type SessionRules } from '../../src/mqtt/limits.ts'
import { OPEN_PERMIT } from '../../src/policy/permit.ts'
import { chunked, hex } from './fakes.ts'
import { connectedRig, type GateRig, gateRig, permitOf } from './gate-rig.ts'

/** Publishes to topics that begin with `n` are denied, retained ones to `o` too. */
const permit = permitOf({
  'iot:Publish': (resource) => !resource.startsWith('topic/n'),
  'iot:RetainPublish': (resource) => !resource.startsWith('topic/o'),
})
const lenient: SessionRules = { ...OPEN_RULES, denials: LENIENT_DENIALS }

interface Expected {
  readonly broker: string
  readonly device?: string
  readonly faults?: readonly FailureCode[]
}

const bare = (octets: string): string => octets.replaceAll(' ', '')

/** The same bytes in every chunking give the same bytes on both sides. */
function everyChunking(t: ExecutionContext, options: Partial<GateOptions>, said: string, expected: Expected): GateRig {
  const bytes = hex(said)
  const chunkings = [1, 2, 3, 7, 128, 1_460].map((size) => chunked(bytes, size))
  for (let split = 1; split < bytes.length; split++) chunkings.push([bytes.subarray(0, split), bytes.subarray(split)])
  let rig = connectedRig(options)
  for (const chunks of chunkings) {
    rig = connectedRig(options)
    rig.fromDevice(...chunks)
    const how = `${chunks.length} chunks, the first of ${chunks[0]!.length}`
    t.is(rig.broker.hex, bare(expected.broker), how)
    t.is(rig.device.hex, bare(expected.device ?? ''), how)
    t.deepEqual(rig.faults, [...(expected.faults ?? [])], how)
    t.true(rig.gate.inbound.atBoundary || rig.faults.length > 0)
  }
  return rig
}

const says = test.macro<[options: Partial<GateOptions>, said: string, expected: Expected]>(
  (t, options, said, expected) => {
    everyChunking(t, options, said, expected)
  },
)

// --- the way through

test('a chunk of which everything goes on leaves as it came', (t) => {
  const rig = connectedRig({ version: 4, permit })
  const chunk = hex('3004000161ff 3206000161 0001ff c000')
  rig.fromDevice(chunk)
  t.is(rig.broker.chunks[0], chunk)
})

test('a payload that follows a judged head goes on as it lies', (t) => {
  const rig = connectedRig({ version: 4, permit })
  const payload = hex('ff'.repeat(50))
  rig.fromDevice(hex('3080010001'), hex('61'), payload)
  t.is(rig.broker.chunks.length, 2)
  t.is(rig.broker.chunks[1], payload)
  t.is(rig.broker.hex.slice(0, 12), '308001000161')
})

test('before its head is judged no byte of a publish goes on', (t) => {
  const rig = connectedRig({ version: 5, permit })
  const packet = hex('320a 0002 6e31 0001 00 707172')
  for (let at = 0; at < 8; at++) {
    rig.fromDevice(packet.subarray(at, at + 1))
    t.is(rig.broker.hex, '')
    t.is(rig.device.hex, '')
  }
  rig.fromDevice(packet.subarray(8))
  t.is(rig.broker.hex, '')
  t.is(rig.device.hex, '4003000187')
})

// --- denials

const A = '3004 000161 70'
const N0 = '3004 00016e 70'
const N1 = '3206 00016e 0001 70'
const N2 = '3406 00016e 0002 70'
test('3.1.1, open: a denied QoS 0 publish closes', says, { permit }, `${A}${N0}${A}`, {
  broker: A,
  faults: ['ERR_ACTION_DENIED'],
})
test('3.1.1, open: a denied QoS 1 publish closes', says, { permit }, `${A}${N1}${A}`, {
  broker: A,
  faults: ['ERR_ACTION_DENIED'],
})
test('3.1.1, lenient: QoS 0 is dropped', says, { permit, rules: lenient }, `${A}${N0}${A}`, { broker: A + A })
test('3.1.1, lenient: QoS 1 is acknowledged and dropped', says, { permit, rules: lenient }, `${A}${N1}${A}`, {
  broker: A + A,
  device: '40020001',
})
test(
  '3.1.1, lenient: QoS 2 is completed here, and other PUBRELs go on',
  says,
  { permit, rules: lenient },
  `${N2} ${A} 62020002 62020003 62020002`,
  { broker: `${A} 62020003 62020002`, device: '50020002 70020002' },
)

const A5 = '3005 000161 00 70'
const N50 = '3005 00016e 00 70'
const N51 = '3207 00016e 0001 00 70'
const N52 = '3407 00016e 0002 00 70'
test('MQTT 5, open: a denied QoS 0 publish closes', says, { version: 5, permit }, `${A5}${N50}${A5}`, {
  broker: A5,
  faults: ['ERR_ACTION_DENIED'],
})
test('MQTT 5, open: QoS 1 is PUBACK 0x87', says, { version: 5, permit }, `${A5}${N51}${A5}`, {
  broker: A5 + A5,
  device: '4003 0001 87',
})
test('MQTT 5, open: QoS 2 is PUBREC 0x87 and over', says, { version: 5, permit }, `${N52}${A5} 62020002`, {
  broker: `${A5} 62020002`,
  device: '5003 0002 87',
})
test('MQTT 5, lenient: QoS 0 is dropped', says, { version: 5, permit, rules: lenient }, `${N50}${A5}${N51}`, {
  broker: A5,
  device: '4003000187',
})
test(
  'MQTT 5, drop: acknowledged as if all were well',
  says,
  { version: 5, permit, rules: { ...OPEN_RULES, denials: { ...LENIENT_DENIALS, publish5: 'drop' } } },
  `${N51}${N52} 62020002`,
  { broker: '', device: '40020001 50020002 70020002' },
)
test('a publish may be allowed and its RETAIN not', says, { permit, rules: lenient }, '3103 00016f 3003 00016f', {
  broker: '3003 00016f',
})

test('what is decided is counted and told, and report only lets it pass', (t) => {
  const denied = everyChunking(t, { permit, rules: lenient }, `${A}${N0}${N1} 3103 00016f`, {
    broker: A,
    device: '40020001',
  })
  const { allowed, denied: no, packetsDenied } = denied.traffic.gate
  t.deepEqual(
    [allowed['iot:Publish'], no['iot:Publish'], packetsDenied['iot:Publish'], packetsDenied['iot:RetainPublish']],
    [2, 2, 2, 1],
  )
  t.deepEqual(denied.told, [
    'iot:Publish topic/n ERR_ACTION_DENIED',
    'iot:Publish topic/n ERR_ACTION_DENIED',
    'iot:RetainPublish topic/o ERR_ACTION_DENIED',
  ])
  const reported = everyChunking(t, { permit, reportOnly: true }, `${A}${N0}${N1}`, { broker: A + N0 + N1 })
  t.deepEqual([reported.traffic.gate.denied['iot:Publish'], reported.traffic.gate.packetsDenied['iot:Publish']], [2, 0])
  t.is(reported.told.length, 2)
})

test('the same topic again makes no second decision of the permit', (t) => {
  let asked = 0
  const counting = permitOf({
    'iot:Publish': () => {
      asked++
      return true
    },
  })
  const rig = connectedRig({ permit: counting })
  for (let count = 0; count < 100; count++) rig.fromDevice(hex('3003 000161 3003 000162'))
  t.is(asked, 2)
  t.is(rig.traffic.gate.allowed['iot:Publish'], 200)
  rig.gate.permit = counting
  rig.fromDevice(hex('3003 000161'))
  t.is(asked, 3)
})

test('a permit whose answers hang on the time is asked each time', (t) => {
  let open = true
  const rig = connectedRig({ rules: lenient, permit: { allows: () => open, allowsAll: () => false } })
  rig.fromDevice(hex('3003 000161'))
  open = false
  rig.fromDevice(hex('3003 000161'))
  rig.fromBroker(hex('3003 000161'))
  open = true
  rig.fromBroker(hex('3003 000161'))
  t.deepEqual([rig.broker.hex, rig.device.hex], [bare('3003 000161'), bare('3003 000161')])
})

test('an answer waits until the delivery that is under way is whole', (t) => {
  const rig = connectedRig({ version: 5, permit })
  const delivery = hex('3008 000161 00 70717273')
  rig.fromBroker(delivery.subarray(0, 7))
  rig.fromDevice(hex(N51))
  t.is(rig.device.hex, bare('3008 000161 00 70'))
  rig.fromBroker(Buffer.concat([delivery.subarray(7), hex('d000')]))
  t.is(rig.device.hex, bare('3008 000161 00 70717273 4003000187 d000'))
})

test('an answer is said before the DISCONNECT that a later packet of the same chunk causes', (t) => {
  const rig = connectedRig({ version: 5, permit })
  rig.fromDevice(hex(`${N51} 3004 00012b 00`))
  t.deepEqual([rig.device.hex, rig.faults], ['4003000187', ['ERR_TOPIC_INVALID']])
})

test('before CONNACK no answer is said, and after one that refuses none either', (t) => {
  for (const [connack, answer] of [
    ['2003000000', '4003000187'],
    ['2003008700', ''],
  ] as const) {
    const rig = gateRig({ version: 5, permit })
    rig.fromDevice(hex(N51))
    t.is(rig.device.hex, '')
    rig.fromBroker(hex(connack))
    t.is(rig.device.hex, connack + answer)
  }
})

// --- packet ids

test('an id that the broker has is answered by the broker alone', (t) => {
  const rig = connectedRig({ version: 5, permit })
  rig.fromDevice(hex('3206 000161 0001 00'))
  // The same id again, for what is denied: DUP or not, the broker’s PUBACK is the one answer.
  rig.fromDevice(hex('3a06 00016e 0001 00'))
  t.is(rig.device.hex, '')
  rig.fromBroker(hex('40020001'))
  rig.fromDevice(hex('3206 00016e 0001 00'))
  t.is(rig.device.hex, bare('40020001 4003000187'))
  t.is(rig.broker.hex, bare('3206 000161 0001 00'))
})

test('a QoS 2 id that was ours is the broker’s once a publish with it goes on', (t) => {
  const rig = connectedRig({ permit, rules: lenient })
  rig.fromDevice(hex('3405 00016e 0002'))
  t.is(rig.device.hex, '50020002')
  rig.gate.permit = OPEN_PERMIT
  rig.fromDevice(hex('3c05 00016e 0002 62020002'))
  t.is(rig.broker.hex, bare('3c05 00016e 0002 62020002'))
})

test('PUBREL of an id of ours is ours even after the permit was widened', (t) => {
  const rig = connectedRig({ permit, rules: lenient })
  rig.fromDevice(hex('3405 00016e 0002'))
  rig.gate.permit = OPEN_PERMIT
  rig.fromDevice(hex('62020002'))
  t.deepEqual([rig.broker.hex, rig.device.hex], ['', bare('50020002 70020002')])
})

// --- topic aliases

const alias = { version: 5, permit, rules: lenient } as const
test('an alias that was defined is followed', says, alias, '3007 000161 03 230001 3006 0000 03 230001', {
  broker: '3007 000161 03 230001 3006 0000 03 230001',
})
test('what stands behind an alias is judged', says, alias, '3007 00016e 03 230001 3208 0000 0001 03 230001', {
  broker: '',
  device: '4003000187',
})
test(
  'a denied publish that defines an alias again defines it, and the broker does not know',
  says,
  alias,
  '3007 000161 03 230001 3007 00016e 03 230001 3006 0000 03 230001 3007 000162 03 230001 3006 0000 03 230001',
  { broker: '3007 000161 03 230001 3007 000162 03 230001 3006 0000 03 230001' },
)
test('an alias of 0', says, alias, '3007 000161 03 230000', { broker: '', faults: ['ERR_TOPIC_ALIAS_INVALID'] })
test('an alias that is not defined', says, alias, '3006 0000 03 230001', {
  broker: '',
  faults: ['ERR_TOPIC_ALIAS_INVALID'],
})
test(
  'an alias above the maximum of ours',
  says,
  { version: 5, rules: AWS_IOT_RULES },
  '3007 000161 03 230008 3007 000161 03 230009',
  { broker: '3007 000161 03 230008', faults: ['ERR_TOPIC_ALIAS_INVALID'] },
)
test('neither topic nor alias', says, alias, '3003 0000 00', { broker: '', faults: ['ERR_TOPIC_INVALID'] })

test('an alias above what CONNACK granted ends the session', (t) => {
  const rig = connectedRig({ version: 5 })
  rig.gate.agree({ topicAliasMaximum: 2, receiveMaximum: 65_535 })
  rig.fromDevice(hex('3007 000161 03 230002 3007 000161 03 230003'))
  t.deepEqual([rig.broker.hex, rig.faults], [bare('3007 000161 03 230002'), ['ERR_TOPIC_ALIAS_INVALID']])
})

test('an alias that the broker never learned is told with its topic when it may be used, at every split', (t) => {
  const later = hex('320b 0000 0001 03 230001 707172')
  for (let split = 0; split <= later.length; split++) {
    const rig = connectedRig(alias)
    rig.fromDevice(hex('3009 0003 6e2f31 03 230001'))
    t.is(rig.broker.hex, '')
    rig.gate.permit = OPEN_PERMIT
    rig.fromDevice(later.subarray(0, split), later.subarray(split), later)
    // Once with its topic, then by alias alone: ids and payload as they were.
    t.is(rig.broker.hex, bare(`320e 0003 6e2f31 0001 03 230001 707172 ${later.toString('hex')}`))
  }
})

test('aliases set while everything was open are known when the permit is narrowed', (t) => {
  const rig = connectedRig({ version: 5, rules: lenient })
  rig.fromDevice(hex('3007 00016e 03 230001 3007 000161 03 230002'))
  const before = rig.broker.hex
  rig.gate.permit = permit
  rig.fromDevice(hex('3006 0000 03 230001 3006 0000 03 230002'))
  t.is(rig.broker.hex, before + bare('3006 0000 03 230002'))
})

test('topics held for aliases have a bound', (t) => {
  const rig = connectedRig({ version: 5 })
  const topic = '61'.repeat(65_000)
  for (let number = 1; number <= 20 && rig.faults.length === 0; number++) {
    const body = Buffer.concat([hex(`fde8${topic} 03 23`), Buffer.from([0, number])])
    rig.fromDevice(Buffer.concat([hex('30eefb03'), body]))
  }
  t.deepEqual(rig.faults, ['ERR_TOPIC_ALIAS_INVALID'])
})

// --- rules

const aws3 = { rules: AWS_IOT_RULES } as const
const aws5 = { version: 5, rules: AWS_IOT_RULES } as const
test('a topic with a wildcard [MQTT-3.3.2-2]', says, { permit }, `${A} 3004 0002612b`, {
  broker: A,
  faults: ['ERR_TOPIC_INVALID'],
})
test('a topic that is no UTF-8', says, { permit }, `${A} 3003 0001ff`, { broker: A, faults: ['ERR_TOPIC_INVALID'] })
test('a topic of no bytes', says, { permit }, `${A} 3002 0000`, { broker: A, faults: ['ERR_TOPIC_INVALID'] })
test('a topic that is longer than its packet', says, { permit }, `${A} 3003 000261`, {
  broker: A,
  faults: ['ERR_PACKET_MALFORMED'],
})
test('QoS 2 under aws-iot', says, aws5, `${A5} 3406 000161 0001 00`, { broker: A5, faults: ['ERR_QOS_UNSUPPORTED'] })
test(
  'RETAIN on a $ topic under aws-iot',
  says,
  aws3,
  `${A} 3119 0017 ${Buffer.from('$aws/things/t/shadow/get').toString('hex').slice(0, 46)}`,
  {
    broker: A,
    faults: ['ERR_TOPIC_INVALID'],
  },
)
test(
  'RETAIN on a reserved topic that may be published to',
  says,
  aws3,
  `${A} 311a 0018 ${Buffer.from('$aws/things/t/shadow/get').toString('hex')}`,
  {
    broker: A,
    faults: ['ERR_RETAIN_UNSUPPORTED'],
  },
)
test('a subscription identifier from a device [MQTT-3.3.4-6]', says, { version: 5, permit }, '3006 000161 02 0b01', {
  broker: '',
  faults: ['ERR_PACKET_MALFORMED'],
})
test(
  'a payload over the limit, and one that is just under it',
  says,
  { rules: { ...OPEN_RULES, payloadBytes: 2 } },
  '3005 000161 7071 3206 000161 0001 70 3007 000161 70717273',
  { broker: '3005 000161 7071 3206 000161 0001 70', faults: ['ERR_PAYLOAD_TOO_LARGE'] },
)
const properties = {
  version: 5,
  rules: { ...OPEN_RULES, contentTypeBytes: 1, correlationDataBytes: 1, userPropertyBytes: 3 },
} as const
test('a content type over its limit', says, properties, '320b 000161 0001 05 0300027474 320a 000161 0002 04 03000174', {
  broker: '320a 000161 0002 04 03000174',
  device: '4003 0001 97',
})
test('correlation data over its limit', says, properties, '320b 000161 0001 05 0900020000', {
  broker: '',
  device: '4003 0001 97',
})
test(
  'user properties over their limit together',
  says,
  properties,
  '3214 000161 0001 0e 26000161000161 26000161000161',
  {
    broker: '',
    device: '4003 0001 97',
  },
)
test('a property over its limit at QoS 0 closes', says, properties, '3009 000161 05 0300027474', {
  broker: '',
  faults: ['ERR_QUOTA_EXCEEDED'],
})
test(
  'a message expiry is raised to 1 and lowered to the most',
  says,
  aws5,
  '300a 000161 05 0200000000 70' + '300a 000161 05 02ffffffff 70' + '300a 000161 05 020000003c 70',
  { broker: '300a 000161 05 0200000001 70 300a 000161 05 0200093a80 70 300a 000161 05 020000003c 70' },
)

test('MQTT 5: one publish more than the Receive Maximum ends the session', (t) => {
  const rig = connectedRig({ version: 5, rules: { ...OPEN_RULES, receiveMaximum: 2 } })
  rig.fromDevice(hex('3206 000161 0001 00 3406 000161 0002 00'))
  rig.fromBroker(hex('50020002'))
  rig.fromDevice(hex('62020002'))
  rig.fromBroker(hex('70020002'))
  rig.fromDevice(hex('3206 000161 0003 00'))
  t.deepEqual(rig.faults, [])
  // The same id again is no further message.
  rig.fromDevice(hex('3a06 000161 0003 00 3206 000161 0004 00'))
  t.deepEqual(rig.faults, ['ERR_RECEIVE_MAXIMUM'])
  t.is(rig.traffic.gate.limits.receive_maximum, 1)
})

test('3.1.1: a device is not read from while as many publishes are unanswered as may be', (t) => {
  const rig = connectedRig({ rules: { ...OPEN_RULES, receiveMaximum: 2 } })
  rig.fromDevice(hex('3205 000161 0001'))
  t.false(rig.broker.held)
  rig.fromDevice(hex('3405 000161 0002'))
  t.deepEqual([rig.broker.held, rig.gate.inbound.isHeld], [true, true])
  // QoS 2 is answered by PUBREC: its PUBREL could not come otherwise.
  rig.fromBroker(hex('50020002'))
  t.false(rig.broker.held)
  t.is(rig.traffic.gate.limits.receive_maximum, 1)
})

test('publishes above the rate are dropped and acknowledged, both ways counted together', (t) => {
  const rules = { ...OPEN_RULES, publishesPerSecond: 2 }
  for (const [version, one, delivery, ack] of [
    [4, '3205 000161 0001', '3003 000161', '40020001'],
    [5, '3206 000161 0001 00', '3004 000161 00', '4003000197'],
  ] as const) {
    const rig = connectedRig({ version, rules })
    rig.fromBroker(hex(delivery))
    rig.fromDevice(hex(one))
    rig.fromBroker(hex('40020001'))
    rig.fromDevice(hex(one))
    t.is(rig.device.hex, bare(`${delivery} 40020001 ${ack}`))
    rig.fromBroker(hex(delivery))
    t.is(rig.broker.hex, bare(one))
    t.is(rig.traffic.gate.limits.publishes_per_second, 2)
    rig.clock.pass(1_000)
    rig.fromDevice(hex(one))
    t.is(rig.broker.hex, bare(one + one))
  }
})

test('bytes above the rate are read later, and no timer is left behind', (t) => {
  const rig = connectedRig({ rules: { ...OPEN_RULES, bytesPerSecond: 1_000 } })
  rig.fromDevice(Buffer.concat([hex('30d90f 0001 61'), Buffer.alloc(2_006)]))
  t.true(rig.broker.held)
  t.is(rig.broker.bytes.length, 2_012, 'delayed, not dropped')
  rig.clock.pass(1_000)
  t.true(rig.broker.held)
  rig.clock.pass(100)
  t.false(rig.broker.held)
  rig.fromBroker(Buffer.concat([hex('30d90f 0001 61'), Buffer.alloc(2_006)]))
  t.deepEqual([rig.device.held, rig.clock.waiting], [true, 1])
  rig.gate.close()
  t.is(rig.clock.waiting, 0)
})

test('a device that floods with what is denied, while its delivery stands still, is not read from', (t) => {
  const rig = connectedRig({ version: 5, permit })
  rig.fromBroker(hex('30ffff03 0001 61 00'))
  const flood = hex('3206 00016e 0001 00'.repeat(1_000))
  let chunks = 0
  while (!rig.broker.held && chunks < 100) {
    rig.fromDevice(flood)
    chunks++
  }
  t.true(chunks > 10 && chunks < 20, `${chunks}`)
  t.is(rig.gate.outbound.answersWaiting, chunks * 5_000)
  rig.fromBroker(Buffer.alloc(65_535 - 4))
  t.false(rig.broker.held)
  t.is(rig.gate.outbound.answersWaiting, 0)
})

// --- DISCONNECT

const brief = { version: 5, rules: { ...OPEN_RULES, sessionExpirySeconds: 3_600 } } as const

// 0x11 is the interval: 0e10 seconds are an hour.
const USER = '26 0001 61 0001 62'
test('the session expiry of a DISCONNECT is lowered', says, brief, `c000 e00e 04 0c ${USER} 11 00000e11`, {
  broker: `c000 e00e 04 0c ${USER} 11 00000e10`,
})
test('one that never expires as well', says, brief, `e00e 00 0c 11 ffffffff ${USER}`, {
  broker: `e00e 00 0c 11 00000e10 ${USER}`,
})
test('what is within the limit stays', says, brief, 'e007 00 05 11 00000e10', { broker: 'e007 00 05 11 00000e10' })
for (const goodbye of ['e000', 'e001 04', 'e002 00 00']) {
  test(`${goodbye} says nothing of it`, says, brief, goodbye, { broker: goodbye })
}
test('without a limit it is the broker’s to judge', says, { version: 5 }, 'e007 00 05 11 ffffffff', {
  broker: 'e007 00 05 11 ffffffff',
})
for (const [what, body] of [
  ['a session expiry twice', '0c 00 0a 11 00000001 11 ffffffff'],
  ['a property that is cut', '06 00 04 11 000000'],
  ['bytes behind the properties', '08 00 05 11 00000001 00'],
  ['a property of another packet', '05 00 03 23 0001'],
] as const) {
  test(`a DISCONNECT with ${what} does not go on`, says, brief, `c000 e0${body}`, {
    broker: 'c000',
    faults: ['ERR_PACKET_MALFORMED'],
  })
}
test('a packet after one that was read whole [MQTT-3.14.4-1]', says, brief, 'e007 00 05 11 00000001 c000', {
  broker: 'e007 00 05 11 00000001',
  faults: ['ERR_PACKET_UNEXPECTED'],
})
test('a DISCONNECT larger than is read ends the session before it is there', says, brief, 'e0818004 00', {
  broker: '',
  faults: ['ERR_PACKET_TOO_LARGE'],
})
