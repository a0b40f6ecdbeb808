import { spawnSync } from 'node:child_process'
import { copyFileSync, existsSync, mkdirSync } from 'node:fs'
import { basename, join, resolve } from 'node:path'
import { catchesHangUp, startProcess } from '../harness/proc.ts'
import { deviceName, SERVER_NAME, TOKEN_NAME, WSS_NAME, write } from './materials.ts'
import { freePort, isReady, type Job, type PeerKind, type Ports, type Setup, untilReady } from './peer.ts'

export const ROOT = join(import.meta.dirname, '../..')
/** The Bun of the npm package. */
export const RUNTIME = join(ROOT, 'node_modules/.bin/bun')
const LEAST_NODE = 24
/** What is fetched when there is no Node of our own that is new enough. */
const NODE_PACKAGE = 'node@26.10.0'

/** As its users run it: on the Bun of the npm package. */
export const BROKERGATE = brokergate({
  name: 'brokergate',
  root: ROOT,
  runtime: () => RUNTIME,
  about: '`run -c`, one worker, `log.level: warn`; every packet is looked at',
  comesWith: 'npm ci',
})

export const ON_NODE = brokergate({
  name: 'node',
  root: ROOT,
  runtime: once(findNode),
  about: 'brokergate on Node, else the same',
  comesWith: `Node ${LEAST_NODE} or later, or npx`,
  // A session of Node's keeps the leaf alone, so there is no path to judge again when it is resumed.
  lacks: ({ resumption, trust }) =>
    resumption && trust === 'ca' ? 'gives no tickets where certificates count by their CA' : null,
})

/** Another checkout, to see what a change does. */
export function checkout(folder: string): PeerKind {
  const root = resolve(folder)
  return brokergate({
    name: basename(root),
    root,
    runtime: () => join(root, 'node_modules/.bin/bun'),
    about: `brokergate of ${basename(root)}`,
    comesWith: `npm ci in ${basename(root)}`,
  })
}

interface Kind {
  readonly name: string
  readonly root: string
  readonly runtime: () => string | null
  readonly about: string
  readonly comesWith: string
  /** What this runtime lacks. */
  readonly lacks?: (setup: Setup) => string | null
}

function brokergate({ name, root, runtime, about, comesWith, lacks }: Kind): PeerKind {
  const ask = (...args: readonly string[]): string | null => {
    const program = runtime()
    if (program === null) return null
    const { status, stdout } = spawnSync(program, ['src/main.ts', ...args], { cwd: root, encoding: 'utf8' })
    return status === 0 ? stdout.trim() : null
  }
  const version = once(() => ask('version'))
  const known = once(() => knownSettings(ask('schema')))
  return {
    name,
    about,
    comesWith,
    version,
    cannot: (setup) => missing(setup, known()) ?? lacks?.(setup) ?? null,
    async start(job) {
      const { folder } = job
      const ports: Ports = { mqtt: await freePort(), https: await freePort(), web: await freePort() }
      const metricsPort = await freePort()
      mkdirSync(join(folder, 'var'), { recursive: true, mode: 0o700 })
      writeRegistry(job, false)
      const file = write(folder, 'brokergate.yaml', configuration(job, ports, metricsPort, known()))
      let knowsAll = false
      const from = performance.now()
      const started = startProcess(runtime()!, ['src/main.ts', 'run', '-c', file], {
        cwd: root,
        cores: job.cores,
        logFile: join(folder, `${name}.out`),
      })
      await untilReady(started, () => isReady(metricsPort))
      return {
        name,
        version: version() ?? '',
        ports,
        pid: started.pid,
        startedMs: performance.now() - from,
        ended: started.ended,
        drain() {
          started.mayEnd()
          started.signal('SIGTERM')
        },
        reload() {
          knowsAll = !knowsAll
          writeRegistry(job, knowsAll)
          // Where nobody listens to it, it would end the process; the registry is followed anyway.
          if (catchesHangUp(started.pid)) started.signal('SIGHUP')
        },
        stop: started.stop,
      }
    },
  }
}

