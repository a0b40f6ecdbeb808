/**
 * Topic names and topic filters, MQTT 5.0 §4.7 and §4.8.2 (3.1.1 §4.7 has no shared subscriptions; AWS IoT has them there
 * too).
 *
 * Hot: one pass over the characters, and nothing is allocated.
 */

const NUL = 0x00
const HASH = 0x23
const DOLLAR = 0x24
const PLUS = 0x2b
const SLASH = 0x2f
const SHARE = '$share/'

/** [MQTT-4.7.1-1], [MQTT-4.7.3-1], [MQTT-4.7.3-2]. Its length in bytes is a limit of the session. */
export function isTopicName(topic: string): boolean {
  for (let at = 0; at < topic.length; at++) {
    const char = topic.charCodeAt(at)
    if (char === HASH || char === PLUS || char === NUL) return false
  }
  return topic.length > 0
}

/** [MQTT-4.7.1-1], [MQTT-4.7.1-2], and for `$share/<group>/<filter>` [MQTT-4.8.2-1], [MQTT-4.8.2-2]. */
export function isTopicFilter(filter: string): boolean {
  const start = filterStart(filter)
  if (start < 0 || start === filter.length) return false
  for (let at = start; at < filter.length; at++) {
    const char = filter.charCodeAt(at)
    if (char === NUL) return false
    if (char !== HASH && char !== PLUS) continue
    if (at > start && filter.charCodeAt(at - 1) !== SLASH) return false
    const last = at + 1 === filter.length
    if (char === HASH ? !last : !last && filter.charCodeAt(at + 1) !== SLASH) return false
  }
  return true
}

/** Where the filter begins: behind `$share/<group>/`, else 0; -1 when a group is empty, has a wildcard, or ends the text. */
export function filterStart(filter: string): number {
  if (!filter.startsWith(SHARE)) return 0
  for (let at = SHARE.length; at < filter.length; at++) {
    const char = filter.charCodeAt(at)
    if (char === SLASH) return at === SHARE.length ? -1 : at + 1
    if (char === HASH || char === PLUS || char === NUL) return -1
  }
  return -1
}

/** Whether a subscription gets the topic; `a/#` gets `a` too (MQTT 5.0 §4.7.1.2). Both must be valid. */
export function filterMatches(filter: string, topic: string): boolean {
  return walk(filter, topic) !== NO
}

/** As AWS IoT has it: `a/#` gets what is below `a`, but not `a`. */
export function filterMatchesBelow(filter: string, topic: string): boolean {
  return walk(filter, topic) === YES
}

const NO = 0
const YES = 1
/** By the parent rule alone. */
const PARENT = 2

function walk(filter: string, topic: string): typeof NO | typeof YES | typeof PARENT {
  let f = filterStart(filter)
  if (f < 0) return NO
  const first = filter.charCodeAt(f)
  // [MQTT-4.7.2-1]: a wildcard in front does not reach `$SYS` and the like.
  if ((first === HASH || first === PLUS) && topic.charCodeAt(0) === DOLLAR) return NO
  let t = 0
  while (f < filter.length) {
    const char = filter.charCodeAt(f)
    if (char === HASH) return YES
    if (char === PLUS) {
      while (t < topic.length && topic.charCodeAt(t) !== SLASH) t++
      f++
    } else if (t < topic.length && topic.charCodeAt(t) === char) {
      f++
      t++
    } else {
      const parent = t === topic.length && char === SLASH && f + 2 === filter.length
      return parent && filter.charCodeAt(f + 1) === HASH ? PARENT : NO
    }
  }
  return t === topic.length ? YES : NO
}
