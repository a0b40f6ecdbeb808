import { SHEDDING_DEFAULTS } from './governor-schema.ts'
import { SERVICE_PORTS, type ServicePort } from './schema.ts'
import type { Path } from './tree.ts'
import { DURATION_UNITS, scaled } from './units.ts'

/** Settings that are right one by one and wrong together. */
export interface Contradiction {
  readonly path: Path
  readonly message: string
}

/** Wire specification §1.2: which protocol goes with which authentication; every other cell is refused at load. */
const PROTOCOLS_OF: Readonly<Record<string, readonly string[]>> = {
  DEFAULT: ['DEFAULT'],
  AWS_X509: ['SECURE_MQTT', 'HTTPS'],
  CUSTOM_AUTH_X509: ['SECURE_MQTT', 'HTTPS'],
  AWS_SIGV4: ['MQTT_WSS', 'HTTPS'],
  CUSTOM_AUTH: ['SECURE_MQTT', 'MQTT_WSS', 'HTTPS'],
  BACKEND: ['SECURE_MQTT'],
}

/** Where certificates are looked at, so that `clientTrust` means something. */
const CERTIFIED: ReadonlySet<string> = new Set(['DEFAULT', 'AWS_X509', 'CUSTOM_AUTH_X509'])

type Fields = Readonly<Record<string, unknown>>

// Read leniently: what has the wrong form is the schema's issue, and the rules still see the rest, so that people
// get everything at once.
const fields = (value: unknown): Fields => (typeof value === 'object' && value !== null ? (value as Fields) : {})
const list = (value: unknown): readonly unknown[] => (Array.isArray(value) ? value : [])
const names = (value: unknown): string => Object.keys(fields(value)).join(', ') || 'none yet'
const has = (value: unknown, name: string): boolean => Object.hasOwn(fields(value), name)

/** Ports whose rules know HTTPS (wire specification §1.1). */
const HTTPS_PORTS: ReadonlySet<unknown> = new Set([8443, 443])

/** Everything in the input that contradicts itself, whether or not the schema accepts the rest. */
export function contradictions(input: unknown): readonly Contradiction[] {
  const settings = fields(input)
  return [
    ...listenerRules(settings),
    ...domainRules(settings),
    ...backendRules(settings),
    ...publishRules(settings),
    ...registryRules(settings),
    ...limitRules(fields(settings.limits), ['limits']),
    ...sheddingRules(fields(settings.shedding)),
  ]
}

function* listenerRules(settings: Fields): Generator<Contradiction> {
  const seen = new Map<string, string>()
  const binds = list(settings.listeners).map((listener, at) => ({
    bind: fields(listener).bind,
    as: fields(listener).as,
    path: ['listeners', at],
    text: `listeners[${at}]`,
  }))
  const metrics = fields(settings.metrics).bind ?? '127.0.0.1:9883'
  for (const { bind, as, path, text } of binds) {
    if (typeof bind !== 'string') continue
    const port = Number(bind.slice(bind.lastIndexOf(':') + 1))
    if (as === undefined && Number.isInteger(port) && !SERVICE_PORTS.includes(port as ServicePort)) {
      yield {
        path: [...path, 'as'],
        message: `is missing, expected 8883, 8443 or 443: port ${port} has no rules of its own`,
      }
    }
    const first = seen.get(bind)
    // Port 0 is a new port each time.
    if (first !== undefined && port !== 0) yield { path: [...path, 'bind'], message: `is the address of ${first} too` }
    seen.set(bind, first ?? text)
    if (bind === metrics && port !== 0) yield { path: [...path, 'bind'], message: 'is the address of metrics.bind too' }
  }
}

