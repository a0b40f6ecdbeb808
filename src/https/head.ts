import type { FailureCode } from '../errors.ts'

/** A request's head as both runtimes' parser gives it. */
export interface RawHead {
  readonly method: string
  readonly url: string
  readonly httpVersion: string
  readonly rawHeaders: readonly string[]
}

/** A head that can be read in one way only, addressed to the domain that SNI chose. */
export interface Head {
  readonly method: string
  readonly version: '1.0' | '1.1'
  /** Origin-form (RFC 9112 §3.2.1), whatever form it came in. */
  readonly target: string
  /** The target up to its `?`, undecoded. */
  readonly path: string
  /** What follows the first `?`, undecoded; null when there is none. */
  readonly query: string | null
  /** As sent, port included; null only for HTTP/1.0, where SNI alone decides. */
  readonly host: string | null
  /** Bytes of the body where its length was said; null for chunks, and where there is no body. */
  readonly contentLength: number | null
  readonly chunked: boolean
  readonly upgrade: boolean
}

export type HeadCheck =
  | { readonly kind: 'head'; readonly head: Head }
  | { readonly kind: 'refused'; readonly code: FailureCode; readonly detail: string }

export interface HeadRules {
  /** Lower case. */
  readonly serverNames: readonly string[]
  /** Most header fields. */
  readonly maxHeaders: number
  /** True for what came with `Connection: upgrade`. */
  readonly upgrade: boolean
}

const TOKEN = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/
/** Anything but HTAB below space, and DEL: RFC 9110 §5.5. */
const CONTROL = /[\0-\x08\x0a-\x1f\x7f]/
/** RFC 3986 has neither; a fragment is never sent, and a backslash is a slash to some. */
const NOT_IN_TARGET = /[\0-\x20\x7f-\uffff#\\]/
/** A number that every reader can hold, digits alone. */
const LENGTH = /^\d{1,15}$/
const AUTHORITY = /^([a-z0-9](?:[a-z0-9.-]*[a-z0-9])?)\.?(?::\d{1,5})?$/i
const ABSOLUTE = /^https:\/\/([^/?]*)(.*)$/i
/** What some readers take for the real ones, because CGI made a `_` of every `-`. */
const FRAMING_TWIN = /^(?:content_length|transfer_encoding)$/i

const malformed = (detail: string): HeadCheck => ({ kind: 'refused', code: 'ERR_HTTP_MALFORMED', detail })

interface Fields {
  readonly host: readonly string[]
  readonly length: readonly string[]
  readonly coding: readonly string[]
}

/**
 * Looks at what the parser lets through: both runtimes' (llhttp, strict) refuses most shapes in which a second request
 * hides, and takes several Hosts, codings before `chunked`, foreign targets and upgrades with a body. Refused, never repaired.
 */
export function checkHead(raw: RawHead, rules: HeadRules): HeadCheck {
  const version = raw.httpVersion
  if (version !== '1.1' && version !== '1.0') return malformed('a version other than HTTP/1.0 and HTTP/1.1')
  if (raw.rawHeaders.length / 2 > rules.maxHeaders) {
    return {
      kind: 'refused',
      code: 'ERR_HTTP_HEADERS_TOO_LARGE',
      detail: `more than ${rules.maxHeaders} header fields`,
    }
  }
  const fields = fieldsOf(raw.rawHeaders)
  if (typeof fields === 'string') return malformed(fields)
  const unframed = framingFault(fields, version)
  if (unframed !== null) return malformed(unframed)
  const contentLength = fields.length.length === 0 ? null : Number(fields.length[0])
  const chunked = fields.coding.length > 0
  if (rules.upgrade) {
    if (version === '1.0') return malformed('an upgrade of HTTP/1.0')
    if (raw.method !== 'GET') return malformed('an upgrade by another method than GET')
    if (chunked || (contentLength ?? 0) > 0) return malformed('an upgrade with a body')
  }

  if (fields.host.length > 1) return malformed('Host more than once')
  const host = fields.host[0] ?? null
  if (host === null && version === '1.1') return malformed('HTTP/1.1 without Host')
  const named = host === null ? null : authorityOf(host)
  if (host !== null && named === null) return malformed('a Host that is no host name')

  const absolute = ABSOLUTE.exec(raw.url)
  const authority = absolute === null ? named : authorityOf(absolute[1]!)
  if (absolute !== null && authority === null) return malformed('a target whose authority is no host name')
  for (const name of [named, authority]) {
    if (name === null || rules.serverNames.includes(name)) continue
    return { kind: 'refused', code: 'ERR_HOST_MISMATCH', detail: 'the request is for another name than SNI' }
  }
  if (named !== null && authority !== named) return malformed('Host and the authority of the target differ')

  const target = absolute === null ? raw.url : absolute[2]!.startsWith('/') ? absolute[2]! : `/${absolute[2]}`
  if (target !== '*' && !target.startsWith('/')) return malformed('a target that is neither a path nor a URL')
  if (target === '*' && raw.method !== 'OPTIONS') return malformed('* as the target of another method than OPTIONS')
  if (NOT_IN_TARGET.test(target)) return malformed('a target with bytes that no URL has')
  const mark = target.indexOf('?')
  return {
    kind: 'head',
    head: {
      method: raw.method,
      version,
      target,
      path: mark < 0 ? target : target.slice(0, mark),
      query: mark < 0 ? null : target.slice(mark + 1),
      host,
      contentLength,
      chunked,
      upgrade: rules.upgrade,
    },
  }
}

/** The fields that frame and address a request; a text is what is wrong. */
function fieldsOf(rawHeaders: readonly string[]): Fields | string {
  const host: string[] = []
  const length: string[] = []
  const coding: string[] = []
  for (let at = 0; at < rawHeaders.length; at += 2) {
    const name = rawHeaders[at]!
    const value = rawHeaders[at + 1]!
    if (!TOKEN.test(name)) return 'a header name that is no token'
    if (CONTROL.test(value)) return 'a control character in a header'
    if (FRAMING_TWIN.test(name)) return 'an underscore twin of a framing header'
    const lower = name.toLowerCase()
    if (lower === 'host') host.push(value)
    else if (lower === 'content-length') length.push(value)
    else if (lower === 'transfer-encoding') coding.push(value)
  }
  return { host, length, coding }
}

/** RFC 9112 §6: one way to find the end of the body. */
function framingFault({ length, coding }: Fields, version: '1.0' | '1.1'): string | null {
  if (length.length > 1) return 'Content-Length more than once'
  if (length.length === 1 && !LENGTH.test(length[0]!)) return 'a Content-Length that is no plain number'
  if (coding.length === 0) return null
  if (version === '1.0') return 'Transfer-Encoding in HTTP/1.0'
  if (length.length > 0) return 'Content-Length and Transfer-Encoding'
  if (coding.length > 1 || coding[0]!.toLowerCase() !== 'chunked') return 'a Transfer-Encoding other than chunked'
  return null
}

/** The host of `host[:port]`, lower case, without its last dot. */
function authorityOf(text: string): string | null {
  return AUTHORITY.exec(text)?.[1]?.toLowerCase() ?? null
}
