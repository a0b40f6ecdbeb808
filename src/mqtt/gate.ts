import type { Limit, TrafficCounters } from '../control/metrics.ts'
import type { FailureCode } from '../errors.ts'
import type { Action, Permit } from '../policy/permit.ts'
import type { Connack } from './connack.ts'
import { Inbound, Outbound } from './inspect.ts'
import type { KeepAliveWheel } from './keep-alive.ts'
import type { SessionRules } from './limits.ts'
import type { MqttVersion } from './reason.ts'

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
  /** A limit was met and the session goes on. */
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
  /** MQTT 5.0 §3.2.2.3.8. */
  readonly topicAliasMaximum: number
  /** MQTT 5.0 §3.2.2.3.3. */
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

/** Both directions of one session. */
export class Gate {
  readonly inbound: Inbound
  readonly outbound: Outbound
  #permit: Permit

  constructor(options: GateOptions) {
    this.#permit = options.permit
    this.inbound = new Inbound(options)
    this.outbound = new Outbound(options)
  }

  get permit(): Permit {
    return this.#permit
  }

  /** Holds from the next packet on, in both directions. */
  set permit(permit: Permit) {
    this.#permit = permit
  }

  /** What was agreed at CONNACK; until then the rules' own maxima hold. */
  agree(_terms: BrokerTerms): void {}

  /** No timer of ours is left. */
  close(): void {}
}
