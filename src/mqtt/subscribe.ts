import { isUtf8 } from 'node:buffer'
import type { MqttVersion } from './reason.ts'

/** One filter of a SUBSCRIBE or UNSUBSCRIBE. */
export interface Filter {
  readonly text: string
  readonly bytes: number
  /** Subscription options (MQTT 5.0 §3.8.3.1; 3.1.1: the QoS); 0 for UNSUBSCRIBE. */
  readonly options: number
  /** [begin, end) of the entry in the body, length prefix and options included. */
  readonly at: number
  readonly end: number
}

export interface SubscribeRequest {
  readonly packetId: number
  /** Where the first filter begins. */
  readonly filtersAt: number
  readonly hasIdentifier: boolean
  readonly filters: readonly Filter[]
}

const USER_PROPERTY = 0x26
const SUBSCRIPTION_IDENTIFIER = 0x0b
const REASON_STRING = 0x1f

/** @param body a whole SUBSCRIBE or UNSUBSCRIBE after its fixed header. Null when it is not one that MQTT allows. */
export function readSubscribe(
  body: Buffer,
  kind: 'subscribe' | 'unsubscribe',
  version: MqttVersion,
): SubscribeRequest | null {
  if (body.length < 2) return null
  const packetId = body.readUInt16BE(0)
  if (packetId === 0) return null
  let at = 2
  let hasIdentifier = false
  if (version === 5) {
    const properties = readProperties(body, at, kind === 'subscribe' ? SUBSCRIPTION_IDENTIFIER : -1)
    if (properties === null) return null
    at = properties.end
    hasIdentifier = properties.hasIdentifier
  }
  const filtersAt = at
  const filters: Filter[] = []
  while (at < body.length) {
    const from = at
    if (at + 2 > body.length) return null
    const bytes = body.readUInt16BE(at)
    at += 2 + bytes
    if (bytes === 0 || at > body.length) return null
    const text = body.subarray(from + 2, at)
    if (!isUtf8(text) || text.includes(0)) return null
    let options = 0
    if (kind === 'subscribe') {
      if (at === body.length) return null
      options = body[at++]!
      if (!optionsFit(options, text, version)) return null
    }
    filters.push({ text: text.toString('utf8'), bytes, options, at: from, end: at })
  }
  // [MQTT-3.8.3-2, MQTT-3.10.3-2]
  return filters.length === 0 ? null : { packetId, filtersAt, hasIdentifier, filters }
}

const SHARE = Buffer.from('$share/')

function optionsFit(options: number, filter: Buffer, version: MqttVersion): boolean {
  if ((options & 0x03) === 3) return false
  if (version === 4) return options <= 2
  if ((options & 0xc0) !== 0 || (options & 0x30) === 0x30) return false
  // No Local on a shared subscription [MQTT-3.8.3-4].
  return (options & 0x04) === 0 || !filter.subarray(0, SHARE.length).equals(SHARE)
}

/** Walks the properties of SUBSCRIBE, UNSUBSCRIBE and their answers: user properties and one more. */
function readProperties(
  body: Buffer,
  from: number,
  other: number,
): { readonly end: number; readonly hasIdentifier: boolean } | null {
  const length = readVarint(body, from)
  if (length === null) return null
  const end = length.end + length.value
  if (end > body.length) return null
  let at = length.end
  let hasIdentifier = false
  let seen = false
  while (at < end) {
    const id = body[at++]!
    if (id !== USER_PROPERTY) {
      if (id !== other || seen) return null
      seen = true
    }
    if (id === SUBSCRIPTION_IDENTIFIER) {
      const value = readVarint(body, at)
      if (value === null || value.value === 0) return null
      at = value.end
      hasIdentifier = true
      continue
    }
    for (let fields = id === USER_PROPERTY ? 2 : 1; fields > 0; fields--) {
      if (at + 2 > end) return null
      at += 2 + body.readUInt16BE(at)
    }
  }
  return at === end ? { end, hasIdentifier } : null
}

function readVarint(body: Buffer, from: number): { readonly value: number; readonly end: number } | null {
  let value = 0
  for (let at = from, shift = 0; at < body.length && shift < 28; at++, shift += 7) {
    const digit = body[at]!
    value |= (digit & 0x7f) << shift
    if ((digit & 0x80) === 0) return { value, end: at + 1 }
  }
  return null
}

export interface SubscribeAnswer {
  readonly packetId: number
  /** Where the reason codes begin; the body's length where there are none (3.1.1 UNSUBACK). */
  readonly codesAt: number
}

/** @param body a whole SUBACK or UNSUBACK after its fixed header. Null when it is not one that MQTT allows. */
export function readSubscribeAnswer(body: Buffer, version: MqttVersion): SubscribeAnswer | null {
  if (body.length < 2) return null
  const packetId = body.readUInt16BE(0)
  if (version === 4) return { packetId, codesAt: 2 }
  const properties = readProperties(body, 2, REASON_STRING)
  return properties === null ? null : { packetId, codesAt: properties.end }
}