function* domainRules(settings: Fields): Generator<Contradiction> {
  const owners = new Map<string, string>()
  for (const [at, value] of list(settings.domains).entries()) {
    const domain = fields(value)
    const path = ['domains', at]

    for (const [index, name] of list(domain.serverNames).entries()) {
      if (typeof name !== 'string') continue
      const owner = owners.get(name.toLowerCase())
      const place = `domains[${at}].serverNames[${index}]`
      if (owner !== undefined) yield { path: [...path, 'serverNames', index], message: `is taken by ${owner}` }
      else owners.set(name.toLowerCase(), place)
    }

    const backend = domain.backend
    if (typeof backend === 'string' && !has(settings.backends, backend)) {
      yield { path: [...path, 'backend'], message: `no such backend, expected one of: ${names(settings.backends)}` }
    }
    if (typeof backend === 'string' && kindOf(settings, backend) === 'http') {
      yield { path: [...path, 'backend'], message: 'expected a broker, not a backend of kind http' }
    }
    const registry = domain.registry
    if (typeof registry === 'string' && !has(settings.registries, registry)) {
      yield {
        path: [...path, 'registry'],
        message: `no such registry, expected one of: ${names(settings.registries)}`,
      }
    }

    yield* authorizerRules(domain, path)

    yield* limitRules(fields(domain.limits), [...path, 'limits'])
    const type = domain.authenticationType ?? 'DEFAULT'
    const protocol = domain.applicationProtocol ?? 'DEFAULT'
    const allowed = typeof type === 'string' && Object.hasOwn(PROTOCOLS_OF, type) ? PROTOCOLS_OF[type]! : []
    if (allowed.length > 0 && !allowed.includes(String(protocol))) {
      const which = allowed.length === 1 ? 'the only one that goes' : 'what goes'
      yield {
        path: [...path, 'applicationProtocol'],
        message: `expected ${allowed.join(' or ')}, ${which} with authenticationType ${type}`,
      }
    }
    if (type === 'BACKEND') yield* backendAuthenticationRules(domain, path)
    else if (typeof type === 'string' && CERTIFIED.has(type)) yield* trustRules(domain, path)
    yield* routeRules(settings, domain, path, String(protocol))
  }
}

const kindOf = (settings: Fields, backend: string): unknown =>
  has(settings.backends, backend) ? fields(fields(settings.backends)[backend]).kind : undefined

/** What HTTPS is answered with by us, whatever a route says. */
const OWN_PATH = /^\/(?:mqtt|topics)(?:\/.*)?$/i

function* routeRules(settings: Fields, domain: Fields, domainPath: Path, protocol: string): Generator<Contradiction> {
  const routes = list(domain.routes)
  if (routes.length > 0 && protocol !== 'DEFAULT' && protocol !== 'HTTPS') {
    yield { path: [...domainPath, 'routes'], message: `has no effect with applicationProtocol ${protocol}` }
  }
  for (const [at, value] of routes.entries()) {
    const route = fields(value)
    const path = [...domainPath, 'routes', at]
    const pattern = typeof route.path === 'string' ? route.path : ''
    if (OWN_PATH.test(pattern)) yield { path: [...path, 'path'], message: 'is a path that is served here' }
    if (typeof route.backend === 'string') {
      if (!has(settings.backends, route.backend)) {
        const message = `no such backend, expected one of: ${names(settings.backends)}`
        yield { path: [...path, 'backend'], message }
      } else if (kindOf(settings, route.backend) !== 'http') {
        yield { path: [...path, 'backend'], message: 'expected a backend of kind http' }
      }
    }
    yield* authorizationRules(route, pattern, path)
  }
}

/** A route names what the policies are asked, or says that they are not. */
function* authorizationRules(route: Fields, pattern: string, path: Path): Generator<Contradiction> {
  const { action, authorize, resource } = route
  if (action === undefined && authorize === undefined) {
    yield {
      path: [...path, 'action'],
      message: 'is missing, expected an action such as "iot:GetThingShadow", or authorize: none',
    }
  } else if (action !== undefined && authorize !== undefined) {
    yield { path: [...path, 'authorize'], message: 'expected either action or authorize: none' }
  }
  if (action === undefined && resource !== undefined) {
    yield { path: [...path, 'resource'], message: 'has no effect without action' }
  } else if (action !== undefined && resource === undefined && !/\/things\/\*(?:\/|$)/.test(pattern)) {
    yield { path: [...path, 'resource'], message: 'is missing, expected a resource: the path has no /things/*' }
  }
  if (typeof resource !== 'string') return
  const stars = pattern.split('/').filter((part) => part === '*').length
  for (const [, digit] of resource.matchAll(/\$\{(\d)\}/g)) {
    if (Number(digit) <= stars) continue
    yield { path: [...path, 'resource'], message: `expected no \${${digit}}: the path has ${stars} *` }
  }
}

/** No client certificate is asked for, so nothing that judges one can have an effect; policies hold for whoever comes. */
function* backendAuthenticationRules(domain: Fields, path: Path): Generator<Contradiction> {
  const { policies, ...judging } = fields(domain.clientTrust)
  const effect = 'has no effect with authenticationType BACKEND, which asks for no certificate'
  if (domain.clientTrust !== undefined && (policies === undefined || Object.keys(judging).length > 0)) {
    yield {
      path: [...path, 'clientTrust'],
      message: policies === undefined ? effect : `only policies: all else ${effect}`,
    }
  }
  if (list(policies).length === 0) {
    if (domain.registry !== undefined) yield { path: [...path, 'registry'], message: effect }
  } else if (domain.registry === undefined) {
    yield { path: [...path, 'registry'], message: 'is missing, expected the registry with clientTrust.policies' }
  }
  const { bind } = fields(domain.clientId)
  if (bind === 'thing' || bind === 'principal') {
    yield {
      path: [...path, 'clientId', 'bind'],
      message: 'expected policy: with authenticationType BACKEND only the broker knows who a device is',
    }
  }
}

