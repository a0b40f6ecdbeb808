import { type Answer, REFUSED, readAnswer, resultOf } from './answer.ts'
import type { Asked, AskedDeps, EntryOf } from './authorizer.ts'
import { CallFault, guard } from './guard.ts'
import { type HttpsAnswer, httpsCall } from './https-call.ts'
import { textOf } from './parameters.ts'
import { requestOf } from './question.ts'

/**
 * Asks an HTTPS endpoint who the device is and what it may do.
 *
 * - Request: `POST`, the JSON of `AuthorizerRequest`.
 * - Response: `isAuthenticated`, `principalId`, `policyDocuments` and two lifetimes **in seconds**, turned into
 *   milliseconds in `answer.ts` and nowhere else.
 * - Denied: `isAuthenticated: false`, or HTTP 401 or 403.
 * - Errors: any other status, a redirect, no whole answer within the deadline, more than 64 KiB, or a body of another
 *   form. It never denies because it failed, and never admits because it failed.
 * - Calls: one per question; who remembers answers is `custom.ts`.
 *
 * Source: AWS IoT Core developer guide, "Custom authentication".
 */
export function webhook(entry: EntryOf<'webhook'>, deps: AskedDeps): Asked {
  const { name, url, ca, headers, timeoutMs, concurrency, lifetimes } = entry
  const guarded = guard({ name, timeoutMs, concurrency, ...deps })
  const call = httpsCall({ url, method: 'POST', ca, headers, connections: concurrency })
  return {
    ask: (question, signal) =>
      guarded.run(
        async (ending): Promise<Answer> => {
          const answer = await call.send(JSON.stringify(requestOf(question)), ending)
          if (answer.status === 401 || answer.status === 403) return REFUSED
          return readAnswer(jsonOf(answer), { lifetimes, principalId: question.certificate?.id ?? null })
        },
        signal,
        resultOf,
      ),
    problem: async () => null,
    close: () => call.close(),
  }
}

/** The body of a 200. @throws {CallFault} */
export function jsonOf({ status, body }: HttpsAnswer): unknown {
  if (status !== 200) {
    // A 4xx is about this one question, and any device could bring it about.
    throw new CallFault('status', `status ${status}`, { unwell: status >= 500 || status === 429 })
  }
  const text = textOf(body)
  try {
    return JSON.parse(text ?? '')
  } catch {
    // What the parser says may quote the body.
    throw new CallFault('unusable', 'the body is not JSON')
  }
}
