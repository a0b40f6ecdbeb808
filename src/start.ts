import { assemble, type Generation } from './assemble.ts'
import type { Authenticated } from './auth/authenticator.ts'
import { identifier } from './auth/identify.ts'
import { presentsCustom } from './auth/parameters.ts'
import { presentsSigV4 } from './auth/sigv4-read.ts'
import type { DrainedServers } from './backend/drained.ts'
import type { Settings } from './config/schema.ts'
import type { SecuredConnection } from './connection.ts'
import type { Leaving } from './control/farewell.ts'
import type { Metrics } from './control/metrics.ts'
import { ProxyError } from './errors.ts'
import type { Closable } from './https/conversation.ts'
import { createForwarder } from './https/forward.ts'
import { httpsHandler } from './https/front.ts'
import { observed } from './https/observed-permit.ts'
import type { FrontParts } from './https/parts.ts'
import { publishLimits } from './https/publish.ts'
import { routeTable } from './https/routes.ts'
import { addressMatcher } from './listener/addresses.ts'
import { Acceptor, type Capacity, type Listener } from './listener/listener.ts'
import { type DomainRules, domainRules } from './mqtt/domain-rules.ts'
import { KeepAliveWheel } from './mqtt/keep-alive.ts'
import { Lifetimes } from './mqtt/lifetimes.ts'
import { type DeniedAction, type LiveSession, mqttHandler, type Parting } from './mqtt/session.ts'
import type { Permit } from './policy/permit.ts'
import { connectionVariables } from './policy/variables.ts'
import { createServe, type Parts } from './proxy.ts'
import type { RegistryLog } from './registry/live.ts'
import type { RegisteredEvent, Registrar } from './registry/self-registration.ts'
import type { Store } from './store/store.ts'
import type { TicketSecret } from './store/ticket-secret.ts'
import { RefusedResumptions } from './tls/tickets.ts'
import { upgrade } from './wss/upgrade.ts'

export interface StartOptions {
  readonly metrics: Metrics
  /** Told of every thing in the settings that works but should not stay so. */
  readonly warn: (text: string) => void
  readonly embeddedPath: string
  readonly drained?: DrainedServers
  readonly capacity: Capacity
  /** Told of reloads. */
  readonly log: RegistryLog
  /** Writes down which devices registered themselves. */
  readonly registrar: Registrar
  /** Told at every attempt of a device that registered itself and waits to be activated. */
  readonly registered: (event: RegisteredEvent) => void
  /** Told once of every connection, for the log. */
  readonly ended: Parts['ended']
  /** Told of every HTTP request, for the log. */
  readonly answered: FrontParts['answered']
  /** Told of what policies deny, per packet. */
  readonly denied: (told: DeniedAction) => void
  /** Who has which client id, among all processes. */
  readonly store: Store
  /** What keys of session tickets are made of, in all processes. */
  readonly ticketSecret: TicketSecret
}

/** A proxy that accepts, in this process. */
export interface Running {
  readonly listeners: readonly Listener[]
  /** Connections and sessions of this process. */
  readonly live: { readonly connections: number; readonly sessions: number }
  /** Every session of this process, to be looked at and ended. */
  readonly sessions: ReadonlySet<LiveSession>
  /** By their names in the settings. */
  readonly registries: Generation['registries']
  /** Closes the listeners. Who is on the way in may still come in; HTTP connections end with their running request. */
  stopAccepting(): Promise<void>
  /** From now on this is the answer to CONNECT. */
  turnAway(parting: Pick<Parting, 'code' | 'serverReference'>): void
  /** Whoever is on the way in stops there. */
  stopEntering(): void
  /** Everybody who has to be told to go. */
  leaving(): Iterable<Leaving>
  /** Ends what is left. */
  close(): Promise<void>
}

export type Started =
  | { readonly kind: 'running'; readonly running: Running }
  | { readonly kind: 'refused'; readonly issues: readonly string[] }

/** For the broker to answer CONNECT. */
const CONNACK_TIMEOUT_MS = 10_000

