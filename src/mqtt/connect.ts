import mqttPacket, { type IConnectPacket, type QoS } from 'mqtt-packet'
import type { FailureCode } from '../errors.ts'
import { type ByteStream, type Ears, listen, type StreamListener, unlisten } from '../relay.ts'
import { CONNECT_PROPERTIES, checkProperties, Walk, WILL_PROPERTIES } from './properties.ts'
import type { MqttVersion } from './reason.ts'
import { QUESTIONABLE } from './topic-rules.ts'

/** A whole, valid CONNECT and where its parts lie in `bytes`, so that it can be changed without being encoded again. */
export interface Connect {
  /** The packet as it arrived, fixed header included. */
  readonly bytes: Buffer
  readonly version: MqttVersion
  readonly clientId: string
  readonly cleanStart: boolean
  /** Seconds; 0 turns it off (MQTT 5.0 §3.1.2.10). */
  readonly keepAliveSeconds: number
  readonly packet: ConnectFields
  readonly layout: ConnectLayout
}

/** What it carries, as mqtt-packet has it. */
export type ConnectFields = Pick<IConnectPacket, 'username' | 'password' | 'will' | 'properties'>

/** Offsets into `Connect.bytes`. */
interface ConnectLayout {
  readonly flags: number
  readonly keepAlive: number
  /** [start, end] of the property list without its length, which stands right behind the keep alive; null on 3.1.1. */
  readonly properties: readonly [number, number] | null
  /** [start of the length prefix, end of the field] */
  readonly clientId: readonly [number, number]
  readonly will: WillLayout | null
  /** Where user name and password stand, or would stand. */
  readonly credentials: number
}

interface WillLayout {
  /** As `ConnectLayout.properties`; their length stands right behind the client id. */
  readonly properties: readonly [number, number] | null
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
  return new Promise((resolve) => new Reading(stream, maxBytes, deadlineMs, signal ?? null, resolve).begin())
}

class Reading implements StreamListener {
  readonly #stream: ByteStream
  readonly #maxBytes: number
  readonly #deadlineMs: number
  readonly #signal: AbortSignal | null
  readonly #resolve: (read: ConnectRead) => void
  readonly #chunks: Buffer[] = []
  #length = 0
  #timer: NodeJS.Timeout | undefined
  #ears: Ears | null = null
  #over = false
  // Nobody has spoken MQTT yet, so there is no version to answer in.
  readonly #onAbort = (): void =>
    this.#done({ kind: 'refused', code: 'ERR_DRAINING', version: null, detail: 'stopped before CONNECT' })

  constructor(
    stream: ByteStream,
    maxBytes: number,
    deadlineMs: number,
    signal: AbortSignal | null,
    resolve: (read: ConnectRead) => void,
  ) {
    this.#stream = stream
    this.#maxBytes = maxBytes
    this.#deadlineMs = deadlineMs
    this.#signal = signal
    this.#resolve = resolve
  }

  begin(): void {
    const stream = this.#stream
    // A stream that nobody reads still tells of its end, and of a reset: nobody may have listened then.
    if (stream.destroyed === true || stream.readableEnded === true) {
      this.#resolve({ kind: 'gone' })
      return
    }
    this.#timer = setTimeout(late, this.#deadlineMs, this)
    this.#ears = listen(stream, this)
    if (this.#signal?.aborted) {
      this.#onAbort()
      return
    }
    this.#signal?.addEventListener('abort', this.#onAbort, { once: true })
    stream.resume()
  }

