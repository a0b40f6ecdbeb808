/** [hot] Two pumps and one ending; the bytes' only way through. Nothing is copied, nothing is queued here. */

/**
 * What a session and the pumps need of a socket, and no more, so that a second transport fits.
 * A Node `Duplex` is one. Whoever makes a ByteStream listens to its `error`; `close` always follows.
 */
export interface ByteStream {
  /**
   * True once there is nothing more to come, in either direction; `close` may have been emitted already, and never is from
   * within a call.
   */
  readonly destroyed?: boolean
  /** True once `end` has been emitted: a socket does so even while paused. */
  readonly readableEnded?: boolean
  /** Of a WebSocket: what `end` tells the peer, 1000, or 1001 when this process goes away (RFC 6455 §7.4.1). */
  closeCode?: 1000 | 1001
  /** False past the high-water mark: read no more from the other side until `drain`. */
  write(chunk: Uint8Array): boolean
  pause(): unknown
  resume(): unknown
  end(): unknown
  destroy(error?: Error): unknown
  on(event: 'data', listener: (chunk: Buffer) => void): unknown
  on(event: 'drain' | 'end' | 'close', listener: () => void): unknown
  off(event: 'data', listener: (chunk: Buffer) => void): unknown
  off(event: 'drain' | 'end' | 'close', listener: () => void): unknown
  /** As `on` for every event at once, without a function for each: of streams that can. Null: nobody, as at the beginning. */
  attach?(listener: StreamListener | null): void
}

/** Whoever takes all that a stream tells. */
export interface StreamListener {
  onData(chunk: Buffer): void
  onDrain(): void
  onEnd(): void
  onClose(): void
}

/** What listens in place of a listener where the stream takes functions only. */
export interface Ears {
  readonly data: (chunk: Buffer) => void
  readonly drain: () => void
  readonly end: () => void
  readonly close: () => void
}

/** All that the stream tells goes to the listener. @returns what `unlisten` wants */
export function listen(stream: ByteStream, listener: StreamListener): Ears | null {
  if (stream.attach !== undefined) {
    stream.attach(listener)
    return null
  }
  const ears: Ears = {
    data: (chunk) => listener.onData(chunk),
    drain: () => listener.onDrain(),
    end: () => listener.onEnd(),
    close: () => listener.onClose(),
  }
  stream.on('data', ears.data)
  stream.on('drain', ears.drain)
  stream.on('end', ears.end)
  stream.on('close', ears.close)
  return ears
}

/** Nobody listens any more. What still comes is kept, and not much of it, for whoever listens next. */
export function unlisten(stream: ByteStream, ears: Ears | null): void {
  if (ears === null) {
    stream.attach?.(null)
    return
  }
  stream.pause()
  stream.off('data', ears.data)
  stream.off('drain', ears.drain)
  stream.off('end', ears.end)
  stream.off('close', ears.close)
}

/** One direction's way on, in the hands of its inspector. */
export interface Way {
  /** Bytes of this direction go on: the chunk itself, or a part of it. */
  pass(chunk: Uint8Array): void
  /** Something of ours to the same peer, between whole packets. A peer that does not take it is not read from either. */
  say(chunk: Uint8Array): void
  /** Reading the bytes of this direction stops, or may go on, for a reason of the inspector's own. */
  hold(on: boolean): void
}

/** Sees every chunk of one direction and passes on what may go on. */
export interface Inspector {
  /** Called once, before the first chunk. */
  attached(way: Way): void
  inspect(chunk: Buffer): void
  /** Reading from this side stops, and goes on again. */
  held(paused: boolean): void
  /** The other side takes no more of this direction, and has taken everything again. */
  full?(on: boolean): void
}

export type Side = 'downstream' | 'upstream'

export interface Relay {
  /**
   * Ends both sides at our own wish. `last` is written to the device first; what was written before still goes out,
   * within `lingerMs`.
   */
  close(last: Buffer | null): void
}

