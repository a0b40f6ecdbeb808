import type { Limit, TrafficCounters } from '../control/metrics.ts'
import type { FailureCode } from '../errors.ts'
import type { Action, Permit } from '../policy/permit.ts'
import type { Connack } from './connack.ts'
import { Inbound } from './inbound.ts'
import type { KeepAliveWheel } from './keep-alive.ts'
import { type Lane, RATE, WAIT } from './lane.ts'
import type { SessionRules } from './limits.ts'
import { Outbound } from './outbound.ts'
import { TokenBucket } from './rate.ts'
import type { MqttVersion } from './reason.ts'
import { Subscriptions } from './subscriptions.ts'

/** What the gate tells the session. */
export interface GateObserver {
  /**
   * @param packet the whole CONNACK as the broker sent it
   * @returns the whole packet that the device gets in its place; null leaves it as it is
   */
  connack(connack: Connack, packet: Buffer): Buffer | null
  /** The session has to end; nothing more of this direction goes on. */
  fault(code: FailureCode): void
  /** A policy said no. Called per packet or filter, also where a domain only reports: whoever logs it bounds it. */
  denied(action: Action, resource: string, code: FailureCode): void
  /** A limit was met. Called as often as that happens, before `fault` where it ends the session. */
  limited(limit: Limit): void
  /** Granted by the broker, as the device wrote them. */
  subscribed(filters: readonly string[]): void
  unsubscribed(filters: readonly string[]): void
}

/** Time of the rates, given from outside so that tests need not wait. */
export interface GateClock {
  /** Milliseconds on a monotonic clock. */
  now(): number
  /** Calls once after so many milliseconds; what it returns calls it off. */
  after(ms: number, call: () => void): () => void
}

export const SYSTEM_CLOCK: GateClock = {
  now: () => performance.now(),
  after(ms, call) {
    const timer = setTimeout(call, ms)
    return () => clearTimeout(timer)
  },
}

/** What CONNECT as it went to the broker says about deliveries; all of it MQTT 5, absent on 3.1.1. */
export interface DeviceTerms {
  /** Highest topic alias that the broker may use toward the device (MQTT 5.0 §3.1.2.11.5); 0 switches them off. */
  readonly topicAliasMaximum: number
  /** Largest packet the device takes, in bytes, header included (§3.1.2.11.4); null is no limit. */
  readonly maximumPacketBytes: number | null
}

/** What CONNACK as it went to the device says about publishes; all of it MQTT 5. */
export interface BrokerTerms {
  /** MQTT 5.0 §3.2.2.3.8; 0 when CONNACK did not say. */
  readonly topicAliasMaximum: number
  /** MQTT 5.0 §3.2.2.3.3; 65,535 when CONNACK did not say. */
  readonly receiveMaximum: number
}

export interface GateOptions {
  readonly version: MqttVersion
  readonly rules: SessionRules
  readonly permit: Permit
  /** Decide, count and tell the observer, but let pass. */
  readonly reportOnly: boolean
  readonly device: DeviceTerms
  readonly traffic: TrafficCounters
  readonly wheel: KeepAliveWheel
  readonly observer: GateObserver
  readonly clock: GateClock
}

/** Answers of ours that may wait for the end of a packet before those who cause them are not read any more, in bytes. */
const MAX_BACKLOG = 65_536

/** Where no rule says less; one for all sessions. */
const BOUNDLESS: BrokerTerms = { topicAliasMaximum: 65_535, receiveMaximum: 65_535 }

/** What both directions of a session share. */
export class Shared {
  readonly version: MqttVersion
  readonly rules: SessionRules
  readonly device: DeviceTerms
  readonly traffic: TrafficCounters
  readonly wheel: KeepAliveWheel
  readonly observer: GateObserver
  readonly clock: GateClock
  readonly publishes: TokenBucket | null
  readonly bytes: TokenBucket | null
  #subscriptions: Subscriptions | null = null
  permit: Permit
  reportOnly: boolean
  terms: BrokerTerms

  constructor(options: GateOptions) {
    // Without the options themselves, which would be another object for as long as the session lives.
    const { rules, clock } = options
    this.version = options.version
    this.rules = rules
    this.device = options.device
    this.traffic = options.traffic
    this.wheel = options.wheel
    this.observer = options.observer
    this.clock = clock
    this.permit = options.permit
    this.reportOnly = options.reportOnly
    this.publishes = rules.publishesPerSecond === null ? null : new TokenBucket(rules.publishesPerSecond, clock)
    this.bytes = rules.bytesPerSecond === null ? null : new TokenBucket(rules.bytesPerSecond, clock)
    const { topicAliasMaximum, receiveMaximum } = rules
    this.terms =
      topicAliasMaximum === null && receiveMaximum === null
        ? BOUNDLESS
        : { topicAliasMaximum: topicAliasMaximum ?? 65_535, receiveMaximum: receiveMaximum ?? 65_535 }
  }

  get subscriptions(): Subscriptions {
    this.#subscriptions ??= new Subscriptions(this)
    return this.#subscriptions
  }

  /** A SUBSCRIBE or UNSUBSCRIBE has not been answered yet. */
  get isAsked(): boolean {
    return this.#subscriptions?.isWaiting ?? false
  }

