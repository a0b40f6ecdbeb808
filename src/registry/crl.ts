import { createHash, type X509Certificate } from 'node:crypto'
import { certificateParts, DerReader, hexOf, MAX_DER_BYTES, readTime, TAG } from './der.ts'
import { isSignature, readAlgorithm, type SignatureAlgorithm } from './signature.ts'

// Certificate revocation lists, RFC 5280 §5. They are not given to the TLS library: there an expired or missing list
// fails every device, and a million entries would sit in every secure context.

/** The longest serial number that a CA may give, RFC 5280 §4.1.2.2. */
const SERIAL_BYTES = 20

export type CrlParse =
  | { readonly kind: 'list'; readonly list: RevocationList }
  | { readonly kind: 'invalid'; readonly reason: string }

export type CrlFile =
  | { readonly kind: 'lists'; readonly lists: readonly RevocationList[] }
  | { readonly kind: 'invalid'; readonly reason: string }

export type RevocationStatus = 'good' | 'revoked' | 'missing' | 'expired'

/** Extensions of a list that change nothing in what its entries mean; others are refused when critical. */
const KNOWN_EXTENSIONS: ReadonlySet<string> = new Set([
  '551d23', // authorityKeyIdentifier
  '551d14', // cRLNumber
  '551d12', // issuerAltName
])
/** Extensions that narrow what the list covers: read as a full list it would call revoked certificates good. */
const REFUSED_EXTENSIONS: ReadonlyMap<string, string> = new Map([
  ['551d1b', 'it is a delta CRL (deltaCRLIndicator); give the full list'],
  ['551d1c', 'it covers a part only (issuingDistributionPoint); give one list over all certificates of its issuer'],
])
/** reasonCode, invalidityDate, holdInstructionCode. */
const KNOWN_ENTRY_EXTENSIONS: ReadonlySet<string> = new Set(['551d15', '551d18', '551d17'])
const REASON_CODE = '551d15'
const CERTIFICATE_ISSUER = '551d1d'
/** RFC 5280 §5.3.1: the certificate is no longer revoked. */
const REMOVE_FROM_CRL = 8

/** Key usage bit cRLSign, counted from the highest of the first octet (RFC 5280 §4.2.1.3). */
const CRL_SIGN = 0x02

/** One list: who issued it, how long it counts, which serial numbers it names. */
export class RevocationList {
  /** The issuer's name as DER. */
  readonly issuer: Buffer
  /** Milliseconds since 1970. */
  readonly thisUpdate: number
  /** Null: the list does not say when the next one comes, so it does not expire. */
  readonly nextUpdate: number | null
  readonly #serials: Uint8Array
  readonly #algorithm: SignatureAlgorithm
  /** The signed octets and their signature, until a key has verified them: they are twice the size of the serials. */
  #unverified: { readonly tbs: Uint8Array; readonly signature: Uint8Array } | null
  #verifiedBy: string | null = null
  /** Keys that failed, by hash, so that a large list is not hashed for each connection. */
  readonly #refused = new Set<string>()

  constructor(fields: {
    issuer: Uint8Array
    thisUpdate: number
    nextUpdate: number | null
    serials: Uint8Array
    algorithm: SignatureAlgorithm
    tbs: Uint8Array
    signature: Uint8Array
  }) {
    this.issuer = Buffer.from(fields.issuer)
    this.thisUpdate = fields.thisUpdate
    this.nextUpdate = fields.nextUpdate
    this.#serials = fields.serials
    this.#algorithm = fields.algorithm
    this.#unverified = { tbs: fields.tbs, signature: fields.signature }
  }

  /** Number of revoked certificates. */
  get size(): number {
    return this.#serials.length / SERIAL_BYTES
  }

