/** Puts ClientHellos together byte by byte, right or wrong; and loads the captured ones. */
import { readFileSync } from 'node:fs'

export { randomFrom as random } from './random.ts'

export interface Fixture {
  readonly client: string
  readonly bytes: Buffer
  readonly serverName: string | null
  readonly alpnProtocols: readonly string[]
  readonly supportedVersions: readonly number[]
  readonly ja4: string
}

const folder = new URL('../fixtures/hellos/', import.meta.url)

export function fixtures(): Fixture[] {
  const expected = JSON.parse(readFileSync(new URL('expected.json', folder), 'utf8')) as Record<
    string,
    Omit<Fixture, 'client' | 'bytes'>
  >
  return Object.entries(expected).map(([client, facts]) => ({
    ...facts,
    client,
    bytes: readFileSync(new URL(`${client}.bin`, folder)),
  }))
}

export function vector8(...parts: readonly Uint8Array[]): Buffer {
  const body = Buffer.concat(parts)
  return Buffer.concat([Buffer.of(body.length), body])
}

export function vector16(...parts: readonly Uint8Array[]): Buffer {
  const body = Buffer.concat(parts)
  return Buffer.concat([u16(body.length), body])
}

export function u16(...values: readonly number[]): Buffer {
  return Buffer.from(values.flatMap((value) => [value >> 8, value & 0xff]))
}

export function extension(type: number, data: Uint8Array): Buffer {
  return Buffer.concat([u16(type), vector16(data)])
}

/** server_name with one host name, given one character per byte. */
export function sni(name: string): Buffer {
  return extension(0, vector16(Buffer.of(0), vector16(Buffer.from(name, 'latin1'))))
}

export interface Parts {
  readonly legacyVersion?: number
  readonly sessionId?: Uint8Array
  readonly cipherSuites?: Uint8Array
  readonly compressionMethods?: Uint8Array
  /** The extensions, without the length in front; null for a hello that ends before. */
  readonly extensions?: readonly Uint8Array[] | null
  /** Behind everything else, inside the message. */
  readonly trailer?: Uint8Array
}

/** A ClientHello message without its handshake header. */
export function helloBody(parts: Parts = {}): Buffer {
  const { extensions = [] } = parts
  return Buffer.concat([
    u16(parts.legacyVersion ?? 0x0303),
    Buffer.alloc(32, 0x5a),
    vector8(parts.sessionId ?? Buffer.alloc(32, 0x11)),
    vector16(parts.cipherSuites ?? u16(0x1301, 0xc02b)),
    vector8(parts.compressionMethods ?? Buffer.of(0)),
    extensions === null ? Buffer.alloc(0) : vector16(...extensions),
    parts.trailer ?? Buffer.alloc(0),
  ])
}

export function handshake(body: Uint8Array, type = 1): Buffer {
  return Buffer.concat([Buffer.of(type, body.length >> 16, (body.length >> 8) & 0xff, body.length & 0xff), body])
}

/** The message in records of at most `size` bytes. */
export function records(message: Uint8Array, size = 16_384): Buffer {
  const all: Buffer[] = []
  for (let at = 0; at < message.length; at += size) {
    all.push(Buffer.of(22, 3, 1), vector16(message.subarray(at, at + size)))
  }
  return Buffer.concat(all)
}

export function hello(parts: Parts = {}, size?: number): Buffer {
  return records(handshake(helloBody(parts)), size)
}

/** The handshake message inside the records of a valid hello. */
export function messageOf(wire: Uint8Array): Buffer {
  const parts: Uint8Array[] = []
  for (let at = 0; at < wire.length; ) {
    const end = at + 5 + ((wire[at + 3]! << 8) | wire[at + 4]!)
    parts.push(wire.subarray(at + 5, end))
    at = end
  }
  return Buffer.concat(parts)
}
