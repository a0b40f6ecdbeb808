import type { ClientHello, HelloParse, ServerName } from './client-hello.ts'
import { isGrease, type Ja4Input, ja4Of } from './ja4.ts'

const SERVER_NAME = 0
const SIGNATURE_ALGORITHMS = 13
const ALPN = 16
const SESSION_TICKET = 35
const PRE_SHARED_KEY = 41
const EARLY_DATA = 42
const SUPPORTED_VERSIONS = 43

const HOST_NAME = 0
const MAX_NAME = 253
const LABEL = /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/
/** What a resolver would take for the end of an IPv4 address, `127.1` and `0x7f000001` included. */
const NUMERIC = /^(?:[0-9]+|0x[0-9a-f]*)$/

/**
 * A view of some bytes that is read front to back. Reading past its end gives zeros and sets `short`, so that
 * a run of fields is checked once, behind the last.
 */
class Cursor {
  short = false
  readonly bytes: Uint8Array
  at: number
  end: number

  constructor(bytes: Uint8Array, at: number, end: number) {
    this.bytes = bytes
    this.at = at
    this.end = end
  }

  get left(): number {
    return this.end - this.at
  }

  u8(): number {
    if (this.at < this.end) return this.bytes[this.at++]!
    this.short = true
    return 0
  }

  u16(): number {
    if (this.end - this.at < 2) {
      this.at = this.end
      this.short = true
      return 0
    }
    const value = (this.bytes[this.at]! << 8) | this.bytes[this.at + 1]!
    this.at += 2
    return value
  }

  /** Steps over so many bytes; where they began. */
  skip(length: number): number {
    const from = this.at
    if (length > this.end - from) {
      this.short = true
      this.at = this.end
      return this.end
    }
    this.at = from + length
    return from
  }

  /** The next `length` bytes as a view of their own, stepped over here. */
  take(length: number): Cursor {
    const from = this.skip(length)
    return new Cursor(this.bytes, from, this.at)
  }

  /** A view that begins with its own length, which has to be the rest of this one and not nothing. */
  only(lengthBytes: 1 | 2): Cursor | null {
    const list = this.take(lengthBytes === 1 ? this.u8() : this.u16())
    return this.short || this.left > 0 || list.left === 0 ? null : list
  }

  /** Everything left, as 16-bit numbers; null when a byte is left over. */
  u16s(): number[] | null {
    const { bytes, end } = this
    if ((end - this.at) % 2 !== 0) return null
    const values: number[] = []
    for (let at = this.at; at < end; at += 2) values.push((bytes[at]! << 8) | bytes[at + 1]!)
    this.at = end
    return values
  }

  /** Everything left, one character per byte. */
  latin1(): string {
    const { bytes, end } = this
    let text = ''
    for (let at = this.at; at < end; at++) text += String.fromCharCode(bytes[at]!)
    this.at = end
    return text
  }
}

/** What was parsed. JA4 is made when it is asked for: a stranger is refused without. */
class Parsed implements ClientHello {
  readonly serverName: ServerName
  readonly alpnProtocols: readonly string[]
  readonly supportedVersions: readonly number[]
  readonly legacyVersion: number
  readonly hasEarlyData: boolean
  readonly offersSession: boolean
  #ja4: string | Ja4Input

  constructor(serverName: ServerName, alpn: readonly string[], fingerprinted: Ja4Input, hasTicket: boolean) {
    const { supportedVersions, legacyVersion, extensions } = fingerprinted
    this.serverName = serverName
    this.alpnProtocols = alpn
    this.supportedVersions = supportedVersions?.filter((version) => !isGrease(version)) ?? [legacyVersion]
    this.legacyVersion = legacyVersion
    this.hasEarlyData = extensions.includes(EARLY_DATA)
    this.offersSession = hasTicket || extensions.includes(PRE_SHARED_KEY)
    this.#ja4 = fingerprinted
  }

