import type { X509Certificate } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import type { Authenticator, Credentials } from './auth/authenticator.ts'
import type { Authorizers } from './auth/authorizers.ts'
import type { CertificateCallback } from './auth/certificate-callback.ts'
import type { CustomOptions } from './auth/custom.ts'
import type { Backend, UpstreamIdentity } from './backend/backend.ts'
import type { Publisher } from './backend/publisher.ts'
import type { BackendTls, DialResult } from './backend/tcp.ts'
import type { BackendSettings, ClientTrustSettings, DomainSettings, Settings } from './config/schema.ts'
import type { AuthorizedConnection } from './connection.ts'
import type { Metrics, ReloadResult } from './control/metrics.ts'
import { reasonOf } from './errors.ts'
import type { EventSink } from './events.ts'
import { looseRights } from './file-rights.ts'
import type { HttpBackend } from './https/forward.ts'
import { encodeProxyV2, LOCAL_V2 } from './listener/proxy-protocol.ts'
import { AUTHENTICATORS, AUTHORIZERS, BACKENDS, EVENT_SINKS, PUBLISHERS, SIGNED_SERVICES } from './plugins.ts'
import type { ArnHead } from './policy/permit.ts'
import { headWarnings } from './registry/head-warnings.ts'
import { liveRegistry, NO_LOG, type RegistryLog, type WatchedRegistry } from './registry/live.ts'
import { OVERLAY_FILE } from './registry/overlay.ts'
import { type LiveRevocations, RevocationFiles } from './registry/revocations.ts'
import { type RegisteredEvent, type Registrar, selfRegistration } from './registry/self-registration.ts'
import type { TicketSecret } from './store/ticket-secret.ts'
import { certificatesOf, createDomains, type DomainOptions, type Domains, DomainsError } from './tls/domains.ts'
import { TLS_RUNTIME } from './tls/policies.ts'
import { TICKET_FACTS } from './tls/tickets.ts'

/** What one generation of the settings turns into: everything that answers a question about a device. */
export interface Generation {
  readonly domains: Domains
  readonly warnings: readonly string[]
  /** Null where this version has none of the kind. */
  authenticator(domain: string, method: Credentials['kind']): Authenticator | null
  /** Names under which devices of a domain may send the token of an authorizer, as it is now. */
  tokenKeyNames(domain: string): readonly string[]
  /** Whether an authorizer is asked about a device that sends nothing that says so. */
  hasDefaultAuthorizer(domain: string): boolean
  backend(name: string): Backend
  /** By their names in the settings. */
  readonly registries: ReadonlyMap<string, WatchedRegistry>
  /** From now on changes of registries and revocation lists take effect, and `changed` is told of each. */
  watch(changed: () => void): void
  /** Those of kind `http`, for routes. */
  httpBackend(name: string): HttpBackend
  /** Toward a backend that is a broker; it connects when there is something to publish. */
  publisher(name: string): Publisher
  /** Told of what happens to devices; null where nobody wants to know. */
  readonly events: EventSink | null
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
  /** What keys of session tickets are made of; absent: no sessions are resumed. */
  readonly ticketSecret?: TicketSecret
  /** Told of reloads. */
  readonly log?: RegistryLog
  /** Writes down which devices registered themselves; absent: none do. */
  readonly registrar?: Registrar
  /** Told at every attempt of a device that registered itself and waits to be activated. */
  readonly registered?: (event: RegisteredEvent) => void
}

const read = (file: string): string => readFileSync(file, 'utf8')

/**
 * Reads every file that the settings name and makes the parts of one generation, or says all that is wrong at once.
 * Starts nothing and changes nothing: `check` calls it, and a reload can throw the result away.
 */
