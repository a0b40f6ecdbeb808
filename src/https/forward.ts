import type { ClientRequest, IncomingMessage, ServerResponse } from 'node:http'
import { STATUS_CODES } from 'node:http'
import { isIP, type Socket } from 'node:net'
import { type Duplex, PassThrough } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { asProxyError, type FailureCode, ProxyError } from '../errors.ts'
import { backHeaders, type OutgoingHeaders } from './forward-headers.ts'
import { LINGER_MS } from './limits.ts'

/** An HTTP server behind, as the settings have it. */
export interface HttpBackend {
  readonly name: string
  readonly url: URL
  /** PEM; null where the runtime's own list counts. */
  readonly ca: readonly string[] | null
  readonly cert: string | null
  readonly key: string | null
  /** Until the head of its answer, and then between two pieces of its body, in milliseconds. */
  readonly timeoutMs: number
}

export interface Forwarded {
  readonly method: string
  /** Path and query, as `targetFor` made them. */
  readonly target: string
  readonly headers: OutgoingHeaders
  readonly backend: HttpBackend
}

export interface Forwarder {
  /**
   * Sends the request on and the answer back; resolves with its status when it is out.
   * @param send writes the body into the stream and ends it; a rejection breaks the request off
   * @throws {ProxyError} before the answer has begun, or in the midst of it (`response.headersSent`)
   */
  web(
    forwarded: Forwarded,
    send: (into: PassThrough) => Promise<void>,
    response: ServerResponse,
    last: () => boolean,
    signal: AbortSignal,
  ): Promise<number>
  /**
   * Upgrades at the backend and joins both sockets; no byte of the device goes there before its 101. Resolves when the
   * answer is known: with 101 both sides are joined, and `closed` resolves when they are no more.
   * @param refuse called at once where the backend fails: the socket is ended right after it
   */
  upgrade(forwarded: Forwarded, socket: Socket, head: Buffer, refuse: Refuse, signal: AbortSignal): Promise<Joined>
}

export type Refuse = (error: ProxyError) => void

export interface Joined {
  /** Null where `refuse` was called. */
  readonly status: number | null
  readonly closed: Promise<void>
}

type HttpProxyModule = typeof import('http-proxy')

/**
 * `http-proxy` takes `util._extend` when it is loaded, and its first call would print a deprecation warning to people who
 * can do nothing about it. While it loads, the name stands for what it has always meant.
 */
async function loadHttpProxy(): Promise<HttpProxyModule> {
  const util = (await import('node:util')).default as unknown as { _extend: unknown }
  const own = util._extend
  util._extend = Object.assign
  try {
    return (await import('http-proxy')).default
  } finally {
    util._extend = own
  }
}

/** What `http-proxy` asks of a request: everything in it is ours, so nothing of the device's can slip through. */
class Outgoing extends PassThrough {
  readonly method: string
  readonly url: string
  readonly headers: OutgoingHeaders
  readonly httpVersion = '1.1'
  readonly socket = { destroyed: false, encrypted: true }
  readonly connection = this.socket

  constructor({ method, target, headers }: Forwarded) {
    super()
    this.method = method
    this.url = target
    this.headers = headers
  }

  /** The word on which `http-proxy` gives up its own request. */
  abort(): void {
    this.emit('aborted')
    this.destroy()
  }
}

export async function createForwarder(): Promise<Forwarder> {
  const httpProxy = await loadHttpProxy()

  /** One for each request: its events then need no look-up of whose they are. */
  const proxyFor = ({ backend }: Forwarded) => {
    const { url } = backend
    const hostname = url.hostname.replace(/^\[|\]$/g, '')
    const secure = url.protocol === 'https:'
    const proxy = httpProxy.createProxyServer({
      target: {
        protocol: url.protocol,
        host: hostname,
        hostname,
        port: url.port || (secure ? '443' : '80'),
        path: url.pathname === '/' ? '' : url.pathname.replace(/\/$/, ''),
        ...(backend.ca === null ? {} : { ca: backend.ca.join('\n') }),
        ...(backend.cert === null ? {} : { cert: backend.cert }),
        ...(backend.key === null ? {} : { key: backend.key }),
      } as never, // The types know `URL` and the old `Url` only; these are the fields that are read.
      // A connection to a backend carries one request: what somebody hides behind it has nobody to hit.
      agent: false as never,
      toProxy: true,
      selfHandleResponse: true,
      secure: true,
      ...(secure && isIP(hostname) === 0 ? { ssl: { servername: hostname } as never } : {}),
    })
    // Its other passes change headers of requests with `DELETE` and chunks; ours are final.
    const passes = proxy as unknown as { webPasses: { readonly name: string }[] }
    passes.webPasses = passes.webPasses.filter(({ name }) => name === 'stream')
    return proxy
  }

  return {
    async web(forwarded, send, response, last, signal) {
      const outgoing = new Outgoing(forwarded)
      outgoing.on('error', ignore)
      const { promise, resolve, reject } = Promise.withResolvers<number>()
      const fail = (error: ProxyError) => {
        reject(error)
        outgoing.abort()
      }
      const timeout = setTimeout(() => {
        const slow = response.headersSent && response.writableNeedDrain
        fail(new ProxyError(slow ? 'ERR_HTTP_TIMEOUT' : 'ERR_BACKEND_TIMEOUT', 'no answer of the backend in time'))
      }, forwarded.backend.timeoutMs)
      const onAbort = () => fail(asProxyError(signal.reason))
      signal.addEventListener('abort', onAbort, { once: true })
      const proxy = proxyFor(forwarded)
      proxy.on('proxyRes', (answer) => {
        answer.on('error', ignore)
        answer.on('data', () => timeout.refresh())
        relayAnswer(answer, response, last()).then(resolve, (error: Error) => fail(faultOf(error)))
      })
      try {
        if (signal.aborted) throw asProxyError(signal.reason)
        proxy.web(outgoing as never, response, {}, (error) => fail(faultOf(error)))
        send(outgoing).catch((error: unknown) => fail(asProxyError(error)))
        return await promise
      } finally {
        clearTimeout(timeout)
        signal.removeEventListener('abort', onAbort)
      }
    },

    upgrade(forwarded, socket, head, refuse, signal) {
      const outgoing = new Outgoing(forwarded)
      outgoing.on('error', ignore)
      const { promise, resolve } = Promise.withResolvers<Joined>()
      const proxy = proxyFor(forwarded)
      let request: ClientRequest | null = null
      let settled = false
      const settle = (joined: Joined): void => {
        settled = true
        clearTimeout(timeout)
        signal.removeEventListener('abort', onAbort)
        resolve(joined)
      }
      const fail = (error: ProxyError): void => {
        if (settled) return
        refuse(error)
        settle({ status: null, closed: Promise.resolve() })
        request?.destroy()
      }
      const timeout = setTimeout(
        () => fail(new ProxyError('ERR_BACKEND_TIMEOUT', 'no answer of the backend in time')),
        forwarded.backend.timeoutMs,
      )
      const onAbort = () => fail(asProxyError(signal.reason))
      signal.addEventListener('abort', onAbort, { once: true })
      proxy.on('proxyReqWs', (made) => {
        request = made
      })
      proxy.on('open', (upstream) => {
        if (settled) upstream.destroy()
        else settle({ status: 101, closed: joined(socket, upstream) })
      })
      proxy.ws(outgoing as never, socket, head, {}, (error) => fail(faultOf(error)))
      answerRefusals(request, socket, settle)
      return promise
    },
  }
}

