import type { ExecutionContext } from 'ava'
import type { Authenticated, Authenticator, AuthOutcome, Principal } from '../../src/auth/authenticator.ts'
import { identifier } from '../../src/auth/identify.ts'
import type { Backend, UpstreamIdentity } from '../../src/backend/backend.ts'
import type { SecuredConnection, Trace } from '../../src/connection.ts'
import { asProxyError, ProxyError } from '../../src/errors.ts'
import type { LifecycleEvent } from '../../src/events.ts'
import type { DomainRules } from '../../src/mqtt/domain-rules.ts'
import type { SessionLimits } from '../../src/mqtt/handler.ts'
import { KeepAliveWheel } from '../../src/mqtt/keep-alive.ts'
import { Lifetimes } from '../../src/mqtt/lifetimes.ts'
import { OPEN_RULES } from '../../src/mqtt/limits.ts'
import { mqttHandler } from '../../src/mqtt/session.ts'
import type { DeniedAction } from '../../src/mqtt/session-contract.ts'
import { memoryStore } from '../../src/store/memory.ts'
import type { Store } from '../../src/store/store.ts'
import { ARN, authenticatedAs } from '../support/identity.ts'
import { FakeStream, fakeMetrics, until } from './fakes.ts'

/** Keep alive 60, client id `a`. */
export const V4 = '100d00044d5154540402003c000161'
export const V5 = '100e00044d5154540502003c00000161'
export const OK4 = '20020000'
export const OK5 = '2003000000'

export const PRINCIPAL: Principal = { id: 'ab12', method: 'x509', attributes: {} }

export const OPEN_DOMAIN: DomainRules = {
  arn: ARN,
  rules: OPEN_RULES,
  reportOnly: false,
  clientId: { bind: 'policy', prefix: '' },
  cutAtExpiry: false,
}

export interface ServedOptions {
  readonly outcome?: AuthOutcome
  readonly authenticate?: (signal: AbortSignal) => Promise<AuthOutcome>
  readonly unserved?: boolean
  readonly identity?: Partial<UpstreamIdentity>
  readonly limits?: Partial<SessionLimits>
  readonly domain?: Partial<DomainRules>
  readonly store?: Store
  /** Of the lifetimes, in milliseconds. */
  readonly now?: () => number
  /** Laid over the connection. */
  readonly connection?: Partial<SecuredConnection>
  /** Proved by an upgrade already. */
  readonly who?: Authenticated
  /** Told of each lifecycle event before it is kept. */
  readonly tell?: (event: LifecycleEvent) => void
  /** In place of an open way to the broker. */
  readonly open?: (signal: AbortSignal, broker: FakeStream) => Promise<void>
}

/** One device, one broker and all that stands between them, before the first byte. */
export function served(t: ExecutionContext, options: ServedOptions = {}) {
  const device = new FakeStream()
  const broker = new FakeStream()
  const wheel = new KeepAliveWheel()
  const lifetimes = new Lifetimes(options.now)
  const { metrics, told } = fakeMetrics()
  const dials: string[] = []
  const denied: DeniedAction[] = []
  const events: LifecycleEvent[] = []
  const authenticator: Authenticator = {
    method: 'x509',
    authenticate: async (_credentials, _connection, signal) =>
      (await options.authenticate?.(signal)) ?? options.outcome ?? authenticatedAs(PRINCIPAL),
  }
  const backend: Backend = {
    name: 'main',
    identity: { username: null, password: null, clientId: null, keepAlive: 'device', ...options.identity },
    async open(connection, signal) {
      dials.push(connection?.clientId ?? '')
      await options.open?.(signal, broker)
      return { stream: broker, peer: 'broker:1883' }
    },
    close: async () => {},
  }
  const rules: DomainRules = { ...OPEN_DOMAIN, ...options.domain }
  /** What is said of it by now; a test may say something else. */
  const inForce: { rules: DomainRules | null } = { rules }
  const handler = mqttHandler({
    limitsFor: () => ({
      connectTimeoutMs: 60_000,
      connectBytes: 65_536,
      connackTimeoutMs: 60_000,
      halfCloseMs: 60_000,
      ...options.limits,
    }),
    metrics,
    wheel,
    lifetimes,
    store: options.store ?? memoryStore(),
    identify: identifier({
      metrics,
      refusedResumptions: { add() {} },
      authenticatorFor: () => (options.unserved ? null : authenticator),
    }),
    rulesFor: () => rules,
    rulesInForce: () => inForce.rules,
    backendFor: () => backend,
    denied: (one) => denied.push(one),
    tellFor: () => (event) => {
      options.tell?.(event)
      events.push(event)
    },
  })
  const connection = {
    id: `c${++connections}`,
    tls: device,
    peer: null,
    remoteAddress: '198.51.100.4',
    serverName: 'iot.example.com',
    admissions: [{ mode: 'D', port: 8883, alpn: null, protocol: 'mqtt', auth: options.unserved ? 'custom' : 'x509' }],
    domain: { name: 'iot.example.com' },
    acceptedAt: performance.now(),
    securedAt: performance.now(),
    ...options.connection,
  } as unknown as SecuredConnection
  const trace = { stage: 'handshake', mode: 'E' } as Trace
  const shutdown = new AbortController()
  const serving =
    options.who === undefined
      ? handler.serve(connection, trace, shutdown.signal)
      : handler.serveArrival(connection, { stream: device, http: null, who: options.who }, trace, shutdown.signal)
  const ended = serving
    .then(({ over }) => over)
    .catch(asProxyError)
    .then((result) => (result instanceof ProxyError ? result.code : result))
  t.teardown(() => {
    device.destroy()
    broker.destroy()
    return ended
  })
  /** The device and the broker have shaken hands by MQTT. */
  const connected = async (connect = V5, connack = OK5) => {
    device.say(connect)
    await until(() => broker.written.length > 0)
    broker.say(connack)
    await until(() => device.written.length > 0)
    const answer = device.heard
    device.written.length = 0
    return answer
  }
  /** Both peers end after we have. */
  const over = async () => {
    device.say(null)
    broker.say(null)
    return ended
  }
  const session = () => [...handler.live][0]!
  return {
    device,
    broker,
    wheel,
    lifetimes,
    metrics,
    told,
    dials,
    denied,
    events,
    trace,
    ended,
    connected,
    over,
    handler,
    inForce,
    session,
    shutdown,
  }
}

let connections = 0

export type Served = ReturnType<typeof served>

/** Nothing is left behind when it is over. */
export function leavesNothing(t: ExecutionContext, { wheel, lifetimes, handler, told }: Served) {
  t.deepEqual([wheel.size, lifetimes.size, handler.live.size], [0, 0, 0])
  t.is(told.filter((line) => line === 'sessions 1').length, told.filter((line) => line === 'sessions -1').length)
}
