import type { MqttVersion } from './reason.ts'

/** What a session needs to know of the broker's answer. */
export interface Connack {
  /** 3.1.1 return code or MQTT 5 reason code; 0 is success in both. */
  readonly code: number
  /** Server Keep Alive in seconds (MQTT 5.0 §3.2.2.3.14); null when the client's own stands. */
  readonly serverKeepAliveSeconds: number | null
}

/** Bytes per value of the CONNACK properties (MQTT 5.0 §3.2.2.3); text and binary fields carry their own length. */
const FIXED: Readonly<Record<number, number>> = { 17: 4, 33: 2, 36: 1, 37: 1, 39: 4, 34: 2, 40: 1, 41: 1, 42: 1, 19: 2 }
const TEXT = new Set([0x12, 0x1f, 0x1a, 0x1c, 0x15, 0x16])
const SERVER_KEEP_ALIVE = 0x13
const USER_PROPERTY = 0x26

/** @param body the packet after its fixed header. Returns null when it is not a CONNACK that MQTT allows. */
export function readConnack(body: Buffer, version: MqttVersion): Connack | null {
  const code = body[1]
  if (code === undefined || (body[0]! & 0xfe) !== 0) return null
  if (version === 4) return body.length === 2 ? { code, serverKeepAliveSeconds: null } : null
  let at = 2
  // A refusal without the property length is taken too: nothing of it is used, and the device reads it for itself.
  if (body.length === at) return { code, serverKeepAliveSeconds: null }
  let length = 0
  for (let shift = 0; ; shift += 7) {
    const byte = body[at++]
    if (byte === undefined) return null
    length |= (byte & 0x7f) << shift
    if (!(byte & 0x80)) break
    if (shift === 21) return null
  }
  if (at + length !== body.length) return null
  let serverKeepAliveSeconds: number | null = null
  while (at < body.length) {
    const id = body[at++]!
    const size = FIXED[id]
    if (size !== undefined) {
      if (at + size > body.length) return null
      if (id === SERVER_KEEP_ALIVE) serverKeepAliveSeconds = body.readUInt16BE(at)
      at += size
      continue
    }
    if (id !== USER_PROPERTY && !TEXT.has(id)) return null
    for (let fields = id === USER_PROPERTY ? 2 : 1; fields > 0; fields--) {
      if (at + 2 > body.length) return null
      at += 2 + body.readUInt16BE(at)
      if (at > body.length) return null
    }
  }
  return { code, serverKeepAliveSeconds }
}
