import type { Authenticated, HttpProof } from '../auth/authenticator.ts'
import type { Identify } from '../auth/identify.ts'
import type { Backend, Upstream } from '../backend/backend.ts'
import type {
  AuthenticatedConnection,
  AuthorizedConnection,
  CloseReason,
  ProtocolHandler,
  SecuredConnection,
  Trace,
} from '../connection.ts'
import type { Metrics } from '../control/metrics.ts'
import { asProxyError, type FailureCode, ProxyError, reasonOf } from '../errors.ts'
import { OPEN_PERMIT } from '../policy/permit.ts'
import { type ByteStream, type Relay, relay } from '../relay.ts'
import type { Domain } from '../tls/domains.ts'
import type { Connack } from './connack.ts'
import { type Connect, readConnect, rewriteConnect } from './connect.ts'
import { Gate, type GateObserver, SYSTEM_CLOCK } from './gate.ts'
import { changesFor } from './identity.ts'
import type { Inbound } from './inbound.ts'
import type { KeepAliveWheel } from './keep-alive.ts'
import { OPEN_RULES } from './limits.ts'
import type { Outbound } from './outbound.ts'
import { farewell, type MqttVersion, refusal } from './reason.ts'

export interface SessionLimits {
  /** For the whole CONNECT, from the end of the handshake. */
  readonly connectTimeoutMs: number
  /** Largest CONNECT, in bytes. */
  readonly connectBytes: number
  /** Largest packet after it, as Remaining Length in bytes. */
  readonly packetBytes: number
  /** For the broker's CONNACK, from the moment it has CONNECT. */
  readonly connackTimeoutMs: number
  readonly halfCloseMs: number
}

export interface SessionParts {
  readonly limits: SessionLimits
  readonly metrics: Metrics
  readonly wheel: KeepAliveWheel
  readonly identify: Identify
  backendFor(domain: Domain): Backend
}

/** A live session, for those who must end it from outside. */
export interface LiveSession {
  close(code: FailureCode): void
}

/** MQTT that comes over another protocol of the same connection: the frames of a WebSocket, as bytes. */
export interface Arrival {
  readonly stream: ByteStream
  /** The request that upgraded; an authorizer sees it beside CONNECT. */
  readonly http: HttpProof | null
  /** Who was proved by the upgrade; null: CONNECT has to. */
  readonly who: Authenticated | null
}

export interface MqttHandler extends ProtocolHandler {
  readonly live: ReadonlySet<LiveSession>
  /** As `serve`, over the arrival's stream. The first admission of the connection is the one that counts. */
  serveArrival(connection: SecuredConnection, arrival: Arrival, trace: Trace, signal: AbortSignal): Promise<CloseReason>
}

/** Serves MQTT over an established TLS connection: authenticate → CONNECT → open → relay → close. */
export function mqttHandler(parts: SessionParts): MqttHandler {
  const live = new Set<LiveSession>()

  async function serveArrival(
    connection: SecuredConnection,
    arrival: Arrival,
    trace: Trace,
    signal: AbortSignal,
  ): Promise<CloseReason> {
    const device = arrival.stream
    let version: MqttVersion | null = null
    const attempt = new Attempt(device, signal)
    try {
      const early = await identifyEarly(parts, connection, arrival, trace, signal)
      trace.stage = 'connect'
      const read = await readConnect(device, parts.limits.connectBytes, connectDeadline(parts, connection), signal)
      if (read.kind === 'gone') return 'downstream'
      version = read.kind === 'refused' ? read.version : read.connect.version
      if (read.kind === 'refused') throw new ProxyError(read.code, read.detail)
      const { connect, rest } = read
      trace.clientId = connect.clientId
      trace.mqttVersion = connect.version
      const who = early ?? (await identifyByConnect(parts, connection, arrival, connect, trace, attempt.signal))
      const authenticated: AuthenticatedConnection = { ...connection, who }

      trace.stage = 'open'
      const backend = parts.backendFor(connection.domain)
      trace.backend = backend.name
      const changes = changesFor(connect, who.principal, connection.domain.name, backend.identity)
      const packet = rewriteConnect(connect, changes)
      const authorized: AuthorizedConnection = {
        ...authenticated,
        clientId: changes.clientId ?? connect.clientId,
        permit: OPEN_PERMIT,
      }
      const upstream = await backend.open(authorized, attempt.signal)
      if (attempt.deviceLeft) {
        upstream.stream.destroy()
        throw new ProxyError('ERR_BACKEND_REFUSED', 'the device left')
      }
      attempt.over()
      trace.upstream = upstream.peer
      trace.stage = 'relay'
      const session = new Session(parts, authorized, device, trace, connect)
      live.add(session)
      try {
        return await session.run(upstream, packet, rest)
      } finally {
        live.delete(session)
      }
    } catch (error) {
      if (attempt.deviceLeft && trace.stage === 'open') {
        parts.metrics.connect('gone', versionName(version), seconds(connection))
        return 'downstream'
      }
      const failure = asProxyError(error)
      refuse(device, failure.code, version)
      // An identity that was refused is counted as such; it never came to CONNECT.
      if (trace.stage !== 'authenticate') {
        parts.metrics.connect(reasonOf(failure.code), versionName(version), seconds(connection))
      }
      throw failure
    } finally {
      attempt.over()
    }
  }

  return {
    protocol: 'mqtt',
    live,
    serveArrival,
    serve: (connection, trace, signal) =>
      serveArrival(connection, { stream: connection.tls, http: null, who: null }, trace, signal),
  }
}

