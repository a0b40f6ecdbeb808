import type { Authenticator, Credentials } from '../auth/authenticator.ts'
import type { Authorizers } from '../auth/authorizers.ts'
import type { BackendAuthOptions } from '../auth/backend.ts'
import type { CertificateCallback } from '../auth/certificate-callback.ts'
import type { CustomOptions } from '../auth/custom.ts'
import type { SigV4Options } from '../auth/sigv4.ts'
import type { X509Options } from '../auth/x509.ts'
import type { ClientTrustSettings, DomainSettings, Settings } from '../config/schema.ts'
import type { SecuredConnection } from '../connection.ts'
import type { Metrics } from '../control/metrics.ts'
import type { EventSink } from '../events.ts'
import { AUTHENTICATORS, AUTHORIZERS, EVENT_SINKS, SIGNED_SERVICES } from '../plugins.ts'
import type { LiveRegistry } from '../registry/registry.ts'
import { type RegisteredEvent, type Registrar, selfRegistration } from '../registry/self-registration.ts'
import { certificatesOf } from '../tls/domain-options.ts'
import type { Domain } from '../tls/domains.ts'
import { headOf, type Registries } from './registries.ts'
import type { Lease } from './shared.ts'

/** By what one domain judges who comes. */
export interface DomainTrust {
  readonly x509: X509Options
  readonly custom: CustomOptions
  readonly sigv4: SigV4Options
  readonly backend: BackendAuthOptions
}

export interface Identities {
  /** Null where this version has none of the kind. */
  authenticator(domain: string, method: Credentials['kind']): Authenticator | null
  trust(domain: string): DomainTrust
}

export interface IdentityDeps {
  readonly metrics: Metrics
  readonly registries: Registries
  readonly authorizers: Authorizers
  readonly events: EventSink | null
  readonly read: (file: string) => string
  readonly lease: Lease
  readonly registrar: Registrar | null
  readonly registered: ((event: RegisteredEvent) => void) | null
  /**
   * By what a connection that was let in is judged from now on; null: its domain, or its way in, is gone. Undefined where
   * there are no generations.
   */
  readonly trustInForce: (connection: SecuredConnection, method: keyof DomainTrust) => DomainTrust | null | undefined
}

/** The authenticators of every domain. */
export function makeIdentities(settings: Settings, domains: readonly Domain[], deps: IdentityDeps): Identities {
  const authenticators = new Map<string, Authenticator>()
  const trusts = new Map<string, DomainTrust>()
  for (const [index, domain] of domains.entries()) {
    const wanted = settings.domains[index]!
    const trust = trustOf(settings, wanted, domain, index, deps)
    trusts.set(domain.name, trust)
    const x509 = AUTHENTICATORS.x509(trust.x509)
    const customX509 = AUTHENTICATORS.customX509(trust.custom, x509)
    const callback = callbackOf(domain.name, wanted.clientTrust.certificateCallback, deps)
    const all: readonly Authenticator[] = [
      AUTHENTICATORS.backend(trust.backend),
      AUTHENTICATORS.custom(trust.custom),
      AUTHENTICATORS.sigv4(trust.sigv4),
      callback?.before(x509) ?? x509,
      callback?.before(customX509) ?? customX509,
    ]
    for (const authenticator of all) authenticators.set(`${domain.name} ${authenticator.method}`, authenticator)
  }
  return {
    authenticator: (domain, method) => authenticators.get(`${domain} ${method}`) ?? null,
    trust: (domain) => trusts.get(domain)!,
  }
}

