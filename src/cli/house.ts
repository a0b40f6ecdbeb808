import { DrainedServers } from '../backend/drained.ts'
import { runPrimary } from '../control/cluster.ts'
import { type Connections, connectionsPrimary, ownConnections } from '../control/connections.ts'
import type { Readiness } from '../control/http.ts'
import type { Log, ProcessLog } from '../control/log.ts'
import type { MetricsParts } from '../control/metrics.ts'
import { describe } from '../control/pressure.ts'
import { pressurePrimary, readinessOf } from '../control/pressure-link.ts'
import type { Primary } from '../control/primary.ts'
import { type DrainOrder, drainProcess } from '../control/process-drain.ts'
import type { Target } from '../control/reload.ts'
import { workersTarget } from '../control/reload-link.ts'
import { ServerDrains } from '../control/server-drains.ts'
import { drainedNotice, drainedPrimary } from '../control/server-drains-link.ts'
import type { Material } from '../generation/material.ts'
import { answerWorker, changedNotice } from '../registry/link.ts'
import { type OwnerOptions, RegistryOwner } from '../registry/owner.ts'
import type { Running } from '../running.ts'
import { storeServer } from '../store/link.ts'
import { memoryStore } from '../store/memory.ts'
import { RotatingSecret, secretServer } from '../store/ticket-secret.ts'
import { emptierOf, serversOf } from './orders.ts'
import { serveHere } from './serve.ts'
import { watchPressure } from './shedding.ts'

/** What the servers and signals need to know of the processes behind, be it one or many. */
export interface House {
  scrape(): Promise<string>
  readiness(): Readiness
  status(): object
  readonly certificates: Pick<RegistryOwner, 'list' | 'decide'>
  readonly connections: Connections
  /** Where other settings come into force. */
  readonly target: Target<Material>
  readonly servers: ServerDrains
  /** Resolves with the exit code. */
  drain(order: DrainOrder): Promise<number>
  /** Why the workers cannot be restarted now; null when they can. */
  mayRestart(): string | null
  /** @param prepare what comes before the first one; a text says why there is none */
  restart(order: DrainOrder, prepare: () => Promise<string | null>): Promise<void>
  kill(): void
}

export interface HouseParts {
  /** What counts now. */
  readonly current: () => Material
  readonly log: ProcessLog
  readonly metrics: MetricsParts
  readonly embeddedPath: string
}

/** Where workers find the embedded broker; given by the primary. One underscore, so it is no setting. */
export const EMBEDDED_SOCKET = 'BROKERGATE_EMBEDDED_SOCKET'

/** Null after a line in the log: what was learnt cannot be written on, or what is there cannot be trusted. */
function openOwner(
  { settings }: Material,
  log: Log,
  rest: Pick<OwnerOptions, 'changed' | 'contents'>,
): RegistryOwner | null {
  try {
    return new RegistryOwner({ registries: settings.registries, log, ...rest })
  } catch (error) {
    log.error({}, `not started: ${error instanceof Error ? error.message : String(error)}`)
    return null
  }
}

/** The overlays follow with the rest: whoever serves a registry must find somebody who writes for it. */
function withOwner(owner: RegistryOwner, target: Target<Material>): Target<Material> {
  let change: ReturnType<RegistryOwner['prepare']> | null = null
  return {
    async prepare(material) {
      try {
        change = owner.prepare(material.settings.registries)
      } catch (error) {
        return [error instanceof Error ? error.message : String(error)]
      }
      const issues = await target.prepare(material)
      if (issues.length > 0) change.abort()
      return issues
    },
    async commit() {
      change?.commit()
      await target.commit()
    },
    async abort() {
      await target.abort()
      change?.abort()
    },
  }
}

