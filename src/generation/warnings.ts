import { dirname, join } from 'node:path'
import type { Settings } from '../config/schema.ts'
import { looseRights } from '../file-rights.ts'
import { OVERLAY_FILE } from '../registry/overlay.ts'
import { TLS_RUNTIME } from '../tls/policies.ts'
import { TICKET_FACTS } from '../tls/tickets.ts'

/** Of everything in the settings that works but should not stay so. */
export function warningsOf(settings: Settings): readonly string[] {
  return [...ticketWarnings(settings), ...prefixWarnings(settings), ...rightsWarnings(settings)]
}

/** Workers that cannot open one another's tickets. */
function ticketWarnings({ domains, workers }: Settings): string[] {
  const at = domains.findIndex(({ sessionTickets }) => sessionTickets.enabled)
  if (at < 0 || workers === 1 || TICKET_FACTS[TLS_RUNTIME].sharesKeys) return []
  return [
    `domains[${at}].sessionTickets: on this runtime each worker opens its own tickets only; a device that comes to another one makes a full handshake`,
  ]
}

/** Domains of one backend whose devices could meet under one client id. */
function prefixWarnings({ domains }: Settings): string[] {
  return domains.flatMap((domain, at) =>
    domains.slice(at + 1).flatMap((other, offset) => {
      const [one, two] = [domain.clientId.prefix, other.clientId.prefix]
      if (domain.backend !== other.backend || !(one.startsWith(two) || two.startsWith(one))) return []
      const names = `domains[${at}] and domains[${at + 1 + offset}]`
      return [
        `${names}: the same backend, and clientId.prefix ${JSON.stringify(one)} and ${JSON.stringify(two)}: their devices can meet under one client id`,
      ]
    }),
  )
}

/** Files and folders of which others on this machine may do what they should not. */
function rightsWarnings({ domains, backends, registries, admin }: Settings): readonly string[] {
  const keys = [
    ...domains.flatMap(({ certificates }, at) =>
      certificates.map(({ key }, index) => [`domains[${at}].certificates[${index}].key`, key] as const),
    ),
    ...Object.entries(backends).flatMap(([name, backend]) =>
      'key' in backend && backend.key !== null ? [[`backends.${name}.key`, backend.key] as const] : [],
    ),
  ]
  const places = [
    ...Object.entries(registries).flatMap(([name, { state }]) =>
      state === null
        ? []
        : [state, join(state, OVERLAY_FILE)].map((path) => [`registries.${name}.state`, path] as const),
    ),
    ['admin.socket', dirname(admin.socket)] as const,
  ]
  return [
    ...keys.flatMap(([setting, file]) =>
      looseRights(file, 'secret').map((problem) => `${setting}: ${file} is a private key and ${problem}`),
    ),
    ...places.flatMap(([setting, path]) =>
      looseRights(path, 'settings').map((problem) => `${setting}: ${path} ${problem}`),
    ),
  ]
}
