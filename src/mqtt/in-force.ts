import type { ClientIds } from './client-id.ts'
import type { Connack } from './connack.ts'
import type { Connect } from './connect.ts'
import type { SessionRules } from './limits.ts'
import { PROPERTY, type PropertyEdits } from './properties.ts'
import type { ConnectChanges } from './rewrite.ts'

/** What a device asked for in CONNECT, and what it gets of it. */
export interface Terms {
  readonly rules: SessionRules
  readonly ids: ClientIds
  /** Seconds; ours is what we hold the device to unless its broker says something stricter. */
  readonly keepAlive: { readonly asked: number; readonly ours: number; readonly brokerChecks: boolean }
  /** Seconds (MQTT 5.0 §3.1.2.11.2). */
  readonly sessionExpiry: { readonly asked: number; readonly granted: number }
  /** Largest packet that the device takes, in bytes (§3.1.2.11.4); null is no limit. */
  readonly maximumPacketBytes: number | null
  /** Highest alias that the broker may use toward the device (§3.1.2.11.5). */
  readonly topicAliasMaximum: number
}

/**
 * @param receiveIsOpen false where deliveries have to be judged: an alias that is defined by a delivery which is kept back
 * would never reach the device
 * @param brokerChecks false where the broker is asked for no keep alive, because ours suffices
 */
export function termsOf(
  connect: Connect,
  ids: ClientIds,
  rules: SessionRules,
  receiveIsOpen: boolean,
  brokerChecks = true,
): Terms {
  const asked = connect.packet.properties
  const expiry = asked?.sessionExpiryInterval ?? 0
  return {
    rules,
    ids,
    keepAlive: { asked: connect.keepAliveSeconds, ours: clampKeepAlive(connect.keepAliveSeconds, rules), brokerChecks },
    sessionExpiry: { asked: expiry, granted: Math.min(expiry, rules.sessionExpirySeconds ?? expiry) },
    maximumPacketBytes: asked?.maximumPacketSize ?? null,
    topicAliasMaximum: receiveIsOpen ? (asked?.topicAliasMaximum ?? 0) : 0,
  }
}

/** Wire specification §6.2: below the least it is the least; above the most, or 0, it is the most. */
function clampKeepAlive(seconds: number, { keepAliveLeast, keepAliveMost }: SessionRules): number {
  if (keepAliveMost !== null && (seconds === 0 || seconds > keepAliveMost)) return keepAliveMost
  return keepAliveLeast !== null && seconds !== 0 ? Math.max(seconds, keepAliveLeast) : seconds
}

/** CONNECT toward the broker, so that it keeps to what we will hold the device to. */
export function limitChanges(connect: Connect, terms: Terms, brokerChecksKeepAlive: boolean): ConnectChanges {
  const { rules, sessionExpiry, topicAliasMaximum } = terms
  const keepAlive = brokerChecksKeepAlive ? terms.keepAlive.ours : 0
  const asked = connect.packet.properties
  const properties = new Map<number, number>()
  if (sessionExpiry.granted !== sessionExpiry.asked) properties.set(PROPERTY.sessionExpiry, sessionExpiry.granted)
  // Absent means 65,535 (MQTT 5.0 §3.1.2.11.3).
  if (rules.sendMaximum !== null && (asked?.receiveMaximum ?? 65_535) > rules.sendMaximum) {
    properties.set(PROPERTY.receiveMaximum, rules.sendMaximum)
  }
  if ((asked?.topicAliasMaximum ?? 0) !== topicAliasMaximum)
    properties.set(PROPERTY.topicAliasMaximum, topicAliasMaximum)
  return {
    keepAliveSeconds: keepAlive === connect.keepAliveSeconds ? undefined : keepAlive,
    properties: connect.version === 5 ? properties : undefined,
    willProperties: connect.version === 5 ? willEdits(connect, rules) : undefined,
  }
}

/** Wire specification §6.4: an expiry of 0 is 1, and none is longer than the most. */
function willEdits(connect: Connect, { messageExpirySeconds: most }: SessionRules): PropertyEdits | undefined {
  const expiry = connect.packet.will?.properties?.messageExpiryInterval
  if (most === null || expiry === undefined) return undefined
  const granted = Math.min(Math.max(1, expiry), most)
  return granted === expiry ? undefined : new Map([[PROPERTY.messageExpiry, granted]])
}

/** What the device is held to: the broker's own word, under our ceiling. In seconds; 0 is never. */
export function keepAliveInForce(terms: Terms, connack: Connack): number {
  const { keepAliveMost } = terms.rules
  const { ours, brokerChecks } = terms.keepAlive
  const said = connack.serverKeepAliveSeconds ?? ours
  // Asked for none, a broker may say its longest, as Mosquitto does: that is no reason to wait so long.
  const seconds = brokerChecks || ours === 0 ? said : Math.min(said === 0 ? ours : said, ours)
  return keepAliveMost !== null && (seconds === 0 || seconds > keepAliveMost) ? keepAliveMost : seconds
}

/** What the device has to be told beside the broker's own words: of each limit the stricter (MQTT 5.0 §3.2.2.3). */
export function connackEdits(terms: Terms, connack: Connack): PropertyEdits {
  const edits = new Map<number, number | string | null>()
  const { rules, ids, sessionExpiry } = terms
  const said = (id: number): number | null => {
    const value = connack.properties.get(id)
    return typeof value === 'number' ? value : null
  }
  const put = (id: number, value: number | string) => {
    if (connack.properties.get(id) !== value) edits.set(id, value)
  }
  const lower = (id: number, limit: number | null, absent: number) => {
    if (limit !== null && (said(id) ?? absent) > limit) edits.set(id, limit)
  }

  // What holds without a word is what the device asked for.
  const settle = (id: number, asked: number, holds: number) => {
    if ((said(id) ?? asked) !== holds) edits.set(id, holds)
  }

  settle(PROPERTY.serverKeepAlive, terms.keepAlive.asked, keepAliveInForce(terms, connack))
  const expiry = said(PROPERTY.sessionExpiry) ?? sessionExpiry.granted
  settle(PROPERTY.sessionExpiry, sessionExpiry.asked, Math.min(expiry, rules.sessionExpirySeconds ?? expiry))
  lower(PROPERTY.receiveMaximum, rules.receiveMaximum, 65_535)
  lower(PROPERTY.maximumQoS, rules.maxQoS, 2)
  lower(PROPERTY.topicAliasMaximum, rules.topicAliasMaximum, 0)
  lower(PROPERTY.maximumPacketSize, rules.packetBytes, MAX_PACKET_BYTES)
  if (!rules.subscriptionIdentifiers) put(PROPERTY.subscriptionIdentifiers, 0)
  const assigned = connack.properties.get(PROPERTY.assignedClientId)
  if (ids.assigned) put(PROPERTY.assignedClientId, ids.device)
  else if (typeof assigned === 'string' && assigned.startsWith(ids.prefix)) {
    put(PROPERTY.assignedClientId, assigned.slice(ids.prefix.length))
  }
  return edits
}

/** Remaining Length at its most; a limit of so many bytes is none (MQTT 5.0 §1.5.5). */
const MAX_PACKET_BYTES = 268_435_455

/** What may go from a CONNACK that would be larger than its device takes [MQTT-3.2.2-19], [MQTT-3.2.2-20]. */
export const OPTIONAL_IN_CONNACK: PropertyEdits = new Map([
  [PROPERTY.reasonString, null],
  [PROPERTY.userProperty, null],
])
