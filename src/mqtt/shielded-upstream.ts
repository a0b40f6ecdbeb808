import { EventEmitter } from 'node:events'
import type { Backend, Upstream } from '../backend/backend.ts'
import type { AuthorizedConnection } from '../connection.ts'
import { asProxyError } from '../errors.ts'
import type { ByteStream } from '../relay.ts'
import { type Connack, readConnack } from './connack.ts'
import { PROPERTY } from './properties.ts'
import type { MqttVersion } from './reason.ts'
import { bodyAt, CONNACK, DISCONNECT, isAcknowledgement, Journal, PINGREQ, typeOf } from './shield-journal.ts'
import type { Attempted, ShieldOutcome } from './shield-outcomes.ts'
import { type Answer, type Asked, askingForSession, firstAnswer, isForNow, keepsPromises } from './shield-resume.ts'
import { WholePackets } from './whole-packets.ts'

/** Who paces the attempts, and is told how they went. */
export interface Pacer {
  readonly isClosing: boolean
  now(): number
  arrived(peer: string): void
  departed(peer: string): void
  lost(peer: string): void
  /** From now on `attempt` may be called, until `over`. */
  held(session: ShieldedUpstream): void
  over(session: ShieldedUpstream, outcome: ShieldOutcome): void
  notHeld(outcome: ShieldOutcome): void
}

export interface ShieldedOptions {
  readonly backend: Pick<Backend, 'open'>
  readonly pacer: Pacer
  readonly connection: AuthorizedConnection
  readonly version: MqttVersion
  /** CONNECT as it goes to the broker. */
  readonly packet: Buffer
  readonly cleanStart: boolean
  /** An exchange that only the device could repeat (MQTT 5.0 §4.12). */
  readonly enhancedAuth: boolean
  readonly asked: Asked
  /** Of unanswered packets, and of what comes while the broker is away, each. */
  readonly bufferBytes: number
  /** For CONNACK. */
  readonly answerTimeoutMs: number
  moved(peer: string): void
}

/** A packet of the broker up to this size is handed on whole; more than a topic name and a packet id have to fit. */
const WHOLE_BYTES = 262_144
/** «Server shutting down» and «server busy»: the broker goes, not the device (MQTT 5.0 §3.14.2.1). */
const GOES_ITSELF = new Set([0x8b, 0x89])
const PINGRESP_TYPE = 13
const PINGRESP = Buffer.from([0xd0, 0])
const GOODBYE = Buffer.from([0xe0, 0])
/** Losses that are held within a minute; whoever is lost more often is meant. */
const MAX_LOSSES = 10
const LOSSES_WITHIN_MS = 60_000
const LINGER_MS = 2_000

interface Waiting {
  readonly bytes: Buffer
  /** False: a piece of a packet that is too large to be looked at. */
  readonly isPacket: boolean
}

/**
 * The broker's side of a session that outlives its broker's connection. For the relay it is a stream like any other; when
 * the connection is lost and nothing would be, it stays open, answers the device's PINGREQ, keeps a bounded amount of what
 * the device says, and goes on over another connection once the broker has said that it still has the session.
 */
export class ShieldedUpstream extends EventEmitter implements ByteStream {
  peer: string
  readonly #options: ShieldedOptions
  readonly #journal: Journal
  readonly #outgoing: WholePackets
  #incoming: WholePackets
  #state: 'live' | 'held' | 'over' = 'live'
  /** Null while it is held. */
  #stream: ByteStream | null
  /** The broker's first word, and whether it had a session then. */
  #first: Connack | null = null
  #hadSession = false
  #waiting: Waiting[] = []
  #waitingBytes = 0
  #paused = false
  /** `write` has said no. */
  #full = false
  /** PINGREQs that the broker has not answered. */
  #pings = 0
  /** Our side was ended, or one of the two said goodbye: what comes now is no loss. */
  #ending = false
  /** The broker said that it goes; swallowed, for it may come back. */
  #goes = false
  #isDecided = false
  #losses: number[] = []
  /** Only while it is held; most sessions never are. */
  #calledOff: AbortController | null = null

