/** [hot] Device to broker: what a device may say, packet by packet. */
import type { FailureCode } from '../errors.ts'
import { FAILURES } from '../errors.ts'
import { disconnectWithin, MAX_DISCONNECT } from './disconnect.ts'
import type { Settling, Shared } from './gate.ts'
import type { KeepAliveEntry } from './keep-alive.ts'
import { bit, DROP, FAULT, Lane, PASS, REPLACE } from './lane.ts'
import { INBOUND } from './packet-cursor.ts'
import { OVERSIZED, PublishHead } from './publish-head.ts'
import { rebuilt } from './publish-rewrite.ts'
import { MAX_SUBSCRIBE, type SubscribeVerdict } from './subscriptions.ts'
import { type Aliased, TopicAliases } from './topic-alias.ts'
import { TopicMemo } from './topic-memo.ts'
import { topicNameProblem, topicText } from './topic-rules.ts'

const PUBLISH = 3
const PUBACK = 4
const PUBREC = 5
const PUBREL = 6
const PUBCOMP = 7
const SUBSCRIBE = 8
const UNSUBSCRIBE = 10
const PINGREQ = 12
const DISCONNECT = 14

const ALWAYS = bit(SUBSCRIBE) | bit(UNSUBSCRIBE) | bit(PINGREQ) | bit(DISCONNECT)
/** Of the flags of PUBLISH. */
const QOS = 6
const ACKNOWLEDGEMENTS = bit(PUBACK) | bit(PUBREC) | bit(PUBCOMP)

/** What is known of one topic name. */
interface Topic {
  readonly text: string
  readonly resource: string
  readonly problem: FailureCode | null
  /** What the permit said, while it can be relied on; null: it has to be asked. */
  publish: boolean | null
  retain: boolean | null
}

const NO_TEXT: Topic = { text: '', resource: '', problem: 'ERR_TOPIC_INVALID', publish: false, retain: false }

/** Filled in and read within one judgement, so that one is enough for all sessions. */
const HEAD = new PublishHead()

export class Inbound extends Lane {
  keepAlive: KeepAliveEntry | null = null
  /** Tick of the wheel at which the device was last heard. */
  lastSeen: number
  readonly #shared: Shared
  readonly #gate: Settling
  #memo: TopicMemo<Topic> | null = null
  #aliases: TopicAliases | null = null
  /** Publishes are asked about. */
  #judges = false
  /** The rules want topics read, whatever the policies allow. */
  readonly #rulesRead: boolean

  constructor(shared: Shared, gate: Settling) {
    super(INBOUND[shared.version], shared.rules.packetBytes)
    this.#shared = shared
    this.#gate = gate
    this.lastSeen = shared.wheel.now
    const { rules } = shared
    this.#rulesRead = rules.topicBytes < 65_535 || rules.topicSlashes !== null || !rules.reservedTopicsOpen
  }

