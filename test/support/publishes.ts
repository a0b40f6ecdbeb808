import type { Message } from '../../src/backend/message.ts'
import type { Publisher } from '../../src/backend/publisher.ts'
import { FAILURES, ProxyError } from '../../src/errors.ts'

export const PLAIN: Message = {
  topic: 'flood',
  payload: new Uint8Array(),
  qos: 1,
  retain: false,
  contentType: null,
  responseTopic: null,
  correlationData: null,
  messageExpirySeconds: null,
  payloadIsUtf8: null,
  userProperties: [],
}

export interface Flood {
  /** Payloads that were acknowledged. */
  readonly acknowledged: ReadonlySet<string>
  /** HTTP status of each failure. */
  readonly statuses: readonly number[]
}

/** `count` publishes, so many at a time; each is tried once. `after` is told of every one that ended, and may wait. */
export async function flood(
  to: Publisher,
  count: number,
  atATime: number,
  after: (ended: number, failed: boolean) => void | Promise<void>,
): Promise<Flood> {
  const signal = new AbortController().signal
  const acknowledged = new Set<string>()
  const statuses: number[] = []
  let [next, ended] = [0, 0]
  const worker = async () => {
    while (next < count) {
      const payload = `m${next++}`
      let failed = false
      try {
        await to.publish({ ...PLAIN, topic: `flood/${payload}`, payload: Buffer.from(payload) }, signal)
        acknowledged.add(payload)
      } catch (error) {
        if (!(error instanceof ProxyError)) throw error
        const { http } = FAILURES[error.code]
        statuses.push(http ?? 0)
        failed = true
      }
      await after(++ended, failed)
    }
  }
  await Promise.all(Array.from({ length: atATime }, worker))
  return { acknowledged, statuses }
}
