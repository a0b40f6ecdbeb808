/** [hot] A WebSocket as the byte stream that MQTT is served over: MQTT 5.0 §6, RFC 6455. */
import { EventEmitter } from 'node:events'
import type { Duplex } from 'node:stream'
import type { FailureCode } from '../errors.ts'
import type { ByteStream } from '../relay.ts'
import type { LateClosingWebSocket } from './web-socket.ts'

/** Why a WebSocket was closed by us: what the peer did, for the log and the metrics. */
export interface WebSocketFault {
  readonly code: FailureCode
  readonly detail: string
}

/** Who sends what: only a client masks its frames (RFC 6455 §5.3). */
export type Role = 'server' | 'client'

export interface WebSocketStreamOptions {
  readonly role: Role
  /**
   * Bytes that may arrive without a whole message among them until the reader has paused and gone on once. The session
   * pauses when CONNECT is whole and goes on only with a device that was let in, so that strangers can make us hold no
   * more than this, and FRAMING_BYTES for the headers of its frames. Infinity sets no limit.
   */
  readonly firstMessageBytes: number
  /** How long the peer waits for the answer to its Close while there may be more to write, in milliseconds. */
  readonly answerMs?: number
}

/** Close codes of RFC 6455 §7.4.1. */
const NORMAL = 1000
const GOING_AWAY = 1001
const UNSUPPORTED_DATA = 1003
const TOO_BIG = 1009

/** What the package says about a peer's frame, where it is not simply against the rules. */
const TOO_LARGE: ReadonlySet<string> = new Set([
  'WS_ERR_UNSUPPORTED_MESSAGE_LENGTH',
  'WS_ERR_UNSUPPORTED_DATA_PAYLOAD_LENGTH',
  'WS_ERR_TOO_MANY_BUFFERED_PARTS',
])

const ANSWER_MS = 1_000

/** Messages of one read are joined up to here: a copy of a few bytes is cheaper than a write of its own. */
const JOIN_BYTES = 65_536

/** Up to here header and payload are copied into one buffer; above, they are written as they are. */
const COPY_BYTES = 4_096

/** Headers of a first message in fragments, and what else may come before it is whole: pings. */
const FRAMING_BYTES = 4_096

const BINARY = 0x82

/**
 * - In: the payloads of binary messages, in order; message boundaries mean nothing to MQTT and are not kept. One
 *   `data` may hold several messages. Out: one binary message for each `write`.
 * - `end` comes with the peer's Close or FIN, after all data. Our own Close follows with `end()`, or after ANSWER_MS;
 *   what is written later is dropped. `close` comes exactly once, in every case.
 * - A text frame and a frame against RFC 6455 end the stream at once, and `fault` says why.
 * - While paused at most one message and one read of the socket wait here.
 */
export class WebSocketStream extends EventEmitter implements ByteStream {
  readableEnded = false
  destroyed = false
  fault: WebSocketFault | null = null
  /** What `end()` tells the peer. */
  closeCode: typeof NORMAL | typeof GOING_AWAY = NORMAL

  readonly #webSocket: LateClosingWebSocket
  readonly #socket: Duplex
  readonly #role: Role
  /** null until somebody listens or says so, as with a stream of Node's. */
  #flowing: boolean | null = null
  #pending: Buffer[] = []
  #flushing = false
  #needsDrain = false
  /** Nothing more will be pending; `end` follows what is. */
  #over = false
  /** The connection is gone; `close` follows what is pending. */
  #gone = false
  #closed = false
  #peerCode: number | undefined
  #answerTimer: NodeJS.Timeout | null = null
  /** The last ping that waits for the pong before it (RFC 6455 §5.5.3); null: none waits. */
  #ping: Buffer | null = null
  #ponging = false
  #hasPaused = false
  /** Bytes read since the last whole message. */
  #unread = 0
  #sawMessage = false
  /** Nothing more is read of a stranger who sent too much. */
  #isHeld = false
  readonly #firstMessageBytes: number
  readonly #answerMs: number

