import type { WorkerStatus } from '../control/primary.ts'
import type { RollStatus } from '../control/rolling.ts'
import type { ServerDrainStatus } from '../control/server-drains.ts'
import { ask, type CertsOptions, complain, settingsOf } from './certs.ts'

/** What `GET /status` tells, as far as the commands look at it. */
interface Status {
  readonly version: string
  readonly runtime: string
  readonly draining: boolean
  readonly workers: readonly WorkerStatus[]
  readonly connections?: number
  readonly sessions?: number
  readonly restart: RollStatus | null
  readonly drained: readonly ServerDrainStatus[]
}

/** `brokergate status`: how the running process is. */
export async function status(options: CertsOptions & { readonly json: boolean }): Promise<number> {
  const settings = settingsOf(options)
  if (settings === null) return 1
  const answer = await ask(settings.admin.socket, '/status', 'GET')
  if (answer.kind !== 'answer' || answer.status !== 200) return complain(options.print, answer)
  if (options.json) options.print(JSON.stringify(answer.body))
  // Our own program has answered on its own socket.
  else for (const line of statusLines(answer.body as Status)) options.print(line)
  return 0
}

export function statusLines(now: Status): readonly string[] {
  const lines = [`brokergate ${now.version} on ${now.runtime}${now.draining ? ', draining' : ''}`]
  if (now.connections !== undefined) lines.push(`${now.connections} connections, ${now.sessions ?? 0} sessions`)
  for (const { id, pid, state, ageMs, remaining } of now.workers) {
    const left = typeof remaining === 'number' ? `, ${remaining} connections left` : ''
    lines.push(`worker ${id}  pid ${pid}  ${state}${left}  ${Math.round(ageMs / 1_000)} s old`)
  }
  if (now.restart !== null) lines.push(rollLine(now.restart))
  for (const { backend, server, sessions } of now.drained) {
    lines.push(`drained: ${backend} ${server}, ${sessions} sessions left`)
  }
  return lines
}

const rollLine = ({ state, replaced, of, reason }: RollStatus): string =>
  `restart ${state}: ${replaced} of ${of} workers replaced${reason === null ? '' : `; ${reason}`}`

export interface DrainCommand extends CertsOptions {
  /** Null with `server`: the whole instance. */
  readonly backend: string | null
  readonly server: string | null
  readonly undo: boolean
}

/** `brokergate drain`: begins the end of the running process, or empties one server of a backend. */
export async function drain(options: DrainCommand): Promise<number> {
  const { backend, server, undo, print } = options
  if ((backend === null) !== (server === null) || (undo && backend === null)) {
    print('--backend and --server go together, and --undo with them')
    return 1
  }
  const settings = settingsOf(options)
  if (settings === null) return 1
  const body = backend === null ? undefined : { backend, server, undo }
  const answer = await ask(settings.admin.socket, '/drain', 'POST', body)
  if (answer.kind !== 'answer' || answer.status > 202) return complain(print, answer)
  if (backend === null) {
    print('draining; brokergate ends when it is done')
    return 0
  }
  const { warning } = answer.body as { readonly warning: string | null }
  if (warning !== null) print(`warning: ${warning}`)
  print(undo ? `${backend} ${server} gets connections again` : `${backend} ${server} gets no new connections`)
  return 0
}

export interface RestartCommand extends CertsOptions {
  /** Between two looks at how far it is, in milliseconds. */
  readonly lookMs?: number
}

/** `brokergate restart`: replaces the workers one after the other; exit code 0 when all have been. */
export async function restart(options: RestartCommand): Promise<number> {
  const { print, lookMs = 500 } = options
  const settings = settingsOf(options)
  if (settings === null) return 1
  const { socket } = settings.admin
  const begun = await ask(socket, '/restart', 'POST')
  if (begun.kind !== 'answer' || begun.status !== 202) return complain(print, begun)
  let said = ''
  for (;;) {
    const answer = await ask(socket, '/status', 'GET')
    if (answer.kind !== 'answer' || answer.status !== 200) return complain(print, answer)
    const roll = (answer.body as Status).restart
    if (roll === null) return complain(print, { kind: 'failed', message: 'the running process knows of no restart' })
    const line = rollLine(roll)
    if (line !== said) print(line)
    said = line
    if (roll.state !== 'running') return roll.state === 'done' ? 0 : 1
    await new Promise((resolve) => setTimeout(resolve, lookMs))
  }
}
