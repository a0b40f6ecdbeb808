import { join } from 'node:path'
import { startProcess } from '../harness/proc.ts'
import { ROOT, RUNTIME } from './brokergate.ts'
import { cannotLookIntoMqtt } from './haproxy.ts'
import { freePort, type PeerKind, relayPeer, type Setup } from './peer.ts'

/** No proxy for anybody: the floor, below which nothing that runs on this runtime can come. Only when it is asked for. */
export const BARE: PeerKind = {
  name: 'bare',
  about: 'the least that a relay can be on the same Bun: nothing looked at, counted or bounded (`bare-relay.ts`)',
  comesWith: 'npm ci',
  version: () => `Bun ${process.versions.bun ?? 'of node_modules'}`,
  cannot: (setup) => cannotLookIntoMqtt(setup) ?? cannotLive(setup),
  async start({ materials, setup, brokerPort, folder, cores }) {
    const port = await freePort()
    const at = (name: string) => join(materials.folder, name)
    const files = [at('server.pem'), at('server.key'), at('ca.pem')]
    const words = [...(setup.resumption ? ['tickets'] : []), ...(setup.strictSni ? ['refuse'] : [])]
    const script = join(import.meta.dirname, 'bare-relay.ts')
    return relayPeer(this, port, { drain: 'SIGTERM', reload: null }, () =>
      startProcess(RUNTIME, [script, String(port), String(brokerPort), ...files, ...words], {
        cwd: ROOT,
        cores,
        logFile: join(folder, 'bare.out'),
      }),
    )
  },
}

function cannotLive({ workers, reloads, graceSeconds }: Setup): string | null {
  if (workers > 1) return 'is one process'
  if (reloads) return 'has no settings'
  return graceSeconds > 0 ? 'knows no drain' : null
}
