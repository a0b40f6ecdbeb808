import type { Permit } from '../policy/permit.ts'

export interface Observation {
  /** What is denied is told, and passes. */
  readonly reportOnly: boolean
  decided(action: string, resource: string, allowed: boolean): void
}

/** The permit with somebody who looks on: each decision is counted and told as it is, whatever becomes of it. */
export function observed(permit: Permit, { reportOnly, decided }: Observation): Permit {
  return {
    allows(action, resource) {
      const allowed = permit.allows(action, resource)
      decided(action, resource, allowed)
      return allowed || reportOnly
    },
    allowsAll: (action) => reportOnly || permit.allowsAll(action),
  }
}
