/** [hot] Where nothing has to be decided, a packet costs what its cursor costs, and the chunk goes on as it is. */
import type { FailureCode } from '../errors.ts'
import type { Inspector, Way } from '../relay.ts'
import { type FirstByteTable, PacketCursor } from './packet-cursor.ts'
import { Flight } from './packet-ids.ts'

/** What becomes of a packet. Above 0: bytes of its body that must be in hand before that can be said. */
export const PASS = 0
/** It does not go on. */
export const DROP = -1
/** `replacement` goes on in place of its header and of the first `replaced` bytes of its body. */
export const REPLACE = -2
/** The cursor's `fault` is set; neither it nor anything after it goes on. */
export const FAULT = -3

/** Why a direction is not read for a while: for what the other brings, or for its rate. Both may hold at once. */
export const WAIT = 1
export const RATE = 2
/** Nothing more of it goes on: the session is about to be ended by us. */
const STOP = 4

/** Bit of a control packet type in `watched`. */
export const bit = (type: number): number => 1 << type
export const EVERY_TYPE = 0xffff

/**
 * One direction of a session: finds the packets, has those of the watched types judged before their first byte goes on,
 * and keeps the answers of ours that go the same way until they fit between two packets.
 *
 * A packet that a chunk cuts is held from its first byte to the last that its judgement needs, and no further.
 */
export abstract class Lane implements Inspector {
  readonly cursor: PacketCursor
  /** What arrived and was sound, whether or not it went on. */
  bytes = 0
  packets = 0
  /** We ourselves do not read this direction at the moment. */
  isHeld = false
  /** Its sender said goodbye [MQTT-3.14.4-1]; what comes after does not go on. */
  disconnected = false
  follows = false
  /** Answers under way to what its sender said: one each to PUBLISH above QoS 0 and to PUBREL. */
  owed = 0
  /** Ended between two packets by `stop`; what comes is thrown away. */
  isStopped = false

  /** The direction that our answers to this one take. */
  protected opposite!: Lane
  /** It is not our turn yet: the receiver's first packet is another's. */
  protected mute = false
  /** Types that `begin` is asked about. */
  protected watched = EVERY_TYPE
  protected replacement: Buffer | null = null
  protected replaced = 0

  #way: Way | null = null
  #flight: Flight | null = null
  /** A packet from its first byte on, while it is not yet known what becomes of it; empty between. */
  #kept: Buffer | null = null
  #keptLength = 0
  /** Where its body begins; 0 while its header is not whole. */
  #keptBody = 0
  #keptNeeds = 0
  /** The rest of the packet that the cursor stands in does not go on. */
  #cutting = false
  #stopping = false
  #answers: Buffer | null = null
  #answersLength = 0
  #holds = 0

  constructor(table: FirstByteTable, maxBytes: number) {
    this.cursor = new PacketCursor(table, maxBytes)
  }

  /** A header of a watched type is whole. @returns `PASS`, `FAULT`, or how many bytes of the body to judge by */
  protected abstract begin(type: number, flags: number, remaining: number): number
  /** @param have bytes of the body in hand, from `bodyAt` on; the header is at `start` */
  protected abstract judge(bytes: Buffer, start: number, bodyAt: number, have: number): number
  /** A packet begins after the sender's goodbye. */
  protected abstract afterGoodbye(): FailureCode
  /** A header is whole and its packet is one of ours to count. */
  protected abstract count(type: number): void
  /** A chunk has been dealt with; a fault may be there. */
  protected abstract settled(bytes: number): void

  /** Which packets have to be looked at, after the permit or what was agreed has changed. */
  abstract tune(): void
  /** As many publishes are unanswered as may be, and reading has to wait. */
  abstract windowIsFull(): boolean

  /** Its publishes, while they are told apart by packet id. */
  get flight(): Flight {
    this.#flight ??= new Flight()
    return this.#flight
  }

  face(opposite: Lane): void {
    this.opposite = opposite
  }

  attached(way: Way): void {
    this.#way = way
  }

