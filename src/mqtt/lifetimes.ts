import { type Link, Ring } from '../collections/ring.ts'
import { Table } from '../collections/table.ts'

const TICK_MS = 1_000

/** AWS IoT Core's "WebSocket connection duration", which cannot be changed (wire specification §6.6): 24 h. */
export const WSS_LIFETIME_MS = 86_400_000

export type Due = 'end' | 'refresh'

/** Whoever is told that its time has come. */
export interface Mortal {
  due(what: Due): void
}

export interface Deadline {
  readonly mortal: Mortal
  readonly what: Due
  /** Of the monotonic clock; when it is over, the deadline is due. */
  readonly second: number
  /** Among those of its second. */
  readonly link: Link<Deadline>
}

/**
 * The ends and refreshes of every session of the process, with one timer. Counted on the monotonic clock, so that
 * setting the time of day moves none of them; never early, and up to a second late.
 */
export class Lifetimes {
  readonly now: () => number
  readonly #seconds = new Table<Ring<Deadline>>()
  /** Last second that was looked at. */
  #done = 0
  #size = 0
  #timer: NodeJS.Timeout | null = null

  /** @param now monotonic, in milliseconds */
  constructor(now: () => number = () => performance.now()) {
    this.now = now
  }

  add(at: number, what: Due, mortal: Mortal): Deadline {
    if (this.#size === 0) this.#done = Math.floor(this.now() / TICK_MS)
    // What is due already is due with the next tick.
    const second = Math.max(Math.ceil(at / TICK_MS), this.#done + 1)
    const others = this.#seconds.get(String(second)) ?? new Ring<Deadline>()
    if (others.size === 0) this.#seconds.set(String(second), others)
    const deadline = { mortal, what, second } as { -readonly [K in keyof Deadline]: Deadline[K] }
    deadline.link = others.add(deadline)
    this.#size++
    this.#timer ??= setInterval(() => this.tick(), TICK_MS).unref()
    return deadline
  }

  remove(deadline: Deadline): void {
    const others = this.#seconds.get(String(deadline.second))
    if (others === undefined || !others.remove(deadline.link)) return
    if (others.size === 0) this.#seconds.delete(String(deadline.second))
    this.#size--
    if (this.#size > 0 || this.#timer === null) return
    clearInterval(this.#timer)
    this.#timer = null
  }

  /** Called by the timer; by tests in its place. */
  tick(): void {
    const second = Math.floor(this.now() / TICK_MS)
    // Where nobody is left there is nothing to be made up for.
    while (this.#size > 0 && this.#done < second) {
      this.#done++
      const due = this.#seconds.get(String(this.#done))
      for (const deadline of due ?? []) {
        // Whoever was due a moment ago may have taken this one along.
        if (due?.has(deadline.link) !== true) continue
        this.remove(deadline)
        deadline.mortal.due(deadline.what)
      }
    }
  }

  get size(): number {
    return this.#size
  }
}
