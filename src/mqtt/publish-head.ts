/** [hot] One object per direction, filled in again for every PUBLISH. */
import type { MqttVersion } from './reason.ts'

/** Largest properties of a PUBLISH that are held and read, in bytes. */
export const MAX_PROPERTIES = 65_536

/** The whole head has been read. */
export const READ = 0
export const MALFORMED = -1
export const OVERSIZED = -2

const TOPIC_ALIAS = 0x23
const MESSAGE_EXPIRY = 0x02
const PAYLOAD_FORMAT = 0x01
const CONTENT_TYPE = 0x03
const RESPONSE_TOPIC = 0x08
const CORRELATION_DATA = 0x09
const SUBSCRIPTION_IDENTIFIER = 0x0b
const USER_PROPERTY = 0x26

/** What stands before the payload of a PUBLISH (MQTT 5.0 §3.3.2), as offsets into the bytes it was read from. */
export class PublishHead {
  qos = 0
  /** 0 at QoS 0. */
  packetId = 0
  topicAt = 0
  topicEnd = 0
  /** Where the payload begins. */
  end = 0
  payloadBytes = 0
  /** -1 when there is none; 0 may be sent and is not allowed. */
  alias = -1
  /** Offset of the Message Expiry Interval; -1 when there is none. */
  expiryAt = -1
  contentTypeBytes = 0
  correlationDataBytes = 0
  /** Names and values of all user properties together. */
  userPropertyBytes = 0
  hasSubscriptionIdentifier = false

  /**
   * @param have bytes of the body in hand, from `bodyAt` on
   * @returns `READ`; above 0, how many bytes of the body it takes to go on; or why it cannot be read
   */
  read(bytes: Buffer, bodyAt: number, have: number, remaining: number, qos: number, version: MqttVersion): number {
    if (remaining < 2) return MALFORMED
    if (have < 2) return 2
    const topicLength = (bytes[bodyAt]! << 8) | bytes[bodyAt + 1]!
    let size = 2 + topicLength + (qos === 0 ? 0 : 2) + (version === 5 ? 1 : 0)
    if (size > remaining) return MALFORMED
    if (have < size) return size
    this.qos = qos
    this.topicAt = bodyAt + 2
    this.topicEnd = this.topicAt + topicLength
    let at = this.topicEnd
    this.packetId = 0
    if (qos !== 0) {
      this.packetId = (bytes[at]! << 8) | bytes[at + 1]!
      if (this.packetId === 0) return MALFORMED
      at += 2
    }
    this.alias = -1
    this.expiryAt = -1
    this.contentTypeBytes = 0
    this.correlationDataBytes = 0
    this.userPropertyBytes = 0
    this.hasSubscriptionIdentifier = false
    if (version === 5) {
      let length = 0
      for (let shift = 0; ; shift += 7) {
        const digit = bytes[at++]!
        length |= (digit & 0x7f) << shift
        if ((digit & 0x80) === 0) break
        if (shift === 21 || ++size > remaining) return MALFORMED
        if (have < size) return size
      }
      if (length !== 0) {
        if (length > MAX_PROPERTIES) return OVERSIZED
        size += length
        if (size > remaining) return MALFORMED
        if (have < size) return size
        if (!this.#properties(bytes, at, at + length)) return MALFORMED
        at += length
      }
    }
    this.end = at
    this.payloadBytes = remaining - (at - bodyAt)
    return READ
  }

  /** False when they are not what may stand in a PUBLISH (MQTT 5.0 §3.3.2.3), each in its place and once. */
  #properties(bytes: Buffer, from: number, to: number): boolean {
    let seen = 0
    let at = from
    while (at < to) {
      const id = bytes[at++]!
      if (id !== USER_PROPERTY && id !== SUBSCRIPTION_IDENTIFIER) {
        if (id > 31 && id !== TOPIC_ALIAS) return false
        const bit = id === TOPIC_ALIAS ? 1 : 1 << id
        if ((seen & bit) !== 0) return false
        seen |= bit
      }
      switch (id) {
        case PAYLOAD_FORMAT:
          at += 1
          break
        case MESSAGE_EXPIRY:
          this.expiryAt = at
          at += 4
          break
        case TOPIC_ALIAS:
          if (at + 2 > to) return false
          this.alias = (bytes[at]! << 8) | bytes[at + 1]!
          at += 2
          break
        case SUBSCRIPTION_IDENTIFIER: {
          this.hasSubscriptionIdentifier = true
          let digits = 1
          while (at < to && (bytes[at]! & 0x80) !== 0) {
            if (digits++ === 4) return false
            at++
          }
          at++
          break
        }
        case CONTENT_TYPE:
        case RESPONSE_TOPIC:
        case CORRELATION_DATA:
        case USER_PROPERTY:
          for (let fields = id === USER_PROPERTY ? 2 : 1; fields > 0; fields--) {
            if (at + 2 > to) return false
            const length = (bytes[at]! << 8) | bytes[at + 1]!
            at += 2 + length
            if (id === USER_PROPERTY) this.userPropertyBytes += length
            else if (id === CONTENT_TYPE) this.contentTypeBytes = length
            else if (id === CORRELATION_DATA) this.correlationDataBytes = length
          }
          break
        default:
          return false
      }
    }
    return at === to
  }
}
