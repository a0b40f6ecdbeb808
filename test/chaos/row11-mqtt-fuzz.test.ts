// Packets that are almost right: in process, where two million take a minute, and through the program, where what gets by
// meets a real broker that has to go on answering.
import { campaign } from '../fuzz/campaign.ts'
import { mutator } from '../fuzz/mutate.ts'
import type { Target } from '../fuzz/target.ts'
import { GATE_FROM_BROKER, GATE_FROM_DEVICE } from '../fuzz/targets/gate.ts'
import { CONNACK, CONNECT, DISCONNECT, PACKET_CURSOR, PUBLISH_HEAD, SUBSCRIBE } from '../fuzz/targets/mqtt.ts'
import { hex } from '../mqtt/fakes.ts'
import { FROM_DEVICE } from '../mqtt/packet-samples.ts'
import { witness } from '../support/clients.ts'
import { packetsOf } from '../support/differential-run.ts'
import { eventually, sleep } from '../support/e2e.ts'
import { crowd } from './crowd.ts'
import { row } from './row.ts'
import { residentOf, treeOf } from './tree.ts'
import { listenTo, secure } from './ways.ts'

/** Targets of one packet a case, and of streams of packets. */
const SINGLE: readonly Target[] = [CONNECT, PUBLISH_HEAD, SUBSCRIBE, CONNACK, DISCONNECT]
const STREAMS: readonly Target[] = [PACKET_CURSOR, GATE_FROM_DEVICE, GATE_FROM_BROKER]
const PACKETS = Number(process.env.CHAOS_PACKETS ?? 2_000_000)
/** In rounds of so many cases, until there were enough packets. */
const ROUND = 4_000

row(
  {
    number: 11,
    part: 'in process',
    title: 'fuzz of the MQTT parsers',
    required: 'no throw, no buffer without a bound',
    seconds: 90,
  },
  async ({ t, seed }) => {
    let packets = 0
    let cases = 0
    let rounds = 0
    while (packets < PACKETS) {
      for (const target of [...SINGLE, ...STREAMS]) {
        const counting: Target = {
          ...target,
          check(input, below) {
            packets += STREAMS.includes(target) ? Math.max(1, packetsOf(input.subarray(1)).packets.length) : 1
            return target.check(input, below)
          },
        }
        const done = await campaign(counting, { seed: seed + rounds, cases: ROUND, ms: 300_000 })
        t.deepEqual(
          done.findings.map(({ message, input }) => `${target.name}: ${message}: ${input.toString('hex')}`),
          [],
        )
        t.is(done.cases, ROUND)
        cases += done.cases
      }
      rounds++
    }
    return {
      injected: `${packets} packets in ${cases} cases for ${SINGLE.length + STREAMS.length} readers, whole and in pieces`,
      seen: 'findings: 0',
    }
  },
)

const THROUGH_MS = Number(process.env.CHAOS_THROUGH_MS ?? 30_000)
const AT_A_TIME = 8
const MOST_GROWTH = 64 * 1_048_576
const text = (value: string): Buffer => Buffer.concat([Buffer.from([0, value.length]), Buffer.from(value)])
const connect = (version: 4 | 5, id: string): Buffer => {
  const body = Buffer.concat([
    text('MQTT'),
    Buffer.of(version, 2, 0, 60),
    version === 5 ? Buffer.of(0) : Buffer.alloc(0),
    text(id),
  ])
  return Buffer.concat([Buffer.of(0x10, body.length), body])
}

row(
  {
    number: 11,
    part: 'through the program',
    title: 'mutated packets before a real broker',
    required: 'no throw, no buffer without a bound, the broker keeps answering',
    seconds: 40,
  },
  async (chaos) => {
    const { t } = chaos
    const gateway = await chaos.start()
    const seen = await witness(t, gateway, 'after')
    const pids = treeOf(gateway.proxy.child.pid!)
    // Growth is that of the second half: a program which just began takes memory for its ordinary work.
    let before = residentOf(pids)
    const fresh = before
    const makers = ([4, 5] as const).map((version) => ({
      version,
      make: mutator(
        [FROM_DEVICE[version].map(hex), FROM_DEVICE[version].slice(0, 4).map(hex)].map((each) => Buffer.concat(each)),
        FROM_DEVICE[version].map(hex),
        2_048,
      ),
    }))
    const count = { sessions: 0, packets: 0, bytes: 0, ended: 0 }
    const deadline = performance.now() + THROUGH_MS
    const half = setTimeout(() => {
      before = residentOf(pids)
    }, THROUGH_MS / 2)
    chaos.defer(() => clearTimeout(half))
    await crowd(
      Array.from({ length: AT_A_TIME }, (_, at) => at),
      AT_A_TIME,
      async (worker) => {
        while (performance.now() < deadline) {
          const { version, make } = makers[chaos.random(2)]!
          const id = `fuzz-${worker}-${count.sessions++}`
          const socket = await secure(gateway.ports.mqtt, worker * 200 + (count.sessions % 150))
          const heard = listenTo(socket)
          const stream = make(chaos.random)
          socket.write(Buffer.concat([connect(version, id), chaos.random(3) === 0 ? make(chaos.random) : stream]))
          // In pieces, as it comes, until it is closed or nothing more is to be said.
          for (let bursts = chaos.random(4); bursts > 0 && !heard.over(); bursts--) {
            const burst = make(chaos.random)
            const cut = chaos.random(burst.length + 1)
            socket.write(burst.subarray(0, cut))
            await sleep(2)
            if (!heard.over()) socket.write(burst.subarray(cut))
            count.bytes += burst.length
            count.packets += packetsOf(burst).packets.length
          }
          count.bytes += stream.length
          count.packets += packetsOf(stream).packets.length
          await Promise.race([heard.ended, sleep(10)])
          if (heard.over()) count.ended++
          socket.destroy()
        }
      },
    )
    const grown = residentOf(pids) - before
    // The broker behind has survived it: a new device gets through to somebody who waits there.
    const late = await secure(gateway.ports.mqtt, 1)
    late.resume()
    late.write(
      Buffer.concat([connect(4, 'late'), Buffer.concat([Buffer.of(0x30, 8), text('after'), Buffer.from('x')])]),
    )
    await eventually(() => seen.length > 0, 'the last message')
    late.destroy()
    t.true(grown < MOST_GROWTH, `${(grown / 1_048_576).toFixed(0)} MB more`)
    t.true(count.sessions > 50 && count.ended > count.sessions / 10, JSON.stringify(count))
    return {
      injected: `${count.sessions} sessions in ${THROUGH_MS / 1_000} s, ${count.packets} packets and more that are none, ${(count.bytes / 1_024).toFixed(0)} KB`,
      seen: `${count.ended} ended by the door or the broker, which answers; ${((before - fresh) / 1_048_576).toFixed(0)} MB more in the first half, ${(grown / 1_048_576).toFixed(0)} MB in the second`,
    }
  },
)
