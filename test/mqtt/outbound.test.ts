import test from 'ava'
import { packetOf } from '../../src/mqtt/bytes.ts'
import type { GateOptions } from '../../src/mqtt/gate.ts'
import { AWS_IOT_RULES, OPEN_RULES } from '../../src/mqtt/limits.ts'
import { varint } from '../../src/mqtt/properties.ts'
import { CLOSED_PERMIT, OPEN_PERMIT } from '../../src/policy/permit.ts'
import { chunked, hex } from './fakes.ts'
import { connectedRig, gateRig, permitOf } from './gate-rig.ts'

/** Deliveries on topics that begin with `n` are not for this device. */
const permit = permitOf({ 'iot:Receive': (resource) => !resource.startsWith('topic/n') })

const bare = (octets: string): string => octets.replaceAll(' ', '')

/** The broker says this in every chunking; the device is sent one thing, the broker is answered another. */
const delivers = test.macro<[options: Partial<GateOptions>, said: string, device: string, broker: string]>(
  (t, options, said, device, broker) => {
    const bytes = hex(said)
    const chunkings = [1, 2, 3, 7, 128, 1_460].map((size) => chunked(bytes, size))
    for (let split = 1; split < bytes.length; split++) chunkings.push([bytes.subarray(0, split), bytes.subarray(split)])
    for (const chunks of chunkings) {
      const rig = connectedRig(options)
      rig.fromBroker(...chunks)
      const how = `${chunks.length} chunks, the first of ${chunks[0]!.length}`
      t.is(rig.device.hex, bare(device), how)
      t.is(rig.broker.hex, bare(broker), how)
      t.deepEqual(rig.faults, [], how)
      t.true(rig.gate.outbound.atBoundary)
    }
  },
)

const A = '3004 000161 70'
test('a delivery that may be received goes on', delivers, { permit }, `${A} d000 ${A}`, `${A} d000 ${A}`, '')
test('one that may not does not, QoS 0', delivers, { permit }, `${A} 3004 00016e 70 ${A}`, A + A, '')
test('QoS 1 is acknowledged in the device’s place', delivers, { permit }, `3206 00016e 0102 70 ${A}`, A, '40020102')
test(
  'QoS 2 is completed in the device’s place, and another PUBREL goes on',
  delivers,
  { permit },
  `3406 00016e 0102 70 ${A} 62020102 62020103 62020102`,
  `${A} 62020103 62020102`,
  '50020102 70020102',
)
test(
  'MQTT 5 says the same to the broker',
  delivers,
  { version: 5, permit },
  '3207 00016e 0001 00 70 3407 00016e 0002 00 70 62020002',
  '',
  '40020001 50020002 70020002',
)
test(
  'a topic that is no text is for nobody whose deliveries are restricted',
  delivers,
  { permit },
  '3205 0001ff 0001',
  '',
  '40020001',
)
test('nothing may be received', delivers, { permit: CLOSED_PERMIT }, `${A} 3205 000161 0001 d000`, 'd000', '40020001')
test('report only: it goes on', delivers, { permit, reportOnly: true }, '3205 00016e 0001', '3205 00016e 0001', '')

const alias = { version: 5, permit, device: { topicAliasMaximum: 2, maximumPacketBytes: null } } as const
test(
  'aliases toward the device are followed',
  delivers,
  alias,
  '3007 000161 03 230001 3006 0000 03 230001',
  '3007 000161 03 230001 3006 0000 03 230001',
  '',
)
test(
  'and what stands behind one is judged',
  delivers,
  alias,
  '3007 00016e 03 230001 3208 0000 0001 03 230001',
  '',
  '40020001',
)
test(
  'an alias that the device has for another topic by now means the new one',
  delivers,
  alias,
  '3007 000161 03 230001 3007 00016e 03 230001 3006 0000 03 230001',
  '3007 000161 03 230001',
  '',
)

test('an alias that the device never learned is told with its topic when it may be received', (t) => {
  const rig = connectedRig(alias)
  rig.fromBroker(hex('3009 0003 6e2f31 03 230001'))
  rig.gate.permit = OPEN_PERMIT
  rig.fromBroker(hex('3007 0000 03 230001 70 3007 0000 03 230001 71'))
  t.is(rig.device.hex, bare('300a 0003 6e2f31 03 230001 70 3007 0000 03 230001 71'))
})

test('with its topic it would be larger than the device takes: as good as sent [MQTT-3.1.2-25]', (t) => {
  const rig = connectedRig({ ...alias, device: { topicAliasMaximum: 2, maximumPacketBytes: 12 } })
  rig.fromBroker(hex('3009 0003 6e2f31 03 230001'))
  rig.gate.permit = OPEN_PERMIT
  rig.fromBroker(hex('3209 0000 0007 03 230001 70 3007 0000 03 230001 70'))
  t.deepEqual([rig.device.hex, rig.broker.hex], [bare('300a 0003 6e2f31 03 230001 70'), '40020007'])
})

for (const [what, octets] of [
  ['that was not granted', '3007 000161 03 230003'],
  ['of 0', '3007 000161 03 230000'],
  ['that is not defined', '3006 0000 03 230001'],
  ['that is missing where the topic is', '3003 0000 00'],
]) {
  test(`a broker that uses an alias ${what} is stopped`, (t) => {
    const rig = connectedRig(alias)
    rig.fromBroker(hex(octets!))
    t.deepEqual([rig.device.hex, rig.faults], ['', ['ERR_BACKEND_PROTOCOL']])
  })
}

