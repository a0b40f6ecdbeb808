import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import test from 'ava'
import { parseAllDocuments } from 'yaml'
import { createCa, issueServer } from '../../src/cli/pki.ts'
import { formatIssue, loadSettings } from '../../src/config/load.ts'
import type { Settings } from '../../src/config/schema.ts'

const DEPLOY = join(import.meta.dirname, '../../deploy')
const KUBERNETES = join(DEPLOY, 'kubernetes')
const CONFIG_FOLDER = '/etc/brokergate'
const MIN_SPARE_S = 5

// Manifests are read as they are: what is missing shows as a failed assertion, not as a type.
// biome-ignore lint/suspicious/noExplicitAny: see above
type Fields = Record<string, any>

interface Deployed {
  readonly documents: readonly Fields[]
  readonly pod: Fields
  readonly gate: Fields
  readonly settings: Settings
}

const manifests = readdirSync(KUBERNETES).filter((name) => name.endsWith('.yaml'))
const ca = createCa({ commonName: 'manifest test CA' })
const server = issueServer(ca, { serverNames: ['mqtt.example.com'] })

function ofKind(documents: readonly Fields[], kind: string): Fields[] {
  return documents.filter((document) => document.kind === kind)
}

function read(name: string): readonly Fields[] {
  return parseAllDocuments(readFileSync(join(KUBERNETES, name), 'utf8')).map((document) => {
    if (document.errors.length > 0) throw document.errors[0]!
    return document.toJS() as Fields
  })
}

/** Placeholders become what they stand for, so that files which are named and mounted are files which can be read. */
function content(key: string, placeholder: string): string {
  if (key.endsWith('.key')) return server.keyPem
  if (key.endsWith('.crt')) return server.chainPem
  return key.endsWith('ca.pem') ? ca.certPem : placeholder
}

/** Mounts the folder of the configuration as the kubelet would: only what the pod's volume names is there. */
function mount(documents: readonly Fields[], pod: Fields, gate: Fields, folder: string): void {
  const { name } = gate.volumeMounts.find((mounted: Fields) => mounted.mountPath === CONFIG_FOLDER)
  const volume = pod.volumes.find((candidate: Fields) => candidate.name === name)
  for (const source of volume.projected.sources) {
    const [kind, wanted] = source.secret ? ['Secret', source.secret] : ['ConfigMap', source.configMap]
    const holder = ofKind(documents, kind).find((document) => document.metadata.name === wanted.name)
    if (holder === undefined) throw new Error(`no ${kind} ${wanted.name}`)
    const values = holder.stringData ?? holder.data
    for (const { key, path } of wanted.items) {
      if (typeof values[key] !== 'string') throw new Error(`${kind} ${wanted.name} has no ${key}`)
      mkdirSync(dirname(join(folder, path)), { recursive: true })
      writeFileSync(join(folder, path), content(key, values[key]))
    }
  }
}

