import { WebSocket } from 'websocket'

/** One message in so many fragments, or read in so many chunks, at most. */
export const MAX_PARTS = 16_384

/** From our Close to the end of the connection, in milliseconds. */
export const CLOSE_MS = 2_000

/** Options that both sides of a WebSocket have in common here; the message limit in bytes. */
export function webSocketOptions(maxMessageBytes: number, closeMs: number = CLOSE_MS) {
  return {
    maxPayload: maxMessageBytes,
    maxFragments: MAX_PARTS,
    maxBufferedChunks: MAX_PARTS,
    closeTimeout: closeMs,
    // MQTT payloads are mostly small or compressed already, and a window per session costs more than it saves.
    perMessageDeflate: false,
    // Answered by `WebSocketStream`, one at a time: the package would queue sixty and then cut the connection.
    autoPong: false,
    // A text frame is refused, not read.
    skipUTF8Validation: true,
  } as const
}

/**
 * The package's WebSocket, except that the peer's Close is told before it is answered: what is on the way to the peer
 * may still go out (RFC 6455 §5.5.1 lets an endpoint delay its Close so long).
 */
export class LateClosingWebSocket extends WebSocket {
  /** The code of the peer's Close; undefined when it came without. */
  peerClosed: ((code: number | undefined) => void) | null = null

  /**
   * Called by the package itself: with a code alone when a frame broke the rules, which is answered at once, and in
   * the two other forms when a Close has come.
   */
  override close(code?: number, reason?: string | Buffer): void {
    const isVerdict = code !== undefined && reason === undefined
    if (isVerdict || this.peerClosed === null) super.close(code, reason)
    else this.peerClosed(code)
  }

  /** Sends Close; without a code when there is none. */
  finish(code: number | undefined): void {
    super.close(code)
  }
}
