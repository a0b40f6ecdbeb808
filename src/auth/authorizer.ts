import type { Metrics } from '../control/metrics.ts'
import type { AuthorizerEntry } from '../registry/entries.ts'
import type { Answer } from './answer.ts'
import type { AuthorizerRequest, Question } from './question.ts'

/** An authorizer of the registry that can be asked. */
export interface Asked {
  /**
   * @param signal ends the question when the device leaves
   * @throws {ProxyError} ERR_AUTHORIZER_UNAVAILABLE when no usable answer could be had in time
   */
  ask(question: Question, signal: AbortSignal): Promise<Answer>
  /** What keeps it from working, as far as that can be known before it is asked; null: nothing. */
  problem(): Promise<string | null>
  close(): void
}

export interface AskedDeps {
  readonly metrics: Pick<Metrics, 'authorizerCall' | 'authorizerCircuit'>
  /** Monotonic, in milliseconds. */
  readonly now: () => number
  /** Milliseconds since 1970. */
  readonly wallClock: () => number
  readonly random: () => number
}

export type EntryOf<K extends AuthorizerEntry['kind']> = Extract<AuthorizerEntry, { readonly kind: K }>

/**
 * What an ES module of one's own makes: its default export is `(options) => Authorizer`, or a promise of one, with the
 * `options` of the configuration.
 *
 * The answer has the form that a webhook's body has, and is checked as strictly: `{ isAuthenticated, principalId,
 * disconnectAfterInSeconds, refreshAfterInSeconds, policyDocuments }`. What is thrown, or comes after the deadline, is a
 * fault: the device is refused. `signal` aborts at the deadline and when the device leaves.
 */
export interface Authorizer {
  authorize(request: AuthorizerRequest, signal: AbortSignal): unknown
}
