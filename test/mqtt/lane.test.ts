import test from 'ava'
import type { FailureCode } from '../../src/errors.ts'
import { OPEN_RULES } from '../../src/mqtt/limits.ts'
import type { MqttVersion } from '../../src/mqtt/reason.ts'
import { chunked, hex } from './fakes.ts'
import { gateRig } from './gate-rig.ts'

const MAX = 1_024

const rules = { ...OPEN_RULES, packetBytes: MAX }

function inboundOf(version: MqttVersion) {
  const rig = gateRig({ version, rules })
  const forwarded = (chunks: readonly Buffer[]) => {
    rig.fromDevice(...chunks)
    return rig.broker.hex
  }
  return { inbound: rig.gate.inbound, counters: rig.traffic, faults: rig.faults, forwarded, rig }
}

function outboundOf(version: MqttVersion) {
  const rig = gateRig({ version, rules })
  const forwarded = (chunks: readonly Buffer[]) => {
    rig.fromBroker(...chunks)
    return rig.device.hex
  }
  const { faults, connacks, traffic: counters } = rig
  return { outbound: rig.gate.outbound, counters, faults, connacks, forwarded }
}

const stopsDevice = test.macro({
  exec(t, version: MqttVersion, good: string, bad: string, code: FailureCode) {
    const bytes = hex(good + bad)
    const whole = inboundOf(version)
    t.is(whole.forwarded([bytes]), hex(good).toString('hex'))
    t.deepEqual(whole.faults, [code])
    t.is(whole.inbound.bytes, hex(good).length)
    t.is(whole.counters.bytesIn, hex(good).length)
    // In single bytes a header's first may be gone before its fault is seen; the good ones are never held back.
    const single = inboundOf(version)
    t.true(single.forwarded(chunked(bytes, 1)).startsWith(hex(good).toString('hex')))
    t.deepEqual(single.faults, [code])
    t.is(single.inbound.packets, whole.inbound.packets)
  },
  title: (title) => `${title}: the bytes before it go on and nothing after`,
})

test(
  'a second CONNECT [MQTT-3.1.0-2]',
  stopsDevice,
  4,
  'c000',
  '100d00044d515454 0402003c000161 c000',
  'ERR_PACKET_UNEXPECTED',
)
for (const packet of ['20020000', '9003000100', 'b0020001', 'd000']) {
  test(`server-only packet ${packet} of a device`, stopsDevice, 5, '300400016100 c000', packet, 'ERR_PACKET_UNEXPECTED')
}
test('AUTH of a 3.1.1 device', stopsDevice, 4, 'c000', 'f000', 'ERR_PACKET_UNEXPECTED')
test('PINGREQ with a body', stopsDevice, 4, 'c000', 'c00100 c000', 'ERR_PACKET_MALFORMED')
test('PUBLISH of QoS 3 [MQTT-3.3.1-4]', stopsDevice, 4, 'c000', '3603000161', 'ERR_PACKET_MALFORMED')
test('SUBSCRIBE without its flags [MQTT-3.8.1-1]', stopsDevice, 4, 'c000', '8006000100016100', 'ERR_PACKET_MALFORMED')
test('a packet over the limit', stopsDevice, 4, 'c000', '30 8108', 'ERR_PACKET_TOO_LARGE')
test('a remaining length of five bytes', stopsDevice, 4, 'c000', '30 8080808001', 'ERR_PACKET_MALFORMED')
test('a packet after DISCONNECT', stopsDevice, 4, 'c000 e000', 'c000', 'ERR_PACKET_UNEXPECTED')
test('a packet after DISCONNECT with a reason', stopsDevice, 5, 'c000 e00104', 'c000', 'ERR_PACKET_UNEXPECTED')

test('packets and bytes of a device are counted by type, at every chunk size', (t) => {
  const bytes = hex('f000 c000 300400016100 3206000161 0001 00 820700010000016100 c000 e000')
  for (let size = 1; size <= bytes.length; size++) {
    const { inbound, counters, faults, forwarded } = inboundOf(5)
    t.is(forwarded(chunked(bytes, size)), bytes.toString('hex'))
    t.deepEqual(faults, [])
    t.deepEqual([inbound.packets, inbound.bytes, counters.bytesIn], [7, bytes.length, bytes.length])
    t.deepEqual([...counters.packetsIn], [0, 0, 0, 2, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 1, 1])
    t.true(inbound.disconnected)
  }
})

