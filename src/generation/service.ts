import type { Generation } from '../assemble.ts'
import type { Authenticated } from '../auth/authenticator.ts'
import type { Identify } from '../auth/identify.ts'
import { presentsCustom } from '../auth/parameters.ts'
import { presentsSigV4 } from '../auth/sigv4-read.ts'
import type { SecuredConnection } from '../connection.ts'
import type { Metrics } from '../control/metrics.ts'
import type { Forwarder } from '../https/forward.ts'
import { type HttpsHandler, httpsHandler } from '../https/front.ts'
import { observed } from '../https/observed-permit.ts'
import type { FrontParts } from '../https/parts.ts'
import { publishLimits } from '../https/publish.ts'
import { routeTable } from '../https/routes.ts'
import { type DomainRules, domainRules } from '../mqtt/domain-rules.ts'
import type { MqttHandler, SessionLimits } from '../mqtt/handler.ts'
import type { Tell } from '../mqtt/presence.ts'
import type { SeatLimits } from '../mqtt/seats.ts'
import type { DeniedAction } from '../mqtt/session-contract.ts'
import type { Permit } from '../policy/permit.ts'
import { connectionVariables } from '../policy/variables.ts'
import type { Served } from '../proxy.ts'
import type { Domain } from '../tls/domains.ts'
import { upgrade } from '../wss/upgrade.ts'
import type { Mortal } from './generations.ts'

/** What a generation needs of the process that it lives in. */
export interface Host {
  readonly metrics: Metrics
  readonly mqtt: MqttHandler
  readonly identify: Identify
  readonly forwarder: Forwarder
  readonly answered: FrontParts['answered']
  readonly denied: (told: DeniedAction) => void
  /** @throws {ProxyError} when there is no room for another session */
  readonly room: (domain: Domain) => void
  /** Aborted when no new connections are taken. */
  readonly draining: AbortSignal
}

/** One generation, ready to serve connections. */
export interface Service extends Mortal, Served {
  readonly generation: Generation
  readonly https: HttpsHandler
  readonly sessionLimits: SessionLimits
  readonly tell: Tell | null
  rulesFor(domain: Pick<Domain, 'name'>): DomainRules
  /** Most sessions of a domain, by its name. */
  seatsOf(domain: string): SeatLimits
}

const UNLIMITED: SeatLimits = { most: null, perPrincipal: null }

/** For the broker to answer CONNECT. */
const CONNACK_TIMEOUT_MS = 10_000

export function serviceOf(generation: Generation, host: Host): Service {
  const { settings, events, domains } = generation
  const { limits } = settings
  const rulesFor = domainRules(settings)
  const https = httpsFront(generation, host, rulesFor)
  // By the first of the server names, which is what a domain is called.
  const seats = new Map(settings.domains.map(({ serverNames, sessions }) => [serverNames[0]!, sessions]))
  return {
    number: generation.number,
    generation,
    domains,
    handlers: { mqtt: host.mqtt, https },
    lift: settings.transport === 'auto',
    https,
    rulesFor,
    seatsOf: (domain) => seats.get(domain) ?? UNLIMITED,
    sessionLimits: {
      connectTimeoutMs: limits.connectTimeout,
      connectBytes: limits.connectSize,
      connackTimeoutMs: CONNACK_TIMEOUT_MS,
      halfCloseMs: limits.halfCloseTimeout,
    },
    tell: events === null ? null : (event) => events.send(event),
    retire() {
      https.retire()
      domains.retire()
    },
    close: () => generation.close(),
  }
}

function httpsFront(generation: Generation, host: Host, rulesFor: Service['rulesFor']): HttpsHandler {
  const { limits, domains } = generation.settings
  const { http } = limits
  // By the first of the server names, which is what a domain is called.
  const routes = new Map(domains.map((domain) => [domain.serverNames[0]!, routeTable(domain.routes)]))
  return httpsHandler({
    limits: {
      headerTimeoutMs: http.headerTimeout,
      bodyTimeoutMs: http.bodyTimeout,
      idleTimeoutMs: http.idleTimeout,
      headerBytes: http.headerSize,
      headers: http.headers,
      bodyBytes: http.bodySize,
    },
    draining: host.draining,
    identify: host.identify,
    presentsSigV4,
    presentsCustom,
    tokenKeyNames: (domain) => generation.tokenKeyNames(domain.name),
    hasDefaultAuthorizer: (domain) => generation.hasDefaultAuthorizer(domain.name),
    permitFor: (connection, who) => httpsPermit(connection, who, rulesFor(connection.domain), host),
    publishLimits: (domain) => publishLimits(rulesFor(domain).rules),
    publisher: (domain) => generation.publisher(domain.backend),
    websocket: (request, socket, head) =>
      upgrade(request, socket, head, {
        maxMessageBytes: limits.webSocketMessageSize,
        firstMessageBytes: limits.connectSize,
      }),
    room: host.room,
    serveMqtt: host.mqtt.serveArrival,
    routes: (domain) => routes.get(domain.name) ?? [],
    httpBackend: generation.httpBackend,
    forwarder: host.forwarder,
    answered(connection, answered) {
      host.metrics.request(answered.route, answered.status, answered.seconds)
      host.answered(connection, answered)
    },
  })
}

/** What a principal may do over HTTPS, where there is no client id; its decisions are counted and told as those of MQTT. */
function httpsPermit(
  connection: SecuredConnection,
  who: Authenticated,
  { arn, reportOnly }: DomainRules,
  { metrics, denied }: Host,
): Permit {
  const variables = connectionVariables({
    clientId: null,
    remoteAddress: connection.remoteAddress,
    serverName: connection.serverName,
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
      const trace = { serverName: connection.serverName, principal: who.principal.id, clientId: null }
      denied({ connection, trace, action, resource, code: 'ERR_ACTION_DENIED', reported: reportOnly })
    },
  })
}
