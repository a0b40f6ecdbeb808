/** [hot] The cursor of each direction at work: counts every packet, and stops at the first that may not pass. */
import type { TrafficCounters } from '../control/metrics.ts'
import type { Inspector, Way } from '../relay.ts'
import { readConnack } from './connack.ts'
import type { GateObserver, GateOptions } from './gate.ts'
import type { KeepAliveEntry, KeepAliveWheel } from './keep-alive.ts'
import { INBOUND, OUTBOUND, PacketCursor } from './packet-cursor.ts'
import type { MqttVersion } from './reason.ts'

const CONNACK = 2
const PINGREQ = 12
const PINGRESP = 13
const DISCONNECT = 14
const AUTH = 15

/** Device to broker. */
export class Inbound implements Inspector {
  readonly cursor: PacketCursor
  bytes = 0
  packets = 0
  /** The device said goodbye [MQTT-3.14.4-1]; what comes after is not forwarded. */
  disconnected = false
  keepAlive: KeepAliveEntry | null = null
  /** We ourselves do not read from the device at the moment. */
  isHeld = false

  readonly #traffic: TrafficCounters
  readonly #wheel: KeepAliveWheel
  readonly #observer: GateObserver

  #way: Way | null = null

  constructor({ version, rules, traffic, wheel, observer }: GateOptions) {
    this.cursor = new PacketCursor(INBOUND[version], rules.packetBytes)
    this.#traffic = traffic
    this.#wheel = wheel
    this.#observer = observer
  }

  attached(way: Way): void {
    this.#way = way
  }

  inspect(chunk: Buffer): void {
    const { cursor } = this
    if (this.keepAlive !== null) this.keepAlive.lastSeen = this.#wheel.now
    let at = 0
    while (at < chunk.length) {
      const from = at
      if (this.disconnected && cursor.atEnd) cursor.fault = 'ERR_PACKET_UNEXPECTED'
      else at = cursor.advance(chunk, at)
      if (cursor.atHeader && cursor.type === PINGREQ && cursor.remainingLength !== 0)
        cursor.fault = 'ERR_PACKET_MALFORMED'
      if (cursor.fault !== null) {
        // Not even the header goes on, as far as it is still in our hands.
        at = from
        break
      }
      if (!cursor.atHeader) continue
      this.packets++
      this.#traffic.packetsIn[cursor.type]!++
      if (cursor.type === DISCONNECT) this.disconnected = true
    }
    this.bytes += at
    this.#traffic.bytesIn += at
    if (at > 0) this.#way!.pass(at === chunk.length ? chunk : chunk.subarray(0, at))
    if (at < chunk.length) this.#observer.fault(cursor.fault ?? 'ERR_INTERNAL')
  }

  held(paused: boolean): void {
    this.isHeld = paused
    if (this.keepAlive === null) return
    this.keepAlive.held = paused
    this.keepAlive.lastSeen = this.#wheel.now
  }
}

/** Largest CONNACK kept for reading, in bytes; properties are small, and a broker is not a stranger. */
const MAX_CONNACK = 65_536

/** Broker to device. */
export class Outbound implements Inspector {
  readonly cursor: PacketCursor
  bytes = 0
  packets = 0
  /** CONNACK has passed. */
  connected = false
  /** The broker said goodbye itself (MQTT 5.0 §3.14). */
  disconnected = false
  /** What went on to the device ends with a whole packet: only then may we say something ourselves. */
  atBoundary = true

  readonly #version: MqttVersion
  readonly #traffic: TrafficCounters
  readonly #observer: GateObserver
  /** The body of CONNACK while it arrives. */
  #connack: Buffer[] | null = null

  #way: Way | null = null

  constructor({ version, rules, traffic, observer }: GateOptions) {
    this.cursor = new PacketCursor(OUTBOUND[version], rules.packetBytes)
    this.#version = version
    this.#traffic = traffic
    this.#observer = observer
  }

  attached(way: Way): void {
    this.#way = way
  }

  inspect(chunk: Buffer): void {
    const { cursor } = this
    let at = 0
    while (at < chunk.length) {
      const from = at
      const between = cursor.atEnd
      at = cursor.advance(chunk, at)
      if (cursor.atHeader && !this.#fits()) cursor.fault ??= 'ERR_BACKEND_PROTOCOL'
      if (!cursor.atHeader && this.#connack !== null && !this.#collect(chunk, from, at)) {
        cursor.fault ??= 'ERR_BACKEND_PROTOCOL'
      }
      if (cursor.fault !== null) {
        // Not even the header goes on, as far as it is still in our hands.
        at = from
        this.atBoundary = between
        break
      }
      this.atBoundary = cursor.atEnd
      if (!cursor.atHeader) continue
      const { type } = cursor
      this.packets++
      this.#traffic.packetsOut[type]!++
      if (type === DISCONNECT) this.disconnected = true
      if (type === CONNACK) this.#connack = []
    }
    this.bytes += at
    this.#traffic.bytesOut += at
    if (at > 0) this.#way!.pass(at === chunk.length ? chunk : chunk.subarray(0, at))
    if (at < chunk.length) this.#observer.fault('ERR_BACKEND_PROTOCOL')
  }

  isHeld = false

  held(paused: boolean): void {
    this.isHeld = paused
  }

  /** May the packet whose header was just read stand here? CONNACK once and first; only AUTH and DISCONNECT before. */
  #fits(): boolean {
    const { type, remainingLength } = this.cursor
    if (this.disconnected) return false
    if (type === CONNACK) return !this.connected && remainingLength >= 2 && remainingLength <= MAX_CONNACK
    if (type === PINGRESP && remainingLength !== 0) return false
    return this.connected || type === AUTH || type === DISCONNECT
  }

  /** Keeps the part of CONNACK in this chunk; false when the whole is not one. */
  #collect(chunk: Buffer, from: number, to: number): boolean {
    const parts = this.#connack!
    parts.push(chunk.subarray(from, to))
    if (!this.cursor.atEnd) return true
    const body = parts.length === 1 ? parts[0]! : Buffer.concat(parts)
    this.#connack = null
    const connack = readConnack(body, this.#version)
    if (connack === null) return false
    this.connected = true
    this.#observer.connack(connack, body)
    return true
  }
}
