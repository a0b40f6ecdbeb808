import type { Log } from '../control/log.ts'
import type { Cause, Reloads } from '../control/reload.ts'
import type { Material } from '../generation/material.ts'
import type { House } from './house.ts'
import { restartOrder } from './orders.ts'

export type Restart = (cause: Cause) => { readonly refused: string | null }

/**
 * Begins to replace the workers and returns; the log and the status tell how it goes. First the settings on disk come into
 * force, because workers start with those that are: what cannot count would be a new worker that does not start.
 */
export function restarter(house: House, reloads: Reloads<Material>, log: Log): Restart {
  return (cause) => {
    const refused = house.mayRestart()
    if (refused !== null) log.error({ cause, reason: refused }, 'workers are not restarted')
    // It tells of its end itself, and does not reject.
    else void house.restart(restartOrder(reloads.current.settings), () => settingsOnDisk(reloads, cause))
    return { refused }
  }
}

async function settingsOnDisk(reloads: Reloads<Material>, cause: Cause): Promise<string | null> {
  const reloaded = await reloads.request(cause)
  switch (reloaded.kind) {
    case 'done':
    case 'unchanged':
      return null
    case 'refused':
      return `the settings on disk are refused: ${reloaded.issues.join('; ')}`
    case 'ignored':
      return reloaded.why
  }
}
