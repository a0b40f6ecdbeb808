import type { Log } from './log.ts'

/** One thing to do at a shutdown; the next one waits for it. */
export interface Step {
  readonly name: string
  run(): void | Promise<void>
}

export interface ShutdownParts {
  /** From here `/readyz` answers 503, so that load balancers stop sending. */
  readonly notReady: () => void
  /** Waits until load balancers have seen it; nothing to wait for unless given. */
  readonly settle?: () => Promise<void>
  /** Closes the listeners; live connections stay. */
  readonly stopAccepting: () => void | Promise<void>
  /** Lets sessions end, then ends them; resolves when none is left or the grace period is over. */
  readonly endSessions: () => Promise<void>
  /** Metrics and admin last, so that the drain itself can be watched. */
  readonly stopServers: () => void | Promise<void>
}

/** The order of a shutdown. */
export function shutdownSteps(parts: ShutdownParts): readonly Step[] {
  return [
    { name: 'not ready', run: parts.notReady },
    ...(parts.settle === undefined ? [] : [{ name: 'settle', run: parts.settle }]),
    { name: 'stop accepting', run: parts.stopAccepting },
    { name: 'end sessions', run: parts.endSessions },
    { name: 'stop servers', run: parts.stopServers },
  ]
}

/** Runs every step in order, also after one has failed: a shutdown is not stopped by its own trouble. True if all went well. */
export async function runSteps(steps: readonly Step[], log: Log): Promise<boolean> {
  let well = true
  for (const step of steps) {
    const startedAt = performance.now()
    try {
      await step.run()
      log.debug({ step: step.name, durationMs: Math.round(performance.now() - startedAt) }, 'shutdown step done')
    } catch (error) {
      well = false
      log.error({ step: step.name, error }, 'shutdown step failed')
    }
  }
  return well
}

/** Calls back at every SIGUSR2, which would otherwise end the process; the result stops that. */
export function onRestartSignal(restart: () => void): () => void {
  process.on('SIGUSR2', restart)
  return () => process.off('SIGUSR2', restart)
}

export type StopSignal = 'SIGTERM' | 'SIGINT'

export interface SignalOptions {
  /** Drain. */
  readonly first: (signal: StopSignal) => void
  /** Exit at once. */
  readonly second: (signal: StopSignal) => void
}

/**
 * A terminal sends SIGINT to the whole process group, and `npm start` passes on its own: one Ctrl-C arrives twice
 * within a few milliseconds. Two that a person means are further apart than this.
 */
const ONE_CTRL_C_MS = 200

/** Listens for SIGTERM and SIGINT; the result stops listening. */
export function onSignals(options: SignalOptions): () => void {
  let seen = 0
  let firstAt = 0
  const heard = (signal: StopSignal) => {
    const now = performance.now()
    if (seen === 0) {
      seen = 1
      firstAt = now
      options.first(signal)
    } else if (signal === 'SIGTERM' || now - firstAt > ONE_CTRL_C_MS) {
      seen += 1
      options.second(signal)
    }
  }
  const onTerminate = () => heard('SIGTERM')
  const onInterrupt = () => heard('SIGINT')
  process.on('SIGTERM', onTerminate)
  process.on('SIGINT', onInterrupt)
  return () => {
    process.off('SIGTERM', onTerminate)
    process.off('SIGINT', onInterrupt)
  }
}
