import type { Authenticated } from '../auth/authenticator.ts'
import type { Upstream } from '../backend/backend.ts'
import type { Link } from '../collections/ring.ts'
import type { CloseReason, SecuredConnection } from '../connection.ts'
import type { Limit } from '../control/metrics.ts'
import { asProxyError, type FailureCode, type ProxyError, reasonOf } from '../errors.ts'
import type { Action, Permit } from '../policy/permit.ts'
import { type ByteStream, type Inspector, type Relay, type RelayOptions, relay, type Side } from '../relay.ts'
import { Authority, type AuthorityObserver, type AuthorityOptions } from './authority.ts'
import { type Connack, rewriteConnack } from './connack.ts'
import { Gate, type GateObserver } from './gate.ts'
import { connackEdits, keepAliveInForce, OPTIONAL_IN_CONNACK } from './in-force.ts'
import type { Watched } from './keep-alive.ts'
import { Presence } from './presence.ts'
import { PROPERTY } from './properties.ts'
import { type Elsewhere, farewell, type MqttVersion, refusal } from './reason.ts'
import type { LiveSession, LiveSessionOptions, Parting, SessionHouse } from './session-contract.ts'
import { ShieldedUpstream } from './shielded-upstream.ts'
import { SlowConsumer } from './slow-consumer.ts'
import type { Holder } from './takeover.ts'

/** For the end of a packet to the device, between which and the next one a farewell may stand, in milliseconds. */
const BOUNDARY_MS = 250

/** One device and its broker, from CONNECT forwarded to both sides closed. */
export class Session implements LiveSession, GateObserver, AuthorityObserver, RelayOptions, Holder, Watched {
  readonly connectedAt = Date.now()
  /** Where it is among the living; the handler's own. */
  link: Link<Session> | null = null
  readonly #house: SessionHouse
  readonly #options: LiveSessionOptions
  readonly #gate: Gate
  readonly #authority: Authority
  readonly #presence: Presence | null
  #consumer: SlowConsumer | null = null
  #relay: Relay | null = null
  #upstream: ByteStream | null = null
  #reason: FailureCode | null = null
  #closing = false
  #ended = false
  #parting: Parting | null = null
  #patience: NodeJS.Timeout | undefined
  /** This CONNECT has its result in the metrics; it has one only. */
  #counted = false
  #refusedByBroker = false
  /** The broker's CONNACK is here and does not go on: ours is the answer. */
  #unanswered = false
  #connackTimer: NodeJS.Timeout | null = null
  /** Of what `run` returns. */
  #resolve!: (result: CloseReason | ProxyError) => void

