import { X509Certificate } from 'node:crypto'
import forge from 'node-forge'

export * from '../../src/cli/pki.ts'
export { randomFrom } from './random.ts'

/** Order of the base point of P-256, FIPS 186-5. */
const N = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n

/**
 * The same certificate with the signature (r, n − s): as valid as (r, s), made without any key, and with another
 * fingerprint. The signer's key must be P-256.
 */
export function malleate(certificate: string | Uint8Array): { readonly pem: string; readonly cert: X509Certificate } {
  const { asn1 } = forge
  const raw = new X509Certificate(certificate).raw
  // Bit strings must stay as they are: forge would look into them and write what it saw.
  const options = { strict: true, decodeBitStrings: false } as unknown as boolean
  const tree = asn1.fromDer(raw.toString('latin1'), options)
  const holder = (tree.value as forge.asn1.Asn1[])[2]!
  const signature = asn1.fromDer((holder.value as string).slice(1))
  const s = (signature.value as forge.asn1.Asn1[])[1]!
  const hex = (N - BigInt(`0x${Buffer.from(s.value as string, 'latin1').toString('hex')}`)).toString(16)
  const bytes = Buffer.from(hex.length % 2 === 0 ? hex : `0${hex}`, 'hex')
  s.value = Buffer.concat([Buffer.alloc(bytes[0]! >= 0x80 ? 1 : 0), bytes]).toString('latin1')
  holder.value = `\0${asn1.toDer(signature).getBytes()}`
  const cert = new X509Certificate(Buffer.from(asn1.toDer(tree).getBytes(), 'latin1'))
  return { pem: cert.toString(), cert }
}
