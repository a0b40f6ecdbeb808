import { readFileSync } from 'node:fs'
import type { AuthMethod } from './auth/authenticator.ts'
import type { Authorizers } from './auth/authorizers.ts'
import type { Backend } from './backend/backend.ts'
import type { DrainedServers } from './backend/drained.ts'
import type { Publisher } from './backend/publisher.ts'
import type { DomainSettings, Settings } from './config/schema.ts'
import type { SecuredConnection } from './connection.ts'
import type { Metrics } from './control/metrics.ts'
import type { EventSink } from './events.ts'
import { authorizerIssues, type DomainTrust, type Identities, makeIdentities } from './generation/identities.ts'
import { openRegistries } from './generation/registries.ts'
import { type Lease, SharedParts } from './generation/shared.ts'
import { makeUpstreams } from './generation/upstreams.ts'
import { warningsOf } from './generation/warnings.ts'
import type { HttpBackend } from './https/forward.ts'
import { AUTHORIZERS } from './plugins.ts'
import { NO_LOG, type RegistryLog, type WatchedRegistry } from './registry/live.ts'
import type { RegisteredEvent, Registrar } from './registry/self-registration.ts'
import type { TicketSecret } from './store/ticket-secret.ts'
import type { DomainOptions } from './tls/domain-options.ts'
import { createDomains, type Domain, type Domains, DomainsError } from './tls/domains.ts'

/** What one generation of the settings turns into: everything that answers a question about a device. */
export interface Generation {
  readonly number: number
  readonly settings: Settings
  readonly domains: Domains
  readonly warnings: readonly string[]
  readonly authenticator: Identities['authenticator']
  /** By what a connection that was let in by an earlier generation is judged; null: its domain or its way in is gone. */
  trustFor(connection: SecuredConnection, method: keyof DomainTrust): DomainTrust | null
  /** Names under which devices of a domain may send the token of an authorizer, as it is now. */
  tokenKeyNames(domain: string): readonly string[]
  /** Whether an authorizer is asked about a device that sends nothing that says so. */
  hasDefaultAuthorizer(domain: string): boolean
  backend(name: string): Backend
  /** By their names in the settings. */
  readonly registries: ReadonlyMap<string, WatchedRegistry>
  /**
   * From now on changes of registries and revocation lists take effect, and `changed` is told of each. Returns what ends
   * the telling.
   */
  watch(changed: () => void): () => void
  /** Those of kind `http`, for routes. */
  httpBackend(name: string): HttpBackend
  /** Toward a backend that is a broker; it connects when there is something to publish. */
  publisher(name: string): Publisher
  /** Told of what happens to devices; null where nobody wants to know. */
  readonly events: EventSink | null
  /** Closes what no other generation uses. */
  close(): Promise<void>
}

export type Assembled =
  | { readonly kind: 'ready'; readonly generation: Generation }
  | { readonly kind: 'refused'; readonly issues: readonly string[] }

export interface AssembleOptions {
  readonly number: number
  readonly metrics: Metrics
  /** Unix socket of the embedded broker; needed where a backend is `embedded`. */
  readonly embeddedPath: string
  /** Servers of backends that get no new connections; absent: all do. */
  readonly drained?: DrainedServers
  /** What keys of session tickets are made of; absent: no sessions are resumed. */
  readonly ticketSecret?: TicketSecret
  /** Told of reloads. */
  readonly log?: RegistryLog
  /** Writes down which devices registered themselves; absent: none do. */
  readonly registrar?: Registrar
  /** Told at every attempt of a device that registered itself and waits to be activated. */
  readonly registered?: (event: RegisteredEvent) => void
  /** What a file holds that the settings name; read now unless given. */
  readonly read?: (file: string) => string
  /** What earlier generations of this process have; absent: there are none. */
  readonly shared?: SharedParts
  /** The generation that counts now, whichever that is when it is asked for; absent: this one. */
  readonly inForce?: () => Generation | null
}

/**
 * Reads every file that the settings name and makes the parts of one generation, or says all that is wrong at once.
 * Starts nothing and changes nothing: `check` calls it, and a reload can throw the result away.
 */
export async function assemble(settings: Settings, options: AssembleOptions): Promise<Assembled> {
  const lease = (options.shared ?? new SharedParts()).lease()
  try {
    const assembled = await parts(settings, options, lease)
    if (assembled.kind === 'refused') await lease.release()
    return assembled
  } catch (error) {
    await lease.release()
    throw error
  }
}

