import type { AcceptedSocket } from '../connection.ts'

/** Whoever sends so much before it was answered is not a TLS client that waits. */
const MAX_AHEAD = 65_536

/**
 * Listens to the socket of a device that waits for its handshake, so that one that gives up gives its place to another.
 * What it has said is put back in the end, as if nobody had listened.
 */
export class Attention {
  readonly #socket: AcceptedSocket
  readonly #left: () => void
  readonly #said: Buffer[] = []
  #length = 0
  #over = false

  constructor(socket: AcceptedSocket, left: () => void) {
    this.#socket = socket
    this.#left = left
    const hello: unknown = socket.read()
    if (Buffer.isBuffer(hello)) this.#said.push(hello)
    socket.on('data', this.#onData)
    socket.on('end', left)
    socket.on('close', left)
    socket.resume()
  }

  /** From here the socket is as it was: paused, with every byte. */
  over(): void {
    if (this.#over) return
    this.#over = true
    const socket = this.#socket
    socket.pause()
    socket.off('data', this.#onData)
    socket.off('end', this.#left)
    socket.off('close', this.#left)
    if (this.#said.length > 0 && socket.destroyed !== true && socket.readableEnded !== true)
      socket.unshift(Buffer.concat(this.#said))
  }

  readonly #onData = (chunk: Buffer): void => {
    this.#said.push(chunk)
    this.#length += chunk.length
    // A device speaks once and then waits for an answer; early data is all that may come, and is never taken.
    if (this.#length > MAX_AHEAD) this.#left()
  }
}
