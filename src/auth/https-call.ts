import { Agent as HttpAgent, request as httpRequest, type IncomingMessage, type RequestOptions } from 'node:http'
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https'
import { CallFault } from './guard.ts'

export interface HttpsCallOptions {
  /** `https:`, or `http:` to this machine: the settings see to it. */
  readonly url: URL
  readonly method: 'GET' | 'POST'
  /** PEM; null trusts the runtime's own list. */
  readonly ca: readonly string[] | null
  readonly headers: Readonly<Record<string, string>>
  /** Connections that are kept, and at most used at once. */
  readonly connections: number
}

export interface HttpsAnswer {
  /** Anything but 3xx. */
  readonly status: number
  readonly body: Buffer
}

export interface HttpsCall {
  /**
   * One exchange, no longer than `signal`.
   * @throws {CallFault} for whatever is no whole answer of at most 64 KiB
   */
  send(body: string | null, signal: AbortSignal): Promise<HttpsAnswer>
  /** Closes the kept connections. */
  close(): void
}

export const MAX_ANSWER_BYTES = 64 * 1_024
const MAX_HEADER_BYTES = 16 * 1_024
/** Shorter than what servers commonly keep (Node 5 s, nginx 75 s): a connection that is about to close is not used. */
const KEEP_MS = 4_000

const CUT = 'closed before the answer was whole'

/** HTTP to one URL over kept connections: no redirects, no compression, no cookies, no proxy of the environment. */
export function httpsCall(options: HttpsCallOptions): HttpsCall {
  const { url, method, connections } = options
  const secure = url.protocol === 'https:'
  const pool = { keepAlive: true, keepAliveMsecs: KEEP_MS, maxSockets: connections, maxFreeSockets: connections }
  const agent = secure ? new HttpsAgent(pool) : new HttpAgent(pool)
  const base: RequestOptions & { ca?: string[]; minVersion?: 'TLSv1.2' } = {
    method,
    agent,
    maxHeaderSize: MAX_HEADER_BYTES,
    headers: {
      ...options.headers,
      accept: 'application/json',
      // Nothing is unpacked here: a small answer must not become a large one.
      'accept-encoding': 'identity',
      ...(method === 'POST' && { 'content-type': 'application/json' }),
    },
    ...(secure && { minVersion: 'TLSv1.2' }),
    ...(secure && options.ca !== null && { ca: [...options.ca] }),
  }
  const open = secure ? httpsRequest : httpRequest

  const once = (body: string | null, signal: AbortSignal): Promise<HttpsAnswer> =>
    new Promise((resolve, reject) => {
      const headers = { ...base.headers, ...(body !== null && { 'content-length': Buffer.byteLength(body) }) }
      const outgoing = open(url, { ...base, headers })
      let over = false
      const settle = (finish: () => void) => {
        if (over) return
        over = true
        signal.removeEventListener('abort', onAbort)
        finish()
      }
      // Rejected first and torn down after, so that nothing depends on which events a runtime emits then.
      const fail = (error: unknown) => {
        settle(() => {
          reject(error)
          outgoing.destroy()
        })
      }
      const onAbort = () => fail(signal.reason)
      outgoing.on('error', (cause: Error) => fail(new NetworkFault(cause, outgoing.reusedSocket)))
      outgoing.on('close', () => fail(new CallFault('network', CUT)))
      outgoing.on('response', (incoming) => {
        readAnswer(incoming, (answer) => settle(() => resolve(answer)), fail)
      })
      signal.addEventListener('abort', onAbort, { once: true })
      if (signal.aborted) return onAbort()
      outgoing.end(body ?? undefined)
    })

  return {
    async send(body, signal) {
      try {
        return await once(body, signal)
      } catch (error) {
        // A kept connection may have been closed by the server while the question was on its way (RFC 9112 §9.5).
        if (error instanceof NetworkFault && error.stale && !signal.aborted) return await once(body, signal)
        throw error
      }
    },
    close: () => agent.destroy(),
  }
}

/** A fault of the network; `stale` where a kept connection was used and not a byte came back. */
class NetworkFault extends CallFault {
  readonly stale: boolean

  constructor(cause: Error, reused: boolean) {
    const code = 'code' in cause && typeof cause.code === 'string' ? cause.code : ''
    super('network', code === '' ? cause.message.slice(0, 300) : code, { cause })
    this.stale = reused && (code === 'ECONNRESET' || code === 'EPIPE')
  }
}

function readAnswer(
  incoming: IncomingMessage,
  done: (answer: HttpsAnswer) => void,
  fail: (fault: CallFault) => void,
): void {
  const status = incoming.statusCode ?? 0
  const cut = (cause?: unknown) => fail(new CallFault('network', CUT, { cause }))
  incoming.on('error', cut)
  incoming.on('close', () => cut())
  const unfit = unfitHead(status, incoming.headers)
  if (unfit !== null) {
    fail(unfit)
    return
  }
  const chunks: Buffer[] = []
  let bytes = 0
  incoming.on('data', (chunk: Buffer) => {
    bytes += chunk.length
    chunks.push(chunk)
    if (bytes > MAX_ANSWER_BYTES) fail(tooLarge())
  })
  incoming.on('end', () => {
    if (incoming.complete) done({ status, body: Buffer.concat(chunks) })
    else cut()
  })
}

function unfitHead(status: number, headers: IncomingMessage['headers']): CallFault | null {
  if (status >= 300 && status < 400) return new CallFault('status', `status ${status}: redirects are not followed`)
  if ((headers['content-encoding'] ?? 'identity') !== 'identity')
    return new CallFault('unusable', 'a compressed answer')
  return Number(headers['content-length'] ?? 0) > MAX_ANSWER_BYTES ? tooLarge() : null
}

const tooLarge = () => new CallFault('unusable', `an answer of more than ${MAX_ANSWER_BYTES} bytes`)
