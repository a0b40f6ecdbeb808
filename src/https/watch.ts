import type { Authenticated, AuthOutcome } from '../auth/authenticator.ts'
import { asProxyError, ProxyError } from '../errors.ts'
import { LIFETIME_MS, type Timer } from './limits.ts'

/** A change of the registry or of a policy ends what it forbids within this time, in milliseconds. */
const JUDGE_MS = 1_000

export interface Watched {
  readonly who: Authenticated
  /** @throws {ProxyError} when this principal may not go on */
  permit(who: Authenticated): void
  end(error: ProxyError): void
}

/** Ends a connection that was let in once and goes on, when it may no more. Returns what ends the watch. */
export function watch({ who: first, permit, end }: Watched, timer: Timer): () => void {
  const over = new AbortController()
  const cancels = new Set<() => void>()
  let who = first
  const stop = () => {
    over.abort()
    for (const cancel of cancels) cancel()
    cancels.clear()
  }
  const fail = (error: unknown) => {
    if (over.signal.aborted) return
    stop()
    end(asProxyError(error))
  }
  const later = (run: () => void, ms: number) => {
    const cancel = timer(() => {
      cancels.delete(cancel)
      run()
    }, ms)
    cancels.add(cancel)
    return cancel
  }
  const accept = (outcome: AuthOutcome) => {
    if (outcome.kind === 'denied') throw new ProxyError(outcome.code, outcome.detail)
    permit(outcome)
    who = outcome
  }
  const judge = () => {
    try {
      accept(who.rejudge())
      later(judge, JUDGE_MS)
    } catch (error) {
      fail(error)
    }
  }
  /** Both lifetimes count from the authorizer's last answer. */
  const lifetimes = () => {
    const { refreshAfterMs, disconnectAfterMs } = who
    const cancel = later(
      () => fail(new ProxyError('ERR_MAX_CONNECT_TIME', 'the time that the authorizer gave is over')),
      Math.min(disconnectAfterMs ?? LIFETIME_MS, LIFETIME_MS),
    )
    if (refreshAfterMs === null) return
    later(() => {
      who
        .refresh(over.signal)
        .then((outcome) => {
          accept(outcome)
          if (over.signal.aborted) return
          cancel()
          cancels.delete(cancel)
          lifetimes()
        })
        .catch(fail)
    }, refreshAfterMs)
  }
  later(() => fail(new ProxyError('ERR_MAX_CONNECT_TIME', 'the longest life of a connection is over')), LIFETIME_MS)
  later(judge, JUDGE_MS)
  lifetimes()
  return stop
}
