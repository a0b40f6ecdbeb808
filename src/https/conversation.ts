import { Socket } from 'node:net'
import type { Authenticated } from '../auth/authenticator.ts'
import type { CloseReason, SecuredConnection, Trace } from '../connection.ts'
import { FAILURES, type FailureCode, ProxyError } from '../errors.ts'
import type { Answer } from './answer.ts'
import { type HttpLimits, LIFETIME_MS, LINGER_BYTES, LINGER_MS, MAX_WAITING, type Timer } from './limits.ts'
import { writeAnswer } from './raw.ts'

/** What ends a connection from outside. */
export interface Closable {
  close(code: FailureCode): void
}

/** An X.509 identity, judged once per connection. */
export interface Held {
  readonly who: Authenticated
  /** `performance.now()` at which it has to be judged anew. */
  readonly until: number
}

/** node:http reads from a socket of Node's, and only connections that carry no HTTP have another. */
export function nodeSocketOf({ tls }: SecuredConnection): Socket {
  if (tls instanceof Socket) return tls
  throw new ProxyError('ERR_INTERNAL', 'HTTP on a stream that is no socket')
}

/**
 * One device's HTTP connection: its requests one after the other, its deadlines, its one ending. A server that never
 * listens does not run its own timeouts, so they are here.
 */
export class Conversation implements Closable {
  readonly connection: SecuredConnection
  readonly trace: Trace
  /** How the connection ended; rejects with the failure of its last request, or with what broke it. */
  readonly done: Promise<CloseReason>
  held: Held | null = null
  readonly #limits: HttpLimits
  readonly #timer: Timer
  /** Counts and logs a refusal that no request answers for. */
  readonly #refusal: (error: ProxyError) => Answer
  readonly #socket: Socket
  readonly #settle: { resolve(reason: CloseReason): void; reject(error: ProxyError): void }
  /** Aborted when the device is gone. */
  readonly #gone = new AbortController()
  /** Aborted when nothing more can be read: the device is gone, or its bytes make no sense. */
  readonly #unreadable = new AbortController()
  #turn: Promise<void> = Promise.resolve()
  #waiting = 0
  /** No request is taken up any more. */
  #broken = false
  /** Set: the next answer is the last. */
  #closing: FailureCode | null = null
  /** The next answer is the last, and a wait for its request is no failure. */
  #retired = false
  #failure: ProxyError | null = null
  #started = false
  #idle = true
  #handedOver = false
  #cancel: () => void
  readonly #cancelLife: () => void
  readonly #tap = (chunk: Buffer) => this.#look(chunk)

  /** Bytes that came after our end; null before it. */
  #thrownAway: number | null = null

