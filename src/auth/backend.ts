import { NO_VARIABLES, OPEN_GRANTS } from '../policy/permit.ts'
import { NO_THINGS } from '../registry/entries.ts'
import type { Authenticated, Authenticator } from './authenticator.ts'

/** Leaves the judgement to the broker: CONNECT's credentials travel on, and its CONNACK decides. */
export function backend(): Authenticator<{ readonly kind: 'backend' }> {
  return {
    method: 'backend',
    async authenticate(_credentials, connection) {
      const principal = { id: `backend:${connection.domain.name}`, method: 'backend', attributes: {} } as const
      const outcome: Authenticated = {
        kind: 'authenticated',
        principal,
        grants: OPEN_GRANTS,
        variables: NO_VARIABLES,
        things: NO_THINGS,
        disconnectAfterMs: null,
        refreshAfterMs: null,
        refresh: async () => outcome,
        rejudge: () => outcome,
      }
      return outcome
    },
  }
}
