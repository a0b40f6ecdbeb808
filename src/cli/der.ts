import forge from 'node-forge'

// Writes DER, X.690 §10, as far as certificates and revocation lists need it; `../registry/der.ts` reads it. Object
// identifiers and times are encoded by node-forge.

const { asn1 } = forge

export function oid(dotted: string): Buffer {
  return tlv(0x06, Buffer.from(asn1.oidToDer(dotted).getBytes(), 'latin1'))
}

/** A positive INTEGER in as few octets as it needs. */
export function integer(magnitude: Buffer): Buffer {
  let from = 0
  while (from < magnitude.length - 1 && magnitude[from] === 0) from++
  const minimal = magnitude.subarray(from)
  return minimal[0]! >= 0x80 ? tlv(0x02, Buffer.from([0]), minimal) : tlv(0x02, minimal)
}

export function bitString(bytes: Buffer): Buffer {
  return tlv(0x03, Buffer.from([0]), bytes)
}

export function encode(tree: forge.asn1.Asn1): Buffer {
  return Buffer.from(asn1.toDer(tree).getBytes(), 'latin1')
}

/** Tag, definite length, contents (X.690 §8.1, §10.1). */
export function tlv(tag: number, ...contents: readonly Uint8Array[]): Buffer {
  let length = 0
  for (const content of contents) length += content.length
  const head = [tag]
  if (length < 0x80) head.push(length)
  else {
    const digits: number[] = []
    for (let rest = length; rest > 0; rest = Math.floor(rest / 256)) digits.unshift(rest % 256)
    head.push(0x80 | digits.length, ...digits)
  }
  return Buffer.concat([Buffer.from(head), ...contents])
}

/** UTCTime through 2049, GeneralizedTime after that (RFC 5280 §4.1.2.5). Whole seconds, as both forms demand. */
export function time(date: Date): Buffer {
  const year = date.getUTCFullYear()
  return year >= 1950 && year < 2050
    ? tlv(0x17, Buffer.from(asn1.dateToUtcTime(date), 'latin1'))
    : tlv(0x18, Buffer.from(asn1.dateToGeneralizedTime(date), 'latin1'))
}

export function toPem(label: string, der: Buffer): string {
  const lines = der.toString('base64').replace(/.{64}(?=.)/g, '$&\n')
  return `-----BEGIN ${label}-----\n${lines}\n-----END ${label}-----\n`
}
