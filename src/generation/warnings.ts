import type { Settings } from '../config/schema.ts'
import { isPublic } from '../registry/secret.ts'
import { TLS_RUNTIME } from '../tls/policies.ts'
import { TICKET_FACTS } from '../tls/tickets.ts'

/** Of everything in the settings that works but should not stay so. */
export function warningsOf(settings: Settings): readonly string[] {
  return [...ticketWarnings(settings), ...prefixWarnings(settings), ...publicKeyFiles(settings)]
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

/** Private keys that everybody on the machine may read. */
function publicKeyFiles(settings: Settings): readonly string[] {
  const named = [
    ...settings.domains.flatMap(({ certificates }, at) =>
      certificates.map(({ key }, index) => [`domains[${at}].certificates[${index}].key`, key] as const),
    ),
    ...Object.entries(settings.backends).flatMap(([name, backend]) =>
      'key' in backend && backend.key !== null ? [[`backends.${name}.key`, backend.key] as const] : [],
    ),
  ]
  return named
    .filter(([, file]) => isPublic(file))
    .map(([setting, file]) => `${setting}: ${file} is a private key and may be read by everybody on this machine`)
}