function deployed(name: string): Deployed {
  const documents = read(name)
  const pod = ofKind(documents, 'Deployment')[0]!.spec.template.spec as Fields
  const gate = pod.containers.find((container: Fields) => container.name === 'brokergate') as Fields
  const folder = mkdtempSync(join(tmpdir(), 'brokergate-manifest-'))
  try {
    mount(documents, pod, gate, folder)
    const env = Object.fromEntries((gate.env ?? []).map((entry: Fields) => [entry.name, entry.value]))
    const loaded = loadSettings(join(folder, 'brokergate.yaml'), env)
    if (loaded.kind === 'invalid') throw new Error(loaded.issues.map(formatIssue).join('\n'))
    return { documents, pod, gate, settings: loaded.settings }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

test('both ways to deploy are there', (t) => {
  t.deepEqual(manifests.toSorted(), ['ingress.yaml', 'sidecar.yaml'])
})

for (const name of manifests) {
  test(`${name}: the configuration loads with the files that are mounted beside it`, (t) => {
    const { settings, gate } = deployed(name)
    t.true(settings.domains.length > 0)
    const writable = gate.volumeMounts.filter((mounted: Fields) => mounted.readOnly !== true)
    t.deepEqual(
      writable.map((mounted: Fields) => mounted.mountPath),
      // In a folder of its own, which it makes for itself: that of an emptyDir may be written by everybody in the pod.
      [dirname(dirname(settings.admin.socket))],
    )
  })

  test(`${name}: there is time to drain`, (t) => {
    const { pod, gate, settings } = deployed(name)
    const [program, seconds] = gate.lifecycle.preStop.exec.command
    t.is(program, 'sleep')
    const needed = Number(seconds) + (settings.drain.settle + settings.drain.grace) / 1_000
    t.true(pod.terminationGracePeriodSeconds >= needed + MIN_SPARE_S)
  })

  test(`${name}: probes ask the metrics address, which others reach`, (t) => {
    const { gate, settings } = deployed(name)
    const portOf = (wanted: string) => gate.ports.find((port: Fields) => port.name === wanted)?.containerPort
    t.deepEqual(settings.metrics.bind, { host: '0.0.0.0', port: 9883 })
    for (const [probe, path] of [
      ['startupProbe', '/healthz'],
      ['livenessProbe', '/healthz'],
      ['readinessProbe', '/readyz'],
    ] as const) {
      t.is(gate[probe].httpGet.path, path)
      t.is(portOf(gate[probe].httpGet.port), settings.metrics.bind.port)
    }
  })

  test(`${name}: every listener is published, and nothing else`, (t) => {
    const { documents, gate, settings, pod } = deployed(name)
    const portOf = (wanted: string) => gate.ports.find((port: Fields) => port.name === wanted)?.containerPort
    const [service] = ofKind(documents, 'Service')
    t.deepEqual(
      service!.spec.ports.map((port: Fields) => [port.port, portOf(port.targetPort)]),
      settings.listeners.map((listener) => [listener.as, listener.bind.port]),
    )
    t.is(pod.enableServiceLinks, false)
  })

  test(`${name}: every container is confined and pinned`, (t) => {
    const { pod } = deployed(name)
    t.is(pod.automountServiceAccountToken, false)
    t.is(pod.securityContext.runAsNonRoot, true)
    t.is(pod.securityContext.seccompProfile.type, 'RuntimeDefault')
    for (const container of [...(pod.initContainers ?? []), ...pod.containers]) {
      t.regex(container.image, /:\d+\.\d+\.\d+/, container.name)
      t.true((container.securityContext.runAsUser ?? pod.securityContext.runAsUser) > 0, container.name)
      t.is(container.securityContext.allowPrivilegeEscalation, false, container.name)
      t.is(container.securityContext.readOnlyRootFilesystem, true, container.name)
      t.deepEqual(container.securityContext.capabilities, { drop: ['ALL'] }, container.name)
      t.truthy(container.resources.limits.memory, container.name)
    }
  })

  test(`${name}: selectors find the pods`, (t) => {
    const { documents } = deployed(name)
    const { spec } = ofKind(documents, 'Deployment')[0]!
    const { labels } = spec.template.metadata
    t.deepEqual(spec.selector.matchLabels, labels)
    for (const service of ofKind(documents, 'Service')) t.deepEqual(service.spec.selector, labels)
    for (const budget of ofKind(documents, 'PodDisruptionBudget')) {
      t.deepEqual(budget.spec.selector.matchLabels, labels)
      t.true(budget.spec.minAvailable < spec.replicas)
    }
  })

  test(`${name}: no key is in the file`, (t) => {
    t.notRegex(readFileSync(join(KUBERNETES, name), 'utf8'), /-----BEGIN/)
  })
}

test('the sidecar’s broker listens on loopback, where the configuration looks for it', (t) => {
  const { documents, settings } = deployed('sidecar.yaml')
  const broker = ofKind(documents, 'ConfigMap').find((map) => 'mosquitto.conf' in map.data)!
  const listeners = [...broker.data['mosquitto.conf'].matchAll(/^listener (\d+) (\S+)$/gm)].map(([, port, host]) => ({
    host,
    port: Number(port),
  }))
  const backend = settings.backends.broker
  t.deepEqual(
    listeners,
    backend?.kind === 'tcp' ? backend.servers.map(({ address }) => ({ ...address })) : 'not a tcp backend',
  )
  t.deepEqual(
    listeners.map(({ host }) => host),
    ['127.0.0.1'],
  )
})

/** Instructions with their continued lines joined, comments and empty lines gone. */
function instructions(): readonly (readonly [name: string, rest: string])[] {
  const text = readFileSync(join(DEPLOY, 'docker/Dockerfile'), 'utf8')
  const joined = text.replace(/^#.*\n/gm, '').replace(/\\\n/g, ' ')
  return [...joined.matchAll(/^([A-Z]+)\s+(.+)$/gm)].map(([, name, rest]) => [name!, rest!.trim()] as const)
}

const all = (name: string): readonly string[] => instructions().flatMap(([own, rest]) => (own === name ? [rest] : []))

test('Dockerfile: bases are pinned', (t) => {
  const args = new Map(all('ARG').map((arg) => arg.split('=', 2) as [string, string]))
  const bases = all('FROM').map((from) =>
    from.split(' ')[0]!.replace(/^\$\{(\w+)\}$/, (_, name) => args.get(name) ?? ''),
  )
  t.true(bases.length >= 2)
  for (const base of bases) t.regex(base, /^[\w/.-]+:\d+\.\d+\.\d+[\w.-]*(@sha256:[0-9a-f]{64})?$/)
})

test('Dockerfile: runs as a numbered user that is not root, with the user of the manifests', (t) => {
  const user = all('USER').at(-1)!
  t.regex(user, /^[1-9]\d*:[1-9]\d*$/)
  for (const name of manifests) {
    const { pod, gate } = deployed(name)
    const own = { ...pod.securityContext, ...gate.securityContext }
    t.is(`${own.runAsUser}:${own.runAsGroup}`, user, name)
  }
  const last = instructions().findLastIndex(([name]) => name === 'USER')
  t.true(instructions().findIndex(([name]) => name === 'ENTRYPOINT') > last)
})

test('Dockerfile: what it starts and copies is there, and the build context lets it in', (t) => {
  t.deepEqual(
    [...JSON.parse(all('ENTRYPOINT')[0]!), ...JSON.parse(all('CMD')[0]!)],
    ['node_modules/.bin/bun', 'src/main.ts', 'run', '-c', '/etc/brokergate/brokergate.yaml'],
  )
  t.deepEqual(all('EXPOSE')[0]!.split(' '), ['8883', '8443', '10443'])
  t.regex(all('HEALTHCHECK')[0]!, /CMD \["node_modules\/\.bin\/bun", "src\/main\.ts", "healthcheck", "-c"/)
  const ignore = readFileSync(join(DEPLOY, '../.dockerignore'), 'utf8').split('\n')
  t.true(ignore.includes('*'))
  for (const copy of all('COPY').filter((line) => !line.startsWith('--from'))) {
    for (const source of copy.split(' ').slice(0, -1)) t.true(ignore.includes(`!${source}`), source)
  }
})

test('systemd: there is time to drain, and the options that matter are set', (t) => {
  const text = readFileSync(join(DEPLOY, 'systemd/brokergate.service'), 'utf8')
  const option = (name: string) => new RegExp(`^${name}=(.*)$`, 'm').exec(text)?.[1]
  t.is(option('Type'), 'exec')
  t.regex(option('ExecStart')!, /node_modules\/\.bin\/bun src\/main\.ts run -c \/etc\/brokergate\/brokergate\.yaml$/)
  // The defaults of drain.settle and drain.grace, which the unit's comment names.
  t.true(Number.parseInt(option('TimeoutStopSec')!, 10) >= 30 + MIN_SPARE_S)
  t.true(Number(option('LimitNOFILE')) >= 65_536)
  t.is(option('KillMode'), 'mixed')
  t.is(option('User'), 'brokergate')
  t.is(option('NoNewPrivileges'), 'yes')
  t.is(option('ProtectSystem'), 'strict')
  t.is(option('CapabilityBoundingSet'), '')
  t.is(option('MemoryDenyWriteExecute'), undefined)
})
