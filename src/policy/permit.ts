/** IAM-style action names that the gate asks about; routes may name others (`iot:GetThingShadow`). */
export type Action = 'iot:Connect' | 'iot:Publish' | 'iot:RetainPublish' | 'iot:Subscribe' | 'iot:Receive'

/**
 * What one connection may do: policy documents with their variables filled in and their conditions decided. Called
 * once per packet, so it neither waits nor allocates.
 */
export interface Permit {
  /**
   * True if at least one statement allows and none denies.
   * @param resource the tail of the ARN: `client/<id>`, `topic/<name>`, `topicfilter/<filter>`, `thing/<name>`
   */
  allows(action: Action | (string & {}), resource: string): boolean
  /**
   * True only if `allows(action, …)` holds for every resource of the action's type, now and as long as the permit is used:
   * then the gate need not look at topics of that action.
   */
  allowsAll(action: Action): boolean
  /** Variables of the policies that this connection has no usable value for: what names them matches nothing. For the log. */
  readonly unresolved?: readonly string[]
  /** True only if an answer holds as long as the permit does; otherwise it may hang on the time, and is asked for anew. */
  readonly timeless?: boolean
}

/** Everything is allowed; the broker behind applies its own rules. */
export const OPEN_PERMIT: Permit = { allows: () => true, allowsAll: () => true, timeless: true }

/** Nothing is. What an entry without policies gets: no policy, no permission. */
export const CLOSED_PERMIT: Permit = { allows: () => false, allowsAll: () => false, timeless: true }

/** Values of policy variables and condition keys of one connection; null when it has none. */
export interface Variables {
  /** @param name without `${` and `}`, such as `iot:ClientId`; several values only where the field has several */
  lookup(name: string): readonly string[] | null
}

/** Heads of the ARNs that a policy's resources are compared with: `arn:<partition>:iot:<region>:<accountId>:`. */
export interface ArnHead {
  readonly partition: string
  readonly region: string
  readonly accountId: string
}

/** What a principal was granted, before it is known as which client it connects. */
export interface Grants {
  /**
   * Fills in the variables and decides the conditions. Never throws: what cannot be resolved does not allow.
   * Equal grants with equal values share one permit.
   */
  permit(arn: ArnHead, variables: Variables): Permit
}

export const OPEN_GRANTS: Grants = { permit: () => OPEN_PERMIT }
export const NO_GRANTS: Grants = { permit: () => CLOSED_PERMIT }

export const NO_VARIABLES: Variables = { lookup: () => null }
