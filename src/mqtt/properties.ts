import { isUtf8 } from 'node:buffer'

/** MQTT 5 properties: which belong where, and changing some in place without encoding the others again. */

export type PropertyType =
  | 'flag'
  | 'byte'
  | 'uint16'
  | 'uint32'
  | 'positive16'
  | 'positive32'
  | 'text'
  | 'binary'
  | 'pair'
export type PropertyTable = Readonly<Record<number, PropertyType>>

/** MQTT 5.0 §2.2.2.2. */
export const PROPERTY = {
  messageExpiry: 0x02,
  contentType: 0x03,
  responseTopic: 0x08,
  correlationData: 0x09,
  sessionExpiry: 0x11,
  assignedClientId: 0x12,
  serverKeepAlive: 0x13,
  authenticationMethod: 0x15,
  authenticationData: 0x16,
  requestProblemInformation: 0x17,
  reasonString: 0x1f,
  receiveMaximum: 0x21,
  topicAliasMaximum: 0x22,
  maximumQoS: 0x24,
  retainAvailable: 0x25,
  userProperty: 0x26,
  maximumPacketSize: 0x27,
  subscriptionIdentifiers: 0x29,
} as const

/** MQTT 5.0 §3.1.2.11. */
export const CONNECT_PROPERTIES: PropertyTable = {
  17: 'uint32', // Session Expiry Interval
  21: 'text', // Authentication Method
  22: 'binary', // Authentication Data
  23: 'flag', // Request Problem Information
  25: 'flag', // Request Response Information
  33: 'positive16', // Receive Maximum
  34: 'uint16', // Topic Alias Maximum
  38: 'pair', // User Property
  39: 'positive32', // Maximum Packet Size
}

/** MQTT 5.0 §3.1.3.2. */
export const WILL_PROPERTIES: PropertyTable = {
  1: 'flag', // Payload Format Indicator
  2: 'uint32', // Message Expiry Interval
  3: 'text', // Content Type
  8: 'text', // Response Topic
  9: 'binary', // Correlation Data
  24: 'uint32', // Will Delay Interval
  38: 'pair', // User Property
}

/** MQTT 5.0 §3.2.2.3. Values of a broker are left to the device to judge. */
export const CONNACK_PROPERTIES: PropertyTable = {
  17: 'uint32', // Session Expiry Interval
  18: 'text', // Assigned Client Identifier
  19: 'uint16', // Server Keep Alive
  21: 'text', // Authentication Method
  22: 'binary', // Authentication Data
  26: 'text', // Response Information
  28: 'text', // Server Reference
  31: 'text', // Reason String
  33: 'uint16', // Receive Maximum
  34: 'uint16', // Topic Alias Maximum
  36: 'byte', // Maximum QoS
  37: 'byte', // Retain Available
  38: 'pair', // User Property
  39: 'uint32', // Maximum Packet Size
  40: 'byte', // Wildcard Subscription Available
  41: 'byte', // Subscription Identifier Available
  42: 'byte', // Shared Subscription Available
}

/**
 * Every property is one of the table, ends where the property length says, and stands once (user properties as often
 * as they like). mqtt-packet reads a last property on into what follows, and would see another client id than we do.
 * Returns where the list lies, without its length.
 */
export function checkProperties(walk: Walk, table: PropertyTable): readonly [from: number, to: number] {
  const length = walk.varint()
  const from = walk.at
  const end = from + length
  const seen = new Set<number>()
  while (walk.at < end) {
    const id = walk.byte()
    const type = table[id]
    const name = `property 0x${id.toString(16).padStart(2, '0')}`
    if (type === undefined) throw new RangeError(`${name} does not belong there`)
    if (type !== 'pair' && seen.has(id)) throw new RangeError(`${name} stands twice`)
    seen.add(id)
    if (!STEPS[type](walk, name)) throw new RangeError(`${name} has a value it may not have`)
  }
  if (walk.at !== end) throw new RangeError('a property ends after the property length')
  if (seen.has(0x16) && !seen.has(0x15)) throw new RangeError('authentication data without a method [MQTT-3.1.2-29]')
  return [from, end]
}

/** Steps over one value; false where its value is not allowed. */
const STEPS: Readonly<Record<PropertyType, (walk: Walk, name: string) => boolean>> = {
  flag: (walk) => walk.byte() <= 1,
  byte: (walk) => walk.byte() >= 0,
  uint16: (walk) => walk.skip(2) >= 0,
  uint32: (walk) => walk.skip(4) >= 0,
  positive16: (walk) => walk.uint16() > 0,
  positive32: (walk) => walk.uint16() + walk.uint16() > 0,
  text: (walk, name) => walk.text(name).length >= 0,
  binary: (walk) => walk.field().length >= 0,
  pair: (walk, name) => walk.text(name).length + walk.text(name).length >= 0,
}