function trustOf(
  settings: Settings,
  { clientTrust, endpointType, sigv4, ...wanted }: DomainSettings,
  domain: Domain,
  index: number,
  deps: IdentityDeps,
): DomainTrust {
  const { authorizers, trustInForce } = deps
  const live = domain.registry === null ? null : (deps.registries.byName.get(domain.registry) ?? null)
  const registry = () => live?.current ?? null
  const revocations = deps.registries.revocations[index] ?? null
  const { region, accountId } = headOf(settings, settings.domains[index]!)
  /** Those of the generation in force, or these where there is none. */
  const inForce =
    <K extends keyof DomainTrust>(method: K) =>
    (connection: SecuredConnection): DomainTrust[K] | null => {
      const now = trustInForce(connection, method)
      return now === undefined ? trust[method] : (now?.[method] ?? null)
    }
  const trust: DomainTrust = {
    backend: { policies: clientTrust.policies, registry, inForce: inForce('backend') },
    x509: {
      mode: clientTrust.mode,
      registry,
      policies: clientTrust.policies,
      cutAtExpiry: clientTrust.cutAtExpiry,
      hasCa: domain.trust.caCertificates.length > 0,
      caCertificates: clientTrust.ca.flatMap((file) => certificatesOf(deps.read(file))),
      revocation: () => revocations?.current ?? null,
      onExpired: clientTrust.crl?.onExpired ?? 'deny',
      onMissing: clientTrust.crl?.onMissing ?? 'deny',
      registration: registrationOf(live, accountId, deps),
      now: () => new Date(),
      inForce: inForce('x509'),
    },
    custom: {
      registry,
      authorizers,
      allowed: wanted.authorizers,
      defaultAuthorizer: wanted.defaultAuthorizer,
      allowOverride: wanted.allowAuthorizerOverride,
      inForce: inForce('custom'),
    },
    sigv4: {
      registry,
      region,
      services: SIGNED_SERVICES[endpointType],
      clockSkewMs: sigv4.clockSkew,
      maxPresignAgeMs: sigv4.maxPresignAge,
      allowSingleEncodedPath: sigv4.singleEncodedPath,
      allowSignedToken: sigv4.signedToken,
      inForce: inForce('sigv4'),
    },
  }
  return trust
}

function registrationOf(
  live: (LiveRegistry & { readonly name: string }) | null,
  accountId: string,
  { registrar, registered, metrics, events }: IdentityDeps,
) {
  if (registrar === null || live === null) return null
  return selfRegistration({
    registry: live.name,
    registrar,
    accountId,
    counted: (result) => metrics.provision(result),
    registered(event) {
      registered?.(event)
      events?.send(EVENT_SINKS.registered(event))
    },
  })
}

function callbackOf(
  domain: string,
  settings: ClientTrustSettings['certificateCallback'],
  { read, lease, authorizers }: IdentityDeps,
): CertificateCallback | null {
  if (settings === null) return null
  const { url, ca, headers, timeout } = settings
  const contents = ca === null ? null : ca.map(read)
  return lease.use<CertificateCallback>(
    'callback',
    { key: [domain, settings, contents], close: (callback) => callback.close() },
    () =>
      AUTHORIZERS.certificateCallback(
        {
          name: `certificate callback of ${domain}`,
          url: new URL(url),
          ca: contents,
          headers,
          timeoutMs: timeout,
          concurrency: CALLBACKS_AT_ONCE,
        },
        authorizers.deps,
      ),
  )
}

/** Calls to a certificate callback; sixteen times as many wait. */
const CALLBACKS_AT_ONCE = 64

/** Authorizers that domains name and that are not there, or that cannot work. */
export async function authorizerIssues(
  settings: Settings,
  { byName }: Registries,
  authorizers: Authorizers,
): Promise<readonly string[]> {
  const issues: string[] = []
  for (const [index, domain] of settings.domains.entries()) {
    const registry = domain.registry === null ? undefined : byName.get(domain.registry)
    const named = domain.authorizers.map((name) => ({ setting: 'authorizers', name }))
    if (domain.defaultAuthorizer !== null) named.push({ setting: 'defaultAuthorizer', name: domain.defaultAuthorizer })
    for (const { setting, name } of named) {
      const entry = registry?.current.authorizer(name) ?? null
      const path = `domains[${index}].${setting}`
      if (entry === null) {
        issues.push(`${path}: the registry ${domain.registry} has no authorizer ${name}`)
        continue
      }
      const problem = await authorizers.of(entry).problem()
      if (problem !== null) issues.push(`${path}: authorizer ${name}: ${problem}`)
    }
  }
  return issues
}
