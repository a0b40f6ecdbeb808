import type { BackendSettings } from '../config/schema.ts'
import { peerOf } from './dial.ts'
import { peerOf as webSocketPeerOf } from './ws.ts'

/** What the servers of a backend are called: `host:port`, or the URL without its query. None where there is no choice. */
export function serverNames(settings: BackendSettings): readonly string[] {
  if (settings.kind === 'ws') return settings.servers.map(({ url }) => webSocketPeerOf(url))
  if (settings.kind === 'tcp' || settings.kind === 'tls') return settings.servers.map(({ address }) => peerOf(address))
  return []
}
