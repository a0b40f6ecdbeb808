import { type KeyObject, sign } from 'node:crypto'
import { integer, oid, tlv } from './der.ts'

// Signature algorithms of certificates and revocation lists: how each is written (RFC 5280 §4.1.1.2), and its signing.

const RSA_OIDS = {
  sha1: '1.2.840.113549.1.1.5',
  sha256: '1.2.840.113549.1.1.11',
  sha384: '1.2.840.113549.1.1.12',
  sha512: '1.2.840.113549.1.1.13',
} as const
const ECDSA_OIDS = {
  sha1: '1.2.840.10045.4.1',
  sha256: '1.2.840.10045.4.3.2',
  sha384: '1.2.840.10045.4.3.3',
  sha512: '1.2.840.10045.4.3.4',
} as const
const HASH_OIDS = {
  sha1: '1.3.14.3.2.26',
  sha256: '2.16.840.1.101.3.4.2.1',
  sha384: '2.16.840.1.101.3.4.2.2',
  sha512: '2.16.840.1.101.3.4.2.3',
} as const
const HASH_BYTES = { sha1: 20, sha256: 32, sha384: 48, sha512: 64 } as const

export function signatureAlgorithm(
  key: KeyObject,
  hash: keyof typeof RSA_OIDS,
  pss: boolean,
): { readonly der: Buffer; readonly sign: (tbs: Buffer) => Buffer } {
  const asNull = Buffer.from('0500', 'hex')
  if (key.asymmetricKeyType === 'rsa' && pss) {
    // RSASSA-PSS-params, RFC 4055 §3.1: hash, MGF1 with the same hash, a salt as long as the hash.
    const hashAlgorithm = tlv(0x30, oid(HASH_OIDS[hash]), asNull)
    const mgf = tlv(0x30, oid('1.2.840.113549.1.1.8'), hashAlgorithm)
    const saltLength = integer(Buffer.from([HASH_BYTES[hash]]))
    const params = tlv(0x30, tlv(0xa0, hashAlgorithm), tlv(0xa1, mgf), tlv(0xa2, saltLength))
    // 6 is RSA_PKCS1_PSS_PADDING.
    const padded = { key, padding: 6, saltLength: HASH_BYTES[hash] }
    return { der: tlv(0x30, oid('1.2.840.113549.1.1.10'), params), sign: (tbs) => sign(hash, tbs, padded) }
  }
  if (key.asymmetricKeyType === 'rsa') {
    return { der: tlv(0x30, oid(RSA_OIDS[hash]), asNull), sign: (tbs) => sign(hash, tbs, key) }
  }
  // ECDSA parameters are absent, not NULL (RFC 5758 §3.2).
  return { der: tlv(0x30, oid(ECDSA_OIDS[hash])), sign: (tbs) => sign(hash, tbs, key) }
}