  onData(chunk: Buffer): void {
    if (chunk.length === 0) return
    const chunks = this.#chunks
    chunks.push(chunk)
    this.#length += chunk.length
    const length = this.#length
    const head = chunks.length === 1 ? chunk : Buffer.concat(chunks.slice(0, 5), Math.min(length, 16))
    const size = connectSize(head, this.#maxBytes)
    if (size === null) return
    if (typeof size === 'object') {
      this.#done(size)
      return
    }
    if (length < size) return
    const bytes = chunks.length === 1 ? chunk : Buffer.concat(chunks, length)
    const connect = parseConnect(bytes.subarray(0, size))
    if ('kind' in connect) this.#done(connect)
    else this.#done({ kind: 'connect', connect, rest: length > size ? bytes.subarray(size) : null })
  }

  onDrain(): void {}

  onEnd(): void {
    const detail = `closed after ${this.#length} bytes of CONNECT`
    this.#done(this.#length === 0 ? { kind: 'gone' } : refused('ERR_CONNECT_MALFORMED', 4, detail))
  }

  onClose(): void {
    this.onEnd()
  }

  late(): void {
    this.#done(refused('ERR_CONNECT_TIMEOUT', 4, `${this.#length} bytes of CONNECT in ${this.#deadlineMs} ms`))
  }

  #done(read: ConnectRead): void {
    if (this.#over) return
    this.#over = true
    clearTimeout(this.#timer)
    unlisten(this.#stream, this.#ears)
    this.#signal?.removeEventListener('abort', this.#onAbort)
    this.#resolve(read)
  }
}

const late = (reading: Reading): void => reading.late()

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
    const walk = new Walk(bytes, 0)
    if (walk.byte() !== 0x10) throw new RangeError('not the first byte of a CONNECT')
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
    const properties = version === 5 ? checkProperties(walk, CONNECT_PROPERTIES) : null
    const clientIdAt = walk.at
    const clientId = walk.text('client id')
    const clientIdEnd = walk.at
    const fields: ConnectFields = {}
    let will: WillLayout | null = null
    if (bits & WILL) {
      will = { properties: version === 5 ? checkProperties(walk, WILL_PROPERTIES) : null }
      const topic = walk.text('will topic')
      if (topic === '' || /[+#]/.test(topic)) throw new RangeError('will topic is empty or holds a wildcard')
      const qos = ((bits & WILL_QOS) >> 3) as QoS
      fields.will = { retain: (bits & WILL_RETAIN) !== 0, qos, topic, payload: walk.field() }
    }
    const credentials = walk.at
    if (bits & USERNAME) {
      fields.username = walk.text('user name')
      // The broker may never see it: what it would refuse is refused here.
      if (QUESTIONABLE.test(fields.username)) {
        throw new RangeError('user name holds a control character or no character [MQTT 5.0 §1.5.4]')
      }
    }
    if (bits & PASSWORD) fields.password = walk.field()
    if (walk.at !== bytes.length) throw new RangeError(`${bytes.length - walk.at} bytes after the payload`)

    const packet = isEmpty(properties) && isEmpty(will?.properties ?? null) ? fields : decode(bytes)
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
      layout: { flags, keepAlive, properties, clientId: [clientIdAt, clientIdEnd], will, credentials },
    }
  } catch (error) {
    return refused('ERR_CONNECT_MALFORMED', version, error instanceof Error ? error.message : String(error))
  }
}

const isEmpty = (list: readonly [from: number, to: number] | null): boolean => list === null || list[0] === list[1]

/** Connect Flags (MQTT 5.0 §3.1.2.3 to §3.1.2.9). */
function checkFlags(bits: number, version: MqttVersion): void {
  if (bits & RESERVED) throw new RangeError('the reserved connect flag is set [MQTT-3.1.2-3]')
  if (!(bits & WILL) && bits & (WILL_QOS | WILL_RETAIN)) throw new RangeError('will QoS or retain without a will')
  if ((bits & WILL_QOS) === WILL_QOS) throw new RangeError('will QoS 3 [MQTT-3.1.2-12]')
  if (version === 4 && bits & PASSWORD && !(bits & USERNAME)) {
    throw new RangeError('password without user name [MQTT-3.1.2-22]')
  }
}

type Parser = ReturnType<typeof mqttPacket.parser>

/**
 * A packet with properties through mqtt-packet, which knows them and their types. Throws on what it refuses. A parser
 * costs more than a CONNECT, so that one is kept for the next, but for one in which anything went wrong: nothing of one
 * device may be left for another.
 */
export function connectDecoder(make: () => Parser = () => mqttPacket.parser()): PacketReader {
  let idle: PacketReader | null = null
  return (bytes) => {
    const reader = idle ?? packetReader(make())
    idle = null
    const packet = reader(bytes)
    idle = reader
    return packet
  }
}

const decode = connectDecoder()

/** @throws what mqtt-packet says, or throws; then it is not to be used again */
type PacketReader = (bytes: Buffer) => IConnectPacket

/** It is as new after each whole packet. */
function packetReader(parser: Parser): PacketReader {
  let packet: IConnectPacket | null = null
  let fault: Error | null = null
  parser.on('packet', (found) => {
    if (found.cmd === 'connect') packet = found
  })
  parser.on('error', (error) => {
    fault = error as Error
  })
  return (bytes) => {
    packet = null
    const rest = parser.parse(bytes)
    if (fault !== null) throw fault
    if (packet === null || rest > 0) throw new RangeError('no CONNECT in the packet')
    const found = packet
    packet = null
    return found
  }
}