test('a device’s bytes, and our own pauses, are noted for its keep alive', (t) => {
  const { inbound, rig } = inboundOf(4)
  const { wheel } = rig
  inbound.held(true)
  t.true(inbound.isHeld)
  const entry = wheel.add(60, { silent() {} })
  t.teardown(() => wheel.remove(entry))
  inbound.keepAlive = entry
  wheel.tick()
  inbound.inspect(hex('c0'))
  t.is(entry.lastSeen, 1)
  inbound.held(true)
  t.true(entry.held)
  wheel.tick()
  inbound.held(false)
  t.deepEqual([entry.held, entry.lastSeen], [false, 2])
})

const stopsBroker = test.macro({
  exec(t, version: MqttVersion, good: string, bad: string) {
    const { outbound, faults, counters, forwarded } = outboundOf(version)
    t.is(forwarded([hex(good + bad)]), hex(good).toString('hex'))
    t.deepEqual(faults, ['ERR_BACKEND_PROTOCOL'])
    t.is(counters.bytesOut, hex(good).length)
    t.true(outbound.atBoundary)
    const single = outboundOf(version)
    t.true(single.forwarded(chunked(hex(good + bad), 1)).startsWith(hex(good).toString('hex')))
    t.deepEqual(single.faults, ['ERR_BACKEND_PROTOCOL'])
    t.is(single.outbound.packets, outbound.packets + (single.outbound.connected === outbound.connected ? 0 : 1))
  },
  title: (title, version: MqttVersion) => `${title} of a ${version === 4 ? '3.1.1' : '5'} broker is stopped`,
})

test('PUBLISH before CONNACK [MQTT-3.2.0-1]', stopsBroker, 4, '', '3003000161 20020000')
test('PUBLISH between AUTH and CONNACK', stopsBroker, 5, 'f000', '3003000161')
test('a second CONNACK [MQTT-3.2.0-2]', stopsBroker, 4, '20020000', '20020000')
test('a second CONNACK behind PINGRESP', stopsBroker, 5, '2003000000 d000', '2003000000')
test('CONNACK without a body', stopsBroker, 4, '', '2000')
test('CONNACK of one byte', stopsBroker, 4, '', '200100')
test('a client-only packet', stopsBroker, 4, '20020000', 'c000')
test('PINGRESP with a body', stopsBroker, 4, '20020000', 'd00100')
test('AUTH', stopsBroker, 4, '', 'f000')
test('DISCONNECT', stopsBroker, 4, '20020000', 'e000')
test('a packet after DISCONNECT [MQTT-3.14.4-1]', stopsBroker, 5, '2003000000 e000', '3003000161')
test('a packet whose length has five bytes', stopsBroker, 5, '2003000000', '30ffffffff01')

test('of a CONNACK that is none no byte goes on, so we are at a boundary', (t) => {
  const bytes = hex('20 03 0200 00')
  for (let split = 0; split < bytes.length; split++) {
    const { outbound, faults, forwarded } = outboundOf(5)
    t.is(forwarded([bytes.subarray(0, split), bytes.subarray(split)]), '')
    t.deepEqual([faults, outbound.connected, outbound.atBoundary], [['ERR_BACKEND_PROTOCOL'], false, true])
  }
})

test('a header that is at fault in its second chunk has not begun to go on', (t) => {
  const { outbound, forwarded } = outboundOf(4)
  t.is(forwarded([hex('20020000 d0'), hex('01 00')]), '20020000')
  t.true(outbound.atBoundary)
})

test('CONNACK is read at every split, behind AUTH and before PUBLISH', (t) => {
  const bytes = hex('f000 2006 0000 03 13001e 3003000161 f000 d000')
  for (let first = 0; first <= bytes.length; first++) {
    for (let second = first; second <= bytes.length; second++) {
      const { outbound, connacks, faults, counters, forwarded } = outboundOf(5)
      const chunks = [bytes.subarray(0, first), bytes.subarray(first, second), bytes.subarray(second)]
      t.is(forwarded(chunks), bytes.toString('hex'))
      t.deepEqual(faults, [])
      t.deepEqual(
        connacks.map(({ code, serverKeepAliveSeconds }) => [code, serverKeepAliveSeconds]),
        [[0, 30]],
      )
      t.deepEqual([outbound.packets, outbound.bytes], [5, bytes.length])
      t.deepEqual([...counters.packetsOut], [0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2])
      t.true(outbound.atBoundary)
    }
  }
})

test('between the bytes of a packet we are at no boundary', (t) => {
  const { outbound } = outboundOf(4)
  const boundaries = chunked(hex('20020000 3003000161 d000'), 1).map((byte) => {
    outbound.inspect(byte)
    return outbound.atBoundary ? '|' : '.'
  })
  // A header goes on when it is whole, and CONNACK is read before it does.
  t.is(boundaries.join(''), '|||||...|||')
})
