import { isUtf8 } from 'node:buffer'
import type { FailureCode } from '../errors.ts'
import type { SessionRules } from './limits.ts'

const PLUS = 0x2b
const HASH = 0x23
const SLASH = 0x2f

/**
 * Topics with `$` that a device may publish to where they are reserved (wire specification §9.2). `[^/]+` is one level.
 */
const PUBLISHABLE: readonly RegExp[] = [
  /^\$aws\/things\/[^/]+\/shadow\/(?:name\/[^/]+\/)?(?:get|update|delete)$/,
  /^\$aws\/things\/[^/]+\/jobs\/(?:get|start-next|[^/]+\/get|[^/]+\/update)$/,
  /^\$aws\/things\/[^/]+\/defender\/metrics\/[^/]+$/,
  /^\$aws\/things\/[^/]+\/streams\/.+$/,
  /^\$aws\/certificates\/create(?:-from-csr)?\/[^/]+$/,
  /^\$aws\/provisioning-templates\/[^/]+\/provision\/[^/]+$/,
  /^\$aws\/(?:device_location|sitewise)\/.+$/,
  /^\$aws\/rules\/[^/]+\/.+$/,
]

/** The same for filters; what stands before the first level with a wildcard has to say what is asked for. */
const SUBSCRIBABLE = /^\$aws\/(?:events|things|certificates|provisioning-templates|device_location|sitewise)\/./

/** Basic Ingest: its three levels count for no limit (wire specification §9.3). */
const BASIC_INGEST = /^\$aws\/rules\/[^/]+\//
/** A shared subscription and its group (MQTT 5.0 §4.8.2). */
const SHARED = /^\$share\/([^/]*)\//
const MAX_GROUP = 128

/** The text of a topic name; null when it is not well-formed UTF-8 or holds U+0000 [MQTT-1.5.4-1, MQTT-1.5.4-2]. */
export function topicText(bytes: Buffer, from: number, to: number): string | null {
  let ascii = true
  for (let at = from; at < to; at++) {
    const byte = bytes[at]!
    if (byte === 0) return null
    if (byte >= 0x80) ascii = false
  }
  if (ascii) return bytes.toString('latin1', from, to)
  const text = bytes.subarray(from, to)
  return isUtf8(text) ? text.toString('utf8') : null
}

/** Why this topic name may not be published to, whatever the policies say; null when it may. */
export function topicNameProblem(text: string, byteLength: number, rules: SessionRules): FailureCode | null {
  if (text.length === 0) return 'ERR_TOPIC_INVALID'
  let slashes = 0
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at)
    // [MQTT-3.3.2-2]
    if (code === PLUS || code === HASH) return 'ERR_TOPIC_INVALID'
    if (code === SLASH) slashes++
  }
  let length = byteLength
  if (rules.profile === 'aws-iot') {
    const prefix = BASIC_INGEST.exec(text)
    if (prefix !== null) {
      length -= Buffer.byteLength(prefix[0])
      slashes -= 3
    }
  }
  if (length > rules.topicBytes) return 'ERR_TOPIC_INVALID'
  if (rules.topicSlashes !== null && slashes > rules.topicSlashes) return 'ERR_TOPIC_INVALID'
  return rules.reservedTopicsOpen || isPublishable(text) ? null : 'ERR_TOPIC_INVALID'
}

/** Whether a device may publish to it where topics with `$` are reserved. */
export function isPublishable(topic: string): boolean {
  return !topic.startsWith('$') || PUBLISHABLE.some((pattern) => pattern.test(topic))
}

/**
 * Control characters and code points that are none: a server may take them for malformed (MQTT 5.0 §1.5.4), and some
 * brokers do. What a broker never sees of a device has to be held to that here, or we would be laxer than it is alone.
 */
export const QUESTIONABLE = /[\p{Cc}\p{Noncharacter_Code_Point}]/u

/**
 * What is wrong with a filter; null when nothing is. `form`: it is none at all, and the packet is malformed; `group`: the
 * group of a shared subscription is missing or may not be one; `limit`: it is past a limit of ours.
 */
export type FilterProblem = 'form' | 'group' | 'limit'

export function filterProblem(filter: string, byteLength: number, rules: SessionRules): FilterProblem | null {
  let plain = filter
  let length = byteLength
  let slashes = 0
  if (!wildcardsFit(filter)) return 'form'
  if (filter.startsWith('$share/')) {
    const shared = SHARED.exec(filter)
    const group = shared?.[1] ?? ''
    plain = shared === null ? '' : filter.slice(shared[0].length)
    // [MQTT-4.8.2-1, MQTT-4.8.2-2]
    if (shared === null || group === '' || group === '+' || plain === '')
      return QUESTIONABLE.test(filter) ? 'form' : 'group'
    if (rules.profile === 'aws-iot') {
      if (group.length > MAX_GROUP) return 'limit'
      length -= Buffer.byteLength(shared[0])
    } else slashes = 2
  }
  for (let at = 0; at < plain.length; at++) if (plain.charCodeAt(at) === SLASH) slashes++
  if (length > rules.topicBytes) return 'limit'
  if (rules.topicSlashes !== null && slashes > rules.topicSlashes) return 'limit'
  if (rules.reservedTopicsOpen || !plain.startsWith('$')) return null
  return SUBSCRIBABLE.test(plain) ? null : 'limit'
}

/** `+` fills its level, `#` its level and that is the last [MQTT-4.7.1-1, MQTT-4.7.1-2]. */
function wildcardsFit(filter: string): boolean {
  for (let at = 0; at < filter.length; at++) {
    const code = filter.charCodeAt(at)
    if (code !== PLUS && code !== HASH) continue
    if (at > 0 && filter.charCodeAt(at - 1) !== SLASH) return false
    const last = at === filter.length - 1
    if (code === HASH ? !last : !last && filter.charCodeAt(at + 1) !== SLASH) return false
  }
  return true
}
