import type { ByteStream, StreamListener } from '../relay.ts'
import { Emitter } from './emitter.ts'
import type { NativeSocket } from './native.ts'

/** Bytes of ours that may wait behind a full socket before `write` says no; Node's own mark for sockets. */
const HIGH_WATER = 65_536

/** What both kinds have in common: everything about bytes. */
export abstract class Lifted extends Emitter implements ByteStream {
  destroyed = false
  readableEnded = false
  handle: NativeSocket | null = null
  /** In place of listeners to `data` and `drain`, and beside those of `end` and `close`. */
  #listener: StreamListener | null = null
  /** As with Node's streams: null until somebody pauses, resumes or listens to `data`. */
  #flowing: boolean | null = null
  /** What came while nobody wanted it: at most what the runtime reads at once. Null: nothing, the rule. */
  #received: Buffer[] | null = null
  /** What the socket did not take. Null: nothing, the rule. */
  #unsent: Uint8Array[] | null = null
  #unsentBytes = 0
  /** The peer said its last. */
  #peerEnded = false
  /** `end` was called; then, all that was written is out and our side is closed. */
  #ending = false
  #shut = false

  override on(event: string, listener: (...args: never[]) => void): this {
    // There is none: what breaks is told by `close`. Node's streams want somebody to listen to theirs.
    if (event === 'error') return this
    super.on(event, listener)
    if (event === 'data' && this.#flowing === null) this.resume()
    return this
  }

  attach(listener: StreamListener | null): void {
    this.#listener = listener
    if (listener === null) this.#flowing = null
    else if (this.#flowing === null) this.resume()
  }

  write(chunk: Uint8Array): boolean {
    const { handle } = this
    if (handle === null || this.#ending) return false
    if (this.#unsent !== null) {
      this.#unsent.push(chunk)
      this.#unsentBytes += chunk.length
      return this.#unsentBytes < HIGH_WATER
    }
    const taken = handle.write(chunk)
    if (taken === chunk.length) return true
    if (taken < 0) {
      // Not at once: whoever writes does not expect the stream to end under its hands.
      queueMicrotask(() => this.destroy())
      return false
    }
    this.#unsent = [chunk.subarray(taken)]
    this.#unsentBytes = chunk.length - taken
    return this.#unsentBytes < HIGH_WATER
  }

  pause(): this {
    if (this.#flowing === false) return this
    this.#flowing = false
    this.handle?.pause()
    return this
  }

  resume(): this {
    if (this.#flowing === true) return this
    this.#flowing = true
    // Not at once: whoever lets it flow does not expect bytes before it is done.
    if (this.#received === null && !this.#peerEnded) this.handle?.resume()
    else queueMicrotask(() => this.#deliver())
    return this
  }

  end(): this {
    if (this.#ending) return this
    this.#ending = true
    if (this.#unsent === null) this.#shutdown()
    return this
  }

  destroy(): this {
    if (this.destroyed) return this
    this.destroyed = true
    const { handle } = this
    this.handle = null
    this.#received = null
    this.#unsent = null
    if (handle !== null) {
      handle.data = undefined
      handle.close()
    }
    queueMicrotask(() => {
      this.#listener?.onClose()
      this.emit('close')
    })
    return this
  }

  /** As of `node:net`: gone once what was written is out. Nobody reads any more. */
  destroySoon(): this {
    if (this.#unsent === null) return this.destroy()
    this.readableEnded = true
    return this.end()
  }

  /** The peer has said its last, whether or not it was read. */
  get peerEnded(): boolean {
    return this.#peerEnded
  }

  /** All that was written is out, and our side is closed. */
  get writableFinished(): boolean {
    return this.#shut
  }

  /** Bytes that were looked at, to be read once more. Only while nobody reads. */
  unshift(chunk: Buffer): void {
    this.#received = this.#received === null ? [chunk] : [chunk, ...this.#received]
  }

  /** What has come and is not read; null when there is nothing. Only while nobody reads. */
  read(): Buffer | null {
    const received = this.#received
    this.#received = null
    if (received === null || received.length < 2) return received?.[0] ?? null
    return Buffer.concat(received)
  }

  onData(chunk: Buffer): void {
    if (this.#flowing === true && this.#received === null) this.#tell('data', chunk)
    else {
      if (this.#received === null) this.#received = [chunk]
      else this.#received.push(chunk)
      // Not before something comes that nobody wants: mostly nothing does, and to pause and go on are two system calls.
      if (this.#flowing === null) this.handle?.pause()
    }
  }

  onDrain(): void {
    const { handle } = this
    const unsent = this.#unsent
    if (handle === null || unsent === null) return
    for (let chunk = unsent[0]; chunk !== undefined; chunk = unsent[0]) {
      const taken = handle.write(chunk)
      if (taken < 0) return void this.destroy()
      this.#unsentBytes -= taken
      if (taken < chunk.length) {
        unsent[0] = chunk.subarray(taken)
        return
      }
      unsent.shift()
    }
    this.#unsent = null
    if (this.#ending) this.#shutdown()
    else this.#tell('drain')
  }

  onEnd(): void {
    this.#peerEnded = true
    if (this.#received === null) this.#endOfReading()
  }

  /** The socket is gone. What came in good order before is still handed over, as it would be by a stream of Node's. */
  onClose(error: unknown): void {
    if (this.destroyed) return
    this.handle = null
    const broken = error !== undefined && error !== null && !this.#peerEnded
    if (broken) return void this.destroy()
    this.#peerEnded = true
    // Its end has been told before: there is nothing left to tell but this.
    if (this.readableEnded) this.destroy()
    else if (this.#received === null) this.#endOfReading()
  }

  onHandshake?(succeeded: boolean, error: unknown): void

  onFault(error: unknown): void {
    this.emit('_tlsError', error)
    this.destroy()
  }

  /** What a listener throws would become an `error` of this socket, and nobody would ever hear of it. */
  #tell(event: 'data' | 'drain' | 'end', chunk?: Buffer): void {
    try {
      const listener = this.#listener
      if (listener === null) this.emit(event, chunk)
      else if (event === 'data') listener.onData(chunk!)
      else if (event === 'drain') listener.onDrain()
      else {
        listener.onEnd()
        this.emit(event)
      }
    } catch (thrown) {
      this.destroy()
      process.nextTick(() => {
        throw thrown
      })
    }
  }

  #deliver(): void {
    while (this.#flowing === true && this.#received !== null) {
      const chunk = this.#received.shift()!
      if (this.#received.length === 0) this.#received = null
      this.#tell('data', chunk)
    }
    if (this.destroyed || this.#received !== null) return
    if (this.#peerEnded) this.#endOfReading()
    else if (this.#flowing === true) this.handle?.resume()
  }

  #endOfReading(): void {
    if (this.readableEnded || this.destroyed) return
    this.readableEnded = true
    this.#tell('end')
    if (this.#shut || this.handle === null) this.destroy()
  }

  #shutdown(): void {
    this.#shut = true
    this.handle?.shutdown()
    if (this.readableEnded) this.destroy()
  }
}

interface Owned {
  readonly data: Lifted | undefined
}

/** One table for all sockets: an idle session keeps nothing of it. */
export const HANDLERS = {
  binaryType: 'buffer',
  open(): void {},
  handshake({ data }: Owned, succeeded: boolean, error: unknown): void {
    data?.onHandshake?.(succeeded, error)
  },
  data({ data }: Owned, chunk: Buffer): void {
    data?.onData(chunk)
  },
  drain({ data }: Owned): void {
    data?.onDrain()
  },
  end({ data }: Owned): void {
    data?.onEnd()
  },
  close({ data }: Owned, error: unknown): void {
    data?.onClose(error)
  },
  error({ data }: Owned, error: unknown): void {
    data?.onFault(error)
  },
}
