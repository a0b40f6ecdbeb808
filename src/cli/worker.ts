import { DrainedServers } from '../backend/drained.ts'
import { connectionsWorker, ownConnections } from '../control/connections.ts'
import type { ProcessLog } from '../control/log.ts'
import type { MetricsParts } from '../control/metrics.ts'
import { pressureNotice } from '../control/pressure-link.ts'
import { drainProcess } from '../control/process-drain.ts'
import { follower } from '../control/reload-link.ts'
import { drainedLink } from '../control/server-drains-link.ts'
import { workerLink } from '../control/worker-link.ts'
import type { Material } from '../generation/material.ts'
import { registrarLink } from '../registry/link.ts'
import type { Running } from '../running.ts'
import { linkedStore } from '../store/link.ts'
import { linkedSecret } from '../store/ticket-secret.ts'
import { emptierOf } from './orders.ts'
import { serveHere } from './serve.ts'
import { watchPressure } from './shedding.ts'

/** A worker's whole life: it ends with the primary, or when that says so. */
export async function worker(
  material: Material,
  log: ProcessLog,
  metrics: MetricsParts,
  embeddedPath: string,
): Promise<number> {
  let running: Running | null = null
  let now = material
  const drained = new DrainedServers()
  const link = workerLink({
    registry: metrics.registry,
    log,
    async onDrain(order) {
      emptier.close()
      if (running === null) return
      const { drains } = metrics
      await drainProcess(running, order, { drains, log, remaining: (count) => link.left(count) })
      await lastLines(log)
    },
    onMessage: (data) =>
      void (
        store.heard(data) ||
        asked(data) ||
        secret.heard(data) ||
        reloads.heard(data) ||
        empty.heard(data) ||
        registrar.heard(data)
      ),
  })
  const send = (message: unknown) => link.send(message)
  const asked = connectionsWorker(
    ownConnections(() => running?.sessions ?? []),
    send,
  )
  const store = linkedStore(send)
  const registrar = registrarLink({ worker: link.id, send, changed: (name) => running?.readOverlay(name) })
  const secret = linkedSecret(send, {
    maxAgeMs: material.settings.ticketKeys.rotation,
    rotated: () => metrics.metrics.ticketKeysRotated(),
  })
  const reloads = follower<Material>({
    send,
    prepare: (next) => running!.prepare(next),
    fail(error) {
      log.error({ error }, 'this worker cannot follow the settings')
      void lastLines(log).then(() => link.exit(1))
    },
  })
  const pressure = watchPressure(material.settings, log, metrics.metrics, (state) => {
    running?.shed()
    send(pressureNotice(state))
  })
  const emptier = emptierOf({
    drained,
    sessions: () => running?.sessions ?? [],
    settings: () => now.settings,
    log,
    metrics,
  })
  const empty = drainedLink(drained, () => emptier.status, send)
  await empty.known
  running = await serveHere(material, {
    log,
    metrics,
    embeddedPath,
    registrar,
    store,
    ticketSecret: secret,
    pressure,
    drained,
    committed: (next) => {
      now = next
    },
    living: (numbers) => reloads.living(numbers),
  })
  if (running === null) {
    // What was wrong stands in them.
    await lastLines(log)
    return link.exit(1)
  }
  pressure.begin()
  link.ready()
  reloads.serves(material.number)
  return new Promise<number>(() => {})
}

async function lastLines(log: ProcessLog): Promise<void> {
  await log.written()
  log.flush()
}
