import test, { type ExecutionContext } from 'ava'
import mqttPacket, { type Packet } from 'mqtt-packet'
import { trafficCounters } from '../../src/control/metrics.ts'
import { LENIENT_DENIALS } from '../../src/mqtt/denials.ts'
import { Gate } from '../../src/mqtt/gate.ts'
import { KeepAliveWheel } from '../../src/mqtt/keep-alive.ts'
import { OPEN_RULES } from '../../src/mqtt/limits.ts'
import type { MqttVersion } from '../../src/mqtt/reason.ts'
import type { Permit } from '../../src/policy/permit.ts'
import { relay } from '../../src/relay.ts'
import { FakeStream, seeded } from './fakes.ts'
import { ManualClock, permitOf } from './gate-rig.ts'

/**
 * One session of each version stays alive through 10,000 denials at QoS 0, 1 and 2, both ways, in chunks cut anywhere,
 * under a permit that is narrowed and widened while packets are in flight. Client and broker are models that know MQTT
 * by another library and forgive nothing: every id is answered once, with the right packet; what may never arrive does
 * not, what may always arrive does, once; an alias means what its sender meant.
 */
const DENIALS = 10_000
const SEED = 20_261_126

const TOPICS = ['always/a', 'always/b', 'never/a', 'never/b', 'some/a', 'some/b'] as const
const CHUNKS = [1, 2, 3, 7, 128, 1_460]
const ALIASES = 3

function permitting(some: boolean): Permit {
  const may = (resource: string) => {
    const kind = resource.slice(resource.indexOf('/') + 1)
    return kind.startsWith('always') || (some && kind.startsWith('some'))
  }
  return permitOf({ 'iot:Publish': may, 'iot:Subscribe': may, 'iot:Receive': may })
}

type Publish = Extract<Packet, { cmd: 'publish' }>
interface Sent {
  readonly number: number
  readonly topic: string
  readonly qos: number
  state: 'sent' | 'received' | 'released'
}

/** One end of a connection: sends, keeps its ids, and judges every packet that it gets. */
class Peer {
  readonly out: Buffer[] = []
  readonly got = new Map<number, string>()
  readonly sent: { number: number; topic: string; refused: boolean | null }[] = []
  /** Publishes under way, by id. */
  readonly open = new Map<number, Sent>()
  /** QoS 2 publishes of the other side that we have and that are not released. */
  readonly #received = new Set<number>()
  readonly #aliasesIn = new Map<number, string>()
  readonly #aliasesOut = new Map<number, string>()
  readonly #t: ExecutionContext
  readonly #version: MqttVersion
  readonly #random: () => number
  readonly #parser
  #nextId = 1
  #number = 0

