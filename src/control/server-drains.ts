import type { DrainedServer, DrainedServers } from '../backend/drained.ts'
import type { LiveSession } from '../mqtt/session-contract.ts'
import { type Clock, farewell, REAL_CLOCK } from './farewell.ts'
import type { Log } from './log.ts'
import type { MetricsParts } from './metrics.ts'
import { logPace } from './process-drain.ts'

/** How the sessions of a drained server are told to go. */
export interface ServerDrainOrder {
  readonly graceMs: number
  /** Farewells a second of this process; null spreads them over the time there is. */
  readonly pacePerSecond: number | null
}

/** What an operator sees of one drained server. */
export interface ServerDrainStatus extends DrainedServer {
  /** Sessions that are still on it. */
  readonly sessions: number
}

export type ServerDrainAnswer =
  | { readonly kind: 'done'; readonly drained: readonly DrainedServer[]; readonly warning: string | null }
  | { readonly kind: 'refused'; readonly reason: string }

/** Decides what is drained, for all processes. */
export class ServerDrains {
  #list: readonly DrainedServer[] = []
  readonly #servers: () => ReadonlyMap<string, readonly string[]>
  readonly #changed: (list: readonly DrainedServer[]) => void

  /** @param servers of each backend, by the names they are called here */
  constructor(
    servers: () => ReadonlyMap<string, readonly string[]>,
    changed: (list: readonly DrainedServer[]) => void,
  ) {
    this.#servers = servers
    this.#changed = changed
  }

  get list(): readonly DrainedServer[] {
    return this.#list
  }

  drain(backend: string, server: string): ServerDrainAnswer {
    const unknown = this.#unknown(backend, server)
    if (unknown !== null) return { kind: 'refused', reason: unknown }
    if (!this.#has(backend, server)) this.#replace([...this.#list, { backend, server }])
    const left = this.#servers()
      .get(backend)!
      .filter((one) => !this.#has(backend, one))
    const warning =
      left.length > 0 ? null : `backend ${backend} has no other server: devices are refused until one is back`
    return { kind: 'done', drained: this.#list, warning }
  }

  undo(backend: string, server: string): ServerDrainAnswer {
    // Settings may have lost a server since it was drained.
    if (!this.#has(backend, server)) {
      const names = this.#list.map((one) => `${one.backend} ${one.server}`).join(', ') || 'none'
      return { kind: 'refused', reason: `${backend} ${server} is not drained; these are: ${names}` }
    }
    this.#replace(this.#list.filter((one) => one.backend !== backend || one.server !== server))
    return { kind: 'done', drained: this.#list, warning: null }
  }

  #has(backend: string, server: string): boolean {
    return this.#list.some((one) => one.backend === backend && one.server === server)
  }

  #replace(list: readonly DrainedServer[]): void {
    this.#list = list
    this.#changed(list)
  }

  #unknown(backend: string, server: string): string | null {
    const known = this.#servers()
    const servers = known.get(backend)
    if (servers === undefined) return `no backend ${backend}; there are: ${[...known.keys()].join(', ')}`
    if (servers.includes(server)) return null
    return servers.length === 0
      ? `backend ${backend} has no servers to choose from`
      : `backend ${backend} has no server ${server}; there are: ${servers.join(', ')}`
  }
}

export interface EmptierOptions {
  readonly drained: DrainedServers
  readonly sessions: () => Iterable<LiveSession>
  readonly backends: () => readonly string[]
  /** By the settings of now. */
  readonly order: () => ServerDrainOrder
  readonly drains: MetricsParts['drains']
  readonly log: Log
  readonly clock?: Clock
}

/** A session whose broker was dialled when its server was drained is there a moment later. */
const LOOK_AGAIN_MS = 1_000

/** Ends the sessions of drained servers in this process, those too that come to one a moment later. */
export class Emptier {
  readonly #options: EmptierOptions
  /** Servers whose sessions are being told, by backend and server. */
  readonly #running = new Map<string, AbortController>()
  readonly #forget: () => void
  #timer: NodeJS.Timeout | null = null

  constructor(options: EmptierOptions) {
    this.#options = options
    this.#forget = options.drained.onChange(() => this.#look())
    this.#look()
  }

  /** Sessions on each drained server. */
  get status(): readonly ServerDrainStatus[] {
    return this.#options.drained.list.map((one) => ({ ...one, sessions: this.#on(one).length }))
  }

  close(): void {
    this.#forget()
    if (this.#timer !== null) clearInterval(this.#timer)
    for (const running of this.#running.values()) running.abort()
  }

  #on({ backend, server }: DrainedServer): LiveSession[] {
    const found: LiveSession[] = []
    for (const session of this.#options.sessions()) {
      if (session.upstream === server && session.backend === backend && !session.gone) found.push(session)
    }
    return found
  }

  #look(): void {
    const { drained, backends, drains } = this.#options
    const { list } = drained
    for (const name of backends()) drains.serversDrained(name, list.filter(({ backend }) => backend === name).length)
    for (const [key, running] of this.#running) if (!list.some((one) => keyOf(one) === key)) running.abort()
    for (const one of list) if (!this.#running.has(keyOf(one)) && this.#on(one).length > 0) void this.#empty(one)
    if (list.length > 0) this.#timer ??= setInterval(() => this.#look(), LOOK_AGAIN_MS).unref()
    else if (this.#timer !== null) {
      clearInterval(this.#timer)
      this.#timer = null
    }
  }

  async #empty(one: DrainedServer): Promise<void> {
    const { order, drains, log, clock = REAL_CLOCK } = this.#options
    const running = new AbortController()
    this.#running.set(keyOf(one), running)
    const remaining = () => this.#on(one).length
    const startedAt = clock.now()
    log.info({ ...one, sessions: remaining() }, 'sessions of a drained server are told to go')
    const mayLog = logPace(clock)
    try {
      const { told, left } = await farewell({
        code: 'ERR_SERVER_DRAINING',
        // They are to come back to us.
        serverReference: null,
        ...order(),
        here: () => this.#on(one),
        remaining,
        signal: running.signal,
        progress: (progress) => {
          this.#count()
          if (mayLog()) log.info({ ...one, ...progress }, 'draining a server')
        },
        clock,
      })
      const undone = running.signal.aborted
      if (!undone) for (const session of this.#on(one)) session.close('ERR_SERVER_DRAINING')
      drains.serverEnded(undone ? 'undone' : left > 0 ? 'cut' : 'done')
      const facts = { ...one, told, cut: undone ? 0 : left, durationMs: Math.round(clock.now() - startedAt) }
      log.info(facts, undone ? 'drain of a server was called off' : 'a server is drained')
    } catch (error) {
      log.error({ ...one, error }, 'drain of a server failed')
    } finally {
      this.#count()
      this.#running.delete(keyOf(one))
    }
  }

  #count(): void {
    const sessions = this.status.reduce((sum, one) => sum + one.sessions, 0)
    this.#options.drains.remaining('server', sessions)
  }
}

/** A backend's name has no line feed in it. */
const keyOf = ({ backend, server }: DrainedServer): string => `${backend}\n${server}`
