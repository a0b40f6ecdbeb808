/** [hot] Up to here a list is searched from its oldest: acknowledgements come in order, so that one is found first. */
const FEW = 32
const WORDS = 65_536 / 32

/**
 * A set of packet identifiers (1–65,535). Some bytes while few are in flight, which is nearly always; 8 KiB at the most,
 * whatever a peer leaves unanswered.
 */
export class PacketIds {
  size = 0
  #few: Uint16Array | null = null
  #many: Uint32Array | null = null

  has(id: number): boolean {
    if (this.#many !== null) return (this.#many[id >>> 5]! & (1 << (id & 31))) !== 0
    return this.#indexOf(id) !== -1
  }

  /** True when it was not in the set before. */
  add(id: number): boolean {
    if (this.has(id)) return false
    if (this.#many === null && this.size === FEW) this.#spread()
    if (this.#many !== null) this.#many[id >>> 5]! |= 1 << (id & 31)
    else {
      if (this.#few === null) this.#few = new Uint16Array(4)
      if (this.size === this.#few.length) {
        const wider = new Uint16Array(this.size * 2)
        wider.set(this.#few)
        this.#few = wider
      }
      this.#few[this.size] = id
    }
    this.size++
    return true
  }

  /** True when it was in the set. */
  delete(id: number): boolean {
    if (this.#many !== null) {
      const bit = 1 << (id & 31)
      if ((this.#many[id >>> 5]! & bit) === 0) return false
      this.#many[id >>> 5]! &= ~bit
      this.size--
      if (this.size === 0) this.#many = null
      return true
    }
    const at = this.#indexOf(id)
    if (at === -1) return false
    this.size--
    this.#few!.copyWithin(at, at + 1, this.size + 1)
    return true
  }

  #indexOf(id: number): number {
    const few = this.#few
    if (few === null) return -1
    for (let at = 0; at < this.size; at++) if (few[at] === id) return at
    return -1
  }

  #spread(): void {
    const many = new Uint32Array(WORDS)
    for (let at = 0; at < this.size; at++) {
      const id = this.#few![at]!
      many[id >>> 5]! |= 1 << (id & 31)
    }
    this.#many = many
    this.#few = null
  }
}

/** The publishes of one direction that are under way, as far as the gate has to tell them apart. */
export class Flight {
  /** Went on and are not complete: the receiver answers for them, we never do. */
  readonly passed = new PacketIds()
  /** QoS 2 that we answered in the receiver's place: its PUBREL is ours to complete [MQTT-4.3.3-1]. */
  readonly ours = new PacketIds()
  /** Went on and the receiver has not answered at all yet: what a window counts. */
  readonly unanswered = new PacketIds()

  publishPassed(id: number): void {
    this.passed.add(id)
    this.unanswered.add(id)
    this.ours.delete(id)
  }

  /** @param type of the acknowledgement; @param failed its reason code is 0x80 or above, which ends a QoS 2 flow too */
  answered(type: number, id: number, failed: boolean): void {
    this.unanswered.delete(id)
    if (type !== PUBREC || failed) this.passed.delete(id)
  }
}

const PUBREC = 5
