import { hash } from 'node:crypto'
import { LRUCache } from 'lru-cache'

/** What JA4 looks at, as it stood on the wire: nothing sorted, GREASE still in. */
export interface Ja4Input {
  readonly legacyVersion: number
  /** Contents of `supported_versions`; null when the extension is absent. */
  readonly supportedVersions: readonly number[] | null
  readonly cipherSuites: readonly number[]
  /** Extension types in the client's order. */
  readonly extensions: readonly number[]
  readonly signatureAlgorithms: readonly number[]
  /** First ALPN name, one character per byte; null when none is offered. */
  readonly firstAlpn: string | null
}

const SERVER_NAME = 0x0000
const ALPN = 0x0010

const VERSIONS: ReadonlyMap<number, string> = new Map([
  [0x0304, '13'],
  [0x0303, '12'],
  [0x0302, '11'],
  [0x0301, '10'],
  [0x0300, 's3'],
  [0x0002, 's2'],
])

const HEX: readonly string[] = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, '0'))

/** Values that clients sprinkle in to keep servers tolerant: 0x0a0a, 0x1a1a … 0xfafa. RFC 8701 §2. */
export function isGrease(value: number): boolean {
  return (value & 0x0f0f) === 0x0a0a && value >> 8 === (value & 0xff)
}

/**
 * The JA4 fingerprint of a TLS client over TCP, such as `t13d1516h2_8daaf6152771_e5627efa2ab1`.
 *
 * It names the client's software, not the device: every copy of a firmware shares one, and anybody can
 * imitate it. Work: one pass over each list, one sort of each, two SHA-256; of hellos like one that came before, a look-up.
 *
 * Source: FoxIO, JA4 technical details (`technical_details/JA4.md`).
 */
export function ja4Of(input: Ja4Input): string {
  const key = keyOf(input)
  if (key === null) return made(input)
  const known = fingerprints.get(key)
  if (known !== undefined) return known
  const fingerprint = made(input)
  fingerprints.set(key, fingerprint)
  return fingerprint
}

/** Hellos whose fingerprint is kept. A firmware has one; a browser has some hundreds, by the places of its GREASE. */
const MAX_KNOWN = 1_024
/** Numbers in one; a browser sends some 70. */
const MAX_KEY = 256
const fingerprints = new LRUCache<string, string>({ max: MAX_KNOWN })

/** All that the fingerprint is made of, each list behind its length, in one text; null: it is longer than any we have seen. */
function keyOf(input: Ja4Input): string | null {
  const { legacyVersion, cipherSuites, extensions, signatureAlgorithms, firstAlpn } = input
  const versions = input.supportedVersions ?? []
  const length = cipherSuites.length + extensions.length + signatureAlgorithms.length + versions.length
  if (length + (firstAlpn?.length ?? 0) > MAX_KEY) return null
  const numbers = String.fromCharCode(
    legacyVersion,
    input.supportedVersions === null ? 0 : versions.length + 1,
    ...versions,
    cipherSuites.length,
    ...cipherSuites,
    extensions.length,
    ...extensions,
    signatureAlgorithms.length,
    ...signatureAlgorithms,
  )
  return firstAlpn === null ? numbers : numbers + firstAlpn
}

function made(input: Ja4Input): string {
  const { a, b, c } = partsOf(input)
  // Joined, which makes one string; a template would keep its parts, and the session keeps it for hours.
  return [a, shortHash(b), shortHash(c)].join('_')
}

/** The same with the lists in plain sight (FoxIO calls it `ja4_r`), for a person who wonders what changed. */
export function ja4RawOf(input: Ja4Input): string {
  const { a, b, c } = partsOf(input)
  return `${a}_${b}_${c}`
}

function partsOf(input: Ja4Input): { readonly a: string; readonly b: string; readonly c: string } {
  const ciphers = withoutGrease(input.cipherSuites)
  const extensions = withoutGrease(input.extensions)
  // The name and ALPN change with the service that is called, not with the client, so `a` tells of them.
  const sorted = extensions.filter((type) => type !== SERVER_NAME && type !== ALPN).sort(ascending)
  const algorithms = withoutGrease(input.signatureAlgorithms)
  const named = extensions.includes(SERVER_NAME) ? 'd' : 'i'
  return {
    a: `t${versionOf(input)}${named}${count(ciphers)}${count(extensions)}${alpnOf(input.firstAlpn)}`,
    b: hexList(ciphers.sort(ascending)),
    c: algorithms.length === 0 ? hexList(sorted) : `${hexList(sorted)}_${hexList(algorithms)}`,
  }
}

function versionOf(input: Ja4Input): string {
  if (input.supportedVersions === null) return VERSIONS.get(input.legacyVersion) ?? '00'
  let highest = 0
  for (const version of input.supportedVersions) if (version > highest && !isGrease(version)) highest = version
  return VERSIONS.get(highest) ?? '00'
}

/** First and last character, or of its hex form when one of them is not a letter or digit. */
function alpnOf(name: string | null): string {
  if (name === null || name === '') return '00'
  const first = name.charCodeAt(0)
  const last = name.charCodeAt(name.length - 1)
  if (isAlphanumeric(first) && isAlphanumeric(last)) return String.fromCharCode(first, last)
  return HEX[first & 0xff]!.charAt(0) + HEX[last & 0xff]!.charAt(1)
}

function isAlphanumeric(code: number): boolean {
  return (code >= 0x30 && code <= 0x39) || (code >= 0x41 && code <= 0x5a) || (code >= 0x61 && code <= 0x7a)
}

function withoutGrease(values: readonly number[]): number[] {
  return values.filter((value) => !isGrease(value))
}

function ascending(left: number, right: number): number {
  return left - right
}

function count(values: readonly number[]): string {
  return String(Math.min(values.length, 99)).padStart(2, '0')
}

function hexList(values: readonly number[]): string {
  let text = ''
  for (const value of values) text += `${text === '' ? '' : ','}${HEX[value >> 8]}${HEX[value & 0xff]}`
  return text
}

function shortHash(text: string): string {
  return text === '' ? '000000000000' : hash('sha256', text, 'hex').slice(0, 12)
}
