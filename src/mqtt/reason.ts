import { FAILURES, type FailureCode } from '../errors.ts'

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

/** CONNACK that refuses with this failure; null where the answer is to close in silence. */
export function refusal(code: FailureCode, version: MqttVersion): Buffer | null {
  const reason: number | null = FAILURES[code].connack
  if (reason === null) return null
  if (version === 5) return Buffer.from([0x20, 3, 0, reason, 0])
  const returnCode = RETURN_CODES[reason]
  return returnCode === undefined ? null : Buffer.from([0x20, 2, 0, returnCode])
}

/** DISCONNECT that ends a live session; null on 3.1.1, which has no server DISCONNECT, and where silence is the answer. */
export function farewell(code: FailureCode, version: MqttVersion): Buffer | null {
  const reason: number | null = FAILURES[code].disconnect
  if (reason === null || version !== 5) return null
  return Buffer.from([0xe0, 2, reason, 0])
}
