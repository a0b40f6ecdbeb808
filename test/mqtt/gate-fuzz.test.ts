import test from 'ava'
import { LENIENT_DENIALS } from '../../src/mqtt/denials.ts'
import { AWS_IOT_RULES, OPEN_RULES, type SessionRules } from '../../src/mqtt/limits.ts'
import { OPEN_PERMIT } from '../../src/policy/permit.ts'
import { hex, seeded } from './fakes.ts'
import { gateRig, permitOf } from './gate-rig.ts'
import { FROM_BROKER, FROM_DEVICE, packetsIn } from './packet-samples.ts'

/**
 * A million packets, right ones and ones with a few bytes changed, in chunks cut anywhere, both ways. Whatever comes in:
 * nothing is thrown, nothing is kept without a bound, and what comes out is whole packets, one behind the other.
 */
const PACKETS = 1_000_000
const WITHIN_MS = 40_000
const SEED = 26_11
/** No session keeps more than this, whatever it is told, in bytes. */
const MOST_ANSWERS = 1_048_576

const permit = permitOf({
  'iot:Publish': (resource) => !resource.startsWith('topic/n'),
  'iot:RetainPublish': (resource) => !resource.startsWith('topic/n'),
  'iot:Subscribe': (resource) => !resource.startsWith('topicfilter/n'),
  'iot:Receive': (resource) => !resource.startsWith('topic/n'),
})

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
