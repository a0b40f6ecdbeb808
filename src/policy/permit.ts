export type Action = 'iot:Connect' | 'iot:Publish' | 'iot:RetainPublish' | 'iot:Subscribe' | 'iot:Receive'

/** What a principal may do. Called once per packet, so it neither waits nor allocates. */
export interface Permit {
  /** True if at least one statement allows and none denies. */
  allows(action: Action, resource: string): boolean
}

/** Everything is allowed; the broker behind applies its own rules. */
export const OPEN_PERMIT: Permit = { allows: () => true }
