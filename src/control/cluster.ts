import cluster, { type Worker } from 'node:cluster'
import { AggregatorRegistry, type MetricObjectWithValues, type MetricValue, type Registry } from 'prom-client'
import type { Log } from './log.ts'
import type { WorkerExitReason } from './metrics.ts'

/** `metricName` tells `_bucket`, `_sum` and `_count` of a histogram apart; prom-client's types lack it. */
type Sample = MetricValue<string> & { metricName?: string }
/** What a registry tells of itself; goes over IPC as JSON. */
type Snapshot = MetricObjectWithValues<Sample>[]

type ToWorker =
  | { readonly brokergate: 'scrape'; readonly request: number }
  | { readonly brokergate: 'drain'; readonly graceMs: number }
  | { readonly brokergate: 'message'; readonly data: unknown }

type ToPrimary =
  | { readonly brokergate: 'ready' }
  | { readonly brokergate: 'snapshot'; readonly request: number | null; readonly snapshot: Snapshot }
  | { readonly brokergate: 'message'; readonly data: unknown }

/** A worker that has not answered by then is counted as of its last answer. */
const SCRAPE_DEADLINE_MS = 1_000
/** Between the end of the grace period, when workers end what is left, and the kill. */
const KILL_AFTER_GRACE_MS = 1_000
/** For the last messages of a worker that is already gone. */
const LAST_WORDS_MS = 500

export interface Backoff {
  readonly firstMs: number
  readonly maxMs: number
  /** A worker that lived this long is replaced at once, and the next delay starts over. */
  readonly stableMs: number
}

const BACKOFF: Backoff = { firstMs: 100, maxMs: 5_000, stableMs: 5_000 }

export interface PrimaryOptions {
  readonly workers: number
  /** Script and arguments of the workers: those of this process unless given. */
  readonly exec?: string
  readonly args?: readonly string[]
  /** Added to the environment of the workers. */
  readonly env?: Readonly<Record<string, string>>
  readonly log: Log
  /** The primary's own metrics, joined with those of the workers. */
  readonly registry: Registry
  readonly spawnBackoff?: Backoff
  readonly onWorkerExit?: (reason: WorkerExitReason, workerId: number) => void
  readonly onReadyCount?: (count: number) => void
  /** What a worker sent with `WorkerLink.send`. */
  readonly onMessage?: (data: unknown, workerId: number) => void
}

export interface WorkerStatus {
  readonly id: number
  readonly pid: number
  readonly state: 'starting' | 'ready' | 'draining'
  /** Since its fork. */
  readonly ageMs: number
}

export interface Primary {
  /**
   * Resolves when every worker has been ready once. Rejects when one ends before that: what it could not do
   * (bind, read its files), its replacement could not do either; the others are killed and none is replaced.
   * Stays open when a drain came first.
   */
  readonly started: Promise<void>
  readonly readyCount: number
  status(): readonly WorkerStatus[]
  /** The metrics of all processes as one, in the Prometheus text format. Counters never go back when a worker ends. */
  scrape(): Promise<string>
  /** To every live worker's `onMessage`. */
  broadcast(data: unknown): void
  /** To the `onMessage` of one; nothing happens when it is gone. */
  tell(workerId: number, data: unknown): void
  /** Asks the workers to drain, kills those left a second after the grace period; 0 if all ended well, else 1. */
  drain(graceMs: number): Promise<number>
  /** Kills the workers now. */
  kill(): void
}

interface Member {
  readonly worker: Worker
  readonly slot: number
  readonly forkedAt: number
  ready: boolean
  killed: boolean
  exited: boolean
  /** Last known; null until it answered once. */
  snapshot: Snapshot | null
  readonly pending: Map<number, () => void>
}

