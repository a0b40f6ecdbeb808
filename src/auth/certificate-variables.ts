import type { X509Certificate } from 'node:crypto'
import { isIP } from 'node:net'
import type { Variables } from '../policy/permit.ts'
import { DerReader, TAG } from '../registry/der.ts'
import { directoryName, escapeSpecial, IA5_STRING, readName, readString } from './distinguished-name.ts'

/** AWS IoT keeps so many values of one attribute (developer guide, "policy variable limitations"). */
const MAX_VALUES = 5
/** An alternative name with more entries is not read. */
const MAX_NAMES = 256

/** 2.5.29.17 and .18 */
const EXTENSIONS: Readonly<Record<string, 'Subject' | 'Issuer'>> = { '551d11': 'Subject', '551d12': 'Issuer' }

/** GeneralName, RFC 5280 §4.2.1.6: context tags, of which directoryName is explicit. */
const GENERAL_NAMES: Readonly<Record<number, string>> = {
  129: 'RFC822Name',
  130: 'DNSName',
  164: 'DirectoryName',
  134: 'UniformResourceIdentifier',
  135: 'IPAddress',
}
const DIRECTORY_NAME = 164
const IP_ADDRESS = 135

/** Name → values in the order of the certificate; null for an attribute of which one value cannot be read. */
type Fields = Map<string, string[] | null>

/**
 * `iot:Certificate.…` of a certificate, as the AWS IoT developer guide has them under "Using X.509 certificate policy
 * variables". Read at the first look-up, once. Never throws: what cannot be read has no value, and an attribute with one
 * value that cannot be read has none at all, so that the others do not take its place.
 */
export function certificateVariables(leaf: X509Certificate): Variables {
  return new CertificateVariables(leaf)
}

class CertificateVariables implements Variables {
  readonly #leaf: X509Certificate
  #known: ReadonlyMap<string, readonly string[]> | null = null

  constructor(leaf: X509Certificate) {
    this.#leaf = leaf
  }

  lookup(name: string): readonly string[] | null {
    if (!name.startsWith('iot:Certificate.')) return null
    this.#known ??= variablesOf(this.#leaf.raw)
    return this.#known.get(name) ?? null
  }
}

/** Every name that has a value, index and list included. */
export function variablesOf(der: Uint8Array): ReadonlyMap<string, readonly string[]> {
  const variables = new Map<string, readonly string[]>()
  for (const [name, all] of fieldsOf(der)) {
    if (all === null || all.length === 0) continue
    const values = all.slice(0, MAX_VALUES)
    variables.set(name, [values[0]!])
    if (name === 'iot:Certificate.SerialNumber') continue
    variables.set(`${name}.List`, values)
    // `.1` is the second value.
    for (let n = 1; n < values.length; n++) variables.set(`${name}.${n}`, [values[n]!])
  }
  const keys = [...variables.keys()].filter((name) => !/\.(?:List|\d)$/.test(name))
  if (keys.length > 0) variables.set('iot:Certificate.AvailableKeys', keys)
  return variables
}

function fieldsOf(der: Uint8Array): Fields {
  const fields: Fields = new Map()
  try {
    readCertificate(der, fields)
  } catch (error) {
    if (!(error instanceof RangeError)) throw error
    return new Map()
  }
  return fields
}

/** Certificate, RFC 5280 §4.1. @throws {RangeError} */
function readCertificate(der: Uint8Array, fields: Fields): void {
  const tbs = new DerReader(der)
    .expect(TAG.sequence, 'certificate')
    .enter()
    .expect(TAG.sequence, 'tbsCertificate')
    .enter()
  if (tbs.peek() === TAG.explicit(0)) tbs.read()
  const serial = decimal(tbs.expect(TAG.integer, 'serialNumber').contents())
  if (serial !== null) fields.set('iot:Certificate.SerialNumber', [serial])
  readName(tbs.expect(TAG.sequence, 'signature').expect(TAG.sequence, 'issuer').enter(), adder(fields, 'Issuer'))
  readName(tbs.expect(TAG.sequence, 'validity').expect(TAG.sequence, 'subject').enter(), adder(fields, 'Subject'))
  tbs.expect(TAG.sequence, 'subjectPublicKeyInfo')
  while (!tbs.atEnd) if (tbs.read() === TAG.explicit(3)) readExtensions(tbs.enter(), fields)
}

function adder(fields: Fields, side: 'Subject' | 'Issuer'): (attribute: string, value: string | null) => void {
  return (attribute, value) => add(fields, `iot:Certificate.${side}.${attribute}`, value)
}

function add(fields: Fields, name: string, value: string | null): void {
  const values = fields.get(name)
  if (value === null) fields.set(name, null)
  else if (values === undefined) fields.set(name, [value])
  else values?.push(value)
}

/** As AWS IoT writes it: in decimal. A CA may not give a negative one (RFC 5280 §4.1.2.2), so it has no value here. */
function decimal(bytes: Uint8Array): string | null {
  if (bytes.length === 0 || bytes[0]! >= 0x80 || bytes.length > 32) return null
  return BigInt(`0x${Buffer.from(bytes).toString('hex')}`).toString()
}

function readExtensions(reader: DerReader, fields: Fields): void {
  const list = reader.expect(TAG.sequence, 'extensions').enter()
  const seen = new Set<string>()
  while (!list.atEnd) {
    const extension = list.expect(TAG.sequence, 'extension').enter()
    const side = EXTENSIONS[Buffer.from(extension.expect(TAG.oid, 'extnID').contents()).toString('hex')]
    if (extension.peek() === TAG.boolean) extension.read()
    extension.expect(TAG.octetString, 'extnValue')
    if (side === undefined) continue
    // RFC 5280 §4.2: not twice. Which one would others look at?
    if (seen.has(side)) throw new RangeError('an extension that stands twice')
    seen.add(side)
    readAlternativeNames(extension.enter(), side, fields)
  }
}

function readAlternativeNames(reader: DerReader, side: 'Subject' | 'Issuer', fields: Fields): void {
  const names = reader.expect(TAG.sequence, 'GeneralNames').enter()
  for (let count = 0; !names.atEnd; count++) {
    if (count === MAX_NAMES) throw new RangeError('too many alternative names')
    const tag = names.read()
    const kind = GENERAL_NAMES[tag]
    if (kind === undefined) continue
    add(fields, `iot:Certificate.${side}.AlternativeName.${kind}`, generalName(tag, names))
  }
}

function generalName(tag: number, names: DerReader): string | null {
  if (tag === IP_ADDRESS) return address(names.contents())
  if (tag === DIRECTORY_NAME) return directoryName(names.enter().expect(TAG.sequence, 'directoryName').enter())
  const text = readString(IA5_STRING, names.contents())
  return text === null ? null : escapeSpecial(text)
}

/** Shortest form of RFC 5952, as sockets show it; null for what is neither 4 nor 16 bytes long. */
function address(bytes: Uint8Array): string | null {
  if (bytes.length === 4) return bytes.join('.')
  if (bytes.length !== 16) return null
  const groups = Array.from({ length: 8 }, (_, n) => ((bytes[2 * n]! << 8) | bytes[2 * n + 1]!).toString(16)).join(':')
  const { hostname } = new URL(`http://[${groups}]/`)
  const text = hostname.slice(1, -1)
  return isIP(text) === 6 ? text : null
}
