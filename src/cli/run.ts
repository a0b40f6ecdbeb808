import cluster from 'node:cluster'
import { mkdtempSync, rmSync } from 'node:fs'
import { availableParallelism, tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { type EmbeddedBroker, startEmbeddedBroker } from '../backend/embedded.ts'
import type { Settings } from '../config/schema.ts'
import { startAdminServer } from '../control/admin.ts'
import { onRestartSignal, onSignals, runSteps, shutdownSteps } from '../control/drain.ts'
import { type RunningServer, startMetricsServer } from '../control/http.ts'
import { endOnFault } from '../control/last-words.ts'
import { createLog, type ProcessLog } from '../control/log.ts'
import type { MetricsParts } from '../control/metrics.ts'
import { createMetrics } from '../control/prometheus.ts'
import type { Reloads } from '../control/reload.ts'
import { materialOfPrimary } from '../control/reload-link.ts'
import type { Material } from '../generation/material.ts'
import type { Print } from './check.ts'
import { alone, EMBEDDED_SOCKET, type House, many } from './house.ts'
import { readMaterial } from './material.ts'
import { shutdownOrder } from './orders.ts'
import { processWarnings } from './process-warnings.ts'
import { followReloads } from './reloads.ts'
import { restarter } from './restarts.ts'
import { namesOf } from './serve.ts'
import { versionOf } from './version.ts'
import { worker } from './worker.ts'

export interface RunOptions {
  /** null for a first run with an embedded broker and development certificates. */
  readonly file: string | null
  readonly env: NodeJS.ProcessEnv
  readonly print: Print
}

const FIRST_RUN_FOLDER = '.brokergate'

const RUNTIME = process.versions.bun === undefined ? `node ${process.versions.node}` : `bun ${process.versions.bun}`

/** What carries MQTT here. */
const transportOf = ({ transport }: Settings) =>
  transport === 'auto' && process.versions.bun !== undefined ? 'runtime' : 'portable'

/** `brokergate run`: settings → one process, or a primary and its workers → signals. Resolves with the exit code. */
export async function run(options: RunOptions): Promise<number> {
  let early: ProcessLog | null = null
  // Never the end of a process; `followReloads` takes it up once there is something to reload, and workers have no part in it.
  const tooEarly = () => early?.warn({ cause: 'signal' }, 'reload ignored: the program is starting')
  process.on('SIGHUP', tooEarly)
  if (cluster.isWorker) {
    const material = await materialOfPrimary<Material>()
    const { log, metrics } = outlets(material.settings)
    return worker(material, log, metrics, options.env[EMBEDDED_SOCKET] ?? '')
  }
  const first = options.file === null ? await firstRun(resolve(FIRST_RUN_FOLDER)) : null
  const file = first === null ? options.file! : first.configFile
  const readAt = Date.now()
  const read = readMaterial(file, options.env, null)
  if (read.kind === 'refused') {
    for (const issue of read.issues) options.print(issue)
    return 1
  }
  const { settings } = read.material
  const { log, metrics } = outlets(settings)
  early = log
  for (const warning of [...read.warnings, ...processWarnings()]) log.warn({}, warning)
  // Nothing else is ever written to a temporary folder: without an embedded broker there may be none.
  const embedded = Object.values(settings.backends).some((backend) => backend.kind === 'embedded')
  const folder = embedded ? temporaryFolder(log) : ''
  if (folder === null) {
    await log.written()
    log.flush()
    return 1
  }
  const embeddedPath = join(folder, 'broker.sock')
  let broker: EmbeddedBroker | null = null
  try {
    if (embedded) {
      broker = await startEmbeddedBroker({
        path: embeddedPath,
        onError: (error) => log.debug({ error }, 'embedded broker: trouble with a client'),
      })
    }
    const workers = settings.workers === 'auto' ? availableParallelism() : settings.workers
    let reloads: Reloads<Material> | null = null
    const current = () => reloads?.current ?? read.material
    const parts = { current, log, metrics, embeddedPath }
    const house = workers === 1 ? await alone(parts) : await many(parts, workers)
    if (house === null) return 1
    const following = followReloads({ file, env: options.env, first: read, readAt, house, log, metrics })
    early = null
    reloads = following.reloads
    return await supervise(log, house, reloads, () => {
      if (first !== null) options.print(`\nbrokergate is ready. Paste into two terminals:\n\n${first.pasteLines}`)
    }).finally(() => following.stop())
  } finally {
    await broker?.close()
    if (folder !== '') rmSync(folder, { recursive: true, force: true })
    await log.written()
    log.flush()
  }
}

/** Certificates are made by a library that whoever has a configuration does not wait for. */
async function firstRun(folder: string): Promise<{ readonly configFile: string; readonly pasteLines: string }> {
  const { ensureFirstRun, pasteLines } = await import('./first-run.ts')
  return { configFile: ensureFirstRun(folder).configFile, pasteLines: pasteLines(folder) }
}

/** Null after a line in the log: on a read-only file system somebody has to say where. */
function temporaryFolder(log: ProcessLog): string | null {
  try {
    return mkdtempSync(join(tmpdir(), 'brokergate-'))
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error)
    log.error({}, `not started: no folder for the socket of the embedded broker, set TMPDIR to one: ${why}`)
    return null
  }
}

