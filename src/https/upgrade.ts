import { randomUUID } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import type { Socket } from 'node:net'
import type { CloseReason, Serving } from '../connection.ts'
import { asProxyError, ProxyError } from '../errors.ts'
import { failure, statusOf } from './answer.ts'
import type { Closable, Conversation } from './conversation.ts'
import { proofOf, type RouteLabel } from './exchange.ts'
import type { Head, HeadCheck } from './head.ts'
import { onRow, wayOf, whoOf } from './identity.ts'
import type { Timer } from './limits.ts'
import type { FrontParts, MessageStream } from './parts.ts'
import { writeAnswer } from './raw.ts'
import { authorize, outgoingHeaders } from './rest.ts'
import { matchRoute, targetFor } from './routes.ts'
import { watch } from './watch.ts'

export interface UpgradeRequest {
  readonly conversation: Conversation
  readonly request: IncomingMessage
  readonly socket: Socket
  /** What came behind the head; it waits for the 101. */
  readonly early: Buffer
  readonly check: HeadCheck
}

export interface UpgradeContext {
  readonly parts: FrontParts
  readonly timer: Timer
  /** Aborted when the process stops taking in devices. */
  readonly closing: AbortSignal
  /** Forwarded WebSockets, which somebody may have to end. */
  readonly live: Set<Closable>
}

/** One upgrade: asked the same questions as every other request, and only then answered with 101. */
export async function serveUpgrade(context: UpgradeContext, upgrade: UpgradeRequest): Promise<void> {
  await new Upgrading(context, upgrade).serve()
}

class Upgrading {
  readonly #context: UpgradeContext
  readonly #upgrade: UpgradeRequest
  readonly #traceId: string = randomUUID()
  readonly #startedAt: number = performance.now()
  #route: RouteLabel = 'none'

  constructor(context: UpgradeContext, upgrade: UpgradeRequest) {
    this.#context = context
    this.#upgrade = upgrade
  }

  async serve(): Promise<void> {
    const { check, request, conversation } = this.#upgrade
    try {
      if (check.kind === 'refused') throw new ProxyError(check.code, check.detail)
      const { head } = check
      const mqtt = head.path === '/mqtt' && has(conversation, 'wss')
      if (mqtt) this.#route = 'mqtt'
      if (request.headers.upgrade?.toLowerCase() !== 'websocket') {
        throw new ProxyError(mqtt ? 'ERR_UPGRADE_REQUIRED' : 'ERR_HTTP_MALFORMED', 'an upgrade to another protocol')
      }
      if (mqtt) await this.#mqtt(head)
      else await this.#forward(head)
    } catch (error) {
      this.#refuse(asProxyError(error))
    }
  }

  async #mqtt(head: Head): Promise<void> {
    const { parts, closing } = this.#context
    const { conversation, request, socket, early } = this.#upgrade
    const http = proofOf(head, request.rawHeaders, null)
    const { row, proved } = wayOf(parts, conversation, head, http, 'wss')
    const who = proved ? await whoOf(parts, conversation, row, http) : null
    if (conversation.gone.aborted) return
    // A session that has no place is better refused here than after its CONNECT.
    parts.room?.(conversation.connection.domain)
    const upgraded = parts.websocket(request, socket, early)
    if (upgraded.kind === 'refused') throw new ProxyError(upgraded.code, upgraded.detail)
    this.#tell(101, null)
    const { connection, trace } = conversation
    const { stream } = upgraded
    const serving = parts.serveMqtt(onRow(connection, row), { stream, http, who }, trace, closing)
    conversation.handOver(this.#session(stream, serving))
  }

