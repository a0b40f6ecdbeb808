import type { Authenticated, AuthOutcome, Principal } from '../../src/auth/authenticator.ts'
import { NO_VARIABLES, OPEN_GRANTS } from '../../src/policy/permit.ts'
import { NO_THINGS } from '../../src/registry/entries.ts'

export const ARN = { partition: 'aws', region: 'us-east-1', accountId: '000000000000' } as const

/** Somebody who may do everything, for ever, unless told otherwise. */
export function authenticatedAs(principal: Principal, changes: Partial<Authenticated> = {}): Authenticated {
  const outcome: Authenticated = {
    kind: 'authenticated',
    principal,
    grants: OPEN_GRANTS,
    variables: NO_VARIABLES,
    things: NO_THINGS,
    disconnectAfterMs: null,
    refreshAfterMs: null,
    refresh: async (): Promise<AuthOutcome> => outcome,
    rejudge: () => outcome,
    ...changes,
  }
  return outcome
}
