import { dirname, resolve } from 'node:path'
import { adminSocketOf, formatIssue, loadSettings } from '../config/load.ts'
import type { Reloaded } from '../control/reload.ts'
import { ask, complain } from './certs.ts'
import type { Print } from './check.ts'

export interface ReloadOptions {
  readonly file: string
  /** Null: the one that the file names. */
  readonly socket: string | null
  readonly env: NodeJS.ProcessEnv
  readonly print: Print
}

/** Registries may be large, and every worker reads them. */
const TIMEOUT_MS = 60_000

/**
 * `brokergate reload`: exit code 0 once the settings on disk are in force in every process, 1 with all that is wrong with
 * them. The running process reads them, in its own environment: what this one thinks of them counts only where nobody runs.
 */
export async function reload({ file, socket, env, print }: ReloadOptions): Promise<number> {
  const loaded = loadSettings(file, env)
  const path = socket ?? (loaded.kind === 'valid' ? loaded.settings.admin.socket : adminSocketOf(resolve(file)))
  const answer = await ask(path ?? resolve(dirname(file), 'var/admin.sock'), '/reload', 'POST', undefined, TIMEOUT_MS)
  if (answer.kind === 'nobody' && loaded.kind === 'invalid') {
    for (const issue of loaded.issues) print(formatIssue(issue))
  }
  if (answer.kind !== 'answer' || (answer.status !== 200 && answer.status !== 409)) return complain(print, answer)
  // Our own program has answered on its own socket.
  const reloaded = answer.body as Reloaded
  switch (reloaded.kind) {
    case 'done':
      print(`generation ${reloaded.generation} is in force; changed: ${reloaded.changed.join(', ')}`)
      return 0
    case 'unchanged':
      print(`generation ${reloaded.generation} is in force; nothing has changed`)
      return 0
    case 'refused':
      for (const issue of reloaded.issues) print(issue)
      print(`refused; generation ${reloaded.generation} goes on`)
      return 1
    case 'ignored':
      print(`ignored: ${reloaded.why}`)
      return 1
  }
}