  /** True if the list names this serial number, given as big-endian octets. */
  has(serial: Uint8Array): boolean {
    const wanted = new Uint8Array(SERIAL_BYTES)
    if (!writeSerial(serial, 0, serial.length, wanted, 0)) return false
    let low = 0
    let high = this.size - 1
    while (low <= high) {
      const middle = (low + high) >>> 1
      const order = compareAt(this.#serials, middle * SERIAL_BYTES, wanted)
      if (order === 0) return true
      if (order < 0) low = middle + 1
      else high = middle - 1
    }
    return false
  }

  /**
   * True if this certificate's key signed the list, its subject is the list's issuer, and its key usage, where it has
   * one, allows it to sign lists (RFC 5280 §6.3.3 (f)).
   */
  isSignedBy(issuer: X509Certificate): boolean {
    const parts = certificateParts(issuer.raw)
    if (parts === null || !this.issuer.equals(parts.subject)) return false
    if (parts.keyUsage !== null && (parts.keyUsage & CRL_SIGN) === 0) return false
    const key = createHash('sha256').update(parts.spki).digest('base64')
    if (this.#verifiedBy === key) return true
    if (this.#unverified === null || this.#refused.has(key)) return false
    if (!isSignature(this.#algorithm, issuer, this.#unverified)) {
      if (this.#refused.size >= 64) this.#refused.clear()
      this.#refused.add(key)
      return false
    }
    this.#verifiedBy = key
    this.#unverified = null
    return true
  }
}

/** Lists of many issuers, and the one question asked of them. */
export class RevocationLists {
  readonly #byIssuer = new Map<string, RevocationList[]>()

  /** @param issuers CAs known beforehand; a list that one of them signed is verified now instead of at the first device. */
  constructor(lists: readonly RevocationList[], issuers: readonly X509Certificate[] = []) {
    for (const list of lists) {
      const name = list.issuer.toString('base64')
      const same = this.#byIssuer.get(name) ?? []
      same.push(list)
      // Newest first: the newest full list of a key is the one that counts.
      same.sort((a, b) => b.thisUpdate - a.thisUpdate)
      this.#byIssuer.set(name, same)
      for (const issuer of issuers) if (list.isSignedBy(issuer)) break
    }
  }

  /**
   * What the issuer's list says of a serial number. A list past its nextUpdate still revokes what it names: time does
   * not make a revoked certificate good, it only leaves the others in doubt.
   *
   * @param serial big-endian octets, sign octet or not
   */
  statusOf(issuer: X509Certificate, serial: Uint8Array, now: Date = new Date()): RevocationStatus {
    const parts = certificateParts(issuer.raw)
    if (parts === null) return 'missing'
    // Two CAs may share a name and not a key (a rollover), so a list counts only for the key that signed it.
    const named = this.#byIssuer.get(Buffer.from(parts.subject).toString('base64')) ?? []
    const list = named.find((candidate) => candidate.isSignedBy(issuer))
    if (list === undefined) return 'missing'
    if (list.has(serial)) return 'revoked'
    return list.nextUpdate !== null && list.nextUpdate < now.getTime() ? 'expired' : 'good'
  }
}

/** A file as operators keep it: DER, or PEM with one list or several. */
export function readCrlFile(bytes: Uint8Array): CrlFile {
  if (bytes.length > 2 * MAX_DER_BYTES) return { kind: 'invalid', reason: 'the file is larger than 512 MiB' }
  const lists: RevocationList[] = []
  const found = bytes[0] === TAG.sequence ? [bytes] : pemBlocks(bytes)
  if (found === null) return { kind: 'invalid', reason: 'a PEM block is not base64 or has no end' }
  if (found.length === 0) return { kind: 'invalid', reason: 'neither DER nor PEM («-----BEGIN X509 CRL-----»)' }
  for (const der of found) {
    const parse = parseCrl(der)
    if (parse.kind === 'invalid') return parse
    lists.push(parse.list)
  }
  return { kind: 'lists', lists }
}

const BEGIN = '-----BEGIN X509 CRL-----'
const END = '-----END X509 CRL-----'

function pemBlocks(bytes: Uint8Array): Uint8Array[] | null {
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const blocks: Uint8Array[] = []
  for (let at = text.indexOf(BEGIN); at !== -1; at = text.indexOf(BEGIN, at)) {
    const end = text.indexOf(END, at)
    if (end === -1) return null
    const body = text.subarray(at + BEGIN.length, end)
    const der = Buffer.from(body.toString('latin1'), 'base64')
    // Node's decoder skips what it does not know; the length tells whether it did.
    if (der.length !== decodedLength(body)) return null
    blocks.push(der)
    at = end
  }
  return blocks
}

/** Octets that this much base64 stands for, white space aside; -1 when it is not a multiple of four characters. */
function decodedLength(body: Uint8Array): number {
  let characters = 0
  let padding = 0
  for (let n = 0; n < body.length; n++) {
    const octet = body[n]!
    if (octet === 0x0a || octet === 0x0d || octet === 0x20 || octet === 0x09) continue
    characters++
    if (octet === 0x3d) padding++
  }
  return characters % 4 === 0 && padding <= 2 ? (characters / 4) * 3 - padding : -1
}

/** CertificateList, RFC 5280 §5.1. The list is not verified by this: that needs its issuer. Never throws. */
export function parseCrl(der: Uint8Array): CrlParse {
  try {
    return { kind: 'list', list: readList(der) }
  } catch (error) {
    if (error instanceof RangeError) return { kind: 'invalid', reason: error.message }
    throw error
  }
}

function readList(der: Uint8Array): RevocationList {
  const file = new DerReader(der)
  const outer = file.expect(TAG.sequence, 'CertificateList').enter()
  file.expectEnd('the list')
  const tbs = outer.expect(TAG.sequence, 'tbsCertList').element()
  const fields = outer.enter()
  const signedWith = outer.expect(TAG.sequence, 'signatureAlgorithm').element()
  const algorithm = readAlgorithm(outer.enter())
  const bits = outer.expect(TAG.bitString, 'signatureValue').contents()
  outer.expectEnd('the signature')
  if (bits.length < 2 || bits[0] !== 0) throw new RangeError('a signature that is no whole number of octets')

  let version = 1
  if (fields.peek() === TAG.integer) {
    fields.read()
    const contents = fields.contents()
    if (contents.length !== 1 || contents[0] !== 1) throw new RangeError('a CRL version other than 1 and 2')
    version = 2
  }
  const inner = fields.expect(TAG.sequence, 'signature').element()
  // RFC 5280 §5.1.1.2: both must be the same, since only this one is signed.
  if (!Buffer.from(inner).equals(signedWith)) throw new RangeError('the two signature algorithms differ')
  const issuer = fields.expect(TAG.sequence, 'issuer').element()
  const thisUpdate = readTime(fields)
  const next = fields.peek()
  const nextUpdate = next === TAG.utcTime || next === TAG.generalizedTime ? readTime(fields) : null
  let serials: Uint8Array = new Uint8Array(0)
  if (fields.peek() === TAG.sequence) {
    fields.read()
    serials = readEntries(fields, version)
  }
  if (fields.peek() === TAG.explicit(0)) {
    if (version === 1) throw new RangeError('extensions in a CRL of version 1')
    fields.read()
    checkExtensions(fields.enter())
  }
  fields.expectEnd('the extensions')
  return new RevocationList({ issuer, thisUpdate, nextUpdate, serials, algorithm, tbs, signature: bits.subarray(1) })
}

/** revokedCertificates as sorted serial numbers. Two passes over the octets, so that nothing has to grow. */
function readEntries(fields: DerReader, version: number): Uint8Array {
  let count = 0
  for (const list = fields.enter(); !list.atEnd; count++) list.expect(TAG.sequence, 'entry')
  const serials = new Uint8Array(count * SERIAL_BYTES)
  const list = fields.enter()
  const entry = fields.enter()
  let kept = 0
  while (!list.atEnd) {
    list.read()
    entry.reenter(list).expect(TAG.integer, 'serial number')
    const { contentStart, contentEnd } = entry
    if (contentStart === contentEnd) throw new RangeError('an empty serial number')
    if (!writeSerial(entry.bytes, contentStart, contentEnd, serials, kept * SERIAL_BYTES)) {
      throw new RangeError('a serial number longer than 20 octets')
    }
    const dated = entry.read()
    if (dated !== TAG.utcTime && dated !== TAG.generalizedTime) throw new RangeError('an entry without its date')
    let revoked = true
    if (!entry.atEnd) {
      if (version === 1) throw new RangeError('entry extensions in a CRL of version 1')
      revoked = isRevoked(entry.expect(TAG.sequence, 'entry extensions').enter())
      entry.expectEnd('an entry')
    }
    if (revoked) kept++
  }
  return sorted(serials.subarray(0, kept * SERIAL_BYTES))
}

/** False for removeFromCRL. What changes whose certificate an entry means is refused. */
function isRevoked(extensions: DerReader): boolean {
  let revoked = true
  eachExtension(extensions, (oid, critical, value) => {
    if (oid === CERTIFICATE_ISSUER)
      throw new RangeError('it is an indirect CRL (certificateIssuer); give the list of each CA')
    if (critical && !KNOWN_ENTRY_EXTENSIONS.has(oid))
      throw new RangeError(`an unknown critical entry extension (${oid})`)
    if (oid !== REASON_CODE) return
    const code = value.expect(TAG.enumerated, 'reasonCode').contents()
    if (code.length === 1 && code[0] === REMOVE_FROM_CRL) revoked = false
  })
  return revoked
}

function checkExtensions(explicit: DerReader): void {
  const list = explicit.expect(TAG.sequence, 'extensions').enter()
  explicit.expectEnd('the extensions')
  eachExtension(list, (oid, critical) => {
    const refusal = REFUSED_EXTENSIONS.get(oid)
    if (refusal !== undefined) throw new RangeError(refusal)
    if (critical && !KNOWN_EXTENSIONS.has(oid)) throw new RangeError(`an unknown critical extension (${oid})`)
  })
}

function eachExtension(list: DerReader, visit: (oid: string, critical: boolean, value: DerReader) => void): void {
  while (!list.atEnd) {
    const extension = list.expect(TAG.sequence, 'extension').enter()
    const oid = hexOf(extension.expect(TAG.oid, 'extnID').contents())
    let critical = false
    if (extension.peek() === TAG.boolean) {
      extension.read()
      critical = extension.contents().some((octet) => octet !== 0)
    }
    const value = extension.expect(TAG.octetString, 'extnValue').enter()
    extension.expectEnd('an extension')
    visit(oid, critical, value)
  }
}

/** Copies a serial number right-aligned into 20 octets; false if it is longer. The sign octet of an INTEGER is dropped. */
function writeSerial(from: Uint8Array, start: number, end: number, to: Uint8Array, at: number): boolean {
  while (start < end && from[start] === 0) start++
  const length = end - start
  if (length > SERIAL_BYTES) return false
  // The place may hold an entry that was dropped.
  to.fill(0, at, at + SERIAL_BYTES - length)
  for (let n = 0; n < length; n++) to[at + SERIAL_BYTES - length + n] = from[start + n]!
  return true
}

function compareAt(serials: Uint8Array, at: number, wanted: Uint8Array): number {
  for (let n = 0; n < SERIAL_BYTES; n++) {
    const difference = serials[at + n]! - wanted[n]!
    if (difference !== 0) return difference
  }
  return 0
}

/** Radix sort from the last octet to the first: linear, and without a comparison function called twenty million times. */
function sorted(serials: Uint8Array): Uint8Array {
  const count = serials.length / SERIAL_BYTES
  let order = new Uint32Array(count)
  let next = new Uint32Array(count)
  for (let n = 0; n < count; n++) order[n] = n
  const starts = new Uint32Array(257)
  for (let octet = SERIAL_BYTES - 1; octet >= 0; octet--) {
    starts.fill(0)
    for (let at = octet; at < serials.length; at += SERIAL_BYTES) starts[serials[at]! + 1]!++
    // All the same in this place, as in the padding of short serials: nothing would move.
    if (starts.indexOf(count, 1) !== -1) continue
    for (let value = 1; value < 257; value++) starts[value]! += starts[value - 1]!
    for (let n = 0; n < count; n++) {
      const from = order[n]!
      next[starts[serials[from * SERIAL_BYTES + octet]!]!++] = from
    }
    const swap = order
    order = next
    next = swap
  }
  const result = new Uint8Array(serials.length)
  for (let n = 0; n < count; n++) {
    const from = order[n]! * SERIAL_BYTES
    for (let octet = 0; octet < SERIAL_BYTES; octet++) result[n * SERIAL_BYTES + octet] = serials[from + octet]!
  }
  return result
}
