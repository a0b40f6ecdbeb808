import { isUtf8 } from 'node:buffer'
import type { Message } from '../backend/message.ts'
import type { FailureCode } from '../errors.ts'
import type { SessionRules } from '../mqtt/limits.ts'
import { isPublishable } from '../mqtt/topic-rules.ts'

/** What an HTTPS publish may ask for, in bytes where not said otherwise. */
export interface PublishLimits {
  readonly maxQoS: 0 | 1 | 2
  readonly payloadBytes: number
  readonly topicBytes: number
  /** Null: as many as fit. */
  readonly topicSlashes: number | null
  /** `$aws/rules/<rule>/` of Basic Ingest does not count. */
  readonly basicIngest: boolean
  /** False: of topics that begin with `$` only the operations that AWS IoT Core documents, and none of them retained. */
  readonly reservedTopicsOpen: boolean
  /** Names and values together. */
  readonly userPropertyBytes: number
  readonly contentTypeBytes: number
  readonly correlationDataBytes: number
  /** In seconds; more is lowered, and 0 becomes 1. Null: as it comes. */
  readonly messageExpiryMost: number | null
}

/** The ceilings of the data plane whatever the profile: AWS general reference, "message broker limits". */
const MAX_PAYLOAD_BYTES = 131_072
const MAX_USER_PROPERTY_BYTES = 8_192
const MAX_CONTENT_TYPE_BYTES = 256
const MAX_CORRELATION_DATA_BYTES = 8_192

/** The rules of the domain's sessions, as far as they concern a publish, under the ceilings of the data plane. */
export function publishLimits(rules: SessionRules): PublishLimits {
  const least = (rule: number | null, ceiling: number) => Math.min(rule ?? ceiling, ceiling)
  return {
    maxQoS: rules.maxQoS,
    payloadBytes: least(rules.payloadBytes, MAX_PAYLOAD_BYTES),
    topicBytes: rules.topicBytes,
    topicSlashes: rules.topicSlashes,
    basicIngest: rules.profile === 'aws-iot',
    reservedTopicsOpen: rules.reservedTopicsOpen,
    userPropertyBytes: least(rules.userPropertyBytes, MAX_USER_PROPERTY_BYTES),
    contentTypeBytes: least(rules.contentTypeBytes, MAX_CONTENT_TYPE_BYTES),
    correlationDataBytes: least(rules.correlationDataBytes, MAX_CORRELATION_DATA_BYTES),
    messageExpiryMost: rules.messageExpirySeconds,
  }
}

type PublishCode = Extract<
  FailureCode,
  | 'ERR_REQUEST_INVALID'
  | 'ERR_TOPIC_INVALID'
  | 'ERR_PAYLOAD_TOO_LARGE'
  | 'ERR_QOS_UNSUPPORTED'
  | 'ERR_RETAIN_UNSUPPORTED'
>

export type PublishParse =
  | { readonly kind: 'publish'; readonly publish: Message }
  /** `detail` says what is wrong with the request and may be told to whoever sent it. */
  | { readonly kind: 'refused'; readonly code: PublishCode; readonly detail: string }

const PREFIX = '/topics/'
const PARAMETERS: ReadonlySet<string> = new Set(['qos', 'retain', 'contentType', 'responseTopic', 'messageExpiry'])
const HEADER_PREFIX = 'x-amz-mqtt5-'
const HEADERS: ReadonlySet<string> = new Set(['user-properties', 'payload-format-indicator', 'correlation-data'])
/** A Four Byte Integer, MQTT 5.0 §1.5.3. */
const MAX_EXPIRY = 4_294_967_295
/**
 * What MQTT 5.0 §1.5.4 forbids in a text (NUL) or advises against: control characters and noncharacters. A broker may
 * close the connection for one (Mosquitto does), and that connection carries the publishes of others.
 */
const UNFIT_TEXT = /[\u0000-\u001f\u007f-\u009f\p{Noncharacter_Code_Point}]/u

/** Thrown and caught in this file alone: a request can be wrong in many ways and is refused in one. */
class Refused extends Error {
  readonly code: PublishCode

  constructor(code: PublishCode, detail: string) {
    super(detail)
    this.code = code
  }
}

const refuse = (detail: string, code: PublishCode = 'ERR_REQUEST_INVALID'): never => {
  throw new Refused(code, detail)
}

/**
 * `POST /topics/<topic>?…` as a message: wire specification §7.2. Never throws. What is not a parameter or header of the
 * table there belongs to an authorizer or a signature, and no part of it gets into the message.
 * @param target as on the wire, one character per octet; a path that does not begin with `/topics/` has no topic
 */
