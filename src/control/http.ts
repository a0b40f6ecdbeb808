import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Log } from './log.ts'

export interface Reply {
  readonly status: number
  /** Media type; JSON unless given. */
  readonly type?: string
  readonly body: string
}

/** @param body what the JSON of a POST says; undefined when none came */
export type Route = (body: unknown) => Reply | Promise<Reply>

/** Path → method → answer. HEAD is answered as GET without its body. */
export type Routes = Readonly<Record<string, Readonly<Partial<Record<'GET' | 'POST', Route>>>>>

export interface RunningServer {
  /** `host:port`, or the path of a socket. */
  readonly address: string
  /** Ends waiting connections too. */
  close(): Promise<void>
}

export function jsonReply(status: number, value: unknown): Reply {
  return { status, body: `${JSON.stringify(value)}\n` }
}

/** A small server whose every wait and size is bounded: whoever may reach it must not be able to fill this process. */
export function routesServer(routes: Routes, log: Log): Server {
  const server = createServer(
    {
      maxHeaderSize: 8 * 1024,
      headersTimeout: 5_000,
      requestTimeout: 10_000,
      keepAliveTimeout: 5_000,
      connectionsCheckingInterval: 1_000,
    },
    (request, response) => {
      void answer(routes, request, response, log)
    },
  )
  server.maxConnections = 64
  server.on('clientError', (_error, socket) => socket.destroy())
  return server
}

async function answer(routes: Routes, request: IncomingMessage, response: ServerResponse, log: Log): Promise<void> {
  response.on('error', () => {})
  // Where a body came, the connection is not used again: of one that was not read whole, the rest would be a request.
  const bodyless = request.headers['content-length'] === undefined && request.headers['transfer-encoding'] === undefined
  const path = (request.url ?? '/').split('?', 1)[0]!
  const route = Object.hasOwn(routes, path) ? routes[path]! : null
  const method = request.method === 'HEAD' ? 'GET' : request.method
  let reply: Reply
  let allow: string | null = null
  if (route === null) {
    reply = jsonReply(404, { error: 'no such path' })
  } else {
    const handler = method === 'GET' || method === 'POST' ? route[method] : undefined
    const body = handler === undefined || method === 'GET' ? undefined : await bodyOf(request)
    if (handler === undefined) {
      allow = Object.keys(route)
        .flatMap((name) => (name === 'GET' ? ['GET', 'HEAD'] : [name]))
        .join(', ')
      reply = jsonReply(405, { error: `only ${allow}` })
    } else if (body === UNREADABLE) {
      reply = jsonReply(400, { error: 'expected at most 64 KiB of JSON' })
    } else {
      try {
        reply = await handler(body)
      } catch (error) {
        log.error({ error, path }, 'an administrative request failed')
        reply = jsonReply(500, { error: 'internal' })
      }
    }
  }
  request.resume()
  if (response.destroyed) return
  const body = Buffer.from(reply.body)
  response.writeHead(reply.status, {
    'content-type': reply.type ?? 'application/json; charset=utf-8',
    'content-length': body.length,
    'cache-control': 'no-store',
    'x-content-type-options': 'nosniff',
    ...(allow !== null && { allow }),
    ...(!bodyless && { connection: 'close' }),
  })
  response.end(request.method === 'HEAD' ? undefined : body)
}

const MAX_BODY_BYTES = 64 * 1024
const UNREADABLE = Symbol('unreadable')

/** Undefined for none; bounded in size here and in time by the server. */
async function bodyOf(request: IncomingMessage): Promise<unknown> {
  const chunks: Buffer[] = []
  let length = 0
  try {
    for await (const chunk of request) {
      length += chunk.length
      // Read to its end all the same: to stop would close the connection before the answer.
      if (length <= MAX_BODY_BYTES) chunks.push(chunk)
    }
    if (length > MAX_BODY_BYTES) return UNREADABLE
    return length === 0 ? undefined : JSON.parse(Buffer.concat(chunks).toString('utf8'))
  } catch {
    return UNREADABLE
  }
}

/** Binds; rejects when it cannot. The result's `close` does not wait for clients that stay. */
export async function listening(
  server: Server,
  where: { readonly host: string; readonly port: number } | { readonly path: string },
): Promise<RunningServer> {
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(where, () => {
      server.off('error', reject)
      resolve()
    })
  })
  server.on('error', () => {})
  const bound = server.address()
  return {
    address: bound === null || typeof bound === 'string' ? (bound ?? ('path' in where ? where.path : '')) : at(bound),
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}

function at({ address, port, family }: AddressInfo): string {
  return family === 'IPv6' ? `[${address}]:${port}` : `${address}:${port}`
}

/** Answer to «may traffic be sent here»; `reason` tells people why not. */
export interface Readiness {
  readonly ready: boolean
  readonly reason: string | null
}

export interface MetricsServerOptions {
  readonly host: string
  readonly port: number
  /** The metrics in the Prometheus text format. */
  readonly scrape: () => Promise<string>
  readonly ready: () => Readiness
  readonly log: Log
}

/** `/metrics`, `/healthz` and `/readyz`: read only, and nothing in them names a device. */
export function startMetricsServer(options: MetricsServerOptions): Promise<RunningServer> {
  let running: Promise<string> | null = null
  const scrapeOnce = () => {
    // However many ask at once, the processes are asked once.
    running ??= options.scrape().finally(() => {
      running = null
    })
    return running
  }
  const routes: Routes = {
    '/metrics': {
      GET: async () => ({ status: 200, type: 'text/plain; version=0.0.4; charset=utf-8', body: await scrapeOnce() }),
    },
    '/healthz': { GET: () => jsonReply(200, { status: 'ok' }) },
    '/readyz': {
      GET: () => {
        const { ready, reason } = options.ready()
        return jsonReply(ready ? 200 : 503, { ready, reason })
      },
    },
  }
  return listening(routesServer(routes, options.log), { host: options.host, port: options.port })
}
