import type { Log } from './log.ts'

/** A worker that is to take over a place. */
export interface Successor {
  readonly id: number
  /** True when it is ready, false when it has ended before. */
  readonly ready: Promise<boolean>
  kill(): void
  /** Drains whoever had the place before; resolves when they have ended. */
  retireOthers(): Promise<void>
}

export interface RollOptions {
  readonly places: number
  readonly readyDeadlineMs: number
  readonly log: Log
  /** What comes before the first place; a text says why none is to be replaced. */
  readonly prepare: () => Promise<string | null>
  /** The instance is about to end, and nobody is to be replaced any more. */
  readonly over: () => boolean
  fork(place: number): Successor
}

export interface RollStatus {
  readonly state: 'running' | 'done' | 'aborted'
  readonly replaced: number
  readonly of: number
  /** Why it was broken off; null unless it was. */
  readonly reason: string | null
}

export interface RollResult {
  readonly kind: 'done' | 'aborted'
  readonly status: RollStatus
}

/**
 * Replaces the workers of all places, one after the other, so that there are never fewer that accept than before: the
 * new one is ready first, then the old one drains, and only when that has ended the next place is taken up.
 */
export class Roll {
  readonly #options: RollOptions
  #state: RollStatus['state'] = 'running'
  #replaced = 0
  #reason: string | null = null

  constructor(options: RollOptions) {
    this.#options = options
  }

  get status(): RollStatus {
    return { state: this.#state, replaced: this.#replaced, of: this.#options.places, reason: this.#reason }
  }

  async run(): Promise<RollResult> {
    const { places, log, prepare } = this.#options
    log.info({ workers: places }, 'restart of the workers begins')
    const against = await prepare()
    if (against !== null) return this.#abort(against)
    for (let place = 0; place < places; place++) {
      const reason = await this.#replace(place)
      if (reason !== null) return this.#abort(reason)
    }
    this.#state = 'done'
    log.info({ workers: places }, 'restart of the workers is done')
    return { kind: 'done', status: this.status }
  }

  /** @returns why it could not be done; null when it was */
  async #replace(place: number): Promise<string | null> {
    const { over, fork, readyDeadlineMs } = this.#options
    if (over()) return 'the instance is about to end'
    const successor = fork(place)
    const ready = await within(successor.ready, readyDeadlineMs)
    if (over()) return 'the instance is about to end'
    if (ready === null) {
      successor.kill()
      return `worker ${successor.id} was not ready in ${readyDeadlineMs} ms`
    }
    if (!ready) return `worker ${successor.id} ended before it was ready; its lines in the log say why`
    await successor.retireOthers()
    this.#replaced++
    return null
  }

  #abort(reason: string): RollResult {
    this.#state = 'aborted'
    this.#reason = reason
    this.#options.log.error({ reason, replaced: this.#replaced }, 'restart of the workers broken off; the others stay')
    return { kind: 'aborted', status: this.status }
  }
}

/** What a promise says in time, else null. */
async function within<T>(promise: Promise<T>, ms: number): Promise<T | null> {
  const late = Promise.withResolvers<null>()
  const timer = setTimeout(() => late.resolve(null), ms)
  try {
    return await Promise.race([promise, late.promise])
  } finally {
    clearTimeout(timer)
  }
}
