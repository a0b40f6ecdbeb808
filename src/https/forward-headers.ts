import type { Authenticated } from '../auth/authenticator.ts'
import type { SecuredConnection } from '../connection.ts'
import { ProxyError } from '../errors.ts'
import type { Head } from './head.ts'

export type OutgoingHeaders = Record<string, string>

/**
 * Request headers that reach a backend, and no others: an allow list cannot forget a name. `once` may not come twice,
 * `list` is joined (RFC 9110 §5.3).
 */
// biome-ignore format: a table is read down its columns
const ALLOWED: ReadonlyMap<string, 'once' | 'list'> = new Map([
  ['accept',              'list'],
  ['accept-charset',      'list'],
  ['accept-encoding',     'list'],
  ['accept-language',     'list'],
  ['cache-control',       'list'],
  ['content-encoding',    'list'],
  ['content-language',    'list'],
  ['content-type',        'once'],
  ['if-match',            'list'],
  ['if-modified-since',   'once'],
  ['if-none-match',       'list'],
  ['if-range',            'once'],
  ['if-unmodified-since', 'once'],
  ['origin',              'once'],
  ['range',               'once'],
  ['user-agent',          'once'],
] as const)

/** A WebSocket's own: RFC 6455 §4.1. */
// biome-ignore format: a table is read down its columns
const ALLOWED_UPGRADE: ReadonlyMap<string, 'once' | 'list'> = new Map([
  ['sec-websocket-extensions', 'list'],
  ['sec-websocket-key',        'once'],
  ['sec-websocket-protocol',   'list'],
  ['sec-websocket-version',    'once'],
] as const)

/** RFC 9110 §7.6.1 and what servers made of it; never passed on in either direction. */
const HOP_BY_HOP: ReadonlySet<string> = new Set([
  'connection',
  'keep-alive',
  'proxy-authenticate',
  'proxy-authorization',
  'proxy-connection',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
  'http2-settings',
])

/** Names that a route cannot let through: they are ours, frame the message, or prove who somebody is. */
const RESERVED =
  /^(?:proxy-.*|host|content-length|expect|authorization|cookie2?|forwarded|via|x-real-ip|x-original-.*|x-rewrite-.*|x-forwarded-.*|x-amz-.*|x-amzn-.*|x-client-.*|x-ssl-.*|ssl-.*|client-.*|x-brokergate-.*|sec-websocket-.*)$/

/** Whether a setting may name this header (lower case) as one that travels. */
export function mayTravel(name: string): boolean {
  return /^[a-z0-9][a-z0-9-]*$/.test(name) && !HOP_BY_HOP.has(name) && !RESERVED.test(name)
}

export interface ForwardedAs {
  readonly connection: SecuredConnection
  readonly who: Authenticated
  readonly traceId: string
  /** Host of the backend, with its port where it is not the usual one. */
  readonly host: string
  /** Names of the route's own. */
  readonly extra: readonly string[]
  /** Names of token headers, which never travel. */
  readonly secrets: readonly string[]
}

/**
 * The headers for a backend: what may travel of the device's, then ours, which therefore cannot be taken away by a
 * `Connection` of the device's.
 * @throws {ProxyError} ERR_REQUEST_INVALID for a single header that came twice
 */
export function forwardHeaders(head: Head, rawHeaders: readonly string[], as: ForwardedAs): OutgoingHeaders {
  const named = connectionNames(rawHeaders)
  const secrets = new Set(as.secrets.map((name) => name.toLowerCase()))
  const extra = new Set(as.extra.filter(mayTravel))
  const kept = new Map<string, string>()
  for (let at = 0; at < rawHeaders.length; at += 2) {
    const name = rawHeaders[at]!.toLowerCase()
    const rule =
      ALLOWED.get(name) ??
      (head.upgrade ? ALLOWED_UPGRADE.get(name) : undefined) ??
      (extra.has(name) ? 'list' : undefined)
    if (rule === undefined || named.has(name) || secrets.has(name)) continue
    const before = kept.get(name)
    if (before !== undefined && rule === 'once') throw new ProxyError('ERR_REQUEST_INVALID', `${name} more than once`)
    kept.set(name, before === undefined ? rawHeaders[at + 1]! : `${before}, ${rawHeaders[at + 1]}`)
  }
  return { ...Object.fromEntries(kept), ...ours(head, as) }
}

function ours(head: Head, { connection, who, traceId, host }: ForwardedAs): OutgoingHeaders {
  const thing = who.things.exclusive
  return {
    host,
    'x-brokergate-principal': visible(who.principal.id),
    'x-brokergate-method': who.principal.method,
    ...(thing === null ? {} : { 'x-brokergate-thing': visible(thing.name) }),
    'x-brokergate-domain': connection.domain.name,
    'x-brokergate-request-id': traceId,
    'x-forwarded-for': connection.remoteAddress,
    'x-forwarded-proto': head.upgrade ? 'wss' : 'https',
    'x-forwarded-host': head.host ?? connection.domain.name,
    ...(head.upgrade ? { connection: 'Upgrade', upgrade: 'websocket' } : {}),
  }
}

/** A backend's headers for the device, names and order as they came. */
export function backHeaders(rawHeaders: readonly string[]): readonly (readonly [name: string, value: string])[] {
  const named = connectionNames(rawHeaders)
  const kept: [string, string][] = []
  for (let at = 0; at < rawHeaders.length; at += 2) {
    const name = rawHeaders[at]!.toLowerCase()
    if (!HOP_BY_HOP.has(name) && !named.has(name)) kept.push([rawHeaders[at]!, rawHeaders[at + 1]!])
  }
  return kept
}

/** What `Connection` names is for this hop alone. */
function connectionNames(rawHeaders: readonly string[]): ReadonlySet<string> {
  const names = new Set<string>()
  for (let at = 0; at < rawHeaders.length; at += 2) {
    if (rawHeaders[at]!.toLowerCase() !== 'connection') continue
    for (const name of rawHeaders[at + 1]!.split(',')) names.add(name.trim().toLowerCase())
  }
  return names
}

/** Percent-encodes what a header value cannot carry: a principal may be any text. */
function visible(text: string): string {
  return text.replace(/[^\x21-\x24\x26-\x7e]/gu, (character) =>
    [...Buffer.from(character)].map((byte) => `%${byte.toString(16).toUpperCase().padStart(2, '0')}`).join(''),
  )
}
