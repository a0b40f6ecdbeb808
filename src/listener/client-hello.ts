import { isGrease, type Ja4Input, ja4Of } from './ja4.ts'

/** What the device says before any key exchange. RFC 8446 §4.1.2. */
export interface ClientHello {
  readonly serverName: ServerName
  /** ALPN names in the client's order of preference, one character per byte; empty when absent. RFC 7301 §3.1. */
  readonly alpnProtocols: readonly string[]
  /** In the client's order, without GREASE; `[legacyVersion]` when the extension is absent. RFC 8446 §4.2.1. */
  readonly supportedVersions: readonly number[]
  readonly legacyVersion: number
  /** The device means to send data before it knows who we are. RFC 8446 §4.2.10. */
  readonly hasEarlyData: boolean
  /**
   * The device offers an earlier session: `pre_shared_key` (RFC 8446 §4.2.11), or a ticket (RFC 5077 §3.2). A claim and no
   * more. A session id alone is none: 1.3 sends a random one, and here is no cache that would know it.
   */
  readonly offersSession: boolean
  /** Fingerprint of the client's software, see `ja4.ts`. */
  readonly ja4: string
}

/** The name the device asks for. Only `name` may be looked up. RFC 6066 §3. */
export type ServerName =
  | { readonly kind: 'absent' }
  | { readonly kind: 'invalid'; readonly detail: string }
  /** Lower case, without trailing dot; labels of letters, digits and hyphens; not an IP address. */
  | { readonly kind: 'name'; readonly name: string }

/** Five answers, because each leads to another action; only `incomplete` is not final. */
export type HelloParse =
  /** `bytes`: how many of the bytes pushed are the hello's TLS records; what follows is the device's next flight. */
  | { readonly kind: 'hello'; readonly hello: ClientHello; readonly bytes: number }
  /** `needBytes`: at least so many more. */
  | { readonly kind: 'incomplete'; readonly needBytes: number }
  | { readonly kind: 'not-tls' }
  /** A TLS handshake record that contradicts itself. */
  | { readonly kind: 'malformed'; readonly detail: string }
  | { readonly kind: 'oversized' }

/** Record headers included. A post-quantum hello has 1 800 bytes; the rest is room for what comes. */
export const MAX_HELLO_BYTES = 65_536

const HANDSHAKE = 22
const CLIENT_HELLO = 1
const RECORD_HEADER = 5
const HANDSHAKE_HEADER = 4
/** RFC 8446 §5.1. */
const MAX_RECORD = 16_384

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

/** Reads a whole buffer at once; see HelloReader for bytes that trickle in. Never throws. */
export function parseClientHello(bytes: Uint8Array): HelloParse {
  return new HelloReader().push(bytes)
}

/**
 * Reads one ClientHello from chunks as they arrive, whatever they and the TLS records cut apart.
 *
 * Work is linear in the bytes pushed, also for a peer that drips: the record layer looks at each byte at most
 * once, the message is put together once when its last byte is there, and its body is read by at most three
 * looks per byte. Sorting for JA4 and two SHA-256 come on top. Holds the chunks it was given and no copy.
 */
export class HelloReader {
  /** Everything pushed, in order: bytes behind the hello are here too. */
  readonly chunks: Uint8Array[] = []

  #answer: HelloParse = { kind: 'incomplete', needBytes: RECORD_HEADER + HANDSHAKE_HEADER }
  /** Bytes of the hello's records so far, headers included. */
  #wireBytes = 0
  #records = 0
  /** Bytes seen of a record header that is not whole yet. */
  #headerBytes = 0
  /** While a header is read, its length field as far as known; then the bytes of the record still to come. */
  #recordLeft = 0
  /** Bytes of the handshake message so far, its header included. */
  #messageBytes = 0
  /** From the handshake header, without it; complete from the fourth message byte on. */
  #bodyLength = 0

