import { Fifo } from '../collections/fifo.ts'

interface Waiter {
  readonly source: { readonly destroyed?: boolean }
  readonly begin: () => void
}

/**
 * Work of newcomers, so many pieces in a turn of the event loop. What live sessions have sent is read between two turns, and
 * so waits for one portion at most, however many newcomers have come at once.
 */
export class Portions {
  readonly #perTurn: number
  readonly #soon: (work: () => void) => void
  readonly #waiting = new Fifo<Waiter>()
  #done = 0
  #turning = false

  /** @param soon runs it once the event loop has looked at its sockets */
  constructor(perTurn: number, soon: (work: () => void) => void = setImmediate) {
    this.#perTurn = perTurn
    this.#soon = soon
  }

  /**
   * Null: now. Otherwise resolves when it is this one's turn; the order is kept.
   * @param source who has gone by then takes nobody's place
   */
  next(source: { readonly destroyed?: boolean }): Promise<void> | null {
    this.#nextTurn()
    if (this.#done < this.#perTurn && this.#waiting.first === undefined) {
      this.#done++
      return null
    }
    return new Promise((begin) => this.#waiting.push({ source, begin }))
  }

  #nextTurn(): void {
    if (this.#turning) return
    this.#turning = true
    this.#soon(() => {
      this.#turning = false
      this.#done = 0
      for (let waiter = this.#waiting.first; waiter !== undefined; waiter = this.#waiting.first) {
        const isGone = waiter.source.destroyed === true
        if (this.#done >= this.#perTurn && !isGone) break
        this.#waiting.shift()
        if (!isGone) this.#done++
        waiter.begin()
      }
      if (this.#done > 0) this.#nextTurn()
    })
  }
}