async function parts(settings: Settings, options: AssembleOptions, lease: Lease): Promise<Assembled> {
  const { metrics, embeddedPath, log = NO_LOG, read = (file) => readFileSync(file, 'utf8') } = options
  const issues: string[] = []
  const warnings: string[] = []
  const registries = openRegistries(settings, { metrics, log, read, lease }, issues, warnings)
  if (registries === null) return { kind: 'refused', issues }
  const domains = domainsOf(settings, options, read, issues)
  const upstreams = await makeUpstreams(
    settings,
    { metrics, embeddedPath, drained: options.drained ?? null, log, read, lease },
    issues,
  )
  // With its circuit breakers, keys and answers for as long as the process: an entry that has changed is another one.
  const authorizers = lease.use<Authorizers>('authorizers', { key: [], close: (all) => all.close() }, () =>
    AUTHORIZERS.create({ metrics }),
  )
  issues.push(...(await authorizerIssues(settings, registries, authorizers)))
  if (domains === null || issues.length > 0) return { kind: 'refused', issues }
  const { backends, httpBackends, publishers, events } = upstreams
  const identities = makeIdentities(settings, domains.all, {
    metrics,
    registries,
    authorizers,
    events,
    read,
    lease,
    registrar: options.registrar ?? null,
    registered: options.registered ?? null,
    trustInForce: (connection, method) => options.inForce?.()?.trustFor(connection, method),
  })
  return {
    kind: 'ready',
    generation: {
      number: options.number,
      settings,
      domains,
      warnings: [...warnings, ...domains.warnings, ...warningsOf(settings)],
      authenticator: identities.authenticator,
      trustFor: (connection, method) => {
        const domain = servedFor(domains, connection, method)
        return domain === null ? null : identities.trust(domain.name)
      },
      tokenKeyNames: (domain) => AUTHORIZERS.tokenKeyNames(identities.trust(domain).custom),
      hasDefaultAuthorizer: (domain) => identities.trust(domain).custom.defaultAuthorizer !== null,
      backend: (name) => backends.get(name)!,
      httpBackend: (name) => httpBackends.get(name)!,
      publisher: (name) => publishers.get(name)!,
      events,
      registries: registries.byName,
      watch: registries.watch,
      close: () => lease.release(),
    },
  }
}

/** The domain that serves this connection's server name by now, if it still has the way in that the connection took. */
export function servedFor(
  domains: Domains,
  { serverName, admissions }: Pick<SecuredConnection, 'serverName' | 'admissions'>,
  method: AuthMethod | null = null,
): Domain | null {
  const domain = domains.find(serverName)
  const ways = admissions.filter(({ auth }) => method === null || waysOf(method).includes(auth))
  const served = ways.some((way) =>
    domain?.admissions.some(({ auth, protocol }) => auth === way.auth && protocol === way.protocol),
  )
  return served ? domain : null
}

/** A certificate that goes with an authorizer's word is judged as any other. */
const waysOf = (method: AuthMethod): readonly AuthMethod[] =>
  method === 'x509' || method === 'custom' ? [method, 'custom-x509'] : [method]

function domainsOf(
  settings: Settings,
  { number, ticketSecret }: AssembleOptions,
  read: (file: string) => string,
  issues: string[],
): Domains | null {
  try {
    return createDomains(
      { generation: number, domains: settings.domains.map((domain) => domainOptions(domain, settings, read)) },
      ticketSecret === undefined ? {} : { ticketSecret },
    )
  } catch (error) {
    if (!(error instanceof DomainsError)) throw error
    issues.push(...error.issues)
    return null
  }
}

function domainOptions(
  domain: DomainSettings,
  { ticketKeys }: Settings,
  read: (file: string) => string,
): DomainOptions {
  const { clientTrust, sessionTickets } = domain
  return {
    serverNames: domain.serverNames,
    enabled: domain.status === 'enabled',
    certificates: domain.certificates.map(({ cert, key }) => ({
      certPem: read(cert),
      keyPem: read(key),
      certFile: cert,
      keyFile: key,
    })),
    tlsPolicy: domain.tlsPolicy,
    authenticationType: domain.authenticationType,
    applicationProtocol: domain.applicationProtocol,
    endpointType: domain.endpointType,
    trustMode: domain.clientTrust.mode,
    caPems: domain.clientTrust.ca.map(read),
    handshakeTimeoutMs: domain.handshakeTimeout,
    backend: domain.backend,
    registry: domain.registry,
    // A session ends with its key, whatever its ticket says.
    sessionTickets: sessionTickets.enabled
      ? { lifetimeMs: Math.min(sessionTickets.lifetime, ticketKeys.rotation) }
      : null,
    judgesChains:
      clientTrust.mode !== 'registry' || clientTrust.crl !== null || clientTrust.certificateCallback !== null,
  }
}