  /** What the policies say, counted and told. True where the packet may go on. */
  permits(allowed: boolean, action: Action, resource: string): boolean {
    const { traffic, observer } = this
    const { reportOnly } = this
    if (allowed) {
      traffic.gate.allowed[action]++
      return true
    }
    traffic.gate.denied[action]++
    if (!reportOnly) traffic.gate.packetsDenied[action]++
    observer.denied(action, resource, 'ERR_ACTION_DENIED')
    return reportOnly
  }

  limited(limit: Limit): void {
    this.traffic.gate.limits[limit]++
    this.observer.limited(limit)
  }
}

type CallOff = () => void

/** Who is told after every chunk of either direction. */
export interface Settling {
  settled(bytes: number, lane: Lane): void
}

/** Both directions of one session, from CONNECT to its end. */
export class Gate implements Settling {
  readonly inbound: Inbound
  readonly outbound: Outbound
  readonly #shared: Shared
  /** Of what waits for its rate, inbound and outbound; null: nothing does. */
  #callOff: [inbound: CallOff | null, outbound: CallOff | null] | null = null
  /** Told once both directions stand still; null while nobody waits for that. */
  #quiet: (() => void) | null = null
  #leaving = false
  #hurried = false

  constructor(options: GateOptions) {
    const shared = new Shared(options)
    this.#shared = shared
    this.inbound = new Inbound(shared, this)
    this.outbound = new Outbound(shared, this)
    this.inbound.face(this.outbound)
    this.outbound.face(this.inbound)
    this.#tune()
  }

  get permit(): Permit {
    return this.#shared.permit
  }

  /** Holds from the next packet on, in both directions: one that is under way was judged when it began. */
  set permit(permit: Permit) {
    this.#shared.permit = permit
    this.#tune()
  }

  get reportOnly(): boolean {
    return this.#shared.reportOnly
  }

  /** Holds from the next decision on. */
  set reportOnly(reportOnly: boolean) {
    this.#shared.reportOnly = reportOnly
  }

  /** What was agreed at CONNACK; until then the rules' own maxima hold. */
  agree(terms: BrokerTerms): void {
    this.#shared.terms = terms
    this.#tune()
  }

  /**
   * Before an end of ours: no further packet of the device goes on, the broker's go on until it has answered for the
   * device's publishes, and then it is told. What a device has sent and is not answered it will send again.
   */
  quiesce(quiet: () => void): void {
    this.#quiet = quiet
    this.#leaving = true
    // An answer may be behind deliveries for which the device, not read any more, cannot answer.
    this.outbound.hold(WAIT, false)
    this.inbound.hold(WAIT, false)
    this.inbound.stop()
    this.#look()
  }

  /** Waits for nothing more than the end of the packet that goes to the device. */
  hurry(): void {
    this.#hurried = true
    this.#look()
  }

  #look(): void {
    const { inbound, outbound } = this
    if (!this.#hurried && (!inbound.isStopped || inbound.owed > 0)) return
    outbound.stop()
    if (!outbound.isStopped) return
    const quiet = this.#quiet
    this.#quiet = null
    quiet?.()
  }

  /** No timer of ours is left. */
  close(): void {
    this.#quiet = null
    for (const callOff of this.#callOff ?? []) callOff?.()
  }

  #tune(): void {
    this.inbound.tune()
    this.outbound.tune()
    // Whether its acknowledgements are looked at depends on what the other direction follows by now.
    this.inbound.tune()
  }

  /** After every chunk: answers go out, and who has to wait waits. */
  settled(bytes: number, lane: Lane): void {
    const { inbound, outbound } = this
    inbound.speak()
    outbound.speak()
    if (this.#leaving) {
      if (this.#quiet !== null) this.#look()
      return
    }
    // Each waits for what the other brings: never both at once, or neither would ever be read again.
    const inboundFull = inbound.windowIsFull()
    const outboundFull = outbound.windowIsFull()
    const inboundWaits = (inboundFull || outbound.answersWaiting > MAX_BACKLOG) && !outbound.isHeldFor(WAIT)
    const outboundWaits = (outboundFull || inbound.answersWaiting > MAX_BACKLOG) && !inboundWaits
    if (inboundWaits && inboundFull && !inbound.isHeldFor(WAIT)) this.#shared.limited('receive_maximum')
    if (outboundWaits && outboundFull && !outbound.isHeldFor(WAIT)) this.#shared.limited('send_maximum')
    inbound.hold(WAIT, inboundWaits)
    outbound.hold(WAIT, outboundWaits)
    if (this.#shared.bytes !== null) this.#slow(bytes, lane, this.#shared.bytes)
  }

  /** Above the rate the direction that brought the bytes is read less: delayed, not dropped. */
  #slow(bytes: number, lane: Lane, bucket: TokenBucket): void {
    const wait = bucket.owe(bytes)
    if (wait === 0 || lane.isHeldFor(RATE)) return
    this.#shared.limited('bytes_per_second')
    lane.hold(RATE, true)
    const place = lane === this.inbound ? 0 : 1
    this.#callOff ??= [null, null]
    this.#callOff[place] = this.#shared.clock.after(wait, () => lane.hold(RATE, false))
  }
}
