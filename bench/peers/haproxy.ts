import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { startProcess } from '../harness/proc.ts'
import { write } from './materials.ts'
import { freePort, type Job, type PeerKind, relayPeer, type Setup } from './peer.ts'

export const HAPROXY: PeerKind = {
  name: 'haproxy',
  about: '`mode tcp`, one thread, no log, no session cache',
  comesWith: 'apt-get install haproxy',
  version() {
    const { status, stdout } = spawnSync('haproxy', ['-v'], { encoding: 'utf8' })
    return status === 0
      ? stdout
          .split('\n')[0]!
          .replace(/ - http.*$/, '')
          .replace('version ', '')
      : null
  },
  cannot: cannotLookIntoMqtt,
  async start(job) {
    const { folder, setup } = job
    const port = await freePort()
    const file = write(folder, 'haproxy.cfg', configuration(job, port))
    const openssl = write(folder, 'openssl.cnf', NO_TICKETS)
    return relayPeer(this, port, { drain: 'SIGUSR1', reload: 'SIGUSR2' }, () =>
      startProcess('haproxy', [setup.reloads ? '-W' : '-db', '-f', file], {
        cwd: folder,
        cores: job.cores,
        logFile: join(folder, 'haproxy.out'),
        env: setup.resumption ? {} : { OPENSSL_CONF: openssl },
      }),
    )
  },
}

export function cannotLookIntoMqtt(setup: Setup): string | null {
  if (setup.extra !== null) return 'knows no HTTPS publish, MQTT over WebSocket toward TCP, or custom authorizer'
  if (setup.trust === 'registry') return 'has no registry of devices'
  if (setup.policyStatements > 1) return 'has no policies on topics'
  return null
}

/** `no-tls-tickets` is about TLS 1.2: OpenSSL goes on sending two tickets per TLS 1.3 handshake, brokergate none. */
const NO_TICKETS = `openssl_conf = settings
[settings]
ssl_conf = modules
[modules]
system_default = tls
[tls]
NumTickets = 0
`

/** The suite that brokergate chooses on this kind of machine. */
function configuration({ materials, setup, brokerPort }: Job, port: number): string {
  const at = (name: string) => join(materials.folder, name)
  return `global
  nbthread ${setup.workers}
  maxconn 9500
  hard-stop-after ${Math.max(1, setup.graceSeconds)}s
  tune.ssl.cachesize 0
${setup.resumption ? '' : '  ssl-default-bind-options no-tls-tickets\n'}  ssl-default-bind-ciphersuites TLS_AES_128_GCM_SHA256
defaults
  mode tcp
  timeout connect 5s
  timeout client 1h
  timeout server 1h
frontend devices
  bind 127.0.0.1:${port} backlog 4096 ssl crt ${at('bundle.pem')} ca-file ${at('ca.pem')} verify required strict-sni ssl-min-ver TLSv1.2
  default_backend sink
backend sink
  server sink 127.0.0.1:${brokerPort}
`
}
