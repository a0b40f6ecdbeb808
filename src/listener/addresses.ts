import { BlockList } from 'node:net'

const BYTE = /^(?:0|[1-9][0-9]{0,2})$/
const GROUP = /^[0-9a-f]{1,4}$/i
const PREFIX = /^(?:0|[1-9][0-9]{0,2})$/

/**
 * Compiles addresses and CIDR blocks (`10.0.0.0/8`, `127.0.0.1`, `::1`) to one question: is this address among them?
 *
 * An IPv4 address is the same however it is spelled: `::ffff:10.1.2.3`, as a dual-stack socket reports it, is
 * 10.1.2.3. So IPv4 is only ever matched by IPv4 entries, and `::/0` is all of IPv6 and nothing else. A zone
 * (`%eth0`) is not looked at. What is not an address is never among them.
 *
 * @throws {RangeError} for an entry that is neither an address nor a block; the message names it.
 */
export function addressMatcher(entries: readonly string[]): (address: string) => boolean {
  // One list each: a BlockList with `::/0` in it holds every IPv4 address too.
  const lists = { ipv4: new BlockList(), ipv6: new BlockList() }
  for (const entry of entries) {
    const slash = entry.indexOf('/')
    const address = addressBytes(slash < 0 ? entry : entry.slice(0, slash))
    const prefix = slash < 0 ? undefined : entry.slice(slash + 1)
    if (address === null || (prefix !== undefined && !PREFIX.test(prefix))) throw badEntry(entry)
    let length = prefix === undefined ? address.length * 8 : Number(prefix)
    if (length > address.length * 8) throw badEntry(entry)
    let network = address
    if (isMapped(address) && length >= 96) {
      network = address.subarray(12)
      length -= 96
    }
    const family = network.length === 4 ? 'ipv4' : 'ipv6'
    lists[family].addSubnet(textOf(network), length, family)
  }
  return (address) => {
    const zone = address.indexOf('%')
    const bytes = addressBytes(zone < 0 ? address : address.slice(0, zone))
    if (bytes === null) return false
    const text = addressText(bytes)
    const family = text.includes(':') ? 'ipv6' : 'ipv4'
    return lists[family].check(text, family)
  }
}

function badEntry(entry: string): RangeError {
  return new RangeError(`not an IP address or CIDR block: ${JSON.stringify(entry)}`)
}

/**
 * An address as its 4 or 16 bytes; null when the text is not one. IPv4 is four decimal numbers without leading
 * zeros, IPv6 is RFC 4291 §2.2 without a zone.
 */
export function addressBytes(text: string): Uint8Array | null {
  if (text.length > 45) return null
  if (!text.includes(':')) return ipv4Bytes(text)
  // The last 32 bits may be written as IPv4.
  const tail = text.includes('.') ? ipv4Bytes(text.slice(text.lastIndexOf(':') + 1)) : new Uint8Array(0)
  if (tail === null) return null
  const hex = tail.length === 0 ? text : text.slice(0, text.lastIndexOf(':') + 1)
  const halves = hex.split('::')
  if (halves.length > 2) return null
  const [before, after] = halves.map((half, at) => groupsOf(half, tail.length > 0 && at === halves.length - 1))
  if (before === null || before === undefined || after === null) return null
  const given = 2 * (before.length + (after?.length ?? 0)) + tail.length
  // `::` stands for at least one group of zeros.
  if (after === undefined ? given !== 16 : given > 14) return null
  const bytes = new Uint8Array(16)
  write(bytes, 0, before)
  write(bytes, 16 - tail.length - 2 * (after?.length ?? 0), after ?? [])
  bytes.set(tail, 16 - tail.length)
  return bytes
}

/** The one spelling of an address: RFC 5952 for IPv6, and IPv4 for an IPv4-mapped one. */
export function addressText(bytes: Uint8Array): string {
  return textOf(isMapped(bytes) ? bytes.subarray(12) : bytes)
}

function textOf(bytes: Uint8Array): string {
  if (bytes.length === 4) return bytes.join('.')
  const groups = Array.from({ length: 8 }, (_, at) => ((bytes[2 * at]! << 8) | bytes[2 * at + 1]!).toString(16))
  let zeros = { at: 0, length: 0 }
  for (let at = 0; at < 8; ) {
    let length = 0
    while (groups[at + length] === '0') length += 1
    if (length > zeros.length) zeros = { at, length }
    at += length + 1
  }
  // RFC 5952 §4.2.2: a lone zero is not shortened.
  if (zeros.length < 2) return groups.join(':')
  return `${groups.slice(0, zeros.at).join(':')}::${groups.slice(zeros.at + zeros.length).join(':')}`
}

/** `::ffff:a.b.c.d`, RFC 4291 §2.5.5.2. */
function isMapped(bytes: Uint8Array): boolean {
  return bytes.length === 16 && bytes.every((byte, at) => at > 11 || byte === (at < 10 ? 0 : 0xff))
}

function ipv4Bytes(text: string): Uint8Array | null {
  const parts = text.split('.')
  if (parts.length !== 4 || !parts.every((part) => BYTE.test(part) && Number(part) <= 255)) return null
  return Uint8Array.from(parts, Number)
}

/** The groups of one side of `::`; the side in front of an IPv4 tail ends with the colon that parts them. */
function groupsOf(half: string, beforeTail: boolean): number[] | null {
  if (half === '') return []
  if (beforeTail && !half.endsWith(':')) return null
  const groups = (beforeTail ? half.slice(0, -1) : half).split(':')
  return groups.every((group) => GROUP.test(group)) ? groups.map((group) => Number.parseInt(group, 16)) : null
}

function write(bytes: Uint8Array, at: number, groups: readonly number[]): void {
  for (const [index, group] of groups.entries()) {
    bytes[at + 2 * index] = group >> 8
    bytes[at + 2 * index + 1] = group & 0xff
  }
}
