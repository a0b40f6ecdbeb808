/** [hot] Broker to device: deliveries that the device may receive, and the broker's answers. */
import type { FailureCode } from '../errors.ts'
import { readConnack } from './connack.ts'
import type { Settling, Shared } from './gate.ts'
import { bit, DROP, EVERY_TYPE, FAULT, Lane, PASS, REPLACE } from './lane.ts'
import { MAX_REMAINING, OUTBOUND } from './packet-cursor.ts'
import { OVERSIZED, PublishHead } from './publish-head.ts'
import { rebuilt, rebuiltLength } from './publish-rewrite.ts'
import type { SlowConsumer } from './slow-consumer.ts'
import { MAX_SUBSCRIBE } from './subscriptions.ts'
import { type Aliased, TopicAliases } from './topic-alias.ts'
import { TopicMemo } from './topic-memo.ts'
import { topicText } from './topic-rules.ts'

const CONNACK = 2
const PUBLISH = 3
const PUBACK = 4
const PUBREC = 5
const PUBREL = 6
const PUBCOMP = 7
const SUBACK = 9
const UNSUBACK = 11
const PINGRESP = 13
const DISCONNECT = 14
const AUTH = 15

/** Largest CONNACK kept for reading, in bytes; properties are small, and a broker is not a stranger. */
const MAX_CONNACK = 65_536

const ALWAYS = bit(CONNACK) | bit(SUBACK) | bit(UNSUBACK) | bit(PINGRESP) | bit(DISCONNECT)
const ACKNOWLEDGEMENTS = bit(PUBACK) | bit(PUBREC) | bit(PUBCOMP)

interface Topic {
  readonly resource: string
  /** What the permit said, while it can be relied on; null: it has to be asked. */
  receive: boolean | null
}

/** No policy can name what is no text. */
const NO_TEXT: Topic = { resource: 'topic/', receive: false }

/** Filled in and read within one judgement, so that one is enough for all sessions. */
const HEAD = new PublishHead()

export class Outbound extends Lane {
  /** CONNACK has passed. */
  connected = false
  /** Told when the device takes no more; null where nobody minds. */
  consumer: SlowConsumer | null = null
  protected override mute = true
  readonly #shared: Shared
  readonly #gate: Settling
  #memo: TopicMemo<Topic> | null = null
  #aliases: TopicAliases | null = null
  #judges = false

  constructor(shared: Shared, gate: Settling) {
    // `rules.packetBytes` is for what devices send. What they take is in their CONNECT, and the broker keeps to that; a
    // delivery is not held here, whatever its size.
    super(OUTBOUND[shared.version], MAX_REMAINING)
    this.#shared = shared
    this.#gate = gate
  }

  full(on: boolean): void {
    this.consumer?.full(on)
  }

  tune(): void {
    const { permit, rules, version, device } = this.#shared
    this.#memo = null
    this.#judges = !permit.allowsAll('iot:Receive')
    const paced = version === 4 && rules.sendMaximum !== null
    this.follows ||= this.#judges || paced || rules.publishesPerSecond !== null
    // Before CONNACK everything else is out of place.
    this.watched = this.connected ? ALWAYS : EVERY_TYPE
    const aliases = version === 5 && device.topicAliasMaximum > 0
    if (this.follows || aliases) this.watched |= bit(PUBLISH)
    if (this.follows) this.watched |= bit(PUBREL)
    if (this.opposite.follows) this.watched |= ACKNOWLEDGEMENTS
  }

  /** 3.1.1 has no Receive Maximum: no more is read until the device has answered. */
  windowIsFull(): boolean {
    const { rules, version } = this.#shared
    return version === 4 && rules.sendMaximum !== null && this.flight.unanswered.size >= rules.sendMaximum
  }

