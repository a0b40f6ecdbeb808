import { addressBytes, addressText } from './addresses.ts'

/** One end of a TCP connection as the load balancer saw it; the address in its one spelling (`addressText`). */
export interface Endpoint {
  readonly address: string
  readonly port: number
}

export type ProxyHeaderParse =
  /** `bytes`: length of the header. `source`: null when the balancer speaks for itself or does not know. */
  | { readonly kind: 'header'; readonly bytes: number; readonly source: Endpoint | null }
  | { readonly kind: 'incomplete' }
  | { readonly kind: 'invalid'; readonly detail: string }

export type ProxyVersion = 1 | 2

const V1_SIGNATURE = Buffer.from('PROXY ', 'latin1')
const V2_SIGNATURE = Buffer.from('0d0a0d0a000d0a515549540a', 'hex')

/** Longest line of version 1, line end included. */
const MAX_V1 = 107
/** Of the addresses and TLVs of version 2. A cloud balancer's TLVs take some hundred bytes. */
const MAX_V2_LENGTH = 4_096
const V2_HEADER = 16

const LOCAL = 0x20
const PROXY = 0x21

const PORT = /^(?:0|[1-9][0-9]{0,4})$/

/** What version 2 may say about transport: the size of the addresses, and of one in it. Bytes. */
const FAMILIES: ReadonlyMap<number, { readonly size: number; readonly address: 0 | 4 | 16 }> = new Map([
  [0x00, { size: 0, address: 0 }], // unspecified
  [0x11, { size: 12, address: 4 }], // TCP over IPv4
  [0x21, { size: 36, address: 16 }], // TCP over IPv6
  [0x31, { size: 216, address: 0 }], // UNIX stream
  [0x32, { size: 216, address: 0 }], // UNIX datagram
])

/**
 * Reads a PROXY header at the start of `bytes`, in one of the versions allowed here.
 *
 * Strict, because who may send one may also claim any address: no header is not a header, an unknown command or
 * family is refused, and so is anything longer than its version allows. TLVs are stepped over unread. Looks at
 * no more than 107 bytes of version 1 and 52 of version 2. Never throws.
 *
 * Source: HAProxy, "The PROXY protocol, versions 1 & 2".
 */
export function parseProxyHeader(bytes: Uint8Array, versions: readonly ProxyVersion[]): ProxyHeaderParse {
  if (bytes.length === 0) return { kind: 'incomplete' }
  const version = startsLike(bytes, V1_SIGNATURE) ? 1 : startsLike(bytes, V2_SIGNATURE) ? 2 : null
  if (version === null) return invalid('no PROXY header')
  if (!versions.includes(version)) return invalid(`PROXY version ${version} is not accepted here`)
  return version === 1 ? parseV1(bytes) : parseV2(bytes)
}

/**
 * Whether the bytes so far begin, or are the beginning of, a PROXY header of any version. A TLS record starts
 * with 0x16 and a header with `P` or CR, so the first byte already tells them apart; none tells nothing.
 */
export function looksLikeProxyHeader(bytes: Uint8Array): boolean {
  return bytes.length > 0 && (startsLike(bytes, V1_SIGNATURE) || startsLike(bytes, V2_SIGNATURE))
}

/**
 * A version 2 header (command PROXY, TCP) to send toward a broker. A pair of mixed families goes as IPv6.
 *
 * @throws {RangeError} when an address is not an IP address or a port is not one.
 */
export function encodeProxyV2(source: Endpoint, destination: Endpoint): Buffer {
  const addresses = [source, destination].map((endpoint) => bytesToSend(endpoint.address))
  const size = addresses.every((address) => address.length === 4) ? 4 : 16
  const header = Buffer.alloc(V2_HEADER + 2 * size + 4)
  V2_SIGNATURE.copy(header)
  header[12] = PROXY
  header[13] = size === 4 ? 0x11 : 0x21
  header.writeUInt16BE(2 * size + 4, 14)
  for (const [index, address] of addresses.entries()) {
    const end = V2_HEADER + (index + 1) * size
    // ::ffff:a.b.c.d, RFC 4291 §2.5.5.2.
    if (address.length < size) header.fill(0xff, end - 6, end - 4)
    header.set(address, end - address.length)
  }
  header.writeUInt16BE(portToSend(source.port), V2_HEADER + 2 * size)
  header.writeUInt16BE(portToSend(destination.port), V2_HEADER + 2 * size + 2)
  return header
}

