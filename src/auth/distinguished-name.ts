import { type DerReader, TAG } from '../registry/der.ts'

export const IA5_STRING = 0x16
const SET = 0x31
/** A name with more attributes is not read. */
const MAX_ATTRIBUTES = 256

interface Attribute {
  /** As AWS IoT calls the variable; null when there is none. */
  readonly variable: string | null
  /** In the text of a directoryName: RFC 4514 §3, in small letters as AWS IoT shows them. */
  readonly short: string
}

/** OIDs in hex of their DER contents; all but the last two are 2.5.4.n. */
// biome-ignore format: a table is read down its columns
const ATTRIBUTES: Readonly<Record<string, Attribute>> = {
  '550403': { variable: 'CommonName',                 short: 'cn' },
  '550404': { variable: 'Surname',                    short: 'sn' },
  '550405': { variable: 'SerialNumber',               short: 'serialnumber' },
  '550406': { variable: 'Country',                    short: 'c' },
  '550407': { variable: null,                         short: 'l' },
  '550408': { variable: 'State',                      short: 'st' },
  '550409': { variable: null,                         short: 'street' },
  '55040a': { variable: 'Organization',               short: 'o' },
  '55040b': { variable: 'OrganizationalUnit',         short: 'ou' },
  '55040c': { variable: 'Title',                      short: 'title' },
  '55042a': { variable: 'GivenName',                  short: 'gn' },
  '55042b': { variable: 'Initials',                   short: 'initials' },
  '55042c': { variable: 'GenerationQualifier',        short: 'generationqualifier' },
  '55042e': { variable: 'DistinguishedNameQualifier', short: 'dnqualifier' },
  '550441': { variable: 'Pseudonym',                  short: 'pseudonym' },
  // domainComponent 0.9.2342.19200300.100.1.25 and userId .1
  '0992268993f22c640119': { variable: null,           short: 'dc' },
  '0992268993f22c640101': { variable: null,           short: 'uid' },
}

type Visit = (oid: string, tag: number, contents: Uint8Array, joined: boolean) => void

/**
 * Name, RFC 5280 §4.1.2.4: the attributes that have a variable, in the order of the certificate, one value at a time. A
 * value that cannot be read is told as null.
 * @throws {RangeError}
 */
export function readName(reader: DerReader, tell: (variable: string, value: string | null) => void): void {
  eachAttribute(reader, (oid, tag, contents) => {
    const variable = ATTRIBUTES[oid]?.variable ?? null
    if (variable === null) return
    const text = readString(tag, contents)
    tell(variable, text === null ? null : escapeSpecial(text))
  })
}

/**
 * A name as one text, last attribute first (RFC 4514 §2.1): `cn=a,ou=b`. Null when it has an attribute without a short
 * name or a value that cannot be read: a text that leaves some out would stand for other names too.
 * @throws {RangeError}
 */
export function directoryName(reader: DerReader): string | null {
  const parts: string[] = []
  let readable = true
  eachAttribute(reader, (oid, tag, contents, joined) => {
    const short = ATTRIBUTES[oid]?.short
    const text = readString(tag, contents)
    if (short === undefined || text === null) readable = false
    else parts.unshift(`${short}=${escapeSpecial(text)}${joined ? '+' : ','}`)
  })
  return readable && parts.length > 0 ? parts.join('').slice(0, -1) : null
}

function eachAttribute(reader: DerReader, visit: Visit): void {
  let count = 0
  while (!reader.atEnd) {
    const set = reader.expect(SET, 'RelativeDistinguishedName').enter()
    for (let joined = false; !set.atEnd; joined = true) {
      if (++count > MAX_ATTRIBUTES) throw new RangeError('a name of too many attributes')
      const attribute = set.expect(TAG.sequence, 'AttributeTypeAndValue').enter()
      const oid = Buffer.from(attribute.expect(TAG.oid, 'type').contents()).toString('hex')
      const tag = attribute.read()
      attribute.expectEnd('the attribute')
      visit(oid, tag, attribute.contents(), joined)
    }
  }
}

const UTF8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** X.680 §41 */
const PRINTABLE = /^[A-Za-z0-9 '()+,\-./:=?]*$/
const NUMERIC = /^[0-9 ]*$/
/** Control characters: a NUL ends a text for some readers and not for others (CVE-2009-2408). */
const CONTROL = /[\0-\x1f\x7f-\x9f]/

/** How the octets of a string type are read; null when they are not of that type. */
const STRINGS: Readonly<Record<number, (octets: Uint8Array) => string | null>> = {
  12: (octets) => {
    try {
      return UTF8.decode(octets)
    } catch {
      return null
    }
  },
  18: (octets) => only(NUMERIC, ascii(octets)),
  19: (octets) => only(PRINTABLE, ascii(octets)),
  // T.61 changes its character set in mid-text; what is ASCII is the same in all of them.
  20: ascii,
  [IA5_STRING]: ascii,
  30: (octets) => {
    const text = octets.length % 2 === 0 ? Buffer.from(octets).swap16().toString('utf16le') : null
    // BMPString has no pairs: half of one is no character.
    return text === null || /[\ud800-\udfff]/.test(text) ? null : text
  },
}

/** The text of a string element; null for an encoding that is not right, an empty text, or one with control characters. */
export function readString(tag: number, octets: Uint8Array): string | null {
  const text = STRINGS[tag]?.(octets) ?? null
  return text === null || text === '' || CONTROL.test(text) ? null : text
}

function ascii(octets: Uint8Array): string | null {
  return octets.every((octet) => octet < 0x80) ? Buffer.from(octets).toString('latin1') : null
}

function only(allowed: RegExp, text: string | null): string | null {
  return text !== null && allowed.test(text) ? text : null
}

/** AWS IoT shows these with a backslash before them ("policy variable limitations"), so policies are written that way. */
export function escapeSpecial(text: string): string {
  return text.replace(/[,"\\+=<>;]/g, '\\$&')
}
