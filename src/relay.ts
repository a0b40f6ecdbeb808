/**
 * What a session and the pumps need of a socket, and no more, so that a second transport fits.
 * A Node `Duplex` is one. Whoever makes a ByteStream listens to its `error`; `close` always follows.
 */
export interface ByteStream {
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
