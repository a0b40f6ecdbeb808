import { type KeyObject, verify } from 'node:crypto'
import type { Token } from './parameters.ts'

/** AWS IoT TestInvokeAuthorizer: 1–2560 characters of base64. */
const SIGNATURE = /^[A-Za-z0-9+/]{1,2560}={0,2}$/
const MAX_SIGNATURE_CHARACTERS = 2_560

export type TokenSignature = { readonly kind: 'verified' } | { readonly kind: 'refused'; readonly detail: string }

/**
 * Whether one of the keys signed exactly these octets: RSASSA-PKCS1-v1_5 with SHA-256, as `openssl dgst -sha256 -sign`
 * makes it. AWS IoT Core developer guide, "Understanding the custom authentication workflow".
 *
 * A stranger pays for it, so a try costs at most one verification a key, and none unless the signature is as long as
 * the key's modulus. Which key it was is not on the wire.
 */
export function verifyToken(token: Token | null, signature: string | null, keys: readonly KeyObject[]): TokenSignature {
  if (token === null) return refused('no token where a signed one is asked for')
  if (signature === null) return refused('no signature of the token')
  if (!SIGNATURE.test(signature) || signature.length > MAX_SIGNATURE_CHARACTERS) {
    return refused('the signature of the token is not base64 of 1–2560 characters')
  }
  const octets = Buffer.from(signature, 'base64')
  for (const key of keys) {
    const bits = key.asymmetricKeyDetails?.modulusLength ?? 0
    if (octets.length !== Math.ceil(bits / 8)) continue
    if (verify('RSA-SHA256', token.bytes, key, octets)) return { kind: 'verified' }
  }
  return refused('no key of the authorizer made the signature of the token')
}

const refused = (detail: string): TokenSignature => ({ kind: 'refused', detail })
