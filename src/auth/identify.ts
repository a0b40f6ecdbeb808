import type { SecuredConnection, Trace } from '../connection.ts'
import type { Metrics } from '../control/metrics.ts'
import { ProxyError, reasonOf } from '../errors.ts'
import type { RefusedResumptions } from '../tls/tickets.ts'
import type { Authenticated, Authenticator, AuthOutcome, Credentials } from './authenticator.ts'

/** One identity decision, counted; a denial is thrown as what ends the connection. */
export type Identify = (
  connection: SecuredConnection,
  credentials: Credentials,
  trace: Trace,
  signal: AbortSignal,
) => Promise<Authenticated>

export interface IdentifyParts {
  readonly metrics: Metrics
  readonly refusedResumptions: Pick<RefusedResumptions, 'add'>
  /** Null when this way in is known but not served. */
  authenticatorFor(connection: SecuredConnection, method: Credentials['kind']): Authenticator | null
}

/** The one place where an identity is decided, whatever protocol brought the proof. Whatever goes wrong, the answer is no. */
export function identifier(parts: IdentifyParts): Identify {
  return async (connection, credentials, trace, signal) => {
    const authenticator = parts.authenticatorFor(connection, credentials.kind)
    if (authenticator === null) throw new ProxyError('ERR_MODE_UNSERVED', `${trace.mode} is not served here`)
    const outcome = await decide(authenticator, credentials, connection, signal).catch((error: unknown) => {
      const fault = asFault(error)
      // Called off, because the device has left or we are closing: that is no fault of anybody.
      parts.metrics.identity(credentials.kind, signal.aborted ? 'canceled' : reasonOf(fault.code))
      throw fault
    })
    if (outcome.kind === 'denied') {
      // The certificate may be a former one of the device's, which it no longer presents.
      if (connection.resumed && 'peer' in credentials) parts.refusedResumptions.add(connection.remoteAddress)
      parts.metrics.identity(credentials.kind, reasonOf(outcome.code))
      throw new ProxyError(outcome.code, outcome.detail)
    }
    parts.metrics.identity(credentials.kind, 'ok')
    trace.principal = outcome.principal.id
    return outcome
  }
}

async function decide(
  authenticator: Authenticator,
  credentials: Credentials,
  connection: SecuredConnection,
  signal: AbortSignal,
): Promise<AuthOutcome> {
  return authenticator.authenticate(credentials, connection, signal)
}

/** What was thrown is told apart from a device that was judged. */
function asFault(error: unknown): ProxyError {
  if (error instanceof ProxyError) return error
  return new ProxyError('ERR_IDENTITY_FAULT', error instanceof Error ? error.message : String(error), { cause: error })
}
