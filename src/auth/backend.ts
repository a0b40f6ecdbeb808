import { OPEN_PERMIT } from '../policy/permit.ts'
import type { Authenticator } from './authenticator.ts'

/** Leaves the judgement to the broker: CONNECT's credentials travel on, and its CONNACK decides. */
export function backend(): Authenticator<{ readonly kind: 'backend' }> {
  return {
    method: 'backend',
    async authenticate(_credentials, connection) {
      const principal = { id: `backend:${connection.domain.name}`, method: 'backend', attributes: {} } as const
      return { kind: 'authenticated', principal, permit: OPEN_PERMIT }
    },
  }
}