  tune(): void {
    const { permit, terms, rules, version } = this.#shared
    this.#memo = null
    this.#judges = !permit.allowsAll('iot:Publish') || !permit.allowsAll('iot:RetainPublish')
    const limits =
      rules.maxQoS < 2 ||
      rules.payloadBytes !== null ||
      rules.publishesPerSecond !== null ||
      rules.receiveMaximum !== null ||
      rules.userPropertyBytes !== null ||
      rules.contentTypeBytes !== null ||
      rules.correlationDataBytes !== null ||
      rules.messageExpirySeconds !== null
    // A permit may be narrowed at any time, and then the aliases that were set before have to be known.
    const aliases = version === 5 && terms.topicAliasMaximum > 0
    this.follows ||= this.#judges || rules.receiveMaximum !== null || rules.publishesPerSecond !== null
    this.watched = ALWAYS
    if (this.follows || this.#rulesRead || limits || aliases) this.watched |= bit(PUBLISH)
    if (this.follows) this.watched |= bit(PUBREL)
    if (this.opposite.follows) this.watched |= ACKNOWLEDGEMENTS
  }

  override inspect(chunk: Buffer): void {
    this.lastSeen = this.#shared.wheel.now
    if (this.keepAlive !== null) this.keepAlive.lastSeen = this.lastSeen
    super.inspect(chunk)
  }

  override held(paused: boolean): void {
    super.held(paused)
    if (this.keepAlive === null) return
    this.keepAlive.held = paused
    this.keepAlive.lastSeen = this.#shared.wheel.now
  }

  /** 3.1.1 has no Receive Maximum: no more is read until the broker has answered (MQTT 5 ends the session instead). */
  windowIsFull(): boolean {
    const { rules, version } = this.#shared
    return version === 4 && rules.receiveMaximum !== null && this.flight.unanswered.size >= rules.receiveMaximum
  }

  protected begin(type: number, flags: number, remaining: number): number {
    switch (type) {
      case PUBLISH:
        return remaining < 2 ? this.#fault('ERR_PACKET_MALFORMED') : this.#sized(flags, remaining)
      case PUBREL:
        if (this.flight.ours.size === 0) return PASS
        return remaining < 2 ? this.#fault('ERR_PACKET_MALFORMED') : 2
      case PUBACK:
      case PUBREC:
      case PUBCOMP:
        if (this.opposite.flight.passed.size === 0) return PASS
        return remaining < 2 ? this.#fault('ERR_PACKET_MALFORMED') : Math.min(remaining, 3)
      case SUBSCRIBE:
      case UNSUBSCRIBE:
        if (remaining <= MAX_SUBSCRIBE) return remaining < 2 ? this.#fault('ERR_PACKET_MALFORMED') : remaining
        this.#shared.limited('subscribe_size')
        return this.#fault('ERR_PACKET_TOO_LARGE')
      case PINGREQ:
        return remaining === 0 ? PASS : this.#fault('ERR_PACKET_MALFORMED')
      case DISCONNECT:
        return this.#goodbye(remaining)
      default:
        return PASS
    }
  }

  protected judge(bytes: Buffer, start: number, bodyAt: number, have: number): number {
    const { type, remainingLength } = this.cursor
    if (type === PUBLISH) return this.#publish(bytes, start, bodyAt, have)
    if (type === DISCONNECT) return this.#disconnect(bytes.subarray(bodyAt, bodyAt + remainingLength))
    if (type === SUBSCRIBE || type === UNSUBSCRIBE) {
      const body = bytes.subarray(bodyAt, bodyAt + remainingLength)
      const { subscriptions } = this.#shared
      return this.#subscribe(type === SUBSCRIBE ? subscriptions.subscribe(body) : subscriptions.unsubscribe(body))
    }
    const id = (bytes[bodyAt]! << 8) | bytes[bodyAt + 1]!
    if (type === PUBREL) {
      if (!this.flight.ours.delete(id)) return PASS
      this.owed--
      this.opposite.acknowledge(PUBCOMP << 4, id, 0)
      return DROP
    }
    const failed = remainingLength > 2 && bytes[bodyAt + 2]! >= 0x80
    this.opposite.flight.answered(type, id, failed)
    return PASS
  }

  protected afterGoodbye(): FailureCode {
    return 'ERR_PACKET_UNEXPECTED'
  }

  protected count(type: number): void {
    this.#shared.traffic.packetsIn[type]!++
    if (type === PUBLISH ? (this.cursor.flags & QOS) !== 0 : type === PUBREL) this.owed++
  }

  protected settled(bytes: number): void {
    this.#shared.traffic.bytesIn += bytes
    this.#gate.settled(bytes, this)
    if (this.cursor.fault !== null) this.#shared.observer.fault(this.cursor.fault)
  }

  #fault(code: FailureCode): number {
    this.cursor.fault = code
    return FAULT
  }