export async function assemble(settings: Settings, options: AssembleOptions): Promise<Assembled> {
  const issues: string[] = []
  const warnings: string[] = []
  const registries = openRegistries(settings, options, issues, warnings)
  for (const [index, { clientTrust }] of settings.domains.entries()) {
    try {
      caCertificates(clientTrust.ca)
    } catch (error) {
      issues.push(`domains[${index}].clientTrust.ca: ${error instanceof Error ? error.message : String(error)}`)
    }
  }
  if (issues.length > 0) return { kind: 'refused', issues }
  const revocationFiles = new RevocationFiles({
    log: options.log ?? NO_LOG,
    reloaded: (result) => options.metrics.revocationReload(result),
  })
  const revocations = settings.domains.map((domain, index) => openRevocations(revocationFiles, domain, index, issues))

  let domains: Domains | null = null
  try {
    const { ticketSecret } = options
    domains = createDomains(
      { generation: options.number, domains: settings.domains.map((domain) => domainOptions(domain, settings)) },
      ticketSecret === undefined ? {} : { ticketSecret },
    )
  } catch (error) {
    if (!(error instanceof DomainsError)) throw error
    issues.push(...error.issues)
  }
  const backends = new Map<string, Backend>()
  const httpBackends = new Map<string, HttpBackend>()
  const publishers = new Map<string, Publisher>()
  for (const [name, backend] of Object.entries(settings.backends)) {
    try {
      if (backend.kind === 'http') {
        httpBackends.set(name, makeHttpBackend(name, backend))
        continue
      }
      const made = makeBackend(
        name,
        backend,
        settings.limits.webSocketMessageSize,
        options,
        settings.transport === 'auto',
      )
      backends.set(name, made)
      publishers.set(name, makePublisher(made, backend))
    } catch (error) {
      issues.push(`backends.${name}: ${error instanceof Error ? error.message : String(error)}`)
    }
  }
  const events = await makeSinks(settings, publishers, options, issues)
  const authorizers = AUTHORIZERS.create({ metrics: options.metrics })
  issues.push(...(await authorizerIssues(settings, registries, authorizers)))
  if (domains === null || issues.length > 0) {
    authorizers.close()
    return { kind: 'refused', issues }
  }

  const authenticators = new Map<string, Authenticator>()
  const customs = new Map<string, CustomOptions>()
  const callbacks: CertificateCallback[] = []
  for (const [index, domain] of domains.all.entries()) {
    const { clientTrust, endpointType, sigv4, ...wanted } = settings.domains[index]!
    const head = headOf(settings, settings.domains[index]!)
    const live = domain.registry === null ? null : (registries.get(domain.registry) ?? null)
    const registry = () => live?.current ?? null
    authenticators.set(`${domain.name} backend`, AUTHENTICATORS.backend({ policies: clientTrust.policies, registry }))
    const x509 = AUTHENTICATORS.x509({
      mode: clientTrust.mode,
      registry,
      policies: clientTrust.policies,
      cutAtExpiry: clientTrust.cutAtExpiry,
      hasCa: domain.trust.caCertificates.length > 0,
      caCertificates: caCertificates(clientTrust.ca),
      revocation: () => revocations[index]?.current ?? null,
      onExpired: clientTrust.crl?.onExpired ?? 'deny',
      onMissing: clientTrust.crl?.onMissing ?? 'deny',
      registration:
        options.registrar === undefined || live === null
          ? null
          : selfRegistration({
              registry: live.name,
              registrar: options.registrar,
              accountId: head.accountId,
              counted: (result) => options.metrics.provision(result),
              registered(event) {
                options.registered?.(event)
                events?.send(EVENT_SINKS.registered(event))
              },
            }),
      now: () => new Date(),
    })
    const customOptions: CustomOptions = {
      registry,
      authorizers,
      allowed: wanted.authorizers,
      defaultAuthorizer: wanted.defaultAuthorizer,
      allowOverride: wanted.allowAuthorizerOverride,
    }
    customs.set(domain.name, customOptions)
    authenticators.set(`${domain.name} custom`, AUTHENTICATORS.custom(customOptions))
    const customX509 = AUTHENTICATORS.customX509(customOptions, x509)
    const callback = callbackOf(domain.name, clientTrust.certificateCallback, authorizers)
    if (callback !== null) callbacks.push(callback)
    authenticators.set(`${domain.name} x509`, callback?.before(x509) ?? x509)
    authenticators.set(`${domain.name} custom-x509`, callback?.before(customX509) ?? customX509)
    authenticators.set(
      `${domain.name} sigv4`,
      AUTHENTICATORS.sigv4({
        registry,
        region: head.region,
        services: SIGNED_SERVICES[endpointType],
        clockSkewMs: sigv4.clockSkew,
        maxPresignAgeMs: sigv4.maxPresignAge,
        allowSingleEncodedPath: sigv4.singleEncodedPath,
        allowSignedToken: sigv4.signedToken,
      }),
    )
  }
  return {
    kind: 'ready',
    generation: {
      domains,
      warnings: [
        ...warnings,
        ...domains.warnings,
        ...ticketWarnings(settings),
        ...prefixWarnings(settings),
        ...rightsWarnings(settings),
      ],
      authenticator: (domain, method) => authenticators.get(`${domain} ${method}`) ?? null,
      tokenKeyNames: (domain) => AUTHORIZERS.tokenKeyNames(customs.get(domain)!),
      hasDefaultAuthorizer: (domain) => customs.get(domain)!.defaultAuthorizer !== null,
      backend: (name) => backends.get(name)!,
      httpBackend: (name) => httpBackends.get(name)!,
      publisher: (name) => publishers.get(name)!,
      events,
      registries,
      watch(changed) {
        for (const live of [...registries.values(), ...new Set(revocations)]) live?.onChange(changed)
        for (const live of registries.values()) live.watch()
        revocationFiles.watch()
      },
      async close() {
        for (const live of registries.values()) live.close()
        revocationFiles.close()
        for (const callback of callbacks) callback.close()
        authorizers.close()
        // Events of the last sessions still want to be told.
        await events?.close()
        await Promise.all([...publishers.values()].map((publisher) => publisher.close()))
        await Promise.all([...backends.values()].map((backend) => backend.close()))
      },
    },
  }
}

