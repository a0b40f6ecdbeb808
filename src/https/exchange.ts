import { randomUUID } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { finished } from 'node:stream/promises'
import type { HttpProof } from '../auth/authenticator.ts'
import { type FailureCode, ProxyError } from '../errors.ts'
import { type Answer, failure } from './answer.ts'
import { type BodyOptions, readBody } from './body.ts'
import type { Conversation } from './conversation.ts'
import type { Head } from './head.ts'
import { LINGER_BYTES, LINGER_MS, type Timer } from './limits.ts'

/** Where a request went; the label of `http_requests_total`. */
export type RouteLabel = 'publish' | 'mqtt' | 'forward' | 'none'

/** What is told of every request once it is answered. */
export interface Answered {
  readonly traceId: string
  readonly route: RouteLabel
  readonly status: number
  readonly seconds: number
  /** Null when the request was served. */
  readonly failure: ProxyError | null
}

/** For an answer of ours to leave this process: a device that reads nothing must not keep its place. */
const ANSWER_MS = 30_000

/** After these nobody can be sure where the next request begins, or who is asking whom. */
const ENDING: ReadonlySet<FailureCode> = new Set<FailureCode>([
  'ERR_HTTP_MALFORMED',
  'ERR_HTTP_TIMEOUT',
  'ERR_HTTP_HEADERS_TOO_LARGE',
  'ERR_HTTP_BODY_TOO_LARGE',
  'ERR_HOST_MISMATCH',
  'ERR_DRAINING',
  'ERR_MAX_CONNECT_TIME',
])

/** One request and its one answer. */
export class Exchange {
  readonly traceId: string = randomUUID()
  readonly startedAt: number = performance.now()
  readonly conversation: Conversation
  readonly request: IncomingMessage
  readonly response: ServerResponse
  route: RouteLabel = 'none'
  readonly #timer: Timer
  readonly #answered: (answered: Answered) => void
  /** It waits for 100 before it sends its body (RFC 9110 §10.1.1). */
  readonly #expects: boolean

  constructor(
    conversation: Conversation,
    request: IncomingMessage,
    response: ServerResponse,
    expects: boolean,
    timer: Timer,
    answered: (answered: Answered) => void,
  ) {
    this.conversation = conversation
    this.request = request
    this.response = response
    this.#expects = expects
    this.#timer = timer
    this.#answered = answered
  }

  /** Tells a client that waits with its body that it is wanted. */
  continue(): void {
    if (this.#expects && !this.response.headersSent) this.response.writeContinue()
  }

  /** @throws {ProxyError} ERR_HTTP_TIMEOUT, ERR_HTTP_BODY_TOO_LARGE or ERR_HTTP_MALFORMED */
  async readBody(head: Head, limit: number, timeoutMs: number): Promise<Buffer> {
    const { contentLength } = head
    return this.reading(timeoutMs, (signal) => {
      const options: BodyOptions = { limit, contentLength, signal, begin: () => this.continue() }
      return readBody(this.request, options)
    })
  }

  /** Runs what reads the body, under its deadline; the signal says why reading has to stop. */
  async reading<T>(timeoutMs: number, read: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const late = new AbortController()
    const cancel = this.#timer(
      () => late.abort(new ProxyError('ERR_HTTP_TIMEOUT', 'no whole request body in time')),
      timeoutMs,
    )
    try {
      return await read(AbortSignal.any([late.signal, this.conversation.unreadable]))
    } finally {
      cancel()
    }
  }

  /** True where the connection ends with this answer. */
  get last(): boolean {
    // What was not read wholly would be taken for the next request; and a device that says `close` sends none.
    return this.conversation.last || !this.request.complete || !this.response.shouldKeepAlive
  }

  async refuse(error: ProxyError, allow: readonly string[] | null = null): Promise<void> {
    if (error.code === 'ERR_HTTP_MALFORMED' && this.conversation.gone.aborted) return
    if (this.response.headersSent) {
      // Half an answer cannot be taken back; an end before its length says so.
      this.#tell(this.response.statusCode, error)
      return this.conversation.destroy(error.code, error.message)
    }
    const answer = failure(error.code, this.traceId, null, error.message)
    const headers = allow === null ? answer.headers : { ...answer.headers, allow: allow.join(', ') }
    await this.answer({ ...answer, headers }, error)
  }

  async answer(answer: Answer, error: ProxyError | null = null): Promise<void> {
    const { conversation, request, response } = this
    this.#tell(answer.status, error)
    if (conversation.gone.aborted || response.destroyed) return
    // What came behind a request that was refused was sent in another belief.
    const last = this.last || (error !== null && (ENDING.has(error.code) || conversation.pipelined > 0))
    if (last) conversation.break()
    const slow = new ProxyError('ERR_HTTP_TIMEOUT', 'the answer was not read in time')
    const cancel = this.#timer(() => conversation.destroy(slow.code, slow.message), ANSWER_MS)
    const done = finished(response).catch(() => {})
    response.writeHead(answer.status, last ? { ...answer.headers, connection: 'close' } : answer.headers)
    if (request.complete) {
      response.end(answer.body)
    } else {
      // The answer is whole; the end waits, because closing on unread bytes would reset it out of the peer's hands.
      response.write(answer.body)
      await this.#drain()
      response.end()
    }
    await done
    cancel()
    if (last) conversation.linger()
  }

  /** A backend's answer is about to be passed on: whether it is the last one here, which is then settled. */
  passOn(): boolean {
    const { last } = this
    if (last) this.conversation.break()
    return last
  }

  /** A backend's answer has been passed on. */
  passedOn(status: number): void {
    this.#tell(status, null)
    if (this.conversation.broken) this.conversation.linger()
  }

  #tell(status: number, failure: ProxyError | null): void {
    this.conversation.remember(failure)
    const seconds = (performance.now() - this.startedAt) / 1_000
    this.#answered({ traceId: this.traceId, route: this.route, status, seconds, failure })
  }

  /** Reads on for a while, within a bound, and throws away. */
  #drain(): Promise<void> {
    const { request, conversation } = this
    return new Promise((resolve) => {
      let bytes = 0
      const onData = (chunk: Buffer) => {
        bytes += chunk.length
        if (bytes > LINGER_BYTES) over()
      }
      const over = () => {
        cancel()
        request.off('data', onData)
        request.off('end', over)
        conversation.gone.removeEventListener('abort', over)
        resolve()
      }
      const cancel = this.#timer(over, LINGER_MS)
      request.on('data', onData)
      request.on('end', over)
      conversation.gone.addEventListener('abort', over)
      if (conversation.gone.aborted || request.complete) return over()
      request.resume()
    })
  }
}

/** The proof that a request carries. */
export function proofOf(head: Head, rawHeaders: readonly string[], body: Uint8Array | null): HttpProof {
  return { method: head.method, target: head.target, rawHeaders, body }
}
