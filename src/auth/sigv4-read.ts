import type { HttpProof } from './authenticator.ts'
import { decoded, isNormal, type Pair, readQuery, splitTarget } from './sigv4-canonical.ts'
import { ALGORITHM, type Scope, TERMINATOR, timestampOf } from './sigv4-sign.ts'

/** What a request says of its signature, in good form; nothing of it is believed. */
export interface SignedRequest {
  readonly form: 'header' | 'query'
  readonly accessKeyId: string
  readonly scope: Scope
  /** `YYYYMMDDTHHMMSSZ` */
  readonly timestamp: string
  readonly signedAtMs: number
  /** Null where `X-Amz-Expires` is absent, as in the header form. */
  readonly expiresSeconds: number | null
  /** Lower case, sorted, each once. */
  readonly signedHeaders: readonly string[]
  /** As presented. */
  readonly signature: string
  readonly sessionToken: string | null
  readonly path: string
  /** Everything in the query but signature and session token. */
  readonly pairs: readonly Pair[]
  /** The session token as it stands in the query; null where it came in a header or not at all. */
  readonly tokenPair: Pair | null
}

export type Reading =
  | { readonly kind: 'signed'; readonly request: SignedRequest }
  | { readonly kind: 'absent' }
  /** `detail` repeats nothing of the request. */
  | { readonly kind: 'malformed'; readonly detail: string }

/** Octets of a request target that are read; the longest presigned URL with a session token has some 2,500. */
export const MAX_TARGET_BYTES = 16_384
/** Octets of all header fields together. */
export const MAX_HEADER_BYTES = 65_536
const MAX_SIGNED_HEADERS = 64
/** AWS General Reference: a presigned request is valid for at most seven days. */
const MAX_EXPIRES_SECONDS = 604_800

/** The query parameters of a signature, in the one spelling that they have. */
const PARAMETERS: ReadonlyMap<string, string> = new Map(
  [
    'X-Amz-Algorithm',
    'X-Amz-Credential',
    'X-Amz-Date',
    'X-Amz-Expires',
    'X-Amz-SignedHeaders',
    'X-Amz-Signature',
    'X-Amz-Security-Token',
  ].map((name) => [name.toLowerCase(), name]),
)
/** Any one of them shows that the query means to be signed. */
const TELLING: ReadonlySet<string> = new Set(['x-amz-algorithm', 'x-amz-credential', 'x-amz-signature'])
/** For a query whose escapes are broken, and which is refused for that. */
const TELLING_RAW = /[?&]x-amz-(?:algorithm|credential|signature)(?:[=&]|$)/i

const TOKEN = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/

/** Thrown and caught in this file alone: a reading has many ways to fail and one answer. */
class Malformed extends Error {}

function malformed(detail: string): never {
  throw new Malformed(detail)
}

/** Whether a request claims to be signed; then it is judged by its signature and by nothing else. Wire specification §1.2. */
export function presentsSigV4(http: HttpProof): boolean {
  if (authorizations(http.rawHeaders).length > 0) return true
  const query = splitTarget(http.target)?.query
  const pairs = query === undefined ? null : readQuery(query)
  return pairs === null ? TELLING_RAW.test(http.target) : pairs.some(([name]) => TELLING.has(name.toLowerCase()))
}

/** Reads either form. Never throws, whatever stands there. */
export function readSigned(http: HttpProof): Reading {
  try {
    if (!presentsSigV4(http)) return { kind: 'absent' }
    return { kind: 'signed', request: read(http) }
  } catch (error) {
    if (error instanceof Malformed) return { kind: 'malformed', detail: error.message }
    throw error
  }
}

function read(http: HttpProof): SignedRequest {
  const { method, target, rawHeaders } = http
  if (target.length > MAX_TARGET_BYTES) malformed('the request target is too long')
  if (rawHeaders.reduce((sum, text) => sum + text.length, 0) > MAX_HEADER_BYTES) malformed('the headers are too long')
  if (!TOKEN.test(method)) malformed('the method is not a token')
  const { path, query } = splitTarget(target) ?? malformed('the request target is not a path')
  // The signature is of `/topics/a` for `/topics//a` and `/topics/b/../a` too, and those are other topics.
  if (!isNormal(path)) malformed('a path with empty or dot segments')
  const pairs = readQuery(query) ?? malformed('a broken percent escape in the query')
  const parameters = ownParameters(pairs)
  const headers = authorizations(rawHeaders)
  if (headers.length === 0) return readQueryForm(path, pairs, parameters, rawHeaders)
  if (parameters.size > 0) malformed('a signature in the headers and in the query')
  return readHeaderForm(path, pairs, rawHeaders)
}

/** The `X-Amz-…` parameters of a signature, by their names; nothing that begins so may stand twice. */
function ownParameters(pairs: readonly Pair[]): ReadonlyMap<string, string> {
  const seen = new Set<string>()
  const found = new Map<string, string>()
  for (const [name, value] of pairs) {
    const lower = name.toLowerCase()
    if (!lower.startsWith('x-amz-')) continue
    if (seen.has(lower)) malformed('an X-Amz parameter stands twice')
    seen.add(lower)
    const proper = PARAMETERS.get(lower)
    if (proper === undefined) continue
    if (proper !== name) malformed('an X-Amz parameter in another spelling')
    found.set(name, decoded(value))
  }
  return found
}

