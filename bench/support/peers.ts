import { spawnSync } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { get } from 'node:http'
import { connect, createServer } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { createCa, type Issued, issueDevice, issueServer } from '../../src/cli/pki.ts'
import { type Started, startProcess } from './proc.ts'

// The proxies that are compared, each started the way its users start it, with settings that ask the same of both.

const ROOT = join(import.meta.dirname, '../..')
const READY_WITHIN_MS = 15_000
/** Below the range that clients' own ports come from, or a listener may find its port taken. */
const PORTS = { from: 20_000, to: 32_000 }

export const SERVER_NAME = 'bench.example.com'

export interface Materials {
  readonly folder: string
  readonly caPem: string
  readonly device: Issued
  /** Of a CA that no proxy knows. */
  readonly stranger: Issued
}

/** P-256 throughout: one CA that signs the server and the device directly. */
export function makeMaterials(folder: string): Materials {
  const ca = createCa({ commonName: 'bench CA' })
  const server = issueServer(ca, { serverNames: [SERVER_NAME] })
  for (const [name, text] of Object.entries({
    'ca.pem': ca.certPem,
    'server.pem': server.chainPem,
    'server.key': server.keyPem,
    'bundle.pem': server.chainPem + server.keyPem,
  })) {
    writeFileSync(join(folder, name), text, { mode: 0o600 })
  }
  return {
    folder,
    caPem: ca.certPem,
    device: issueDevice(ca, { commonName: 'device' }),
    stranger: issueDevice(createCa({ commonName: 'another CA' }), { commonName: 'stranger' }),
  }
}

export interface Peer {
  readonly name: string
  readonly version: string
  readonly port: number
  readonly pid: number
  stop(): Promise<void>
}

export interface PeerKind {
  readonly name: string
  /** Null when it is not on this machine. */
  version(): string | null
  start(materials: Materials, sinkPort: number, core: number): Promise<Peer>
}

const BROKERGATE: PeerKind = {
  name: 'brokergate',
  version: () =>
    spawnSync(join(ROOT, 'node_modules/.bin/bun'), ['src/main.ts', 'version'], {
      cwd: ROOT,
      encoding: 'utf8',
    }).stdout.trim(),
  async start({ folder }, sinkPort, core) {
    const port = await freePort()
    const metricsPort = await freePort()
    const file = join(folder, 'brokergate.yaml')
    mkdirSync(join(folder, 'var'), { recursive: true, mode: 0o700 })
    writeFileSync(file, brokergateConfiguration(port, metricsPort, sinkPort))
    mkdirSync(join(folder, 'registry'), { recursive: true })
    writeFileSync(join(folder, 'registry/policies.yaml'), POLICIES)
    const started = startProcess(join(ROOT, 'node_modules/.bin/bun'), ['src/main.ts', 'run', '-c', file], {
      cwd: ROOT,
      core,
      logFile: join(folder, 'brokergate.out'),
    })
    await untilReady(started, () => isReady(metricsPort))
    return { name: this.name, version: this.version() ?? '', port, pid: started.pid, stop: started.stop }
  },
}

/** Everything, as the peers beside it allow. */
const POLICIES = `policies:
  devices: { Version: "2012-10-17", Statement: [ { Effect: Allow, Action: "iot:*", Resource: "*" } ] }
`

/** `log.level: warn`: HAProxy below writes no line per connection either. */
function brokergateConfiguration(port: number, metricsPort: number, sinkPort: number): string {
  return `listeners:
  - { bind: "127.0.0.1:${port}", as: 8883 }
domains:
  - serverNames: [ ${SERVER_NAME} ]
    certificates: [ { cert: server.pem, key: server.key } ]
    authenticationType: AWS_X509
    applicationProtocol: SECURE_MQTT
    registry: main
    clientTrust: { mode: ca, ca: [ ca.pem ], policies: [ devices ] }
    backend: sink
registries: { main: { path: registry } }
backends:
  sink: { kind: tcp, servers: [ { address: "127.0.0.1:${sinkPort}" } ] }
metrics: { bind: "127.0.0.1:${metricsPort}" }
admin: { socket: var/admin.sock }
workers: 1
drain: { grace: 0s }
log: { level: warn, format: json }
`
}

const HAPROXY: PeerKind = {
  name: 'haproxy',
  version() {
    const { status, stdout } = spawnSync('haproxy', ['-v'], { encoding: 'utf8' })
    return status === 0 ? stdout.split('\n')[0]!.replace(/ - http.*$/, '') : null
  },
  async start({ folder }, sinkPort, core) {
    const port = await freePort()
    const file = join(folder, 'haproxy.cfg')
    const openssl = join(folder, 'openssl.cnf')
    writeFileSync(file, haproxyConfiguration(folder, port, sinkPort))
    writeFileSync(openssl, NO_TICKETS)
    const started = startProcess('haproxy', ['-db', '-f', file], {
      cwd: folder,
      core,
      logFile: join(folder, 'haproxy.out'),
      env: { OPENSSL_CONF: openssl },
    })
    await untilReady(started, () => accepts(port))
    return { name: this.name, version: this.version() ?? '', port, pid: started.pid, stop: started.stop }
  },
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

/** No resumption, and the suite that brokergate chooses on this kind of machine. */
function haproxyConfiguration(folder: string, port: number, sinkPort: number): string {
  return `global
  nbthread 1
  maxconn 4000
  tune.ssl.cachesize 0
  ssl-default-bind-options no-tls-tickets
  ssl-default-bind-ciphersuites TLS_AES_128_GCM_SHA256
defaults
  mode tcp
  timeout connect 5s
  timeout client 90s
  timeout server 90s
frontend devices
  bind 127.0.0.1:${port} ssl crt ${join(folder, 'bundle.pem')} ca-file ${join(folder, 'ca.pem')} verify required strict-sni ssl-min-ver TLSv1.2
  default_backend sink
backend sink
  server sink 127.0.0.1:${sinkPort}
`
}

export const PEERS: readonly PeerKind[] = [BROKERGATE, HAPROXY]

async function untilReady(started: Started, ready: () => Promise<boolean>): Promise<void> {
  const until = performance.now() + READY_WITHIN_MS
  try {
    while (!(await Promise.race([ready(), started.failed]))) {
      if (performance.now() > until) throw new Error(`not ready in ${READY_WITHIN_MS} ms`)
      await sleep(50)
    }
  } catch (error) {
    await started.stop()
    throw error
  }
}

function isReady(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const request = get({ host: '127.0.0.1', port, path: '/readyz', timeout: 1_000, agent: false }, (response) => {
      response.resume()
      resolve(response.statusCode === 200)
    })
    request.on('timeout', () => request.destroy())
    request.on('error', () => resolve(false))
  })
}

function accepts(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1', () => {
      socket.destroy()
      resolve(true)
    })
    socket.on('error', () => resolve(false))
  })
}

async function freePort(): Promise<number> {
  for (let tries = 0; tries < 50; tries++) {
    const port = PORTS.from + Math.floor(Math.random() * (PORTS.to - PORTS.from))
    const free = await new Promise<boolean>((resolve) => {
      const server = createServer()
      server.once('error', () => resolve(false))
      server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)))
    })
    if (free) return port
  }
  throw new Error('no free port found')
}