/** One process that does it all: no supervision but that of whoever started it. */
export async function alone({ current, log, metrics, embeddedPath }: HouseParts): Promise<House | null> {
  const first = current()
  let running: Running | null = null
  const owner = openOwner(first, log, {
    changed: (name) => running?.readOverlay(name),
    contents: (name) => running?.registries.get(name)?.contents ?? null,
  })
  if (owner === null) return null
  const ticketSecret = new RotatingSecret({
    maxAgeMs: first.settings.ticketKeys.rotation,
    rotated: () => metrics.metrics.ticketKeysRotated(),
  })
  let living: readonly number[] = []
  const pressure = watchPressure(first.settings, log, metrics.metrics, () => running?.shed())
  const drained = new DrainedServers()
  const servers = new ServerDrains(
    () => serversOf(current().settings),
    (list) => drained.replace(list),
  )
  const started = await serveHere(first, {
    log,
    metrics,
    embeddedPath,
    registrar: owner,
    store: memoryStore(),
    ticketSecret,
    pressure,
    drained,
    living: (numbers) => {
      living = numbers
    },
  })
  if (started === null) {
    owner.close()
    return null
  }
  running = started
  pressure.begin()
  const { drains } = metrics
  const settings = () => current().settings
  const emptier = emptierOf({ drained, sessions: () => started.sessions, settings, log, metrics })
  return {
    scrape: () => metrics.registry.metrics(),
    readiness: () => readinessOf(pressure.state),
    status: () => ({
      workers: [],
      ...started.live,
      generations: living,
      shedding: describe(pressure.state),
      restart: null,
      drained: emptier.status,
    }),
    certificates: owner,
    connections: ownConnections(() => started.sessions),
    target: withOwner(owner, ownTarget(started)),
    servers,
    async drain(order) {
      emptier.close()
      await drainProcess(started, order, { drains, log })
      pressure.stop()
      owner.close()
      return 0
    },
    mayRestart: () => NO_PRIMARY,
    async restart() {},
    kill() {},
  }
}

const NO_PRIMARY =
  'one process does it all (workers: 1), and nobody is there to replace it: set workers to 2 or more, or restart the whole program'

function ownTarget(here: Running): Target<Material> {
  let waiting: { commit(): void; abort(): Promise<void> } | null = null
  return {
    async prepare(material) {
      const prepared = await here.prepare(material)
      if ('issues' in prepared) return prepared.issues
      waiting = prepared
      return []
    },
    async commit() {
      waiting?.commit()
      waiting = null
    },
    async abort() {
      await waiting?.abort()
      waiting = null
    },
  }
}

/** A primary that supervises, and workers that share the listening sockets. */
export async function many(parts: HouseParts, workers: number): Promise<House | null> {
  const { current, log, embeddedPath } = parts
  const { registry, supervision } = parts.metrics
  const tell = (workerId: number, message: unknown) => primary.tell(workerId, message)
  const store = storeServer(tell)
  const secrets = secretServer({ tell, broadcast: (message) => primary.broadcast(message) })
  const connections = connectionsPrimary(
    (message) => primary.broadcast(message),
    () => primary.status().length,
  )
  const pressures = pressurePrimary()
  const owner = openOwner(current(), log, { changed: (name) => primary.broadcast(changedNotice(name)) })
  if (owner === null) return null
  const reloads = workersTarget<Material>({ current, tell, log })
  const servers = new ServerDrains(
    () => serversOf(current().settings),
    (list) => primary.broadcast(drainedNotice(list)),
  )
  const drained = drainedPrimary(() => servers.list, tell)
  const primary: Primary = runPrimary({
    workers,
    env: { [EMBEDDED_SOCKET]: embeddedPath },
    log,
    registry,
    onWorkerExit(reason, workerId) {
      supervision.workerExited(reason)
      store.ended(workerId)
      reloads.ended(workerId, reason === 'drained')
      pressures.ended(workerId)
      drained.ended(workerId)
    },
    onReadyCount: (count) => supervision.workers(count),
    onMessage: (data, workerId) =>
      void (
        store.heard(data, workerId) ||
        pressures.heard(data, workerId) ||
        connections.heard(data) ||
        secrets.heard(data, workerId) ||
        reloads.heard(data, workerId) ||
        drained.heard(data, workerId) ||
        answerWorker(owner, data, (reply) => primary.broadcast(reply))
      ),
  })
  try {
    await primary.started
  } catch {
    log.error({}, 'not started; the lines above say why')
    primary.kill()
    owner.close()
    return null
  }
  setInterval(() => secrets.rotate(), current().settings.ticketKeys.rotation).unref()
  return {
    scrape: () => primary.scrape(),
    readiness() {
      const ready = primary.status().filter(({ state }) => state === 'ready')
      return pressures.readiness(ready.map(({ id }) => id))
    },
    status: () => ({
      workers: primary.status().map((worker) => ({
        ...worker,
        generations: reloads.living(worker.id) ?? [],
        shedding: pressures.of(worker.id),
      })),
      restart: primary.restarting,
      drained: drained.status(servers.list),
    }),
    certificates: owner,
    connections,
    target: withOwner(owner, reloads),
    servers,
    async drain(order) {
      const code = await primary.drain(order)
      owner.close()
      return code
    },
    mayRestart: () => primary.mayRestart(),
    async restart(order, prepare) {
      supervision.restarted((await primary.restart(order, prepare)).kind)
    },
    kill: () => primary.kill(),
  }
}