/** Numbers and texts of a property list without its length, by id. The list has passed `checkProperties` with this table. */
export function readProperties(list: Buffer, table: PropertyTable): ReadonlyMap<number, number | string> {
  const values = new Map<number, number | string>()
  const walk = new Walk(list, 0)
  while (walk.at < list.length) {
    const id = walk.byte()
    const type = table[id]!
    const from = walk.at
    STEPS[type](walk, '')
    const width = WIDTHS[type]
    if (width !== undefined) values.set(id, list.readUIntBE(from, width))
    else if (type === 'text') values.set(id, list.toString('utf8', from + 2, walk.at))
  }
  return values
}

/** Bytes of every user property in the list, names and values (wire specification §6.6). */
export function userPropertyBytes(list: Buffer, table: PropertyTable): number {
  let bytes = 0
  const walk = new Walk(list, 0)
  while (walk.at < list.length) {
    const type = table[walk.byte()]!
    const from = walk.at
    STEPS[type](walk, '')
    // Two length prefixes of two bytes each.
    if (type === 'pair') bytes += walk.at - from - 4
  }
  return bytes
}

/** Of the types that are numbers, in bytes. */
const WIDTHS: Readonly<Partial<Record<PropertyType, number>>> = {
  flag: 1,
  byte: 1,
  uint16: 2,
  positive16: 2,
  uint32: 4,
  positive32: 4,
}

/** What a property becomes; null takes it away. One that is not there is put at the end. */
export type PropertyEdits = ReadonlyMap<number, number | string | null>

/**
 * A property list, its length in front, with some properties replaced where they stand and every other byte as it was:
 * the order of user properties counts [MQTT-3.1.3-10]. The list has passed `checkProperties` with this table.
 */
export function editProperties(list: Buffer, table: PropertyTable, edits: PropertyEdits): Buffer {
  const parts: Buffer[] = []
  const left = new Map(edits)
  const walk = new Walk(list, 0)
  while (walk.at < list.length) {
    const from = walk.at
    const id = walk.byte()
    const type = table[id]!
    STEPS[type](walk, '')
    if (!edits.has(id)) parts.push(list.subarray(from, walk.at))
    else if (left.has(id)) parts.push(property(id, type, edits.get(id)!))
    left.delete(id)
  }
  for (const [id, value] of left) parts.push(property(id, table[id]!, value))
  const edited = Buffer.concat(parts)
  return Buffer.concat([varint(edited.length), edited])
}

function property(id: number, type: PropertyType, value: number | string | null): Buffer {
  if (value === null) return Buffer.alloc(0)
  if (typeof value === 'string') return Buffer.concat([Buffer.from([id]), lengthPrefixed(value)])
  const width = WIDTHS[type]!
  const bytes = Buffer.alloc(1 + width, id)
  bytes.writeUIntBE(value, 1, width)
  return bytes
}

/** UTF-8 Encoded String. @throws {RangeError} over 65,535 bytes */
export function lengthPrefixed(text: string): Buffer {
  const body = Buffer.from(text, 'utf8')
  if (body.length > 65_535) throw new RangeError(`a field of ${body.length} bytes, limit 65535`)
  const field = Buffer.allocUnsafe(2 + body.length)
  field.writeUInt16BE(body.length)
  body.copy(field, 2)
  return field
}

/** Variable Byte Integer (MQTT 5.0 §1.5.5). */
export function varint(value: number): Buffer {
  const bytes: number[] = []
  let left = value
  do {
    const digit = left % 128
    left = Math.floor(left / 128)
    bytes.push(left > 0 ? digit | 0x80 : digit)
  } while (left > 0)
  return Buffer.from(bytes)
}

/** Steps through a packet; every step is checked against its end. Throws RangeError, caught by its caller. */
export class Walk {
  readonly #bytes: Buffer
  at: number

  constructor(bytes: Buffer, at: number) {
    this.#bytes = bytes
    this.at = at
  }

  skip(length: number): number {
    const from = this.at
    if (length > this.#bytes.length - from)
      throw new RangeError(`a field ends ${length - (this.#bytes.length - from)} bytes after the packet`)
    this.at = from + length
    return from
  }

  byte(): number {
    return this.#bytes[this.skip(1)]!
  }

  uint16(): number {
    return this.#bytes.readUInt16BE(this.skip(2))
  }

  varint(): number {
    let value = 0
    for (let shift = 0; shift < 28; shift += 7) {
      const byte = this.byte()
      value |= (byte & 0x7f) << shift
      if (!(byte & 0x80)) return value
    }
    throw new RangeError('a variable byte integer over four bytes')
  }

  field(): Buffer {
    const length = this.uint16()
    const from = this.skip(length)
    return this.#bytes.subarray(from, from + length)
  }

  /** UTF-8 Encoded String (MQTT 5.0 §1.5.4): well formed, without U+0000. */
  text(what: string): string {
    const field = this.field()
    if (!isUtf8(field) || field.includes(0)) throw new RangeError(`${what} is not valid UTF-8 text [MQTT-1.5.4-1]`)
    return field.toString('utf8')
  }
}