export function parsePublish(
  target: string,
  rawHeaders: readonly string[],
  body: Uint8Array,
  limits: PublishLimits,
): PublishParse {
  try {
    return { kind: 'publish', publish: read(target, rawHeaders, body, limits) }
  } catch (error) {
    if (error instanceof Refused) return { kind: 'refused', code: error.code, detail: error.message }
    throw error
  }
}

function read(target: string, rawHeaders: readonly string[], body: Uint8Array, limits: PublishLimits): Message {
  const mark = target.indexOf('?')
  const path = mark === -1 ? target : target.slice(0, mark)
  const topic = topicOf(path.startsWith(PREFIX) ? path.slice(PREFIX.length) : '', 'the topic', limits)
  const parameters = parametersOf(mark === -1 ? '' : target.slice(mark + 1))
  const headers = headersOf(rawHeaders)
  const retain = retainOf(parameters.get('retain'))
  if (retain && !limits.reservedTopicsOpen && topic.startsWith('$')) {
    refuse('retain is not available on a topic that begins with $', 'ERR_RETAIN_UNSUPPORTED')
  }
  // Over MQTT it would end the session: events and answers on these topics are not a device's to write.
  if (!limits.reservedTopicsOpen && !isPublishable(topic)) refuse('the topic is reserved', 'ERR_TOPIC_INVALID')
  if (body.length > limits.payloadBytes) {
    refuse(`the payload is larger than ${limits.payloadBytes} bytes`, 'ERR_PAYLOAD_TOO_LARGE')
  }
  const responseTopic = parameters.get('responseTopic')
  return {
    topic,
    payload: body,
    qos: qosOf(parameters.get('qos'), limits),
    retain,
    contentType: contentTypeOf(parameters.get('contentType'), limits),
    responseTopic: responseTopic === undefined ? null : topicOf(responseTopic, 'responseTopic', limits),
    correlationData: correlationDataOf(headers.get('correlation-data'), limits),
    messageExpirySeconds: expiryOf(parameters.get('messageExpiry'), limits),
    payloadIsUtf8: formatOf(headers.get('payload-format-indicator'), body),
    userProperties: userPropertiesOf(headers.get('user-properties'), limits),
  }
}

/** The values of our parameters, still encoded. */
function parametersOf(query: string): ReadonlyMap<string, string> {
  const found = new Map<string, string>()
  for (const pair of query.split('&')) {
    const equals = pair.indexOf('=')
    const name = octetsOf(equals === -1 ? pair : pair.slice(0, equals))?.toString('latin1')
    if (name === undefined || !PARAMETERS.has(name)) continue
    if (found.has(name)) refuse(`${name} stands twice`)
    found.set(name, equals === -1 ? '' : pair.slice(equals + 1))
  }
  return found
}

/** The values of our headers by what follows `x-amz-mqtt5-`. */
function headersOf(rawHeaders: readonly string[]): ReadonlyMap<string, string> {
  const found = new Map<string, string>()
  for (let at = 0; at + 1 < rawHeaders.length; at += 2) {
    const name = rawHeaders[at]!.toLowerCase()
    if (!name.startsWith(HEADER_PREFIX)) continue
    const short = name.slice(HEADER_PREFIX.length)
    if (!HEADERS.has(short)) refuse('an x-amz-mqtt5 header that is not known')
    if (found.has(short)) refuse(`${name} stands twice`)
    found.set(short, rawHeaders[at + 1]!.trim())
  }
  return found
}

