import type { HttpProof, MqttProof } from './authenticator.ts'

/**
 * Where a device may say which authorizer it means, its token and the token's signature: in HTTP headers, in the query,
 * and behind the `?` of MQTT's user name. AWS IoT Core developer guide, "Connecting to AWS IoT Core by using custom
 * authentication"; all spellings that its SDKs send.
 *
 * - Header names are compared without case, parameter names exactly. Header values are raw; parameter values are
 *   percent-decoded and nothing else: `+` stays, because base64 has it. A `%` that begins no escape stays too.
 * - A pair is split at its first `=`, order is free, unknown names are harmless, an empty value is none.
 * - SDKs hang telemetry onto the user name behind another `?`: all that follows the first one is one set.
 * - The same thing said twice must be the same: two readers would each believe another one.
 */
export const NAME_PARAMETER = 'x-amz-customauthorizer-name'
export const SIGNATURE_PARAMETER = 'x-amz-customauthorizer-signature'

/** `[\w=,@-]+`, 1–128: AWS IoT CreateAuthorizer. */
const AUTHORIZER_NAME = /^[\w=,@-]{1,128}$/
/** AWS IoT TestInvokeAuthorizer. */
const MAX_TOKEN_CHARACTERS = 6_144

export type Found =
  /** Null: it was not sent, or empty. */
  { readonly kind: 'found'; readonly value: string | null } | { readonly kind: 'malformed'; readonly detail: string }

export type FoundToken =
  | { readonly kind: 'found'; readonly value: Token | null }
  | { readonly kind: 'malformed'; readonly detail: string }

export type FoundBasic =
  | { readonly kind: 'found'; readonly value: { readonly user: string; readonly password: Buffer } | null }
  | { readonly kind: 'malformed'; readonly detail: string }

export interface Token {
  /** Exactly what was sent, which is what was signed. */
  readonly bytes: Buffer
  readonly text: string
}

export interface Parameters {
  /** What stands before the first `?` of MQTT's user name; null when that is nothing. */
  readonly user: string | null
  authorizer(): Found
  /** As sent; its form is looked at where it is needed. */
  signature(): Found
  /** User and password of HTTP's Basic authentication (RFC 7617). */
  basic(): FoundBasic
  /** @param keyName the `tokenKeyName` of an authorizer; null finds nothing */
  token(keyName: string | null): FoundToken
}

/** Octets as characters U+0000…U+00FF, as Node gives header values and request targets. */
type Octets = string
type Pair = readonly [name: Octets, value: Octets]

export function readParameters(http: HttpProof | null, mqtt: MqttProof | null): Parameters {
  const headers = headersOf(http)
  const parameters = [...queryOf(http), ...tailOf(mqtt)]

  const find = (name: string, what: string): Found => {
    const lower = name.toLowerCase()
    const values = new Set<Octets>()
    for (const [header, value] of headers) if (header === lower && value !== '') values.add(value)
    for (const [parameter, value] of parameters) if (parameter === name && value !== '') values.add(decode(value))
    if (values.size > 1) return { kind: 'malformed', detail: `${what} was sent twice, and not the same` }
    const [value] = values
    return { kind: 'found', value: value ?? null }
  }

  return {
    user: mqtt?.username?.split('?', 1)[0] || null,
    authorizer() {
      const found = find(NAME_PARAMETER, 'the name of the authorizer')
      if (found.kind === 'malformed' || found.value === null || AUTHORIZER_NAME.test(found.value)) return found
      return { kind: 'malformed', detail: 'a name that no authorizer can have' }
    },
    basic() {
      const values = new Set(headers.filter(([name]) => name === 'authorization').map(([, value]) => value))
      if (values.size > 1) return { kind: 'malformed', detail: 'two different Authorization headers' }
      const [value = ''] = values
      const [, base64] = /^basic +([A-Za-z0-9+/]+={0,2})$/i.exec(value) ?? []
      return base64 === undefined ? NOTHING : basicOf(Buffer.from(base64, 'base64'))
    },
    signature: () => find(SIGNATURE_PARAMETER, 'the signature of the token'),
    token(keyName) {
      const found = keyName === null ? NOTHING : find(keyName, 'the token')
      if (found.kind === 'malformed') return found
      return found.value === null ? NOTHING : tokenOf(Buffer.from(found.value, 'latin1'))
    },
  }
}

const NOTHING = { kind: 'found', value: null } as const

function basicOf(bytes: Buffer): FoundBasic {
  const colon = bytes.indexOf(0x3a)
  const user = colon < 1 ? null : textOf(bytes.subarray(0, colon))
  if (user === null) return { kind: 'malformed', detail: 'Basic credentials without a user' }
  return { kind: 'found', value: { user, password: bytes.subarray(colon + 1) } }
}

/** A token from wherever: within its limits, and text. */
export function tokenOf(bytes: Buffer): FoundToken {
  const text = textOf(bytes)
  if (text === null) return { kind: 'malformed', detail: 'the token is not UTF-8' }
  if (text.length > MAX_TOKEN_CHARACTERS) {
    return { kind: 'malformed', detail: `the token is longer than ${MAX_TOKEN_CHARACTERS} characters` }
  }
  return text === '' ? NOTHING : { kind: 'found', value: { bytes, text } }
}

/**
 * Whether an HTTP request has anything of custom authentication in its headers or query.
 * @param tokenKeyNames those of the authorizers that the domain's clients may use
 */
export function presentsCustom(http: HttpProof, tokenKeyNames: readonly string[]): boolean {
  const names = [NAME_PARAMETER, SIGNATURE_PARAMETER, ...tokenKeyNames]
  const lower = names.map((name) => name.toLowerCase())
  return headersOf(http).some(([name]) => lower.includes(name)) || queryOf(http).some(([name]) => names.includes(name))
}

/** Name in lower case, value. */
export function headersOf(http: HttpProof | null): Pair[] {
  const pairs: Pair[] = []
  const raw = http?.rawHeaders ?? []
  for (let at = 0; at + 1 < raw.length; at += 2) pairs.push([raw[at]!.toLowerCase(), raw[at + 1]!])
  return pairs
}

/** The query as on the wire, without `?`; null where there is none. A request target is split at its first `?`. */
export function rawQuery(http: HttpProof): Octets | null {
  const at = http.target.indexOf('?')
  return at < 0 || at === http.target.length - 1 ? null : http.target.slice(at + 1)
}

function queryOf(http: HttpProof | null): Pair[] {
  const query = http === null ? null : rawQuery(http)
  // A `?` within a query is a character like others: RFC 3986 §3.4.
  return query === null ? [] : pairsOf(query, '&')
}

function tailOf(mqtt: MqttProof | null): Pair[] {
  const username = mqtt?.username ?? ''
  const at = username.indexOf('?')
  return at < 0 ? [] : pairsOf(Buffer.from(username.slice(at + 1), 'utf8').toString('latin1'), /[&?]/)
}

function pairsOf(text: Octets, separator: string | RegExp): Pair[] {
  const pairs: Pair[] = []
  for (const pair of text.split(separator)) {
    const at = pair.indexOf('=')
    // Without `=` there is no value, and an empty one is none.
    if (at > 0) pairs.push([pair.slice(0, at), pair.slice(at + 1)])
  }
  return pairs
}

const decode = (value: Octets): Octets =>
  value.replace(/%([0-9A-Fa-f]{2})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 16)))

const UTF_8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** Null where the octets are not UTF-8. */
export function textOf(bytes: Uint8Array): string | null {
  try {
    return UTF_8.decode(bytes)
  } catch {
    return null
  }
}
