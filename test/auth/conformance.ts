import type { ExecutionContext, TestFn } from 'ava'
import type { Authenticator, AuthOutcome, Credentials } from '../../src/auth/authenticator.ts'
import type { SecuredConnection } from '../../src/connection.ts'
import { FAILURES, type FailureCode } from '../../src/errors.ts'
import { NO_VARIABLES } from '../../src/policy/permit.ts'
import { ARN } from '../support/identity.ts'

export interface Setup<C extends Credentials> {
  readonly authenticator: Authenticator<C>
  readonly accepted: C
  /** Null where there is nothing to refuse. */
  readonly refused: C | null
  /** The same kind with something broken inside; null where nothing can break. */
  readonly faulty: Authenticator<C> | null
  /** What a fault is called; ERR_IDENTITY_FAULT unless said. */
  readonly faultCode?: FailureCode
}

/** As much of a connection as an authenticator may look at. */
export function connectionOf(domain = 'iot.example.com'): SecuredConnection {
  // The rest belongs to other stages; reading it here would be a mistake that shows.
  return { id: 'c-1', domain: { name: domain }, serverName: domain, remoteAddress: '127.0.0.1' } as SecuredConnection
}

/** What an outcome says; what it can do is a closure, new each time. */
function said(outcome: AuthOutcome) {
  if (outcome.kind === 'denied') return outcome
  const { principal, disconnectAfterMs, refreshAfterMs } = outcome
  return { principal, disconnectAfterMs, refreshAfterMs }
}

/** What every authenticator promises. A new kind calls this first and adds only what is its own. */
export function behavesLikeAnAuthenticator<C extends Credentials>(
  test: TestFn,
  kind: string,
  setup: (t: ExecutionContext) => Setup<C> | Promise<Setup<C>>,
): void {
  const signal = AbortSignal.timeout(60_000)

  test(`${kind}: whom it accepts has a name and a permit`, async (t) => {
    const { authenticator, accepted } = await setup(t)
    t.is(authenticator.method, accepted.kind)
    const outcome = await authenticator.authenticate(accepted, connectionOf(), signal)
    if (outcome.kind !== 'authenticated') return t.fail(outcome.detail)
    t.is(outcome.principal.method, accepted.kind)
    // Goes to logs, labels and topics.
    t.regex(outcome.principal.id, /^[\x21-\x7e]{1,300}$/)
    const permit = outcome.grants.permit(ARN, NO_VARIABLES)
    t.is(typeof permit.allows('iot:Connect', 'client/x'), 'boolean')
  })

  test(`${kind}: the same proof has the same answer`, async (t) => {
    const { authenticator, accepted } = await setup(t)
    const ask = () => authenticator.authenticate(accepted, connectionOf(), signal)
    const [one, other] = [await ask(), await ask()]
    t.is(one.kind, 'authenticated')
    t.deepEqual(said(one), said(other))
  })

  test(`${kind}: a refusal is an answer with a code and one line of detail`, async (t) => {
    const { authenticator, refused } = await setup(t)
    if (refused === null) return t.pass()
    const outcome = await authenticator.authenticate(refused, connectionOf(), signal)
    if (outcome.kind !== 'denied') return t.fail('accepted')
    t.true(Object.hasOwn(FAILURES, outcome.code))
    t.regex(outcome.detail, /^[^\r\n]+$/)
  })

  test(`${kind}: a fault is thrown and admits nobody`, async (t) => {
    const { faulty, accepted, faultCode } = await setup(t)
    if (faulty === null) return t.pass()
    const asking = faulty.authenticate(accepted, connectionOf(), signal)
    await t.throwsAsync(asking, { name: 'ProxyError', code: faultCode ?? 'ERR_IDENTITY_FAULT' })
  })
}
