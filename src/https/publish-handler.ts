import type { Origin } from '../backend/message.ts'
import type { Publisher } from '../backend/publisher.ts'
import { asProxyError, type FailureCode } from '../errors.ts'
import type { Permit } from '../policy/permit.ts'
import { type PublishLimits, parsePublish } from './publish.ts'

/** A POST to `/topics/…` of somebody whose identity is proved, its body whole. */
export interface PublishRequest {
  /** As on the wire. */
  readonly target: string
  readonly rawHeaders: readonly string[]
  readonly body: Uint8Array
}

/** What holds for whoever sent it. */
export interface PublishParts {
  readonly permit: Permit
  readonly limits: PublishLimits
  readonly publisher: Publisher
  readonly origin: Origin
}

export type PublishResult =
  | { readonly kind: 'published'; readonly topic: string }
  /** `detail` is for the log; `failure` of `answer.ts` knows which of it a device may be told. */
  | { readonly kind: 'refused'; readonly code: FailureCode; readonly detail: string }

/** Form, permission, broker, in this order: no broker hears of what the policies do not allow. Never rejects. */
export async function handlePublish(
  request: PublishRequest,
  { permit, limits, publisher, origin }: PublishParts,
  signal: AbortSignal,
): Promise<PublishResult> {
  try {
    const parsed = parsePublish(request.target, request.rawHeaders, request.body, limits)
    if (parsed.kind === 'refused') return parsed
    const { topic, retain } = parsed.publish
    const resource = `topic/${topic}`
    if (!permit.allows('iot:Publish', resource)) return denied('iot:Publish')
    if (retain && !permit.allows('iot:RetainPublish', resource)) return denied('iot:RetainPublish')
    await publisher.publish(parsed.publish, signal, origin)
    return { kind: 'published', topic }
  } catch (error) {
    const { code, message } = asProxyError(error)
    return { kind: 'refused', code, detail: message }
  }
}

function denied(action: string): PublishResult {
  return { kind: 'refused', code: 'ERR_ACTION_DENIED', detail: `the policies do not allow ${action} on this topic` }
}