  get ja4(): string {
    if (typeof this.#ja4 !== 'string') this.#ja4 = ja4Of(this.#ja4)
    return this.#ja4
  }
}

/** A bit for each extension type, all off between two hellos. */
const seen = new Uint32Array(65_536 / 32)

/** Whether it was there before; from now on it is. */
function seenBefore(type: number): boolean {
  const word = type >>> 5
  const bit = 1 << (type & 31)
  if ((seen[word]! & bit) !== 0) return true
  seen[word]! |= bit
  return false
}

type Malformed = Extract<HelloParse, { kind: 'malformed' }>

const ABSENT: ServerName = { kind: 'absent' }
const NONE: readonly never[] = []

export function malformed(detail: string): Malformed {
  return { kind: 'malformed', detail }
}

/** The body of the message, without its handshake header. Never throws. */
export function parseBody(body: Uint8Array): ClientHello | Malformed {
  const extensions: number[] = []
  try {
    return parsed(body, extensions)
  } finally {
    for (const type of extensions) seen[type >>> 5] = 0
  }
}

/** @param types the extensions, in the client's order, for the caller to forget */
function parsed(body: Uint8Array, types: number[]): ClientHello | Malformed {
  const fields = new Cursor(body, 0, body.length)
  const legacyVersion = fields.u16()
  fields.skip(32) // random
  const sessionIdBytes = fields.u8()
  fields.skip(sessionIdBytes)
  const cipherSuites = fields.take(fields.u16()).u16s()
  const compressionBytes = fields.u8()
  fields.skip(compressionBytes)
  if (fields.short) return malformed('the ClientHello ends too early')
  if (sessionIdBytes > 32) return malformed('a session id of more than 32 bytes')
  if (cipherSuites === null || cipherSuites.length === 0) return malformed('cipher suites of odd or no length')
  if (compressionBytes === 0) return malformed('no compression method')

  let serverName: ServerName = ABSENT
  let alpnProtocols: readonly string[] = NONE
  let supportedVersions: readonly number[] | null = null
  let signatureAlgorithms: readonly number[] = NONE
  let hasTicket = false

  // Before TLS 1.2 a hello could end here, without so much as the length of its extensions.
  if (fields.left > 0) {
    const length = fields.u16()
    if (fields.short || fields.left !== length) return malformed('the extensions do not fill the ClientHello')
    while (fields.left > 0) {
      const type = fields.u16()
      const dataBytes = fields.u16()
      const from = fields.skip(dataBytes)
      if (fields.short) return malformed('an extension ends too early')
      if (seenBefore(type)) {
        // RFC 8446 §4.2 forbids any repetition. Two names deserve the answer that speaks of names.
        if (type !== SERVER_NAME) return malformed(`extension ${type} twice`)
        serverName = { kind: 'invalid', detail: 'two server_name extensions' }
        continue
      }
      types.push(type)
      if (type === SERVER_NAME) {
        const found = serverNameIn(new Cursor(body, from, fields.at))
        if (found === null) return malformed('server_name does not add up')
        serverName = found
      } else if (type === ALPN) {
        const found = protocolsIn(new Cursor(body, from, fields.at))
        if (found === null) return malformed('ALPN does not add up')
        alpnProtocols = found
      } else if (type === SUPPORTED_VERSIONS) {
        const found = new Cursor(body, from, fields.at).only(1)?.u16s() ?? null
        if (found === null) return malformed('supported_versions does not add up')
        supportedVersions = found
      } else if (type === SIGNATURE_ALGORITHMS) {
        const found = new Cursor(body, from, fields.at).only(2)?.u16s() ?? null
        if (found === null) return malformed('signature_algorithms does not add up')
        signatureAlgorithms = found
      } else if (type === SESSION_TICKET) {
        hasTicket = dataBytes > 0
      }
    }
  }

  const firstAlpn = alpnProtocols[0] ?? null
  const fingerprinted = {
    legacyVersion,
    supportedVersions,
    cipherSuites,
    extensions: types,
    signatureAlgorithms,
    firstAlpn,
  }
  return new Parsed(serverName, alpnProtocols, fingerprinted, hasTicket)
}

/** RFC 6066 §3 has a list of typed names, but only one type and one name per type were ever allowed. */
function serverNameIn(data: Cursor): ServerName | null {
  const list = data.take(data.u16())
  if (data.short || data.left > 0) return null
  if (list.left === 0) return { kind: 'invalid', detail: 'an empty list of names' }
  const type = list.u8()
  const name = list.take(list.u16())
  if (list.short) return null
  if (type !== HOST_NAME) return { kind: 'invalid', detail: `a name of type ${type}` }
  if (list.left > 0) return { kind: 'invalid', detail: 'more than one name' }
  if (name.left > MAX_NAME + 1) return { kind: 'invalid', detail: 'a name of more than 253 bytes' }
  return hostName(name.latin1())
}

/** Letters, digits and hyphens (RFC 5890 §2.3.1); RFC 6066 §3 leaves IP addresses out. */
function hostName(raw: string): ServerName {
  const name = (raw.endsWith('.') ? raw.slice(0, -1) : raw).toLowerCase()
  if (name === '') return { kind: 'invalid', detail: 'an empty name' }
  if (name.length > MAX_NAME) return { kind: 'invalid', detail: 'a name of more than 253 bytes' }
  const labels = name.split('.')
  if (!labels.every((label) => LABEL.test(label))) return { kind: 'invalid', detail: 'not a host name' }
  if (NUMERIC.test(labels.at(-1)!)) return { kind: 'invalid', detail: 'an IP address' }
  return { kind: 'name', name }
}

function protocolsIn(data: Cursor): string[] | null {
  const list = data.only(2)
  if (list === null) return null
  const names: string[] = []
  while (list.left > 0) {
    const name = list.take(list.u8())
    if (list.short || name.left === 0) return null
    names.push(name.latin1())
  }
  return names
}
