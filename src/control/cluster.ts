import cluster, { type Worker } from 'node:cluster'
import { AggregatorRegistry } from 'prom-client'
import { LAST_WORDS_MS, type ToPrimary, type ToWorker } from './cluster-messages.ts'
import type { WorkerExitReason } from './metrics.ts'
import type { Backoff, Primary, PrimaryOptions } from './primary.ts'
import type { DrainOrder } from './process-drain.ts'
import { Roll } from './rolling.ts'
import { joined, type Snapshot } from './snapshots.ts'

/** A worker that has not answered by then is counted as of its last answer. */
const SCRAPE_DEADLINE_MS = 1_000
/** Between the end of the grace period, when workers end what is left, and the kill. */
const KILL_AFTER_GRACE_MS = 1_000
const READY_DEADLINE_MS = 60_000

/** In the environment of a worker: its place, which the one that replaces it takes over. */
export const WORKER_PLACE = 'BROKERGATE_WORKER_PLACE'

const BACKOFF: Backoff = { firstMs: 100, maxMs: 5_000, stableMs: 5_000 }

interface Member {
  readonly worker: Worker
  readonly slot: number
  readonly forkedAt: number
  /** Resolves with true when it is ready, with false when it ends before. */
  readonly settled: PromiseWithResolvers<boolean>
  readonly gone: PromiseWithResolvers<void>
  ready: boolean
  /** It is to end, and its place has been taken. */
  retiring: boolean
  remaining: number | null
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
  /** Places whose worker has ended and will be replaced. */
  const waiting = new Map<number, NodeJS.Timeout>()
  const quickEnds = new Map<number, number>()
  const everReady = new Set<number>()
  let departed: Snapshot = []
  let requests = 0
  let running: Promise<string> | null = null
  let phase: 'starting' | 'running' | 'draining' | 'ended' = 'starting'
  let endedBadly = false
  let roll: Roll | null = null
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
  const readyCount = () => live().filter((member) => member.ready && !member.retiring).length

  /** The one place where workers come from. */
  function fork(slot: number): Member {
    clearTimeout(waiting.get(slot))
    waiting.delete(slot)
    const worker = cluster.fork({ ...options.env, [WORKER_PLACE]: String(slot) })
    const member: Member = {
      worker,
      slot,
      forkedAt: performance.now(),
      settled: Promise.withResolvers(),
      gone: Promise.withResolvers(),
      ready: false,
      retiring: false,
      remaining: null,
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
    return member
  }

  function heard(member: Member, message: ToPrimary): void {
    switch (message?.brokergate) {
      case 'ready':
        member.ready = true
        member.settled.resolve(true)
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
      case 'left':
        member.remaining = message.remaining
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
    member.settled.resolve(false)
    member.gone.resolve()
    for (const settle of member.pending.values()) settle()
    const stopping = phase === 'draining' || phase === 'ended'
    const reason: WorkerExitReason = member.killed
      ? 'killed'
      : signal
        ? 'signal'
        : (stopping || member.retiring) && code === 0
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
    if (member.retiring) {
      log.info(facts, 'worker ended')
      return
    }
    // Its place has been taken already, or is about to be.
    if (live().some((other) => other.slot === member.slot && !other.retiring)) {
      log.error(facts, wasReady ? 'worker ended; another one has its place' : 'worker ended before it could take over')
      return
    }
    const quick = livedMs < backoff.stableMs ? (quickEnds.get(member.slot) ?? 0) : null
    quickEnds.set(member.slot, quick === null ? 0 : quick + 1)
    const delayMs = quick === null ? 0 : Math.min(backoff.maxMs, backoff.firstMs * 2 ** quick)
    log.error({ ...facts, delayMs }, 'worker ended; it will be replaced')
    waiting.set(
      member.slot,
      setTimeout(() => fork(member.slot), delayMs),
    )
  }

  function stopReplacing(): void {
    for (const timer of waiting.values()) clearTimeout(timer)
    waiting.clear()
  }

  /** Tells one to drain, and kills it a second after its grace period. */
  function retire(member: Member, order: DrainOrder): Promise<void> {
    member.retiring = true
    options.onReadyCount?.(readyCount())
    tell(member, { brokergate: 'drain', order })
    const timer = setTimeout(() => killOne(member), order.graceMs + KILL_AFTER_GRACE_MS)
    return member.gone.promise.finally(() => clearTimeout(timer))
  }

  function killOne(member: Member): void {
    if (member.exited) return
    member.killed = true
    member.worker.process.kill('SIGKILL')
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
    stopReplacing()
    for (const member of live()) killOne(member)
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
        ageMs: Math.round(performance.now() - member.forkedAt),
        ...(phase === 'draining' || member.retiring
          ? ({ state: 'draining', remaining: member.remaining } as const)
          : ({ state: member.ready ? 'ready' : 'starting' } as const)),
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
    async restart(order, prepare = async () => null) {
      roll = new Roll({
        places: options.workers,
        readyDeadlineMs: options.readyDeadlineMs ?? READY_DEADLINE_MS,
        prepare,
        log,
        over: () => phase !== 'running',
        fork(place) {
          const member = fork(place)
          return {
            id: member.worker.id,
            ready: member.settled.promise,
            kill: () => killOne(member),
            // Whoever else is there: the one it is for, be it the first or one that was forked meanwhile.
            retireOthers: async () => {
              const others = live().filter((other) => other.slot === place && other !== member && !other.retiring)
              await Promise.all(others.map((other) => retire(other, order)))
            },
          }
        },
      })
      return await roll.run()
    },
    mayRestart() {
      if (phase !== 'running')
        return phase === 'starting' ? 'the workers are still starting' : 'the instance is draining'
      return roll?.status.state === 'running' ? 'a restart is under way' : null
    },
    get restarting() {
      return roll?.status ?? null
    },
    async drain(order) {
      if (phase === 'starting' || phase === 'running') {
        phase = 'draining'
        endedBadly = false
        stopReplacing()
        const { pacePerSecond } = order
        const own = pacePerSecond === null ? null : pacePerSecond / Math.max(1, live().length)
        for (const member of live()) tell(member, { brokergate: 'drain', order: { ...order, pacePerSecond: own } })
        const timer = setTimeout(kill, order.graceMs + KILL_AFTER_GRACE_MS)
        drained.then(() => clearTimeout(timer))
      }
      if (live().length === 0) settleDrained()
      await drained
      return endedBadly ? 1 : 0
    },
    kill,
  }
}
