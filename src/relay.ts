/** [hot] Two pumps and one ending; the bytes' only way through. Nothing is copied, nothing is queued here. */

/**
 * What a session and the pumps need of a socket, and no more, so that a second transport fits.
 * A Node `Duplex` is one. Whoever makes a ByteStream listens to its `error`; `close` always follows.
 */
export interface ByteStream {
  /** True once there is nothing more to come, in either direction; `close` may have been emitted already. */
  readonly destroyed?: boolean
  /** True once `end` has been emitted: a socket does so even while paused. */
  readonly readableEnded?: boolean
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
}

export type Side = 'downstream' | 'upstream'

export interface Relay {
  /**
   * Ends both sides at our own wish. `last` is written to the device first; what was written before still goes out,
   * within `lingerMs`.
   */
  close(last: Buffer | null): void
  /** Which side ended first, once both are closed; null when we did. */
  readonly done: Promise<Side | null>
}

export interface RelayOptions {
  readonly inbound: Inspector
  readonly outbound: Inspector
  /** Called once, when the broker's side ends or breaks first: the last bytes for the device, or null. */
  upstreamLost(): Buffer | null
  /** True when the device has said goodbye: its reset is then no loss, and what was said still goes out. */
  deviceLeft?(): boolean
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
  let first: Side | null | undefined
  let open = 2
  let deviceEnded = false
  let upstreamEnded = false
  let deviceClosed = false
  let upstreamClosed = false
  let closing = false
  let timer: NodeJS.Timeout | null = null
  let resolve: (side: Side | null) => void
  const done = new Promise<Side | null>((settle) => {
    resolve = settle
  })

  /** Both sides are gone by then, whatever the peers do. */
  const within = (ms: number) => {
    if (timer !== null) clearTimeout(timer)
    timer = setTimeout(() => {
      device.destroy()
      upstream.destroy()
    }, ms)
  }
  const endDevice = (last: Buffer | null) => {
    if (deviceEnded) return
    deviceEnded = true
    if (last !== null) device.write(last)
    device.end()
  }
  const endUpstream = () => {
    if (upstreamEnded) return
    upstreamEnded = true
    upstream.end()
  }
  const closed = () => {
    if (--open > 0) return
    if (timer !== null) clearTimeout(timer)
    resolve(first ?? null)
  }

  const inbound = new Pump(device, upstream, options.inbound, () => upstreamEnded)
  const outbound = new Pump(upstream, device, options.outbound, () => deviceEnded)
  inbound.start(outbound)
  outbound.start(inbound)

  // Half-close: a device may finish sending and still wait for its last messages, but not for ever.
  const onDeviceEnd = () => {
    if (first === undefined) first = 'downstream'
    endUpstream()
    if (!closing) within(options.halfCloseMs)
  }
  const onUpstreamEnd = () => {
    const lost = first === undefined
    if (lost) first = 'upstream'
    endDevice(lost ? options.upstreamLost() : null)
    if (!closing) within(options.halfCloseMs)
  }
  // A reset: the broker must see the loss at once, because it owes the world a will. After an end in good order it
  // must not: what the device said last, its DISCONNECT, may still be on the way.
  const onDeviceClose = () => {
    if (deviceClosed) return
    deviceClosed = true
    if (first === undefined) first = 'downstream'
    deviceEnded = true
    if (upstreamEnded || options.deviceLeft?.() === true) {
      endUpstream()
      upstream.resume()
      if (!closing) within(LINGER_MS)
    } else {
      upstreamEnded = true
      upstream.destroy()
    }
    closed()
  }
  const onUpstreamClose = () => {
    if (upstreamClosed) return
    upstreamClosed = true
    const lost = first === undefined
    if (lost) first = 'upstream'
    upstreamEnded = true
    endDevice(lost ? options.upstreamLost() : null)
    // What the device has not taken yet still goes out; its silence does not hold us.
    device.resume()
    if (!closing) within(LINGER_MS)
    closed()
  }
  device.on('end', onDeviceEnd)
  upstream.on('end', onUpstreamEnd)
  device.on('close', onDeviceClose)
  upstream.on('close', onUpstreamClose)
  // Either may have ended before we listened: a broker was looked for, and the device did not wait.
  // Not at once, because what came with CONNECT is still to be written.
  queueMicrotask(() => {
    if (device.destroyed === true) onDeviceClose()
    else if (device.readableEnded === true) onDeviceEnd()
    if (upstream.destroyed === true) onUpstreamClose()
    else if (upstream.readableEnded === true) onUpstreamEnd()
  })

  return {
    done,
    close(last) {
      if (closing) return
      closing = true
      if (first === undefined) first = null
      endDevice(last)
      endUpstream()
      within(LINGER_MS)
      throwAway(device)
      upstream.resume()
    },
  }
}

/** The other side takes no more. */
const FULL = 1
/** This side does not take our answers to what it says. */
const UNHEARD = 2
/** The inspector wants it so. */
const ASKED = 4

/** One direction. The chunk that arrives is the chunk that leaves. */
class Pump implements Way {
  readonly #from: ByteStream
  readonly #to: ByteStream
  readonly #inspector: Inspector
  readonly #ended: () => boolean
  #opposite: Pump | null = null
  #holds = 0

  constructor(from: ByteStream, to: ByteStream, inspector: Inspector, ended: () => boolean) {
    this.#from = from
    this.#to = to
    this.#inspector = inspector
    this.#ended = ended
  }

  start(opposite: Pump): void {
    this.#opposite = opposite
    this.#inspector.attached(this)
    this.#from.on('data', (chunk: Buffer) => {
      if (!this.#ended()) this.#inspector.inspect(chunk)
    })
    this.#to.on('drain', () => {
      this.#release(FULL)
      opposite.#release(UNHEARD)
    })
  }

  pass(chunk: Uint8Array): void {
    if (this.#ended()) return
    // `false` means `to` is past its high-water mark. Reading on would move a slow reader's backlog
    // into our heap, so the slowness is passed back instead: TCP tells the sender to wait.
    if (!this.#to.write(chunk)) this.#hold(FULL)
  }

  say(chunk: Uint8Array): void {
    if (this.#ended() || this.#to.write(chunk)) return
    this.#hold(FULL)
    // It asks and does not listen: asking more would only fill our heap with answers.
    if (this.#opposite !== null) this.#opposite.#hold(UNHEARD)
  }

  hold(on: boolean): void {
    if (!on) this.#release(ASKED)
    else if (!this.#ended()) this.#hold(ASKED)
  }

  #hold(reason: number): void {
    const before = this.#holds
    this.#holds |= reason
    if (before !== 0) return
    this.#from.pause()
    this.#inspector.held(true)
  }

  #release(reason: number): void {
    if ((this.#holds & reason) === 0) return
    this.#holds &= ~reason
    if (this.#holds !== 0) return
    this.#inspector.held(false)
    this.#from.resume()
  }
}
