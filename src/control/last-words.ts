import type { ProcessLog } from './log.ts'

const KINDS = ['uncaughtException', 'unhandledRejection'] as const

/**
 * An error that nobody caught ends the process: what it has left undone is not known, and a gate must not stand half
 * open. It ends with one line in the log and exit code 1, so that whoever supervises it (the primary, systemd, a kubelet)
 * starts another. Both runtimes would end it, too, but in a text of their own that no log collector takes for a line of
 * ours, and without the lines that still wait to be written.
 */
export function endOnFault(log: ProcessLog, exit: (code: number) => void = process.exit): void {
  let ending = false
  for (const kind of KINDS) {
    process.on(kind, (error: unknown) => {
      // A fault while this one is told must not begin it again.
      if (ending) return
      ending = true
      try {
        log.error({ event: 'fault', error }, `ended by a fault of this program: ${kind}`)
        log.written().finally(() => {
          log.flush()
          exit(1)
        })
      } catch {
        exit(1)
      }
    })
  }
}
