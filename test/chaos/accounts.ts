import type { Account } from './fleet.ts'

/** Every payload that a device was told is acknowledged. */
export function acknowledgedOf(accounts: readonly Account[]): readonly string[] {
  return accounts.flatMap(({ clientId, sent, unacknowledged }) => {
    const open = new Set(unacknowledged)
    return Array.from({ length: sent }, (_, number) => `${clientId}:${number}`).filter((payload) => !open.has(payload))
  })
}
