import type { Authenticated } from '../auth/authenticator.ts'
import { ProxyError } from '../errors.ts'
import type { Permit } from '../policy/permit.ts'
import type { Admission } from '../tls/admission.ts'
import { success } from './answer.ts'
import { checkLength, pumpBody } from './body.ts'
import { type Exchange, proofOf } from './exchange.ts'
import { forwardHeaders, type OutgoingHeaders } from './forward-headers.ts'
import type { Head } from './head.ts'
import { onRow, wayOf, whoOf } from './identity.ts'
import { PUBLISH_BYTES } from './limits.ts'
import type { FrontParts } from './parts.ts'
import { handlePublish } from './publish-handler.ts'
import { matchRoute, type Route, resourceOf, targetFor } from './routes.ts'

const TOPICS = '/topics/'

/** One request of the REST data plane (wire specification §7) or of a route, to its answer. */
export async function serveRest(parts: FrontParts, exchange: Exchange, head: Head): Promise<void> {
  const { admissions, domain } = exchange.conversation.connection
  const open = admissions.some((row) => row.protocol === 'https')
  if (open && head.path.startsWith(TOPICS)) {
    exchange.route = 'publish'
    if (head.method === 'POST') return publish(parts, exchange, head)
    return otherMethod(exchange, head, ['POST'])
  }
  if (head.path === '/mqtt' && admissions.some((row) => row.protocol === 'wss')) {
    exchange.route = 'mqtt'
    throw new ProxyError('ERR_UPGRADE_REQUIRED', '/mqtt without an upgrade')
  }
  if (!open) throw new ProxyError('ERR_HTTP_NOT_FOUND', 'this way in has no such path')
  const match = matchRoute(parts.routes(domain), head)
  if (match.kind === 'none') throw new ProxyError('ERR_HTTP_NOT_FOUND', 'no route for this path')
  exchange.route = 'forward'
  if (match.kind === 'method') return otherMethod(exchange, head, match.allow)
  return forward(parts, exchange, head, match.route, match.captures)
}

/** A browser asks before it posts (Fetch, "CORS-preflight request"); everybody else is told which methods there are. */
async function otherMethod(exchange: Exchange, head: Head, methods: readonly string[]): Promise<void> {
  const allow = [...methods, 'OPTIONS']
  if (head.method !== 'OPTIONS') {
    return exchange.refuse(new ProxyError('ERR_HTTP_METHOD', 'a method that this path does not have'), allow)
  }
  return exchange.answer({
    status: 204,
    headers: {
      allow: allow.join(', '),
      'access-control-allow-origin': '*',
      'access-control-allow-methods': allow.join(', '),
      // `*` does not stand for Authorization, and the names of token headers are the operator's.
      'access-control-allow-headers': 'authorization, *',
      'access-control-max-age': '600',
      'x-amzn-RequestId': exchange.traceId,
    },
    body: '',
  })
}

async function publish(parts: FrontParts, exchange: Exchange, head: Head): Promise<void> {
  const { conversation, request } = exchange
  const { bodyTimeoutMs } = parts.limits
  checkLength({ limit: PUBLISH_BYTES, contentLength: head.contentLength })
  const { who, row, body } = await admitted(parts, exchange, head)
  const payload = body ?? (await exchange.readBody(head, PUBLISH_BYTES, bodyTimeoutMs))
  const connection = onRow(conversation.connection, row)
  conversation.trace.stage = 'relay'
  const result = await handlePublish(
    { target: head.target, rawHeaders: request.rawHeaders, body: payload },
    {
      permit: parts.permitFor(connection, who),
      limits: parts.publishLimits(connection.domain),
      publisher: parts.publisher(connection.domain),
      origin: { principal: who.principal.id, address: connection.remoteAddress },
    },
    conversation.gone,
  )
  if (result.kind === 'refused') throw new ProxyError(result.code, result.detail)
  conversation.trace.connectedMs ??= performance.now() - connection.acceptedAt
  await exchange.answer(success(exchange.traceId))
}