/** Dotted paths of settings, from the product's own schema: what is not there is not built yet. */
function knownSettings(text: string | null): ReadonlySet<string> {
  const found = new Set<string>()
  const visit = (node: unknown, path: string): void => {
    if (typeof node !== 'object' || node === null) return
    for (const [key, value] of Object.entries(node)) {
      if (key === 'properties' && typeof value === 'object' && value !== null) {
        for (const [name, below] of Object.entries(value)) {
          const at = path === '' ? name : `${path}.${name}`
          found.add(at)
          visit(below, at)
        }
      } else visit(value, path)
    }
  }
  if (text !== null) visit(JSON.parse(text), '')
  return found
}

const TICKETS = 'domains.sessionTickets.enabled'
const AUTHORIZERS = 'domains.authorizers'
const ROUTES = 'domains.routes'
const POLICIES = 'domains.clientTrust.policies'
/** Reading the registry anew came with what a registry learns. */
const RELOAD = 'registries.state'

function missing(setup: Setup, known: ReadonlySet<string>): string | null {
  if (setup.resumption && !known.has(TICKETS)) return 'no resumption yet'
  if (setup.policyStatements > 1 && !known.has(POLICIES)) return 'policies are not evaluated yet'
  if (setup.extra?.https && !known.has(ROUTES)) return 'no HTTPS publish yet'
  if (setup.extra?.wss && !known.has(ROUTES)) return 'no MQTT over WebSocket yet'
  if (setup.extra !== null && setup.extra.authorizerUrl !== null && !known.has(AUTHORIZERS)) return 'no authorizers yet'
  if (setup.reloads && !known.has(RELOAD)) return 'nothing is reloaded yet'
  return null
}

const CERTIFICATES = 'certificates: [ { cert: ../server.pem, key: ../server.key } ]'

function configuration(
  { setup, brokerPort }: Job,
  ports: Ports,
  metricsPort: number,
  known: ReadonlySet<string>,
): string {
  const { extra } = setup
  const policies = known.has(POLICIES)
  const trust =
    setup.trust === 'registry'
      ? 'registry: main\n    clientTrust: { mode: registry }'
      : `${policies ? 'registry: main\n    ' : ''}clientTrust: { mode: ca, ca: [ ../ca.pem ]${policies ? ', policies: [ devices ]' : ''} }`
  const mine = (name: string, type: string, protocol: string, more: string) => `  - serverNames: [ ${name} ]
    ${CERTIFICATES}
    authenticationType: ${type}
    applicationProtocol: ${protocol}
    ${more}
    backend: sink
`
  const custom = 'registry: main\n    authorizers: [ tokens ]\n    defaultAuthorizer: tokens'
  return `listeners:
  - { bind: "127.0.0.1:${ports.mqtt}", as: 8883 }
${extra === null ? '' : `  - { bind: "127.0.0.1:${ports.https}", as: 8443 }\n  - { bind: "127.0.0.1:${ports.web}", as: 443 }\n`}domains:
${mine(SERVER_NAME, 'AWS_X509', extra?.https === true ? 'HTTPS' : 'SECURE_MQTT', trust + (setup.resumption ? '\n    sessionTickets: { enabled: true }' : ''))}${
  extra?.authorizerUrl == null
    ? ''
    : mine(TOKEN_NAME, 'CUSTOM_AUTH', 'SECURE_MQTT', custom) +
      (extra.wss ? mine(WSS_NAME, 'CUSTOM_AUTH', 'MQTT_WSS', custom) : '')
}backends:
  sink: { kind: tcp, servers: [ { address: "127.0.0.1:${brokerPort}" } ] }
${setup.trust === 'registry' || policies || extra !== null ? 'registries: { main: { path: registry } }\n' : ''}metrics: { bind: "127.0.0.1:${metricsPort}" }
admin: { socket: var/admin.sock }
workers: ${setup.workers}
drain: { grace: ${setup.graceSeconds}s }
log: { level: warn, format: json }
`
}

