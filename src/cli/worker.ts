import { workerLink } from '../control/cluster.ts'
import { connectionsWorker, ownConnections } from '../control/connections.ts'
import type { ProcessLog } from '../control/log.ts'
import type { MetricsParts } from '../control/metrics.ts'
import { follower } from '../control/reload-link.ts'
import type { Material } from '../generation/material.ts'
import { registrarLink } from '../registry/link.ts'
import type { Running } from '../start.ts'
import { linkedStore } from '../store/link.ts'
import { linkedSecret } from '../store/ticket-secret.ts'
import { serveHere } from './serve.ts'

/** A worker's whole life: it ends with the primary, or when that says so. */
export async function worker(
  material: Material,
  log: ProcessLog,
  metrics: MetricsParts,
  embeddedPath: string,
): Promise<number> {
  let running: Running | null = null
  const link = workerLink({
    registry: metrics.registry,
    log,
    async onDrain(graceMs) {
      await running?.stopAccepting()
      await running?.endSessions(graceMs)
      await lastLines(log)
    },
    onMessage: (data) =>
      void (store.heard(data) || asked(data) || secret.heard(data) || reloads.heard(data) || registrar.heard(data)),
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
  running = await serveHere(material, {
    log,
    metrics,
    embeddedPath,
    registrar,
    store,
    ticketSecret: secret,
    living: (numbers) => reloads.living(numbers),
  })
  if (running === null) {
    // What was wrong stands in them.
    await lastLines(log)
    return link.exit(1)
  }
  link.ready()
  reloads.serves(material.number)
  return new Promise<number>(() => {})
}

async function lastLines(log: ProcessLog): Promise<void> {
  await log.written()
  log.flush()
}