/** Forks the workers and keeps their number. There is one primary in a process. */
export function runPrimary(options: PrimaryOptions): Primary {
  const { log } = options
  const backoff = options.spawnBackoff ?? BACKOFF
  const members = new Set<Member>()
  const waiting = new Set<NodeJS.Timeout>()
  const quickEnds = new Map<number, number>()
  const everReady = new Set<number>()
  let departed: Snapshot = []
  let requests = 0
  let running: Promise<string> | null = null
  let phase: 'starting' | 'running' | 'draining' | 'ended' = 'starting'
  let endedBadly = false
  const { promise: started, resolve: settleStarted, reject: failStarted } = Promise.withResolvers<void>()
  const { promise: drained, resolve: settleDrained } = Promise.withResolvers<void>()
  // Whoever does not wait for `started` must not be ended by its rejection.
  started.catch(() => {})

  // One listening socket that all workers accept from: the primary touches no connection.
  cluster.schedulingPolicy = cluster.SCHED_NONE
  cluster.setupPrimary({
    ...(options.exec !== undefined && { exec: options.exec }),
    ...(options.args !== undefined && { args: [...options.args] }),
  })

  const live = () => Array.from(members).filter((member) => !member.exited)
  const readyCount = () => live().filter((member) => member.ready).length

  function fork(slot: number): void {
    const worker = cluster.fork(options.env)
    const member: Member = {
      worker,
      slot,
      forkedAt: performance.now(),
      ready: false,
      killed: false,
      exited: false,
      snapshot: null,
      pending: new Map(),
    }
    members.add(member)
    worker.on('message', (message: ToPrimary) => heard(member, message))
    worker.on('error', (error) => {
      log.warn({ workerId: worker.id, error }, 'trouble with a worker')
      // What could not be started at all never exits.
      if (worker.process.pid === undefined && !member.exited) ended(member, null, null)
    })
    worker.on('exit', (code, signal) => ended(member, code, signal))
    log.debug({ workerId: worker.id, workerPid: worker.process.pid }, 'worker started')
  }

  function heard(member: Member, message: ToPrimary): void {
    switch (message?.brokergate) {
      case 'ready':
        member.ready = true
        everReady.add(member.slot)
        options.onReadyCount?.(readyCount())
        log.info({ workerId: member.worker.id, workerPid: member.worker.process.pid }, 'worker ready')
        if (phase === 'starting' && everReady.size === options.workers) {
          phase = 'running'
          settleStarted()
        }
        break
      case 'snapshot':
        member.snapshot = message.snapshot
        if (message.request !== null) member.pending.get(message.request)?.()
        break
      case 'message':
        options.onMessage?.(message.data, member.worker.id)
        break
    }
  }

  function ended(member: Member, code: number | null, signal: string | null): void {
    const { worker } = member
    const livedMs = performance.now() - member.forkedAt
    const wasReady = member.ready
    member.exited = true
    member.ready = false
    for (const settle of member.pending.values()) settle()
    const stopping = phase === 'draining' || phase === 'ended'
    const reason: WorkerExitReason = member.killed
      ? 'killed'
      : signal
        ? 'signal'
        : stopping && code === 0
          ? 'drained'
          : 'exit'
    if (reason !== 'drained') endedBadly = true
    options.onWorkerExit?.(reason, worker.id)
    options.onReadyCount?.(readyCount())
    bury(member)

    const facts = {
      workerId: worker.id,
      workerPid: worker.process.pid,
      reason,
      code,
      signal,
      livedMs: Math.round(livedMs),
    }
    if (stopping) {
      log.info(facts, 'worker ended')
      if (live().length === 0) settleDrained()
      return
    }
    if (phase === 'starting' && !wasReady && !everReady.has(member.slot)) {
      log.error(facts, 'worker ended before it was ready')
      phase = 'ended'
      kill()
      failStarted(new Error(`worker ${worker.id} ended before it was ready (${signal ?? `exit code ${code}`})`))
      return
    }
    const quick = livedMs < backoff.stableMs ? (quickEnds.get(member.slot) ?? 0) : null
    quickEnds.set(member.slot, quick === null ? 0 : quick + 1)
    const delayMs = quick === null ? 0 : Math.min(backoff.maxMs, backoff.firstMs * 2 ** quick)
    log.error({ ...facts, delayMs }, 'worker ended; it will be replaced')
    const timer = setTimeout(() => {
      waiting.delete(timer)
      fork(member.slot)
    }, delayMs)
    waiting.add(timer)
  }

  /** Moves what a worker counted to the departed, after its last words: `exit` may overtake them. */
  function bury(member: Member): void {
    let buried = false
    const now = () => {
      if (buried) return
      buried = true
      clearTimeout(timer)
      members.delete(member)
      const counted = (member.snapshot ?? []).filter(
        ({ type }) => String(type) === 'counter' || String(type) === 'histogram',
      )
      if (counted.length > 0) departed = joined([departed, counted])
    }
    const timer = setTimeout(now, LAST_WORDS_MS)
    timer.unref()
    if (member.worker.isConnected()) member.worker.once('disconnect', () => setImmediate(now))
    else setImmediate(now)
  }

  function tell(member: Member, message: ToWorker): void {
    if (member.exited || !member.worker.isConnected()) return
    // The callback takes the error of a worker that dies meanwhile; its exit tells us all we need.
    member.worker.send(message, () => {})
  }

  function ask(member: Member): Promise<void> {
    const request = ++requests
    return new Promise((resolve) => {
      const settle = () => {
        clearTimeout(timer)
        member.pending.delete(request)
        resolve()
      }
      const timer = setTimeout(settle, SCRAPE_DEADLINE_MS)
      member.pending.set(request, settle)
      tell(member, { brokergate: 'scrape', request })
    })
  }

  async function scrape(): Promise<string> {
    await Promise.all(live().map(ask))
    const own = await options.registry.getMetricsAsJSON()
    // From here to the join nothing waits, so a worker is counted among the members or the departed, never in both.
    const snapshots = Array.from(members).flatMap(({ snapshot, exited }) =>
      snapshot === null ? [] : [exited ? snapshot.filter(({ type }) => String(type) !== 'gauge') : snapshot],
    )
    return await AggregatorRegistry.aggregate([own, departed, ...snapshots]).metrics()
  }

  function kill(): void {
    phase = 'ended'
    for (const timer of waiting) clearTimeout(timer)
    waiting.clear()
    for (const member of live()) {
      member.killed = true
      member.worker.process.kill('SIGKILL')
    }
  }

  for (let slot = 0; slot < options.workers; slot++) fork(slot)

  return {
    started,
    get readyCount() {
      return readyCount()
    },
    status: () =>
      live().map((member) => ({
        id: member.worker.id,
        pid: member.worker.process.pid ?? 0,
        state: phase === 'draining' ? 'draining' : member.ready ? 'ready' : 'starting',
        ageMs: Math.round(performance.now() - member.forkedAt),
      })),
    scrape() {
      running ??= scrape().finally(() => {
        running = null
      })
      return running
    },
    tell(workerId, data) {
      for (const member of members) {
        if (member.worker.id === workerId) tell(member, { brokergate: 'message', data })
      }
    },
    broadcast(data) {
      for (const member of live()) tell(member, { brokergate: 'message', data })
    },
    async drain(graceMs) {
      if (phase === 'starting' || phase === 'running') {
        phase = 'draining'
        endedBadly = false
        for (const timer of waiting) clearTimeout(timer)
        waiting.clear()
        for (const member of live()) tell(member, { brokergate: 'drain', graceMs })
        const timer = setTimeout(kill, graceMs + KILL_AFTER_GRACE_MS)
        drained.then(() => clearTimeout(timer))
      }
      if (live().length === 0) settleDrained()
      await drained
      return endedBadly ? 1 : 0
    },
    kill,
  }
}

