import type { AcceptedSocket } from '../connection.ts'
import { listen, type StreamListener } from '../relay.ts'

/** ContentType alert, and the version every record of that age carries. RFC 8446 §5.1 and §6. */
const ALERT = 0x15
const FATAL = 2

/** How long a client may take to hang up after our goodbye. */
const LINGER_MS = 1_000
/** What a client may still send after our goodbye, before it is cut off. */
const MAX_DRAINED = 64 * 1_024

/**
 * Ends a connection before its handshake with one fatal TLS alert, so that the client says why in its own log.
 * Resolves when the socket is closed, or has nothing more to do but that; never rejects.
 *
 * Input that nobody reads would turn the close into a TCP reset, and a reset makes the client's system throw away the
 * alert that has already arrived. So our side is ended, and what the client still sends is read and dropped until it
 * hangs up, within a bound of time and one of bytes.
 *
 * Who has said its first flight and nothing else says no more before it is answered (RFC 8446 §2): its socket is closed
 * at once, so that a flood of refusals holds no descriptors.
 *
 * @param code null ends in silence, in the same gentle way
 * @param flightBytes of the first flight, given back to the socket; null where it is not whole, or the client may say more
 */
export function sendAlert(
  socket: AcceptedSocket,
  code: number | null,
  flightBytes: number | null = null,
): Promise<void> {
  // Stays for good: an error of a socket that is going away concerns nobody.
  socket.on('error', ignore)
  if (socket.destroyed === true) return Promise.resolve()
  if (flightBytes === null || (socket.read() as Buffer | null)?.length !== flightBytes) {
    return new Promise((resolve) => new Goodbye(socket, resolve).say(code))
  }
  if (code !== null) socket.write(alertOf(code))
  socket.destroySoon()
  return Promise.resolve()
}

const alertOf = (code: number): Buffer => Buffer.from([ALERT, 3, 3, 0, 2, FATAL, code])

class Goodbye implements StreamListener {
  readonly #socket: AcceptedSocket
  readonly #resolve: () => void
  readonly #timer: NodeJS.Timeout
  #drained = 0
  #ended = false

  constructor(socket: AcceptedSocket, resolve: () => void) {
    this.#socket = socket
    this.#resolve = resolve
    this.#timer = setTimeout(late, LINGER_MS, socket)
    this.#timer.unref()
  }

  say(code: number | null): void {
    const socket = this.#socket
    listen(socket, this)
    socket.resume()
    if (code !== null) socket.write(alertOf(code))
    socket.end()
    if (socket.readableEnded === true) this.onEnd()
  }

  onData(chunk: Buffer): void {
    this.#drained += chunk.length
    if (this.#drained > MAX_DRAINED) this.#socket.destroy()
  }

  onDrain(): void {}

  /** Both sides are done once what we wrote is out. */
  onEnd(): void {
    if (this.#ended) return
    this.#ended = true
    const socket = this.#socket
    if (socket.writableFinished) socket.destroy()
    else socket.once('finish', () => socket.destroy())
  }

  onClose(): void {
    clearTimeout(this.#timer)
    this.#resolve()
  }
}

const ignore = (): void => {}
const late = (socket: AcceptedSocket): void => void socket.destroy()