/** `http-proxy` would pass a refusal on with `chunked` in its head and no chunks in its body. */
function answerRefusals(request: ClientRequest | null, socket: Socket, settle: (joined: Joined) => void): void {
  request?.removeAllListeners('response')
  request?.on('response', (answer: IncomingMessage) => {
    answer.on('error', ignore)
    const status = answer.statusCode ?? 502
    const headers = backHeaders(answer.rawHeaders).filter(([name]) => name.toLowerCase() !== 'content-length')
    const lines = headers.map(([name, value]) => `${name}: ${value}\r\n`).join('')
    socket.write(`HTTP/1.1 ${status} ${STATUS_CODES[status] ?? ''}\r\n${lines}connection: close\r\n\r\n`, 'latin1')
    settle({ status, closed: pipeline(answer, socket).catch(ignore) })
  })
}

/** Either side's end ends the other: a WebSocket has no half. */
function joined(socket: Duplex, upstream: Duplex): Promise<void> {
  return new Promise((resolve) => {
    const sides = new Set([socket, upstream])
    let linger: NodeJS.Timeout | undefined
    const ended = () => {
      linger ??= setTimeout(() => {
        for (const side of sides) side.destroy()
      }, LINGER_MS)
    }
    const closed = (side: Duplex, other: Duplex) => {
      if (!sides.delete(side)) return
      other.end()
      ended()
      if (sides.size > 0) return
      clearTimeout(linger)
      resolve()
    }
    upstream.on('error', ignore)
    for (const [side, other] of [
      [socket, upstream],
      [upstream, socket],
    ] as const) {
      side.once('end', ended)
      side.once('close', () => closed(side, other))
      if (side.destroyed) closed(side, other)
    }
  })
}

async function relayAnswer(answer: IncomingMessage, response: ServerResponse, last: boolean): Promise<number> {
  const headers = new Map<string, string[]>()
  for (const [name, value] of backHeaders(answer.rawHeaders)) {
    headers.set(name.toLowerCase(), [...(headers.get(name.toLowerCase()) ?? []), value])
  }
  for (const [name, values] of headers) response.setHeader(name, values.length === 1 ? values[0]! : values)
  if (last) response.setHeader('connection', 'close')
  const status = answer.statusCode ?? 502
  response.writeHead(status)
  // Not a pipeline: it would destroy the socket of the device before anybody can say why.
  await new Promise<void>((resolve, reject) => {
    response.once('finish', resolve)
    answer.once('close', () => {
      if (!answer.complete)
        reject(new ProxyError('ERR_BACKEND_LOST', 'the backend broke off in the midst of its answer'))
    })
    answer.pipe(response)
  })
  return status
}

const UNREACHABLE: ReadonlySet<string> = new Set([
  'ECONNREFUSED',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'ENOTFOUND',
  'EAI_AGAIN',
  'ConnectionRefused',
  'FailedToOpenSocket',
])
const UNTRUSTED = /^(?:ERR_TLS|ERR_SSL|CERT_|DEPTH_ZERO|UNABLE_TO|SELF_SIGNED|ERR_OSSL|HOSTNAME_MISMATCH|INVALID_CA)/

function faultOf(error: Error): ProxyError {
  if (error instanceof ProxyError) return error
  const { code = '' } = error as { readonly code?: string }
  const known: FailureCode = UNREACHABLE.has(code)
    ? 'ERR_BACKEND_REFUSED'
    : code === 'ETIMEDOUT'
      ? 'ERR_BACKEND_TIMEOUT'
      : UNTRUSTED.test(code)
        ? 'ERR_BACKEND_UNTRUSTED'
        : code.startsWith('HPE_')
          ? 'ERR_BACKEND_PROTOCOL'
          : 'ERR_BACKEND_LOST'
  return new ProxyError(known, `the backend: ${code || 'no code'}`, { cause: error })
}

const ignore = () => {}
