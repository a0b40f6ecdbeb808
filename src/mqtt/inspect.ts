/** [hot] The cursor of each direction at work: counts every packet, and stops at the first that may not pass. */
import type { TrafficCounters } from '../control/metrics.ts'
import type { FailureCode } from '../errors.ts'
import type { Inspector } from '../relay.ts'
import { type Connack, readConnack } from './connack.ts'
import type { KeepAliveEntry, KeepAliveWheel } from './keep-alive.ts'
import { INBOUND, OUTBOUND, PacketCursor } from './packet-cursor.ts'
import type { MqttVersion } from './reason.ts'

const CONNACK = 2
const PINGREQ = 12
const PINGRESP = 13
const DISCONNECT = 14
const AUTH = 15

/** What both directions tell the session. */
export interface Observer {
  connack(connack: Connack): void
  fault(code: FailureCode): void
}

/** Device to broker. */
export class Inbound implements Inspector {
  readonly cursor: PacketCursor
  bytes = 0
  packets = 0
  /** The device said goodbye [MQTT-3.14.4-1]; what comes after is not forwarded. */
  disconnected = false
  keepAlive: KeepAliveEntry | null = null

  readonly #traffic: TrafficCounters
  readonly #wheel: KeepAliveWheel
  readonly #observer: Observer

  constructor(version: MqttVersion, maxBytes: number, traffic: TrafficCounters, wheel: KeepAliveWheel, observer: Observer) {
    this.cursor = new PacketCursor(INBOUND[version], maxBytes)
    this.#traffic = traffic
    this.#wheel = wheel
    this.#observer = observer
  }

  inspect(chunk: Buffer): number {
    const { cursor } = this
    if (this.keepAlive !== null) this.keepAlive.lastSeen = this.#wheel.now
    let at = 0
    while (at < chunk.length) {
      if (this.disconnected && cursor.atEnd) cursor.fault = 'ERR_PACKET_UNEXPECTED'
      else at = cursor.advance(chunk, at)
      if (cursor.fault !== null) break
      if (!cursor.atHeader) continue
      if (cursor.type === PINGREQ && cursor.remainingLength !== 0) {
        cursor.fault = 'ERR_PACKET_MALFORMED'
        break
      }
      this.packets++
      this.#traffic.packetsIn[cursor.type]!++
      if (cursor.type === DISCONNECT) this.disconnected = true
    }
    this.bytes += at
    this.#traffic.bytesIn += at
    return at
  }

  refused(): void {
    this.#observer.fault(this.cursor.fault ?? 'ERR_INTERNAL')
  }

  held(paused: boolean): void {
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

  readonly #version: MqttVersion
  readonly #traffic: TrafficCounters
  readonly #observer: Observer
  /** The body of CONNACK while it arrives. */
  #connack: Buffer[] | null = null

  constructor(version: MqttVersion, maxBytes: number, traffic: TrafficCounters, observer: Observer) {
    this.cursor = new PacketCursor(OUTBOUND[version], maxBytes)
    this.#version = version
    this.#traffic = traffic
    this.#observer = observer
  }

  inspect(chunk: Buffer): number {
    const { cursor } = this
    let at = 0
    while (at < chunk.length) {
      const from = at
      at = cursor.advance(chunk, at)
      if (cursor.fault !== null) break
      if (!cursor.atHeader) {
        if (this.#connack !== null && !this.#collect(chunk, from, at)) {
          at = from
          break
        }
        continue
      }
      const { type } = cursor
      if ((type === CONNACK) === this.connected && type !== AUTH && !(type === DISCONNECT && !this.connected)) {
        cursor.fault = 'ERR_BACKEND_PROTOCOL'
        at = from
        break
      }
      if (type === PINGRESP && cursor.remainingLength !== 0) {
        cursor.fault = 'ERR_BACKEND_PROTOCOL'
        break
      }
      this.packets++
      this.#traffic.packetsOut[type]!++
      if (type === DISCONNECT) this.disconnected = true
      if (type === CONNACK) {
        if (cursor.remainingLength < 2 || cursor.remainingLength > MAX_CONNACK) {
          cursor.fault = 'ERR_BACKEND_PROTOCOL'
          at = from
          break
        }
        this.#connack = []
      }
    }
    this.bytes += at
    this.#traffic.bytesOut += at
    return at
  }

  refused(): void {
    this.#observer.fault('ERR_BACKEND_PROTOCOL')
  }

  held(): void {}

  /** Keeps the part of CONNACK in this chunk; false when the whole is not one. */
  #collect(chunk: Buffer, from: number, to: number): boolean {
    const parts = this.#connack!
    parts.push(chunk.subarray(from, to))
    if (!this.cursor.atEnd) return true
    const body = parts.length === 1 ? parts[0]! : Buffer.concat(parts)
    this.#connack = null
    const connack = readConnack(body, this.#version)
    if (connack === null) {
      this.cursor.fault = 'ERR_BACKEND_PROTOCOL'
      return false
    }
    this.connected = true
    this.#observer.connack(connack)
    return true
  }
}
