import type { DrainedServer, DrainedServers } from '../backend/drained.ts'
import type { ServerDrainStatus } from './server-drains.ts'

// The primary decides what is drained and tells its workers, those too that come later; they tell what is still there.

type ToWorker = { readonly drained: 'list'; readonly list: readonly DrainedServer[] }
type ToPrimary =
  | { readonly drained: 'ask' }
  | { readonly drained: 'status'; readonly status: readonly ServerDrainStatus[] }

/** For the primary to say what is drained, before a worker accepts. */
const ANSWER_MS = 2_000
const STATUS_EVERY_MS = 1_000

export interface DrainedLink {
  /** Resolves once the primary has said what is drained, or has not in time. */
  readonly known: Promise<void>
  /** Takes the messages of the primary; false when they are for others. */
  heard(message: unknown): boolean
}

/** A worker's end. */
export function drainedLink(
  drained: DrainedServers,
  status: () => readonly ServerDrainStatus[],
  send: (message: unknown) => void,
  answerMs = ANSWER_MS,
): DrainedLink {
  const { promise: known, resolve } = Promise.withResolvers<void>()
  const tell = (message: ToPrimary): void => send(message)
  setTimeout(resolve, answerMs).unref()
  tell({ drained: 'ask' })
  const timer = setInterval(() => {
    if (drained.list.length > 0) tell({ drained: 'status', status: status() })
  }, STATUS_EVERY_MS)
  timer.unref()
  return {
    known,
    heard(message) {
      const told = message as ToWorker | null
      if (told?.drained !== 'list') return false
      drained.replace(told.list)
      resolve()
      return true
    },
  }
}

export interface DrainedPrimary {
  /** Takes the messages of the workers; false when they are for others. */
  heard(message: unknown, workerId: number): boolean
  /** The worker is gone, and its sessions with it. */
  ended(workerId: number): void
  /** Of all workers, as they said last. */
  status(list: readonly DrainedServer[]): readonly ServerDrainStatus[]
}

/** The primary's end. */
export function drainedPrimary(
  list: () => readonly DrainedServer[],
  tell: (workerId: number, message: unknown) => void,
): DrainedPrimary {
  const said = new Map<number, readonly ServerDrainStatus[]>()
  return {
    heard(message, workerId) {
      const told = message as ToPrimary | null
      if (told?.drained === 'ask') tell(workerId, { drained: 'list', list: list() } satisfies ToWorker)
      else if (told?.drained === 'status') said.set(workerId, told.status)
      else return false
      return true
    },
    ended: (workerId) => void said.delete(workerId),
    status: (drained) =>
      drained.map((one) => ({
        ...one,
        sessions: [...said.values()]
          .flat()
          .filter(({ backend, server }) => backend === one.backend && server === one.server)
          .reduce((sum, { sessions }) => sum + sessions, 0),
      })),
  }
}

/** What the primary says to all when the list has changed. */
export const drainedNotice = (list: readonly DrainedServer[]): unknown => ({ drained: 'list', list }) satisfies ToWorker
