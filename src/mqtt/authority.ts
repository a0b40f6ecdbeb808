import type { Authenticated, AuthOutcome } from '../auth/authenticator.ts'
import type { FailureCode } from '../errors.ts'
import type { Permit } from '../policy/permit.ts'
import type { Deadline, Due, Lifetimes, Mortal } from './lifetimes.ts'

/** For one answer on refresh, whatever the authorizer's own deadline; past it the connection ends. */
const REFRESH_DEADLINE_MS = 30_000

/** A time at which the connection has to end, on the monotonic clock in milliseconds. */
export interface End {
  readonly at: number
  readonly code: FailureCode
}

export interface AuthorityOptions {
  readonly who: Authenticated
  readonly permit: Permit
  /** `performance.now()` when `who` was authenticated. */
  readonly since: number
  /** Beside the one that `who` brings along. */
  readonly ends: readonly End[]
}

export interface AuthorityObserver {
  /** The permit that goes with an identity that still holds, or why there is none. */
  judge(who: Authenticated): Permit | FailureCode
  /** A permit that takes the place of the one before. */
  changed(permit: Permit): void
  /** The session has lost its right to be. */
  ended(code: FailureCode): void
}

/** By what right a live session goes on: until when, since when to ask again, and what the registry says meanwhile. */
export class Authority implements Mortal {
  readonly #lifetimes: Lifetimes
  readonly #observer: AuthorityObserver
  #stopped = false
  /** Only while an answer is waited for; most sessions never ask. */
  #asking: AbortController | null = null
  #who: Authenticated
  #permit: Permit
  #end: End | null
  #endDeadline: Deadline | null = null
  #refreshDeadline: Deadline | null = null

  constructor(lifetimes: Lifetimes, options: AuthorityOptions, observer: AuthorityObserver) {
    this.#lifetimes = lifetimes
    this.#observer = observer
    this.#who = options.who
    this.#permit = options.permit
    this.#end = earliest([...options.ends, ...endOf(options.who, options.since)])
    this.#arm(options.since)
  }

  get who(): Authenticated {
    return this.#who
  }

  due(what: Due): void {
    if (what === 'end') {
      this.#endDeadline = null
      this.#lose(this.#end!.code)
    } else {
      this.#refreshDeadline = null
      void this.#refresh()
    }
  }

  /** The registry has changed. */
  rejudge(): void {
    if (this.#stopped) return
    const outcome = judgedAgain(this.#who)
    if (outcome.kind === 'denied') this.#lose(outcome.code)
    else this.#take(outcome)
  }

  /** The session is over. */
  stop(): void {
    this.#stopped = true
    this.#disarm()
    this.#asking?.abort()
  }

  async #refresh(): Promise<void> {
    this.#asking = new AbortController()
    const deadline = setTimeout(() => this.#asking?.abort(), REFRESH_DEADLINE_MS)
    const outcome = await refreshed(this.#who, this.#asking.signal)
    clearTimeout(deadline)
    this.#asking = null
    if (this.#stopped) return
    if (outcome.kind === 'denied') return this.#lose('ERR_AUTHORIZATION_ENDED')
    // The authorizer knows somebody else now; the client id was given to the one before.
    if (!isSame(outcome, this.#who)) return this.#lose('ERR_AUTHORIZATION_ENDED')
    // What the registry said while the answer was on its way counts as well.
    const now = judgedAgain(outcome)
    if (now.kind === 'denied') return this.#lose(now.code)
    const since = this.#lifetimes.now()
    // A longest life is one: asking again may shorten it, and never makes it longer.
    this.#end = earliest([...(this.#end === null ? [] : [this.#end]), ...endOf(now, since)])
    if (this.#take(now)) this.#arm(since)
  }

  /** False when the identity holds but nothing is left that it may do here. */
  #take(who: Authenticated): boolean {
    this.#who = who
    const permit = this.#judge(who)
    if (typeof permit === 'string') {
      this.#lose(permit)
      return false
    }
    if (permit !== this.#permit) {
      this.#permit = permit
      this.#observer.changed(permit)
    }
    return true
  }

  /** Whatever goes wrong, the answer is no. */
  #judge(who: Authenticated): Permit | FailureCode {
    try {
      return this.#observer.judge(who)
    } catch {
      return 'ERR_IDENTITY_FAULT'
    }
  }

  #lose(code: FailureCode): void {
    this.stop()
    this.#observer.ended(code)
  }

  #arm(since: number): void {
    this.#disarm()
    const lifetimes = this.#lifetimes
    if (this.#end !== null) this.#endDeadline = lifetimes.add(this.#end.at, 'end', this)
    const { refreshAfterMs } = this.#who
    if (refreshAfterMs !== null) this.#refreshDeadline = lifetimes.add(since + refreshAfterMs, 'refresh', this)
  }

  #disarm(): void {
    const lifetimes = this.#lifetimes
    if (this.#endDeadline !== null) lifetimes.remove(this.#endDeadline)
    if (this.#refreshDeadline !== null) lifetimes.remove(this.#refreshDeadline)
    this.#endDeadline = null
    this.#refreshDeadline = null
  }
}

function endOf({ disconnectAfterMs }: Authenticated, since: number): readonly End[] {
  return disconnectAfterMs === null ? [] : [{ at: since + disconnectAfterMs, code: 'ERR_MAX_CONNECT_TIME' }]
}

function earliest(ends: readonly End[]): End | null {
  return ends.reduce<End | null>((first, end) => (first === null || end.at < first.at ? end : first), null)
}

const fault = (error: unknown): AuthOutcome => ({
  kind: 'denied',
  code: 'ERR_IDENTITY_FAULT',
  detail: error instanceof Error ? error.message : String(error),
})

const isSame = ({ principal: one }: Authenticated, { principal: other }: Authenticated): boolean =>
  one.id === other.id && one.method === other.method

/** As `who.rejudge`, which must not throw and is not trusted to keep to it. */
function judged(who: Authenticated): AuthOutcome {
  try {
    return who.rejudge()
  } catch (error) {
    return fault(error)
  }
}

/** The same, of somebody who must still be the one that the client id was given to. */
export function judgedAgain(who: Authenticated): AuthOutcome {
  const outcome = judged(who)
  if (outcome.kind === 'denied' || isSame(outcome, who)) return outcome
  return { kind: 'denied', code: 'ERR_AUTHORIZATION_ENDED', detail: 'it is known as another principal now' }
}

/** As `who.refresh`, and an answer that does not come by the end of the signal is a denial. */
async function refreshed(who: Authenticated, signal: AbortSignal): Promise<AuthOutcome> {
  const late = Promise.withResolvers<AuthOutcome>()
  const onAbort = () => late.resolve(fault('no answer in time'))
  signal.addEventListener('abort', onAbort, { once: true })
  try {
    return await Promise.race([who.refresh(signal), late.promise])
  } catch (error) {
    return fault(error)
  } finally {
    signal.removeEventListener('abort', onAbort)
  }
}