/** Policies, the devices where they are registered, and the authorizer. */
function writeRegistry({ folder, materials, setup }: Job, newcomerToo: boolean): void {
  const from = setup.reloads && !newcomerToo ? 1 : 0
  const registered = setup.trust === 'registry' ? [...materials.devices.keys()].slice(from) : []
  for (const at of registered) {
    const name = `registry/certs/${deviceName(at)}.pem`
    write(folder, name, '')
    copyFileSync(join(materials.folder, `${deviceName(at)}.pem`), join(folder, name))
  }
  write(folder, 'registry/devices.json', JSON.stringify(policyOf(setup.policyStatements)))
  for (const name of ['token.pem', 'ca.pem']) {
    write(folder, `registry/${name}`, '')
    copyFileSync(join(materials.folder, name), join(folder, 'registry', name))
  }
  const { extra } = setup
  const certificates = registered.map(
    (at) => `  - { file: certs/${deviceName(at)}.pem, status: ACTIVE, policies: [ devices ] }\n`,
  )
  const authorizer =
    extra?.authorizerUrl == null
      ? ''
      : `authorizers:
  tokens:
    kind: webhook
    url: "${extra.authorizerUrl}"
    tokenKeyName: token
${extra.signedTokens ? '    signing: { keys: [ token.pem ] }\n' : ''}${extra.shareForSeconds === null ? '' : `    shareFor: ${extra.shareForSeconds}s\n`}`
  write(
    folder,
    'registry/registry.yaml',
    `${certificates.length === 0 ? '' : `certificates:\n${certificates.join('')}`}policies:\n  devices: { file: devices.json }\n${authorizer}`,
  )
}

/** The topics that the load uses, which every policy allows. */
export const TOPIC_OF = (clientId: string): string => `fleet/plant-7/${clientId}/state`

/**
 * One statement allows everything. Twenty are a fleet's policy: connect, subscribe and receive under one's own name,
 * many kinds of topics, the one that is published to among the last, and a Deny that must be looked at each time.
 */
export function policyOf(statements: number): object {
  const topic = (path: string) => `arn:aws:iot:us-east-1:000000000000:topic/${path}`
  const filter = (path: string) => `arn:aws:iot:us-east-1:000000000000:topicfilter/${path}`
  const client = 'arn:aws:iot:us-east-1:000000000000:client/${iot:ClientId}'
  if (statements === 1) {
    return { Version: '2012-10-17', Statement: [{ Effect: 'Allow', Action: 'iot:*', Resource: '*' }] }
  }
  const allow = (action: string, resource: string) => ({ Effect: 'Allow', Action: `iot:${action}`, Resource: resource })
  const kinds = Array.from({ length: statements - 5 }, (_, at) =>
    allow('Publish', topic(`fleet/kind-${at}/\${iot:ClientId}/*`)),
  )
  return {
    Version: '2012-10-17',
    Statement: [
      allow('Connect', client),
      allow('Subscribe', filter('fleet/*/${iot:ClientId}/*')),
      allow('Receive', topic('fleet/*/${iot:ClientId}/*')),
      ...kinds,
      allow('Publish', topic('fleet/plant-7/${iot:ClientId}/*')),
      { Effect: 'Deny', Action: 'iot:Publish', Resource: topic('fleet/*/${iot:ClientId}/secret/*') },
    ],
  }
}

/** A Node that strips types by itself: the one of the path, or the npm package. */
function findNode(): string | null {
  for (const command of [
    ['node', '-p', 'process.execPath'],
    ['npx', '-y', '-p', NODE_PACKAGE, 'node', '-p', 'process.execPath'],
  ]) {
    const { status, stdout } = spawnSync(command[0]!, command.slice(1), { encoding: 'utf8', timeout: 120_000 })
    const path = status === 0 ? stdout.trim() : ''
    if (path === '' || !existsSync(path)) continue
    const { stdout: version } = spawnSync(path, ['-p', 'process.versions.node'], { encoding: 'utf8' })
    if (Number.parseInt(version, 10) >= LEAST_NODE) return path
  }
  return null
}

function once<T>(get: () => T): () => T {
  let got: { value: T } | null = null
  return () => {
    got ??= { value: get() }
    return got.value
  }
}