/** The sum of snapshots. Not prom-client's `aggregate`, whose result can only be read asynchronously: see `scrape`. */
function joined(snapshots: readonly Snapshot[]): Snapshot {
  const byName = new Map<string, MetricObjectWithValues<Sample>>()
  for (const metric of snapshots.flat()) {
    const known = byName.get(metric.name)
    if (known === undefined) {
      byName.set(metric.name, { ...metric, values: metric.values.map((value) => ({ ...value })) })
      continue
    }
    const byLabels = new Map(known.values.map((value) => [keyOf(value), value]))
    for (const value of metric.values) {
      const same = byLabels.get(keyOf(value))
      if (same === undefined) known.values.push({ ...value })
      else same.value += value.value
    }
  }
  return Array.from(byName.values())
}

function keyOf(value: Sample): string {
  const labels = Object.entries(value.labels).sort(([left], [right]) => (left < right ? -1 : 1))
  return JSON.stringify([value.metricName ?? null, labels])
}

export interface WorkerLinkOptions {
  readonly registry: Registry
  readonly log: Log
  /** Lets sessions end within the grace period; this process exits when it resolves. */
  readonly onDrain: (graceMs: number) => Promise<void>
  /** Last chance, synchronously, when the primary is gone: nobody would replace this process or share its sockets. */
  readonly onOrphaned?: () => void
  /** What the primary sent with `broadcast`. */
  readonly onMessage?: (data: unknown) => void
}

export interface WorkerLink {
  readonly id: number
  /** Tells the primary that this worker accepts. */
  ready(): void
  /** To the primary's `onMessage`. */
  send(data: unknown): void
  /** Sends the last counts and ends the process. */
  exit(code: number): Promise<never>
}

/** The worker's end. It follows the primary only: what a terminal sends to the process group is not for it. */
export function workerLink(options: WorkerLinkOptions): WorkerLink {
  const { worker } = cluster
  if (worker === undefined) throw new Error('not a worker process')
  process.on('SIGINT', () => {})
  process.on('SIGTERM', () => {})

  const send = (message: ToPrimary, sent?: () => void) => {
    if (process.connected) process.send?.(message, undefined, undefined, () => sent?.())
    else sent?.()
  }
  const exit = async (code: number): Promise<never> => {
    const snapshot = (await options.registry.getMetricsAsJSON()) as Snapshot
    await new Promise<void>((resolve) => {
      setTimeout(resolve, LAST_WORDS_MS)
      send({ brokergate: 'snapshot', request: null, snapshot }, resolve)
    })
    process.exit(code)
  }

  let draining = false
  process.on('message', async (message: ToWorker) => {
    switch (message?.brokergate) {
      case 'scrape': {
        const snapshot = (await options.registry.getMetricsAsJSON()) as Snapshot
        send({ brokergate: 'snapshot', request: message.request, snapshot })
        break
      }
      case 'drain': {
        if (draining) return
        draining = true
        let code = 0
        try {
          await options.onDrain(message.graceMs)
        } catch (error) {
          code = 1
          options.log.error({ error }, 'drain failed')
        }
        await exit(code)
        break
      }
      case 'message':
        options.onMessage?.(message.data)
        break
    }
  })
  // A message cut short by the end of the primary; `disconnect` follows and decides.
  worker.on('error', () => {})
  // `node:cluster` would exit with 0 here by itself; an orphan has not ended well.
  worker.on('disconnect', () => {
    options.onOrphaned?.()
    process.exit(1)
  })

  return {
    id: worker.id,
    ready: () => send({ brokergate: 'ready' }),
    send: (data) => send({ brokergate: 'message', data }),
    exit,
  }
}
