import type { Backend, UpstreamIdentity } from '../backend/backend.ts'
import type { DrainedServers } from '../backend/drained.ts'
import type { Publisher } from '../backend/publisher.ts'
import type { BackendTls, DialResult } from '../backend/tcp.ts'
import type { BackendSettings, Settings } from '../config/schema.ts'
import type { AuthorizedConnection } from '../connection.ts'
import type { Metrics } from '../control/metrics.ts'
import { reasonOf } from '../errors.ts'
import type { EventSink } from '../events.ts'
import type { HttpBackend } from '../https/forward.ts'
import { encodeProxyV2, LOCAL_V2 } from '../listener/proxy-protocol.ts'
import type { ShieldSettings } from '../mqtt/shield.ts'
import { BACKENDS, EVENT_SINKS, PUBLISHERS } from '../plugins.ts'
import type { RegistryLog } from '../registry/live.ts'
import type { Lease } from './shared.ts'

/** Where things go: brokers, HTTP servers, and those who are told of events. */
export interface Upstreams {
  readonly backends: ReadonlyMap<string, Backend>
  readonly httpBackends: ReadonlyMap<string, HttpBackend>
  readonly publishers: ReadonlyMap<string, Publisher>
  /** Null where nobody wants to know. */
  readonly events: EventSink | null
}

export interface UpstreamDeps {
  readonly metrics: Metrics
  readonly embeddedPath: string
  /** Servers that get no new connections; null: all do. */
  readonly drained: DrainedServers | null
  readonly log: RegistryLog
  readonly read: (file: string) => string
  readonly lease: Lease
}

type HttpBackendSettings = Extract<BackendSettings, { readonly kind: 'http' }>
type BrokerSettings = Exclude<BackendSettings, HttpBackendSettings>
type SecureSettings = Exclude<BrokerSettings, { readonly kind: 'tcp' | 'embedded' }>

/** Those of earlier generations where nothing that they are made of has changed, the contents of their files included. */
export async function makeUpstreams(settings: Settings, deps: UpstreamDeps, issues: string[]): Promise<Upstreams> {
  const backends = new Map<string, Backend>()
  const httpBackends = new Map<string, HttpBackend>()
  const publishers = new Map<string, Publisher>()
  for (const [name, backend] of Object.entries(settings.backends)) {
    try {
      if (backend.kind === 'http') {
        httpBackends.set(name, makeHttpBackend(name, backend, deps))
        continue
      }
      const { made, publisher } = makeBroker(name, backend, settings, deps)
      backends.set(name, made)
      publishers.set(name, publisher)
    } catch (error) {
      issues.push(`backends.${name}: ${error instanceof Error ? error.message : String(error)}`)
    }
  }
  return { backends, httpBackends, publishers, events: await makeSinks(settings, publishers, deps, issues) }
}

function makeBroker(name: string, backend: BrokerSettings, settings: Settings, deps: UpstreamDeps) {
  const { lease } = deps
  const maxMessageBytes = settings.limits.webSocketMessageSize
  const lift = settings.transport === 'auto'
  const tls = 'ca' in backend ? brokerTls(backend, deps) : null
  const { publish, ...way } = backend
  const key = [name, way, maxMessageBytes, lift, tls]
  const made = lease.use<Backend>('backend', { key, close: (one) => one.close() }, () =>
    makeBackend(name, backend, tls, maxMessageBytes, deps, lift),
  )
  const publisher = lease.use<Publisher>('publisher', { key: [...key, publish], close: (one) => one.close() }, () =>
    makePublisher(made, backend, deps),
  )
  return { made, publisher }
}

/** As one; null when none is set. */
async function makeSinks(
  { events, backends }: Settings,
  publishers: ReadonlyMap<string, Publisher>,
  { metrics, log, lease }: UpstreamDeps,
  issues: string[],
): Promise<EventSink | null> {
  const sinks: EventSink[] = []
  for (const [index, wanted] of events.entries()) {
    const key: unknown[] = [index, wanted]
    const close = (sink: EventSink) => sink.close()
    if (wanted.kind === 'log') sinks.push(lease.use('sink', { key, close }, () => EVENT_SINKS.log({ log })))
    else if (wanted.kind === 'module') {
      try {
        const { path, options } = wanted
        sinks.push(await lease.useLater('sink', { key, close }, () => EVENT_SINKS.module(path, options)))
      } catch (error) {
        issues.push(`events[${index}]: ${error instanceof Error ? error.message : String(error)}`)
      }
    } else {
      // Its absence is an issue of its own.
      const publisher = publishers.get(wanted.backend)
      if (publisher === undefined) continue
      // What waits for a broker goes with the way to it.
      key.push(backends[wanted.backend], numberOf(publisher))
      sinks.push(lease.use('sink', { key, close }, () => brokerSinkTo(publisher, wanted.topicPrefix, metrics)))
    }
  }
  return sinks.length === 0 ? null : EVENT_SINKS.all(sinks)
}

const numbers = new WeakMap<object, number>()
let lastNumber = 0

/** Tells one object from another in a key. */
function numberOf(part: object): number {
  const known = numbers.get(part) ?? ++lastNumber
  numbers.set(part, known)
  return known
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

function makeHttpBackend(
  name: string,
  { url, ca, cert, key, timeout }: HttpBackendSettings,
  { read }: UpstreamDeps,
): HttpBackend {
  return {
    name,
    url: new URL(url),
    ca: ca === null ? null : ca.map(read),
    cert: cert === null ? null : read(cert),
    key: key === null ? null : read(key),
    timeoutMs: timeout,
  }
}

function makePublisher(backend: Backend, { identity, publish }: BrokerSettings, { drained }: UpstreamDeps): Publisher {
  return PUBLISHERS.pool({
    backend,
    ...PUBLISHERS.credentials(identity, publish),
    connections: publish.connections,
    timeoutMs: publish.timeout,
    queue: publish.queue,
    principalProperty: publish.principalProperty,
    addressProperty: publish.addressProperty,
    ...(drained !== null && { drained }),
  })
}

function makeBackend(
  name: string,
  settings: BrokerSettings,
  tls: BackendTls | null,
  maxMessageBytes: number,
  { metrics, embeddedPath, drained }: UpstreamDeps,
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
    outageShield: shieldOf(settings.outageShield),
    drained: (peer: string) => drained?.has(name, peer) === true,
    onDial,
  }
  if (settings.kind === 'ws') {
    const servers = settings.servers.map(({ url }) => url)
    // Where a kind may have TLS, `brokerTls` has read what it needs.
    return BACKENDS.ws({ ...common, servers, tls: tls!, headers: settings.headers, maxMessageBytes })
  }
  const servers = settings.servers.map(({ address }) => address)
  return BACKENDS[settings.kind]({ ...common, servers, lift, tls })
}

function shieldOf(settings: Exclude<BrokerSettings, { kind: 'embedded' }>['outageShield']): ShieldSettings | null {
  if (settings === null) return null
  const { hold, buffer, resumesPerSecond } = settings
  return { holdMs: hold, bufferBytes: buffer, resumesPerSecond }
}

function brokerTls({ ca, serverName, cert, key }: SecureSettings, { read }: UpstreamDeps): BackendTls {
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
  exhausted: reasonOf('ERR_DIAL_EXHAUSTED'),
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