/** What is left of the time for CONNECT, in milliseconds; identity may have taken a part. */
function connectDeadline(parts: SessionParts, connection: SecuredConnection): number {
  return Math.max(1, parts.limits.connectTimeoutMs - (performance.now() - connection.securedAt))
}

/** The time before the relay listens: a device that is gone need not be given a broker. */
class Attempt {
  deviceLeft = false
  readonly #device: ByteStream
  readonly #outer: AbortSignal
  readonly #controller = new AbortController()
  readonly #onClose = () => {
    this.deviceLeft = true
    this.#controller.abort(new ProxyError('ERR_BACKEND_REFUSED', 'the device left'))
  }
  readonly #onAbort = () => this.#controller.abort(this.#outer.reason)

  constructor(device: ByteStream, outer: AbortSignal) {
    this.#device = device
    this.#outer = outer
    device.on('close', this.#onClose)
    outer.addEventListener('abort', this.#onAbort)
    if (outer.aborted) this.#onAbort()
  }

  get signal(): AbortSignal {
    return this.#controller.signal
  }

  over(): void {
    this.#device.off('close', this.#onClose)
    this.#outer.removeEventListener('abort', this.#onAbort)
  }
}

/**
 * Who is it? Judged before a byte of MQTT is read, wherever the proof is there already; null where CONNECT has to prove
 * it.
 */
async function identifyEarly(
  parts: SessionParts,
  connection: SecuredConnection,
  arrival: Arrival,
  trace: Trace,
  signal: AbortSignal,
): Promise<Authenticated | null> {
  if (arrival.who !== null) return arrival.who
  const { auth } = connection.admissions[0]!
  if (auth !== 'x509' && auth !== 'backend') return null
  trace.stage = 'authenticate'
  const { peer } = connection
  return parts.identify(connection, auth === 'x509' ? { kind: auth, peer } : { kind: auth }, trace, signal)
}

async function identifyByConnect(
  parts: SessionParts,
  connection: SecuredConnection,
  { http }: Arrival,
  connect: Connect,
  trace: Trace,
  signal: AbortSignal,
): Promise<Authenticated> {
  const { auth } = connection.admissions[0]!
  trace.stage = 'authenticate'
  const { username, password } = connect.packet
  const mqtt = { clientId: connect.clientId, username: username ?? null, password: bytesOf(password) }
  if (auth === 'custom') return parts.identify(connection, { kind: auth, http, mqtt }, trace, signal)
  if (auth === 'custom-x509') {
    return parts.identify(connection, { kind: auth, peer: connection.peer, http, mqtt }, trace, signal)
  }
  throw new ProxyError('ERR_INTERNAL', `${auth} is not proved by CONNECT`)
}

function bytesOf(password: Buffer | string | null | undefined): Uint8Array | null {
  return password === undefined || password === null ? null : Buffer.from(password)
}

/** One device and its broker, from CONNECT forwarded to both sides closed. */
class Session implements LiveSession, GateObserver {
  readonly #parts: SessionParts
  readonly #connection: AuthorizedConnection
  readonly #device: ByteStream
  readonly #trace: Trace
  readonly #connect: Connect
  readonly #gate: Gate
  readonly #inbound: Inbound
  readonly #outbound: Outbound
  #relay: Relay | null = null
  #reason: FailureCode | null = null
  #closing = false
  /** This CONNECT has its result in the metrics; it has one only. */
  #counted = false
  #refusedByBroker = false
  #connackTimer: NodeJS.Timeout | null = null

  constructor(
    parts: SessionParts,
    connection: AuthorizedConnection,
    device: ByteStream,
    trace: Trace,
    connect: Connect,
  ) {
    this.#parts = parts
    this.#connection = connection
    this.#device = device
    this.#trace = trace
    this.#connect = connect
    const { limits, metrics, wheel } = parts
    const { properties } = connect.packet
    this.#gate = new Gate({
      version: connect.version,
      rules: { ...OPEN_RULES, packetBytes: limits.packetBytes },
      permit: connection.permit,
      reportOnly: false,
      device: {
        topicAliasMaximum: properties?.topicAliasMaximum ?? 0,
        maximumPacketBytes: properties?.maximumPacketSize ?? null,
      },
      traffic: metrics.traffic,
      wheel,
      observer: this,
      clock: SYSTEM_CLOCK,
    })
    this.#inbound = this.#gate.inbound
    this.#outbound = this.#gate.outbound
  }

  async run(upstream: Upstream, packet: Buffer, rest: Buffer | null): Promise<CloseReason> {
    const { limits, metrics, wheel } = this.#parts
    const device = this.#device
    metrics.traffic.packetsIn[1]!++
    metrics.traffic.bytesIn += this.#connect.bytes.length
    this.#connackTimer = setTimeout(() => this.close('ERR_BACKEND_TIMEOUT'), limits.connackTimeoutMs)
    const { stream } = upstream
    stream.write(packet)
    this.#relay = relay(device, stream, {
      inbound: this.#inbound,
      outbound: this.#outbound,
      upstreamLost: () => this.#upstreamLost(),
      deviceLeft: () => this.#inbound.disconnected,
      halfCloseMs: limits.halfCloseMs,
    })
    // A device may send on without waiting for CONNACK [MQTT 5.0 §3.1.4]; what came with CONNECT goes first.
    if (rest !== null) this.#inbound.inspect(rest)
    if (!this.#outbound.isHeld) stream.resume()
    if (!this.#inbound.isHeld) device.resume()

    metrics.sessions(1)
    const side = await this.#relay.done
    metrics.sessions(-1)
    clearTimeout(this.#connackTimer)
    this.#gate.close()
    if (this.#inbound.keepAlive !== null) wheel.remove(this.#inbound.keepAlive)
    const trace = this.#trace
    trace.bytesIn = this.#connect.bytes.length + this.#inbound.bytes
    trace.bytesOut = this.#outbound.bytes
    trace.packetsIn = 1 + this.#inbound.packets
    trace.packetsOut = this.#outbound.packets
    if (this.#reason === null && !this.#outbound.connected && side === 'downstream') {
      this.#count('gone')
    }
    return this.#reason ?? side ?? 'ERR_INTERNAL'
  }

  /** Ends the session with the reason that its version of MQTT can carry. */
  close(code: FailureCode): void {
    if (this.#closing) return
    this.#closing = true
    this.#reason ??= code
    this.#relay?.close(this.#lastWord(code))
  }

  fault(code: FailureCode): void {
    this.close(code)
  }

  connack(connack: Connack): Buffer | null {
    clearTimeout(this.#connackTimer ?? undefined)
    const { wheel } = this.#parts
    const trace = this.#trace
    trace.connectedMs = performance.now() - this.#connection.acceptedAt
    this.#count(connack.code === 0 ? 'ok' : 'refused_by_broker')
    this.#refusedByBroker = connack.code !== 0
    if (this.#refusedByBroker) return null
    const keepAlive = connack.serverKeepAliveSeconds ?? this.#connect.keepAliveSeconds
    if (keepAlive === 0) return null
    const entry = wheel.add(keepAlive, () => this.close('ERR_KEEP_ALIVE_TIMEOUT'))
    entry.held = this.#inbound.isHeld
    this.#inbound.keepAlive = entry
    return null
  }

  denied(): void {}

  limited(): void {}

  subscribed(): void {}

  unsubscribed(): void {}

  #count(result: string): void {
    if (this.#counted) return
    this.#counted = true
    this.#parts.metrics.connect(result, versionName(this.#connect.version), seconds(this.#connection))
  }

  #upstreamLost(): Buffer | null {
    if (this.#outbound.connected) {
      // The device left by DISCONNECT and the broker closes first, as brokers do: nothing was lost.
      return this.#inbound.disconnected ? null : this.#lastWord('ERR_BACKEND_LOST')
    }
    clearTimeout(this.#connackTimer ?? undefined)
    this.#reason ??= 'ERR_BACKEND_LOST'
    return this.#lastWord('ERR_BACKEND_LOST')
  }

  /**
   * CONNACK before the broker's, DISCONNECT after it; nothing inside of a packet, after a farewell of either side, or
   * after a CONNACK that refused [MQTT-3.14.0-1].
   */
  #lastWord(code: FailureCode): Buffer | null {
    const { connected, disconnected, atBoundary } = this.#outbound
    if (connected) {
      const silent = disconnected || this.#inbound.disconnected || this.#refusedByBroker || !atBoundary
      return silent ? null : farewell(code, this.#connect.version)
    }
    this.#count(reasonOf(code))
    return disconnected || !atBoundary ? null : refusal(code, this.#connect.version)
  }
}

function refuse(device: ByteStream, code: FailureCode, version: MqttVersion | null): void {
  const answer = version === null ? null : refusal(code, version)
  if (answer !== null) device.write(answer)
  device.end()
  // What the device has already sent is thrown away: left unread it would turn our close into a reset, and that
  // would take the answer from its hands.
  device.resume()
}

function versionName(version: MqttVersion | null): '3.1.1' | '5' | 'unknown' {
  return version === null ? 'unknown' : version === 4 ? '3.1.1' : '5'
}

function seconds(connection: SecuredConnection): number {
  return (performance.now() - connection.acceptedAt) / 1_000
}
