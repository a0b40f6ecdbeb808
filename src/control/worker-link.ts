import cluster from 'node:cluster'
import type { Registry } from 'prom-client'
import { LAST_WORDS_MS, type ToPrimary, type ToWorker } from './cluster-messages.ts'
import type { Log } from './log.ts'
import type { DrainOrder } from './process-drain.ts'
import type { Snapshot } from './snapshots.ts'

export interface WorkerLinkOptions {
  readonly registry: Registry
  readonly log: Log
  /** Lets sessions end within the grace period; this process exits when it resolves. */
  readonly onDrain: (order: DrainOrder) => Promise<void>
  /** Last chance, synchronously, when the primary is gone: nobody would replace this process or share its sockets. */
  readonly onOrphaned?: () => void
  /** What the primary sent with `broadcast`. */
  readonly onMessage?: (data: unknown) => void
}

export interface WorkerLink {
  readonly id: number
  /** Tells the primary that this worker accepts. */
  ready(): void
  /** Of a drain: connections that have not ended yet. */
  left(remaining: number): void
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
  process.on('SIGUSR2', () => {})

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
          await options.onDrain(message.order)
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
    left: (remaining) => send({ brokergate: 'left', remaining }),
    send: (data) => send({ brokergate: 'message', data }),
    exit,
  }
}
