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

/** Looks at every chunk of one direction before it is forwarded. */
export interface Inspector {
  /**
   * Returns how many of the chunk's bytes may go on: all of them, or those before a fault. After fewer the relay
   * calls `refused` and forwards nothing more of this direction.
   */
  inspect(chunk: Buffer): number
  refused(): void
  /** Reading from this side stops because the other is slow, and goes on again. */
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

  pump(device, upstream, options.inbound, () => upstreamEnded)
  pump(upstream, device, options.outbound, () => deviceEnded)

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
      // What still comes in is thrown away. Left unread it would turn our close into a reset, and that would take
      // our last word from the device's hands (RFC 9293 §3.10.4; RFC 1122 §4.2.2.13).
      device.resume()
      upstream.resume()
    },
  }
}

/** One direction. The chunk that arrives is the chunk that leaves. */
function pump(from: ByteStream, to: ByteStream, inspector: Inspector, ended: () => boolean): void {
  from.on('data', (chunk: Buffer) => {
    if (ended()) return
    const pass = inspector.inspect(chunk)
    if (pass < chunk.length) {
      if (pass > 0) to.write(chunk.subarray(0, pass))
      inspector.refused()
      return
    }
    // `false` means `to` is past its high-water mark. Reading on would move a slow reader's backlog
    // into our heap, so the slowness is passed back instead: TCP tells the sender to wait.
    if (!to.write(chunk)) {
      from.pause()
      inspector.held(true)
    }
  })
  to.on('drain', () => {
    inspector.held(false)
    from.resume()
  })
}
