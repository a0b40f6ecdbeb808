/**
 * The canonical request of AWS Signature Version 4: pure functions over what stood on the wire, shared by signer and
 * verifier. AWS General Reference, "Create a signed AWS API request".
 *
 * Text is held as the HTTP parser gives it, one character per octet (latin1). Nothing here goes through a form parser,
 * which would turn `+` into a space.
 */

/** Name and value, percent-encoded the one way that is signed: RFC 3986, upper-case digits, only the unreserved bare. */
export type Pair = readonly [name: string, value: string]

/** RFC 3986 §2.3. */
const UNRESERVED = /[A-Za-z0-9\-._~]/
const RESERVED = { text: /[^A-Za-z0-9\-._~]/g, path: /[^A-Za-z0-9\-._~/]/g } as const
const ESCAPE_OR_RESERVED = {
  text: /%[0-9A-Fa-f]{2}|[^A-Za-z0-9\-._~]/g,
  path: /%[0-9A-Fa-f]{2}|[^A-Za-z0-9\-._~/]/g,
} as const
/** What can stand in a request target, RFC 9112 §3.2, and not be cut off or folded on the way. */
const TARGET = /^[\x21-\x7e]*$/
const BROKEN_ESCAPE = /%(?![0-9A-Fa-f]{2})/
/** Field values as RFC 9110 §5.5 has them; a control character could imitate the end of a canonical line. */
const FIELD_VALUE = /^[\t\x20-\x7e\x80-\xff]*$/

/** Path and raw query of a request target in origin form; null for any other form, or octets that no target has. */
export function splitTarget(target: string): { readonly path: string; readonly query: string } | null {
  if (!target.startsWith('/') || !TARGET.test(target)) return null
  const mark = target.indexOf('?')
  return mark === -1 ? { path: target, query: '' } : { path: target.slice(0, mark), query: target.slice(mark + 1) }
}

/** The pairs of a raw query in their order, canonically encoded; null where a `%` is not followed by two hex digits. */
export function readQuery(query: string): readonly Pair[] | null {
  if (BROKEN_ESCAPE.test(query)) return null
  return query
    .split('&')
    .filter((pair) => pair !== '')
    .map((pair): Pair => {
      const equals = pair.indexOf('=')
      return equals === -1
        ? [encodedOnce(pair, 'text'), '']
        : [encodedOnce(pair.slice(0, equals), 'text'), encodedOnce(pair.slice(equals + 1), 'text')]
    })
}

/** Sorted by encoded name, then by encoded value. */
export function canonicalQuery(pairs: readonly Pair[]): string {
  return pairs
    .toSorted(([name, value], [otherName, otherValue]) => compare(name, otherName) || compare(value, otherValue))
    .map(([name, value]) => `${name}=${value}`)
    .join('&')
}

/**
 * Every service but S3 signs the path as it stands on the wire, normalized and percent-encoded once more (`double`).
 * Some signers written by hand leave out the second time (`single`).
 */
export function canonicalPath(path: string, encoding: 'double' | 'single'): string {
  const normal = normalized(path)
  return encoding === 'single' ? encodedOnce(normal, 'path') : encoded(normal, 'path')
}

/**
 * One line per name: lower case, the value trimmed, runs of white space in it made one space, several fields of one name
 * joined by a comma. Null when one of the names is not there, or a value holds what a field cannot.
 * @param names lower case, in the order in which they are signed
 */
export function canonicalHeaders(rawHeaders: readonly string[], names: readonly string[]): string | null {
  const values = new Map<string, string[]>(names.map((name) => [name, []]))
  for (let at = 0; at + 1 < rawHeaders.length; at += 2) {
    const value = rawHeaders[at + 1]!
    const found = values.get(rawHeaders[at]!.toLowerCase())
    if (found === undefined) continue
    if (!FIELD_VALUE.test(value)) return null
    // Not `trim`, which takes U+00A0 for white space: here it is the second octet of a letter.
    found.push(value.replace(/[\t ]+/g, ' ').replace(/^ | $/g, ''))
  }
  let lines = ''
  for (const [name, found] of values) {
    if (found.length === 0) return null
    const value = found.join(',')
    // Host names have no case (RFC 9110 §4.2.3), and the gateway signs them in lower case.
    lines += `${name}:${name === 'host' ? value.toLowerCase() : value}\n`
  }
  return lines
}

export interface CanonicalParts {
  readonly method: string
  readonly path: string
  readonly query: string
  readonly headers: string
  readonly signedHeaders: string
  /** SHA-256 of the body, 64 lower-case hex digits. */
  readonly payloadHash: string
}

export function canonicalRequest(parts: CanonicalParts): string {
  const { method, path, query, headers, signedHeaders, payloadHash } = parts
  return `${method}\n${path}\n${query}\n${headers}\n${signedHeaders}\n${payloadHash}`
}

/** Percent-encodes every octet that is neither unreserved nor, in a path, a slash; `%` too. */
export function encoded(text: string, kind: 'text' | 'path'): string {
  return text.replace(RESERVED[kind], (char) => escaped(char.charCodeAt(0)))
}

/** The same of a text that may be encoded already: escapes are brought to their one spelling and not encoded again. */
function encodedOnce(text: string, kind: 'text' | 'path'): string {
  return text.replace(ESCAPE_OR_RESERVED[kind], (found) => {
    if (found.length === 1) return escaped(found.charCodeAt(0))
    const octet = Number.parseInt(found.slice(1), 16)
    const char = String.fromCharCode(octet)
    return UNRESERVED.test(char) ? char : escaped(octet)
  })
}

/** What a canonically encoded text stands for, one character per octet. */
export function decoded(text: string): string {
  return text.replace(/%([0-9A-F]{2})/g, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)))
}

const escaped = (octet: number): string => `%${octet.toString(16).toUpperCase().padStart(2, '0')}`

/** RFC 3986 §5.2.4 and empty segments left out, as all services but S3 have it. */
function normalized(path: string): string {
  const segments: string[] = []
  const parts = path.split('/')
  for (const part of parts) {
    if (part === '..') segments.pop()
    else if (part !== '' && part !== '.') segments.push(part)
  }
  const isFolder = ['', '.', '..'].includes(parts.at(-1)!) && segments.length > 0
  return `/${segments.join('/')}${isFolder ? '/' : ''}`
}

/** Whether the path is signed as it stands: of the others, one signature would cover many. */
export const isNormal = (path: string): boolean => normalized(path) === path

const compare = (one: string, other: string): number => (one < other ? -1 : one > other ? 1 : 0)
