import { Ring } from '../collections/ring.ts'
import type { AuthorizedConnection } from '../connection.ts'
import { ProxyError } from '../errors.ts'
import type { ShieldSettings } from '../mqtt/shield.ts'
import type { ByteStream } from '../relay.ts'
import type { Backend, Upstream, UpstreamIdentity } from './backend.ts'
import { type Balance, Balancer } from './balancer.ts'
import { canceled, failure, isAborted } from './dial.ts'

/** How one attempt at one server ended; the `result` metric label. */
export type DialResult = 'connected' | 'refused' | 'timeout' | 'untrusted' | 'exhausted' | 'canceled'

/** What every kind of backend over several servers has in common. */
export interface BalancedOptions {
  readonly name: string
  readonly identity: UpstreamIdentity
  readonly balance: Balance
  /** As `Backend` has it. */
  readonly outageShield?: ShieldSettings | null
  /** For one whole `open`: name look-up, TCP, TLS, and every server tried. */
  readonly connectTimeoutMs: number
  /** Which servers get nothing new, by what `peer` calls them; none unless told. */
  readonly drained?: (peer: string) => boolean
  readonly onDial: (result: DialResult, seconds: number) => void
  /** Milliseconds, monotonic; `performance.now` unless told. */
  readonly now?: () => number
  /** 0 ≤ x < 1; `Math.random` unless told. */
  readonly random?: () => number
}

/** What of one `open` is the same for all the servers it tries. */
export interface Attempt<S> {
  readonly server: S
  readonly connection: AuthorizedConnection | null
  /** The server's share of the time. */
  readonly deadlineMs: number
  readonly signals: readonly AbortSignal[]
}

export interface Ways<S> {
  readonly servers: readonly S[]
  peerOf(server: S): string
  /** One attempt at one server, ended by success, failure, deadline or signal; leaves nothing behind. */
  attempt(attempt: Attempt<S>): Promise<ByteStream>
}

/**
 * A backend of several servers: chooses, gives each a fair share of the deadline, goes on to the next where the code
 * allows it, and ends what is open on `close`. How one server is reached is the argument.
 */
export function balanced<S>(options: BalancedOptions, ways: Ways<S>): Backend {
  const { servers } = ways
  const now = options.now ?? (() => performance.now())
  // Made once: each session keeps the name of its server.
  const peers = servers.map((server) => ways.peerOf(server))
  const balancer = new Balancer(servers.length, options.balance, now, options.random ?? Math.random)
  const streams = new Ring<ByteStream>()
  const closing = new AbortController()

  /** Apart from `open`, whose other names would be kept for as long as the stream lives. */
  function watch(stream: ByteStream, at: number): void {
    const link = streams.add(stream)
    stream.on('close', () => {
      streams.remove(link)
      balancer.ended(at)
    })
  }

  return {
    name: options.name,
    identity: options.identity,
    get outageShield() {
      // Nobody waits for a backend that is not opened any more.
      return closing.signal.aborted ? null : (options.outageShield ?? null)
    },

    async open(connection, signal) {
      const endsAtMs = now() + options.connectTimeoutMs
      const signals = [signal, closing.signal]
      // Who is emptied is not chosen, not even as the last one: an operator has said so, and chance must not unsay it.
      const tried = new Set(peers.flatMap((peer, at) => (options.drained?.(peer) ? [at] : [])))
      const which = tried.size > 0 ? 'every server of it is drained' : 'it has no servers'
      let last: ProxyError | null = null
      for (;;) {
        if (isAborted(signals)) throw canceled(signals)
        const leftMs = endsAtMs - now()
        const at = tried.size > 0 && leftMs <= 0 ? null : balancer.choose(tried)
        if (at === null) throw last ?? new ProxyError('ERR_BACKEND_REFUSED', `backend ${options.name}: ${which}`)
        const server = servers[at]!
        // A fair share each: the first black hole must not eat the time of a healthy neighbor.
        const deadlineMs = Math.max(1, leftMs / (servers.length - tried.size))
        tried.add(at)
        const startedMs = now()
        try {
          const stream = await ways.attempt({ server, connection, deadlineMs, signals })
          // Between the promise's answer and this line the signal may have come.
          if (isAborted(signals)) {
            stream.destroy()
            throw canceled(signals)
          }
          // Its `close` may be over already, and nobody would ever hear of it again.
          if (stream.destroyed === true) throw new ProxyError('ERR_BACKEND_REFUSED', 'closed as it opened')
          options.onDial('connected', (now() - startedMs) / 1_000)
          balancer.succeeded(at)
          watch(stream, at)
          return { stream, peer: peers[at]! } satisfies Upstream
        } catch (thrown) {
          const error = thrown instanceof ProxyError ? thrown : failure(thrown as Error, false)
          const aborted = isAborted(signals)
          balancer.ended(at)
          options.onDial(aborted ? 'canceled' : RESULTS[error.code]!, (now() - startedMs) / 1_000)
          if (aborted) throw error
          // Our own shortage says nothing about the server.
          if (error.code !== 'ERR_DIAL_EXHAUSTED') balancer.failed(at)
          last = new ProxyError(error.code, `${peers[at]!}: ${error.message}`, { cause: error.cause })
          if (!last.failure.retry) throw last
        }
      }
    },

    async close() {
      closing.abort(new ProxyError('ERR_BACKEND_REFUSED', `backend ${options.name} is closed`))
      await Promise.all(
        Array.from(streams, (stream) => {
          const closed = new Promise<void>((resolve) => stream.on('close', () => resolve()))
          stream.destroy()
          return closed
        }),
      )
    },
  }
}

const RESULTS: Readonly<Record<string, DialResult>> = {
  ERR_BACKEND_REFUSED: 'refused',
  ERR_BACKEND_TIMEOUT: 'timeout',
  ERR_BACKEND_UNTRUSTED: 'untrusted',
  ERR_DIAL_EXHAUSTED: 'exhausted',
}