/** Where a process tells what goes on. */
function outlets(settings: Settings): { readonly log: ProcessLog; readonly metrics: MetricsParts } {
  const log = createLog({ level: settings.log.level, format: settings.log.format })
  endOnFault(log)
  const metrics = createMetrics({
    version: versionOf(),
    runtime: RUNTIME,
    transport: transportOf(settings),
    ...namesOf(settings),
  })
  return { log, metrics }
}

/** Servers for people and scrapers, then signals, then the drain; resolves with the exit code. */
async function supervise(
  log: ProcessLog,
  house: House,
  reloads: Reloads<Material>,
  announce: () => void,
): Promise<number> {
  const { settings } = reloads.current
  const servers: RunningServer[] = []
  let draining = false
  const { promise: stop, resolve: requestStop } = Promise.withResolvers<void>()
  const restart = restarter(house, reloads, log)
  try {
    servers.push(
      await startMetricsServer({
        ...settings.metrics.bind,
        scrape: () => house.scrape(),
        ready: () => (draining ? { ready: false, reason: 'draining' } : house.readiness()),
        log,
      }),
    )
    servers.push(
      await startAdminServer({
        path: settings.admin.socket,
        status: () => ({
          version: versionOf(),
          runtime: RUNTIME,
          transport: transportOf(settings),
          draining,
          generation: reloads.current.number,
          ...house.status(),
        }),
        drain: requestStop,
        servers: house.servers,
        restart: () => restart('admin'),
        reload: () => reloads.request('admin'),
        certificates: house.certificates,
        connections: house.connections,
        log,
      }),
    )
  } catch (error) {
    log.error({}, `not started: ${error instanceof Error ? error.message : String(error)}`)
    house.kill()
    await Promise.all(servers.map((server) => server.close()))
    return 1
  }
  log.info(
    {
      listeners: settings.listeners.map(({ bind, as }) => `${bind.host}:${bind.port} as ${as}`),
      metrics: servers[0]!.address,
    },
    'ready',
  )
  reloads.open()
  announce()
  const offRestart = onRestartSignal(() => restart('signal'))
  const off = onSignals({
    first: () => requestStop(),
    second: () => {
      house.kill()
      process.exit(1)
    },
  })
  await stop
  reloads.close('the program is ending')
  const order = shutdownOrder(reloads.current.settings)
  const settleMs = reloads.current.settings.drain.settle
  log.info({ graceMs: order.graceMs, settleMs }, 'draining')
  let code = 0
  const well = await runSteps(
    shutdownSteps({
      notReady: () => {
        draining = true
      },
      ...(settleMs > 0 && { settle: () => new Promise((resolve) => setTimeout(resolve, settleMs)) }),
      stopAccepting: () => {},
      async endSessions() {
        code = await house.drain(order)
      },
      async stopServers() {
        await Promise.all(servers.map((server) => server.close()))
      },
    }),
    log,
  )
  off()
  offRestart()
  log.info({ code }, 'ended')
  return well ? code : 1
}
