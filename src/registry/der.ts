/** Nesting of a certificate is about eight; more than this is an attempt on the stack. */
const MAX_DEPTH = 16
/** Larger than any CRL worth holding in memory; keeps every sum below in safe integers. */
export const MAX_DER_BYTES = 256 * 1024 * 1024

/** Tags as they stand on the wire, X.690 §8.1.2: class, constructed bit, number. */
export const TAG = {
  boolean: 0x01,
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  oid: 0x06,
  enumerated: 0x0a,
  utcTime: 0x17,
  generalizedTime: 0x18,
  sequence: 0x30,
  /** [n] constructed, as EXPLICIT tags are. */
  explicit: (n: number): number => 0xa0 | n,
} as const

/**
 * Reads DER (X.690 §10) element by element. It knows one-octet tags and definite lengths in their shortest form, which
 * is all that X.509 uses; everything else is refused, so that one value has one encoding here. It never looks past the
 * end of what it was given and makes no object per element: after `read`, the fields tell where the element lies.
 *
 * @throws {RangeError} from every method, and nothing else; the functions that callers use turn it into an answer.
 */
export class DerReader {
  readonly bytes: Uint8Array
  /** Of the element last read: offsets into `bytes`. */
  start = 0
  contentStart = 0
  contentEnd = 0
  #at: number
  #end: number
  readonly #depth: number

  constructor(bytes: Uint8Array, from = 0, end: number = bytes.length, depth = 0) {
    if (bytes.length > MAX_DER_BYTES) throw new RangeError('longer than 256 MiB')
    if (depth > MAX_DEPTH) throw new RangeError('nested too deeply')
    if (from < 0 || from > end || end > bytes.length) throw new RangeError('outside of the data')
    this.bytes = bytes
    this.#at = from
    this.#end = end
    this.#depth = depth
  }

  get atEnd(): boolean {
    return this.#at >= this.#end
  }

  /** The next element's tag; -1 at the end, which no element has. */
  peek(): number {
    return this.#at < this.#end ? this.bytes[this.#at]! : -1
  }

  /** Steps over the next element and returns its tag. */
  read(): number {
    const { bytes } = this
    const end = this.#end
    let at = this.#at
    if (at + 2 > end) throw new RangeError('data ends within an element')
    const tag = bytes[at]!
    if ((tag & 0x1f) === 0x1f) throw new RangeError('a tag of more than one octet')
    let length = bytes[at + 1]!
    at += 2
    if (length >= 0x80) {
      const digits = length & 0x7f
      if (digits === 0) throw new RangeError('an indefinite length')
      if (digits > 4) throw new RangeError('a length of more than four octets')
      if (at + digits > end) throw new RangeError('data ends within a length')
      length = 0
      for (let n = 0; n < digits; n++) length = length * 256 + bytes[at + n]!
      at += digits
      if (length < 0x80 || (digits > 1 && length < 256 ** (digits - 1)))
        throw new RangeError('a length not in its shortest form')
    }
    if (length > end - at) throw new RangeError('an element longer than what holds it')
    this.start = this.#at
    this.contentStart = at
    this.contentEnd = at + length
    this.#at = this.contentEnd
    return tag
  }

  /** The next element, which must have this tag. */
  expect(tag: number, what: string): this {
    if (this.peek() !== tag) throw new RangeError(`no ${what} where one must be`)
    this.read()
    return this
  }

  /** Nothing may follow: what a reader skips, another might read. */
  expectEnd(what: string): void {
    if (!this.atEnd) throw new RangeError(`more after ${what}`)
  }

