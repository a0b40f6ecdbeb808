import type { X509Certificate } from 'node:crypto'
import { readFileSync } from 'node:fs'
import type { Authenticator, Credentials } from './auth/authenticator.ts'
import type { Backend, UpstreamIdentity } from './backend/backend.ts'
import type { Publisher } from './backend/publisher.ts'
import type { BackendTls, DialResult } from './backend/tcp.ts'
import type { BackendSettings, DomainSettings, Settings } from './config/schema.ts'
import type { AuthorizedConnection } from './connection.ts'
import type { Metrics } from './control/metrics.ts'
import { reasonOf } from './errors.ts'
import type { HttpBackend } from './https/forward.ts'
import { encodeProxyV2, LOCAL_V2 } from './listener/proxy-protocol.ts'
import { AUTHENTICATORS, BACKENDS, PUBLISHERS, SIGNED_SERVICES } from './plugins.ts'
import { type RevocationList, RevocationLists, readCrlFile } from './registry/crl.ts'
import { readRegistry } from './registry/files.ts'
import type { Registry } from './registry/registry.ts'
import { certificatesOf, createDomains, type DomainOptions, type Domains, DomainsError } from './tls/domains.ts'

/** What one generation of the settings turns into: everything that answers a question about a device. */
export interface Generation {
  readonly domains: Domains
  readonly warnings: readonly string[]
  /** Null where this version has none of the kind. */
  authenticator(domain: string, method: Credentials['kind']): Authenticator | null
  backend(name: string): Backend
  /** Those of kind `http`, for routes. */
  httpBackend(name: string): HttpBackend
  /** Toward a backend that is a broker; it connects when there is something to publish. */
  publisher(name: string): Publisher
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
}

const read = (file: string): string => readFileSync(file, 'utf8')

/**
 * Reads every file that the settings name and makes the parts of one generation, or says all that is wrong at once.
 * Starts nothing and changes nothing: `check` calls it, and a reload can throw the result away.
 */
export async function assemble(settings: Settings, options: AssembleOptions): Promise<Assembled> {
  const issues: string[] = []
  const warnings: string[] = []
  const registries = new Map<string, Registry>()
  for (const [name, { path }] of Object.entries(settings.registries)) {
    const result = readRegistry(path)
    if (result.kind === 'valid') {
      registries.set(name, result.registry)
      warnings.push(...result.warnings)
    } else issues.push(...result.issues)
  }
  for (const [index, { clientTrust }] of settings.domains.entries()) {
    try {
      caCertificates(clientTrust.ca)
    } catch (error) {
      issues.push(`domains[${index}].clientTrust.ca: ${error instanceof Error ? error.message : String(error)}`)
    }
  }
  if (issues.length > 0) return { kind: 'refused', issues }
  const revocations = settings.domains.map((domain, index) => readRevocations(domain, index, issues))

  let domains: Domains | null = null
  try {
    domains = createDomains({ generation: options.number, domains: settings.domains.map(domainOptions) })
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
      const made = makeBackend(name, backend, settings.limits.webSocketMessageSize, options)
      backends.set(name, made)
      publishers.set(name, makePublisher(made, backend))
    } catch (error) {
      issues.push(`backends.${name}: ${error instanceof Error ? error.message : String(error)}`)
    }
  }
  if (domains === null || issues.length > 0) return { kind: 'refused', issues }

  const authenticators = new Map<string, Authenticator>()
  for (const [index, domain] of domains.all.entries()) {
    const { clientTrust, endpointType, sigv4 } = settings.domains[index]!
    authenticators.set(`${domain.name} backend`, AUTHENTICATORS.backend())
    authenticators.set(
      `${domain.name} sigv4`,
      AUTHENTICATORS.sigv4({
        registry: () => (domain.registry === null ? null : (registries.get(domain.registry) ?? null)),
        region: SIGNED_REGION,
        services: SIGNED_SERVICES[endpointType],
        clockSkewMs: sigv4.clockSkew,
        maxPresignAgeMs: sigv4.maxPresignAge,
        allowSingleEncodedPath: sigv4.singleEncodedPath,
        allowSignedToken: sigv4.signedToken,
      }),
    )
    authenticators.set(
      `${domain.name} x509`,
      AUTHENTICATORS.x509({
        mode: clientTrust.mode,
        registry: domain.registry === null ? null : (registries.get(domain.registry) ?? null),
        hasCa: domain.trust.caCertificates.length > 0,
        caCertificates: caCertificates(clientTrust.ca),
        revocation: revocations[index] ?? null,
        onExpired: clientTrust.crl?.onExpired ?? 'deny',
        onMissing: clientTrust.crl?.onMissing ?? 'deny',
        now: () => new Date(),
      }),
    )
  }
  return {
    kind: 'ready',
    generation: {
      domains,
      warnings: [...warnings, ...domains.warnings],
      authenticator: (domain, method) => authenticators.get(`${domain} ${method}`) ?? null,
      backend: (name) => backends.get(name)!,
      httpBackend: (name) => httpBackends.get(name)!,
      publisher: (name) => publishers.get(name)!,
      async close() {
        await Promise.all([...publishers.values()].map((publisher) => publisher.close()))
        await Promise.all([...backends.values()].map((backend) => backend.close()))
      },
    },
  }
}

function domainOptions(domain: DomainSettings): DomainOptions {
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
  }
}

const caCertificates = (files: readonly string[]): X509Certificate[] =>
  files.flatMap((file) => certificatesOf(read(file)))

function readRevocations(domain: DomainSettings, index: number, issues: string[]): RevocationLists | null {
  const { crl, ca } = domain.clientTrust
  if (crl === null) return null
  const lists: RevocationList[] = []
  for (const file of crl.files) {
    const found = readCrlFile(readFileSync(file))
    if (found.kind === 'lists') lists.push(...found.lists)
    else issues.push(`domains[${index}].clientTrust.crl.files: ${file}: ${found.reason}`)
  }
  return new RevocationLists(lists, caCertificates(ca))
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
): Backend {
  const { username, password, clientId, keepAlive } = settings.identity
  const identity: UpstreamIdentity = { username, password, clientId, keepAlive }
  const onDial = (result: DialResult, seconds: number) => metrics.dial(name, DIAL_LABELS[result], seconds)
  if (settings.kind === 'embedded') {
    return BACKENDS.embedded({ name, identity, path: embeddedPath, connectTimeoutMs: EMBEDDED_TIMEOUT_MS, onDial })
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
  return BACKENDS[settings.kind]({ ...common, servers, tls: settings.kind === 'tcp' ? null : brokerTls(settings) })
}

function brokerTls({ ca, serverName, cert, key }: Exclude<BrokerSettings, { kind: 'tcp' | 'embedded' }>): BackendTls {
  return {
    ca: ca === null ? null : ca.map(read),
    serverName,
    cert: cert === null ? null : read(cert),
    key: key === null ? null : read(key),
  }
}

/** In the scope of every signature, as it is in the ARNs of policies. */
const SIGNED_REGION = 'us-east-1'

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
  const { socket, remoteAddress, remotePort } = connection
  return encodeProxyV2(
    { address: remoteAddress, port: remotePort },
    { address: socket.localAddress ?? '::', port: socket.localPort ?? connection.port },
  )
}