export interface RelayOptions {
  readonly inbound: Inspector
  readonly outbound: Inspector
  /** Called once, when the broker's side ends or breaks first: the last bytes for the device, or null. */
  upstreamLost(): Buffer | null
  /** True when the device has said goodbye: its reset is then no loss, and what was said still goes out. */
  deviceLeft?(): boolean
  /** Called once, when both sides are closed: which of them ended first, null when we did. */
  over(side: Side | null): void
  /** How long one side may stay open after the other has ended, in milliseconds. */
  readonly halfCloseMs: number
}

/** How long written bytes may take to leave after our own close, in milliseconds. */
const LINGER_MS = 2_000
/** What a device may still send after our last word before it is cut off, in bytes: about what was under way. */
const MAX_THROWN_AWAY = 262_144

/**
 * What still comes from a device that has heard our last word is thrown away. Left unread it would turn our close into a
 * reset, and that would take the last word from the device's hands (RFC 9293 §3.10.4; RFC 1122 §4.2.2.13). Who goes on
 * and on is not read for as long as the close takes, but cut off.
 */
export function throwAway(device: ByteStream): void {
  let bytes = 0
  device.on('data', (chunk) => {
    bytes += chunk.length
    if (bytes > MAX_THROWN_AWAY && device.destroyed !== true) device.destroy()
  })
  device.resume()
}

export function relay(device: ByteStream, upstream: ByteStream, options: RelayOptions): Relay {
  return new Relayed(device, upstream, options)
}

/** No closures: an idle session holds nothing but this and its two ends. */
class Relayed implements Relay {
  readonly #options: RelayOptions
  readonly #device: End
  readonly #upstream: End
  #first: Side | null | undefined
  #closing = false
  #isOver = false
  #timer: NodeJS.Timeout | null = null

  constructor(device: ByteStream, upstream: ByteStream, options: RelayOptions) {
    this.#options = options
    this.#device = new End(this, device, options.inbound)
    this.#upstream = new End(this, upstream, options.outbound)
    this.#device.start(this.#upstream)
    this.#upstream.start(this.#device)
    // Either may have ended before we listened: a broker was looked for, and the device did not wait.
    // Not at once, because what came with CONNECT is still to be written.
    queueMicrotask(() => {
      this.#device.look()
      this.#upstream.look()
    })
  }

