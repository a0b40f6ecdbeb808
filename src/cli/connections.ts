import type { Listing } from '../control/connections.ts'
import { ask, type CertsOptions, complain, settingsOf } from './certs.ts'

/** `brokergate connections`: the live sessions of the running process. */
export async function connections(options: CertsOptions): Promise<number> {
  const settings = settingsOf(options)
  if (settings === null) return 1
  const answer = await ask(settings.admin.socket, '/connections', 'GET')
  if (answer.kind !== 'answer' || answer.status !== 200) return complain(options.print, answer)
  // Our own program has answered on its own socket.
  const listing = answer.body as Listing
  for (const { clientId, principal, domain, connectedAt, held } of listing.connections) {
    options.print([JSON.stringify(clientId), principal, domain, connectedAt, ...(held ? ['held'] : [])].join('  '))
  }
  const { total, connections: shown } = listing
  options.print(shown.length === total ? `${total} connected` : `${shown.length} of ${total} connected`)
  return 0
}

/** `brokergate connections kick`: exit code 0 when there was one to end. */
export async function kick(options: CertsOptions & { readonly clientId: string }): Promise<number> {
  const settings = settingsOf(options)
  if (settings === null) return 1
  const answer = await ask(settings.admin.socket, '/kick', 'POST', { clientId: options.clientId })
  if (answer.kind !== 'answer' || answer.status !== 200) return complain(options.print, answer)
  const { kicked } = answer.body as { readonly kicked: number }
  options.print(kicked === 0 ? 'nobody is connected under this client id' : `${kicked} ended`)
  return kicked === 0 ? 1 : 0
}
