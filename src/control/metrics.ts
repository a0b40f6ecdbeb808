import type { AuthMethod } from '../auth/authenticator.ts'
import type { CloseReason } from '../connection.ts'

/** Counted by the relay with plain additions and read by the scrape; never reset. */
export interface TrafficCounters {
  bytesIn: number
  bytesOut: number
  /** By control packet type 0–15 (MQTT 5.0 §2.1.2). */
  readonly packetsIn: Float64Array
  readonly packetsOut: Float64Array
}

/** What the stages tell. Every label value comes from a table of ours or from the configuration, never from a client. */
export interface Metrics {
  readonly traffic: TrafficCounters
  accepted(port: number): void
  acceptPaused(reason: 'descriptors' | 'connections'): void
  /** `result`: `ok`, `probe`, or a failure's reason. */
  hello(result: string): void
  /** `version`: `TLSv1.2`, `TLSv1.3` or `none`. */
  handshake(result: string, version: string, seconds: number): void
  identity(method: AuthMethod, result: string): void
  /** `seconds` from accept to CONNACK sent. */
  connect(result: string, mqttVersion: '3.1.1' | '5' | 'unknown', seconds: number): void
  dial(backend: string, result: string, seconds: number): void
  sessions(delta: 1 | -1): void
  closed(reason: CloseReason): void
}