  /** A reader of the contents of the element last read. */
  enter(): DerReader {
    return new DerReader(this.bytes, this.contentStart, this.contentEnd, this.#depth + 1)
  }

  /** Sets this reader on the contents of the element that `outer` last read: `enter` without an allocation. */
  reenter(outer: DerReader): this {
    if (outer.bytes !== this.bytes) throw new RangeError('a reader of other data')
    this.#at = outer.contentStart
    this.#end = outer.contentEnd
    return this
  }

  /** The element last read, tag and length included: a view, not a copy. */
  element(): Uint8Array {
    return this.bytes.subarray(this.start, this.contentEnd)
  }

  /** The contents of the element last read: a view, not a copy. */
  contents(): Uint8Array {
    return this.bytes.subarray(this.contentStart, this.contentEnd)
  }
}

/** The octets of a certificate by which it is recognized. Views into the certificate, not copies. */
export interface CertificateParts {
  /** The signed part, tag and length included; the same in every twin (r, n − s) of an ECDSA signature. */
  readonly tbs: Uint8Array
  /** The INTEGER's contents. */
  readonly serial: Uint8Array
  /** Names as elements, tag and length included. */
  readonly issuer: Uint8Array
  readonly subject: Uint8Array
  readonly spki: Uint8Array
  /** First octet of the key usage bits (RFC 5280 §4.2.1.3); null when the extension is absent. */
  readonly keyUsage: number | null
}

/** 2.5.29.15 */
const KEY_USAGE = Buffer.from('551d0f', 'hex')

/** Certificate, RFC 5280 §4.1; null when the octets are not one in DER. Never throws. */
export function certificateParts(der: Uint8Array): CertificateParts | null {
  try {
    const file = new DerReader(der)
    const certificate = file.expect(TAG.sequence, 'certificate').enter()
    file.expectEnd('the certificate')
    const tbs = certificate.expect(TAG.sequence, 'tbsCertificate').element()
    const fields = certificate.enter()
    certificate.expect(TAG.sequence, 'signatureAlgorithm').expect(TAG.bitString, 'signature').expectEnd('the signature')

    if (fields.peek() === TAG.explicit(0)) fields.read()
    const serial = fields.expect(TAG.integer, 'serialNumber').contents()
    if (serial.length === 0) throw new RangeError('an empty serial number')
    const issuer = fields.expect(TAG.sequence, 'signature').expect(TAG.sequence, 'issuer').element()
    const subject = fields.expect(TAG.sequence, 'validity').expect(TAG.sequence, 'subject').element()
    const spki = fields.expect(TAG.sequence, 'subjectPublicKeyInfo').element()
    let keyUsage: number | null = null
    while (!fields.atEnd) {
      // issuerUniqueID and subjectUniqueID ([1], [2]) may stand before the extensions.
      if (fields.read() === TAG.explicit(3)) keyUsage = keyUsageOf(fields.enter())
    }
    return { tbs, serial, issuer, subject, spki, keyUsage }
  } catch (error) {
    if (error instanceof RangeError) return null
    throw error
  }
}

function keyUsageOf(reader: DerReader): number | null {
  const list = reader.expect(TAG.sequence, 'extensions').enter()
  let found: number | null = null
  while (!list.atEnd) {
    const extension = list.expect(TAG.sequence, 'extension').enter()
    const oid = extension.expect(TAG.oid, 'extnID').contents()
    if (extension.peek() === TAG.boolean) extension.read()
    extension.expect(TAG.octetString, 'extnValue')
    if (!KEY_USAGE.equals(oid)) continue
    const bits = extension.enter().expect(TAG.bitString, 'keyUsage').contents()
    // The first octet counts the unused bits; a usage of no bits at all allows nothing.
    found = bits[1] ?? 0
  }
  return found
}

/**
 * Time as RFC 5280 §4.1.2.5 allows it: UTCTime with seconds and `Z`, or GeneralizedTime with seconds, `Z` and no
 * fraction. Milliseconds since 1970.
 */
export function readTime(reader: DerReader): number {
  const tag = reader.read()
  const text = String.fromCharCode(...reader.contents().subarray(0, 16))
  if (tag === TAG.utcTime && /^\d{12}Z$/.test(text)) {
    const year = Number(text.slice(0, 2))
    return timeOf(year < 50 ? 2000 + year : 1900 + year, text.slice(2))
  }
  if (tag === TAG.generalizedTime && /^\d{14}Z$/.test(text)) return timeOf(Number(text.slice(0, 4)), text.slice(4))
  throw new RangeError('a time in no form that RFC 5280 allows')
}

function timeOf(year: number, rest: string): number {
  const part = (at: number) => Number(rest.slice(at, at + 2))
  const time = Date.UTC(year, part(0) - 1, part(2), part(4), part(6), part(8))
  // Date.UTC carries a 31st of February over into March; the text must come out as it went in.
  const back = new Date(time)
  const same =
    Number.isFinite(time) &&
    back.getUTCMonth() === part(0) - 1 &&
    back.getUTCDate() === part(2) &&
    back.getUTCHours() === part(4) &&
    back.getUTCMinutes() === part(6) &&
    back.getUTCSeconds() === part(8)
  if (!same) throw new RangeError('a time that does not exist')
  return time
}

/** For comparison with a table. */
export function hexOf(bytes: Uint8Array): string {
  // An identifier is a few octets; a longer one is cut, and known to no table.
  return Buffer.from(bytes.subarray(0, 32)).toString('hex')
}
