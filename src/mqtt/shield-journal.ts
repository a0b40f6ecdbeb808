import { PacketIds } from './packet-ids.ts'
import type { MqttVersion } from './reason.ts'

export const CONNACK = 2
const PUBLISH = 3
const PUBACK = 4
const PUBREC = 5
const PUBREL = 6
const PUBCOMP = 7
const SUBSCRIBE = 8
const SUBACK = 9
const UNSUBSCRIBE = 10
const UNSUBACK = 11
export const PINGREQ = 12
export const DISCONNECT = 14

const DUP = 0x08

export const typeOf = (packet: Buffer): number => packet[0]! >> 4

/** Where the body begins (MQTT 5.0 §2.1.4). */
export function bodyAt(packet: Buffer): number {
  let at = 1
  while (packet[at]! & 0x80) at++
  return at + 1
}

const qosOf = (packet: Buffer): number => (packet[0]! >> 1) & 3

/** Of a PUBLISH with QoS 1 or 2; 0 where it is none, which whoever reads it next will say. */
function publishId(packet: Buffer): number {
  const body = bodyAt(packet)
  if (packet.length < body + 4) return 0
  const at = body + 2 + packet.readUInt16BE(body)
  return at + 2 <= packet.length ? packet.readUInt16BE(at) : 0
}

/** Of every other packet that has one. */
function idOf(packet: Buffer): number {
  const body = bodyAt(packet)
  return packet.length < body + 2 ? 0 : packet.readUInt16BE(body)
}

/** Reason Code of an acknowledgement at or above 0x80 (MQTT 5.0 §3.5.2.1); 3.1.1 has none. */
function failed(packet: Buffer): boolean {
  const body = bodyAt(packet)
  return packet.length > body + 2 && packet[body + 2]! >= 0x80
}

/**
 * What a broker has not answered yet, so that it can be said again to its successor: publishes with QoS 1, SUBSCRIBE and
 * UNSUBSCRIBE, each a copy, in the order of their first sending [MQTT-4.6.0-1]. And what of a session could not be said
 * again, so that whoever asks can know.
 */
export class Journal {
  /** Copies held, in bytes. */
  bytes = 0
  /** The device has subscribed on this connection: the broker has a state for it. */
  hasSubscribed = false
  /** Deliveries with QoS 1 that the device has not acknowledged. */
  readonly deliveries = new PacketIds()
  readonly #version: MqttVersion
  readonly #most: number
  /** By type and packet id; a Map keeps the order. */
  readonly #unanswered = new Map<number, Buffer>()
  /** Publishes that are in flight and not held. */
  readonly #unkept = new PacketIds()
  /** QoS 2 flows of either direction, which have more steps than can be told apart from outside. */
  readonly #twoFromDevice = new PacketIds()
  readonly #twoFromBroker = new PacketIds()

  constructor(version: MqttVersion, mostBytes: number) {
    this.#version = version
    this.#most = mostBytes
  }

  /** Why what is in flight cannot be said again; null where it can. */
  get obstacle(): 'qos2' | 'unkept' | null {
    if (this.#twoFromDevice.size + this.#twoFromBroker.size > 0) return 'qos2'
    return this.#unkept.size > 0 ? 'unkept' : null
  }

  /** What was never answered, publishes marked as sent before [MQTT-3.3.1-1]. */
  *again(): Generator<Buffer> {
    for (const packet of this.#unanswered.values()) {
      if (typeOf(packet) === PUBLISH) packet[0]! |= DUP
      yield packet
    }
  }

  /** A whole packet of the device went to the broker. */
  said(packet: Buffer): void {
    const type = typeOf(packet)
    switch (type) {
      case PUBLISH:
        if (qosOf(packet) > 0) this.#published(packet)
        return
      case SUBSCRIBE:
        this.hasSubscribed = true
        this.#keep(type, idOf(packet), packet)
        return
      case UNSUBSCRIBE:
        this.#keep(type, idOf(packet), packet)
        return
      case PUBACK:
        this.deliveries.delete(idOf(packet))
        return
      case PUBREC:
        if (failed(packet)) this.#twoFromBroker.delete(idOf(packet))
        return
      case PUBCOMP:
        this.#twoFromBroker.delete(idOf(packet))
    }
  }

  /** A whole packet of the broker goes to the device. */
  heard(packet: Buffer): void {
    switch (typeOf(packet)) {
      case PUBLISH:
        this.delivered(packet)
        return
      case PUBACK:
        this.#answered(PUBLISH, idOf(packet))
        return
      case SUBACK:
        this.#answered(SUBSCRIBE, idOf(packet))
        return
      case UNSUBACK:
        this.#answered(UNSUBSCRIBE, idOf(packet))
        return
      case PUBREC:
        if (failed(packet)) this.#twoFromDevice.delete(idOf(packet))
        return
      case PUBCOMP:
        this.#twoFromDevice.delete(idOf(packet))
    }
  }

  /** A PUBLISH of the broker, or as much of it as has its packet id. */
  delivered(packet: Buffer): void {
    const qos = qosOf(packet)
    if (qos === 1) this.deliveries.add(publishId(packet))
    else if (qos === 2) this.#twoFromBroker.add(publishId(packet))
  }

  /** A packet of the device too large to be held; the begin of it has its packet id. */
  saidOversized(begin: Buffer): void {
    const type = typeOf(begin)
    const qos = qosOf(begin)
    if (type === SUBSCRIBE) this.hasSubscribed = true
    if (type === PUBLISH && qos === 2) this.#twoFromDevice.add(publishId(begin))
    else if (type === PUBLISH && qos === 1) this.#unkept.add(publishId(begin))
    else if (type === SUBSCRIBE || type === UNSUBSCRIBE) this.#unkept.add(idOf(begin))
  }

  #published(packet: Buffer): void {
    const id = publishId(packet)
    if (id === 0) return
    if (qosOf(packet) === 2) this.#twoFromDevice.add(id)
    // Without its topic name it means something only to whoever was told the alias (MQTT 5.0 §3.3.2.3.4).
    else if (this.#version === 5 && packet.readUInt16BE(bodyAt(packet)) === 0) this.#unkept.add(id)
    else this.#keep(PUBLISH, id, packet)
  }

  #keep(type: number, id: number, packet: Buffer): void {
    const key = keyOf(type, id)
    const before = this.#unanswered.get(key)
    const bytes = this.bytes - (before?.length ?? 0) + packet.length
    if (bytes > this.#most) {
      if (before !== undefined) this.#forget(key, before)
      this.#unkept.add(id)
      return
    }
    this.bytes = bytes
    // A copy: a slice would keep the whole chunk from being freed.
    this.#unanswered.set(key, Buffer.from(packet))
  }

  #answered(type: number, id: number): void {
    const key = keyOf(type, id)
    const packet = this.#unanswered.get(key)
    if (packet !== undefined) this.#forget(key, packet)
    else this.#unkept.delete(id)
  }

  #forget(key: number, packet: Buffer): void {
    this.#unanswered.delete(key)
    this.bytes -= packet.length
  }
}

const keyOf = (type: number, id: number): number => type * 65_536 + id

/** Acknowledgements; after a connection is lost they have no addressee. */
export const isAcknowledgement = (type: number): boolean => type >= PUBACK && type <= PUBCOMP && type !== PUBREL
