import { malformed, parseBody } from './hello-body.ts'

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
