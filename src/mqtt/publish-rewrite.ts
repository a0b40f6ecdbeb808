import { fixedHeaderLength, writeFixedHeader } from './bytes.ts'
import type { PublishHead } from './publish-head.ts'

/**
 * Header and head of a PUBLISH with its topic name put in where an alias stood alone, or with another Message Expiry
 * Interval. The payload is not part of it and goes on as it lies.
 *
 * @param topic null leaves the topic name as it is
 * @param expirySeconds below 0 leaves the interval as it is
 */
export function rebuilt(
  bytes: Buffer,
  start: number,
  bodyAt: number,
  remaining: number,
  head: PublishHead,
  topic: Buffer | null,
  expirySeconds: number,
): Buffer {
  const added = topic === null ? 0 : topic.length
  const headerLength = fixedHeaderLength(remaining + added)
  const packet = Buffer.allocUnsafe(headerLength + head.end - bodyAt + added)
  let at = writeFixedHeader(packet, bytes[start]!, remaining + added)
  if (topic !== null) {
    packet.writeUInt16BE(topic.length, at)
    topic.copy(packet, at + 2)
    at += 2 + topic.length
  } else {
    at += bytes.copy(packet, at, bodyAt, head.topicEnd)
  }
  bytes.copy(packet, at, head.topicEnd, head.end)
  if (expirySeconds >= 0) packet.writeUInt32BE(expirySeconds, at + head.expiryAt - head.topicEnd)
  return packet
}

/** Bytes of the whole packet after that. */
export function rebuiltLength(remaining: number, topic: Buffer): number {
  return fixedHeaderLength(remaining + topic.length) + remaining + topic.length
}
