type Listener = (...args: never[]) => void
type Called = (...args: unknown[]) => void

interface Entry {
  readonly event: string
  readonly listener: Listener
  readonly once: boolean
}

/**
 * `on`, `once`, `off` and `emit` as Node's `EventEmitter` has them, as far as a byte stream needs them: a listener may come
 * or go while the others are called. One list for all events, and none while nobody listens, since a stream is listened to
 * by few, and briefly, before the relay attaches to it. An `error` that nobody listens to is nothing.
 */
export class Emitter {
  #entries: readonly Entry[] | null = null

  on(event: string, listener: Listener): this {
    return this.#add({ event, listener, once: false })
  }

  once(event: string, listener: Listener): this {
    return this.#add({ event, listener, once: true })
  }

  off(event: string, listener: Listener): this {
    // The latest first, as Node does.
    const found = this.#entries?.findLast((entry) => entry.event === event && entry.listener === listener)
    if (found !== undefined) this.#remove(found)
    return this
  }

  listeners(event: string): Listener[] {
    return (this.#entries ?? []).filter((entry) => entry.event === event).map(({ listener }) => listener)
  }

  removeAllListeners(): this {
    this.#entries = null
    return this
  }

  emit(event: string, ...args: readonly unknown[]): boolean {
    // Changes make another list: this one stays as it was when the event came.
    const entries = this.#entries
    if (entries === null) return false
    let heard = false
    for (const entry of entries) {
      if (entry.event !== event) continue
      heard = true
      if (entry.once) this.#remove(entry)
      ;(entry.listener as Called).apply(this, args as unknown[])
    }
    return heard
  }

  #add(entry: Entry): this {
    this.#entries = this.#entries === null ? [entry] : [...this.#entries, entry]
    return this
  }

  #remove(entry: Entry): void {
    const left = this.#entries?.filter((each) => each !== entry) ?? []
    this.#entries = left.length === 0 ? null : left
  }
}