function readQueryForm(
  path: string,
  pairs: readonly Pair[],
  parameters: ReadonlyMap<string, string>,
  rawHeaders: readonly string[],
): SignedRequest {
  const need = (name: string): string => parameters.get(name) ?? malformed(`${name} is missing`)
  if (need('X-Amz-Algorithm') !== ALGORITHM) malformed('another algorithm')
  if (fieldsOf(rawHeaders, 'x-amz-security-token').length > 0) malformed('a session token beside a signed query')
  const timestamp = need('X-Amz-Date')
  return {
    form: 'query',
    ...credentialOf(need('X-Amz-Credential')),
    timestamp,
    signedAtMs: timestampMs(timestamp) ?? malformed('X-Amz-Date is not a date'),
    expiresSeconds: expiryOf(parameters.get('X-Amz-Expires')),
    signedHeaders: signedHeadersOf(need('X-Amz-SignedHeaders')),
    signature: need('X-Amz-Signature'),
    sessionToken: parameters.get('X-Amz-Security-Token') ?? null,
    path,
    pairs: pairs.filter(([name]) => name !== 'X-Amz-Signature' && name !== 'X-Amz-Security-Token'),
    tokenPair: pairs.find(([name]) => name === 'X-Amz-Security-Token') ?? null,
  }
}

function readHeaderForm(path: string, pairs: readonly Pair[], rawHeaders: readonly string[]): SignedRequest {
  const authorization = onlyField(rawHeaders, 'authorization') ?? malformed('Authorization is missing')
  const [, algorithm, rest = ''] = /^(\S+) +(.*)$/.exec(authorization.trim()) ?? []
  if (algorithm !== ALGORITHM) malformed('another algorithm')
  const parts = new Map<string, string>()
  for (const part of rest.split(',')) {
    const [, name, value] = /^[\t ]*(Credential|SignedHeaders|Signature)=([!-~]*)[\t ]*$/.exec(part) ?? []
    if (name === undefined || value === undefined || parts.has(name)) malformed('Authorization is not in its form')
    parts.set(name, value)
  }
  const need = (name: string): string => parts.get(name) ?? malformed(`${name} is missing`)
  const { timestamp, signedAtMs } = dateOf(rawHeaders)
  return {
    form: 'header',
    ...credentialOf(need('Credential')),
    timestamp,
    signedAtMs,
    expiresSeconds: null,
    signedHeaders: signedHeadersOf(need('SignedHeaders')),
    signature: need('Signature'),
    sessionToken: onlyField(rawHeaders, 'x-amz-security-token'),
    path,
    pairs,
    tokenPair: null,
  }
}

/** Exactly five parts; which of them count here is judged later. */
function credentialOf(credential: string): { readonly accessKeyId: string; readonly scope: Scope } {
  const [accessKeyId = '', date = '', region = '', service = '', terminator, ...more] = credential.split('/')
  if (terminator !== TERMINATOR || more.length > 0) malformed('the credential has not five parts')
  if (!/^\w{1,128}$/.test(accessKeyId)) malformed('the access key id is not one')
  return { accessKeyId, scope: { date, region, service } }
}

function signedHeadersOf(text: string): readonly string[] {
  const names = text.split(';')
  if (names.length > MAX_SIGNED_HEADERS) malformed('too many signed headers')
  for (const [at, name] of names.entries()) {
    if (!TOKEN.test(name) || name !== name.toLowerCase()) malformed('a signed header is not a lower-case name')
    if (at > 0 && name <= names[at - 1]!) malformed('the signed headers are not sorted, or name one twice')
  }
  if (!names.includes('host')) malformed('host is not signed')
  return names
}

function expiryOf(text: string | undefined): number | null {
  if (text === undefined) return null
  const seconds = /^\d{1,6}$/.test(text) ? Number(text) : 0
  return seconds >= 1 && seconds <= MAX_EXPIRES_SECONDS ? seconds : malformed('X-Amz-Expires is out of range')
}

/** `X-Amz-Date` counts before `Date`, which may also be an HTTP date (RFC 9110 §5.6.7). */
function dateOf(rawHeaders: readonly string[]): { readonly timestamp: string; readonly signedAtMs: number } {
  const text = (onlyField(rawHeaders, 'x-amz-date') ?? onlyField(rawHeaders, 'date') ?? malformed('no date')).trim()
  const signedAtMs = timestampMs(text) ?? httpDateMs(text) ?? malformed('the date is not one')
  return { timestamp: timestampOf(new Date(signedAtMs)), signedAtMs }
}

function timestampMs(text: string): number | null {
  const [, year, month, day, hour, minute, second] = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/.exec(text) ?? []
  const ms = Date.UTC(Number(year), Number(month) - 1, Number(day), Number(hour), Number(minute), Number(second))
  // The 31st of June would become the 1st of July.
  return Number.isNaN(ms) || timestampOf(new Date(ms)) !== text ? null : ms
}

function httpDateMs(text: string): number | null {
  const ms = Date.parse(text)
  return Number.isNaN(ms) || new Date(ms).toUTCString() !== text ? null : ms
}

/** `Authorization` fields that claim a signature of this family. */
function authorizations(rawHeaders: readonly string[]): readonly string[] {
  return fieldsOf(rawHeaders, 'authorization').filter((value) => /^[\t ]*AWS4-/i.test(value))
}

export function fieldsOf(rawHeaders: readonly string[], name: string): readonly string[] {
  return rawHeaders.filter((_, at) => at % 2 === 1 && rawHeaders[at - 1]!.toLowerCase() === name)
}

/** Null where it is absent; of what counts alone there is one. */
function onlyField(rawHeaders: readonly string[], name: string): string | null {
  const fields = fieldsOf(rawHeaders, name)
  if (fields.length > 1) malformed(`${name} stands twice`)
  return fields[0] ?? null
}
