import { X509Certificate } from 'node:crypto'
import { EventEmitter } from 'node:events'
import type { Socket } from 'node:net'
import type { SecureContext } from 'node:tls'
import type { ByteStream } from './relay.ts'

/**
 * [hot] The second transport, where the runtime is Bun: a socket that `node:net` accepted or connected is lifted out of
 * its stream, and what carries the session sits on the runtime's own socket. No other file knows of it.
 *
 * `node:net` still binds, accepts and connects, so workers, pauses, PROXY headers and alerts are the same on both
 * transports. What is used here is what Bun's own `node:net` and `node:tls` use, and is documented nowhere: whatever is
 * not as expected leaves the connection on the portable transport, and Bun is pinned to an exact version.
 */
interface NativeSocket {
  /** What the handlers find on their socket; without it they do nothing. */
  data: unknown
  readonly authorized: boolean
  readonly localAddress: string
  readonly localPort: number
  /** Bytes taken, which may be fewer than there are; negative when the socket is gone. */
  write(chunk: Uint8Array): number
  pause(): void
  resume(): void
  /** Ends our side: close_notify and FIN. */
  shutdown(): void
  close(): void
  reload(options: { readonly socket: object }): void
  upgradeTLS(options: object): readonly [raw: NativeSocket, tls: NativeSocket] | undefined
  getTLSVersion(): string
  isSessionReused(): boolean
  getPeerX509Certificate(): X509Certificate | undefined
  /** `false`: with the issuers, as far as they were presented or are CAs of the context. */
  getPeerCertificate(abbreviated: false): Presented | undefined
}

interface Presented {
  readonly raw?: Uint8Array
  readonly issuerCertificate?: Presented
}

interface Wrapper {
  _handle: NativeSocket | null
}

/** What a socket needs to be lifted, and what it needs more once it speaks TLS. */
const CARRIES = ['write', 'pause', 'resume', 'shutdown', 'close', 'reload', 'upgradeTLS'] as const
const PROVES = ['getTLSVersion', 'isSessionReused', 'getPeerX509Certificate', 'getPeerCertificate'] as const

/** Private to the runtime, so no type tells of it. */
const wrapperOf = (socket: Socket): Wrapper => socket as unknown as Wrapper

/** Bytes of ours that may wait behind a full socket before `write` says no; Node's own mark for sockets. */
const HIGH_WATER = 65_536

/** True where the runtime has the second transport at all. */
export const CAN_LIFT = process.versions.bun !== undefined

function has(handle: object | null | undefined, methods: readonly (keyof NativeSocket)[]): boolean {
  return CAN_LIFT && handle !== null && handle !== undefined && methods.every((name) => methodOf(handle, name))
}

const methodOf = (handle: object, name: keyof NativeSocket) => typeof Reflect.get(handle, name) === 'function'

/** Nothing of ours waits in its stream, and the runtime's socket is what is expected. */
export function canLift(socket: Socket): boolean {
  return !socket.destroyed && socket.writableLength === 0 && has(wrapperOf(socket)._handle, CARRIES)
}

/** The runtime's socket of a TLS stream of either transport; null on Node. */
export function nativeOf(tls: Socket | LiftedTls): Presenter | null {
  const handle = tls instanceof Lifted ? tls.handle : wrapperOf(tls)._handle
  return has(handle, PROVES) ? handle : null
}

/** Who can be asked what the client presented. */
export type Presenter = Pick<NativeSocket, 'getPeerX509Certificate' | 'getPeerCertificate'>

/** What the client presented, leaf first, at most `limit` and one more. */
export function presentedBy(native: Presenter, limit: number): X509Certificate[] {
  const chain: X509Certificate[] = []
  let next = native.getPeerCertificate(false)
  while (next?.raw !== undefined && chain.length <= limit) {
    chain.push(new X509Certificate(next.raw))
    next = next.issuerCertificate === next ? undefined : next.issuerCertificate
  }
  return chain
}

