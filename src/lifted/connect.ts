import { carries, connectNative, type NativeSocket } from './native.ts'
import { HANDLERS } from './stream.ts'
import { LiftedTcp } from './tcp.ts'

/** Of a name nothing has to be asked any more: an IP address without brackets, or the path of a unix socket. */
export type Destination = { readonly address: string; readonly port: number } | { readonly path: string }

export interface Awaiting {
  /** Its keep-alive is to be set: `tune`. */
  connected(stream: LiftedTcp): void
  /** May be told before `connect` returns. */
  failed(cause: Error): void
}

/** Until it is connected a socket of the runtime cannot be closed; more than so many may not be left behind by giving up. */
export const MAX_UNANSWERED = 128

/**
 * Connects without a stream of `node:net`, which costs more than all the rest of a dial. What this cannot do is to call a
 * connect off: who gives up leaves a socket behind that closes by itself once it is answered, or once the kernel gives up,
 * after two minutes. So it is not ready while too many are unanswered: of a broker that is there, those of one moment of a
 * storm; of one that is not, until the kernel has given up.
 */
export class Connector {
  #unanswered = 0

  /** False: dial through `node:net`, which can call off. */
  get isReady(): boolean {
    return connectNative !== null && this.#unanswered < MAX_UNANSWERED
  }

  /**
   * @param keepAliveMs silence after which the kernel asks whether the peer is still there
   * @returns gives it up: nothing is told any more, and no stream comes of it
   */
  connect(to: Destination, keepAliveMs: number, awaiting: Awaiting): () => void {
    this.#unanswered++
    const pending = new Pending(to, awaiting, keepAliveMs, () => this.#unanswered--)
    const where = 'path' in to ? { unix: to.path } : { hostname: to.address, port: to.port }
    try {
      // Its promise says nothing that the handlers do not.
      connectNative!({ ...where, allowHalfOpen: true, data: pending, socket: CONNECTING }).catch(ignore)
    } catch (cause) {
      pending.onFailure(cause as NodeJS.ErrnoException)
    }
    return () => pending.giveUp()
  }
}

/** What a socket has for `data` until it is connected. */
class Pending {
  readonly #to: Destination
  #awaiting: Awaiting | null
  readonly #keepAliveMs: number
  #answered: (() => void) | null

  constructor(to: Destination, awaiting: Awaiting, keepAliveMs: number, answered: () => void) {
    this.#to = to
    this.#awaiting = awaiting
    this.#keepAliveMs = keepAliveMs
    this.#answered = answered
  }

  giveUp(): void {
    this.#awaiting = null
  }

  onOpen(handle: NativeSocket): void {
    const awaiting = this.#answer()
    if (awaiting !== null && carries(handle)) {
      awaiting.connected(new LiftedTcp(handle, this.#keepAliveMs))
      return
    }
    handle.data = undefined
    handle.close()
    awaiting?.failed(new Error('the socket of this runtime is not as expected'))
  }

  /** The runtime names neither the place nor, in its message, what went wrong. */
  onFailure({ code = 'UNKNOWN' }: NodeJS.ErrnoException): void {
    const to = this.#to
    const where = 'path' in to ? to.path : `${to.address}:${to.port}`
    this.#answer()?.failed(Object.assign(new Error(`connect ${code} ${where}`), { code }))
  }

  #answer(): Awaiting | null {
    const awaiting = this.#awaiting
    this.#awaiting = null
    // Once, whatever the runtime tells.
    this.#answered?.()
    this.#answered = null
    return awaiting
  }
}

const CONNECTING = {
  ...HANDLERS,
  open(handle: NativeSocket): void {
    ;(handle.data as Pending).onOpen(handle)
  },
  connectError({ data }: NativeSocket, cause: NodeJS.ErrnoException): void {
    ;(data as Pending).onFailure(cause)
  },
}

/** One for the process: what is left to the kernel outlives the backend that gave it up. */
export const CONNECTOR = new Connector()

function ignore(): void {}
