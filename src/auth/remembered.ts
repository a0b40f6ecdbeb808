import type { SecuredConnection } from '../connection.ts'
import type { Metrics } from '../control/metrics.ts'
import { asProxyError, type FailureCode, reasonOf } from '../errors.ts'
import type { Identify } from './identify.ts'

/** Where refusals are kept, and who is told of those that were accepted. */
export interface Memory {
  /** @throws {ProxyError} what this certificate was told a moment ago */
  recall(domain: string, fingerprint: () => string): void
  remember(domain: string, fingerprint: string, code: FailureCode): void
  accepted(connection: SecuredConnection): void
}

/** The same decision, but whoever was refused a moment ago is refused without asking anybody. */
export function remembering(identify: Identify, memory: Memory, metrics: Pick<Metrics, 'identity'>): Identify {
  return async (connection, credentials, trace, signal) => {
    const domain = connection.domain.name
    const leaf = 'peer' in credentials ? (credentials.peer?.leaf ?? null) : null
    if (leaf !== null) {
      try {
        memory.recall(domain, () => leaf.fingerprint256)
      } catch (error) {
        metrics.identity(credentials.kind, reasonOf(asProxyError(error).code))
        throw error
      }
    }
    try {
      const who = await identify(connection, credentials, trace, signal)
      // What a broker is yet to judge proves nothing.
      if (credentials.kind !== 'backend') memory.accepted(connection)
      return who
    } catch (error) {
      // A resumed session may tell of a former certificate, and is refused in a way of its own.
      if (leaf !== null && connection.resumed !== true) {
        memory.remember(domain, leaf.fingerprint256, asProxyError(error).code)
      }
      throw error
    }
  }
}
