import test from 'ava'
import { LENIENT_DENIALS } from '../../src/mqtt/denials.ts'
import { AWS_IOT_RULES, OPEN_RULES, type SessionRules } from '../../src/mqtt/limits.ts'
import type { MqttVersion } from '../../src/mqtt/reason.ts'
import { OPEN_PERMIT } from '../../src/policy/permit.ts'
import { hex, seeded } from './fakes.ts'
import { gateRig, permitOf } from './gate-rig.ts'

/**
 * A million packets, right ones and ones with a few bytes changed, in chunks cut anywhere, both ways. Whatever comes in:
 * nothing is thrown, nothing is kept without a bound, and what comes out is whole packets, one behind the other.
 */
const PACKETS = 1_000_000
const WITHIN_MS = 40_000
const SEED = 26_11
/** No session keeps more than this, whatever it is told, in bytes. */
const MOST_ANSWERS = 1_048_576

// biome-ignore format: one packet a line
const FROM_DEVICE: Readonly<Record<MqttVersion, readonly string[]>> = {
  4: [
    '3004 000161 70', '3004 00016e 70', '3105 0002 6e31 70', '3206 000161 0001 70', '3206 00016e 0002 70', '3406 000161 0003 70',
    '3406 00016e 0004 70', '62020004', '62020003', '40020007', '50020008', '70020008', '8206 0005 000161 00', '820a 0006 00016e 00 000161 01',
    'a205 0009 000161', 'c000', '3011 000f 24736861 72652f67 2f612f62 2f632f', `308001 007e ${'61'.repeat(126)}`,
  ],
  5: [
    '3005 000161 00 70', '3005 00016e 00 70', '3008 000161 03 230001 70', '3008 00016e 03 230001 70', '3007 0000 03 230001 70', '3209 0000 0001 03 230001 70',
    '3207 00016e 0002 00 70', '3407 00016e 0004 00 70', '3407 000161 0003 00 70', '62020003', '62020004', '40020007', '5003000810', '70020008',
    '8207 0005 00 000161 00', '820d 0006 02 0b05 00016e 00 000161 01', 'a206 0009 00 000161', 'c000', 'f000',
    '3013 000161 0f 26000161000162 020000003c 0101 01 70', '300c 000161 07 03000174 0101 01 70', `308901 0083 ${'61'.repeat(131)} 02 0101 70`,
  ],
}
// biome-ignore format: one packet a line
const FROM_BROKER: Readonly<Record<MqttVersion, readonly string[]>> = {
  4: ['3004 000161 70', '3004 00016e 70', '3206 00016e 0007 70', '3206 000161 0007 70', '3406 00016e 0008 70', '3406 000161 0009 70', '62020008', '62020009', '40020001', '50020003', '70020003', '9003 0005 00', '9003 0006 01', 'b0020009', 'd000'],
  5: ['3005 000161 00 70', '3008 00016e 03 230001 70', '3007 0000 03 230001 70', '3207 00016e 0007 00 70', '3407 00016e 0008 00 70', '62020008', '4003000110', '5003000387', '70020003', '9004 0005 00 00', '9004 0006 00 01', 'b004 0009 00 00', 'd000', 'f000'],
}

const permit = permitOf({
  'iot:Publish': (resource) => !resource.startsWith('topic/n'),
  'iot:RetainPublish': (resource) => !resource.startsWith('topic/n'),
  'iot:Subscribe': (resource) => !resource.startsWith('topicfilter/n'),
  'iot:Receive': (resource) => !resource.startsWith('topic/n'),
})

/** Counts whole packets; -1 when the bytes are none, `rest` true lets the last be cut. */
function packetsIn(bytes: Buffer, rest: boolean): number {
  let at = 0
  let count = 0
  while (at < bytes.length) {
    let length = 0
    let shift = 0
    let header = at + 1
    for (; ; header++, shift += 7) {
      if (header >= bytes.length) return -1
      length |= (bytes[header]! & 0x7f) << shift
      if ((bytes[header]! & 0x80) === 0) break
      if (shift === 21) return -1
    }
    if (bytes[at]! >> 4 === 0) return -1
    at = header + 1 + length
    if (at > bytes.length && !rest) return -1
    count++
  }
  return count
}

test('a million mutated packets: no throw, no buffer without a bound, and only whole packets come out', (t) => {
  t.timeout(WITHIN_MS + 20_000)
  const random = seeded(SEED)
  const below = (count: number) => Math.floor(random() * count)
  const pick = <T>(from: readonly T[]): T => from[below(from.length)]!
  const rulesOf: readonly SessionRules[] = [
    { ...OPEN_RULES, denials: LENIENT_DENIALS, packetBytes: 4_096 },
    { ...AWS_IOT_RULES, denials: LENIENT_DENIALS },
    {
      ...OPEN_RULES,
      receiveMaximum: 3,
      sendMaximum: 3,
      publishesPerSecond: 20,
      messageExpirySeconds: 30,
      payloadBytes: 64,
    },
  ]
  const samples = {
    device: { 4: FROM_DEVICE[4].map(hex), 5: FROM_DEVICE[5].map(hex) },
    broker: { 4: FROM_BROKER[4].map(hex), 5: FROM_BROKER[5].map(hex) },
  }
  const deadline = performance.now() + WITHIN_MS
  let done = 0
  let sessions = 0
  let faults = 0
  while (done < PACKETS && performance.now() < deadline) {
    const version = pick([4, 5] as const)
    const rig = gateRig({
      version,
      rules: pick(rulesOf),
      permit: pick([permit, permit, OPEN_PERMIT]),
      reportOnly: random() < 0.1,
      device: { topicAliasMaximum: pick([0, 2]), maximumPacketBytes: pick([null, 32]) },
    })
    sessions++
    rig.fromBroker(version === 4 ? hex('20020000') : hex('2003000000'))
    for (let burst = 0; burst < 12 && rig.faults.length === 0; burst++) {
      const side = pick(['device', 'broker'] as const)
      const parts: Buffer[] = []
      for (let count = 1 + below(12); count > 0; count--) {
        const packet = Buffer.from(pick(samples[side][version]))
        if (random() < 0.06)
          for (let flips = 1 + below(3); flips > 0; flips--) packet[below(packet.length)] = below(256)
        parts.push(packet)
        done++
      }
      const bytes = Buffer.concat(parts)
      for (let at = 0; at < bytes.length; ) {
        const size = random() < 0.3 ? 1 + below(8) : bytes.length
        const chunk = bytes.subarray(at, at + size)
        if (side === 'device') rig.fromDevice(chunk)
        else rig.fromBroker(chunk)
        at += size
      }
      if (random() < 0.1) rig.gate.permit = pick([permit, OPEN_PERMIT])
      if (rig.gate.inbound.answersWaiting + rig.gate.outbound.answersWaiting > MOST_ANSWERS)
        t.fail('answers without a bound')
    }
    if (rig.faults.length > 0) faults++
    if (rig.faults.length > 1) t.fail(`${rig.faults}`)
    const { inbound, outbound } = rig.gate
    for (const [name, bytes, whole] of [
      ['broker', rig.broker.bytes, inbound.atBoundary],
      ['device', rig.device.bytes, outbound.atBoundary],
    ] as const) {
      if (packetsIn(bytes, !whole) === -1) t.fail(`${name}, session ${sessions}: ${bytes.toString('hex')}`)
    }
    rig.gate.close()
  }
  t.true(done >= PACKETS, `${done} packets in ${WITHIN_MS} ms`)
  t.true(faults > sessions / 20 && faults < sessions, `${faults} of ${sessions} sessions ended`)
})
