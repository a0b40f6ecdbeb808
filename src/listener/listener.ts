import { createServer, type Server } from 'node:net'
import type { AcceptedSocket } from '../connection.ts'
import type { Metrics } from '../control/metrics.ts'
import { liftServer } from '../lifted/tcp.ts'

export interface ListenerOptions {
  readonly host: string
  readonly port: number
  /** The port whose rows of the admission matrix apply. */
  readonly as: number
  /** null: the PROXY protocol is not spoken here, and a header is refused. */
  readonly proxyProtocol: {
    readonly versions: readonly (1 | 2)[]
    readonly trusts: (address: string) => boolean
  } | null
  /** From accept to the whole ClientHello, a PROXY header included. */
  readonly helloTimeoutMs: number
  /** Accept on the runtime's own sockets, where it can be; only MQTT may come of them. */
  readonly lift?: boolean
}

/** Says when another connection would be one too many; null lets it in. Shared by all listeners of a process. */
export interface Capacity {
  full(live: number): 'descriptors' | 'connections' | 'overload' | null
  /** True when accepting may go on after a pause. */
  roomy(live: number): boolean
}

export interface Listener {
  readonly host: string
  /** The port that is bound, also where 0 was asked for. */
  readonly port: number
  /** Stops accepting; connections that were accepted go on. */
  close(): Promise<void>
}

/** How long accepting rests before the room is looked at again. */
const PAUSE_MS = 250
const BACKLOG = 4_096
/** Silence after which the kernel asks whether the device is still there: one may have no keep alive of MQTT. */
const KEEP_ALIVE_MS = 60_000

/** Binds and accepts for one process. Connections of all listeners share one count, because they share descriptors. */
export class Acceptor {
  live = 0
  readonly #capacity: Capacity
  readonly #metrics: Metrics
  readonly #serve: (socket: AcceptedSocket, listener: ListenerOptions) => void
  readonly #gates = new Set<Gate>()
  #paused: NodeJS.Timeout | null = null
  #stopped = false

  constructor(
    capacity: Capacity,
    metrics: Metrics,
    serve: (socket: AcceptedSocket, listener: ListenerOptions) => void,
  ) {
    this.#capacity = capacity
    this.#metrics = metrics
    this.#serve = serve
  }

  /** @param accepted what is done with a connection once it is counted: served by these options unless told */
  async listen(
    options: ListenerOptions,
    accepted: (socket: AcceptedSocket) => void = (socket) => this.serve(socket, options),
  ): Promise<Listener> {
    const gate = new Gate(options, (socket) => this.#accept(socket, accepted))
    await gate.open()
    this.#gates.add(gate)
    return {
      host: options.host,
      port: gate.port,
      close: () => {
        this.#gates.delete(gate)
        return gate.close()
      },
    }
  }

  serve(socket: AcceptedSocket, options: ListenerOptions): void {
    this.#metrics.accepted(options.as)
    this.#serve(socket, options)
  }

  /** One for all of them: each stays for the life of a connection. */
  readonly #gone = (): void => {
    this.live--
  }

  #accept(socket: AcceptedSocket, accepted: (socket: AcceptedSocket) => void): void {
    this.live++
    socket.on('close', this.#gone)
    accepted(socket)
    this.look()
  }

  /** Is there room for another one? To be asked again when the answer may have changed. */
  look(): void {
    if (this.#paused !== null || this.#stopped) return
    const full = this.#capacity.full(this.live)
    if (full !== null) this.#pause(full)
  }

  /**
   * Closes the listening sockets until there is room again. Out of descriptors, an open listener would spin: accept
   * fails and the socket stays readable. The other workers go on; once all have paused, devices get a refusal at once,
   * which they can take to another replica.
   */
  #pause(reason: 'descriptors' | 'connections' | 'overload'): void {
    this.#metrics.acceptPaused(reason)
    for (const gate of this.#gates) void gate.close()
    const look = () => {
      this.#paused = setTimeout(async () => {
        if (this.#stopped) return
        if (!this.#capacity.roomy(this.live)) return look()
        const opened = await Promise.allSettled([...this.#gates].map((gate) => gate.open()))
        if (opened.some((result) => result.status === 'rejected')) return look()
        this.#paused = null
      }, PAUSE_MS)
    }
    look()
  }

  /** No more accepting, whatever comes. */
  stop(): void {
    this.#stopped = true
    if (this.#paused !== null) clearTimeout(this.#paused)
  }
}

/** One listening socket that can be closed and opened again on the same port. */
class Gate {
  port: number
  readonly #options: ListenerOptions
  readonly #accept: (socket: AcceptedSocket) => void
  #server: Server | null = null
  /** What was asked for last; opening takes a moment, in which it may be asked to close. */
  #wanted = false

  constructor(options: ListenerOptions, accept: (socket: AcceptedSocket) => void) {
    this.#options = options
    this.#accept = accept
    this.port = options.port
  }

  open(): Promise<void> {
    this.#wanted = true
    if (this.#server !== null) return Promise.resolve()
    const server = createServer(
      {
        allowHalfOpen: true,
        noDelay: true,
        pauseOnConnect: false,
        keepAlive: true,
        keepAliveInitialDelay: KEEP_ALIVE_MS,
      },
      this.#accept,
    )
    return new Promise((resolve, reject) => {
      server.once('error', reject)
      server.listen({ host: this.#options.host, port: this.port, backlog: BACKLOG }, () => {
        server.off('error', reject)
        server.on('error', () => {})
        const address = server.address()
        if (typeof address === 'object' && address !== null) this.port = address.port
        if (this.#options.lift === true) liftServer(server, KEEP_ALIVE_MS, this.#accept)
        if (this.#wanted) this.#server = server
        else server.close()
        resolve()
      })
    })
  }

  close(): Promise<void> {
    this.#wanted = false
    const server = this.#server
    this.#server = null
    if (server === null) return Promise.resolve()
    // Its callback waits for the last connection; the listening socket itself is closed at once.
    server.close()
    return Promise.resolve()
  }
}
