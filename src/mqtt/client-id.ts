import { randomBytes } from 'node:crypto'
import type { Authenticated } from '../auth/authenticator.ts'
import type { Connect } from './connect.ts'
import type { Denial, DomainRules } from './domain-rules.ts'

/** One client, as each side calls it. */
export interface ClientIds {
  /** What policies, logs and events see: the device's own, or the one it was given. */
  readonly device: string
  /** The device sent none and gets this one. */
  readonly assigned: boolean
  /** Of the tenant; the broker sees it before the id. */
  readonly prefix: string
}

/** An id for a device that sent none, before anything is decided about it: 128 random bits, which nobody guesses. */
export function clientIds(connect: Connect, { clientId }: DomainRules): ClientIds {
  const assigned = connect.clientId === ''
  return { device: assigned ? randomBytes(16).toString('hex') : connect.clientId, assigned, prefix: clientId.prefix }
}

/** Control characters of Unicode; U+0000 has no place in MQTT at all [MQTT-1.5.4-2]. */
const CONTROL = /[\u0000-\u001f\u007f-\u009f]/

/** Whether this principal may call itself so, policies aside; null is yes. */
export function clientIdDenial(ids: ClientIds, who: Authenticated, { rules, clientId }: DomainRules): Denial | null {
  const bytes = Buffer.byteLength(ids.device)
  if (bytes > rules.clientIdBytes) return invalid(`client id of ${bytes} bytes, limit ${rules.clientIdBytes}`)
  if (CONTROL.test(ids.device)) return invalid('a control character in the client id')
  if (clientId.bind === 'thing' && who.things.of(ids.device)?.name !== ids.device) {
    return invalid('the client id is not the name of a thing of this principal')
  }
  if (clientId.bind === 'principal' && who.principal.id !== ids.device) {
    return invalid('the client id is not the id of the principal')
  }
  return null
}

const invalid = (detail: string): Denial => ({ code: 'ERR_CLIENT_ID_INVALID', detail, action: null, resource: null })
