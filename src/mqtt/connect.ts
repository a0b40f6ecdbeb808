import { isUtf8 } from 'node:buffer'
import mqttPacket, { type IConnectPacket } from 'mqtt-packet'
import { type FailureCode, ProxyError } from '../errors.ts'
import type { ByteStream } from '../relay.ts'
import type { MqttVersion } from './reason.ts'

/** A whole, valid CONNECT and where its parts lie in `bytes`, so that it can be changed without being encoded again. */
export interface Connect {
  /** The packet as it arrived, fixed header included. */
  readonly bytes: Buffer
  readonly version: MqttVersion
  readonly clientId: string
  readonly cleanStart: boolean
  /** Seconds; 0 turns it off (MQTT 5.0 §3.1.2.10). */
  readonly keepAliveSeconds: number
  readonly packet: IConnectPacket
  readonly layout: ConnectLayout
}

/** Offsets into `Connect.bytes`. */
interface ConnectLayout {
  readonly flags: number
  readonly keepAlive: number
  /** [start of the length prefix, end of the field] */
  readonly clientId: readonly [number, number]
  /** Where user name and password stand, or would stand. */
  readonly credentials: number
}

export type ConnectRead =
  | { readonly kind: 'connect'; readonly connect: Connect; readonly rest: Buffer | null }
  | {
      readonly kind: 'refused'
      readonly code: FailureCode
      readonly version: MqttVersion | null
      readonly detail: string
    }
  /** The device left before it had said anything. */
  | { readonly kind: 'gone' }

const refused = (code: FailureCode, version: MqttVersion, detail: string): ConnectRead => ({
  kind: 'refused',
  code,
  version,
  detail,
})

/**
 * Reads one whole CONNECT from the stream and leaves it paused, nothing lost: bytes after the packet come back
 * as `rest`. Nothing is buffered beyond `maxBytes`, and the deadline is for the whole packet, not for its pauses.
 */
export function readConnect(
  stream: ByteStream,
  maxBytes: number,
  deadlineMs: number,
  signal?: AbortSignal,
): Promise<ConnectRead> {
  return new Promise((resolve) => {
    const chunks: Buffer[] = []
    let length = 0

    // A paused stream still tells of its end, and of a reset: nobody may have listened then.
    if (stream.destroyed === true || stream.readableEnded === true) return resolve({ kind: 'gone' })

    const done = (result: ConnectRead) => {
      clearTimeout(timer)
      stream.pause()
      stream.off('data', onData)
      stream.off('end', onGone)
      stream.off('close', onGone)
      signal?.removeEventListener('abort', onAbort)
      resolve(result)
    }
    const onData = (chunk: Buffer) => {
      if (chunk.length === 0) return
      chunks.push(chunk)
      length += chunk.length
      const head = chunks.length === 1 ? chunk : Buffer.concat(chunks.slice(0, 5), Math.min(length, 16))
      const size = connectSize(head, maxBytes)
      if (size === null) return
      if (typeof size === 'object') return done(size)
      if (length < size) return
      const bytes = chunks.length === 1 ? chunk : Buffer.concat(chunks, length)
      const connect = parseConnect(bytes.subarray(0, size))
      if ('kind' in connect) return done(connect)
      done({ kind: 'connect', connect, rest: length > size ? bytes.subarray(size) : null })
    }
    const onGone = () =>
      done(
        length === 0
          ? { kind: 'gone' }
          : refused('ERR_CONNECT_MALFORMED', 4, `closed after ${length} bytes of CONNECT`),
      )
    const timer = setTimeout(
      () => done(refused('ERR_CONNECT_TIMEOUT', 4, `${length} bytes of CONNECT in ${deadlineMs} ms`)),
      deadlineMs,
    )
    // Nobody has spoken MQTT yet, so there is no version to answer in.
    const onAbort = () =>
      done({ kind: 'refused', code: 'ERR_DRAINING', version: null, detail: 'stopped before CONNECT' })
    if (signal?.aborted) return onAbort()
    signal?.addEventListener('abort', onAbort, { once: true })
    stream.on('data', onData)
    stream.on('end', onGone)
    stream.on('close', onGone)
    stream.resume()
  })
}

/** Bytes of the whole packet, null while its length is not yet known, or why it cannot be a CONNECT we accept. */
function connectSize(head: Buffer, maxBytes: number): number | null | ConnectRead {
  if (head.length === 0) return null
  if (head[0] !== 0x10)
    return refused('ERR_NOT_MQTT', 4, `first byte 0x${head[0]!.toString(16).padStart(2, '0')}, expected 0x10`)
  let remaining = 0
  for (let i = 1; i <= 4; i++) {
    const byte = head[i]
    if (byte === undefined) return null
    remaining |= (byte & 0x7f) << (7 * (i - 1))
    if (byte & 0x80) continue
    const size = 1 + i + remaining
    // The protocol level is not known yet, so the refusal takes the form that every client reads.
    if (size > maxBytes) return refused('ERR_CONNECT_OVERSIZED', 4, `CONNECT of ${size} bytes, limit ${maxBytes}`)
    return size
  }
  return refused('ERR_NOT_MQTT', 4, 'remaining length over four bytes')
}

