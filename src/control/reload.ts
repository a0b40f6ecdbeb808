import type { Log } from './log.ts'
import type { MetricsParts } from './metrics.ts'

/** Who asks for a reload. */
export type Cause = 'start' | 'signal' | 'files' | 'admin'

/** What a reload came to. */
export type Reloaded =
  | { readonly kind: 'done'; readonly generation: number; readonly changed: readonly string[] }
  /** Everything is as it was: no other generation is made. */
  | { readonly kind: 'unchanged'; readonly generation: number }
  /** The former generation goes on. One line for each thing that is wrong, as `check` prints them. */
  | { readonly kind: 'refused'; readonly generation: number; readonly issues: readonly string[] }
  | { readonly kind: 'ignored'; readonly generation: number; readonly why: string }

/** What was read anew. */
export type Read<M> =
  | { readonly kind: 'read'; readonly material: M; readonly changed: readonly string[] }
  | { readonly kind: 'refused'; readonly issues: readonly string[] }

/** All processes that are to change, as one: first it is made possible everywhere, then it counts everywhere. */
export interface Target<M> {
  /** What stands against it; none: it waits for the word. */
  prepare(material: M): Promise<readonly string[]>
  commit(): Promise<void>
  abort(): Promise<void>
}

export interface ReloadsOptions<M> {
  /** What counts at the beginning. */
  readonly first: M
  /** Reads and checks everything. What changed is compared with `before`; nothing, where all is as it was. */
  readonly read: (before: M) => Read<M> | Promise<Read<M>>
  readonly target: Target<M>
  /** Told once it counts. */
  readonly inForce: (material: M) => void
  readonly log: Log
  readonly counted: MetricsParts['settings']
  /** Monotonic, in milliseconds. */
  readonly now?: () => number
}

/**
 * Reloads, one after the other. Whoever asks while one is under way gets the next one, which reads what is there then: of
 * many that ask, the newest settings win and are read once.
 */
export class Reloads<M extends { readonly number: number }> {
  readonly #options: ReloadsOptions<M>
  readonly #now: () => number
  #current: M
  #running: Promise<Reloaded> | null = null
  #next: Promise<Reloaded> | null = null
  /** Why nothing is reloaded now; null: it is. */
  #closed: string | null = 'the program is starting'
  /** A file changed before it could be followed, and does not say so again. */
  #missed = false

  constructor(options: ReloadsOptions<M>) {
    this.#options = options
    this.#now = options.now ?? (() => performance.now())
    this.#current = options.first
  }

  get current(): M {
    return this.#current
  }

  /** The first generation counts. */
  open(): void {
    this.#closed = null
    this.#options.counted.generation(this.#current.number)
    this.#options.counted.succeeded()
    if (this.#missed) void this.request('files')
  }

  /** From here on everything stays as it is; what is being prepared comes to nothing. */
  close(why: string): void {
    this.#closed = why
  }

  /** Never rejects. */
  request(cause: Cause): Promise<Reloaded> {
    if (this.#closed !== null) {
      this.#missed ||= cause === 'files'
      return Promise.resolve(this.#ignore(cause, this.#closed))
    }
    if (this.#next !== null) return this.#next
    if (this.#running === null) return this.#begin(cause)
    this.#next = this.#running.then(() => {
      this.#next = null
      return this.#begin(cause)
    })
    return this.#next
  }

  #begin(cause: Cause): Promise<Reloaded> {
    const running = this.#run(cause).finally(() => {
      if (this.#running === running) this.#running = null
    })
    this.#running = running
    return running
  }

  async #run(cause: Cause): Promise<Reloaded> {
    if (this.#closed !== null) return this.#ignore(cause, this.#closed)
    const from = this.#now()
    try {
      return this.#tell(cause, from, await this.#reload())
    } catch (error) {
      this.#options.log.error({ error, cause }, 'a reload failed')
      const issues = [`a fault of this program: ${error instanceof Error ? error.message : String(error)}`]
      return this.#tell(cause, from, { kind: 'refused', generation: this.#current.number, issues })
    }
  }

  async #reload(): Promise<Reloaded> {
    const { read, target, inForce } = this.#options
    const generation = this.#current.number
    const found = await read(this.#current)
    if (found.kind === 'refused') return { kind: 'refused', generation, issues: found.issues }
    if (found.changed.length === 0) return { kind: 'unchanged', generation }
    const issues = await target.prepare(found.material)
    if (issues.length > 0) return { kind: 'refused', generation, issues }
    if (this.#closed !== null) {
      await target.abort()
      return { kind: 'ignored', generation, why: this.#closed }
    }
    // Before the word is given: a worker that starts meanwhile begins with the new one.
    this.#current = found.material
    inForce(found.material)
    await target.commit()
    return { kind: 'done', generation: found.material.number, changed: found.changed }
  }

  #ignore(cause: Cause, why: string): Reloaded {
    this.#options.log.warn({ cause, why }, `reload ignored: ${why}`)
    return { kind: 'ignored', generation: this.#current.number, why }
  }

  #tell(cause: Cause, from: number, reloaded: Reloaded): Reloaded {
    const { log, counted } = this.#options
    const { kind, generation } = reloaded
    const fields = { cause, generation, durationMs: Math.round(this.#now() - from) }
    counted.reloaded(kind)
    switch (reloaded.kind) {
      case 'done':
        counted.generation(generation)
        counted.succeeded()
        log.info({ ...fields, changed: reloaded.changed }, 'settings reloaded')
        break
      case 'unchanged':
        counted.succeeded()
        // A file that was only touched is nothing to tell.
        log[cause === 'files' ? 'debug' : 'info'](fields, 'settings are unchanged')
        break
      case 'refused':
        for (const issue of reloaded.issues) log.error({ generation }, issue)
        log.error({ ...fields, issues: reloaded.issues.length }, 'settings not reloaded; the former ones go on')
        break
      case 'ignored':
        log.warn({ ...fields, why: reloaded.why }, `reload ignored: ${reloaded.why}`)
        break
    }
    return reloaded
  }
}