/** A least above its most would replace every value by the other. */
function* limitRules(limits: Fields, path: Path): Generator<Contradiction> {
  const seconds = (written: unknown) => (typeof written === 'string' ? scaled(written, DURATION_UNITS) : Number.NaN)
  if (!(seconds(limits.keepAliveLeast) > seconds(limits.keepAliveMost))) return
  yield { path: [...path, 'keepAliveLeast'], message: 'is above keepAliveMost' }
}

/** Few come before none. */
function* sheddingRules(shedding: Fields): Generator<Contradiction> {
  const amount = (written: unknown): number =>
    typeof written === 'string' ? scaled(written, DURATION_UNITS) : Number(written ?? Number.NaN)
  for (const [reason, { trickle, refuse }] of Object.entries(SHEDDING_DEFAULTS)) {
    const own = fields(shedding[reason])
    if (!(amount(own.trickle ?? trickle) > amount(own.refuse ?? refuse))) continue
    yield { path: ['shedding', reason, 'trickle'], message: `is above refuse, which is ${own.refuse ?? refuse}` }
  }
}

/** Where an authorizer can be asked. */
const AUTHORIZED: ReadonlySet<unknown> = new Set(['DEFAULT', 'CUSTOM_AUTH', 'CUSTOM_AUTH_X509'])
const AUTHORIZER_KEYS = ['authorizers', 'defaultAuthorizer', 'allowAuthorizerOverride'] as const

function* authorizerRules(domain: Fields, path: Path): Generator<Contradiction> {
  const type = domain.authenticationType ?? 'DEFAULT'
  if (typeof type !== 'string' || !Object.hasOwn(PROTOCOLS_OF, type)) return
  const given = AUTHORIZER_KEYS.filter((key) => domain[key] !== undefined)
  if (!AUTHORIZED.has(type)) {
    for (const key of given) {
      yield { path: [...path, key], message: `has no effect with authenticationType ${type}, which asks no authorizer` }
    }
  } else if (given.length > 0 || type !== 'DEFAULT') {
    const named = list(domain.authorizers).length > 0
    if (domain.registry === undefined) {
      yield { path: [...path, 'registry'], message: 'is missing, expected the registry with the authorizers' }
    }
    // Without an own choice of the device and without a default nobody could ever be asked.
    if (domain.defaultAuthorizer === undefined && !(named && domain.allowAuthorizerOverride === true)) {
      const message =
        'is missing, expected the name of an authorizer, or authorizers with allowAuthorizerOverride: true'
      yield { path: [...path, 'defaultAuthorizer'], message }
    }
  }
  if (!CERTIFIED.has(type) && type !== 'BACKEND' && domain.clientTrust !== undefined) {
    const message = `has no effect with authenticationType ${type}, which asks for no certificate`
    yield { path: [...path, 'clientTrust'], message }
  }
}

function* trustRules(domain: Fields, path: Path): Generator<Contradiction> {
  const trust = fields(domain.clientTrust)
  const mode = trust.mode ?? 'registry'
  if (typeof mode !== 'string' || !['registry', 'ca', 'registry-or-ca', 'registry-and-ca'].includes(mode)) return
  const caPath = [...path, 'clientTrust', 'ca']
  const withoutCa = list(trust.ca).length === 0
  if (mode.includes('registry') && domain.registry === undefined) {
    yield { path: [...path, 'registry'], message: `is missing, expected a registry: clientTrust.mode is ${mode}` }
  }
  if (list(trust.policies).length > 0) {
    const policiesPath = [...path, 'clientTrust', 'policies']
    if (mode === 'registry' || mode === 'registry-and-ca') {
      yield {
        path: policiesPath,
        message: `has no effect with clientTrust.mode ${mode}: the registry knows all who may`,
      }
    } else if (domain.registry === undefined) {
      yield { path: [...path, 'registry'], message: 'is missing, expected the registry with clientTrust.policies' }
    }
  }
  if (mode !== 'registry' && withoutCa) {
    yield { path: caPath, message: `is missing, expected at least one PEM file: clientTrust.mode is ${mode}` }
  } else if (trust.crl !== undefined && withoutCa) {
    yield { path: caPath, message: 'is missing, expected the CAs that signed the files of clientTrust.crl' }
  } else if (mode === 'registry' && trust.crl === undefined && !withoutCa) {
    yield { path: caPath, message: 'has no effect with clientTrust.mode registry and no clientTrust.crl' }
  }
}

