import { createHash, type X509Certificate } from 'node:crypto'
import { certificateParts } from './der.ts'
import { isStronglySigned } from './signature.ts'
import type { Template } from './template.ts'

/** What happens to an unknown device whose certificate this CA signed. */
export type AutoRegister =
  | { readonly kind: 'no' }
  /** It is written down as PENDING_ACTIVATION and waits for somebody to activate it. */
  | { readonly kind: 'pending' }
  /** It becomes ACTIVE with what the template makes of its subject. */
  | { readonly kind: 'template'; readonly template: Template }

export interface RegisteredCa {
  /** SHA-256 of the DER, 64 lower-case hex digits: what AWS calls caCertificateId. */
  readonly id: string
  readonly certificate: X509Certificate
  readonly status: 'ACTIVE' | 'INACTIVE'
  readonly autoRegister: AutoRegister
  /** Devices that are registered by themselves in one minute. */
  readonly maxPerMinute: number
}

/** Finds the ACTIVE CA whose key signed a certificate, as `Registry.issuerOf`. */
export function issuerFinder(
  cas: Iterable<RegisteredCa>,
  now: () => number = Date.now,
): (certificate: X509Certificate) => RegisteredCa | null {
  const bySubject = new Map<string, RegisteredCa[]>()
  for (const ca of cas) {
    const parts = certificateParts(ca.certificate.raw)
    if (parts === null || ca.status !== 'ACTIVE') continue
    const name = nameKey(parts.subject)
    bySubject.set(name, [...(bySubject.get(name) ?? []), ca])
  }
  return (certificate) => {
    const parts = certificateParts(certificate.raw)
    const named = parts === null ? undefined : bySubject.get(nameKey(parts.issuer))
    // What SHA-1 signed could have been made to fit by a stranger.
    if (named === undefined || !isStronglySigned(certificate.raw)) return null
    return named.find((ca) => isWithinDates(ca.certificate, now()) && hasSigned(ca.certificate, certificate)) ?? null
  }
}

function hasSigned(ca: X509Certificate, certificate: X509Certificate): boolean {
  // Name, authorityKeyIdentifier and key usage; then the signature itself.
  if (!certificate.checkIssued(ca)) return false
  try {
    return certificate.verify(ca.publicKey)
  } catch {
    return false
  }
}

function isWithinDates(certificate: X509Certificate, now: number): boolean {
  // Written so that a date the library cannot tell (NaN) refuses.
  return certificate.validFromDate.getTime() <= now && now <= certificate.validToDate.getTime()
}

function nameKey(name: Uint8Array): string {
  return createHash('sha256').update(name).digest('base64')
}
