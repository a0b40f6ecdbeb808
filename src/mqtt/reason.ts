import { FAILURES, type FailureCode } from '../errors.ts'
import { packetOf } from './bytes.ts'
import { varint } from './properties.ts'

/** Protocol level of CONNECT (MQTT 5.0 §3.1.2.2): 4 is 3.1.1, 5 is 5.0. */
export type MqttVersion = 4 | 5

/** MQTT 5 CONNACK reason → 3.1.1 return code (§3.2.2.3). What has no counterpart closes in silence. */
const RETURN_CODES: Readonly<Record<number, number>> = {
  128: 3,
  131: 3,
  132: 1,
  133: 2,
  134: 4,
  135: 5,
  136: 3,
  137: 3,
  151: 3,
}

/** Use another server, which Server Reference names (MQTT 5.0 §4.11). */
const ANOTHER_SERVER = 0x9c
const SERVER_REFERENCE = 0x1c

/** Where devices are to go that we send away, and the largest packet that this one takes, in bytes; null is any. */
export interface Elsewhere {
  readonly serverReference: string
  readonly maximumPacketBytes: number | null
}

/** CONNACK that refuses with this failure; null where the answer is to close in silence. */
export function refusal(code: FailureCode, version: MqttVersion, elsewhere: Elsewhere | null = null): Buffer | null {
  const reason: number | null = FAILURES[code].connack
  if (reason === null) return null
  const referred = version === 5 && elsewhere !== null ? referral(0x20, [0], elsewhere) : null
  if (referred !== null) return referred
  if (version === 5) return Buffer.from([0x20, 3, 0, reason, 0])
  const returnCode = RETURN_CODES[reason]
  return returnCode === undefined ? null : Buffer.from([0x20, 2, 0, returnCode])
}

/** DISCONNECT that ends a live session; null on 3.1.1, which has no server DISCONNECT, and where silence is the answer. */
export function farewell(code: FailureCode, version: MqttVersion, elsewhere: Elsewhere | null = null): Buffer | null {
  const reason: number | null = FAILURES[code].disconnect
  if (reason === null || version !== 5) return null
  const referred = elsewhere === null ? null : referral(0xe0, [], elsewhere)
  return referred ?? Buffer.from([0xe0, 2, reason, 0])
}

/** With the property; null where the device would not take so many bytes [MQTT-3.1.2-24]. */
function referral(first: number, before: readonly number[], elsewhere: Elsewhere): Buffer | null {
  const { serverReference, maximumPacketBytes } = elsewhere
  const reference = Buffer.from(serverReference)
  const head = Buffer.from([SERVER_REFERENCE, reference.length >> 8, reference.length & 0xff])
  const properties = Buffer.concat([varint(head.length + reference.length), head, reference])
  const packet = packetOf(first, [Buffer.from([...before, ANOTHER_SERVER]), properties])
  return maximumPacketBytes === null || packet.length <= maximumPacketBytes ? packet : null
}
