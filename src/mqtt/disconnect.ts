import { packetOf } from './bytes.ts'
import { checkProperties, editProperties, PROPERTY, type PropertyTable, readProperties, Walk } from './properties.ts'

/** Largest DISCONNECT that is held and read, in bytes after the fixed header. */
export const MAX_DISCONNECT = 65_536

/** MQTT 5.0 §3.14.2.2. */
const DISCONNECT_PROPERTIES: PropertyTable = {
  17: 'uint32', // Session Expiry Interval
  28: 'text', // Server Reference
  31: 'text', // Reason String
  38: 'pair', // User Property
}

const DISCONNECT = 0xe0

/**
 * A device may ask for another Session Expiry Interval as it leaves (MQTT 5.0 §3.14.2.2.2); it gets no more than with
 * CONNECT.
 *
 * @param body a whole DISCONNECT after its fixed header, at least reason and property length
 * @returns the packet in its place, or null where it may stay
 * @throws {RangeError} when it is not one that MQTT allows
 */
export function disconnectWithin(body: Buffer, mostSeconds: number): Buffer | null {
  const walk = new Walk(body, 1)
  const at = checkProperties(walk, DISCONNECT_PROPERTIES)
  if (walk.at !== body.length) throw new RangeError('bytes after the properties of DISCONNECT')
  const list = body.subarray(...at)
  const asked = readProperties(list, DISCONNECT_PROPERTIES).get(PROPERTY.sessionExpiry)
  if (typeof asked !== 'number' || asked <= mostSeconds) return null
  const lowered = editProperties(list, DISCONNECT_PROPERTIES, new Map([[PROPERTY.sessionExpiry, mostSeconds]]))
  return packetOf(DISCONNECT, [body.subarray(0, 1), lowered])
}