  constructor(house: SessionHouse, options: LiveSessionOptions, authority: AuthorityOptions) {
    this.#house = house
    this.#options = options
    const { asked, connection, terms, hold } = options
    const { metrics, wheel, clock, lifetimes } = house
    this.#gate = new Gate({
      version: asked.version,
      rules: terms.rules,
      permit: connection.permit,
      reportOnly: house.reportOnly(connection),
      device: terms,
      traffic: metrics.traffic,
      wheel,
      observer: this,
      clock,
    })
    this.#authority = new Authority(lifetimes, authority, this)
    this.#presence = options.tell === null ? null : new Presence(options.tell, connection, terms.ids.device)
    const { slowConsumerMs } = terms.rules
    if (slowConsumerMs !== null) {
      this.#consumer = new SlowConsumer(lifetimes, slowConsumerMs, () => {
        metrics.traffic.gate.limits.slow_consumer++
        this.close('ERR_SLOW_CONSUMER')
      })
      this.#gate.outbound.consumer = this.#consumer
    }
    hold.holder = this
  }

  get id(): string {
    return this.#options.connection.id
  }

  get clientId(): string {
    return this.#options.terms.ids.device
  }

  get principal(): string {
    return this.#options.connection.who.principal.id
  }

  get domain(): string {
    return this.#options.connection.domain.name
  }

  get held(): boolean {
    return this.#upstream instanceof ShieldedUpstream && this.#upstream.isHeld
  }

  get backend(): string {
    return this.#options.trace.backend ?? ''
  }

  get upstream(): string {
    return this.#options.trace.upstream ?? ''
  }

  get silence(): number {
    // Those who wait for their broker go first: they lose nothing that they still have.
    return this.held ? Number.POSITIVE_INFINITY : this.#house.wheel.now - this.#gate.inbound.lastSeen
  }

  get owed(): number {
    return this.held ? 0 : this.#gate.inbound.owed
  }

  get gone(): boolean {
    return this.#ended || this.#closing
  }

  /** Resolves when both sides are closed; never rejects. */
  run(upstream: Upstream, packet: Buffer, rest: Buffer | null): Promise<CloseReason | ProxyError> {
    const { limits, device, asked } = this.#options
    const { metrics } = this.#house
    const { inbound, outbound } = this.#gate
    metrics.traffic.packetsIn[1]!++
    metrics.traffic.bytesIn += asked.bytes
    this.#connackTimer = setTimeout(() => this.close('ERR_BACKEND_TIMEOUT'), limits.connackTimeoutMs)
    const { promise, resolve } = Promise.withResolvers<CloseReason | ProxyError>()
    this.#resolve = resolve
    const { stream } = upstream
    this.#upstream = stream
    stream.write(packet)
    metrics.sessions(1)
    this.#relay = relay(device, stream, this)
    // A device may send on without waiting for CONNACK [MQTT 5.0 §3.1.4]; what came with CONNECT goes first.
    if (rest !== null) inbound.inspect(rest)
    if (!outbound.isHeld) stream.resume()
    if (!inbound.isHeld) device.resume()
    // No `await`: its frame would keep the packets that the session began with for as long as it lives.
    return promise
  }

  over(side: Side | null): void {
    try {
      this.#resolve(this.#settle(side))
    } catch (error) {
      this.#resolve(asProxyError(error))
    } finally {
      this.#house.left(this)
      this.#options.hold.release()
    }
  }

  #settle(side: Side | null): CloseReason {
    const { metrics, wheel } = this.#house
    const { inbound, outbound } = this.#gate
    metrics.sessions(-1)
    this.#ended = true
    clearTimeout(this.#patience)
    this.#answered()
    this.#gate.close()
    this.#consumer?.stop()
    this.#authority.stop()
    if (inbound.keepAlive !== null) wheel.remove(inbound.keepAlive)
    this.#settleTrace()
    if (this.#reason === null && !outbound.connected && side === 'downstream') this.#count('gone')
    const reason = this.#reason ?? side ?? 'ERR_INTERNAL'
    this.#presence?.ended(reason, inbound.disconnected)
    return reason
  }

  /** Ends the session with the reason that its version of MQTT can carry. */
  close(code: FailureCode): void {
    if (this.#closing) return
    this.#closing = true
    this.#reason ??= code
    this.#authority.stop()
    this.#consumer?.stop()
    clearTimeout(this.#patience)
    this.#relay?.close(this.#lastWord(code))
  }

  leave(parting: Parting): void {
    if (this.gone || this.#parting !== null) return
    this.#parting = parting
    const { code, patienceMs } = parting
    const { device } = this.#options
    if (device.closeCode !== undefined) device.closeCode = 1001
    // Before CONNACK nothing is settled, and CONNACK itself is the answer; a broker that is away gives none.
    if (patienceMs <= 0 || this.held || !this.#gate.outbound.connected) {
      this.close(code)
      return
    }
    this.#patience = setTimeout(() => {
      this.#patience = setTimeout(() => this.close(code), BOUNDARY_MS)
      this.#gate.hurry()
    }, patienceMs)
    this.#gate.quiesce(() => this.close(code))
  }

  rejudge(): void {
    this.#gate.reportOnly = this.#house.reportOnly(this.#options.connection)
    this.#authority.rejudge()
  }

  lost(): void {
    this.close('ERR_SESSION_TAKEN_OVER')
  }

  silent(): void {
    this.close('ERR_KEEP_ALIVE_TIMEOUT')
  }

  judge(who: Authenticated): Permit | FailureCode {
    const { connection, asked, terms } = this.#options
    return this.#house.judge(connection, asked, terms.ids, who)
  }

  changed(permit: Permit): void {
    this.#gate.permit = permit
  }

  ended(code: FailureCode): void {
    this.close(code)
  }

  get inbound(): Inspector {
    return this.#gate.inbound
  }

  get outbound(): Inspector {
    return this.#gate.outbound
  }

  get halfCloseMs(): number {
    return this.#options.limits.halfCloseMs
  }

  deviceLeft(): boolean {
    return this.#gate.inbound.disconnected
  }

  fault(code: FailureCode): void {
    this.close(code)
  }

  connack(connack: Connack, packet: Buffer): Buffer | null {
    this.#answered()
    const { terms, trace, connection, hold } = this.#options
    const { wheel } = this.#house
    const { inbound } = this.#gate
    trace.connectedMs = performance.now() - connection.acceptedAt
    this.#refusedByBroker = connack.code !== 0
    if (this.#refusedByBroker) {
      this.#count('refused_by_broker')
      return null
    }
    const answer = this.#answer(connack, packet)
    if (answer !== null && terms.maximumPacketBytes !== null && answer.length > terms.maximumPacketBytes) {
      // It may not be sent [MQTT-3.1.2-24], and without it the device would not know what holds.
      this.#unanswered = true
      this.close('ERR_PACKET_TOO_LARGE')
      return null
    }
    this.#count('ok')
    hold.confirm().then(
      () => this.#presence?.connected(hold.version),
      (error: unknown) => this.close(asProxyError(error).code),
    )
    const keepAlive = keepAliveInForce(terms, connack)
    if (keepAlive === 0) return answer
    const entry = wheel.add(keepAlive, this)
    entry.held = inbound.isHeld
    inbound.keepAlive = entry
    return answer
  }

  denied(action: Action, resource: string, code: FailureCode): void {
    const { connection, trace } = this.#options
    this.#house.denied({ connection, trace, action, resource, code, reported: this.#gate.reportOnly })
  }

  limited(_limit: Limit): void {}

  subscribed(filters: readonly string[]): void {
    this.#presence?.subscribed(filters)
  }

  unsubscribed(filters: readonly string[]): void {
    this.#presence?.unsubscribed(filters)
  }

  /** What the device gets in place of the broker's answer; null leaves it as it is. */
  #answer(connack: Connack, packet: Buffer): Buffer | null {
    const { asked, terms } = this.#options
    if (asked.version !== 5) return null
    const edits = connackEdits(terms, connack)
    const said = (id: number, absent: number): number => {
      const value = edits.get(id) ?? connack.properties.get(id)
      return typeof value === 'number' ? value : absent
    }
    this.#gate.agree({
      topicAliasMaximum: said(PROPERTY.topicAliasMaximum, 0),
      receiveMaximum: said(PROPERTY.receiveMaximum, 65_535),
    })
    if (edits.size === 0) return null
    const body = bodyOf(packet)
    const whole = rewriteConnack(body, asked.version, edits)
    const most = terms.maximumPacketBytes
    return most === null || whole.length <= most
      ? whole
      : rewriteConnack(body, asked.version, new Map([...edits, ...OPTIONAL_IN_CONNACK]))
  }

  /** The broker has said yes or no, or nothing is waited for any more. */
  #answered(): void {
    if (this.#connackTimer === null) return
    clearTimeout(this.#connackTimer)
    this.#connackTimer = null
  }

  #settleTrace(): void {
    const { trace, asked } = this.#options
    const { inbound, outbound } = this.#gate
    trace.bytesIn = asked.bytes + inbound.bytes
    trace.bytesOut = outbound.bytes
    trace.packetsIn = 1 + inbound.packets
    trace.packetsOut = outbound.packets
  }

  #count(result: string): void {
    if (this.#counted) return
    this.#counted = true
    const { asked, connection } = this.#options
    this.#house.metrics.connect(result, versionName(asked.version), seconds(connection))
  }

  upstreamLost(): Buffer | null {
    const { inbound, outbound } = this.#gate
    if (outbound.connected) {
      // The device left by DISCONNECT and the broker closes first, as brokers do: nothing was lost.
      return inbound.disconnected ? null : this.#lastWord('ERR_BACKEND_LOST')
    }
    this.#answered()
    this.#reason ??= 'ERR_BACKEND_LOST'
    return this.#lastWord('ERR_BACKEND_LOST')
  }

  /**
   * CONNACK before the broker's, DISCONNECT after it; nothing inside of a packet, after a farewell of either side, or
   * after a CONNACK that refused [MQTT-3.14.0-1].
   */
  #lastWord(code: FailureCode): Buffer | null {
    const { version } = this.#options.asked
    const { inbound, outbound } = this.#gate
    const elsewhere = elsewhereOf(this.#parting, code, this.#options.terms.maximumPacketBytes)
    const { connected, disconnected, atBoundary } = outbound
    if (connected && !this.#unanswered) {
      const silent = disconnected || inbound.disconnected || this.#refusedByBroker || !atBoundary
      return silent ? null : farewell(code, version, elsewhere)
    }
    this.#count(reasonOf(code))
    // Nothing of the CONNACK that is kept back has gone on.
    return disconnected || !(atBoundary || this.#unanswered) ? null : refusal(code, version, elsewhere)
  }
}

/** A packet without its first byte and its length (MQTT 5.0 §2.1.4). */
function bodyOf(packet: Buffer): Buffer {
  let at = 1
  while (packet[at]! & 0x80) at++
  return packet.subarray(at + 1)
}

/** Only whoever is sent away is told where to. */
function elsewhereOf(parting: Parting | null, code: FailureCode, maximumPacketBytes: number | null): Elsewhere | null {
  if (parting === null || parting.code !== code || parting.serverReference === null) return null
  return { serverReference: parting.serverReference, maximumPacketBytes }
}

export function versionName(version: MqttVersion | null): '3.1.1' | '5' | 'unknown' {
  return version === null ? 'unknown' : version === 4 ? '3.1.1' : '5'
}

/** Since accept. */
export function seconds(connection: SecuredConnection): number {
  return (performance.now() - connection.acceptedAt) / 1_000
}
