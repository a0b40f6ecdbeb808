import type { IncomingMessage } from 'node:http'
import type { Writable } from 'node:stream'
import { ProxyError } from '../errors.ts'

export interface BodyOptions {
  /** Largest body, in bytes. */
  readonly limit: number
  /** As said by the head; null where it was not. */
  readonly contentLength: number | null
  /** Aborted, with the reason to throw, when the rest will not come. */
  readonly signal: AbortSignal
  /** Told when reading begins: whoever expects 100 is waiting for it. */
  begin(): void
}

/** @throws {ProxyError} when the length that was said is over the limit already */
export function checkLength({ limit, contentLength }: Pick<BodyOptions, 'limit' | 'contentLength'>): void {
  if (contentLength !== null && contentLength > limit) throw tooLarge(limit)
}

/** A trailer could be taken for a header by somebody, and nobody needs one here. */
export function checkTrailers(request: IncomingMessage): void {
  if (request.rawTrailers.length > 0) throw new ProxyError('ERR_HTTP_MALFORMED', 'trailers after the last chunk')
}

export function tooLarge(limit: number): ProxyError {
  return new ProxyError('ERR_HTTP_BODY_TOO_LARGE', `a body of more than ${limit} bytes`)
}

/** The whole body. @throws {ProxyError} ERR_HTTP_BODY_TOO_LARGE, or the reason of the signal */
export async function readBody(request: IncomingMessage, options: BodyOptions): Promise<Buffer> {
  checkLength(options)
  const { signal, limit } = options
  const chunks: Buffer[] = []
  let length = 0
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  const onData = (chunk: Buffer) => {
    length += chunk.length
    if (length > limit) return reject(tooLarge(limit))
    chunks.push(chunk)
  }
  const onAbort = () => reject(signal.reason)
  const onEnd = () => resolve()
  request.on('data', onData).on('end', onEnd)
  signal.addEventListener('abort', onAbort, { once: true })
  try {
    if (signal.aborted) throw signal.reason
    options.begin()
    await promise
    checkTrailers(request)
    return Buffer.concat(chunks, length)
  } finally {
    request.off('data', onData).off('end', onEnd)
    signal.removeEventListener('abort', onAbort)
  }
}

/**
 * The body as it comes, no faster than it is taken. By hand, because a pipeline destroys its source when it breaks, and
 * with it the socket on which the refusal is to be written.
 * @throws {ProxyError} as `readBody`
 */
export async function pumpBody(request: IncomingMessage, into: Writable, options: BodyOptions): Promise<void> {
  checkLength(options)
  const { signal, limit } = options
  let length = 0
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  const onData = (chunk: Buffer) => {
    length += chunk.length
    if (length > limit) return reject(tooLarge(limit))
    if (!into.write(chunk)) request.pause()
  }
  const onDrain = () => request.resume()
  const onAbort = () => reject(signal.reason)
  const onEnd = () => resolve()
  const onClose = () => reject(new ProxyError('ERR_BACKEND_LOST', 'the backend takes no more of the body'))
  request.on('data', onData).on('end', onEnd)
  into.on('drain', onDrain).on('close', onClose)
  signal.addEventListener('abort', onAbort, { once: true })
  try {
    if (signal.aborted) throw signal.reason
    options.begin()
    await promise
    checkTrailers(request)
    into.end()
  } finally {
    request.off('data', onData).off('end', onEnd)
    into.off('drain', onDrain).off('close', onClose)
    signal.removeEventListener('abort', onAbort)
  }
}
