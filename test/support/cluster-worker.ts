import cluster from 'node:cluster'
import { createServer } from 'node:net'
import { createInterface } from 'node:readline'
import { runPrimary } from '../../src/control/cluster.ts'
import { onSignals } from '../../src/control/drain.ts'
import type { Log } from '../../src/control/log.ts'
import type { DrainOrder } from '../../src/control/process-drain.ts'
import { createMetrics } from '../../src/control/prometheus.ts'
import { workerLink } from '../../src/control/worker-link.ts'

// A primary that does what the lines of its standard input say, and its workers. Everything that happens is one JSON
// line on standard output. Settings come in the environment: WORKERS, and BEHAVIOR of the workers.

const tell = (line: Record<string, unknown>) => process.stdout.write(`${JSON.stringify(line)}\n`)
const orderOf = (graceMs: string | undefined): DrainOrder => ({
  graceMs: Number(graceMs),
  pacePerSecond: null,
  serverReference: null,
  newcomers: 'served',
})
const write = (level: string) => (fields: object, message: string) => tell({ event: 'log', level, message, ...fields })
const log: Log = { debug: write('debug'), info: write('info'), warn: write('warn'), error: write('error') }

if (cluster.isPrimary) primary()
else worker()

function primary(): void {
  // What workers are started with.
  if (process.env.RUNTIME !== undefined) process.execPath = process.env.RUNTIME
  const { registry, supervision } = createMetrics({ version: 'test' })
  const running = runPrimary({
    workers: Number(process.env.WORKERS),
    exec: import.meta.filename,
    log,
    registry,
    onWorkerExit: supervision.workerExited,
    onReadyCount: supervision.workers,
    onMessage: (data) => tell({ event: 'message', data }),
    ...(process.env.READY_DEADLINE !== undefined && { readyDeadlineMs: Number(process.env.READY_DEADLINE) }),
    ...(process.env.BACKOFF !== undefined && { spawnBackoff: JSON.parse(process.env.BACKOFF) }),
  })
  running.started.then(
    () => tell({ event: 'started' }),
    (error: Error) => tell({ event: 'not-started', message: error.message }),
  )
  onSignals({
    first: (signal) => tell({ event: 'signal', signal, order: 'first' }),
    second: (signal) => tell({ event: 'signal', signal, order: 'second' }),
  })
  createInterface({ input: process.stdin }).on('line', async (line) => {
    const [command, argument] = line.split(' ')
    if (command === 'scrape') tell({ event: 'scrape', text: await running.scrape() })
    if (command === 'status') tell({ event: 'status', workers: running.status(), readyCount: running.readyCount })
    if (command === 'broadcast') running.broadcast(argument)
    if (command === 'drain') process.exit(await running.drain(orderOf(argument)))
    if (command === 'restart') tell({ event: 'restart', ...(await running.restart(orderOf(argument))) })
  })
}

function worker(): void {
  // LATER is of those that come after the first ones.
  const isFirst = Number(cluster.worker?.id) <= Number(process.env.WORKERS)
  const behavior = isFirst ? process.env.BEHAVIOR : (process.env.LATER ?? process.env.BEHAVIOR)
  if (behavior === 'fail-to-start') process.exit(9)
  const { metrics, registry } = createMetrics({ version: 'test' })
  const server = createServer((socket) => {
    metrics.accepted(8883)
    socket.on('error', () => {})
    socket.end(String(process.pid))
  })
  const link = workerLink({
    registry,
    log,
    onDrain: () => {
      tell({ event: 'draining', pid: process.pid })
      if (behavior === 'never-drain') return new Promise(() => setInterval(() => {}, 1_000))
      return new Promise<void>((resolve) => server.close(() => resolve()))
    },
    onOrphaned: () => {},
    onMessage: (data) => {
      if (data === 'block') {
        link.send('blocking')
        // The message leaves before the loop stands still, and nothing is read in between.
        setImmediate(() => {
          const until = performance.now() + 4_000
          while (performance.now() < until);
        })
      } else link.send(data)
    },
  })
  if (behavior === 'never-ready') return void setInterval(() => {}, 1_000)
  if (behavior === 'slow-start') {
    tell({ event: 'starting-slowly', pid: process.pid })
    setTimeout(listen, 1_500)
  } else listen()

  function listen(): void {
    server.listen(0, '127.0.0.1', () => {
      const address = server.address()
      tell({ event: 'listening', pid: process.pid, port: typeof address === 'object' ? address?.port : null })
      link.ready()
      if (behavior === 'crash-when-ready') {
        metrics.accepted(8883)
        void link.exit(7)
      }
    })
  }
}