  constructor(webSocket: LateClosingWebSocket, socket: Duplex, options: WebSocketStreamOptions) {
    super()
    this.#webSocket = webSocket
    this.#socket = socket
    this.#role = options.role
    this.#firstMessageBytes = options.firstMessageBytes
    this.#answerMs = options.answerMs ?? ANSWER_MS
    // Fragments come as they are, not joined by a copy.
    webSocket.binaryType = 'fragments'
    webSocket.pause()
    webSocket.peerClosed = (code) => this.#onPeerClose(code)
    // What `fragments` gives, whatever the types allow.
    webSocket.on('message', (fragments, isBinary) => this.#onMessage(fragments as Buffer[], isBinary))
    webSocket.on('ping', (data) => this.#onPing(data))
    webSocket.on('error', (error) => this.#onError(error))
    webSocket.on('close', () => this.#onClose())
    socket.on('drain', () => this.#onDrain())
    // A FIN without a Close is an end as well; the package shuts our side too.
    socket.on('end', () => this.#onOver())
    if (Number.isFinite(options.firstMessageBytes)) socket.on('data', this.#watchFirst)
  }

  write(chunk: Uint8Array): boolean {
    const socket = this.#socket
    const { length } = chunk
    // A message of no bytes says nothing in MQTT.
    if (length === 0) return true
    if (this.#webSocket.readyState !== this.#webSocket.OPEN || socket.writableEnded || socket.destroyed) return true
    if (this.#role === 'client') this.#webSocket.send(chunk)
    else if (length <= COPY_BYTES) socket.write(frame(chunk))
    else {
      socket.cork()
      socket.write(header(length))
      socket.write(chunk)
      socket.uncork()
    }
    if (!socket.writableNeedDrain) return true
    this.#needsDrain = true
    return false
  }

  pause(): this {
    this.#flowing = false
    this.#hasPaused = true
    this.#webSocket.pause()
    return this
  }

  resume(): this {
    if (this.#flowing === true) return this
    this.#flowing = true
    const isOpen = this.#webSocket.readyState === this.#webSocket.OPEN
    // Whoever is refused is ended first, and stays a stranger.
    if (this.#hasPaused && isOpen) this.#socket.off('data', this.#watchFirst)
    if (!this.#isHeld) this.#webSocket.resume()
    this.#schedule()
    return this
  }

  end(): this {
    this.#answer(this.#over ? this.#peerCode : this.closeCode)
    return this
  }

  destroy(): this {
    if (this.destroyed) return this
    this.destroyed = true
    this.#pending = []
    this.#webSocket.terminate()
    if (this.#gone) process.nextTick(() => this.#emitClose())
    return this
  }

  override on(event: 'data', listener: (chunk: Buffer) => void): this
  override on(event: 'drain' | 'end' | 'close', listener: () => void): this
  // biome-ignore lint/suspicious/noExplicitAny: the implementation's signature, which nobody sees
  override on(event: string, listener: (...args: any[]) => void): this {
    super.on(event, listener)
    if (event === 'data' && this.#flowing === null) this.resume()
    return this
  }

  #onMessage(fragments: readonly Buffer[], isBinary: boolean): void {
    if (this.fault !== null || this.destroyed) return
    if (!isBinary) {
      this.#fail('ERR_WEBSOCKET', 'a text frame', UNSUPPORTED_DATA)
      return
    }
    this.#sawMessage = true
    for (const fragment of fragments) this.#pending.push(fragment)
    if (this.#flowing === true) this.#schedule()
  }

  /** Once for all messages of one read, when the package is through with it. */
  #schedule(): void {
    if (this.#flushing) return
    this.#flushing = true
    queueMicrotask(this.#flush)
  }

  readonly #flush = (): void => {
    this.#flushing = false
    while (this.#flowing === true && this.#pending.length > 0) this.emit('data', this.#take())
    this.#settle()
  }

  #take(): Buffer {
    const pending = this.#pending
    let count = 1
    let bytes = pending[0]!.length
    while (count < pending.length && bytes + pending[count]!.length <= JOIN_BYTES) bytes += pending[count++]!.length
    return count === 1 ? pending.shift()! : Buffer.concat(pending.splice(0, count), bytes)
  }

  #settle(): void {
    if (this.#pending.length > 0) return
    if (this.#over && !this.destroyed) this.#emitEnd()
    if (this.#gone) this.#emitClose()
  }

  #onPeerClose(code: number | undefined): void {
    this.#peerCode = code
    // Where ours was first, this is its answer.
    if (this.#webSocket.readyState !== this.#webSocket.OPEN) this.#webSocket.finish(code)
    else this.#answerTimer = setTimeout(() => this.#answer(code), this.#answerMs)
    this.#onOver()
  }

  #onOver(): void {
    if (this.#over) return
    this.#over = true
    this.#schedule()
  }

  #answer(code: number | undefined): void {
    if (this.#answerTimer !== null) clearTimeout(this.#answerTimer)
    this.#answerTimer = null
    this.#webSocket.finish(code)
  }

  #onError(error: Error & { readonly code?: string }): void {
    const code = TOO_LARGE.has(error.code ?? '') ? 'ERR_WEBSOCKET_TOO_LARGE' : 'ERR_WEBSOCKET'
    this.#fail(code, error.message, null)
  }

  /** Nothing of what waits goes on: the bytes before a fault are not worth more than the fault. */
  #fail(code: FailureCode, detail: string, closeCode: number | null): void {
    if (this.fault !== null) return
    this.fault = { code, detail }
    this.#pending = []
    if (closeCode !== null) this.#answer(closeCode)
    this.#onOver()
  }

  #onClose(): void {
    if (this.#answerTimer !== null) clearTimeout(this.#answerTimer)
    this.#gone = true
    // Broken off: what nobody has read is lost, as it is with a socket.
    if (!this.#over) this.#pending = []
    this.#settle()
  }

  #onDrain(): void {
    if (!this.#needsDrain) return
    this.#needsDrain = false
    this.emit('drain')
  }

  /** One pong is on its way at most, and then one for the latest ping: a flood costs its own bytes and no memory. */
  #onPing(data: Buffer): void {
    if (this.#ponging) {
      // A view would keep the whole read alive.
      this.#ping = Buffer.from(data)
      return
    }
    this.#ponging = true
    this.#webSocket.pong(data, this.#role === 'client', this.#ponged)
  }

  readonly #ponged = (): void => {
    this.#ponging = false
    const ping = this.#ping
    this.#ping = null
    if (ping !== null && this.#webSocket.readyState === this.#webSocket.OPEN) this.#onPing(ping)
  }

  readonly #watchFirst = (chunk: Buffer): void => {
    // The package has seen the chunk before us. What it holds of a next message is less than one read, and not counted.
    if (this.#sawMessage) this.#unread = 0
    else this.#unread += chunk.length
    this.#sawMessage = false
    if (this.#unread <= this.#firstMessageBytes + FRAMING_BYTES) return
    if (this.#webSocket.readyState === this.#webSocket.OPEN) {
      this.#fail('ERR_WEBSOCKET_TOO_LARGE', `${this.#unread} bytes without a whole first message`, TOO_BIG)
    }
    // The package would go on to gather the message until the connection is cut.
    this.#isHeld = true
    this.#webSocket.pause()
  }

  #emitEnd(): void {
    if (this.readableEnded) return
    this.readableEnded = true
    this.emit('end')
  }

  #emitClose(): void {
    if (this.#closed) return
    this.#closed = true
    this.destroyed = true
    this.emit('close')
  }
}

/** One unmasked frame, header and payload in one buffer (RFC 6455 §5.2). */
function frame(payload: Uint8Array): Buffer {
  const { length } = payload
  const start = length < 126 ? 2 : 4
  const bytes = Buffer.allocUnsafe(start + length)
  writeHeader(bytes, length)
  bytes.set(payload, start)
  return bytes
}

function header(length: number): Buffer {
  const bytes = Buffer.allocUnsafe(length > 0xffff ? 10 : 4)
  writeHeader(bytes, length)
  return bytes
}

function writeHeader(bytes: Buffer, length: number): void {
  bytes[0] = BINARY
  if (length < 126) bytes[1] = length
  else if (length <= 0xffff) {
    bytes[1] = 126
    bytes.writeUInt16BE(length, 2)
  } else {
    bytes[1] = 127
    // The upper half of a length that fits 48 bits.
    bytes.writeUInt16BE(0, 2)
    bytes.writeUIntBE(length, 4, 6)
  }
}
