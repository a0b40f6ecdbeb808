import { BARE } from './bare.ts'
import { BROKERGATE, checkout, ON_NODE } from './brokergate.ts'
import { HAPROXY } from './haproxy.ts'
import { NGINX } from './nginx.ts'
import type { PeerKind } from './peer.ts'

/** What brokergate is measured beside; a name with a slash is the folder of another checkout of it. */
export const AGAINST: Readonly<Record<string, PeerKind>> = { haproxy: HAPROXY, nginx: NGINX, node: ON_NODE, bare: BARE }

/** Null when nobody is called so. */
export function peerKind(name: string): PeerKind | null {
  if (name === BROKERGATE.name) return BROKERGATE
  return name.includes('/') ? checkout(name) : (AGAINST[name] ?? null)
}
