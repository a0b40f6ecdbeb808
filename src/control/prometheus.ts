import { Counter, Gauge, Registry } from 'prom-client'
import { FAILURES, type FailureCode, reasonOf } from '../errors.ts'
import { SHIELD_OUTCOMES } from '../mqtt/shield-outcomes.ts'
import type { ProvisionResult } from '../registry/self-registration.ts'
import { admissionCounters, admissionMetrics } from './admission-metrics.ts'
import { descriptorLimit, openDescriptors } from './descriptors.ts'
import { Distribution } from './distribution.ts'
import {
  type LabelOf,
  METRIC_PREFIX,
  METRICS,
  type MetricName,
  type MetricRow,
  type NamesOf,
  RUNGS,
  type Rung,
} from './metric-table.ts'
import {
  COUNTED_ACTIONS,
  closeReasonLabel,
  HTTP_ROUTES,
  type HttpRoute,
  type KnownNames,
  LIMITS,
  type MetricsParts,
  SETTINGS_RELOADS,
  trafficCounters,
  WORKER_EXIT_REASONS,
} from './metrics.ts'
import { Tally } from './tally.ts'

// The rows of the metric table in a registry of prom-client, with every series that is known from the start.

const HTTP_STATUSES: Readonly<Record<HttpRoute, readonly number[]>> = {
  publish: [200, 204, 400, 401, 403, 405, 408, 413, 429, 500, 502, 503, 504],
  mqtt: [101, 400, 401, 403, 426, 429, 500, 503],
  forward: [200, 400, 401, 403, 405, 408, 413, 500, 502, 503, 504],
  none: [400, 404, 408, 421, 431, 500],
}

/** MQTT 5.0 §2.1.2, by number; 0 is reserved and never counted. */
const PACKET_TYPES = [
  null,
  'connect',
  'connack',
  'publish',
  'puback',
  'pubrec',
  'pubrel',
  'pubcomp',
  'subscribe',
  'suback',
  'unsubscribe',
  'unsuback',
  'pingreq',
  'pingresp',
  'disconnect',
  'auth',
] as const

/** As `provisions_total` tells them; `satisfies` and the type of the method keep it to what registrations say. */
const PROVISIONS = [
  'pending',
  'success',
  'client_error',
  'server_error',
  'throttled',
] as const satisfies ProvisionResult[]

/** Results of `authorizer_calls_total` with an answer. */
const ANSWERED: ReadonlySet<string> = new Set(['ok', 'allowed', 'denied'])

const CODES = Object.keys(FAILURES) as FailureCode[]

function reasonsOn(rung: Rung): string[] {
  return CODES.filter((code) => RUNGS[code]?.includes(rung)).map(reasonOf)
}

export interface MetricsOptions extends KnownNames {
  readonly version: string
  /** Such as `bun 1.4.5`; that of this process unless given. */
  readonly runtime?: string
  /** What carries MQTT; portable unless told. */
  readonly transport?: 'runtime' | 'portable'
}