async function forward(
  parts: FrontParts,
  exchange: Exchange,
  head: Head,
  route: Route,
  captures: readonly string[],
): Promise<void> {
  const { conversation, request, response } = exchange
  const { limits, forwarder } = parts
  checkLength({ limit: limits.bodyBytes, contentLength: head.contentLength })
  const { who, row, body } = await admitted(parts, exchange, head)
  authorize(parts, exchange, head, route, captures, who, row)
  const headers = outgoingHeaders(parts, exchange, head, route, who)
  const backend = parts.httpBackend(route.backend)
  conversation.trace.stage = 'relay'
  conversation.trace.backend = backend.name
  const status = await forwarder.web(
    {
      method: head.method,
      target: targetFor(head, parts.tokenKeyNames(conversation.connection.domain)),
      headers: { ...headers, ...framing(head, body) },
      backend,
    },
    async (into) => {
      if (body !== null) into.end(body)
      else if (!hasBody(head)) into.end()
      else {
        await exchange.reading(limits.bodyTimeoutMs, (signal) =>
          pumpBody(request, into, {
            limit: limits.bodyBytes,
            contentLength: head.contentLength,
            signal,
            begin: () => exchange.continue(),
          }),
        )
      }
    },
    response,
    () => exchange.passOn(),
    conversation.gone,
  )
  conversation.trace.connectedMs ??= performance.now() - conversation.connection.acceptedAt
  exchange.passedOn(status)
}

/** Who sends it; with Signature Version 4 only the whole body shows that. */
async function admitted(
  parts: FrontParts,
  exchange: Exchange,
  head: Head,
): Promise<{ readonly who: Authenticated; readonly row: Admission; readonly body: Buffer | null }> {
  const { conversation, request } = exchange
  const bare = proofOf(head, request.rawHeaders, null)
  const { row } = wayOf(parts, conversation, head, bare, 'https')
  if (row.auth !== 'sigv4') return { who: await whoOf(parts, conversation, row, bare), row, body: null }
  const body = await exchange.readBody(head, PUBLISH_BYTES, parts.limits.bodyTimeoutMs)
  return { who: await whoOf(parts, conversation, row, { ...bare, body }), row, body }
}

/** The policies' word on a route. */
export function authorize(
  parts: FrontParts,
  { conversation }: Pick<Exchange, 'conversation'>,
  head: Head,
  route: Route,
  captures: readonly string[],
  who: Authenticated,
  row: Admission,
): void {
  if (route.action === null) return
  const permit = parts.permitFor(onRow(conversation.connection, row), who)
  demand(permit, route.action, resourceOf(route, captures, head.query))
}

export function outgoingHeaders(
  parts: FrontParts,
  { conversation, request, traceId }: Pick<Exchange, 'conversation' | 'request' | 'traceId'>,
  head: Head,
  route: Route,
  who: Authenticated,
): OutgoingHeaders {
  const { connection } = conversation
  return forwardHeaders(head, request.rawHeaders, {
    connection,
    who,
    traceId,
    host: parts.httpBackend(route.backend).url.host,
    extra: route.headers,
    secrets: parts.tokenKeyNames(connection.domain),
  })
}

function demand(permit: Permit, action: string, resource: string): void {
  if (!permit.allows(action, resource)) throw new ProxyError('ERR_ACTION_DENIED', `${action} on ${resource}`)
}

const hasBody = ({ chunked, contentLength }: Head): boolean => chunked || (contentLength ?? 0) > 0

/** How the body is framed toward the backend: one way, and ours. */
function framing(head: Head, body: Buffer | null): OutgoingHeaders {
  if (body !== null && (body.length > 0 || hasBody(head))) return { 'content-length': String(body.length) }
  if (head.chunked) return { 'transfer-encoding': 'chunked' }
  if (head.contentLength !== null) return { 'content-length': String(head.contentLength) }
  return head.method === 'GET' || head.method === 'HEAD' ? {} : { 'content-length': '0' }
}