  protected begin(type: number, _flags: number, remaining: number): number {
    // CONNACK once and first; only AUTH and DISCONNECT before.
    if (!this.connected && type !== CONNACK && type !== AUTH && type !== DISCONNECT) return this.#fault()
    switch (type) {
      case CONNACK:
        return this.connected || remaining < 2 || remaining > MAX_CONNACK ? this.#fault() : remaining
      case PUBLISH:
        return remaining < 2 ? this.#fault() : 2
      case PUBREL:
        if (this.flight.ours.size === 0) return PASS
        return remaining < 2 ? this.#fault() : 2
      case PUBACK:
      case PUBREC:
      case PUBCOMP:
        if (this.opposite.flight.passed.size === 0) return PASS
        return remaining < 2 ? this.#fault() : Math.min(remaining, 3)
      case SUBACK:
      case UNSUBACK:
        if (!this.#shared.isAsked) return PASS
        return remaining < 2 || remaining > MAX_SUBSCRIBE ? this.#fault() : remaining
      case PINGRESP:
        return remaining === 0 ? PASS : this.#fault()
      case DISCONNECT:
        this.disconnected = true
        return PASS
      default:
        return PASS
    }
  }

  protected judge(bytes: Buffer, start: number, bodyAt: number, have: number): number {
    const { type, remainingLength } = this.cursor
    switch (type) {
      case CONNACK:
        return this.#connack(bytes, start, bodyAt)
      case PUBLISH:
        return this.#publish(bytes, start, bodyAt, have)
      case SUBACK:
      case UNSUBACK: {
        const body = bytes.subarray(bodyAt, bodyAt + remainingLength)
        const kind = type === SUBACK ? 'subscribe' : 'unsubscribe'
        const verdict = this.#shared.subscriptions.answered(body, kind)
        if (verdict.kind === 'pass') return PASS
        return verdict.kind === 'replace' ? this.#replace(verdict.packet) : this.#fault()
      }
    }
    const id = (bytes[bodyAt]! << 8) | bytes[bodyAt + 1]!
    if (type === PUBREL) {
      if (!this.flight.ours.delete(id)) return PASS
      this.opposite.acknowledge(PUBCOMP << 4, id, 0)
      return DROP
    }
    const failed = remainingLength > 2 && bytes[bodyAt + 2]! >= 0x80
    this.opposite.flight.answered(type, id, failed)
    return PASS
  }

  protected afterGoodbye(): FailureCode {
    return 'ERR_BACKEND_PROTOCOL'
  }

  protected count(type: number): void {
    this.#shared.traffic.packetsOut[type]!++
    if ((type === PUBACK || type === PUBREC || type === PUBCOMP) && this.opposite.owed > 0) this.opposite.owed--
  }

  protected settled(bytes: number): void {
    this.#shared.traffic.bytesOut += bytes
    this.#gate.settled(bytes, this)
    // Whatever it was, it is the broker that does not keep to MQTT.
    if (this.cursor.fault !== null) this.#shared.observer.fault('ERR_BACKEND_PROTOCOL')
  }

  #fault(): number {
    this.cursor.fault ??= 'ERR_BACKEND_PROTOCOL'
    return FAULT
  }

