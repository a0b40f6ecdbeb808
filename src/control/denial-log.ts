import { reasonOf } from '../errors.ts'
import type { DeniedAction } from '../mqtt/session-contract.ts'
import type { Log } from './log.ts'

/** Lines per second and process. A device that is denied one topic may try it with every message. */
const MAX_PER_SECOND = 10
const MAX_RESOURCE_LENGTH = 256
const MAX_CLIENT_ID_LENGTH = 128

/** Writes what policies deny, so many lines a second; how many more there were stands in the next one. */
export function denialLog(log: Log, now: () => number = () => performance.now()): (told: DeniedAction) => void {
  let second = Number.NEGATIVE_INFINITY
  let written = 0
  let leftOut = 0
  return ({ connection, trace, action, resource, code, reported }) => {
    const current = Math.floor(now() / 1_000)
    if (current !== second) {
      second = current
      written = 0
    }
    if (written >= MAX_PER_SECOND) {
      leftOut++
      return
    }
    written++
    log.info(
      {
        event: 'denied',
        id: connection.id,
        serverName: trace.serverName,
        principal: trace.principal,
        clientId: trace.clientId?.slice(0, MAX_CLIENT_ID_LENGTH),
        action,
        resource: resource.slice(0, MAX_RESOURCE_LENGTH),
        reason: reasonOf(code),
        reported,
        ...(leftOut > 0 && { leftOut }),
      },
      reported ? 'a policy denies this; it passes, because the domain only reports' : 'denied by policy',
    )
    leftOut = 0
  }
}
