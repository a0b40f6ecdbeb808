import type { Authenticated } from '../auth/authenticator.ts'
import type { Backend, Upstream } from '../backend/backend.ts'
import { Ring } from '../collections/ring.ts'
import type { AuthorizedConnection, SecuredConnection, Serving, Trace } from '../connection.ts'
import { asProxyError, type FailureCode, ProxyError, reasonOf } from '../errors.ts'
import type { Permit } from '../policy/permit.ts'
import { type ByteStream, throwAway } from '../relay.ts'
import { Attempt, identifyByConnect, identifyEarly } from './attempt.ts'
import { type End, judgedAgain } from './authority.ts'
import { type Asked, askedBy, connectDenials, liveDenials, permitFor } from './authorize.ts'
import { type ClientIds, clientIds } from './client-id.ts'
import { type Connect, readConnect } from './connect.ts'
import type { Denial, DomainRules } from './domain-rules.ts'
import { SYSTEM_CLOCK } from './gate.ts'
import type { Arrival, MqttHandler, SessionLimits, SessionParts } from './handler.ts'
import { identityChanges } from './identity.ts'
import { limitChanges, type Terms, termsOf } from './in-force.ts'
import { type Lifetimes, WSS_LIFETIME_MS } from './lifetimes.ts'
import { Session, seconds, versionName } from './live-session.ts'
import { type Tell, tellConnectFailed } from './presence.ts'
import { type Elsewhere, type MqttVersion, refusal } from './reason.ts'
import { rewriteConnect } from './rewrite.ts'
import type { Parting, SessionHouse } from './session-contract.ts'
import type { Shield } from './shield.ts'
import { type Hold, Takeover } from './takeover.ts'

/** Sessions that are judged before others get a turn: at some 20 µs each, a millisecond or so. */
const SLICE = 64

/** What CONNECT came to: all that a broker and a session need. */
interface Admitted {
  readonly connection: AuthorizedConnection
  readonly terms: Terms
  /** CONNECT for the broker. */
  readonly packet: Buffer
}

/** Nobody is left to serve. */
const gone = (): Serving => ({ over: Promise.resolve('downstream') })

/** What a session is made of, beside its admission. */
interface Begun {
  readonly device: ByteStream
  readonly trace: Trace
  readonly asked: Asked
  readonly domain: DomainRules
  readonly hold: Hold
  /** `performance.now()` when it was authenticated. */
  readonly since: number
  readonly tell: Tell | null
}

