import type { SecuredConnection } from '../connection.ts'
import { NO_GRANTS, NO_VARIABLES, OPEN_GRANTS } from '../policy/permit.ts'
import { NO_THINGS } from '../registry/entries.ts'
import type { Registry } from '../registry/registry.ts'
import { type Authenticated, type Authenticator, type AuthOutcome, GONE } from './authenticator.ts'

export interface BackendAuthOptions {
  /** Names of policies that hold for everybody; none: what the broker allows is allowed. */
  readonly policies: readonly string[]
  /** The one in force; null where the domain has none. */
  readonly registry: () => Registry | null
  /** Those that count by now for a connection that these let in; null: its domain or its way in is gone. Absent: these. */
  readonly inForce?: (connection: SecuredConnection) => BackendAuthOptions | null
}

/** Leaves the judgement to the broker: CONNECT's credentials travel on, and its CONNACK decides. */
export function backend(options: BackendAuthOptions): Authenticator<{ readonly kind: 'backend' }> {
  return {
    method: 'backend',
    async authenticate(_credentials, connection) {
      const principal = { id: `backend:${connection.domain.name}`, method: 'backend', attributes: {} } as const
      const judge = ({ policies, registry }: BackendAuthOptions): Authenticated => ({
        kind: 'authenticated',
        principal,
        grants: policies.length === 0 ? OPEN_GRANTS : (registry()?.grants(policies) ?? NO_GRANTS),
        variables: NO_VARIABLES,
        things: NO_THINGS,
        disconnectAfterMs: null,
        refreshAfterMs: null,
        refresh: async () => rejudge(),
        rejudge,
      })
      const rejudge = (): AuthOutcome => {
        const now = options.inForce === undefined ? options : options.inForce(connection)
        return now === null ? GONE : judge(now)
      }
      return judge(options)
    },
  }
}
