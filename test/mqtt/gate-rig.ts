import { type Limit, type TrafficCounters, trafficCounters } from '../../src/control/metrics.ts'
import type { FailureCode } from '../../src/errors.ts'
import type { Connack } from '../../src/mqtt/connack.ts'
import { Gate, type GateClock, type GateOptions } from '../../src/mqtt/gate.ts'
import { KeepAliveWheel } from '../../src/mqtt/keep-alive.ts'
import { OPEN_RULES } from '../../src/mqtt/limits.ts'
import { type Action, OPEN_PERMIT, type Permit } from '../../src/policy/permit.ts'
import type { Inspector, Way } from '../../src/relay.ts'

/** Keeps what one peer is sent, and whether the other is read. */
export class Recorder implements Way {
  readonly chunks: Uint8Array[] = []
  held = false
  readonly #inspector: Inspector

  constructor(inspector: Inspector) {
    this.#inspector = inspector
    inspector.attached(this)
  }

  pass(chunk: Uint8Array): void {
    this.chunks.push(chunk)
  }

  say(chunk: Uint8Array): void {
    this.chunks.push(chunk)
  }

  hold(on: boolean): void {
    if (on === this.held) return
    this.held = on
    this.#inspector.held(on)
  }

  get bytes(): Buffer {
    return Buffer.concat(this.chunks)
  }

  get hex(): string {
    return this.bytes.toString('hex')
  }
}

/** Time in the test's hand. */
export class ManualClock implements GateClock {
  ms = 0
  readonly #calls = new Map<() => void, number>()

  now(): number {
    return this.ms
  }

  after(ms: number, call: () => void): () => void {
    this.#calls.set(call, this.ms + ms)
    return () => this.#calls.delete(call)
  }

  pass(ms: number): void {
    this.ms += ms
    for (const [call, due] of [...this.#calls]) {
      if (due > this.ms) continue
      this.#calls.delete(call)
      call()
    }
  }

  get waiting(): number {
    return this.#calls.size
  }
}

export interface GateRig {
  readonly gate: Gate
  /** What the broker is sent, and what the device is sent. */
  readonly broker: Recorder
  readonly device: Recorder
  readonly faults: FailureCode[]
  readonly connacks: Connack[]
  /** Denials, limits and subscriptions, in words. */
  readonly told: string[]
  readonly traffic: TrafficCounters
  readonly wheel: KeepAliveWheel
  readonly clock: ManualClock
  /** The device, or the broker, says this in these chunks. */
  fromDevice(...chunks: readonly Buffer[]): void
  fromBroker(...chunks: readonly Buffer[]): void
}

export function gateRig(options: Partial<GateOptions> = {}): GateRig {
  const faults: FailureCode[] = []
  const connacks: Connack[] = []
  const told: string[] = []
  const traffic = trafficCounters()
  const wheel = new KeepAliveWheel()
  const clock = new ManualClock()
  const gate = new Gate({
    version: 4,
    rules: OPEN_RULES,
    permit: OPEN_PERMIT,
    reportOnly: false,
    device: { topicAliasMaximum: 0, maximumPacketBytes: null },
    traffic,
    wheel,
    clock,
    observer: {
      connack(connack) {
        connacks.push(connack)
        return null
      },
      fault: (code) => faults.push(code),
      denied: (action, resource, code) => told.push(`${action} ${resource} ${code}`),
      limited: (limit: Limit) => told.push(`limit ${limit}`),
      subscribed: (filters) => told.push(`subscribed ${filters.join(' ')}`),
      unsubscribed: (filters) => told.push(`unsubscribed ${filters.join(' ')}`),
    },
    ...options,
  })
  const broker = new Recorder(gate.inbound)
  const device = new Recorder(gate.outbound)
  return {
    gate,
    broker,
    device,
    faults,
    connacks,
    told,
    traffic,
    wheel,
    clock,
    fromDevice(...chunks) {
      for (const chunk of chunks) if (faults.length === 0) gate.inbound.inspect(chunk)
    },
    fromBroker(...chunks) {
      for (const chunk of chunks) if (faults.length === 0) gate.outbound.inspect(chunk)
    },
  }
}

/** Only these resources; an action that is not named is open. */
export function permitOf(rules: Partial<Record<Action, (resource: string) => boolean>>): Permit {
  const ruleOf = new Map(Object.entries(rules))
  return {
    allows: (action, resource) => ruleOf.get(action)?.(resource) ?? true,
    allowsAll: (action) => !ruleOf.has(action),
    timeless: true,
  }
}

/** A rig whose broker has accepted the connection already, and whose device has heard so. */
export function connectedRig(options: Partial<GateOptions> = {}): GateRig {
  const rig = gateRig(options)
  rig.fromBroker(Buffer.from(options.version === 5 ? '2003000000' : '20020000', 'hex'))
  rig.device.chunks.length = 0
  return rig
}
