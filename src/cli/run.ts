import cluster from 'node:cluster'
import { mkdtempSync, rmSync } from 'node:fs'
import { availableParallelism, tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { type EmbeddedBroker, startEmbeddedBroker } from '../backend/embedded.ts'
import { formatIssue, loadSettings } from '../config/load.ts'
import type { Settings } from '../config/schema.ts'
import { startAdminServer } from '../control/admin.ts'
import { type Primary, runPrimary, workerLink } from '../control/cluster.ts'
import { type Connections, connectionsPrimary, connectionsWorker, ownConnections } from '../control/connections.ts'
import { denialLog } from '../control/denial-log.ts'
import { descriptorLimit, openDescriptors } from '../control/descriptors.ts'
import { onSignals, runSteps, shutdownSteps } from '../control/drain.ts'
import { type RunningServer, startMetricsServer } from '../control/http.ts'
import { endOnFault } from '../control/last-words.ts'
import { createLog, type Log, sessionLine } from '../control/log.ts'
import { createMetrics, type MetricsParts } from '../control/metrics.ts'
import { reasonOf } from '../errors.ts'
import type { Capacity } from '../listener/listener.ts'
import { answerWorker, changedNotice, registrarLink } from '../registry/link.ts'
import { type OwnerOptions, RegistryOwner } from '../registry/owner.ts'
import type { Registrar } from '../registry/self-registration.ts'
import { type Running, start } from '../start.ts'
import { linkedStore, storeServer } from '../store/link.ts'
import { memoryStore } from '../store/memory.ts'
import type { Store } from '../store/store.ts'
import { linkedSecret, RotatingSecret, secretServer, type TicketSecret } from '../store/ticket-secret.ts'
import type { Print } from './check.ts'
import { ensureFirstRun, pasteLines } from './first-run.ts'
import { processWarnings } from './process-warnings.ts'
import { versionOf } from './version.ts'

export interface RunOptions {
  /** null for a first run with an embedded broker and development certificates. */
  readonly file: string | null
  readonly env: NodeJS.ProcessEnv
  readonly print: Print
}

const FIRST_RUN_FOLDER = '.brokergate'
/** Where workers find the embedded broker; given by the primary. One underscore, so it is no setting. */
const EMBEDDED_SOCKET = 'BROKERGATE_EMBEDDED_SOCKET'

const RUNTIME = process.versions.bun === undefined ? `node ${process.versions.node}` : `bun ${process.versions.bun}`

/** What carries MQTT here. */
const transportOf = ({ transport }: Settings) =>
  transport === 'auto' && process.versions.bun !== undefined ? 'runtime' : 'portable'

/** `brokergate run`: settings → one process, or a primary and its workers → signals. Resolves with the exit code. */
export async function run(options: RunOptions): Promise<number> {
  const first = options.file === null ? resolve(FIRST_RUN_FOLDER) : null
  const file =
    first === null
      ? options.file!
      : cluster.isPrimary
        ? ensureFirstRun(first).configFile
        : join(first, 'brokergate.yaml')
  const loaded = loadSettings(file, options.env)
  if (loaded.kind === 'invalid') {
    for (const issue of loaded.issues) options.print(formatIssue(issue))
    return 1
  }
  const { settings } = loaded
  const log = createLog({ level: settings.log.level, format: settings.log.format })
  endOnFault(log)
  const metrics = createMetrics({
    version: versionOf(),
    runtime: RUNTIME,
    transport: transportOf(settings),
    ports: [...new Set(settings.listeners.map((listener) => listener.as))],
    backends: Object.keys(settings.backends),
    registries: Object.keys(settings.registries),
  })
  if (cluster.isWorker) return worker(settings, log, metrics, options.env[EMBEDDED_SOCKET] ?? '')
  for (const warning of [...loaded.warnings, ...processWarnings()]) log.warn({}, warning)

  // Nothing else is ever written to a temporary folder: without an embedded broker there may be none.
  const embedded = Object.values(settings.backends).some((backend) => backend.kind === 'embedded')
  const folder = embedded ? temporaryFolder(log) : ''
  if (folder === null) return 1
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
    const house =
      workers === 1
        ? await alone(settings, log, metrics, embeddedPath)
        : await many(settings, log, metrics, embeddedPath, workers)
    if (house === null) return 1
    return await supervise(settings, log, house, () => {
      if (first !== null) options.print(`\nbrokergate is ready. Paste into two terminals:\n\n${pasteLines(first)}`)
    })
  } finally {
    await broker?.close()
    if (folder !== '') rmSync(folder, { recursive: true, force: true })
    log.flush()
  }
}

