import { assemble, type Generation } from './assemble.ts'
import type { Authenticated } from './auth/authenticator.ts'
import { identifier } from './auth/identify.ts'
import { presentsCustom } from './auth/parameters.ts'
import { remembering } from './auth/remembered.ts'
import { presentsSigV4 } from './auth/sigv4-read.ts'
import type { Settings } from './config/schema.ts'
import type { SecuredConnection } from './connection.ts'
import type { Metrics } from './control/metrics.ts'
import { ProxyError } from './errors.ts'
import { createForwarder } from './https/forward.ts'
import { httpsHandler } from './https/front.ts'
import { observed } from './https/observed-permit.ts'
import type { FrontParts } from './https/parts.ts'
import { publishLimits } from './https/publish.ts'
import { routeTable } from './https/routes.ts'
import { addressMatcher } from './listener/addresses.ts'
import { Governor } from './listener/governor.ts'
import { Acceptor, type Capacity, type Listener } from './listener/listener.ts'
import { Penalties } from './listener/penalties.ts'
import { type DomainRules, domainRules } from './mqtt/domain-rules.ts'
import { KeepAliveWheel } from './mqtt/keep-alive.ts'
import { Lifetimes } from './mqtt/lifetimes.ts'
import { type SeatLimits, Seats } from './mqtt/seats.ts'
import { type DeniedAction, type LiveSession, mqttHandler } from './mqtt/session.ts'
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
  /** How short this process is of time, memory or descriptors; absent: it never is. */
  readonly shedding?: () => Shedding
  /** What keys of session tickets are made of, in all processes. */
  readonly ticketSecret: TicketSecret
}

/** What there is too little of, and what follows from it. */
export interface Shedding {
  /** 1: only few full handshakes; 2: nothing new at all. */
  readonly stage: 0 | 1 | 2
}

const NO_SHEDDING: Shedding = { stage: 0 }
const UNLIMITED = { most: null, perPrincipal: null }

/** A proxy that accepts, in this process. */
export interface Running {
  readonly listeners: readonly Listener[]
  /** Connections and sessions of this process. */
  readonly live: { readonly connections: number; readonly sessions: number }
  /** Every session of this process, to be looked at and ended. */
  readonly sessions: ReadonlySet<LiveSession>
  /** By their names in the settings. */
  readonly registries: Generation['registries']
  /** Other numbers of `governor`, `shedding` and `domains[].sessions` from now on; whoever waits goes on waiting. */
  govern(settings: Pick<Settings, 'governor' | 'shedding' | 'domains'>): void
  /** The answer of `shedding` has changed. */
  shed(): void
  stopAccepting(): Promise<void>
  /** Ends the sessions evenly over the grace period, each with its farewell; resolves when none is left, or after it. */
  endSessions(graceMs: number): Promise<void>
}

export type Started =
  | { readonly kind: 'running'; readonly running: Running }
  | { readonly kind: 'refused'; readonly issues: readonly string[] }

/** For the broker to answer CONNECT. */
const CONNACK_TIMEOUT_MS = 10_000

/** Share of the grace period in which sessions are told to go; the rest is for their last bytes. */
const FAREWELL_SHARE = 0.8

/** Settings → parts → listeners. */
export async function start(settings: Settings, options: StartOptions): Promise<Started> {
  const { metrics, shedding = () => NO_SHEDDING } = options
  const { embeddedPath, log, registrar, registered, ticketSecret } = options
  const parts = { metrics, embeddedPath, log, registrar, registered, ticketSecret }
  const assembled = await assemble(settings, { number: 1, ...parts })
  if (assembled.kind === 'refused') return assembled
  const { generation } = assembled
  const { events } = generation
  for (const warning of generation.warnings) options.warn(warning)

  const closing = new AbortController()
  const refusedResumptions = new RefusedResumptions()
  const governor = new Governor({
    settings: settings.governor,
    counters: metrics.admission,
    waited: metrics.handshakeWaited,
  })
  const penalties = new Penalties({ settings: settings.governor.refusals, counters: metrics.admission })
  const identify = remembering(
    identifier({
      metrics,
      refusedResumptions,
      authenticatorFor: ({ domain }, method) => generation.authenticator(domain.name, method),
    }),
    {
      recall: (domain, fingerprint) => penalties.recall(domain, fingerprint),
      remember: (domain, fingerprint, code) => penalties.remember(domain, fingerprint, code),
      accepted({ domain, visit }) {
        if (visit === undefined) return
        governor.prove(visit)
        penalties.accepted(domain.name, visit.place)
      },
    },
    metrics,
  )
  let sessionsOf = sessionLimits(settings)
  let { fullPerSecond } = settings.shedding
  const seats = new Seats({
    limitsFor: (domain) => sessionsOf.get(domain) ?? UNLIMITED,
    overloaded: () => shedding().stage === 2,
    counters: metrics.admission,
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
    seats,
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
    room: ({ name }) => seats.check(name),
    serveMqtt: mqtt.serveArrival,
    routes: (domain) => routes.get(domain.name) ?? [],
    httpBackend: generation.httpBackend,
    forwarder: await createForwarder(),
    answered(connection, answered) {
      metrics.request(answered.route, answered.status, answered.seconds)
      options.answered(connection, answered)
    },
  })
  generation.watch(() => {
    penalties.clear()
    mqtt.rejudge().catch((error: unknown) => log.error({ error }, 'live sessions could not be judged again'))
  })
  const serve = createServe({
    metrics,
    handlers: { mqtt, https },
    lift: settings.transport === 'auto',
    refusedResumptions,
    governor,
    penalties,
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
      govern(next) {
        sessionsOf = sessionLimits(next)
        fullPerSecond = next.shedding.fullPerSecond
        governor.configure(next.governor)
        penalties.configure(next.governor.refusals)
        this.shed()
      },
      shed() {
        governor.trickle(shedding().stage === 0 ? null : fullPerSecond)
        acceptor.look()
      },
      async stopAccepting() {
        acceptor.stop()
        await Promise.all(listeners.map((listener) => listener.close()))
        const draining = new ProxyError('ERR_DRAINING', 'this process is shutting down')
        governor.stop(draining)
        closing.abort(draining)
      },
      async endSessions(graceMs) {
        const until = performance.now() + graceMs
        const sessions = [...mqtt.live, ...https.live]
        const paceMs = (graceMs * FAREWELL_SHARE) / Math.max(1, sessions.length)
        const timers = sessions.map((session, index) => setTimeout(() => session.close('ERR_DRAINING'), index * paceMs))
        while (acceptor.live > 0 && performance.now() < until) await new Promise((resolve) => setTimeout(resolve, 50))
        for (const timer of timers) clearTimeout(timer)
        await generation.close()
      },
    },
  }
}

/** By the first of the server names, which is what a domain is called. */
function sessionLimits({ domains }: Pick<Settings, 'domains'>): ReadonlyMap<string, SeatLimits> {
  return new Map(domains.map(({ serverNames, sessions }) => [serverNames[0]!, sessions]))
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