  /**
   * What the device did against the protocol of WebSockets tells more than that it left, or left in the middle of its
   * CONNECT. Where we had ended the session before, that stays the reason.
   */
  async #session(stream: MessageStream, serving: Promise<Serving>): Promise<CloseReason> {
    const { closing } = this.#context
    const onClosing = () => {
      stream.closeCode = 1001
    }
    closing.addEventListener('abort', onClosing, { once: true })
    if (closing.aborted) onClosing()
    try {
      const { over } = await serving.catch((error: unknown) => {
        throw faultOf(stream) ?? error
      })
      const result = await over
      if (result instanceof ProxyError) throw result
      const fault = result === 'downstream' ? faultOf(stream) : null
      if (fault !== null) throw fault
      return result
    } finally {
      closing.removeEventListener('abort', onClosing)
    }
  }

  /** Another path, whose WebSocket a route passes on. */
  async #forward(head: Head): Promise<void> {
    const { parts } = this.#context
    const { conversation, request, socket, early } = this.#upgrade
    const { connection, trace } = conversation
    if (!has(conversation, 'https')) throw new ProxyError('ERR_HTTP_NOT_FOUND', 'this way in has no such path')
    const match = matchRoute(parts.routes(connection.domain), head)
    if (match.kind === 'none') throw new ProxyError('ERR_HTTP_NOT_FOUND', 'no route for this path')
    this.#route = 'forward'
    if (match.kind === 'method') throw new ProxyError('ERR_HTTP_METHOD', 'no route for a GET of this path')
    const { route, captures } = match
    const http = proofOf(head, request.rawHeaders, null)
    const { row } = wayOf(parts, conversation, head, http, 'https')
    if (row.auth === 'x509' || row.auth === 'custom-x509') {
      throw new ProxyError('ERR_HTTP_NOT_FOUND', 'no certificate is an identity over a WebSocket')
    }
    // A request without a body: what would be signed is there.
    const who = await whoOf(parts, conversation, row, { ...http, body: row.auth === 'sigv4' ? Buffer.alloc(0) : null })
    authorize(parts, { conversation }, head, route, captures, who, row)
    if (conversation.gone.aborted) return
    const backend = parts.httpBackend(route.backend)
    trace.backend = backend.name
    trace.stage = 'relay'
    const headers = outgoingHeaders(parts, { conversation, request, traceId: this.#traceId }, head, route, who)
    const forwarded = {
      method: 'GET',
      target: targetFor(head, parts.tokenKeyNames(connection.domain)),
      headers,
      backend,
    }
    const refuse = (error: ProxyError) => this.#refuse(error)
    const { status, closed } = await parts.forwarder.upgrade(forwarded, socket, early, refuse, conversation.gone)
    if (status === null) return
    this.#tell(status, null)
    trace.connectedMs ??= performance.now() - connection.acceptedAt
    conversation.handOver(
      this.#watched(closed, (cut) =>
        watch(
          { who, permit: (now) => authorize(parts, { conversation }, head, route, captures, now, row), end: cut },
          this.#context.timer,
        ),
      ),
    )
  }

  /** Until both sides are closed; rejects with the reason where we end it. */
  async #watched(closed: Promise<void>, begin: (cut: (error: ProxyError) => void) => () => void): Promise<CloseReason> {
    const { socket } = this.#upgrade
    const { live } = this.#context
    let ended: ProxyError | null = null
    const cut = (error: ProxyError) => {
      ended ??= error
      socket.destroy()
    }
    const entry: Closable = { close: (code) => cut(new ProxyError(code, 'ended from outside')) }
    live.add(entry)
    const stop = begin(cut)
    await closed
    stop()
    live.delete(entry)
    if (ended !== null) throw ended
    return 'downstream'
  }

  #refuse(error: ProxyError): void {
    const { conversation, socket } = this.#upgrade
    if (conversation.gone.aborted) return
    this.#tell(statusOf(error.code), error)
    writeAnswer(socket, failure(error.code, this.#traceId, null, error.message))
    conversation.linger()
  }

  #tell(status: number, failed: ProxyError | null): void {
    const { conversation } = this.#upgrade
    conversation.remember(failed)
    this.#context.parts.answered(conversation.connection, {
      traceId: this.#traceId,
      route: this.#route,
      status,
      seconds: (performance.now() - this.#startedAt) / 1_000,
      failure: failed,
    })
  }
}

function faultOf({ fault }: MessageStream): ProxyError | null {
  return fault ? new ProxyError(fault.code, fault.detail) : null
}

const has = ({ connection }: Conversation, protocol: 'wss' | 'https'): boolean =>
  connection.admissions.some((row) => row.protocol === protocol)
