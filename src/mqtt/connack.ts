import {
  CONNACK_PROPERTIES,
  checkProperties,
  editProperties,
  PROPERTY,
  type PropertyEdits,
  readProperties,
  varint,
  Walk,
} from './properties.ts'
import type { MqttVersion } from './reason.ts'

/** What a session needs to know of the broker's answer. */
export interface Connack {
  /** 3.1.1 return code or MQTT 5 reason code; 0 is success in both. */
  readonly code: number
  /** Server Keep Alive in seconds (MQTT 5.0 §3.2.2.3.14); null when the client's own stands. */
  readonly serverKeepAliveSeconds: number | null
  /** Properties that are numbers or texts, by id; empty on 3.1.1. */
  readonly properties: ReadonlyMap<number, number | string>
}

const NONE: Connack['properties'] = new Map()

/** @param body the packet after its fixed header. Returns null when it is not a CONNACK that MQTT allows. */
export function readConnack(body: Buffer, version: MqttVersion): Connack | null {
  const code = body[1]
  if (code === undefined || (body[0]! & 0xfe) !== 0) return null
  if (version === 4) return body.length === 2 ? { code, serverKeepAliveSeconds: null, properties: NONE } : null
  // A refusal without the property length is taken too: nothing of it is used, and the device reads it for itself.
  if (body.length === 2) return { code, serverKeepAliveSeconds: null, properties: NONE }
  const list = propertiesIn(body)
  if (list === null) return null
  const properties = readProperties(list, CONNACK_PROPERTIES)
  const keepAlive = properties.get(PROPERTY.serverKeepAlive)
  return { code, serverKeepAliveSeconds: typeof keepAlive === 'number' ? keepAlive : null, properties }
}

/**
 * The same answer with some properties changed and every other byte as the broker sent it: its reason string, user
 * properties, response information and authentication data stay where they are.
 * @param body what `readConnack` has read
 * @returns the whole packet
 */
export function rewriteConnack(body: Buffer, version: MqttVersion, changes: PropertyEdits): Buffer {
  const list = version === 5 && changes.size > 0 ? (propertiesIn(body) ?? Buffer.alloc(0)) : null
  const changed =
    list === null ? body : Buffer.concat([body.subarray(0, 2), editProperties(list, CONNACK_PROPERTIES, changes)])
  return Buffer.concat([Buffer.from([0x20]), varint(changed.length), changed])
}

/** The property list without its length; null where it is none, or not the end of the packet. */
function propertiesIn(body: Buffer): Buffer | null {
  if (body.length === 2) return null
  try {
    const walk = new Walk(body, 2)
    const list = checkProperties(walk, CONNACK_PROPERTIES)
    return walk.at === body.length ? body.subarray(...list) : null
  } catch {
    return null
  }
}
