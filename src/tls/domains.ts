import type { SecureContext } from 'node:tls'
import type { Admission } from './admission.ts'

export type TrustMode = 'registry' | 'ca' | 'registry-or-ca' | 'registry-and-ca'

/** One server name's settings, ready to serve: what AWS calls a domain configuration. */
export interface Domain {
  /** First of its server names; the `domain` in logs. */
  readonly name: string
  readonly enabled: boolean
  /** Rows that this domain serves; ask `admissionsFor`. */
  readonly admissions: readonly Admission[]
  /** True when the port × ALPN table decides (`DEFAULT`), false when the domain fixes protocol and authentication. */
  readonly byAlpn: boolean
  /** Name of its backend. */
  readonly backend: string
  /** The one cached context of (name, policy, generation), with or without a client certificate asked for. */
  context(): SecureContext
}