/** Null after a line in the log: on a read-only file system somebody has to say where. */
function temporaryFolder(log: Log & { flush(): void }): string | null {
  try {
    return mkdtempSync(join(tmpdir(), 'brokergate-'))
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error)
    log.error({}, `not started: no folder for the socket of the embedded broker, set TMPDIR to one: ${why}`)
    log.flush()
    return null
  }
}

/** Null after a line in the log: what was learnt cannot be written on, or what is there cannot be trusted. */
function openOwner(
  settings: Settings,
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

/** What the servers and signals need to know of the processes behind, be it one or many. */
interface House {
  scrape(): Promise<string>
  ready(): boolean
  status(): unknown
  readonly certificates: Pick<RegistryOwner, 'list' | 'decide'>
  readonly connections: Connections
  /** Resolves with the exit code. */
  drain(graceMs: number): Promise<number>
  kill(): void
}

/** One process that does it all: no supervision but that of whoever started it. */
async function alone(
  settings: Settings,
  log: Log,
  { metrics, registry }: MetricsParts,
  embeddedPath: string,
): Promise<House | null> {
  let running: Running | null = null
  const owner = openOwner(settings, log, {
    changed: (name) => running?.registries.get(name)?.readOverlay(),
    contents: (name) => running?.registries.get(name)?.contents ?? null,
  })
  if (owner === null) return null
  const secret = new RotatingSecret({
    maxAgeMs: settings.ticketKeys.rotation,
    rotated: () => metrics.ticketKeysRotated(),
  })
  const started = await startHere(settings, log, metrics, embeddedPath, owner, memoryStore(), secret)
  if (started === null) {
    owner.close()
    return null
  }
  running = started
  return {
    scrape: () => registry.metrics(),
    ready: () => true,
    status: () => ({ workers: [], ...started.live }),
    certificates: owner,
    connections: ownConnections(() => started.sessions),
    async drain(graceMs) {
      await started.stopAccepting()
      await started.endSessions(graceMs)
      owner.close()
      return 0
    },
    kill() {},
  }
}

/** A primary that supervises, and workers that share the listening sockets. */
async function many(
  settings: Settings,
  log: Log,
  { registry, supervision }: MetricsParts,
  embeddedPath: string,
  workers: number,
): Promise<House | null> {
  const store = storeServer((workerId, message) => primary.tell(workerId, message))
  const secrets = secretServer({
    tell: (workerId, message) => primary.tell(workerId, message),
    broadcast: (message) => primary.broadcast(message),
  })
  const connections = connectionsPrimary(
    (message) => primary.broadcast(message),
    () => primary.status().length,
  )
  const owner = openOwner(settings, log, { changed: (name) => primary.broadcast(changedNotice(name)) })
  if (owner === null) return null
  const primary: Primary = runPrimary({
    workers,
    env: { [EMBEDDED_SOCKET]: embeddedPath },
    log,
    registry,
    onWorkerExit(reason, workerId) {
      supervision.workerExited(reason)
      store.ended(workerId)
    },
    onReadyCount: (count) => supervision.workers(count),
    onMessage: (data, workerId) =>
      void (
        store.heard(data, workerId) ||
        connections.heard(data) ||
        secrets.heard(data, workerId) ||
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
  setInterval(() => secrets.rotate(), settings.ticketKeys.rotation).unref()
  return {
    scrape: () => primary.scrape(),
    ready: () => primary.readyCount > 0,
    status: () => ({ workers: primary.status() }),
    certificates: owner,
    connections,
    async drain(graceMs) {
      const code = await primary.drain(graceMs)
      owner.close()
      return code
    },
    kill: () => primary.kill(),
  }
}

/** A worker's whole life: it ends with the primary, or when that says so. */
async function worker(
  settings: Settings,
  log: Log,
  { metrics, registry }: MetricsParts,
  embeddedPath: string,
): Promise<number> {
  let running: Running | null = null
  const link = workerLink({
    registry,
    log,
    async onDrain(graceMs) {
      await running?.stopAccepting()
      await running?.endSessions(graceMs)
    },
    onMessage: (data) => void (store.heard(data) || asked(data) || secret.heard(data) || registrar.heard(data)),
  })
  const asked = connectionsWorker(
    ownConnections(() => running?.sessions ?? []),
    (message) => link.send(message),
  )
  const store = linkedStore((message) => link.send(message))
  const registrar = registrarLink({
    worker: link.id,
    send: (data) => link.send(data),
    changed: (name) => running?.registries.get(name)?.readOverlay(),
  })
  const secret = linkedSecret((message) => link.send(message), {
    maxAgeMs: settings.ticketKeys.rotation,
    rotated: () => metrics.ticketKeysRotated(),
  })
  running = await startHere(settings, log, metrics, embeddedPath, registrar, store, secret)
  if (running === null) return link.exit(1)
  link.ready()
  return new Promise<number>(() => {})
}

async function startHere(
  settings: Settings,
  log: Log,
  metrics: MetricsParts['metrics'],
  embeddedPath: string,
  registrar: Registrar,
  store: Store,
  ticketSecret: TicketSecret,
): Promise<Running | null> {
  const started = await start(settings, {
    metrics,
    log,
    registrar,
    registered: ({ certificateId, caCertificateId }) => {
      log.info({ event: 'registered', principal: certificateId, ca: caCertificateId }, 'a device waits to be activated')
    },
    // All workers read the same settings; the first one speaks for them.
    warn: (text) => {
      if (cluster.isPrimary || cluster.worker?.id === 1) log.warn({}, text)
    },
    embeddedPath,
    capacity: capacity(settings.limits.maxConnections),
    store,
    ticketSecret,
    denied: denialLog(log),
    ended(connection, trace, reason, error) {
      const line = sessionLine(
        trace,
        connection,
        reason,
        error === null
          ? {}
          : { detail: error.message, ...(error.code === 'ERR_INTERNAL' && { error: error.cause ?? error }) },
      )
      // Load balancers look in every few seconds; nobody wants to read that.
      log[reason === 'probe' ? 'debug' : line.level](line.fields, line.message)
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
  })
  if (started.kind === 'running') return started.running
  for (const issue of started.issues) log.error({}, issue)
  return null
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

function capacity(maxConnections: number | null): Capacity {
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
  const byCount = maxConnections ?? Number.POSITIVE_INFINITY
  const ceiling = Math.min(byDescriptors, byCount)
  return {
    full: (live) => (live < ceiling ? null : byCount <= byDescriptors ? 'connections' : 'descriptors'),
    roomy: (live) => live < Math.max(1, ceiling * ROOMY_SHARE),
  }
}

/** Servers for people and scrapers, then signals, then the drain; resolves with the exit code. */
async function supervise(settings: Settings, log: Log, house: House, announce: () => void): Promise<number> {
  const servers: RunningServer[] = []
  let draining = false
  const { promise: stop, resolve: requestStop } = Promise.withResolvers<void>()
  try {
    servers.push(
      await startMetricsServer({
        ...settings.metrics.bind,
        scrape: () => house.scrape(),
        ready: () =>
          draining
            ? { ready: false, reason: 'draining' }
            : { ready: house.ready(), reason: house.ready() ? null : 'no worker is ready' },
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
          ...(house.status() as object),
        }),
        drain: requestStop,
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
  announce()
  const off = onSignals({
    first: () => requestStop(),
    second: () => {
      house.kill()
      process.exit(1)
    },
  })
  await stop
  log.info({ graceMs: settings.drain.grace }, 'draining')
  let code = 0
  const well = await runSteps(
    shutdownSteps({
      notReady: () => {
        draining = true
      },
      stopAccepting: () => {},
      async endSessions() {
        code = await house.drain(settings.drain.grace)
      },
      async stopServers() {
        await Promise.all(servers.map((server) => server.close()))
      },
    }),
    log,
  )
  off()
  log.info({ code }, 'ended')
  return well ? code : 1
}