  held(paused: boolean): void {
    this.isHeld = paused
  }

  /** What went on ends with a whole packet: only then may we say something ourselves. */
  get atBoundary(): boolean {
    return this.cursor.atEnd || this.#keptLength > 0 || this.#cutting || this.cursor.fault !== null
  }

  get answersWaiting(): number {
    return this.#answersLength
  }

  /** An answer of ours to the peer that this direction leads to; `speak` sends it. */
  answer(packet: Uint8Array): void {
    const room = this.#roomFor(packet.length)
    this.#answers!.set(packet, room)
  }

  /** Those of two bytes: an acknowledgement by packet id; `reason` above 0 only in MQTT 5. */
  acknowledge(first: number, packetId: number, reason: number): void {
    let at = this.#roomFor(reason === 0 ? 4 : 5)
    const answers = this.#answers!
    answers[at++] = first
    answers[at++] = reason === 0 ? 2 : 3
    answers[at++] = packetId >> 8
    answers[at++] = packetId & 0xff
    if (reason !== 0) answers[at] = reason
  }

  /** Sends the answers that wait, if no packet is under way. */
  speak(): void {
    if (this.#answersLength === 0 || this.mute || this.disconnected || !this.atBoundary) return
    const answers = this.#answers!.subarray(0, this.#answersLength)
    this.#answers = null
    this.#answersLength = 0
    this.#way?.say(answers)
  }

  hold(reason: number, on: boolean): void {
    const before = this.#holds
    this.#holds = on ? before | reason : before & ~reason
    if ((before === 0) !== (this.#holds === 0)) this.#way?.hold(this.#holds !== 0)
  }

  /** Nothing more goes on from the end of the packet that is under way, and then nothing more is read. */
  stop(): void {
    this.#stopping = true
    if (!this.isStopped && this.atBoundary) this.#stop()
  }

  #stop(): void {
    this.isStopped = true
    this.hold(STOP, true)
  }

  isHeldFor(reason: number): boolean {
    return (this.#holds & reason) !== 0
  }

  inspect(chunk: Buffer): void {
    const { cursor } = this
    if (cursor.fault !== null || this.isStopped) return
    let at = this.#keptLength === 0 ? 0 : this.#gather(chunk)
    /** What lies between here and `at` goes on. */
    let run = at
    while (at < chunk.length && cursor.fault === null) {
      if (!cursor.atEnd) {
        at = cursor.advance(chunk, at)
        if (!this.#cutting) continue
        run = at
        this.#cutting = !cursor.atEnd
        continue
      }
      if (this.#stopping) break
      if (this.#answersLength > 0) {
        this.#pass(chunk, run, at)
        run = at
        this.speak()
      }
      if (this.disconnected) {
        cursor.fault = this.afterGoodbye()
        break
      }
      const start = this.#stepOver(chunk, at)
      if (start === chunk.length) {
        at = start
        break
      }
      at = cursor.advance(chunk, start)
      if (!cursor.atHeader || cursor.fault !== null) {
        this.#pass(chunk, run, start)
        run = at
        if (cursor.fault === null) this.#keep(chunk, start, 0, 0)
        else run = at = start
        break
      }
      if ((this.watched & (1 << cursor.type)) === 0) {
        this.packets++
        this.count(cursor.type)
        continue
      }
      let verdict = this.#begin()
      const have = Math.min(cursor.remainingLength, chunk.length - at)
      while (verdict > 0 && verdict <= have) verdict = this.judge(chunk, start, at, have)
      if (verdict === PASS) continue
      this.#pass(chunk, run, start)
      if (verdict === DROP) {
        this.#cutting = !cursor.atEnd
        run = at
      } else if (verdict === REPLACE) {
        this.#way!.pass(this.replacement!)
        this.replacement = null
        run = at + this.replaced
      } else if (verdict === FAULT) {
        run = at = start
      } else {
        this.#keep(chunk, start, at, verdict)
        cursor.skip(have)
        run = at = chunk.length
      }
    }
    this.#pass(chunk, run, at)
    this.bytes += at
    if (this.#stopping && this.atBoundary) this.#stop()
    this.settled(at)
  }

  /** Over whole packets of which none is watched. @returns where the first other one begins */
  #stepOver(chunk: Buffer, from: number): number {
    const { cursor, watched } = this
    let at = from
    for (let next = cursor.step(chunk, at, watched); next > 0; next = cursor.step(chunk, at, watched)) {
      this.packets++
      this.count(cursor.type)
      at = next
    }
    return at
  }

  #begin(): number {
    const { cursor } = this
    const verdict = this.begin(cursor.type, cursor.flags, cursor.remainingLength)
    if (verdict === FAULT) return verdict
    this.packets++
    this.count(cursor.type)
    return verdict
  }

  #pass(chunk: Buffer, from: number, to: number): void {
    if (from >= to) return
    this.#way!.pass(from === 0 && to === chunk.length ? chunk : chunk.subarray(from, to))
  }

  /** The only bytes that are copied: the begin of a packet that the chunk's end has cut. */
  #keep(chunk: Buffer, start: number, bodyAt: number, needs: number): void {
    this.#keptNeeds = needs
    this.#keptBody = bodyAt === 0 ? 0 : bodyAt - start
    this.#append(chunk, start, chunk.length)
  }

  #append(chunk: Buffer, from: number, to: number): void {
    const length = this.#keptLength + to - from
    if (this.#kept === null || this.#kept.length < length) {
      // What the judgement is known to need, or else twice as much: bytes that trickle in are not copied each time.
      const wider = Buffer.allocUnsafe(Math.max(16, this.#keptBody + this.#keptNeeds, 2 * this.#keptLength, length))
      if (this.#kept !== null) this.#kept.copy(wider, 0, 0, this.#keptLength)
      this.#kept = wider
    }
    chunk.copy(this.#kept, this.#keptLength, from, to)
    this.#keptLength = length
  }

  /** Takes of the chunk what the kept packet still needs, and ends its waiting if that is all. @returns the offset after */
  #gather(chunk: Buffer): number {
    const { cursor } = this
    let at = 0
    let verdict = this.#keptNeeds
    if (this.#keptBody === 0) {
      at = cursor.advance(chunk, 0)
      if (cursor.fault !== null) return at
      this.#append(chunk, 0, at)
      if (!cursor.atHeader) return at
      this.#keptBody = this.#keptLength
      verdict = (this.watched & (1 << cursor.type)) === 0 ? this.#unwatched() : this.#begin()
    }
    while (verdict > 0) {
      const missing = verdict - (this.#keptLength - this.#keptBody)
      this.#keptNeeds = verdict
      if (missing > 0) {
        const take = Math.min(missing, chunk.length - at)
        this.#append(chunk, at, at + take)
        cursor.skip(take)
        at += take
        if (take < missing) return at
      }
      verdict = this.judge(this.#kept!, 0, this.#keptBody, this.#keptLength - this.#keptBody)
    }
    const kept = this.#kept!.subarray(0, this.#keptLength)
    const body = this.#keptBody
    this.#kept = null
    this.#keptLength = 0
    if (verdict === PASS) this.#way!.pass(kept)
    else if (verdict === DROP) this.#cutting = !cursor.atEnd
    else if (verdict === REPLACE) {
      this.#way!.pass(this.replacement!)
      this.replacement = null
      this.#pass(kept, body + this.replaced, kept.length)
    }
    return at
  }

  #unwatched(): number {
    this.packets++
    this.count(this.cursor.type)
    return PASS
  }

  /** @returns where to write so many bytes */
  #roomFor(length: number): number {
    const from = this.#answersLength
    this.#answersLength += length
    if (this.#answers === null || this.#answers.length < this.#answersLength) {
      const wider = Buffer.allocUnsafe(Math.max(64, 2 * from, this.#answersLength))
      if (this.#answers !== null) this.#answers.copy(wider, 0, 0, from)
      this.#answers = wider
    }
    return from
  }
}