  constructor(t: ExecutionContext, version: MqttVersion, random: () => number, other: (packet: Packet) => boolean) {
    this.#t = t
    this.#version = version
    this.#random = random
    this.#parser = mqttPacket.parser({ protocolVersion: version })
    this.#parser.on('error', (error) => t.fail(`${error}`))
    this.#parser.on('packet', (packet) => {
      if (!other(packet)) this.#hears(packet)
    })
  }

  hears(bytes: Uint8Array): void {
    this.#parser.parse(Buffer.from(bytes))
  }

  say(packet: object): void {
    // The library's own type of a packet to write is not the one of a packet read.
    this.out.push(mqttPacket.generate(packet as Packet, { protocolVersion: this.#version }))
  }

  id(taken: (id: number) => boolean): number {
    do this.#nextId = (this.#nextId % 65_535) + 1
    while (this.open.has(this.#nextId) || taken(this.#nextId))
    return this.#nextId
  }

  publish(topic: string, qos: number, taken: (id: number) => boolean): void {
    const number = this.#number++
    const messageId = qos === 0 ? undefined : this.id(taken)
    if (messageId !== undefined) this.open.set(messageId, { number, topic, qos, state: 'sent' })
    this.sent.push({ number, topic, refused: null })
    const properties: { topicAlias?: number } = {}
    let name = topic
    if (this.#version === 5 && this.#random() < 0.6) {
      properties.topicAlias = 1 + Math.floor(this.#random() * ALIASES)
      if (this.#aliasesOut.get(properties.topicAlias) === topic && this.#random() < 0.8) name = ''
      this.#aliasesOut.set(properties.topicAlias, topic)
    }
    this.say({
      cmd: 'publish',
      topic: name,
      payload: `${number} ${topic}`,
      qos,
      messageId,
      retain: false,
      dup: false,
      properties,
    })
  }

  #hears(packet: Packet): void {
    const t = this.#t
    const id = packet.messageId!
    if (packet.cmd === 'publish') this.#publish(packet)
    else if (packet.cmd === 'pubrel') {
      if (!this.#received.delete(id)) t.fail(`PUBREL ${id} of nothing`)
      this.say({ cmd: 'pubcomp', messageId: id })
    } else this.#answer(packet, id)
  }

  #answer(packet: Packet, id: number): void {
    const t = this.#t
    const sent = this.open.get(id)
    if (sent === undefined) {
      t.fail(`${packet.cmd} ${id} answers nothing`)
      return
    }
    const reason = 'reasonCode' in packet ? (packet.reasonCode ?? 0) : 0
    const record = this.sent[sent.number]!
    const step = `${packet.cmd} ${sent.qos} ${sent.state}`
    if (step === 'puback 1 sent' || (step === 'pubrec 2 sent' && reason >= 0x80)) {
      record.refused = reason === 0x87
      if (reason !== 0 && reason !== 0x87) t.fail(`reason ${reason}`)
      this.open.delete(id)
    } else if (step === 'pubrec 2 sent') {
      record.refused = false
      sent.state = 'released'
      this.say({ cmd: 'pubrel', messageId: id })
    } else if (step === 'pubcomp 2 released') this.open.delete(id)
    else t.fail(step)
  }

  #publish(packet: Publish): void {
    const t = this.#t
    const alias = packet.properties?.topicAlias
    let { topic } = packet
    if (alias !== undefined && topic !== '') this.#aliasesIn.set(alias, topic)
    if (topic === '') topic = this.#aliasesIn.get(alias!) ?? `unknown alias ${alias}`
    const [number, meant] = `${packet.payload}`.split(' ')
    if (topic !== meant) t.fail(`${meant} came as ${topic}`)
    if (this.got.has(Number(number))) t.fail(`${number} came twice`)
    this.got.set(Number(number), topic)
    if (packet.qos === 1) this.say({ cmd: 'puback', messageId: packet.messageId })
    if (packet.qos !== 2) return
    if (this.#received.has(packet.messageId!)) t.fail(`id ${packet.messageId} is in use`)
    this.#received.add(packet.messageId!)
    this.say({ cmd: 'pubrec', messageId: packet.messageId })
  }

  /** What this side sent, against what the other got of it. */
  account(other: Peer, told: boolean): void {
    const t = this.#t
    t.is(this.open.size, 0, 'every id is answered')
    for (const { number, topic, refused } of this.sent) {
      const arrived = other.got.get(number) === topic
      if (topic.startsWith('always') && !arrived) t.fail(`${number} ${topic} is lost`)
      if (topic.startsWith('never') && arrived) t.fail(`${number} ${topic} has come`)
      if (told && refused !== null && refused === arrived) t.fail(`${number} ${topic}: refused ${refused}`)
    }
  }
}

for (const version of [4, 5] as const) {
  test(`MQTT ${version === 4 ? '3.1.1' : '5'}: one session lives through ${DENIALS} denials`, (t) => {
    const random = seeded(SEED + version)
    const pick = <T>(from: readonly T[]): T => from[Math.floor(random() * from.length)]!
    const traffic = trafficCounters()
    const faults: string[] = []
    const device = new FakeStream()
    const upstream = new FakeStream()
    const gate = new Gate({
      version,
      rules: { ...OPEN_RULES, denials: LENIENT_DENIALS },
      permit: permitting(true),
      reportOnly: false,
      device: { topicAliasMaximum: version === 5 ? ALIASES : 0, maximumPacketBytes: null },
      traffic,
      wheel: new KeepAliveWheel(),
      clock: new ManualClock(),
      observer: {
        connack: () => null,
        fault: (code) => faults.push(code),
        denied() {},
        limited() {},
        subscribed() {},
        unsubscribed() {},
      },
    })
    relay(device, upstream, {
      inbound: gate.inbound,
      outbound: gate.outbound,
      upstreamLost: () => null,
      halfCloseMs: 1_000,
      over() {},
    })
    t.teardown(() => {
      device.destroy()
      upstream.destroy()
    })

    const asked = new Map<number, string[]>()
    const client: Peer = new Peer(t, version, random, (packet) => {
      if (packet.cmd === 'connack') return true
      if (packet.cmd !== 'suback') return false
      const filters = asked.get(packet.messageId!)
      if (filters === undefined) t.fail(`SUBACK ${packet.messageId} answers nothing`)
      asked.delete(packet.messageId!)
      // The library types the granted codes by version; here they are numbers on both.
      const granted = packet.granted as number[]
      if (granted.length !== filters?.length) t.fail(`${granted} for ${filters}`)
      for (const [place, filter] of (filters ?? []).entries()) {
        // The broker model grants 1 for `a`, 0 for `b`: so that a merge at the wrong place shows.
        const expected = filter.endsWith('a') ? 1 : 0
        const refusal = version === 4 ? 0x80 : 0x87
        if (filter.startsWith('always') && granted[place] !== expected) t.fail(`${filter}: ${granted[place]}`)
        if (filter.startsWith('never') && granted[place] !== refusal) t.fail(`${filter}: ${granted[place]}`)
        if (![expected, refusal].includes(granted[place]!)) t.fail(`${filter}: ${granted[place]}`)
      }
      return true
    })
    const broker: Peer = new Peer(t, version, random, (packet) => {
      if (packet.cmd !== 'subscribe') return false
      for (const { topic } of packet.subscriptions) if (topic.startsWith('never')) t.fail(`${topic} is asked for`)
      const granted = packet.subscriptions.map(({ topic }) => (topic.endsWith('a') ? 1 : 0))
      broker.say({ cmd: 'suback', messageId: packet.messageId, granted })
      return true
    })
    device.write = (chunk) => {
      client.hears(chunk)
      return true
    }
    upstream.write = (chunk) => {
      broker.hears(chunk)
      return true
    }
    const bySubscribe = (id: number) => asked.has(id)
    /** A part of what one side has said arrives, cut anywhere. */
    const arrive = (peer: Peer, stream: FakeStream, all: boolean) => {
      const bytes = Buffer.concat(peer.out)
      peer.out.length = 0
      const end = all ? bytes.length : Math.floor(random() * (bytes.length + 1))
      for (let at = 0; at < end; ) {
        const size = Math.min(pick(CHUNKS), end - at)
        stream.emit('data', Buffer.from(bytes.subarray(at, at + size)))
        at += size
      }
      if (end < bytes.length) peer.out.unshift(bytes.subarray(end))
    }

    broker.say({ cmd: 'connack', returnCode: 0, reasonCode: 0, sessionPresent: false })
    arrive(broker, upstream, true)
    const { packetsDenied } = traffic.gate
    const denials = () => packetsDenied['iot:Publish'] + packetsDenied['iot:Subscribe'] + packetsDenied['iot:Receive']
    while (denials() < DENIALS && faults.length === 0) {
      for (let burst = Math.floor(random() * 8); burst > 0; burst--) {
        client.publish(pick(TOPICS), Math.floor(random() * 3), bySubscribe)
        broker.publish(pick(TOPICS), Math.floor(random() * 3), () => false)
      }
      if (random() < 0.3) {
        const filters = TOPICS.filter(() => random() < 0.5)
        const messageId = client.id(bySubscribe)
        if (filters.length > 0) {
          asked.set(messageId, filters)
          client.say({ cmd: 'subscribe', messageId, subscriptions: filters.map((topic) => ({ topic, qos: 1 })) })
        }
      }
      arrive(client, device, false)
      arrive(broker, upstream, false)
      if (random() < 0.1) gate.permit = permitting(random() < 0.5)
    }
    for (let turn = 0; turn < 10; turn++) {
      arrive(client, device, true)
      arrive(broker, upstream, true)
    }
    t.deepEqual(faults, [])
    for (const action of ['iot:Publish', 'iot:Subscribe', 'iot:Receive'] as const)
      t.true(packetsDenied[action] > 500, action)
    client.account(broker, version === 5)
    broker.account(client, false)
    t.is(asked.size, 0)
    for (const { flight, answersWaiting } of [gate.inbound, gate.outbound]) {
      t.deepEqual([flight.ours.size, flight.passed.size, flight.unanswered.size, answersWaiting], [0, 0, 0, 0])
    }
  })
}
