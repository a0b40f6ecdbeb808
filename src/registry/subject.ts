import type { X509Certificate } from 'node:crypto'

/**
 * One attribute of a certificate's subject, by OpenSSL's short name (`CN`, `O`, `dnQualifier` …), from the library's own
 * reading and never by splitting `subject` (CVE-2021-44532). Null when there is none, or more than one (the library makes
 * an array of them), or when it is longer than 256 characters or holds control characters.
 */
export function subjectField(certificate: X509Certificate, field: string): string | null {
  const { subject } = certificate.toLegacyObject()
  // The types know six of the names; the library gives what stands there, each a text or an array of them.
  const fields = new Map<string, unknown>(Object.entries(subject ?? {}))
  const value = fields.get(field)
  if (typeof value !== 'string' || value === '' || value.length > 256) return null
  return /[\u0000-\u001f\u007f-\u009f]/.test(value) ? null : value
}
