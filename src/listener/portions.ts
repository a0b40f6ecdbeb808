import { Fifo } from '../collections/fifo.ts'

/**
 * Work of newcomers, so many pieces in a turn of the event loop. What live sessions have sent is read between two turns, and
 * so waits for one portion at most, however many newcomers have come at once.
 */
export class Portions {
  readonly #perTurn: number
  readonly #soon: (work: () => void) => void
  readonly #waiting = new Fifo<() => void>()
  #done = 0
  #turning = false

  /** @param soon runs it once the event loop has looked at its sockets */
  constructor(perTurn: number, soon: (work: () => void) => void = setImmediate) {
    this.#perTurn = perTurn
    this.#soon = soon
  }

  /** Null: now. Otherwise resolves when it is this one's turn; the order is kept. */
  next(): Promise<void> | null {
    this.#nextTurn()
    if (this.#done < this.#perTurn && this.#waiting.first === undefined) {
      this.#done++
      return null
    }
    return new Promise((resolve) => this.#waiting.push(resolve))
  }

  #nextTurn(): void {
    if (this.#turning) return
    this.#turning = true
    this.#soon(() => {
      this.#turning = false
      this.#done = 0
      for (; this.#done < this.#perTurn; this.#done++) {
        const begin = this.#waiting.shift()
        if (begin === undefined) break
        begin()
      }
      if (this.#done > 0) this.#nextTurn()
    })
  }
}
