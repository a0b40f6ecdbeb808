import type { Server, Socket } from 'node:net'
import type { ByteStream } from '../relay.ts'
import { carries, detach, handleOf, listenerOf, type NativeSocket } from './native.ts'
import { HANDLERS, Lifted } from './stream.ts'

/** A connected socket of the runtime, from which nothing has been read yet. */
export class LiftedTcp extends Lifted {
  /** Silence after which the kernel asks whether the peer is still there; null: it was told, or is not to. */
  readonly #keepAliveMs: number | null

  constructor(handle: NativeSocket, keepAliveMs: number | null = null) {
    super()
    handle.data = this
    this.handle = handle
    this.#keepAliveMs = keepAliveMs
  }

  /** What `node:net` sets at accept. Five system calls, so not before it is known that the device may speak. */
  tune(): void {
    if (this.handle === null || this.#keepAliveMs === null) return
    this.handle.setNoDelay(true)
    this.handle.setKeepAlive(true, this.#keepAliveMs)
  }

  get remoteAddress(): string | undefined {
    return this.handle?.remoteAddress
  }

  get remotePort(): number | undefined {
    return this.handle?.remotePort
  }

  /** Hands its socket on, with what came and was not read. From here it is nobody's: it emits nothing more. */
  release(): Buffer | undefined {
    const unread = this.read()
    this.handle = null
    this.destroyed = true
    this.removeAllListeners()
    return unread ?? undefined
  }
}

/** Nothing of ours waits in its stream, and the runtime's socket is what is expected. */
export function canLift(socket: Socket): boolean {
  return !socket.destroyed && socket.writableLength === 0 && carries(handleOf(socket))
}

/** A connected socket from which nothing was read yet: lifted where it can be, or the socket itself. */
export function lifted(socket: Socket): ByteStream {
  if (socket.readableLength > 0 || socket.readableEnded || !canLift(socket)) return socket
  const handle = handleOf(socket)!
  detach(socket)
  handle.reload({ socket: HANDLERS })
  return new LiftedTcp(handle)
}

/**
 * What the server accepts from now on comes to `accepted` without a stream of `node:net` ever being made for it. The server
 * binds, is shared by workers and closes as before. False where that cannot be: the server's own listener goes on.
 * @param keepAliveMs silence after which the kernel asks whether the peer is still there
 */
export function liftServer(server: Server, keepAliveMs: number, accepted: (stream: LiftedTcp) => void): boolean {
  const listener = listenerOf(server)
  if (listener === null) return false
  const open = (handle: NativeSocket): void => {
    // Until now it is the server.
    handle.data = undefined
    if (!carries(handle)) return void handle.close()
    accepted(new LiftedTcp(handle, keepAliveMs))
  }
  listener.reload({ socket: { ...HANDLERS, open } })
  return true
}
