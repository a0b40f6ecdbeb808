import type { AcceptedSocket } from '../connection.ts'

/** ContentType alert, and the version every record of that age carries. RFC 8446 §5.1 and §6. */
const ALERT = 0x15
const FATAL = 2

/** How long a client may take to hang up after our goodbye. */
const LINGER_MS = 1_000
/** What a client may still send after our goodbye, before it is cut off. */
const MAX_DRAINED = 64 * 1_024

/**
 * Ends a connection before its handshake with one fatal TLS alert, so that the client says why in its own log.
 * Resolves when the socket is closed; never rejects.
 *
 * Input that nobody reads would turn the close into a TCP reset, and a reset makes the client's system throw away the
 * alert that has already arrived. So our side is ended, and what the client still sends is read and dropped until it
 * hangs up, within a bound of time and one of bytes.
 *
 * `code` null ends in silence, in the same gentle way.
 */
export function sendAlert(socket: AcceptedSocket, code: number | null): Promise<void> {
  return new Promise((resolve) => {
    // Stays for good: an error of a socket that is going away concerns nobody.
    socket.on('error', () => {})
    if (socket.destroyed === true) {
      resolve()
      return
    }
    const timer = setTimeout(() => socket.destroy(), LINGER_MS)
    timer.unref()
    socket.once('close', () => {
      clearTimeout(timer)
      resolve()
    })
    let drained = 0
    socket.on('data', (chunk: Buffer) => {
      drained += chunk.length
      if (drained > MAX_DRAINED) socket.destroy()
    })
    socket.once('end', () => {
      // Both sides are done once what we wrote is out.
      if (socket.writableFinished) socket.destroy()
      else socket.once('finish', () => socket.destroy())
    })
    socket.resume()
    if (code !== null) socket.write(Buffer.from([ALERT, 3, 3, 0, 2, FATAL, code]))
    socket.end()
  })
}
