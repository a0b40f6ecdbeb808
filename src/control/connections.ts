import type { LiveSession } from '../mqtt/session-contract.ts'

/** One live session, for an operator. */
export interface ConnectionRow {
  readonly id: string
  readonly clientId: string
  readonly principal: string
  readonly domain: string
  /** ISO 8601. */
  readonly connectedAt: string
  /** Its broker is away, and it waits for it. */
  readonly held?: true
}

export interface Listing {
  /** At most `MAX_ROWS` of each process. */
  readonly connections: readonly ConnectionRow[]
  readonly total: number
}

/** Looks at live sessions and ends them, wherever they are. */
export interface Connections {
  list(): Promise<Listing>
  /** Ends the sessions of this client id, as devices know it, with DISCONNECT 0x98. Returns how many there were. */
  kick(clientId: string): Promise<number>
}

/** Of one process: a message over IPC and an answer that people can read stay small. */
const MAX_ROWS = 1_000
/** A worker that has not answered by then is left out. */
const DEADLINE_MS = 1_000

/** What of a session is looked at here. */
export type Shown = Pick<LiveSession, 'id' | 'clientId' | 'principal' | 'domain' | 'connectedAt' | 'held' | 'close'>

/** Those of this process. */
export function ownConnections(sessions: () => Iterable<Shown>): Connections {
  return {
    async list() {
      const all = [...sessions()]
      const connections = all.slice(0, MAX_ROWS).map(({ id, clientId, principal, domain, connectedAt, held }) => ({
        id,
        clientId,
        principal,
        domain,
        connectedAt: new Date(connectedAt).toISOString(),
        ...(held === true && { held }),
      }))
      return { connections, total: all.length }
    },
    async kick(clientId) {
      const found = [...sessions()].filter((session) => session.clientId === clientId)
      for (const session of found) session.close('ERR_ADMINISTRATIVE')
      return found.length
    },
  }
}

type ToWorker = { readonly connections: 'ask'; readonly request: number; readonly kick: string | null }
type ToPrimary = {
  readonly connections: 'answer'
  readonly request: number
  readonly listing: Listing
  readonly kicked: number
}

/** A worker's end: answers the primary. The returned function takes its messages; false when they are for others. */
export function connectionsWorker(own: Connections, send: (message: unknown) => void): (message: unknown) => boolean {
  const answer = async ({ request, kick }: ToWorker): Promise<void> => {
    const kicked = kick === null ? 0 : await own.kick(kick)
    const listing = kick === null ? await own.list() : { connections: [], total: 0 }
    send({ connections: 'answer', request, listing, kicked } satisfies ToPrimary)
  }
  return (message) => {
    const told = message as ToWorker | null
    if (told?.connections !== 'ask') return false
    // Nothing in it waits for anybody, and `send` does not throw.
    void answer(told)
    return true
  }
}

export interface ConnectionsPrimary extends Connections {
  /** Takes the messages of the workers; false when they are for others. */
  heard(message: unknown): boolean
}

/** The primary's end: asks every worker, and joins what comes in time. */
export function connectionsPrimary(
  broadcast: (message: unknown) => void,
  workers: () => number,
  deadlineMs = DEADLINE_MS,
): ConnectionsPrimary {
  const pending = new Map<number, (answer: ToPrimary) => void>()
  let requests = 0
  const ask = (kick: string | null): Promise<readonly ToPrimary[]> => {
    const request = ++requests
    const answers: ToPrimary[] = []
    return new Promise((resolve) => {
      const settle = () => {
        clearTimeout(timer)
        pending.delete(request)
        resolve(answers)
      }
      const timer = setTimeout(settle, deadlineMs)
      pending.set(request, (answer) => {
        answers.push(answer)
        if (answers.length >= workers()) settle()
      })
      if (workers() === 0) settle()
      else broadcast({ connections: 'ask', request, kick } satisfies ToWorker)
    })
  }
  return {
    async list() {
      const listings = (await ask(null)).map(({ listing }) => listing)
      return {
        connections: listings.flatMap(({ connections }) => connections),
        total: listings.reduce((sum, { total }) => sum + total, 0),
      }
    },
    kick: async (clientId) => (await ask(clientId)).reduce((sum, { kicked }) => sum + kicked, 0),
    heard(message) {
      const told = message as ToPrimary | null
      if (told?.connections !== 'answer') return false
      pending.get(told.request)?.(told)
      return true
    },
  }
}
