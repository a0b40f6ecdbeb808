type Listener = (...args: never[]) => void
type Called = (...args: unknown[]) => void

/** Event, listener, whether it is for once; and so on. */
type Entry = string | Listener | boolean
const ENTRY = 3

/**
 * `on`, `once`, `off` and `emit` as Node's `EventEmitter` has them, as far as a byte stream needs them: a listener may come
 * or go while the others are called. One list for all events, and none while nobody listens, since a stream is listened to
 * by few, and briefly, before the relay attaches to it. An `error` that nobody listens to is nothing.
 */
export class Emitter {
  #entries: Entry[] | null = null

  on(event: string, listener: Listener): this {
    return this.#add(event, listener, false)
  }

  once(event: string, listener: Listener): this {
    return this.#add(event, listener, true)
  }

  off(event: string, listener: Listener): this {
    const entries = this.#entries
    if (entries === null) return this
    // The latest first, as Node does.
    for (let at = entries.length - ENTRY; at >= 0; at -= ENTRY) {
      if (entries[at] !== event || entries[at + 1] !== listener) continue
      this.#entries = entries.length === ENTRY ? null : without(entries, at)
      return this
    }
    return this
  }

  listeners(event: string): Listener[] {
    const entries = this.#entries ?? []
    return entries.filter((_, at) => at % ENTRY === 1 && entries[at - 1] === event) as Listener[]
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
    for (let at = 0; at < entries.length; at += ENTRY) {
      if (entries[at] !== event) continue
      heard = true
      const listener = entries[at + 1] as Called
      if (entries[at + 2] === true) this.off(event, listener)
      listener.apply(this, args as unknown[])
    }
    return heard
  }

  #add(event: string, listener: Listener, once: boolean): this {
    this.#entries = this.#entries === null ? [event, listener, once] : [...this.#entries, event, listener, once]
    return this
  }
}

const without = (entries: readonly Entry[], at: number): Entry[] => [
  ...entries.slice(0, at),
  ...entries.slice(at + ENTRY),
]
