import { type Link, Ring } from '../collections/ring.ts'
import { Bucket } from './bucket.ts'
import type { Place } from './places.ts'
import { type Sharer, Shares } from './shares.ts'

/** What a hello asks for: a whole key exchange with certificates, or (as it claims) to go on with an earlier session. */
export type HandshakeKind = 'full' | 'resumed'

export interface Budget {
  /** Most that are under way; one that was silent for a second does not count, since it costs nothing. */
  readonly inFlight: number
  /** Null: as many as there is time for. */
  readonly perSecond: number | null
}

/** One connection, as the governor knows it. The only thing that is made for a connection that need not wait. */
export interface Visit {
  readonly place: Place
  kind: HandshakeKind | null
  /** When its handshake began; it counts as under way from then on. */
  startedAt: number
  /** Among those under way of its kind. */
  underWay: Link<Visit> | null
  proved: boolean
  gone: boolean
}

/** After this long without an end, a handshake waits for its device and takes nobody's time. */
const WORKING_MS = 1_000

/** The handshakes of one kind: those under way and those that wait. */
export class Lane<T extends Sharer> {
  readonly shares = new Shares<T>()
  /** In the order in which they began. */
  readonly underWay = new Ring<Visit>()
  readonly bucket: Bucket
  #inFlight: number

  constructor({ inFlight, perSecond }: Budget, now: number) {
    this.#inFlight = inFlight
    this.bucket = new Bucket(perSecond, now)
  }

  configure({ inFlight, perSecond }: Budget, now: number): void {
    this.#inFlight = inFlight
    this.bucket.configure(perSecond, now)
  }

  /** Those that have been under way for so long that they are not counted any more; they are told once. */
  *silent(now: number): Generator<Visit> {
    for (let visit = this.underWay.first; visit !== undefined; visit = this.underWay.first) {
      if (now - visit.startedAt < WORKING_MS) return
      this.end(visit)
      yield visit
    }
  }

  begin(visit: Visit, now: number): void {
    this.bucket.take(now)
    visit.underWay = this.underWay.add(visit)
  }

  /** False when it has ended before. */
  end(visit: Visit): boolean {
    const { underWay } = visit
    visit.underWay = null
    return underWay !== null && this.underWay.remove(underWay)
  }

  hasRoom(now: number): boolean {
    return this.underWay.size < this.#inFlight && this.bucket.has(now)
  }

  /** When there may be room, if nothing ends before. */
  roomAt(now: number): number {
    const next = this.bucket.nextAt(now)
    const oldest = this.underWay.first
    // With room left it is the address that has none; that, too, may change when a handshake falls silent.
    if (oldest === undefined || (this.underWay.size < this.#inFlight && next > now)) return next
    return Math.max(next, oldest.startedAt + WORKING_MS)
  }
}
