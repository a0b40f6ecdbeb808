import type { Registry } from 'prom-client'
import type { AuthMethod } from '../auth/authenticator.ts'
import type { CloseReason } from '../connection.ts'
import { FAILURES, type FailureCode, reasonOf } from '../errors.ts'
import type { ShieldOutcome } from '../mqtt/shield-outcomes.ts'
import type { ProvisionResult } from '../registry/self-registration.ts'
import { type AdmissionCounters, admissionCounters } from './admission-metrics.ts'

// What is told to be counted, by whom, and which values its labels have. `prometheus.ts` makes metrics of it.

/** Whose decisions are counted; routes of HTTPS have actions of their own and are not among them. */
export const COUNTED_ACTIONS = [
  'iot:Connect',
  'iot:Publish',
  'iot:RetainPublish',
  'iot:Subscribe',
  'iot:Receive',
] as const

/** Limits that a live session can meet, as `limits_exceeded_total` names them. */
export const LIMITS = [
  'qos',
  'payload',
  'topic',
  'filters',
  'subscriptions',
  'subscribe_size',
  'subscription_identifier',
  'topic_alias',
  'retain',
  'properties',
  'receive_maximum',
  'send_maximum',
  'publishes_per_second',
  'bytes_per_second',
  'slow_consumer',
] as const
export type Limit = (typeof LIMITS)[number]

type CountedAction = (typeof COUNTED_ACTIONS)[number]

/** What the gate of every session decided. */
export interface GateCounters {
  readonly allowed: Record<CountedAction, number>
  readonly denied: Record<CountedAction, number>
  /** Packets, filters of a SUBSCRIBE and deliveries that did not go on; fewer than `denied` where a domain only reports. */
  readonly packetsDenied: Record<CountedAction, number>
  readonly limits: Record<Limit, number>
}

/** Counted by the relay with plain additions and read by the scrape; never reset. */
export interface TrafficCounters {
  bytesIn: number
  bytesOut: number
  /** By control packet type 0–15 (MQTT 5.0 §2.1.2). */
  readonly packetsIn: Float64Array
  readonly packetsOut: Float64Array
  readonly gate: GateCounters
}

/** What the stages tell. Every label value comes from a table of ours or from the configuration, never from a client. */
export interface Metrics {
  readonly traffic: TrafficCounters
  readonly admission: AdmissionCounters
  /** How long a handshake had to wait for its turn; of those that had to. */
  handshakeWaited(seconds: number): void
  accepted(port: number): void
  acceptPaused(reason: 'descriptors' | 'connections' | 'overload'): void
  /** `result`: `ok`, `probe`, or a failure's reason. */
  hello(result: string): void
  /** `version`: `TLSv1.2`, `TLSv1.3` or `none`. */
  handshake(result: string, version: string, seconds: number): void
  /** Beside `handshake`: it went on with an earlier session. */
  resumed(version: string): void
  ticketKeysRotated(): void
  identity(method: AuthMethod, result: string): void
  /** `result`: `allowed`, `denied`, `ok`, `canceled`, or what kept the answer away; `seconds` waiting included. */
  lifecycleEvent(result: 'sent' | 'dropped'): void
  authorizerCall(authorizer: string, result: string, seconds: number): void
  authorizerCircuit(authorizer: string, open: boolean): void
  /** `seconds` from accept to CONNACK sent. */
  connect(result: string, mqttVersion: '3.1.1' | '5' | 'unknown', seconds: number): void
  dial(backend: string, result: string, seconds: number): void
  sessions(delta: 1 | -1): void
  /** Sessions held while their broker is away. */
  shielded(backend: string, delta: 1 | -1): void
  shieldOutcome(backend: string, outcome: ShieldOutcome): void
  registryReload(registry: string, result: ReloadResult): void
  revocationReload(result: ReloadResult): void
  provision(result: ProvisionResult): void
  /** An HTTP request that was answered; `route`: publish, mqtt, forward or none. `seconds` from its head to its answer. */
  request(route: HttpRoute, status: number, seconds: number): void
  closed(reason: CloseReason): void
}

