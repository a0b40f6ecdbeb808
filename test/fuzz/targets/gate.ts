import { LENIENT_DENIALS } from '../../../src/mqtt/denials.ts'
import { AWS_IOT_RULES, OPEN_RULES, type SessionRules } from '../../../src/mqtt/limits.ts'
import type { MqttVersion } from '../../../src/mqtt/reason.ts'
import { OPEN_PERMIT } from '../../../src/policy/permit.ts'
import { hex } from '../../mqtt/fakes.ts'
import { type GateRig, gateRig, permitOf } from '../../mqtt/gate-rig.ts'
import { FROM_BROKER, FROM_DEVICE, packetsIn } from '../../mqtt/packet-samples.ts'
import { must, pieces, type Target } from '../target.ts'

/** Topics that begin with n are denied. */
const PERMIT = permitOf({
  'iot:Publish': (resource) => !resource.startsWith('topic/n'),
  'iot:RetainPublish': (resource) => !resource.startsWith('topic/n'),
  'iot:Subscribe': (resource) => !resource.startsWith('topicfilter/n'),
  'iot:Receive': (resource) => !resource.startsWith('topic/n'),
})

const RULES: readonly SessionRules[] = [
  { ...OPEN_RULES, denials: LENIENT_DENIALS, packetBytes: 4_096 },
  { ...AWS_IOT_RULES, denials: LENIENT_DENIALS },
  { ...OPEN_RULES, receiveMaximum: 3, sendMaximum: 3, messageExpirySeconds: 30, payloadBytes: 64 },
  OPEN_RULES,
]
/** No session keeps more than this, whatever it is told, in bytes. */
const MOST_ANSWERS = 1_048_576

type Side = 'device' | 'broker'

/** What comes out of a session whose first byte chose its rules and version. */
function run(setup: number, side: Side, chunks: readonly Buffer[]): GateRig {
  const version: MqttVersion = setup % 2 === 0 ? 4 : 5
  const rig = gateRig({
    version,
    rules: RULES[(setup >> 1) % RULES.length]!,
    permit: (setup & 0x18) === 0 ? OPEN_PERMIT : PERMIT,
    device: { topicAliasMaximum: (setup & 0x20) === 0 ? 0 : 2, maximumPacketBytes: (setup & 0x40) === 0 ? null : 32 },
  })
  rig.fromBroker(version === 4 ? hex('20020000') : hex('2003000000'))
  for (const chunk of chunks) {
    if (side === 'device') rig.fromDevice(chunk)
    else rig.fromBroker(chunk)
    must(rig.gate.inbound.answersWaiting + rig.gate.outbound.answersWaiting <= MOST_ANSWERS, 'answers without a bound')
  }
  return rig
}

/** Within one chunk a wait is told after what ends the session: what was told counts, not in which order. */
const outcome = ({ broker, device, faults, told }: GateRig): string =>
  JSON.stringify([broker.hex, device.hex, faults, [...new Set(told)].sort()])

const behind = (version: MqttVersion, packets: readonly string[]): Buffer[] =>
  // Bits above the version choose rules and permit.
  [0, 2, 4, 8, 18, 56, 74].map((bits) =>
    Buffer.concat([Buffer.of(bits + (version === 5 ? 1 : 0)), ...packets.map(hex)]),
  )

function gate(side: Side, from: Readonly<Record<MqttVersion, readonly string[]>>): Target {
  return {
    name: `gate-from-${side}`,
    corpus: () =>
      ([4, 5] as const).flatMap((version) => [
        ...behind(version, from[version]),
        ...behind(version, from[version].toReversed().slice(0, 5)),
        ...behind(version, from[version].slice(0, 3)),
      ]),
    tokens: ([4, 5] as const).flatMap((version) => from[version].map(hex)),
    maxBytes: 2_048,
    kinds: ['open', 'ended'],
    cases: 3_000,
    check(input, below) {
      const setup = input[0] ?? 0
      const bytes = input.subarray(1)
      const whole = run(setup, side, [Buffer.from(bytes)])
      const cut = run(setup, side, pieces(bytes, below))
      must(whole.faults.length <= 1, 'more than one end')
      must(outcome(cut) === outcome(whole), `in pieces it is another session: ${outcome(whole)} ${outcome(cut)}`)
      for (const [name, recorder, atBoundary] of [
        ['broker', whole.broker, whole.gate.inbound.atBoundary],
        ['device', whole.device, whole.gate.outbound.atBoundary],
      ] as const) {
        must(packetsIn(recorder.bytes, !atBoundary) !== -1, `the ${name} is sent what is no packet`)
      }
      must(
        whole.broker.bytes.length + whole.device.bytes.length <= 64 + 8 * bytes.length,
        'more comes out than went in',
      )
      whole.gate.close()
      cut.gate.close()
      return whole.faults.length === 0 ? 'open' : 'ended'
    },
  }
}

export const GATE_FROM_DEVICE = gate('device', FROM_DEVICE)
export const GATE_FROM_BROKER = gate('broker', FROM_BROKER)