export function createMetrics(options: MetricsOptions): MetricsParts {
  const registry = new Registry()
  const { bun } = process.versions
  const runtime = options.runtime ?? (bun === undefined ? `node ${process.versions.node}` : `bun ${bun}`)

  const described = <N extends MetricName>(name: N) => {
    const row: MetricRow = METRICS[name]
    return {
      name: METRIC_PREFIX + name,
      help: row.help,
      labelNames: [...row.labels] as LabelOf<N>[],
      registers: [registry],
    }
  }
  const counter = <N extends NamesOf<'counter'>>(name: N, collect?: (self: Counter<LabelOf<N>>) => void) =>
    new Counter<LabelOf<N>>({
      ...described(name),
      ...(collect && {
        collect() {
          collect(this)
        },
      }),
    })
  const tally = <N extends NamesOf<'counter'>>(name: N) => new Tally<LabelOf<N>>((collect) => counter(name, collect))
  const gauge = <N extends NamesOf<'gauge'>>(name: N, collect?: (self: Gauge<LabelOf<N>>) => void) => {
    const row: MetricRow = METRICS[name]
    return new Gauge<LabelOf<N>>({
      ...described(name),
      aggregator: row.join ?? 'sum',
      ...(collect && {
        collect() {
          collect(this)
        },
      }),
    })
  }
  const histogram = <N extends NamesOf<'histogram'>>(name: N) => {
    const distribution = new Distribution<LabelOf<N>>({ ...described(name), buckets: METRICS[name].buckets })
    if (METRICS[name].labels.length === 0) distribution.zero('', {})
    return distribution
  }

  const accepted = tally('connections_accepted_total')
  const pauses = counter('accept_pauses_total')
  for (const reason of ['descriptors', 'connections', 'overload']) pauses.inc({ reason }, 0)

  const hellos = tally('hellos_total')
  for (const result of ['ok', 'probe', ...reasonsOn('hello')]) hellos.zero({ result })

  const handshakes = tally('handshakes_total')
  for (const version of ['TLSv1.2', 'TLSv1.3']) handshakes.zero({ result: 'ok', version })
  for (const result of reasonsOn('handshake')) handshakes.zero({ result, version: 'none' })
  const handshakeSeconds = histogram('handshake_seconds')
  const resumptions = tally('handshakes_resumed_total')
  for (const version of ['TLSv1.2', 'TLSv1.3']) resumptions.zero({ version })
  const ticketKeyRotations = counter('ticket_key_rotations_total')

  const admission = admissionCounters()
  admissionMetrics(admission, {
    counter: (name, collect) =>
      counter(name, (self) => {
        self.reset()
        collect((labels, value) => self.inc(labels, value))
      }),
    gauge: (name, collect) => gauge(name, (self) => collect((labels, value) => self.set(labels, value))),
  })
  const handshakeWait = histogram('handshake_wait_seconds')

  const identities = tally('identities_total')
  for (const result of ['ok', ...reasonsOn('identity')]) identities.zero({ method: 'x509', result })
  for (const result of ['ok', 'identity_fault']) identities.zero({ method: 'backend', result })

  const lifecycleEvents = counter('lifecycle_events_total')
  for (const result of ['sent', 'dropped']) lifecycleEvents.inc({ result }, 0)

  const authorizerCalls = counter('authorizer_calls_total')
  const authorizerSeconds = histogram('authorizer_call_seconds')
  const authorizerCircuits = gauge('authorizer_circuit_open')

  const connects = tally('connects_total')
  for (const version of ['3.1.1', '5']) {
    for (const result of ['ok', ...reasonsOn('connect')]) connects.zero({ result, version })
  }
  for (const result of reasonsOn('connect')) connects.zero({ result, version: 'unknown' })
  const connectSeconds = histogram('connect_seconds')

  let sessions = 0
  gauge('sessions', (self) => self.set(sessions))

  const requests = tally('http_requests_total')
  // What each can be answered with by us; a backend's own statuses begin when they come.
  for (const [route, statuses] of Object.entries(HTTP_STATUSES)) {
    for (const status of statuses) requests.zero({ route, status })
  }
  const requestSeconds = histogram('http_request_seconds')
  for (const route of HTTP_ROUTES) requestSeconds.zero(route, { route })

  const traffic = trafficCounters()
  counter('bytes_total', (self) => {
    self.reset()
    self.inc({ direction: 'in' }, traffic.bytesIn)
    self.inc({ direction: 'out' }, traffic.bytesOut)
  })
  counter('packets_total', (self) => {
    self.reset()
    for (const [number, type] of PACKET_TYPES.entries()) {
      if (type === null) continue
      self.inc({ direction: 'in', type }, traffic.packetsIn[number])
      self.inc({ direction: 'out', type }, traffic.packetsOut[number])
    }
  })

  const { gate } = traffic
  counter('policy_decisions_total', (self) => {
    self.reset()
    for (const action of COUNTED_ACTIONS) {
      self.inc({ action, result: 'allowed' }, gate.allowed[action])
      self.inc({ action, result: 'denied' }, gate.denied[action])
    }
  })
  counter('packets_denied_total', (self) => {
    self.reset()
    for (const action of COUNTED_ACTIONS) self.inc({ action }, gate.packetsDenied[action])
  })
  counter('limits_exceeded_total', (self) => {
    self.reset()
    for (const limit of LIMITS) self.inc({ limit }, gate.limits[limit])
  })

  const dials = tally('backend_dials_total')
  const dialSeconds = histogram('backend_dial_seconds')
  const shielded = gauge('shielded_sessions')
  const shieldOutcomes = counter('shield_outcomes_total')

  const registryReloads = counter('registry_reloads_total')
  const revocationReloads = counter('revocation_reloads_total')
  for (const result of ['ok', 'refused']) revocationReloads.inc({ result }, 0)
  const provisions = counter('provisions_total')
  for (const result of PROVISIONS) provisions.inc({ result }, 0)

  const known = ({ ports = [], backends = [], registries = [] }: KnownNames) => {
    for (const port of ports) accepted.zero({ port })
    for (const backend of backends) {
      for (const result of ['ok', ...reasonsOn('dial')]) dials.zero({ backend, result })
      for (const outcome of SHIELD_OUTCOMES) shieldOutcomes.inc({ backend, outcome }, 0)
      shielded.inc({ backend }, 0)
      dialSeconds.zero(backend, { backend })
    }
    for (const registry of registries)
      for (const result of ['ok', 'refused']) registryReloads.inc({ registry, result }, 0)
  }
  known(options)

  const settingsReloads = counter('config_reloads_total')
  for (const result of SETTINGS_RELOADS) settingsReloads.inc({ result }, 0)
  const settingsGeneration = gauge('config_generation')
  const settingsGenerations = gauge('config_generations_live')
  const settingsSuccess = gauge('config_last_reload_success_timestamp_seconds')

  const closed = tally('connections_closed_total')
  for (const reason of ['downstream', 'upstream', 'probe', ...CODES.map(reasonOf)]) closed.zero({ reason })

  const workers = gauge('workers')
  const workerExits = counter('worker_exits_total')
  for (const reason of WORKER_EXIT_REASONS) workerExits.inc({ reason }, 0)

  const restarts = counter('worker_restarts_total')
  for (const result of ['done', 'aborted']) restarts.inc({ result }, 0)

  const draining = gauge('draining')
  const drainRemaining = gauge('drain_sessions_remaining')
  for (const scope of ['process', 'server']) drainRemaining.set({ scope }, 0)
  const drains = counter('drains_total')
  for (const result of ['done', 'cut']) drains.inc({ scope: 'process', result }, 0)
  for (const result of ['done', 'cut', 'undone']) drains.inc({ scope: 'server', result }, 0)
  const drainedServers = gauge('backend_servers_drained')
  for (const backend of options.backends ?? []) drainedServers.set({ backend }, 0)

  gauge('build_info').set({ version: options.version, runtime, transport: options.transport ?? 'portable' }, 1)
  gauge('process_resident_memory_bytes', (self) => self.set(process.memoryUsage.rss()))
  gauge('process_heap_used_bytes', (self) => self.set(process.memoryUsage().heapUsed))
  counter('process_cpu_seconds_total', (self) => {
    const { user, system } = process.cpuUsage()
    self.reset()
    self.inc((user + system) / 1e6)
  })
  gauge('process_open_fds', (self) => self.set(openDescriptors()))
  gauge('process_max_fds').set(descriptorLimit() ?? Number.POSITIVE_INFINITY)
  gauge('process_start_time_seconds').set(Math.round(Date.now() / 1000 - process.uptime()))

  const stopLag = measureLag(histogram('event_loop_lag_seconds'))

  return {
    registry,
    metrics: {
      traffic,
      admission,
      handshakeWaited: (seconds) => handshakeWait.observe(seconds),
      accepted: (port) => accepted.add(`${port}`, { port }),
      acceptPaused: (reason) => pauses.inc({ reason }),
      hello: (result) => hellos.add(result, { result }),
      handshake(result, version, seconds) {
        handshakes.add(`${result} ${version}`, { result, version })
        if (result === 'ok') handshakeSeconds.observe(seconds)
      },
      resumed: (version) => resumptions.add(version, { version }),
      ticketKeysRotated: () => ticketKeyRotations.inc(),
      identity: (method, result) => identities.add(`${method} ${result}`, { method, result }),
      lifecycleEvent(result) {
        lifecycleEvents.inc({ result })
      },
      authorizerCall(authorizer, result, seconds) {
        authorizerCalls.inc({ authorizer, result })
        if (ANSWERED.has(result)) authorizerSeconds.observe(seconds, authorizer, { authorizer })
      },
      authorizerCircuit: (authorizer, open) => authorizerCircuits.set({ authorizer }, open ? 1 : 0),
      connect(result, version, seconds) {
        connects.add(`${result} ${version}`, { result, version })
        if (result === 'ok') connectSeconds.observe(seconds)
      },
      dial(backend, result, seconds) {
        dials.add(`${backend} ${result}`, { backend, result })
        if (result === 'ok') dialSeconds.observe(seconds, backend, { backend })
      },
      sessions(delta) {
        sessions += delta
      },
      shielded: (backend, delta) => shielded.inc({ backend }, delta),
      shieldOutcome: (backend, outcome) => shieldOutcomes.inc({ backend, outcome }),
      registryReload: (registry, result) => registryReloads.inc({ registry, result }),
      revocationReload: (result) => revocationReloads.inc({ result }),
      provision: (result) => provisions.inc({ result }),
      request(route, status, seconds) {
        const known = status >= 100 && status <= 599 ? status : 'other'
        requests.add(`${route} ${known}`, { route, status: known })
        requestSeconds.observe(seconds, route, { route })
      },
      closed: (reason) => closed.add(reason, { reason: closeReasonLabel(reason) }),
    },
    supervision: {
      workers: (count) => workers.set(count),
      workerExited: (reason) => workerExits.inc({ reason }),
      restarted: (result) => restarts.inc({ result }),
    },
    drains: {
      draining: (on) => draining.set(on ? 1 : 0),
      remaining: (scope, count) => drainRemaining.set({ scope }, count),
      ended: (result) => drains.inc({ scope: 'process', result }),
      serverEnded: (result) => drains.inc({ scope: 'server', result }),
      serversDrained: (backend, count) => drainedServers.set({ backend }, count),
    },
    settings: {
      reloaded: (result) => settingsReloads.inc({ result }),
      generation: (number) => settingsGeneration.set(number),
      known,
      living: (generations) => settingsGenerations.set(generations),
      succeeded: () => settingsSuccess.set(Math.floor(Date.now() / 1_000)),
    },
    close: stopLag,
  }
}

const LAG_PERIOD_MS = 100

/**
 * Our own timer and not `monitorEventLoopDelay`: that one counts its resolution in on Node and not on Bun, and its
 * percentiles cannot be joined over processes, while the buckets of a histogram can.
 */
function measureLag(histogram: Distribution<never>): () => void {
  let due = performance.now() + LAG_PERIOD_MS
  const timer = setInterval(() => {
    const now = performance.now()
    histogram.observe(Math.max(0, now - due) / 1000)
    due = now + LAG_PERIOD_MS
  }, LAG_PERIOD_MS)
  timer.unref()
  return () => clearInterval(timer)
}
