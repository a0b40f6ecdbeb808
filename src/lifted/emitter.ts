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
  #entries: Entry[] | null = null
  /** An event walks the list as it was when it came: a change makes another one. */
  #walked = false

  on(event: string, listener: Listener): this {
    return this.#add({ event, listener, once: false })
  }

  once(event: string, listener: Listener): this {
    return this.#add({ event, listener, once: true })
  }

  off(event: string, listener: Listener): this {
    const entries = this.#entries
    if (entries === null) return this
    // The latest first, as Node does.
    for (let at = entries.length - 1; at >= 0; at--) {
      const entry = entries[at]!
      if (entry.event !== event || entry.listener !== listener) continue
      this.#remove(entry)
      break
    }
    return this
  }

  listeners(event: string): Listener[] {
    return (this.#entries ?? []).filter((entry) => entry.event === event).map(({ listener }) => listener)
  }

  removeAllListeners(): this {
    this.#entries = null
    this.#walked = false
    return this
  }

  emit(event: string, ...args: readonly unknown[]): boolean {
    const entries = this.#entries
    if (entries === null) return false
    let heard = false
    for (const entry of entries) {
      if (entry.event !== event) continue
      heard = true
      this.#walked = true
      if (entry.once) this.#remove(entry)
      ;(entry.listener as Called).apply(this, args as unknown[])
    }
    return heard
  }

  #add(entry: Entry): this {
    if (this.#entries === null) this.#entries = [entry]
    else this.#own(this.#entries).push(entry)
    return this
  }

  #remove(entry: Entry): void {
    if (this.#entries === null) return
    const entries = this.#own(this.#entries)
    const at = entries.indexOf(entry)
    if (at >= 0) entries.splice(at, 1)
    if (entries.length === 0) this.removeAllListeners()
  }

  /** The list, for a change of it. */
  #own(entries: Entry[]): Entry[] {
    if (!this.#walked) return entries
    this.#walked = false
    this.#entries = [...entries]
    return this.#entries
  }
}