/** The header of a connection that we open for ourselves: nobody is behind it, command LOCAL. */
export const LOCAL_V2: Buffer = Buffer.concat([V2_SIGNATURE, Buffer.from([LOCAL, 0, 0, 0])])

function invalid(detail: string): ProxyHeaderParse {
  return { kind: 'invalid', detail }
}

function startsLike(bytes: Uint8Array, signature: Uint8Array): boolean {
  const length = Math.min(bytes.length, signature.length)
  for (let at = 0; at < length; at += 1) if (bytes[at] !== signature[at]) return false
  return true
}

function parseV1(bytes: Uint8Array): ProxyHeaderParse {
  let line = ''
  for (let at = 0; at < MAX_V1 - 1; at += 1) {
    const byte = bytes[at]
    if (byte === undefined) return { kind: 'incomplete' }
    if (byte === 0x0d) {
      if (bytes.length === at + 1) return { kind: 'incomplete' }
      return bytes[at + 1] === 0x0a ? parseV1Line(line, at + 2) : invalid('a line that does not end with CR LF')
    }
    if (byte < 0x20 || byte > 0x7e) return invalid('a byte that is not printable')
    line += String.fromCharCode(byte)
  }
  return invalid('a line of more than 107 bytes')
}

function parseV1Line(line: string, bytes: number): ProxyHeaderParse {
  const [, family, source, destination, sourcePort, destinationPort, ...others] = line.split(' ')
  // The receiver must ignore whatever stands behind UNKNOWN.
  if (family === 'UNKNOWN') return { kind: 'header', bytes, source: null }
  if (family !== 'TCP4' && family !== 'TCP6') return invalid('a family other than TCP4, TCP6 and UNKNOWN')
  if (destinationPort === undefined || others.length > 0) return invalid('not four fields behind the family')
  const size = family === 'TCP4' ? 4 : 16
  const from = addressBytes(source!)
  if (from?.length !== size || addressBytes(destination!)?.length !== size) return invalid(`not a ${family} address`)
  if (!isPort(sourcePort!) || !isPort(destinationPort)) return invalid('not a port')
  return { kind: 'header', bytes, source: { address: addressText(from), port: Number(sourcePort) } }
}

function isPort(text: string): boolean {
  return PORT.test(text) && Number(text) <= 65_535
}

function parseV2(bytes: Uint8Array): ProxyHeaderParse {
  const command = bytes[12]
  if (command === undefined) return { kind: 'incomplete' }
  if (command >> 4 !== 2) return invalid(`version ${command >> 4} behind the signature of version 2`)
  if (command !== LOCAL && command !== PROXY) return invalid(`command ${command & 0x0f}`)
  const transport = bytes[13]
  if (transport === undefined) return { kind: 'incomplete' }
  // What LOCAL says about addresses is not for us, not even its family.
  const family = command === LOCAL ? { size: 0, address: 0 } : FAMILIES.get(transport)
  if (family === undefined) return invalid(`family and protocol 0x${transport.toString(16).padStart(2, '0')}`)
  if (bytes.length < V2_HEADER) return { kind: 'incomplete' }
  const length = (bytes[14]! << 8) | bytes[15]!
  if (length > MAX_V2_LENGTH) return invalid(`a length of ${length} bytes, limit ${MAX_V2_LENGTH}`)
  if (length < family.size) return invalid(`addresses of ${length} bytes where ${family.size} are due`)
  const end = V2_HEADER + length
  if (bytes.length < end) return { kind: 'incomplete' }
  if (family.address === 0) return { kind: 'header', bytes: end, source: null }
  const ports = V2_HEADER + 2 * family.address
  return {
    kind: 'header',
    bytes: end,
    source: {
      address: addressText(bytes.subarray(V2_HEADER, V2_HEADER + family.address)),
      port: (bytes[ports]! << 8) | bytes[ports + 1]!,
    },
  }
}

/** In the family a broker expects: IPv4 also when our socket spelled it as IPv6. */
function bytesToSend(address: string): Uint8Array {
  const zone = address.indexOf('%')
  const bytes = addressBytes(zone < 0 ? address : address.slice(0, zone))
  if (bytes === null) throw new RangeError(`not an IP address: ${JSON.stringify(address)}`)
  return addressBytes(addressText(bytes))!
}

function portToSend(port: number): number {
  if (Number.isInteger(port) && port >= 0 && port <= 65_535) return port
  throw new RangeError(`not a port: ${port}`)
}