/** What both kinds have in common: everything about bytes. */
abstract class Lifted extends EventEmitter implements ByteStream {
  destroyed = false
  readableEnded = false
  handle: NativeSocket | null = null
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
    super.on(event, listener as (...args: unknown[]) => void)
    if (event === 'data' && this.#flowing === null) this.resume()
    return this
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
    if (this.#received === null) this.handle?.resume()
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
    queueMicrotask(() => this.emit('close'))
    return this
  }

  /** Reading stops until somebody wants to read. */
  protected rest(): void {
    if (this.#flowing === null) this.handle?.pause()
  }

  onData(chunk: Buffer): void {
    if (this.#flowing === true && this.#received === null) this.#tell('data', chunk)
    else if (this.#received === null) this.#received = [chunk]
    else this.#received.push(chunk)
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
    if (this.#received === null) this.#endOfReading()
  }

  onFault(error: unknown): void {
    this.emit('_tlsError', error)
    this.destroy()
  }

  /** What a listener throws would become an `error` of this socket, and nobody would ever hear of it. */
  #tell(event: string, chunk?: Buffer): void {
    try {
      this.emit(event, chunk)
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

/** A connected socket, from which nothing has been read yet. */
class LiftedTcp extends Lifted {
  constructor(socket: Socket) {
    super()
    const wrapper = wrapperOf(socket)
    const handle = wrapper._handle!
    wrapper._handle = null
    handle.data = this
    handle.reload({ socket: HANDLERS })
    this.handle = handle
    this.rest()
  }
}

/** A connected socket from which nothing was read yet: lifted where it can be, or the socket itself. */
export function lifted(socket: Socket): ByteStream {
  const untouched = socket.readableLength === 0 && !socket.readableEnded
  return untouched && canLift(socket) ? new LiftedTcp(socket) : socket
}

interface Verdict {
  readonly code?: string
  readonly message?: string
}

/** Nothing known is not a yes. */
const UNJUDGED: Verdict = { code: 'UNKNOWN' }

/** Without the stack, which would stay as long as the session. */
function verdictOf(error: unknown): Verdict | null {
  if (error === undefined || error === null) return null
  const { code, message } = error as Verdict
  return { code: code ?? message ?? 'UNKNOWN' }
}

export interface LiftOptions {
  readonly context: SecureContext
  readonly requestCert: boolean
  readonly alpn: string | null
}

/**
 * TLS over an accepted socket whose first bytes were given back. Emits `secure` or `_tlsError` besides, as a TLSSocket
 * does, so that one handshake serves both.
 */
export class LiftedTls extends Lifted {
  #verdict: Verdict | null = UNJUDGED

  /** To be called once its events are listened to. Whoever waits for the end of the socket now waits for this. */
  begin(socket: Socket, { context, requestCert, alpn }: LiftOptions): void {
    const wrapper = wrapperOf(socket)
    const pair = wrapper._handle!.upgradeTLS({
      data: this,
      socket: HANDLERS,
      isServer: true,
      initialData: socket.read(socket.readableLength) ?? undefined,
      tls: {
        // The runtime's own context, inside of Node's.
        secureContext: (context as SecureContext & { readonly context: unknown }).context,
        requestCert,
        rejectUnauthorized: false,
        ...(alpn === null
          ? {}
          : { ALPNProtocols: Buffer.from(`${String.fromCharCode(alpn.length)}${alpn}`, 'latin1') }),
      },
    })
    if (pair === undefined) throw new Error('the socket has gone')
    const [raw, tls] = pair
    // It goes on telling of the encrypted bytes; without `data` its handlers, which are those of `node:net`, do nothing.
    raw.data = undefined
    wrapper._handle = null
    if (this.destroyed) tls.close()
    else this.handle = tls
    if (!has(tls, PROVES)) throw new Error('the TLS of this runtime is not as expected')
    // The emptied stream is let go, with the memory it has.
    for (const listener of socket.listeners('close')) this.once('close', listener as () => void)
    socket.removeAllListeners('close')
    socket.destroy()
  }

  getProtocol(): string | null {
    return this.handle?.getTLSVersion() ?? null
  }

  isSessionReused(): boolean {
    return this.handle?.isSessionReused() ?? false
  }

  get localAddress(): string | undefined {
    return this.handle?.localAddress
  }

  get localPort(): number | undefined {
    return this.handle?.localPort
  }

  /** As the binding of a TLSSocket has it; null: a valid path. */
  verifyError(): Verdict | null {
    return this.#verdict
  }

  onHandshake(succeeded: boolean, error: unknown): void {
    if (this.destroyed) return
    if (!succeeded) {
      this.onFault(error ?? new Error('the handshake failed'))
      return
    }
    this.#verdict = verdictOf(error) ?? (this.handle?.authorized === true ? null : UNJUDGED)
    this.rest()
    this.emit('secure')
  }
}

interface Owned {
  readonly data: LiftedTls | undefined
}

/** One table for all sockets: an idle session keeps nothing of it. */
const HANDLERS = {
  binaryType: 'buffer',
  open(): void {},
  handshake({ data }: Owned, succeeded: boolean, error: unknown): void {
    data?.onHandshake(succeeded, error)
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
