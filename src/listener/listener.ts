import { createServer, type Server } from 'node:net'
import type { AcceptedSocket } from '../connection.ts'
import type { Metrics } from '../control/metrics.ts'
import { ProxyError } from '../errors.ts'
import { liftServer } from '../lifted/tcp.ts'
import { type ClientHello, HelloReader } from './client-hello.ts'
import { looksLikeProxyHeader, parseProxyHeader } from './proxy-protocol.ts'

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

export type Greeting =
  | {
      readonly kind: 'hello'
      readonly hello: ClientHello
      /** What a trusted PROXY header said; null where none was sent, or it named nobody. */
      readonly source: { readonly address: string; readonly port: number } | null
    }
  /** Connected and left without a word, as health checks of load balancers do. */
  | { readonly kind: 'probe' }

/**
 * Reads what comes before TLS: the PROXY header where one is due, and the ClientHello, looked at and given back, so
 * that the handshake sees it as if nobody had looked.
 *
 * @throws {ProxyError} ERR_PROXY_HEADER, ERR_NOT_TLS, ERR_HELLO_*
 */
export function greet(socket: AcceptedSocket, options: ListenerOptions): Promise<Greeting> {
  return new Promise((resolve, reject) => {
    // A health check may have reset the connection before it was accepted: its bytes are here, its address is not.
    // Who has no address can be told nothing and claims nothing, so it is not judged as a source either.
    const { remoteAddress } = socket
    const nobody = remoteAddress === undefined
    const trusted = !nobody && (options.proxyProtocol?.trusts(remoteAddress) ?? false)
    let source: { address: string; port: number } | null = null
    /** Bytes of a PROXY header that is not whole yet; null once it is done with. */
    let header: Buffer | null = trusted ? Buffer.alloc(0) : null
    let first = true
    let seen = 0
    const reader = new HelloReader()

    const done = () => {
      clearTimeout(timer)
      socket.off('data', onData)
      socket.off('end', onEnd)
      socket.off('close', onEnd)
    }
    // What still comes is nobody's, so it may flow: to stop it would cost a refusal two system calls.
    const fail = (error: ProxyError) => {
      done()
      reject(error)
    }
    const onData = (chunk: Buffer) => {
      if (nobody) return
      seen += chunk.length
      let rest = chunk
      if (header !== null) {
        header = header.length === 0 ? chunk : Buffer.concat([header, chunk])
        const parse = parseProxyHeader(header, options.proxyProtocol!.versions)
        if (parse.kind === 'incomplete') return
        if (parse.kind === 'invalid') return fail(new ProxyError('ERR_PROXY_HEADER', parse.detail))
        source = parse.source
        rest = header.subarray(parse.bytes)
        header = null
        seen = rest.length
        if (rest.length === 0) return
      }
      if (first && looksLikeProxyHeader(rest)) {
        return fail(
          new ProxyError(
            'ERR_PROXY_HEADER',
            `a PROXY header from ${socket.remoteAddress}, which is not a trusted source here`,
          ),
        )
      }
      first = false
      const parse = reader.push(rest)
      switch (parse.kind) {
        case 'incomplete':
          return
        case 'hello':
          done()
          socket.pause()
          // TLSSocket reads what is buffered on the socket it wraps.
          socket.unshift(reader.taken())
          return resolve({ kind: 'hello', hello: parse.hello, source })
        case 'not-tls':
          // Enough to tell HTTP, MQTT and SSH apart; what follows may be a password.
          return fail(new ProxyError('ERR_NOT_TLS', `first bytes ${rest.subarray(0, 3).toString('hex')}`))
        case 'oversized':
          return fail(new ProxyError('ERR_HELLO_OVERSIZED', 'ClientHello over 64 KiB'))
        case 'malformed':
          return fail(new ProxyError('ERR_HELLO_MALFORMED', parse.detail))
      }
    }
    const onEnd = () => {
      // Behind a load balancer a probe may send its header and leave; in front of none, not a single byte.
      if (seen === 0) {
        done()
        return resolve({ kind: 'probe' })
      }
      fail(
        header === null
          ? new ProxyError('ERR_HELLO_INCOMPLETE', `closed after ${seen} bytes`)
          : new ProxyError('ERR_PROXY_HEADER', `closed after ${seen} bytes of the header`),
      )
    }
    const timer = setTimeout(
      () => fail(new ProxyError('ERR_HELLO_TIMEOUT', `${seen} bytes in ${options.helloTimeoutMs} ms`)),
      options.helloTimeoutMs,
    )
    socket.on('error', () => {})
    socket.on('data', onData)
    socket.on('end', onEnd)
    socket.on('close', onEnd)
  })
}