/** As one; null when none is set. */
async function makeSinks(
  { events }: Settings,
  publishers: ReadonlyMap<string, Publisher>,
  { metrics, log = NO_LOG }: AssembleOptions,
  issues: string[],
): Promise<EventSink | null> {
  const sinks: EventSink[] = []
  for (const [index, wanted] of events.entries()) {
    if (wanted.kind === 'log') sinks.push(EVENT_SINKS.log({ log }))
    else if (wanted.kind === 'module') {
      try {
        sinks.push(await EVENT_SINKS.module(wanted.path, wanted.options))
      } catch (error) {
        issues.push(`events[${index}]: ${error instanceof Error ? error.message : String(error)}`)
      }
    } else {
      // Its absence is an issue of its own.
      const publisher = publishers.get(wanted.backend)
      if (publisher !== undefined) sinks.push(brokerSinkTo(publisher, wanted.topicPrefix, metrics))
    }
  }
  return sinks.length === 0 ? null : EVENT_SINKS.all(sinks)
}

function brokerSinkTo(publisher: Publisher, topicPrefix: string, metrics: Metrics): EventSink {
  const plain = {
    qos: 1,
    retain: false,
    contentType: null,
    responseTopic: null,
    correlationData: null,
    messageExpirySeconds: null,
    payloadIsUtf8: null,
    userProperties: [],
  } as const
  return EVENT_SINKS.broker({
    topicPrefix,
    publish: (topic, payload, signal) => publisher.publish({ ...plain, topic, payload }, signal),
    count: (result) => metrics.lifecycleEvent(result),
  })
}