/** Serves MQTT over an established TLS connection: authenticate → CONNECT → authorize → claim → open → relay → close. */
export function mqttHandler(parts: SessionParts): MqttHandler {
  const live = new Ring<Session>()
  const takeover = new Takeover(parts.store)
  const house: SessionHouse = {
    metrics: parts.metrics,
    wheel: parts.wheel,
    lifetimes: parts.lifetimes,
    clock: parts.clock ?? SYSTEM_CLOCK,
    reportOnly: (connection) => parts.rulesInForce(connection)?.reportOnly ?? false,
    judge: (connection, asked, ids, who) => liveJudgement(connection, asked, ids, who, parts.rulesInForce(connection)),
    denied: parts.denied,
    left: ({ link }) => {
      if (link !== null) live.remove(link)
    },
  }
  /** Counts the changes of registry and settings, so that who was judged by an older one is judged again before it is live. */
  let changes = 0
  let judging: Promise<void> = Promise.resolve()
  let waiting: Promise<void> | null = null
  let parting: Pick<Parting, 'code' | 'serverReference'> | null = null

  async function serveArrival(
    connection: SecuredConnection,
    arrival: Arrival,
    trace: Trace,
    signal: AbortSignal,
  ): Promise<Serving> {
    const device = arrival.stream
    const domain = parts.rulesFor(connection.domain)
    const limits = parts.limitsFor(connection.domain)
    let version: MqttVersion | null = null
    let maximumPacketBytes: number | null = null
    let hold: Hold | null = null
    const attempt = new Attempt(device, signal)
    try {
      // Whoever was identified before it came here may have been judged by an older registry.
      const seen = arrival.who === null ? changes : -1
      const by = { identify: parts.identify, connection, http: arrival.http, who: arrival.who, trace }
      const early = await identifyEarly(by, signal)
      trace.stage = 'connect'
      const read = await readConnect(device, limits.connectBytes, connectDeadline(limits, connection), signal)
      if (read.kind === 'gone') return gone()
      version = read.kind === 'refused' ? read.version : read.connect.version
      if (read.kind === 'refused') throw new ProxyError(read.code, read.detail)
      const { connect, rest } = read
      maximumPacketBytes = connect.packet.properties?.maximumPacketSize ?? null
      if (parting !== null) throw new ProxyError(parting.code, 'came while others are sent away')
      const ids = clientIds(connect, domain)
      trace.clientId = ids.device
      trace.mqttVersion = connect.version
      const who = early ?? (await identifyByConnect(by, connect, attempt.signal))
      const since = parts.lifetimes.now()

      trace.stage = 'connect'
      const backend = parts.backendFor(connection.domain)
      const asked = askedBy(connect)
      const admit = (whom: Authenticated) =>
        admitted(parts, connection, connect, asked, ids, whom, domain, backend, trace)
      let admission = admit(who)
      trace.stage = 'open'
      trace.backend = backend.name
      hold = takeover.hold({
        session: connection.id,
        backend: backend.name,
        clientId: admission.connection.clientId,
        principal: who.principal,
        domain: connection.domain.name,
        perSecond: domain.rules.connectsPerSecondPerClientId,
      })
      hold.holder = attempt
      await hold.take()
      attempt.throwIfEnded()
      hold.seat = parts.seats?.take(connection.domain.name, who.principal) ?? null
      const upstream = await backend.open(admission.connection, attempt.signal)
      try {
        attempt.throwIfEnded()
        if (changes !== seen) {
          const now = sameClient(admission, admit(again(who)))
          admission = byNow(now, house.judge(connection, asked, ids, now.connection.who))
        }
      } catch (error) {
        upstream.stream.destroy()
        throw error
      }
      attempt.over()
      trace.upstream = upstream.peer
      trace.stage = 'relay'
      // From here to the set of the living nothing waits, so no change of the registry comes in between.
      const tell = parts.tellFor(connection.domain)
      const session = newSession(house, limits, admission, { device, trace, asked, domain, hold, since, tell })
      const shield = parts.shieldFor?.(backend) ?? null
      const guarded = shield === null ? upstream : guardedBy(shield, backend, upstream, admission, connect, trace)
      const over = session.run(guarded, admission.packet, rest)
      session.link = live.add(session)
      hold = null
      return { over }
    } catch (error) {
      // While it was asked who it is, only what was called off for it counts so: a refusal that came first stays one.
      if (attempt.deviceLeft && (trace.stage === 'open' || error === attempt.signal.reason)) {
        parts.metrics.connect('gone', versionName(version), seconds(connection))
        return gone()
      }
      const failure = asProxyError(error)
      const reference = parting?.code === failure.code ? parting.serverReference : null
      const elsewhere = reference === null ? null : { serverReference: reference, maximumPacketBytes }
      refuse(device, failure.code, version, domain, elsewhere)
      // An identity that was refused is counted as such; it never came to CONNECT.
      if (trace.stage !== 'authenticate') {
        parts.metrics.connect(reasonOf(failure.code), versionName(version), seconds(connection))
      }
      throw failure
    } finally {
      attempt.over()
      hold?.release()
    }
  }

  async function rejudgeAll(): Promise<void> {
    let count = 0
    for (const session of live) {
      // Of one that has ended meanwhile nothing is asked any more.
      session.rejudge()
      if (++count % SLICE === 0) await new Promise((resolve) => setImmediate(resolve))
    }
  }

  return {
    protocol: 'mqtt',
    live,
    serveArrival,
    serve: (connection, trace, signal) =>
      serveArrival(connection, { stream: connection.tls, http: null, who: null }, trace, signal),
    rejudge() {
      changes++
      // A change while the sessions are judged is judged from the beginning; more of them by then are one.
      waiting ??= judging.then(() => {
        waiting = null
        return rejudgeAll()
      })
      judging = waiting
      return waiting
    },
    turnAway(sent) {
      parting = sent
    },
  }
}

/** On its own, because a session that lives keeps whatever is in reach of the functions that are made here. */
function newSession(
  house: SessionHouse,
  limits: SessionLimits,
  { connection, terms }: Admitted,
  { domain, since, ...begun }: Begun,
): Session {
  const { who, permit } = connection
  const ends = endsOf(connection, domain, house.lifetimes)
  return new Session(house, { ...begun, limits, connection, terms }, { who, permit, since, ends })
}

/** What is left of the time for CONNECT, in milliseconds; identity may have taken a part. */
function connectDeadline({ connectTimeoutMs }: SessionLimits, connection: SecuredConnection): number {
  return Math.max(1, connectTimeoutMs - (performance.now() - connection.securedAt))
}