  constructor(
    connection: SecuredConnection,
    trace: Trace,
    limits: HttpLimits,
    timer: Timer,
    refusal: (error: ProxyError) => Answer,
  ) {
    this.#refusal = refusal
    this.connection = connection
    this.trace = trace
    this.#limits = limits
    this.#timer = timer
    this.#socket = nodeSocketOf(connection)
    const { promise, resolve, reject } = Promise.withResolvers<CloseReason>()
    this.done = promise
    this.#settle = { resolve, reject }
    const left = limits.headerTimeoutMs - (performance.now() - connection.securedAt)
    this.#cancel = timer(() => this.#late(), Math.max(0, left))
    this.#cancelLife = timer(() => this.close('ERR_MAX_CONNECT_TIME'), LIFETIME_MS)
    this.#socket.once('close', () => this.#closed())
    if (this.#socket.destroyed) this.#closed()
  }

  /** To be called once the parser listens: the tap goes before it. */
  listen(): void {
    this.#socket.prependListener('data', this.#tap)
  }

  get gone(): AbortSignal {
    return this.#gone.signal
  }

  get unreadable(): AbortSignal {
    return this.#unreadable.signal
  }

  /** True where the answer being written must be the last one. */
  get last(): boolean {
    return this.#broken || this.#closing !== null || this.#retired
  }

  /** Requests that have come behind the one being served. */
  get pipelined(): number {
    return Math.max(0, this.#waiting - 1)
  }

  get broken(): boolean {
    return this.#broken
  }

  /** Serves one request when those before it are answered. */
  take(serve: () => Promise<void>): void {
    if (this.#broken) return
    if (this.#waiting > MAX_WAITING) {
      this.destroy('ERR_HTTP_MALFORMED', 'too many requests at once')
      return
    }
    this.#cancel()
    this.#idle = false
    this.#waiting++
    this.trace.requests++
    this.#turn = this.#turn.then(async () => {
      try {
        if (!this.#broken) await serve()
      } catch (error) {
        this.destroy('ERR_INTERNAL', error instanceof Error ? error.message : String(error))
      }
      this.#waiting--
      if (this.#waiting === 0) this.#rest()
    })
  }

  /** What the connection is remembered for: the failure of its last request, null for one that went well. */
  remember(failure: ProxyError | null): void {
    if (!this.#socket.destroyed) this.#failure = failure
  }

  /** The bytes make no sense from here on: what is being read breaks off, and one answer tells it in its turn. */
  malformed(error: ProxyError): void {
    if (this.#broken) return
    this.#cancel()
    this.#unreadable.abort(error)
    this.#turn = this.#turn.then(() => {
      // A request that was being read has answered for itself.
      if (this.#broken) return
      this.remember(error)
      writeAnswer(this.#socket, this.#refusal(error))
      this.linger()
    })
  }

  /** Nothing that comes from here on is served. */
  break(): void {
    this.#broken = true
  }

  /** Ends our side; what still comes is thrown away for a while. */
  linger(): void {
    this.break()
    this.#cancel()
    this.#socket.end()
    if (this.#thrownAway === null) {
      this.#thrownAway = 0
      this.#socket.on('data', (chunk: Buffer) => this.#drop(chunk.length))
    }
    this.#socket.resume()
    this.#cancel = this.#timer(() => this.#socket.destroy(), LINGER_MS)
  }

  /** Who goes on and on is not read for as long as the end takes, but cut off. */
  #drop(bytes: number): void {
    this.#thrownAway = (this.#thrownAway ?? 0) + bytes
    if (this.#thrownAway > LINGER_BYTES && !this.#socket.destroyed) this.#socket.destroy()
  }

  destroy(code: FailureCode | null, detail: string): void {
    if (code !== null) this.remember(new ProxyError(code, detail))
    this.break()
    this.#socket.destroy()
  }

  /** A device may be sending a request just now: it is answered, and told that this was the last one. */
  endWithNextAnswer(): void {
    this.#retired = true
  }

  /** From outside: at once where nothing is being served, else after the answer. */
  close(code: FailureCode): void {
    this.#closing ??= code
    if (this.#handedOver) return
    if (this.#waiting > 0) return
    this.remember(new ProxyError(code, FAILURES[code].help))
    this.linger()
  }

  /** No request after this one: who waits between two is told at once, who has not asked yet may ask once. */
  drain(): void {
    this.#closing ??= 'ERR_DRAINING'
    if (this.#started && this.#idle) this.close('ERR_DRAINING')
  }

  /** The socket belongs to another protocol now, which ends it; `ending` is then how this connection ended. */
  handOver(ending: Promise<CloseReason>): void {
    this.#handedOver = true
    this.break()
    this.#cancel()
    this.#cancelLife()
    void ending.then(this.#settle.resolve, this.#settle.reject)
  }

  /** The parser has let go of the socket. */
  released(): void {
    this.#socket.off('data', this.#tap)
  }

  /** Before the parser: does this look like HTTP, and has a new head begun? */
  #look(chunk: Buffer): void {
    if (!this.#idle || this.#broken) return
    this.#idle = false
    if (this.#started) {
      this.#cancel()
      this.#cancel = this.#timer(() => this.#late(), this.#limits.headerTimeoutMs)
    } else if (!beginsRequest(chunk[0]!)) {
      // Nothing is reflected to a client of another protocol (ALPACA): no answer.
      this.destroy('ERR_HTTP_MALFORMED', 'the first byte is not one of HTTP')
    }
    this.#started = true
  }

  #rest(): void {
    if (this.#broken || this.#socket.destroyed) return
    if (this.#closing !== null) {
      this.close(this.#closing)
      return
    }
    this.#idle = true
    this.#cancel()
    this.#cancel = this.#timer(() => this.linger(), this.#limits.idleTimeoutMs)
  }

  #late(): void {
    const error = new ProxyError('ERR_HTTP_TIMEOUT', 'no whole request head in time')
    // A client that said nothing gets nothing.
    if (this.#idle) this.destroy(error.code, error.message)
    else this.malformed(error)
  }

  #closed(): void {
    this.break()
    this.#cancel()
    this.#cancelLife()
    const left = new ProxyError('ERR_HTTP_MALFORMED', 'the device left')
    this.#unreadable.abort(left)
    this.#gone.abort(left)
    if (this.#handedOver) return
    if (this.#failure === null) this.#settle.resolve('downstream')
    else this.#settle.reject(this.#failure)
  }
}

/** Methods are upper-case tokens here; empty lines before a request are allowed (RFC 9112 §2.2). */
function beginsRequest(byte: number): boolean {
  return (byte >= 0x41 && byte <= 0x5a) || byte === 0x0d || byte === 0x0a
}