const RESERVED = 0x01
const CLEAN = 0x02
const WILL = 0x04
const WILL_QOS = 0x18
const WILL_RETAIN = 0x20
const PASSWORD = 0x40
const USERNAME = 0x80

/** Checks one whole CONNECT packet (MQTT 5.0 §3.1, 3.1.1 §3.1). */
export function parseConnect(bytes: Buffer): Connect | ConnectRead {
  let version: MqttVersion = 4
  try {
    const walk = new Walk(bytes, 1)
    if (walk.varint() !== bytes.length - walk.at) throw new RangeError('remaining length is not what follows it')
    const name = walk.field().toString('latin1')
    const level = walk.byte()
    if (name !== 'MQTT' && name !== 'MQIsdp') return refused('ERR_NOT_MQTT', 4, 'protocol name is not MQTT')
    if (name !== 'MQTT' || (level !== 4 && level !== 5)) {
      return refused('ERR_PROTOCOL_VERSION', 4, `protocol ${name} level ${level}, expected MQTT level 4 or 5`)
    }
    version = level
    const flags = walk.at
    const bits = walk.byte()
    checkFlags(bits, version)
    const keepAlive = walk.at
    const keepAliveSeconds = walk.uint16()
    if (version === 5) checkProperties(walk, CONNECT_PROPERTIES)
    const clientIdAt = walk.at
    const clientId = walk.text('client id')
    const clientIdEnd = walk.at
    if (bits & WILL) {
      if (version === 5) checkProperties(walk, WILL_PROPERTIES)
      const topic = walk.text('will topic')
      if (topic === '' || /[+#]/.test(topic)) throw new RangeError('will topic is empty or holds a wildcard')
      walk.field()
    }
    const credentials = walk.at
    if (bits & USERNAME) walk.text('user name')
    if (bits & PASSWORD) walk.field()
    if (walk.at !== bytes.length) throw new RangeError(`${bytes.length - walk.at} bytes after the payload`)

    const packet = decode(bytes)
    if (version === 4 && clientId === '' && !(bits & CLEAN)) {
      return refused('ERR_CLIENT_ID_INVALID', version, 'empty client id without clean session [MQTT-3.1.3-8]')
    }
    return {
      bytes,
      version,
      clientId,
      cleanStart: (bits & CLEAN) !== 0,
      keepAliveSeconds,
      packet,
      layout: { flags, keepAlive, clientId: [clientIdAt, clientIdEnd], credentials },
    }
  } catch (error) {
    return refused('ERR_CONNECT_MALFORMED', version, error instanceof Error ? error.message : String(error))
  }
}

/** Connect Flags (MQTT 5.0 §3.1.2.3 to §3.1.2.9). */
function checkFlags(bits: number, version: MqttVersion): void {
  if (bits & RESERVED) throw new RangeError('the reserved connect flag is set [MQTT-3.1.2-3]')
  if (!(bits & WILL) && bits & (WILL_QOS | WILL_RETAIN)) throw new RangeError('will QoS or retain without a will')
  if ((bits & WILL_QOS) === WILL_QOS) throw new RangeError('will QoS 3 [MQTT-3.1.2-12]')
  if (version === 4 && bits & PASSWORD && !(bits & USERNAME)) {
    throw new RangeError('password without user name [MQTT-3.1.2-22]')
  }
}

type PropertyType = 'flag' | 'uint16' | 'uint32' | 'positive16' | 'positive32' | 'text' | 'binary' | 'pair'

/** MQTT 5.0 §3.1.2.11. */
const CONNECT_PROPERTIES: Readonly<Record<number, PropertyType>> = {
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
const WILL_PROPERTIES: Readonly<Record<number, PropertyType>> = {
  1: 'flag', // Payload Format Indicator
  2: 'uint32', // Message Expiry Interval
  3: 'text', // Content Type
  8: 'text', // Response Topic
  9: 'binary', // Correlation Data
  24: 'uint32', // Will Delay Interval
  38: 'pair', // User Property
}

/**
 * Every property is one of the table, ends where the property length says, and stands once (user properties as often
 * as they like). mqtt-packet reads a last property on into what follows, and would see another client id than we do.
 */
function checkProperties(walk: Walk, table: Readonly<Record<number, PropertyType>>): void {
  const end = walk.varint() + walk.at
  const seen = new Set<number>()
  while (walk.at < end) {
    const id = walk.byte()
    const type = table[id]
    const name = `property 0x${id.toString(16).padStart(2, '0')}`
    if (type === undefined) throw new RangeError(`${name} does not belong there`)
    if (type !== 'pair' && seen.has(id)) throw new RangeError(`${name} stands twice`)
    seen.add(id)
    if (!PROPERTY_TYPES[type](walk, name)) throw new RangeError(`${name} has a value it may not have`)
  }
  if (walk.at !== end) throw new RangeError('a property ends after the property length')
  if (seen.has(0x16) && !seen.has(0x15)) throw new RangeError('authentication data without a method [MQTT-3.1.2-29]')
}

/** Steps over one value; false where its value is not allowed. */
const PROPERTY_TYPES: Readonly<Record<PropertyType, (walk: Walk, name: string) => boolean>> = {
  flag: (walk) => walk.byte() <= 1,
  uint16: (walk) => walk.skip(2) >= 0,
  uint32: (walk) => walk.skip(4) >= 0,
  positive16: (walk) => walk.uint16() > 0,
  positive32: (walk) => walk.uint16() + walk.uint16() > 0,
  text: (walk, name) => walk.text(name).length >= 0,
  binary: (walk) => walk.field().length >= 0,
  pair: (walk, name) => walk.text(name).length + walk.text(name).length >= 0,
}

/** The same packet through mqtt-packet, which knows flags, properties and their types. Throws on what it refuses. */
function decode(bytes: Buffer): IConnectPacket {
  const parser = mqttPacket.parser()
  let packet: IConnectPacket | null = null
  let fault: Error | null = null
  parser.on('packet', (found) => {
    if (found.cmd === 'connect') packet = found
  })
  parser.on('error', (error) => {
    fault = error as Error
  })
  parser.parse(bytes)
  if (fault !== null) throw fault
  if (packet === null) throw new RangeError('no CONNECT in the packet')
  return packet
}

/** What is changed on the way to the broker; `undefined` keeps what the device sent. */
export interface ConnectChanges {
  readonly clientId?: string | undefined
  readonly keepAliveSeconds?: number | undefined
  /** Replaces both user name and password; null in a field sends none. */
  readonly credentials?: { readonly username: string | null; readonly password: string | null } | undefined
}

/**
 * CONNECT with some fields replaced and every other byte as the device sent it: properties, their order and the
 * will are never encoded again (the order of user properties counts [MQTT-3.1.3-10]).
 */
export function rewriteConnect(connect: Connect, changes: ConnectChanges): Buffer {
  const { bytes, layout } = connect
  const { clientId, keepAliveSeconds, credentials } = changes
  if (clientId === undefined && keepAliveSeconds === undefined && credentials === undefined) return bytes

  const head = Buffer.from(bytes.subarray(layout.flags - 7, layout.clientId[0]))
  const tail: Buffer[] = []
  if (keepAliveSeconds !== undefined) head.writeUInt16BE(keepAliveSeconds, layout.keepAlive - (layout.flags - 7))
  if (credentials === undefined) {
    tail.push(bytes.subarray(layout.credentials))
  } else {
    let flags = bytes[layout.flags]! & ~(USERNAME | PASSWORD)
    const { password } = credentials
    // 3.1.1 knows no password without a user name [MQTT-3.1.2-22], so an empty one goes with it.
    const username = credentials.username ?? (password !== null && connect.version === 4 ? '' : null)
    if (username !== null) {
      flags |= USERNAME
      tail.push(lengthPrefixed(username))
    }
    if (password !== null) {
      flags |= PASSWORD
      tail.push(lengthPrefixed(password))
    }
    head[7] = flags
  }
  const id = clientId === undefined ? bytes.subarray(...layout.clientId) : lengthPrefixed(clientId)
  const body = Buffer.concat([head, id, bytes.subarray(layout.clientId[1], layout.credentials), ...tail])
  return Buffer.concat([fixedHeader(0x10, body.length), body])
}

function lengthPrefixed(text: string): Buffer {
  const body = Buffer.from(text, 'utf8')
  if (body.length > 65_535)
    throw new ProxyError('ERR_CLIENT_ID_INVALID', `a field of ${body.length} bytes, limit 65535`)
  const field = Buffer.allocUnsafe(2 + body.length)
  field.writeUInt16BE(body.length)
  body.copy(field, 2)
  return field
}

/** First byte and Remaining Length (MQTT 5.0 §2.1.4). */
function fixedHeader(first: number, remaining: number): Buffer {
  const header = [first]
  let left = remaining
  do {
    const digit = left % 128
    left = Math.floor(left / 128)
    header.push(left > 0 ? digit | 0x80 : digit)
  } while (left > 0)
  return Buffer.from(header)
}

/** Steps through a packet; every step is checked against its end. Throws RangeError, caught by its caller. */
class Walk {
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