/** The fifth rung: everything that CONNECT asks for is allowed, or it is refused before a broker is dialled. */
function admitted(
  parts: SessionParts,
  connection: SecuredConnection,
  connect: Connect,
  asked: Asked,
  ids: ClientIds,
  who: Authenticated,
  domain: DomainRules,
  backend: Backend,
  trace: Trace,
): Admitted {
  const permit = permitFor(connection, asked, ids, who, domain)
  for (const denial of connectDenials(connect, ids, who, permit, domain)) {
    const reported = passes(denial, domain)
    const { action, resource, code } = denial
    if (action !== null && resource !== null) {
      parts.metrics.traffic.gate.denied[action]++
      parts.denied({ connection, trace, action, resource, code, reported })
    }
    if (reported) continue
    const tell = parts.tellFor(connection.domain)
    if (tell !== null && action !== null) tellConnectFailed(tell, who, connection.remoteAddress, ids.device)
    throw new ProxyError(code, denial.detail)
  }
  parts.metrics.traffic.gate.allowed['iot:Connect']++
  // An alias means something on one connection only (MQTT 5.0 §3.3.2.3.4); behind a session there may be several.
  const shielded = parts.shieldFor?.(backend) != null
  const rules = shielded ? { ...domain.rules, topicAliasMaximum: 0 } : domain.rules
  const brokerChecks = backend.identity.keepAlive === 'device'
  const terms = termsOf(connect, ids, rules, permit.allowsAll('iot:Receive') && !shielded, brokerChecks)
  const changes = {
    ...limitChanges(connect, terms, brokerChecks),
    ...identityChanges(connect, ids, who.principal, connection.domain.name, backend.identity),
  }
  return {
    connection: { ...connection, who, clientId: changes.clientId ?? connect.clientId, permit },
    terms,
    packet: rewriteConnect(connect, changes),
  }
}

/** The broker's side as something that outlives its connection. */
function guardedBy(
  shield: Shield,
  backend: Backend,
  { peer, stream }: Upstream,
  { connection, terms, packet }: Admitted,
  connect: Connect,
  trace: Trace,
): Upstream {
  const guarded = shield.guard(
    { peer, stream },
    {
      backend,
      connection,
      version: connect.version,
      packet,
      cleanStart: connect.cleanStart,
      enhancedAuth: connect.packet.properties?.authenticationMethod !== undefined,
      asked: { keepAliveSeconds: terms.keepAlive.ours, sessionExpirySeconds: terms.sessionExpiry.granted },
      moved(now) {
        trace.upstream = now
      },
    },
  )
  return { peer, stream: guarded }
}

/** Judged by today's registry. @throws {ProxyError} with what it says against */
function again(who: Authenticated): Authenticated {
  const outcome = judgedAgain(who)
  if (outcome.kind === 'denied') throw new ProxyError(outcome.code, outcome.detail)
  return outcome
}

/** The newer admission, if the broker would see the client in it that the claim is for. @throws {ProxyError} if not */
function sameClient(before: Admitted, now: Admitted): Admitted {
  if (now.connection.clientId === before.connection.clientId) return now
  throw new ProxyError('ERR_AUTHORIZATION_ENDED', 'the registry has another client id for it now')
}

/** With the permit that the settings in force give, for what the settings that let it in will serve. @throws {ProxyError} */
function byNow(admitted: Admitted, permit: Permit | FailureCode): Admitted {
  if (typeof permit === 'string') throw new ProxyError(permit, 'the settings have changed while it connected')
  return { ...admitted, connection: { ...admitted.connection, permit } }
}

function liveJudgement(
  connection: SecuredConnection,
  asked: Asked,
  ids: ClientIds,
  who: Authenticated,
  domain: DomainRules | null,
): Permit | FailureCode {
  if (domain === null) return 'ERR_AUTHORIZATION_ENDED'
  const permit = permitFor(connection, asked, ids, who, domain)
  for (const denial of liveDenials(ids, who, permit, domain)) if (!passes(denial, domain)) return denial.code
  return permit
}

const passes = ({ action }: Denial, { reportOnly }: DomainRules): boolean => reportOnly && action !== null

/** When this connection has to end whoever it is; what the authorizer says comes with `who`. */
function endsOf(connection: SecuredConnection, { rules, cutAtExpiry }: DomainRules, lifetimes: Lifetimes): End[] {
  const ends: End[] = []
  const { connectionLifetimeMs } = rules
  const accepted = lifetimes.now() - (performance.now() - connection.acceptedAt)
  if (connectionLifetimeMs !== null) ends.push({ at: accepted + connectionLifetimeMs, code: 'ERR_MAX_CONNECT_TIME' })
  if (connection.admissions[0]!.protocol === 'wss') {
    ends.push({ at: accepted + WSS_LIFETIME_MS, code: 'ERR_MAX_CONNECT_TIME' })
  }
  if (cutAtExpiry && connection.peer !== null) {
    const left = Date.parse(connection.peer.leaf.validTo) - Date.now()
    // A date that cannot be read is over.
    ends.push({ at: lifetimes.now() + (Number.isNaN(left) ? 0 : left), code: 'ERR_CERTIFICATE_EXPIRED' })
  }
  return ends
}

function refuse(
  device: ByteStream,
  code: FailureCode,
  version: MqttVersion | null,
  { rules }: DomainRules,
  elsewhere: Elsewhere | null,
): void {
  const silent = version === 4 && code === 'ERR_ACTION_DENIED' && rules.denials.connect3 === 'close'
  const answer = version === null || silent ? null : refusal(code, version, elsewhere)
  if (answer !== null && device.destroyed !== true) device.write(answer)
  device.end()
  throwAway(device)
}