  constructor(upstream: Upstream, options: ShieldedOptions) {
    super()
    this.#options = options
    this.peer = upstream.peer
    this.#stream = upstream.stream
    this.#journal = new Journal(options.version, options.bufferBytes)
    this.#outgoing = new WholePackets(
      Math.max(WHOLE_BYTES, options.bufferBytes),
      (packet) => this.#say(packet),
      (begin) => this.#journal.saidOversized(begin),
    )
    this.#incoming = this.#newIncoming()
    this.#listen(upstream.stream)
  }

  get isHeld(): boolean {
    return this.#state === 'held'
  }

  /** All that the lost connection delivered is acknowledged: what is acknowledged from now on is the next one's. */
  get isReady(): boolean {
    return this.#state === 'held' && this.#journal.deliveries.size === 0
  }

  get destroyed(): boolean {
    return this.#state === 'over' || this.#stream?.destroyed === true
  }

  get readableEnded(): boolean {
    return this.#state === 'over' || this.#stream?.readableEnded === true
  }

  write(chunk: Uint8Array): boolean {
    if (this.#state === 'over') return false
    const bytes = Buffer.isBuffer(chunk) ? chunk : Buffer.from(chunk.buffer, chunk.byteOffset, chunk.length)
    const goes = this.#outgoing.push(bytes)
    if (this.#stream !== null) {
      this.#full = !this.#stream.write(chunk)
      return !this.#full
    }
    for (const piece of goes) this.#wait(Buffer.from(piece), false)
    this.#full = this.#waitingBytes + this.#outgoing.tailBytes >= this.#options.bufferBytes
    return !this.#full
  }

  pause(): void {
    this.#paused = true
    this.#stream?.pause()
  }

  resume(): void {
    this.#paused = false
    this.#stream?.resume()
  }

  end(): void {
    this.#ending = true
    if (this.#state === 'held') this.giveUp('ended')
    else this.#stream?.end()
  }

  destroy(): void {
    this.#ending = true
    if (this.#state === 'held') this.giveUp('ended')
    else this.#stream?.destroy()
  }

  /** Only while it is held: the session ends as it would have without all this. */
  giveUp(outcome: Exclude<ShieldOutcome, 'resumed'>): void {
    if (this.#state !== 'held') return
    this.#state = 'over'
    this.#waiting = []
    this.#calledOff?.abort()
    this.#options.pacer.over(this, outcome)
    // Not at once: whoever ends it does not expect it to end under its hands.
    queueMicrotask(() => {
      this.emit('end')
      this.emit('close')
    })
  }

  /** Tries once to come back. */
  async attempt(): Promise<Attempted> {
    const { backend, connection, version, packet, answerTimeoutMs } = this.#options
    if (this.#calledOff === null) return 'ended'
    const { signal } = this.#calledOff
    let stream: ByteStream | null = null
    try {
      const upstream = await backend.open(connection, signal)
      stream = upstream.stream
      stream.write(this.#isKept ? askingForSession(packet) : packet)
      const answer = await firstAnswer(stream, version, answerTimeoutMs, signal)
      if (!this.isHeld) {
        leave(stream)
        return 'ended'
      }
      const verdict = this.#judge(answer)
      if (verdict === 'resumed') this.#adopt(upstream, answer.rest)
      else leave(stream)
      return verdict
    } catch (error) {
      stream?.destroy()
      // Nothing of it is the device's fault, whatever it is; an error of ours is one all the same.
      return this.isHeld ? (asProxyError(error).code === 'ERR_INTERNAL' ? 'refused' : 'later') : 'ended'
    }
  }

  /** The broker keeps its session when it loses us: by its own word, or by what it was asked for. */
  get #isKept(): boolean {
    const { version, cleanStart, asked } = this.#options
    if (version === 4) return !cleanStart
    const granted = this.#first?.properties.get(PROPERTY.sessionExpiry) ?? asked.sessionExpirySeconds
    return typeof granted === 'number' && granted > 0
  }

  /** The broker had nothing of this device, and was given nothing to keep: another empty session is the same. */
  get #isEmpty(): boolean {
    return !this.#hadSession && !this.#journal.hasSubscribed
  }

  #judge({ connack, sessionPresent }: Answer): Attempted {
    const { version, asked } = this.#options
    if (connack.code !== 0) return isForNow(connack, version) ? 'later' : 'refused'
    if (!sessionPresent && !this.#isEmpty) return 'session_gone'
    return keepsPromises(this.#first!, connack, asked) ? 'resumed' : 'changed'
  }

  #newIncoming(): WholePackets {
    return new WholePackets(
      WHOLE_BYTES,
      (packet) => this.#hear(packet),
      (begin) => this.#journal.delivered(begin),
    )
  }

  #listen(stream: ByteStream): void {
    const isOurs = () => this.#stream === stream
    stream.on('data', (chunk: Buffer) => {
      if (isOurs()) this.#onData(chunk)
    })
    stream.on('drain', () => {
      if (isOurs()) this.#drained()
    })
    stream.on('end', () => {
      if (isOurs()) this.#lost('end')
    })
    stream.on('close', () => {
      if (isOurs()) this.#lost('close')
    })
  }

  #drained(): void {
    this.#full = false
    this.emit('drain')
  }

  #onData(chunk: Buffer): void {
    for (const piece of this.#incoming.push(chunk)) this.emit('data', piece)
    if (this.#goes && this.#state === 'live') this.#lost('end')
  }

  /** Of the broker. */
  #hear(packet: Buffer): boolean {
    const type = typeOf(packet)
    if (type === CONNACK && this.#first === null) this.#accepted(packet)
    else if (type === DISCONNECT) {
      const reason = packet[bodyAt(packet)] ?? 0
      if (GOES_ITSELF.has(reason) && this.#obstacle() === null) {
        this.#goes = true
        return false
      }
      this.#ending = true
    } else if (type === PINGRESP_TYPE) this.#pings = Math.max(0, this.#pings - 1)
    else this.#journal.heard(packet)
    return !this.#goes
  }

  #accepted(packet: Buffer): void {
    const body = packet.subarray(bodyAt(packet))
    const connack = readConnack(body, this.#options.version)
    if (connack === null || connack.code !== 0) return
    this.#first = connack
    this.#hadSession = (body[0]! & 1) === 1
    this.#options.pacer.arrived(this.peer)
  }

  /** Of the device. True: it goes on now. */
  #say(packet: Buffer): boolean {
    const type = typeOf(packet)
    if (type === DISCONNECT) this.#ending = true
    if (this.#state === 'live') {
      if (type === PINGREQ) this.#pings++
      this.#journal.said(packet)
      return true
    }
    if (type === PINGREQ) queueMicrotask(() => this.#pong())
    else if (type === DISCONNECT) queueMicrotask(() => this.giveUp('ended'))
    // What it acknowledges is the lost connection's; the broker will deliver it again, and the device answer again.
    else if (isAcknowledgement(type)) this.#journal.said(packet)
    else this.#wait(Buffer.from(packet), true)
    return false
  }

  #pong(): void {
    if (this.#state !== 'over') this.emit('data', PINGRESP)
  }

  #wait(bytes: Buffer, isPacket: boolean): void {
    this.#waiting.push({ bytes, isPacket })
    this.#waitingBytes += bytes.length
  }

  #lost(how: 'end' | 'close'): void {
    if (this.#state !== 'live') return
    if (!this.#isDecided) {
      this.#isDecided = true
      const { pacer } = this.#options
      if (this.#first !== null) {
        if (this.#ending) pacer.departed(this.peer)
        else pacer.lost(this.peer)
      }
      if (this.#first !== null && !this.#ending && !pacer.isClosing) {
        const obstacle = this.#obstacle()
        if (obstacle === null) {
          this.#hold()
          return
        }
        pacer.notHeld(obstacle)
      }
    }
    if (how === 'close') this.#state = 'over'
    this.emit(how)
  }

  /** Why not all would be as it was, were it held; null where it would. */
  #obstacle(): Exclude<ShieldOutcome, 'resumed'> | null {
    if (this.#options.enhancedAuth) return 'enhanced_auth'
    if (!this.#isKept && !this.#isEmpty) return 'no_session'
    // Half a packet was handed on, and its rest went with the connection.
    if (this.#incoming.oversized) return 'mid_packet'
    if (this.#outgoing.oversized) return 'unkept'
    const since = this.#options.pacer.now() - LOSSES_WITHIN_MS
    this.#losses = this.#losses.filter((at) => at > since)
    if (this.#losses.length >= MAX_LOSSES) return 'flapping'
    return this.#journal.obstacle
  }

  #hold(): void {
    const stream = this.#stream!
    this.#state = 'held'
    this.#stream = null
    stream.destroy()
    this.#losses.push(this.#options.pacer.now())
    this.#calledOff = new AbortController()
    this.#options.pacer.held(this)
    // Not at once: a write of the relay may be under way. The broker takes no more, and we do.
    queueMicrotask(() => {
      for (; this.#pings > 0; this.#pings--) this.#pong()
      if (this.isHeld && this.#full) this.#drained()
    })
  }

  #adopt({ stream, peer }: Upstream, rest: readonly Buffer[]): void {
    this.#state = 'live'
    this.#stream = stream
    this.peer = peer
    this.#goes = false
    this.#isDecided = false
    this.#incoming = this.#newIncoming()
    this.#listen(stream)
    // In the order of their first sending [MQTT-4.6.0-1]; the begin of the packet under way goes before its rest.
    for (const packet of this.#journal.again()) stream.write(packet)
    for (const { bytes, isPacket } of this.#waiting) {
      if (isPacket) this.#journal.said(bytes)
      stream.write(bytes)
    }
    for (const piece of this.#outgoing.tail) stream.write(piece)
    this.#waiting = []
    this.#waitingBytes = 0
    this.#options.pacer.over(this, 'resumed')
    this.#options.pacer.arrived(peer)
    this.#options.moved(peer)
    // Before the stream flows: nothing may overtake it.
    for (const chunk of rest) if (this.#stream === stream) this.#onData(chunk)
    if (this.#stream !== stream) return
    if (!this.#paused) stream.resume()
    if (stream.destroyed === true) this.#lost('close')
    else if (this.#full) this.#drained()
  }
}

/** A connection that was not the device's after all: without a goodbye the broker would publish a will for it. */
function leave(stream: ByteStream): void {
  const timer = setTimeout(() => stream.destroy(), LINGER_MS)
  stream.on('close', () => clearTimeout(timer))
  if (stream.destroyed === true) return
  stream.write(GOODBYE)
  stream.end()
  stream.resume()
}