  /** What flags and length alone can tell. */
  #sized(flags: number, remaining: number): number {
    const { rules } = this.#shared
    if (((flags >> 1) & 3) > rules.maxQoS) {
      this.#shared.limited('qos')
      return this.#fault('ERR_QOS_UNSUPPORTED')
    }
    return Math.min(remaining, 2)
  }

  #publish(bytes: Buffer, start: number, bodyAt: number, have: number): number {
    const { flags, remainingLength } = this.cursor
    const { rules, version } = this.#shared
    const read = HEAD.read(bytes, bodyAt, have, remainingLength, (flags >> 1) & 3, version)
    if (read > 0) return read
    if (read < 0) return this.#fault(read === OVERSIZED ? 'ERR_PACKET_TOO_LARGE' : 'ERR_PACKET_MALFORMED')
    // [MQTT-3.3.4-6]
    if (HEAD.hasSubscriptionIdentifier) return this.#fault('ERR_PACKET_MALFORMED')
    if (rules.payloadBytes !== null && HEAD.payloadBytes > rules.payloadBytes) {
      this.#shared.limited('payload')
      return this.#fault('ERR_PAYLOAD_TOO_LARGE')
    }
    let aliased: Aliased | null = null
    if (HEAD.alias >= 0 || HEAD.topicAt === HEAD.topicEnd) {
      aliased = this.#aliased(bytes)
      if (aliased === null) return FAULT
    }
    return this.#decide(bytes, start, bodyAt, aliased)
  }

  /** The alias this publish sets or goes by; null after a fault. */
  #aliased(bytes: Buffer): Aliased | null {
    const named = HEAD.topicAt < HEAD.topicEnd
    if (HEAD.alias < 0) {
      // A topic name of no bytes, and no alias in its place [MQTT-4.7.3-1].
      this.#fault('ERR_TOPIC_INVALID')
      return null
    }
    if (HEAD.alias > 0 && HEAD.alias <= this.#shared.terms.topicAliasMaximum) {
      this.#aliases ??= new TopicAliases()
      const aliased = named
        ? this.#aliases.define(HEAD.alias, bytes, HEAD.topicAt, HEAD.topicEnd)
        : this.#aliases.get(HEAD.alias)
      if (aliased !== null && aliased !== undefined) return aliased
    }
    this.#shared.limited('topic_alias')
    this.#fault('ERR_TOPIC_ALIAS_INVALID')
    return null
  }

  #decide(bytes: Buffer, start: number, bodyAt: number, aliased: Aliased | null): number {
    const shared = this.#shared
    const { rules } = shared
    const named = HEAD.topicAt < HEAD.topicEnd
    const retain = (this.cursor.flags & 1) !== 0
    if (this.#judges || this.#rulesRead) {
      const topic =
        named || aliased === null
          ? this.#topic(bytes, HEAD.topicAt, HEAD.topicEnd)
          : this.#topic(aliased.topic, 0, aliased.topic.length)
      if (topic.problem !== null) {
        shared.limited('topic')
        return this.#fault(topic.problem)
      }
      if (retain && !rules.reservedTopicsOpen && topic.text.startsWith('$')) {
        shared.limited('retain')
        return this.#fault('ERR_RETAIN_UNSUPPORTED')
      }
      if (this.#judges) {
        if (!this.#mayPublish(topic)) return this.#refuse('ERR_ACTION_DENIED')
        if (retain && !this.#mayRetain(topic)) return this.#refuse('ERR_ACTION_DENIED')
      }
    }
    if (this.#propertiesTooLarge()) return this.#refuse('ERR_QUOTA_EXCEEDED')
    if (shared.publishes !== null && !shared.publishes.take()) {
      shared.limited('publishes_per_second')
      return this.#discard()
    }
    return this.#forward(bytes, start, bodyAt, aliased)
  }

  #mayPublish(topic: Topic): boolean {
    const { permit } = this.#shared
    const allowed = topic.publish ?? permit.allows('iot:Publish', topic.resource)
    if (permit.timeless === true) topic.publish = allowed
    return this.#shared.permits(allowed, 'iot:Publish', topic.resource)
  }

  #mayRetain(topic: Topic): boolean {
    const { permit } = this.#shared
    const allowed = topic.retain ?? permit.allows('iot:RetainPublish', topic.resource)
    if (permit.timeless === true) topic.retain = allowed
    return this.#shared.permits(allowed, 'iot:RetainPublish', topic.resource)
  }

  #propertiesTooLarge(): boolean {
    const { rules } = this.#shared
    const over = (size: number, limit: number | null) => limit !== null && size > limit
    if (
      !over(HEAD.contentTypeBytes, rules.contentTypeBytes) &&
      !over(HEAD.correlationDataBytes, rules.correlationDataBytes) &&
      !over(HEAD.userPropertyBytes, rules.userPropertyBytes)
    ) {
      return false
    }
    this.#shared.limited('properties')
    return true
  }

  #topic(bytes: Buffer, from: number, to: number): Topic {
    const known = this.#memo?.find(bytes, from, to) ?? null
    if (known !== null) return known
    const text = topicText(bytes, from, to)
    if (text === null) return NO_TEXT
    const problem = topicNameProblem(text, to - from, this.#shared.rules)
    const topic: Topic = { text, resource: `topic/${text}`, problem, publish: null, retain: null }
    // What is at fault ends the session.
    if (problem !== null) return topic
    this.#memo ??= new TopicMemo()
    return this.#memo.keep(bytes, from, to, topic)
  }

  #forward(bytes: Buffer, start: number, bodyAt: number, aliased: Aliased | null): number {
    const { rules, version } = this.#shared
    if (HEAD.qos !== 0 && this.follows) {
      const { passed } = this.flight
      const full = version === 5 && rules.receiveMaximum !== null && passed.size >= this.#shared.terms.receiveMaximum
      if (full && !passed.has(HEAD.packetId)) {
        this.#shared.limited('receive_maximum')
        return this.#fault('ERR_RECEIVE_MAXIMUM')
      }
      this.flight.publishPassed(HEAD.packetId)
    }
    const expiry = this.#shorterExpiry(bytes)
    let topic: Buffer | null = null
    if (aliased !== null) {
      if (HEAD.topicAt === HEAD.topicEnd && !aliased.told) topic = aliased.topic
      aliased.told = true
    }
    if (topic === null && expiry < 0) return PASS
    this.replacement = rebuilt(bytes, start, bodyAt, this.cursor.remainingLength, HEAD, topic, expiry)
    this.replaced = HEAD.end - bodyAt
    return REPLACE
  }

  /** The Message Expiry Interval to put in its place, in seconds; -1 when it may stay (specification §6.4). */
  #shorterExpiry(bytes: Buffer): number {
    const { messageExpirySeconds } = this.#shared.rules
    const { expiryAt } = HEAD
    if (messageExpirySeconds === null || expiryAt < 0) return -1
    const seconds = bytes.readUInt32BE(expiryAt)
    if (seconds === 0) return 1
    return seconds > messageExpirySeconds ? messageExpirySeconds : -1
  }

  /** The device is told no, as its domain wants it told. */
  #refuse(code: FailureCode): number {
    const { version, rules } = this.#shared
    const { publish3, publish5QoS0, publish5 } = rules.denials
    const { qos } = HEAD
    const how = version === 4 ? publish3 : qos === 0 ? publish5QoS0 : publish5
    if (how === 'close') return this.#fault(code)
    const reason: number | null = how === 'ack' ? FAILURES[code].disconnect : null
    this.#answer(reason ?? 0)
    return DROP
  }

  /** Over the rate: dropped, and acknowledged so that it does not come again. */
  #discard(): number {
    this.#answer(this.#shared.version === 5 ? 0x97 : 0)
    return DROP
  }

  /** Answers this publish in the broker's place. The broker knows nothing of it, so its ids cannot collide with ours. */
  #answer(reason: number): void {
    const { qos, packetId } = HEAD
    if (qos === 0) return
    this.owed--
    // The id of a publish that the broker already has: its answer is on the way, and a second one would be one too many.
    if (this.flight.passed.has(packetId)) return
    this.opposite.acknowledge((qos === 1 ? PUBACK : PUBREC) << 4, packetId, reason)
    if (qos === 2 && reason < 0x80) this.flight.ours.add(packetId)
  }

  /** Only a Session Expiry Interval in it is a thing to look at; a packet without properties has none. */
  #goodbye(remaining: number): number {
    const { rules, version } = this.#shared
    if (version === 5 && rules.sessionExpirySeconds !== null && remaining > 1) {
      return remaining <= MAX_DISCONNECT ? remaining : this.#fault('ERR_PACKET_TOO_LARGE')
    }
    this.disconnected = true
    return PASS
  }

  #disconnect(body: Buffer): number {
    try {
      this.replacement = disconnectWithin(body, this.#shared.rules.sessionExpirySeconds!)
    } catch {
      return this.#fault('ERR_PACKET_MALFORMED')
    }
    this.disconnected = true
    this.replaced = body.length
    return this.replacement === null ? PASS : REPLACE
  }

  #subscribe(verdict: SubscribeVerdict): number {
    switch (verdict.kind) {
      case 'pass':
        return PASS
      case 'replace':
        this.replacement = verdict.packet
        this.replaced = this.cursor.remainingLength
        return REPLACE
      case 'answered':
        this.opposite.answer(verdict.answer)
        return DROP
      case 'fault':
        return this.#fault(verdict.code)
    }
  }
}
