/** A place in a ring, by which it is left again. */
export interface Link<T> {
  readonly item: T
}

/** Who is here, for those who only look. */
export interface Members<T> extends Iterable<T> {
  readonly size: number
}

class Place<T> implements Link<T> {
  readonly item: T
  ring: Ring<T> | null
  before: Place<T> | null
  after: Place<T> | null = null

  constructor(item: T, ring: Ring<T>, before: Place<T> | null) {
    this.item = item
    this.ring = ring
    this.before = before
  }
}

/** Who is here, in the order of their coming. For things that come and go with connections and messages: D1. */
export class Ring<T> implements Members<T> {
  size = 0
  #first: Place<T> | null = null
  #last: Place<T> | null = null

  add(item: T): Link<T> {
    const place = new Place(item, this, this.#last)
    if (this.#last === null) this.#first = place
    else this.#last.after = place
    this.#last = place
    this.size++
    return place
  }

  /** False when it has left before, or was never here. */
  remove(link: Link<T>): boolean {
    const place = link as Place<T>
    if (place.ring !== this) return false
    const { before, after } = place
    if (before === null) this.#first = after
    else before.after = after
    if (after === null) this.#last = before
    else after.before = before
    // Nothing leads from who has left to who is here: an old one would keep the young.
    place.ring = null
    place.before = null
    place.after = null
    this.size--
    return true
  }

  has(link: Link<T>): boolean {
    return (link as Place<T>).ring === this
  }

  /** Who has been here for longest; undefined: nobody is. */
  get first(): T | undefined {
    return this.#first?.item
  }

  /** The first of whom it is true. Nobody comes or goes meanwhile. */
  find(test: (item: T) => boolean): T | undefined {
    for (let place = this.#first; place !== null; place = place.after) if (test(place.item)) return place.item
    return undefined
  }

  /** Those who are here now, whoever comes and goes meanwhile. */
  [Symbol.iterator](): ArrayIterator<T> {
    const items: T[] = []
    for (let place = this.#first; place !== null; place = place.after) items.push(place.item)
    return items.values()
  }
}