/** Authorizers that domains name and that are not there, or that cannot work. */
async function authorizerIssues(
  settings: Settings,
  registries: ReadonlyMap<string, WatchedRegistry>,
  authorizers: Authorizers,
): Promise<readonly string[]> {
  const issues: string[] = []
  for (const [index, domain] of settings.domains.entries()) {
    const registry = domain.registry === null ? undefined : registries.get(domain.registry)
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

function callbackOf(
  domain: string,
  settings: ClientTrustSettings['certificateCallback'],
  { deps }: Authorizers,
): CertificateCallback | null {
  if (settings === null) return null
  const { url, ca, headers, timeout } = settings
  return AUTHORIZERS.certificateCallback(
    {
      name: `certificate callback of ${domain}`,
      url: new URL(url),
      ca: ca === null ? null : ca.map(read),
      headers,
      timeoutMs: timeout,
      concurrency: CALLBACKS_AT_ONCE,
    },
    deps,
  )
}

/** Calls to a certificate callback; sixteen times as many wait. */
const CALLBACKS_AT_ONCE = 64

/** Workers that cannot open one another's tickets. */
function ticketWarnings({ domains, workers }: Settings): string[] {
  const at = domains.findIndex(({ sessionTickets }) => sessionTickets.enabled)
  if (at < 0 || workers === 1 || TICKET_FACTS[TLS_RUNTIME].sharesKeys) return []
  return [
    `domains[${at}].sessionTickets: on this runtime each worker opens its own tickets only; a device that comes to another one makes a full handshake`,
  ]
}

/** Domains of one backend whose devices could meet under one client id. */
function prefixWarnings({ domains }: Settings): string[] {
  return domains.flatMap((domain, at) =>
    domains.slice(at + 1).flatMap((other, offset) => {
      const [one, two] = [domain.clientId.prefix, other.clientId.prefix]
      if (domain.backend !== other.backend || !(one.startsWith(two) || two.startsWith(one))) return []
      const names = `domains[${at}] and domains[${at + 1 + offset}]`
      return [
        `${names}: the same backend, and clientId.prefix ${JSON.stringify(one)} and ${JSON.stringify(two)}: their devices can meet under one client id`,
      ]
    }),
  )
}

/** Files and folders of which others on this machine may do what they should not. */
function rightsWarnings({ domains, backends, registries, admin }: Settings): readonly string[] {
  const keys = [
    ...domains.flatMap(({ certificates }, at) =>
      certificates.map(({ key }, index) => [`domains[${at}].certificates[${index}].key`, key] as const),
    ),
    ...Object.entries(backends).flatMap(([name, backend]) =>
      'key' in backend && backend.key !== null ? [[`backends.${name}.key`, backend.key] as const] : [],
    ),
  ]
  const places = [
    ...Object.entries(registries).flatMap(([name, { state }]) =>
      state === null
        ? []
        : [state, join(state, OVERLAY_FILE)].map((path) => [`registries.${name}.state`, path] as const),
    ),
    ['admin.socket', dirname(admin.socket)] as const,
  ]
  return [
    ...keys.flatMap(([setting, file]) =>
      looseRights(file, 'secret').map((problem) => `${setting}: ${file} is a private key and ${problem}`),
    ),
    ...places.flatMap(([setting, path]) =>
      looseRights(path, 'settings').map((problem) => `${setting}: ${path} ${problem}`),
    ),
  ]
}

function domainOptions(domain: DomainSettings, { ticketKeys }: Settings): DomainOptions {
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

const caCertificates = (files: readonly string[]): X509Certificate[] =>
  files.flatMap((file) => certificatesOf(read(file)))

function openRevocations(
  files: RevocationFiles,
  { clientTrust: { crl, ca } }: DomainSettings,
  index: number,
  issues: string[],
): LiveRevocations | null {
  if (crl === null) return null
  const opened = files.open(crl.files, caCertificates(ca))
  if (!('issues' in opened)) return opened
  for (const issue of opened.issues) issues.push(`domains[${index}].clientTrust.crl.files: ${issue}`)
  return null
}

/** All registries that can be read, and what is wrong with the others or with what domains want of them. */
function openRegistries(
  settings: Settings,
  { log = NO_LOG, metrics }: AssembleOptions,
  issues: string[],
  warnings: string[],
): ReadonlyMap<string, WatchedRegistry> {
  const registries = new Map<string, WatchedRegistry>()
  for (const [name, { path, state }] of Object.entries(settings.registries)) {
    const reloaded = (registry: string, result: ReloadResult) => metrics.registryReload(registry, result)
    const result = liveRegistry(path, { name, state, log, reloaded })
    if (result.kind === 'invalid') {
      issues.push(...result.issues)
      continue
    }
    const { live } = result
    registries.set(name, live)
    const heads = settings.domains.filter(({ registry }) => registry === name).map((domain) => headOf(settings, domain))
    warnings.push(...live.warnings, ...headWarnings(name, live.contents.policies, heads))
  }
  for (const [index, { registry, clientTrust }] of settings.domains.entries()) {
    const known = registry === null ? undefined : registries.get(registry)?.contents.policies
    if (known === undefined) continue
    for (const name of clientTrust.policies.filter((policy) => !known.has(policy))) {
      issues.push(`domains[${index}].clientTrust.policies: the registry ${registry} has no policy ${name}`)
    }
  }
  return registries
}

function headOf(settings: Settings, { aws }: DomainSettings): ArnHead {
  return {
    partition: aws.partition ?? settings.aws.partition,
    region: aws.region ?? settings.aws.region,
    accountId: aws.accountId ?? settings.aws.accountId,
  }
}

type HttpBackendSettings = Extract<BackendSettings, { readonly kind: 'http' }>
type BrokerSettings = Exclude<BackendSettings, HttpBackendSettings>

function makeHttpBackend(name: string, { url, ca, cert, key, timeout }: HttpBackendSettings): HttpBackend {
  return {
    name,
    url: new URL(url),
    ca: ca === null ? null : ca.map(read),
    cert: cert === null ? null : read(cert),
    key: key === null ? null : read(key),
    timeoutMs: timeout,
  }
}

function makePublisher(backend: Backend, { identity, publish }: BrokerSettings): Publisher {
  return PUBLISHERS.pool({
    backend,
    ...PUBLISHERS.credentials(identity, publish),
    connections: publish.connections,
    timeoutMs: publish.timeout,
    queue: publish.queue,
    principalProperty: publish.principalProperty,
    addressProperty: publish.addressProperty,
  })
}

function makeBackend(
  name: string,
  settings: BrokerSettings,
  maxMessageBytes: number,
  { metrics, embeddedPath }: AssembleOptions,
  lift: boolean,
): Backend {
  const { username, password, clientId, keepAlive } = settings.identity
  const identity: UpstreamIdentity = { username, password, clientId, keepAlive }
  const onDial = (result: DialResult, seconds: number) => metrics.dial(name, DIAL_LABELS[result], seconds)
  if (settings.kind === 'embedded') {
    return BACKENDS.embedded({
      name,
      identity,
      path: embeddedPath,
      connectTimeoutMs: EMBEDDED_TIMEOUT_MS,
      lift,
      onDial,
    })
  }
  const common = {
    name,
    identity,
    balance: settings.balance,
    connectTimeoutMs: settings.connectTimeout,
    proxyHeader: settings.identity.proxyProtocol === 'v2' ? proxyHeader : null,
    onDial,
  }
  if (settings.kind === 'ws') {
    const servers = settings.servers.map(({ url }) => url)
    return BACKENDS.ws({ ...common, servers, tls: brokerTls(settings), headers: settings.headers, maxMessageBytes })
  }
  const servers = settings.servers.map(({ address }) => address)
  return BACKENDS[settings.kind]({
    ...common,
    servers,
    lift,
    tls: settings.kind === 'tcp' ? null : brokerTls(settings),
  })
}

function brokerTls({ ca, serverName, cert, key }: Exclude<BrokerSettings, { kind: 'tcp' | 'embedded' }>): BackendTls {
  return {
    ca: ca === null ? null : ca.map(read),
    serverName,
    cert: cert === null ? null : read(cert),
    key: key === null ? null : read(key),
  }
}

const EMBEDDED_TIMEOUT_MS = 5_000

/** How a dial is counted: by the reason of the failure table where it failed. */
const DIAL_LABELS: Readonly<Record<DialResult, string>> = {
  connected: 'ok',
  refused: reasonOf('ERR_BACKEND_REFUSED'),
  timeout: reasonOf('ERR_BACKEND_TIMEOUT'),
  untrusted: reasonOf('ERR_BACKEND_UNTRUSTED'),
  canceled: 'canceled',
}

/** The device's address for a broker that speaks the PROXY protocol; the destination is ours, as the device reached it. */
function proxyHeader(connection: AuthorizedConnection | null): Buffer {
  if (connection === null) return LOCAL_V2
  const { tls, remoteAddress, remotePort } = connection
  return encodeProxyV2(
    { address: remoteAddress, port: remotePort },
    { address: tls.localAddress ?? '::', port: tls.localPort ?? connection.port },
  )
}