  #replace(packet: Buffer): number {
    this.replacement = packet
    this.replaced = this.cursor.remainingLength
    return REPLACE
  }

  #connack(bytes: Buffer, start: number, bodyAt: number): number {
    const { version, observer } = this.#shared
    const end = bodyAt + this.cursor.remainingLength
    const connack = readConnack(bytes.subarray(bodyAt, end), version)
    if (connack === null) return this.#fault()
    this.connected = true
    // After a CONNACK that refused nothing may follow [MQTT-3.2.2-7].
    this.mute = connack.code !== 0
    const other = observer.connack(connack, bytes.subarray(start, end))
    this.tune()
    return other === null ? PASS : this.#replace(other)
  }

  #publish(bytes: Buffer, start: number, bodyAt: number, have: number): number {
    const { flags, remainingLength } = this.cursor
    const { version } = this.#shared
    const read = HEAD.read(bytes, bodyAt, have, remainingLength, (flags >> 1) & 3, version)
    if (read > 0) return read
    if (read === OVERSIZED && this.#shared.device.topicAliasMaximum === 0) {
      // Ended for it, the session would get it again with its next connection, and so for ever.
      this.#shared.limited('properties')
      return this.#withhold()
    }
    if (read < 0) return this.#fault()
    let aliased: Aliased | null = null
    if (HEAD.alias >= 0 || HEAD.topicAt === HEAD.topicEnd) {
      aliased = this.#aliased(bytes)
      if (aliased === null) return this.#fault()
    }
    return this.#mayReceive(bytes, aliased) ? this.#deliver(bytes, start, bodyAt, aliased) : this.#withhold()
  }

  #aliased(bytes: Buffer): Aliased | null {
    if (HEAD.alias < 1 || HEAD.alias > this.#shared.device.topicAliasMaximum) return null
    this.#aliases ??= new TopicAliases()
    if (HEAD.topicAt === HEAD.topicEnd) return this.#aliases.get(HEAD.alias) ?? null
    return this.#aliases.define(HEAD.alias, bytes, HEAD.topicAt, HEAD.topicEnd)
  }

  #mayReceive(bytes: Buffer, aliased: Aliased | null): boolean {
    const shared = this.#shared
    if (this.#judges) {
      const topic =
        aliased !== null && HEAD.topicAt === HEAD.topicEnd
          ? this.#topic(aliased.topic, 0, aliased.topic.length)
          : this.#topic(bytes, HEAD.topicAt, HEAD.topicEnd)
      const receive = topic.receive ?? shared.permit.allows('iot:Receive', topic.resource)
      if (shared.permit.timeless === true && topic !== NO_TEXT) topic.receive = receive
      if (!shared.permits(receive, 'iot:Receive', topic.resource)) return false
    }
    if (shared.publishes === null || shared.publishes.take()) return true
    shared.limited('publishes_per_second')
    return false
  }

  #topic(bytes: Buffer, from: number, to: number): Topic {
    const known = this.#memo?.find(bytes, from, to) ?? null
    if (known !== null) return known
    const text = topicText(bytes, from, to)
    if (text === null) return NO_TEXT
    this.#memo ??= new TopicMemo()
    return this.#memo.keep(bytes, from, to, { resource: `topic/${text}`, receive: null })
  }

  #deliver(bytes: Buffer, start: number, bodyAt: number, aliased: Aliased | null): number {
    const { remainingLength } = this.cursor
    let topic: Buffer | null = null
    if (aliased !== null) {
      if (HEAD.topicAt === HEAD.topicEnd && !aliased.told) topic = aliased.topic
      const { maximumPacketBytes } = this.#shared.device
      // With its topic name it would be more than the device takes: then it is as if it had been sent [MQTT-3.1.2-25].
      if (topic !== null && maximumPacketBytes !== null && rebuiltLength(remainingLength, topic) > maximumPacketBytes) {
        return this.#withhold()
      }
      aliased.told = true
    }
    if (HEAD.qos !== 0 && this.follows) this.flight.publishPassed(HEAD.packetId)
    if (topic === null) return PASS
    this.replacement = rebuilt(bytes, start, bodyAt, remainingLength, HEAD, topic, -1)
    this.replaced = HEAD.end - bodyAt
    return REPLACE
  }

  /** Not delivered, and acknowledged in the device's place: the broker need not keep it. */
  #withhold(): number {
    const { qos, packetId } = HEAD
    // The id of a delivery that the device has: it will answer for itself.
    if (qos === 0 || this.flight.passed.has(packetId)) return DROP
    this.opposite.acknowledge((qos === 1 ? PUBACK : PUBREC) << 4, packetId, 0)
    if (qos === 2) this.flight.ours.add(packetId)
    return DROP
  }
}