/** Settings → parts → listeners. */
export async function start(settings: Settings, options: StartOptions): Promise<Started> {
  const { metrics } = options
  const { embeddedPath, drained, log, registrar, registered, ticketSecret } = options
  const parts = { metrics, embeddedPath, log, registrar, registered, ticketSecret, ...(drained && { drained }) }
  const assembled = await assemble(settings, { number: 1, ...parts })
  if (assembled.kind === 'refused') return assembled
  const { generation } = assembled
  const { events } = generation
  for (const warning of generation.warnings) options.warn(warning)

  const closing = new AbortController()
  const draining = new AbortController()
  const refusedResumptions = new RefusedResumptions()
  const identify = identifier({
    metrics,
    refusedResumptions,
    authenticatorFor: ({ domain }, method) => generation.authenticator(domain.name, method),
  })
  const rulesFor = domainRules(settings)
  const mqtt = mqttHandler({
    limits: {
      connectTimeoutMs: settings.limits.connectTimeout,
      connectBytes: settings.limits.connectSize,
      connackTimeoutMs: CONNACK_TIMEOUT_MS,
      halfCloseMs: settings.limits.halfCloseTimeout,
    },
    metrics,
    wheel: new KeepAliveWheel(),
    lifetimes: new Lifetimes(),
    store: options.store,
    identify,
    rulesFor,
    backendFor: (domain) => generation.backend(domain.backend),
    denied: options.denied,
    tell: events === null ? null : (event) => events.send(event),
  })
  const { http } = settings.limits
  // By the first of the server names, which is what a domain is called.
  const routes = new Map(settings.domains.map((domain) => [domain.serverNames[0]!, routeTable(domain.routes)]))
  const https = httpsHandler({
    limits: {
      headerTimeoutMs: http.headerTimeout,
      bodyTimeoutMs: http.bodyTimeout,
      idleTimeoutMs: http.idleTimeout,
      headerBytes: http.headerSize,
      headers: http.headers,
      bodyBytes: http.bodySize,
    },
    draining: draining.signal,
    identify,
    presentsSigV4,
    presentsCustom,
    tokenKeyNames: (domain) => generation.tokenKeyNames(domain.name),
    hasDefaultAuthorizer: (domain) => generation.hasDefaultAuthorizer(domain.name),
    permitFor: (connection, who) => httpsPermit(connection, who, rulesFor(connection.domain), options),
    publishLimits: (domain) => publishLimits(rulesFor(domain).rules),
    publisher: (domain) => generation.publisher(domain.backend),
    websocket: (request, socket, head) =>
      upgrade(request, socket, head, {
        maxMessageBytes: settings.limits.webSocketMessageSize,
        firstMessageBytes: settings.limits.connectSize,
      }),
    serveMqtt: mqtt.serveArrival,
    routes: (domain) => routes.get(domain.name) ?? [],
    httpBackend: generation.httpBackend,
    forwarder: await createForwarder(),
    answered(connection, answered) {
      metrics.request(answered.route, answered.status, answered.seconds)
      options.answered(connection, answered)
    },
  })
  const forwarded = forwardedOf(https.live)
  generation.watch(() => {
    mqtt.rejudge().catch((error: unknown) => log.error({ error }, 'live sessions could not be judged again'))
  })
  const serve = createServe({
    metrics,
    handlers: { mqtt, https },
    lift: settings.transport === 'auto',
    refusedResumptions,
    closing: closing.signal,
    domains: () => generation.domains,
    ended: options.ended,
  })
  const acceptor = new Acceptor(options.capacity, metrics, (socket, listener) => void serve(socket, listener))

  const listeners: Listener[] = []
  for (const { bind, as, proxyProtocol, helloTimeout } of settings.listeners) {
    try {
      listeners.push(
        await acceptor.listen({
          host: bind.host,
          port: bind.port,
          as,
          proxyProtocol:
            proxyProtocol === null
              ? null
              : { versions: proxyProtocol.versions, trusts: addressMatcher(proxyProtocol.trustedSources) },
          helloTimeoutMs: helloTimeout,
        }),
      )
    } catch (error) {
      await Promise.all(listeners.map((listener) => listener.close()))
      await generation.close()
      const why = error instanceof Error ? error.message : String(error)
      return { kind: 'refused', issues: [`listeners: ${bind.host} port ${bind.port}: ${why}`] }
    }
  }

  return {
    kind: 'running',
    running: {
      listeners,
      registries: generation.registries,
      get live() {
        return { connections: acceptor.live, sessions: mqtt.live.size }
      },
      sessions: mqtt.live,
      async stopAccepting() {
        acceptor.stop()
        await Promise.all(listeners.map((listener) => listener.close()))
        draining.abort()
      },
      turnAway: (parting) => mqtt.turnAway(parting),
      stopEntering: () => closing.abort(new ProxyError('ERR_DRAINING', 'this process is shutting down')),
      leaving: () => [...mqtt.live, ...forwarded()],
      close: () => generation.close(),
    },
  }
}

/** WebSockets of others, of which nothing is known but that they are open; each is the same one every time. */
function forwardedOf(live: ReadonlySet<Closable>): () => Leaving[] {
  const known = new WeakMap<Closable, Leaving>()
  return () =>
    Array.from(live, (entry) => {
      const leaving = known.get(entry) ?? {
        silence: 0,
        owed: 0,
        get gone() {
          return !live.has(entry)
        },
        leave: ({ code }) => entry.close(code),
      }
      known.set(entry, leaving)
      return leaving
    })
}

/** What a principal may do over HTTPS, where there is no client id; its decisions are counted and told as those of MQTT. */
function httpsPermit(
  connection: SecuredConnection,
  who: Authenticated,
  { arn, reportOnly }: DomainRules,
  { metrics, denied }: Pick<StartOptions, 'metrics' | 'denied'>,
): Permit {
  const { serverName: name } = connection.hello
  const serverName = name.kind === 'name' ? name.name : null
  const variables = connectionVariables({
    clientId: null,
    remoteAddress: connection.remoteAddress,
    serverName,
    thing: null,
    connectAttributes: [],
    lastWillTopic: null,
    own: who.variables,
  })
  const { gate } = metrics.traffic
  return observed(who.grants.permit(arn, variables), {
    reportOnly,
    decided(action, resource, allowed) {
      const counters = allowed ? gate.allowed : gate.denied
      // A route may ask for an action of its own, which has no counter.
      if (Object.hasOwn(counters, action)) counters[action as keyof typeof counters]++
      if (allowed) return
      const trace = { serverName, principal: who.principal.id, clientId: null }
      denied({ connection, trace, action, resource, code: 'ERR_ACTION_DENIED', reported: reportOnly })
    },
  })
}
