import { getCiphers } from 'node:tls'

/** The TLS library underneath: Node has OpenSSL, Bun has BoringSSL. They differ in suites and in what can be limited. */
export type TlsRuntime = 'openssl' | 'boringssl'

export type TlsVersion = 'TLSv1.2' | 'TLSv1.3'

export const TLS_RUNTIME: TlsRuntime =
  process.versions.bun !== undefined || process.versions.boringssl !== undefined ? 'boringssl' : 'openssl'

interface Policy {
  readonly minVersion: TlsVersion
  readonly maxVersion: TlsVersion
  /** In the server's order of preference, which decides. */
  readonly suites: readonly string[]
  /**
   * Suites that the table grants on port 443 only. A context belongs to a domain and serves all its ports, so they
   * are offered on none: stricter than the table on one port instead of laxer on two. They are told as missing.
   */
  readonly only443: readonly string[]
}

const TLS13 = ['TLS_AES_128_GCM_SHA256', 'TLS_AES_256_GCM_SHA384', 'TLS_CHACHA20_POLY1305_SHA256'] as const

/** TLS 1.2 with forward secrecy: common to all policies that allow 1.2. */
const ECDHE = [
  'ECDHE-ECDSA-AES128-GCM-SHA256',
  'ECDHE-RSA-AES128-GCM-SHA256',
  'ECDHE-ECDSA-AES256-GCM-SHA384',
  'ECDHE-RSA-AES256-GCM-SHA384',
  'ECDHE-ECDSA-AES128-SHA256',
  'ECDHE-RSA-AES128-SHA256',
  'ECDHE-ECDSA-AES128-SHA',
  'ECDHE-RSA-AES128-SHA',
  'ECDHE-ECDSA-AES256-SHA384',
  'ECDHE-RSA-AES256-SHA384',
  'ECDHE-ECDSA-AES256-SHA',
  'ECDHE-RSA-AES256-SHA',
] as const

/** TLS 1.2 with RSA key exchange, for devices that know nothing better. */
const RSA = ['AES128-GCM-SHA256', 'AES128-SHA256', 'AES128-SHA', 'AES256-GCM-SHA384', 'AES256-SHA256', 'AES256-SHA']

/** The named policies of the AWS IoT Core developer guide, "TLS security policies" (wire specification §1.5). */
// biome-ignore format: a table is read down its columns
export const POLICIES = {
  IoTSecurityPolicy_TLS13_1_3_2022_10: { minVersion: 'TLSv1.3', maxVersion: 'TLSv1.3', suites: TLS13,                                                      only443: [] },
  IoTSecurityPolicy_TLS13_1_2_2022_10: { minVersion: 'TLSv1.2', maxVersion: 'TLSv1.3', suites: [...TLS13, ...ECDHE, ...RSA],                               only443: [] },
  IoTSecurityPolicy_TLS12_1_2_2022_10: { minVersion: 'TLSv1.2', maxVersion: 'TLSv1.2', suites: [...ECDHE, ...RSA],                                         only443: [] },
  IoTSecurityPolicy_TLS12_1_0_2016_01: { minVersion: 'TLSv1.2', maxVersion: 'TLSv1.2', suites: [...ECDHE, ...RSA],                                         only443: ['AES128-SHA256'] },
  IoTSecurityPolicy_TLS12_1_0_2015_01: { minVersion: 'TLSv1.2', maxVersion: 'TLSv1.2', suites: [...ECDHE, ...RSA, 'DHE-RSA-AES256-SHA'],                   only443: [] },
  IoTSecurityPolicy_TLS13_1_2_2022_01: { minVersion: 'TLSv1.2', maxVersion: 'TLSv1.3', suites: [TLS13[0], TLS13[1], ...ECDHE, 'AES128-SHA', 'AES256-SHA'], only443: [] },
} as const satisfies Record<string, Policy>

export type PolicyName = keyof typeof POLICIES

export const POLICY_NAMES = Object.keys(POLICIES) as readonly PolicyName[]

/** What AWS gives to a new domain configuration. */
export const DEFAULT_POLICY: PolicyName = 'IoTSecurityPolicy_TLS13_1_2_2022_10'

export function isPolicyName(name: string): name is PolicyName {
  return Object.hasOwn(POLICIES, name)
}

export type ContextOptions =
  | {
      readonly kind: 'usable'
      readonly minVersion: TlsVersion
      readonly maxVersion: TlsVersion
      /** For `createSecureContext`: only suites that the runtime has, in the server's order. Null: see `contextOptions`. */
      readonly ciphers: string | null
      /** True when a suite needs Diffie-Hellman parameters: pass `dhparam: 'auto'`. */
      readonly dhe: boolean
      /** Suites of the policy that are not offered here, for `check`, `status` and the log. */
      readonly missing: readonly string[]
    }
  | { readonly kind: 'refused'; readonly detail: string }

/**
 * A policy as options for `createSecureContext` on this TLS library.
 *
 * Both libraries pass over names they do not know without a word, so the names are compared with `tls.getCiphers()`
 * here, and what is lacking is told in `missing`. OpenSSL takes the TLS 1.3 suites through the same string. BoringSSL
 * always offers its three and cannot be told otherwise, so there they stay out of the string (`ciphers` is null when
 * nothing is left), and a policy that grants fewer is refused instead of silently widened.
 */
export function contextOptions(
  name: string,
  runtime: TlsRuntime = TLS_RUNTIME,
  known: readonly string[] = getCiphers(),
): ContextOptions {
  if (!isPolicyName(name)) {
    return { kind: 'refused', detail: `unknown TLS policy "${name}"; known are ${POLICY_NAMES.join(', ')}` }
  }
  const policy: Policy = POLICIES[name]
  const has = (suite: string) => known.includes(suite.toLowerCase()) && !policy.only443.includes(suite)
  const usable = policy.suites.filter(has)
  const missing = policy.suites.filter((suite) => !has(suite))
  const { minVersion, maxVersion } = policy
  const limited = runtime === 'boringssl' && maxVersion === 'TLSv1.3'
  const denied = limited ? TLS13.filter((suite) => !policy.suites.includes(suite)) : []
  if (denied.length > 0) {
    return {
      kind: 'refused',
      detail: `${name} excludes ${denied.join(', ')}, and this TLS library (BoringSSL) cannot switch it off; use another policy, or Node`,
    }
  }
  const listed = runtime === 'boringssl' ? usable.filter((suite) => !suite.startsWith('TLS_')) : usable
  return {
    kind: 'usable',
    minVersion,
    maxVersion,
    ciphers: listed.length > 0 ? listed.join(':') : null,
    dhe: listed.some((suite) => suite.startsWith('DHE-')),
    missing,
  }
}
