import { ProxyError } from '../errors.ts'
import type { Head } from './head.ts'

/** One entry of `domains[].routes`, as the settings have it. */
export interface RouteOptions {
  /** Literal segments, and `*` for one of any value. */
  readonly path: string
  readonly methods: readonly string[]
  readonly backend: string
  /** Null: whoever is known may. */
  readonly action: string | null
  /** With `${1}`, `${2}`… for what the `*`s stood for; null: the thing of the path. */
  readonly resource: string | null
  /** Request headers that travel besides the usual ones, lower case. */
  readonly headers: readonly string[]
}

export interface Route extends RouteOptions {
  /** Null for a `*`. */
  readonly segments: readonly (string | null)[]
  /** Which of the `*`s is a thing's name; null where the path has none. */
  readonly thing: number | null
}

export type RouteMatch =
  | { readonly kind: 'route'; readonly route: Route; readonly captures: readonly string[] }
  /** There are routes for the path, none for the method. */
  | { readonly kind: 'method'; readonly allow: readonly string[] }
  | { readonly kind: 'none' }

/** AWS IoT CreateThing; wire specification §2.7. */
const THING_NAME = /^[a-zA-Z0-9:_-]{1,128}$/
/** Wire specification §7.4. */
const SHADOW_NAME = /^[$a-zA-Z0-9:_-]{1,64}$/
const CONTROL = /[\0-\x1f\x7f]/

/** First segments that are served here. */
const OWN: ReadonlySet<string> = new Set(['mqtt', 'topics'])

/** The routes of one domain, in the order of the settings. */
export function routeTable(options: readonly RouteOptions[]): readonly Route[] {
  return options.map((route) => {
    const segments = route.path
      .split('/')
      .slice(1)
      .map((part) => (part === '*' ? null : part))
    const stars = segments.flatMap((part, at) => (part === null ? [at] : []))
    const thing = stars.findIndex((at) => segments[at - 1] === 'things')
    return { ...route, segments, thing: thing < 0 ? null : thing }
  })
}

/**
 * The first route that fits path and method. Segments are compared decoded, and a path that two readers could take for
 * two (`//`, `.`, `..`, in any encoding) fits none: the backend must see what the policy was asked about.
 */
export function matchRoute(routes: readonly Route[], head: Head): RouteMatch {
  const parts = decodedSegments(head.path)
  // A route of stars must not lead around the session or the publisher, in whatever spelling.
  if (parts === null || OWN.has(parts[0]!.toLowerCase())) return { kind: 'none' }
  const fitting = routes.filter((route) => fits(route, parts))
  const route = fitting.find(({ methods }) => methods.includes(head.method))
  if (route !== undefined) {
    return { kind: 'route', route, captures: route.segments.flatMap((part, at) => (part === null ? [parts[at]!] : [])) }
  }
  if (fitting.length === 0) return { kind: 'none' }
  return { kind: 'method', allow: [...new Set(fitting.flatMap(({ methods }) => methods))] }
}

function fits({ segments }: Route, parts: readonly string[]): boolean {
  return segments.length === parts.length && segments.every((part, at) => part === null || part === parts[at])
}

function decodedSegments(path: string): readonly string[] | null {
  const parts = path.split('/').slice(1).map(decoded)
  if (parts.length === 0 || parts.some((part) => part === null || part === '' || CONTROL.test(part))) return null
  const ambiguous = parts.some((part) => part!.split(/[/\\]/).some((piece) => piece === '.' || piece === '..'))
  return ambiguous ? null : (parts as readonly string[])
}

function decoded(text: string): string | null {
  try {
    return decodeURIComponent(text)
  } catch {
    return null
  }
}

/**
 * The tail of the ARN that the policy is asked about.
 * @throws {ProxyError} ERR_REQUEST_INVALID for names that no thing or shadow has
 */
export function resourceOf(route: Route, captures: readonly string[], query: string | null): string {
  if (route.resource !== null)
    return route.resource.replace(/\$\{(\d)\}/g, (_, digit) => captures[Number(digit) - 1] ?? '')
  const thing = route.thing === null ? undefined : captures[route.thing]
  if (thing === undefined || !THING_NAME.test(thing)) throw invalid('no name of a thing')
  const shadow = shadowName(query)
  return shadow === null ? `thing/${thing}` : `thing/${thing}/${shadow}`
}

/** The shadow that the query names, in whatever spelling a backend might read it; null for none. */
function shadowName(query: string | null): string | null {
  // Some readers split at `;` too, and some take the first of two.
  if (query?.includes(';')) throw invalid('a semicolon in the query')
  const named = pairsOf(query).filter(({ name }) => name?.trim().toLowerCase() === 'name')
  if (named.length === 0) return null
  const { name, text } = named[0]!
  const mark = text.indexOf('=')
  const value = mark < 0 ? null : decoded(text.slice(mark + 1))
  if (named.length > 1 || name !== 'name' || value === null || !SHADOW_NAME.test(value))
    throw invalid('no name of a shadow')
  return value
}

const invalid = (detail: string) => new ProxyError('ERR_REQUEST_INVALID', detail)

interface Pair {
  /** As it came. */
  readonly text: string
  /** Decoded; null where it cannot be. */
  readonly name: string | null
}

function pairsOf(query: string | null): readonly Pair[] {
  if (query === null || query === '') return []
  return query.split('&').map((text) => ({ text, name: decoded((text.split('=', 1)[0] ?? '').replaceAll('+', ' ')) }))
}

/**
 * The target for a backend: the path as it came and the query without what proved who the device is.
 * @param secrets names of token parameters, beside everything that begins with `x-amz-`
 */
export function targetFor(head: Head, secrets: readonly string[]): string {
  if (head.query === null) return head.path
  const lower = new Set(secrets.map((name) => name.toLowerCase()))
  const kept = pairsOf(head.query).filter(({ name }) => {
    const plain = name?.trim().toLowerCase().replaceAll('_', '-')
    return plain !== undefined && !plain.startsWith('x-amz-') && !lower.has(name!.trim().toLowerCase())
  })
  return kept.length === 0 ? head.path : `${head.path}?${kept.map(({ text }) => text).join('&')}`
}