  close(last: Buffer | null): void {
    if (this.#closing) return
    this.#closing = true
    if (this.#first === undefined) this.#first = null
    this.#device.end(last)
    this.#upstream.end(null)
    this.#within(LINGER_MS)
    this.#device.throwAway()
    this.#upstream.stream.resume()
  }

  /** Half-close: a device may finish sending and still wait for its last messages, but not for ever. */
  ended(end: End): void {
    if (end === this.#device) {
      this.#isFirst('downstream')
      this.#upstream.end(null)
    } else this.#endDevice()
    if (!this.#closing) this.#within(this.#options.halfCloseMs)
  }

  closed(end: End): void {
    if (end === this.#device) this.#deviceClosed()
    else {
      this.#upstream.ended = true
      this.#endDevice()
      // What the device has not taken yet still goes out; its silence does not hold us.
      this.#device.stream.resume()
      if (!this.#closing) this.#within(LINGER_MS)
    }
    // What is told here may have closed the other side, which has then told it already.
    if (this.#isOver || !this.#device.isClosed || !this.#upstream.isClosed) return
    this.#isOver = true
    if (this.#timer !== null) clearTimeout(this.#timer)
    this.#options.over(this.#first ?? null)
  }

  /**
   * A reset: the broker must see the loss at once, because it owes the world a will. After an end in good order it must not:
   * what the device said last, its DISCONNECT, may still be on the way.
   */
  #deviceClosed(): void {
    const upstream = this.#upstream
    this.#isFirst('downstream')
    this.#device.ended = true
    if (upstream.ended || this.#options.deviceLeft?.() === true) {
      upstream.end(null)
      upstream.stream.resume()
      if (!this.#closing) this.#within(LINGER_MS)
    } else {
      upstream.ended = true
      upstream.stream.destroy()
    }
  }

  #endDevice(): void {
    this.#device.end(this.#isFirst('upstream') ? this.#options.upstreamLost() : null)
  }

  #isFirst(side: Side): boolean {
    if (this.#first !== undefined) return false
    this.#first = side
    return true
  }

  /** Both sides are gone by then, whatever the peers do. */
  #within(ms: number): void {
    if (this.#timer !== null) clearTimeout(this.#timer)
    this.#timer = setTimeout(() => {
      this.#device.stream.destroy()
      this.#upstream.stream.destroy()
    }, ms)
  }
}

/** The other side takes no more. */
const FULL = 1
/** This side does not take our answers to what it says. */
const UNHEARD = 2
/** The inspector wants it so. */
const ASKED = 4

/** One peer, and the direction that begins at it. The chunk that arrives is the chunk that leaves. */
class End implements StreamListener, Way {
  readonly stream: ByteStream
  /** Nothing more is written to it. */
  ended = false
  isClosed = false
  readonly #relay: Relayed
  readonly #inspector: Inspector
  #other!: End
  #holds = 0
  /** Bytes since our last word; below 0 before it. */
  #thrownAway = -1

  constructor(owner: Relayed, stream: ByteStream, inspector: Inspector) {
    this.#relay = owner
    this.stream = stream
    this.#inspector = inspector
  }

  start(other: End): void {
    this.#other = other
    this.#inspector.attached(this)
    listen(this.stream, this)
  }

  /** As the function of this name, where this is the one that is told what comes. */
  throwAway(): void {
    this.#thrownAway = 0
    this.stream.resume()
  }

  look(): void {
    if (this.stream.destroyed === true) this.onClose()
    else if (this.stream.readableEnded === true) this.onEnd()
  }

  end(last: Buffer | null): void {
    if (this.ended) return
    this.ended = true
    if (last !== null) this.stream.write(last)
    this.stream.end()
  }

  onData(chunk: Buffer): void {
    if (this.#other.ended) this.#drop(chunk)
    else this.#inspector.inspect(chunk)
  }

  onDrain(): void {
    this.#other.#release(FULL)
    this.#release(UNHEARD)
  }

  onEnd(): void {
    this.#relay.ended(this)
  }

  onClose(): void {
    if (this.isClosed) return
    this.isClosed = true
    this.#relay.closed(this)
  }

  pass(chunk: Uint8Array): void {
    const other = this.#other
    if (other.ended) return
    // `false` means `other` is past its high-water mark. Reading on would move a slow reader's backlog
    // into our heap, so the slowness is passed back instead: TCP tells the sender to wait.
    if (!other.stream.write(chunk)) this.#hold(FULL)
  }

  say(chunk: Uint8Array): void {
    const other = this.#other
    if (other.ended || other.stream.write(chunk)) return
    this.#hold(FULL)
    // It asks and does not listen: asking more would only fill our heap with answers.
    other.#hold(UNHEARD)
  }

  hold(on: boolean): void {
    if (!on) this.#release(ASKED)
    else if (!this.#other.ended) this.#hold(ASKED)
  }

  #drop(chunk: Buffer): void {
    if (this.#thrownAway < 0) return
    this.#thrownAway += chunk.length
    if (this.#thrownAway > MAX_THROWN_AWAY && this.stream.destroyed !== true) this.stream.destroy()
  }

  #hold(reason: number): void {
    const before = this.#holds
    this.#holds |= reason
    if (reason === FULL && (before & FULL) === 0) this.#inspector.full?.(true)
    if (before !== 0) return
    this.stream.pause()
    this.#inspector.held(true)
  }

  #release(reason: number): void {
    if ((this.#holds & reason) === 0) return
    this.#holds &= ~reason
    if (reason === FULL) this.#inspector.full?.(false)
    if (this.#holds !== 0) return
    this.#inspector.held(false)
    this.stream.resume()
  }
}
