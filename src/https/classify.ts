import type { FailureCode } from '../errors.ts'
import type { Admission } from '../tls/admission.ts'

/** What the request carries that could prove something; asked only where a row could use it. */
export interface Material {
  readonly sigV4: () => boolean
  readonly custom: () => boolean
  readonly defaultAuthorizer: () => boolean
}

export type Way =
  /** `proved` false: the upgrade goes through, and CONNECT has to prove who it is. */
  | { readonly kind: 'way'; readonly row: Admission; readonly proved: boolean }
  | { readonly kind: 'refused'; readonly code: Extract<FailureCode, 'ERR_CREDENTIALS_ABSENT' | 'ERR_HTTP_NOT_FOUND'> }

/**
 * Steps 1 to 6 of the wire specification §1.2: which of the rows that the ClientHello left open this request takes.
 * A domain that fixes its authentication has one row, and material of another kind is nothing to it.
 */
export function classify(rows: readonly Admission[], protocol: 'wss' | 'https', material: Material): Way {
  const open = rows.filter((row) => row.protocol === protocol)
  if (open.length === 0) return { kind: 'refused', code: 'ERR_HTTP_NOT_FOUND' }

  const certified = open.find((row) => row.auth === 'x509' || row.auth === 'custom-x509')
  if (certified !== undefined) return { kind: 'way', row: certified, proved: true }

  const sigV4 = open.find((row) => row.auth === 'sigv4')
  if (sigV4 !== undefined && material.sigV4()) return { kind: 'way', row: sigV4, proved: true }

  const custom = open.find((row) => row.auth === 'custom')
  if (custom !== undefined) {
    if (material.custom()) return { kind: 'way', row: custom, proved: true }
    // Also with a default authorizer: SDKs send nothing in the upgrade, and asking it there would refuse them.
    if (protocol === 'wss') return { kind: 'way', row: custom, proved: false }
    if (material.defaultAuthorizer()) return { kind: 'way', row: custom, proved: true }
  }
  return { kind: 'refused', code: 'ERR_CREDENTIALS_ABSENT' }
}
