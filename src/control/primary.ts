import type { Registry } from 'prom-client'
import type { Log } from './log.ts'
import type { WorkerExitReason } from './metrics.ts'
import type { DrainOrder } from './process-drain.ts'
import type { RollResult, RollStatus } from './rolling.ts'

export interface Backoff {
  readonly firstMs: number
  readonly maxMs: number
  /** A worker that lived this long is replaced at once, and the next delay starts over. */
  readonly stableMs: number
}

export interface PrimaryOptions {
  readonly workers: number
  /** Script and arguments of the workers: those of this process unless given. */
  readonly exec?: string
  readonly args?: readonly string[]
  /** Added to the environment of a worker, beside the number of its place among the workers. */
  readonly env?: Readonly<Record<string, string>>
  readonly log: Log
  /** The primary's own metrics, joined with those of the workers. */
  readonly registry: Registry
  readonly spawnBackoff?: Backoff
  /** For a worker of a rolling restart to become ready, in milliseconds; a minute unless given. */
  readonly readyDeadlineMs?: number
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
  /** Of a worker that drains: connections that have not ended yet; null before it has said so. */
  readonly remaining?: number | null
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
  /**
   * Asks the workers to drain, kills those left a second after the grace period; 0 if all ended well, else 1. The pace
   * is that of all together.
   */
  drain(order: DrainOrder): Promise<number>
  /**
   * Replaces the workers one after the other: forks, waits until the new one is ready, then drains the old one. The
   * first new one that does not become ready ends it, and the old ones go on. What `prepare` says against it does, too.
   */
  restart(order: DrainOrder, prepare?: () => Promise<string | null>): Promise<RollResult>
  /** Why `restart` cannot be called now; null when it can. */
  mayRestart(): string | null
  /** The restart that is under way, or how the last one ended; null: there was none. */
  readonly restarting: RollStatus | null
  /** Kills the workers now. */
  kill(): void
}
