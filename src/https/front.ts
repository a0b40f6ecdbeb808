import { randomUUID } from 'node:crypto'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { Duplex } from 'node:stream'
import { Ring } from '../collections/ring.ts'
import type { ProtocolHandler } from '../connection.ts'
import { asProxyError, ProxyError } from '../errors.ts'
import { failure, statusOf } from './answer.ts'
import { type Closable, Conversation, nodeSocketOf } from './conversation.ts'
import { Exchange } from './exchange.ts'
import { checkHead, type HeadCheck } from './head.ts'
import { settle } from './identity.ts'
import { timer as realTimer } from './limits.ts'
import type { FrontParts } from './parts.ts'
import { serveRest } from './rest.ts'
import { serveUpgrade } from './upgrade.ts'

export interface HttpsHandler extends ProtocolHandler {
  /** Forwarded WebSockets; requests end by themselves when the process is closing. */
  readonly live: ReadonlySet<Closable>
  /** Other settings count for connections that come from now on: those that are here end with their next answer. */
  retire(): void
}

/** What the parser says, as a code of ours; everything else is malformed. */
const PARSER_CODES = {
  HPE_HEADER_OVERFLOW: 'ERR_HTTP_HEADERS_TOO_LARGE',
  ERR_HTTP_REQUEST_TIMEOUT: 'ERR_HTTP_TIMEOUT',
} as const

/** The device is gone, or went in the middle of a request: nobody reads an answer. */
const LEFT: ReadonlySet<string> = new Set(['ECONNRESET', 'EPIPE', 'HPE_INVALID_EOF_STATE'])

/**
 * HTTP/1.1 on 443 without a private ALPN name, on 443 with `x-amzn-http-ca`, on 8443 and on domains that say so: the
 * WebSocket and HTTPS rows of the matrix. One server that never listens; connections are handed to it after TLS.
 */
export function httpsHandler(parts: FrontParts): HttpsHandler {
  const { limits, timer = realTimer } = parts
  const live = new Set<Closable>()
  const open = new Ring<Conversation>()
  let retired = false
  const conversations = new WeakMap<object, { conversation: Conversation; closing: AbortSignal }>()
  const server = createServer({
    maxHeaderSize: limits.headerBytes,
    // Both answer in a form that is not ours; `checkHead` looks at Host.
    requireHostHeader: false,
    insecureHTTPParser: false,
    // A server that never listens does not run these; `Conversation` has its own.
    headersTimeout: 0,
    requestTimeout: 0,
    keepAliveTimeout: 0,
  })
  // With a limit the parser would drop the rest in silence; the size is limited, and `checkHead` counts.
  server.maxHeadersCount = 0
  server.timeout = 0

  const check = (conversation: Conversation, request: IncomingMessage, upgrade: boolean): HeadCheck =>
    checkHead(
      {
        method: request.method ?? '',
        url: request.url ?? '',
        httpVersion: request.httpVersion,
        rawHeaders: request.rawHeaders,
      },
      { serverNames: conversation.connection.domain.serverNames, maxHeaders: limits.headers, upgrade },
    )

  const onRequest = (expects: boolean, understood: boolean) => (request: IncomingMessage, response: ServerResponse) => {
    request.on('error', ignore)
    response.on('error', ignore)
    const found = conversations.get(request.socket)
    if (found === undefined) return void request.socket.destroy()
    const { conversation } = found
    conversation.take(async () => {
      const exchange = new Exchange(conversation, request, response, expects, timer, (answered) =>
        parts.answered(conversation.connection, answered),
      )
      try {
        if (!understood) throw new ProxyError('ERR_HTTP_MALFORMED', 'an expectation other than 100-continue')
        const checked = check(conversation, request, false)
        if (checked.kind === 'refused') throw new ProxyError(checked.code, checked.detail)
        await serveRest(parts, exchange, checked.head)
      } catch (error) {
        await exchange.refuse(asProxyError(error))
      }
      settle(conversation.trace)
    })
  }
  server.on('request', onRequest(false, true))
  server.on('checkContinue', onRequest(true, true))
  server.on('checkExpectation', onRequest(false, false))

  server.on('upgrade', (request: IncomingMessage, socket: Duplex, early: Buffer) => {
    const found = conversations.get(socket)
    if (found === undefined) return void socket.destroy()
    const { conversation, closing } = found
    conversation.released()
    conversation.take(() =>
      serveUpgrade(
        { parts, timer, closing, live },
        {
          conversation,
          request,
          socket: nodeSocketOf(conversation.connection),
          early,
          check: check(conversation, request, true),
        },
      ),
    )
  })
  server.on('connect', (_request: IncomingMessage, socket: Duplex) => {
    conversations.get(socket)?.conversation.malformed(new ProxyError('ERR_HTTP_MALFORMED', 'CONNECT'))
  })
  server.on('clientError', (error: NodeJS.ErrnoException, socket: Duplex) => {
    const found = conversations.get(socket)
    const code = error.code ?? ''
    // Bytes behind a request that said `close`: nobody promised to read them, and its answer is the last one.
    if (code === 'HPE_CLOSED_CONNECTION') return
    if (found === undefined || LEFT.has(code)) return void socket.destroy()
    const known = PARSER_CODES[code as keyof typeof PARSER_CODES] ?? 'ERR_HTTP_MALFORMED'
    found.conversation.malformed(new ProxyError(known, `the parser: ${code}`))
  })

  return {
    protocol: 'https',
    live,
    retire() {
      retired = true
      for (const conversation of open) conversation.endWithNextAnswer()
    },
    async serve(connection, trace, signal) {
      trace.stage = 'request'
      const conversation: Conversation = new Conversation(connection, trace, limits, timer, (error) => {
        const traceId = randomUUID()
        parts.answered(connection, { traceId, route: 'none', status: statusOf(error.code), seconds: 0, failure: error })
        return failure(error.code, traceId, null, error.message)
      })
      const onClosing = () => conversation.close('ERR_DRAINING')
      const onDraining = () => conversation.drain()
      const { draining } = parts
      signal.addEventListener('abort', onClosing, { once: true })
      draining?.addEventListener('abort', onDraining, { once: true })
      const link = open.add(conversation)
      if (retired) conversation.endWithNextAnswer()
      if (draining?.aborted) onDraining()
      if (signal.aborted) onClosing()
      else if (!connection.tls.destroyed) {
        conversations.set(connection.tls, { conversation, closing: signal })
        server.emit('connection', connection.tls)
        conversation.listen()
      }
      const over = conversation.done.catch(asProxyError).finally(() => {
        signal.removeEventListener('abort', onClosing)
        draining?.removeEventListener('abort', onDraining)
        open.remove(link)
      })
      return { over }
    },
  }
}

const ignore = () => {}