function* backendRules(settings: Fields): Generator<Contradiction> {
  const backends = settings.backends
  if (typeof backends === 'object' && backends !== null && Object.keys(backends).length === 0) {
    yield { path: ['backends'], message: 'expected at least one backend such as main: { kind: tcp, servers: [ … ] }' }
  }
  for (const [name, value] of Object.entries(fields(backends))) {
    const backend = fields(value)
    if (backend.kind !== 'tls' && backend.kind !== 'ws' && backend.kind !== 'http') continue
    if (backend.kind === 'ws') yield* webSocketRules(backend, ['backends', name])
    for (const [one, other] of [
      ['cert', 'key'],
      ['key', 'cert'],
    ] as const) {
      if (backend[one] !== undefined && backend[other] === undefined) {
        yield { path: ['backends', name, other], message: `is missing, expected a PEM file: ${one} is set` }
      }
    }
  }
}

function* registryRules(settings: Fields): Generator<Contradiction> {
  const owners = new Map<string, string>()
  for (const [name, value] of Object.entries(fields(settings.registries))) {
    const { path, state } = fields(value)
    if (typeof state !== 'string') continue
    const owner = owners.get(state)
    const at = ['registries', name, 'state']
    if (owner !== undefined) yield { path: at, message: `is the folder of ${owner} too` }
    else if (state === path) yield { path: at, message: 'expected another folder than path, which is never written' }
    owners.set(state, `registries.${name}`)
  }
}

/** TLS is asked for by the scheme of a URL; without one, nothing that judges it can have an effect. */
function* webSocketRules(backend: Fields, path: Path): Generator<Contradiction> {
  const urls = list(backend.servers).map((server) => fields(server).url)
  if (urls.some((url) => typeof url !== 'string' || url.startsWith('wss:'))) return
  for (const key of ['ca', 'serverName', 'cert', 'key']) {
    if (backend[key] === undefined) continue
    yield { path: [...path, key], message: 'has no effect, because no server has a URL with wss:' }
  }
}

/** Names of the backends that speak MQTT. */
function brokers(backends: unknown): string {
  const found = Object.entries(fields(backends)).filter(([, backend]) => fields(backend).kind !== 'http')
  return found.map(([name]) => name).join(', ') || 'none yet'
}

/** Publishes over HTTPS and events go through connections of our own, and a template has no device there to be filled from. */
function* publishRules(settings: Fields): Generator<Contradiction> {
  const ports = list(settings.listeners).map((listener) => {
    const { as, bind } = fields(listener)
    return as ?? (typeof bind === 'string' ? Number(bind.slice(bind.lastIndexOf(':') + 1)) : null)
  })
  const publishing = ports.some((port) => HTTPS_PORTS.has(port))
    ? list(settings.domains)
        .map(fields)
        .filter(
          ({ authenticationType = 'DEFAULT', applicationProtocol }) =>
            authenticationType === 'DEFAULT' || applicationProtocol === 'HTTPS',
        )
    : []
  const telling = list(settings.events).map(fields)
  for (const [at, { backend }] of telling.entries()) {
    if (typeof backend !== 'string') continue
    const kind = fields(fields(settings.backends)[backend]).kind
    if (has(settings.backends, backend) && kind !== 'http') continue
    const path = ['events', at, 'backend']
    yield { path, message: `no such broker, expected one of: ${brokers(settings.backends)}` }
  }
  for (const name of new Set([...publishing, ...telling].map(({ backend }) => backend))) {
    if (typeof name !== 'string' || !has(settings.backends, name)) continue
    const backend = fields(fields(settings.backends)[name])
    const [identity, publish] = [fields(backend.identity), fields(backend.publish)]
    // With a name of their own they have their own password too, or none.
    if (publish.username !== undefined) continue
    if (publish.password !== undefined) {
      yield { path: ['backends', name, 'publish', 'username'], message: 'is missing, expected a text: password is set' }
      continue
    }
    for (const key of ['username', 'password']) {
      const template = identity[key]
      if (typeof template !== 'string' || !/\$\{(?:clientId|domain|principal\.)/.test(template)) continue
      yield {
        path: ['backends', name, 'publish', 'username'],
        message: `is missing, expected the user name for publishes of our own: identity.${key} has variables, and those need a device`,
      }
      break
    }
  }
}