test('an acknowledgement to the broker waits until the device’s publish is whole', (t) => {
  const rig = connectedRig({ permit })
  rig.fromDevice(hex('3008 0001 61 7071'))
  rig.fromBroker(hex('3205 00016e 0009'))
  t.is(rig.broker.hex, bare('3008 0001 61 7071'))
  rig.fromDevice(hex('727374 c000'))
  t.is(rig.broker.hex, bare('3008 0001 61 7071727374 40020009 c000'))
})

test('after the device’s DISCONNECT nothing is said to the broker [MQTT-3.14.4-1]', (t) => {
  const rig = connectedRig({ permit })
  rig.fromDevice(hex('e000'))
  rig.fromBroker(hex('3205 00016e 0009'))
  t.is(rig.broker.hex, 'e000')
})

test('an id that the device has is acknowledged by the device alone', (t) => {
  const rig = connectedRig({ permit: OPEN_PERMIT })
  rig.gate.permit = permit
  rig.fromBroker(hex('3405 000161 0005'))
  rig.fromBroker(hex('3c05 00016e 0005'))
  t.is(rig.broker.hex, '')
  rig.fromDevice(hex('50020005'))
  rig.fromBroker(hex('62020005'))
  rig.fromDevice(hex('70020005'))
  t.is(rig.broker.hex, bare('50020005 70020005'))
  t.is(rig.device.hex, bare('3405 000161 0005 62020005'))
  rig.fromBroker(hex('3405 00016e 0005 62020005'))
  t.is(rig.broker.hex, bare('50020005 70020005 50020005 70020005'))
})

test('a permit that is narrowed while a delivery is under way lets that one end', (t) => {
  const rig = connectedRig({ permit: OPEN_PERMIT })
  rig.fromBroker(hex('3008 00016e 70'))
  rig.gate.permit = permit
  rig.fromBroker(hex('71727374 3003 00016e'))
  t.is(rig.device.hex, bare('3008 00016e 7071727374'))
})

test('3.1.1: deliveries pause while as many are unanswered as may be', (t) => {
  const rig = connectedRig({ rules: { ...OPEN_RULES, sendMaximum: 2 } })
  rig.fromBroker(hex('3205 000161 0001 3405 000161 0002'))
  t.true(rig.device.held)
  rig.fromDevice(hex('50020002'))
  t.false(rig.device.held)
  t.is(rig.traffic.gate.limits.send_maximum, 1)
})

test('both windows full: one side is still read, and the other goes on by it', (t) => {
  const rig = connectedRig({ rules: { ...OPEN_RULES, sendMaximum: 1, receiveMaximum: 1 } })
  rig.fromDevice(hex('3205 000161 0001'))
  rig.fromBroker(hex('3205 000161 0001'))
  t.deepEqual([rig.broker.held, rig.device.held], [true, false])
  rig.fromBroker(hex('40020001'))
  t.deepEqual([rig.broker.held, rig.device.held], [false, true])
  rig.fromDevice(hex('40020001'))
  t.deepEqual([rig.broker.held, rig.device.held], [false, false])
})

test('the session may put another CONNACK in its place, at every split', (t) => {
  const sent = hex('2006 0000 03 13001e 3003000161')
  for (let split = 0; split <= sent.length; split++) {
    const seen: string[] = []
    const rig = gateRig({
      version: 5,
      observer: {
        connack(_, packet) {
          seen.push(packet.toString('hex'))
          return hex('2006 0000 03 21000a')
        },
        fault: (code) => t.fail(code),
        denied() {},
        limited() {},
        subscribed() {},
        unsubscribed() {},
      },
    })
    rig.fromBroker(sent.subarray(0, split), sent.subarray(split))
    t.is(rig.device.hex, bare('2006 0000 03 21000a 3003000161'))
    t.deepEqual(seen, [bare('2006 0000 03 13001e')])
  }
})

test('a delivery may be larger than what devices may send: the device said what it takes', (t) => {
  const payload = Buffer.alloc(AWS_IOT_RULES.packetBytes)
  for (const version of [4, 5] as const) {
    const rig = connectedRig({ version, rules: AWS_IOT_RULES })
    const delivery = packetOf(0x30, [hex(version === 5 ? '000161 00' : '000161'), payload])
    rig.fromBroker(...chunked(delivery, 65_536), hex('d000'))
    t.is(rig.device.bytes.length, delivery.length + 2)
    t.deepEqual(rig.faults, [])
  }
})

/** QoS 1 on `a`, with one more byte of properties than is read. */
const OVERSIZED = packetOf(0x32, [hex('000161 0007'), varint(65_537), Buffer.alloc(65_537)])

test('more properties than are read: not delivered, acknowledged, and the session goes on', (t) => {
  const rig = connectedRig({ version: 5, permit })
  rig.fromBroker(...chunked(OVERSIZED, 1_460), hex('d000'))
  t.deepEqual([rig.device.hex, rig.broker.hex, rig.faults], ['d000', '40020007', []])
  t.is(rig.traffic.gate.limits.properties, 1)
})

test('where they could hide a topic alias the session ends', (t) => {
  const rig = connectedRig({ version: 5, permit, device: { topicAliasMaximum: 1, maximumPacketBytes: null } })
  rig.fromBroker(...chunked(OVERSIZED, 1_460))
  t.deepEqual([rig.device.hex, rig.faults], ['', ['ERR_BACKEND_PROTOCOL']])
})
