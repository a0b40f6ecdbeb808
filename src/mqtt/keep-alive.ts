import { type Link, Ring } from '../collections/ring.ts'

const TICK_MS = 1_000
const SLOTS = 512

export interface Watched {
  /** Nothing was heard of it for too long; it is looked at no more. */
  silent(): void
}

/** One session's place in the wheel. The relay writes `lastSeen` and `held`; nothing else is touched per packet. */
export interface KeepAliveEntry {
  /** Tick of the last bytes from the device: assign `wheel.now`. */
  lastSeen: number
  /** True while we ourselves do not read from the device, which then cannot be blamed for its silence. */
  held: boolean
  readonly limitTicks: number
  /** The wheel's own: where it is looked at next; null once it is looked at no more. */
  place: { readonly slot: Ring<KeepAliveEntry>; readonly link: Link<KeepAliveEntry> } | null
  readonly watched: Watched
}

/**
 * Keep alive for every session of the process with one timer (MQTT 5.0 §3.1.2.10: silence for one and a half
 * times the keep alive ends the session).
 *
 * Time is counted in ticks that were run, not read from a clock, so a stall of the event loop is one tick at most. And a
 * tick is run behind the reads of its turn: a timer that is overdue may come before the bytes that wait in the kernel,
 * and a device whose ping lies there is not silent. Nobody is cut for our own slowness.
 * Precision is one tick (1 s), always to the device's favour.
 */
export class KeepAliveWheel {
  now = 0
  size = 0
  readonly #slots: readonly Ring<KeepAliveEntry>[] = Array.from({ length: SLOTS }, () => new Ring())
  #timer: NodeJS.Timeout | null = null

  /** @param keepAliveSeconds as in force for the session, above 0 */
  add(keepAliveSeconds: number, watched: Watched): KeepAliveEntry {
    // One tick more, because the tick in which the device was last seen may be nearly over.
    const limitTicks = Math.ceil((keepAliveSeconds * 1_500) / TICK_MS) + 1
    const entry: KeepAliveEntry = { lastSeen: this.now, held: false, limitTicks, place: null, watched }
    this.size++
    this.#place(entry)
    this.#timer ??= setInterval(() => afterReads(() => this.tick()), TICK_MS).unref()
    return entry
  }

  remove(entry: KeepAliveEntry): void {
    const { place } = entry
    if (place === null) return
    entry.place = null
    place.slot.remove(place.link)
    this.size--
    if (this.size > 0 || this.#timer === null) return
    clearInterval(this.#timer)
    this.#timer = null
  }

  /** Called after the timer; by tests in its place. */
  tick(): void {
    this.now++
    const slot = this.#slots[this.now % SLOTS]!
    for (const entry of slot) {
      // Whoever expired a moment ago may have taken this one along; it must not come back.
      if (entry.place === null) continue
      if (entry.held) entry.lastSeen = this.now
      if (entry.lastSeen + entry.limitTicks > this.now) {
        slot.remove(entry.place.link)
        this.#place(entry)
      } else {
        this.remove(entry)
        entry.watched.silent()
      }
    }
  }

  #place(entry: KeepAliveEntry): void {
    // A limit longer than one turn of the wheel is looked at once a turn until it is due.
    const due = Math.min(entry.lastSeen + entry.limitTicks, this.now + SLOTS - 1)
    const slot = this.#slots[due % SLOTS]!
    entry.place = { slot, link: slot.add(entry) }
  }
}

/** An immediate set by a timer comes after the sockets were looked at on Node, and before it on Bun: the second one is after it on both. */
function afterReads(work: () => void): void {
  setImmediate(() => setImmediate(work))
}