/** Decoded once, so `a/b` and `a%2Fb` are one topic; MQTT 5.0 §4.7.3. */
function topicOf(encoded: string, what: string, limits: PublishLimits): string {
  const invalid = (detail: string) => refuse(`${what} ${detail}`, 'ERR_TOPIC_INVALID')
  const topic = textOf(encoded, (detail) => invalid(detail))
  if (topic === '') invalid('is empty')
  if (/[+#]/.test(topic)) invalid('holds a wildcard')
  const counted = limits.basicIngest ? topic.replace(/^\$aws\/rules\/[^/]+\//, '') : topic
  if (Buffer.byteLength(counted) > limits.topicBytes || Buffer.byteLength(topic) > 65_535) {
    invalid(`has more than ${limits.topicBytes} bytes`)
  }
  const { topicSlashes } = limits
  if (topicSlashes !== null && counted.split('/').length - 1 > topicSlashes) {
    invalid(`has more than ${topicSlashes} slashes`)
  }
  return topic
}

function qosOf(text: string | undefined, { maxQoS }: PublishLimits): 0 | 1 {
  if (text === undefined || text === '0') return 0
  if (text !== '1') return refuse('qos is neither 0 nor 1')
  return maxQoS === 0 ? refuse('qos is above what is available', 'ERR_QOS_UNSUPPORTED') : 1
}

function retainOf(text: string | undefined): boolean {
  if (text === undefined || text === 'false') return false
  return text === 'true' ? true : refuse('retain is neither true nor false')
}

function contentTypeOf(encoded: string | undefined, limits: PublishLimits): string | null {
  if (encoded === undefined) return null
  const text = textOf(encoded, (detail) => refuse(`contentType ${detail}`))
  if (Buffer.byteLength(text) > limits.contentTypeBytes) {
    refuse(`contentType has more than ${limits.contentTypeBytes} bytes`)
  }
  return text === '' ? null : text
}

function expiryOf(text: string | undefined, { messageExpiryMost: most }: PublishLimits): number | null {
  if (text === undefined) return null
  const seconds = /^\d{1,10}$/.test(text) ? Number(text) : MAX_EXPIRY + 1
  if (seconds > MAX_EXPIRY) refuse('messageExpiry is not a number of seconds')
  return most === null ? seconds : Math.min(Math.max(seconds, 1), most)
}

function formatOf(text: string | undefined, body: Uint8Array): boolean | null {
  if (text === undefined) return null
  if (text === 'UNSPECIFIED_BYTES') return false
  if (text !== 'UTF8_DATA') refuse('the payload format is neither UNSPECIFIED_BYTES nor UTF8_DATA')
  // A broker may close the connection for a promise that is not kept (MQTT 5.0 §3.3.2.3.2).
  return isUtf8(body) ? true : refuse('the payload is not UTF-8, as its format says')
}

function correlationDataOf(text: string | undefined, limits: PublishLimits): Uint8Array | null {
  if (text === undefined) return null
  const octets = base64Of(text) ?? refuse('the correlation data are not base64')
  const most = limits.correlationDataBytes
  return octets.length > most ? refuse(`the correlation data are more than ${most} bytes`) : octets
}

/** base64 of `[{"name":"value"},…]`. */
function userPropertiesOf(text: string | undefined, limits: PublishLimits): Message['userProperties'] {
  if (text === undefined) return []
  const octets = base64Of(text) ?? refuse('the user properties are not base64')
  const list = jsonOf(octets)
  if (!Array.isArray(list)) return refuse('the user properties are not an array')
  const properties = list.map(pairOf)
  const bytes = properties.reduce((sum, [name, value]) => sum + Buffer.byteLength(name) + Buffer.byteLength(value), 0)
  const most = limits.userPropertyBytes
  return bytes > most ? refuse(`the user properties have more than ${most} bytes`) : properties
}

function jsonOf(octets: Uint8Array): unknown {
  if (!isUtf8(octets)) return refuse('the user properties are not UTF-8')
  try {
    return JSON.parse(Buffer.from(octets).toString('utf8'))
  } catch {
    return refuse('the user properties are not JSON')
  }
}

function pairOf(entry: unknown): readonly [string, string] {
  const pairs = typeof entry === 'object' && entry !== null && !Array.isArray(entry) ? Object.entries(entry) : []
  const [name, value] = pairs[0] ?? []
  if (pairs.length !== 1 || name === undefined || typeof value !== 'string') {
    return refuse('a user property is not an object with one pair of texts')
  }
  for (const text of [name, value]) {
    if (!text.isWellFormed() || UNFIT_TEXT.test(text)) refuse('a user property holds a character that MQTT forbids')
  }
  return [name, value]
}

/** Percent-decoded once, strictly, and fit for an MQTT text. `+` is a plus sign: this is no form. */
function textOf(encoded: string, invalid: (detail: string) => never): string {
  const octets = octetsOf(encoded) ?? invalid('has a broken percent escape')
  if (!isUtf8(octets)) return invalid('is not UTF-8')
  const text = octets.toString('utf8')
  return UNFIT_TEXT.test(text) ? invalid('holds a character that MQTT forbids') : text
}

/** Null where a `%` is not followed by two hex digits, or a character is no octet. */
function octetsOf(encoded: string): Buffer | null {
  if (/%(?![0-9A-Fa-f]{2})|[^\u0000-\u00ff]/.test(encoded)) return null
  const octets = encoded.replace(/%([0-9A-Fa-f]{2})/g, (_, hex: string) =>
    String.fromCharCode(Number.parseInt(hex, 16)),
  )
  return Buffer.from(octets, 'latin1')
}

/** RFC 4648 §4 with its padding; null for anything that a decoder would have to guess at. */
function base64Of(text: string): Buffer | null {
  const octets = Buffer.from(text, 'base64')
  return octets.toString('base64') === text ? octets : null
}
