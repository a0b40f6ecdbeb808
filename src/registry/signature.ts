import { constants, type VerifyKeyObjectInput, verify, type X509Certificate } from 'node:crypto'
import { DerReader, hexOf, TAG } from './der.ts'

// Signatures on lists and certificates: which are accepted, and whether they are true.

type Hash = 'sha256' | 'sha384' | 'sha512'
export interface SignatureAlgorithm {
  readonly kind: 'rsa' | 'rsa-pss' | 'ecdsa'
  readonly hash: Hash
  /** RSASSA-PSS only, in bytes. */
  readonly saltLength: number
}

/** By the OID's contents in hex. SHA-1 and older are missing on purpose: what they signed can be forged. */
const ALGORITHMS: ReadonlyMap<string, SignatureAlgorithm> = new Map([
  ['2a864886f70d01010b', { kind: 'rsa', hash: 'sha256', saltLength: 0 }],
  ['2a864886f70d01010c', { kind: 'rsa', hash: 'sha384', saltLength: 0 }],
  ['2a864886f70d01010d', { kind: 'rsa', hash: 'sha512', saltLength: 0 }],
  ['2a8648ce3d040302', { kind: 'ecdsa', hash: 'sha256', saltLength: 0 }],
  ['2a8648ce3d040303', { kind: 'ecdsa', hash: 'sha384', saltLength: 0 }],
  ['2a8648ce3d040304', { kind: 'ecdsa', hash: 'sha512', saltLength: 0 }],
])
const RSASSA_PSS = '2a864886f70d01010a'
const MGF1 = '2a864886f70d010108'
const HASHES: ReadonlyMap<string, Hash> = new Map([
  ['608648016503040201', 'sha256'],
  ['608648016503040202', 'sha384'],
  ['608648016503040203', 'sha512'],
])

/**
 * AlgorithmIdentifier, RFC 5280 §4.1.1.2, where it is one that is accepted.
 *
 * @throws {RangeError}
 */
export function readAlgorithm(reader: DerReader): SignatureAlgorithm {
  const oid = hexOf(reader.expect(TAG.oid, 'algorithm').contents())
  if (oid === RSASSA_PSS) return readPss(reader)
  const known = ALGORITHMS.get(oid)
  if (known === undefined)
    throw new RangeError(`a signature algorithm that is not accepted (${oid}); use SHA-256 or stronger`)
  return known
}

/** RSASSA-PSS-params, RFC 4055 §3.1. The defaults mean SHA-1, so what is left out is refused. */
function readPss(algorithm: DerReader): SignatureAlgorithm {
  const params = algorithm.expect(TAG.sequence, 'RSASSA-PSS parameters').enter()
  const hashOid = hexOf(
    params
      .expect(TAG.explicit(0), 'PSS hash')
      .enter()
      .expect(TAG.sequence, 'hash')
      .enter()
      .expect(TAG.oid, 'hash')
      .contents(),
  )
  const mgf = params.expect(TAG.explicit(1), 'PSS mask').enter().expect(TAG.sequence, 'mask').enter()
  const mgfOid = hexOf(mgf.expect(TAG.oid, 'mask').contents())
  const mgfHash = hexOf(mgf.expect(TAG.sequence, 'mask hash').enter().expect(TAG.oid, 'mask hash').contents())
  const salt = params.expect(TAG.explicit(2), 'PSS salt').enter().expect(TAG.integer, 'salt').contents()
  params.expectEnd('the salt length')
  const hash = HASHES.get(hashOid)
  if (hash === undefined || mgfOid !== MGF1 || mgfHash !== hashOid || salt.length !== 1 || salt[0]! > 127) {
    throw new RangeError('RSASSA-PSS parameters that are not accepted')
  }
  return { kind: 'rsa-pss', hash, saltLength: salt[0]! }
}

/** True if the issuer's key made this signature over these octets. Never throws. */
export function isSignature(
  algorithm: SignatureAlgorithm,
  issuer: X509Certificate,
  signed: { readonly tbs: Uint8Array; readonly signature: Uint8Array },
): boolean {
  try {
    const key = issuer.publicKey
    const type = key.asymmetricKeyType
    const fits = { rsa: type === 'rsa', 'rsa-pss': type === 'rsa' || type === 'rsa-pss', ecdsa: type === 'ec' }
    if (!fits[algorithm.kind]) return false
    const input: VerifyKeyObjectInput =
      algorithm.kind === 'rsa-pss'
        ? { key, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: algorithm.saltLength }
        : { key }
    return verify(algorithm.hash, signed.tbs, input, signed.signature)
  } catch {
    // A key or signature that the library cannot even read has not signed anything.
    return false
  }
}

/** True if a certificate is signed with one of the accepted algorithms (wire specification §2.6). Never throws. */
export function isStronglySigned(der: Uint8Array): boolean {
  try {
    const certificate = new DerReader(der).expect(TAG.sequence, 'certificate').enter()
    certificate.expect(TAG.sequence, 'tbsCertificate').expect(TAG.sequence, 'signatureAlgorithm')
    readAlgorithm(certificate.enter())
    return true
  } catch (error) {
    if (error instanceof RangeError) return false
    throw error
  }
}