  /** Takes the next chunk. An answer other than `incomplete` stays, whatever is pushed after it. */
  push(chunk: Uint8Array): HelloParse {
    this.chunks.push(chunk)
    if (this.#answer.kind === 'incomplete') this.#answer = this.#advance(chunk)
    return this.#answer
  }

  /** All bytes pushed, to give back to the socket. Copies only when there is more than one chunk. */
  taken(): Buffer {
    const [only, ...others] = this.chunks
    if (only === undefined || others.length > 0) return Buffer.concat(this.chunks)
    return Buffer.isBuffer(only) ? only : Buffer.from(only.buffer, only.byteOffset, only.byteLength)
  }

  #advance(chunk: Uint8Array): HelloParse {
    let at = 0
    while (at < chunk.length) {
      let refusal: HelloParse | null = null
      if (this.#headerBytes > 0 || this.#recordLeft === 0) {
        refusal = this.#recordHeader(chunk[at]!)
        at += 1
        this.#wireBytes += 1
      } else if (this.#messageBytes < HANDSHAKE_HEADER) {
        refusal = this.#handshakeHeader(chunk[at]!)
        at += 1
        this.#wireBytes += 1
      } else {
        const step = Math.min(this.#recordLeft, chunk.length - at)
        at += step
        this.#wireBytes += step
        this.#recordLeft -= step
        this.#messageBytes += step
      }
      if (refusal !== null) return refusal
      if (this.#wireBytes + this.#needBytes() > MAX_HELLO_BYTES) return { kind: 'oversized' }
      if (this.#messageBytes === HANDSHAKE_HEADER + this.#bodyLength) return this.#finish()
    }
    return { kind: 'incomplete', needBytes: this.#needBytes() }
  }

  #recordHeader(byte: number): HelloParse | null {
    const first = this.#records === 0
    this.#headerBytes += 1
    switch (this.#headerBytes) {
      case 1:
        if (byte === HANDSHAKE) return null
        return first ? { kind: 'not-tls' } : malformed('another record type inside the ClientHello')
      case 2:
        if (byte === 3) return null
        return first ? { kind: 'not-tls' } : malformed('another protocol version inside the ClientHello')
      case 3:
        // The minor version says nothing: RFC 8446 §5.1 has it ignored.
        return null
      case 4:
        this.#recordLeft = byte << 8
        return null
    }
    this.#recordLeft |= byte
    this.#headerBytes = 0
    this.#records += 1
    if (this.#recordLeft === 0) return malformed('an empty handshake record')
    if (this.#recordLeft > MAX_RECORD) return malformed('a record of more than 16384 bytes')
    return this.#messageBytes < HANDSHAKE_HEADER ? null : this.#recordOverrun()
  }

  #handshakeHeader(byte: number): HelloParse | null {
    this.#recordLeft -= 1
    this.#messageBytes += 1
    if (this.#messageBytes === 1) return byte === CLIENT_HELLO ? null : { kind: 'not-tls' }
    this.#bodyLength = this.#bodyLength * 256 + byte
    return this.#messageBytes < HANDSHAKE_HEADER ? null : this.#recordOverrun()
  }

  /** A client speaks alone until it is answered, so its hello ends where a record ends. RFC 8446 §5.1. */
  #recordOverrun(): HelloParse | null {
    const left = HANDSHAKE_HEADER + this.#bodyLength - this.#messageBytes
    return this.#recordLeft > left ? malformed('the record goes on behind the ClientHello') : null
  }

  /** The fewest bytes that can complete what is known of so far, in records as long as they may be. */
  #needBytes(): number {
    const known = this.#messageBytes < HANDSHAKE_HEADER ? 0 : this.#bodyLength
    const left = HANDSHAKE_HEADER + known - this.#messageBytes
    const inRecord = this.#headerBytes > 0 ? 0 : this.#recordLeft
    if (left <= inRecord) return left
    return left + Math.ceil((left - inRecord) / MAX_RECORD) * RECORD_HEADER - this.#headerBytes
  }

  #finish(): HelloParse {
    const parsed = parseBody(this.#body())
    return 'kind' in parsed ? parsed : { kind: 'hello', hello: parsed, bytes: this.#wireBytes }
  }

  #body(): Uint8Array {
    const wire = this.chunks.length === 1 ? this.chunks[0]! : this.taken()
    if (this.#records === 1) return wire.subarray(RECORD_HEADER + HANDSHAKE_HEADER, this.#wireBytes)
    const message = new Uint8Array(this.#messageBytes)
    let filled = 0
    for (let at = 0; at < this.#wireBytes; ) {
      const from = at + RECORD_HEADER
      const to = from + ((wire[at + 3]! << 8) | wire[at + 4]!)
      message.set(wire.subarray(from, to), filled)
      filled += to - from
      at = to
    }
    return message.subarray(HANDSHAKE_HEADER)
  }
}

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

function malformed(detail: string): Malformed {
  return { kind: 'malformed', detail }
}

function parseBody(body: Uint8Array): ClientHello | Malformed {
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