/** A change of files that took effect, or one that was refused and changed nothing. */
export type ReloadResult = 'ok' | 'refused'

export const SETTINGS_RELOADS = ['done', 'unchanged', 'refused', 'ignored'] as const
export type SettingsReload = (typeof SETTINGS_RELOADS)[number]

/** Where HTTP requests go; none are those that were refused before it was known, or have nowhere to go. */
export const HTTP_ROUTES = ['publish', 'mqtt', 'forward', 'none'] as const
export type HttpRoute = (typeof HTTP_ROUTES)[number]

/** How a worker ended, as `worker_exits_total` and the log tell it. */
export const WORKER_EXIT_REASONS = ['drained', 'exit', 'signal', 'killed'] as const
export type RestartOutcome = 'done' | 'aborted'
/** What is emptied: a process of ours, or a server of a backend. */
export type DrainScope = 'process' | 'server'
export type WorkerExitReason = (typeof WORKER_EXIT_REASONS)[number]

/** `sni_missing` for a code, the word itself for an ending that is nobody's failure. */
export function closeReasonLabel(reason: CloseReason): string {
  return reason in FAILURES ? reasonOf(reason as FailureCode) : reason
}

export function trafficCounters(): TrafficCounters {
  const gate = {
    allowed: zeros(COUNTED_ACTIONS),
    denied: zeros(COUNTED_ACTIONS),
    packetsDenied: zeros(COUNTED_ACTIONS),
    limits: zeros(LIMITS),
  }
  return { bytesIn: 0, bytesOut: 0, packetsIn: new Float64Array(16), packetsOut: new Float64Array(16), gate }
}

function zeros<K extends string>(names: readonly K[]): Record<K, number> {
  // `fromEntries` gives every key a number; its type forgets which keys.
  return Object.fromEntries(names.map((name) => [name, 0])) as Record<K, number>
}

/** Ports, backends and registries of the settings, whose series start at 0. */
export interface KnownNames {
  readonly ports?: readonly number[]
  readonly backends?: readonly string[]
  readonly registries?: readonly string[]
}

export interface MetricsParts {
  readonly metrics: Metrics
  readonly registry: Registry
  /** Told by the primary. */
  readonly supervision: {
    workers(count: number): void
    workerExited(reason: WorkerExitReason): void
    restarted(result: RestartOutcome): void
  }
  /** Told by whoever drains. */
  readonly drains: {
    draining(on: boolean): void
    remaining(scope: DrainScope, count: number): void
    ended(result: 'done' | 'cut'): void
    /** Of the servers of one backend. */
    serverEnded(result: 'done' | 'cut' | 'undone'): void
    serversDrained(backend: string, count: number): void
  }
  /** Told of reloads of the settings. */
  readonly settings: {
    reloaded(result: SettingsReload): void
    generation(number: number): void
    /** Others than before, it may be. */
    known(names: KnownNames): void
    living(generations: number): void
    /** What is on disk is in force. */
    succeeded(): void
  }
  /** Ends the timer that measures the event loop. */
  close(): void
}

/** For tests, and for people who scrape nothing. */
export const NO_METRICS: Metrics = {
  traffic: trafficCounters(),
  admission: admissionCounters(),
  handshakeWaited() {},
  accepted() {},
  acceptPaused() {},
  hello() {},
  handshake() {},
  resumed() {},
  ticketKeysRotated() {},
  identity() {},
  lifecycleEvent() {},
  authorizerCall() {},
  authorizerCircuit() {},
  connect() {},
  dial() {},
  sessions() {},
  shielded() {},
  shieldOutcome() {},
  registryReload() {},
  revocationReload() {},
  provision() {},
  request() {},
  closed() {},
}
