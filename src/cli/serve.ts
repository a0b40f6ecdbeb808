import cluster from 'node:cluster'
import type { DrainedServers } from '../backend/drained.ts'
import { WORKER_PLACE } from '../control/cluster.ts'
import { denialLog } from '../control/denial-log.ts'
import { descriptorLimit, openDescriptors } from '../control/descriptors.ts'
import { type ProcessLog, sessionLevel, sessionLine } from '../control/log.ts'
import type { KnownNames, MetricsParts } from '../control/metrics.ts'
import type { Pressure } from '../control/pressure.ts'
import { reasonOf } from '../errors.ts'
import type { Material } from '../generation/material.ts'
import type { Capacity } from '../listener/listener.ts'
import type { Registrar } from '../registry/self-registration.ts'
import type { Running } from '../running.ts'
import { start } from '../start.ts'
import type { Store } from '../store/store.ts'
import type { TicketSecret } from '../store/ticket-secret.ts'
import { QUIET } from './shedding.ts'

export interface ServeOptions {
  readonly log: ProcessLog
  readonly metrics: MetricsParts
  readonly embeddedPath: string
  readonly registrar: Registrar
  readonly store: Store
  readonly ticketSecret: TicketSecret
  readonly pressure: Pressure
  readonly drained: DrainedServers
  /** Told of what counts from now on. */
  readonly committed?: (material: Material) => void
  /** Told of the generations that live in this process. */
  readonly living: (numbers: readonly number[]) => void
}

/** Null after lines in the log that say why. */
export async function serveHere(first: Material, options: ServeOptions): Promise<Running | null> {
  const { log, metrics, pressure } = options
  let material = first
  const committed = (next: Material) => {
    material = next
    options.committed?.(next)
    log.setLevel(next.settings.log.level)
    metrics.settings.generation(next.number)
    metrics.settings.known(namesOf(next.settings))
    pressure.configure(next.settings.shedding)
  }
  const started = await start(first, {
    metrics: metrics.metrics,
    embeddedPath: options.embeddedPath,
    drained: options.drained,
    registrar: options.registrar,
    store: options.store,
    ticketSecret: options.ticketSecret,
    log,
    registered: ({ certificateId, caCertificateId }) => {
      log.info({ event: 'registered', principal: certificateId, ca: caCertificateId }, 'a device waits to be activated')
    },
    // All workers read the same settings; the first one speaks for them.
    warn: (text) => {
      if (cluster.isPrimary || process.env[WORKER_PLACE] === '0') log.warn({}, text)
    },
    capacity: capacity(() => material.settings.limits.maxConnections, pressure),
    shedding: () => pressure.state,
    denied: denialLog(log),
    generations(numbers) {
      metrics.settings.living(numbers.length)
      options.living(numbers)
    },
    committed,
    ...lines(log),
  })
  if (started.kind === 'refused') {
    for (const issue of started.issues) log.error({}, issue)
    return null
  }
  return started.running
}

/** For series that start at 0. */
export function namesOf({ listeners, backends, registries }: Material['settings']): KnownNames {
  return {
    ports: [...new Set(listeners.map((listener) => listener.as))],
    backends: Object.keys(backends),
    registries: Object.keys(registries),
  }
}

/** Lines of connections and requests. */
function lines(log: ProcessLog): Pick<Parameters<typeof start>[1], 'ended' | 'answered'> {
  return {
    ended(connection, trace, reason, error) {
      // Load balancers look in every few seconds; nobody wants to read that, nor a line for each of a flood.
      const level = QUIET.has(reason) ? 'debug' : sessionLevel(reason)
      if (!log.writes(level)) return
      const line = sessionLine(
        trace,
        connection,
        reason,
        error === null
          ? {}
          : { detail: error.message, ...(error.code === 'ERR_INTERNAL' && { error: error.cause ?? error }) },
      )
      log[level](line.fields, line.message)
    },
    answered({ id }, { traceId, route, status, failure }) {
      if (failure === null) return
      const fields = {
        event: 'request',
        id,
        traceId,
        route,
        status,
        reason: reasonOf(failure.code),
        detail: failure.message.slice(0, MAX_DETAIL_LENGTH),
      }
      // A fault of ours is told whatever the level; the line of the connection may be hours away.
      log[failure.code === 'ERR_INTERNAL' ? 'error' : 'debug'](fields, `request refused: ${reasonOf(failure.code)}`)
    },
  }
}

/** As in the line of a connection. */
const MAX_DETAIL_LENGTH = 256

/** A session holds two descriptors, the device's and the broker's. */
const DESCRIPTORS_PER_SESSION = 2
/** Kept free of sessions: for files, scrapes and whatever else must go on. */
const RESERVE_SHARE = 0.05
const RESERVE_LEAST = 16
/** Accepting goes on when this share of the ceiling is reached from above. */
const ROOMY_SHARE = 0.95

function capacity(maxConnections: () => number | null, pressure: Pressure): Capacity {
  const limit = descriptorLimit()
  const byDescriptors =
    limit === null
      ? Number.POSITIVE_INFINITY
      : Math.max(
          1,
          Math.floor(
            (limit - Math.max(RESERVE_LEAST, limit * RESERVE_SHARE) - openDescriptors()) / DESCRIPTORS_PER_SESSION,
          ),
        )
  const byCount = () => maxConnections() ?? Number.POSITIVE_INFINITY
  const ceiling = () => Math.min(byDescriptors, byCount())
  return {
    full(live) {
      if (pressure.state.stage === 2) return 'overload'
      return live < ceiling() ? null : byCount() <= byDescriptors ? 'connections' : 'descriptors'
    },
    roomy: (live) => pressure.state.stage < 2 && live < Math.max(1, ceiling() * ROOMY_SHARE),
  }
}
