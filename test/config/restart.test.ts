import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { followedFiles, namedFiles, readContents } from '../../src/config/contents.ts'
import { loadSettings } from '../../src/config/load.ts'
import { changesBetween, NEEDS_RESTART, restartsNeeded } from '../../src/config/restart.ts'
import type { Settings } from '../../src/config/schema.ts'
import { folderFor, write } from '../support/proxy.ts'

const BASE = `listeners: [ { bind: "127.0.0.1:8883" } ]
domains:
  - serverNames: [ iot.example.com ]
    certificates: [ { cert: server.pem, key: server.key } ]
    clientTrust: { mode: ca, ca: [ ca.pem ], crl: { files: [ fleet.crl ] } }
    backend: main
backends:
  main: { kind: tls, servers: [ { address: "broker:8883" } ], ca: [ ca.pem ], identity: { password: secret } }
`

function settingsOf(t: ExecutionContext, text: string): { readonly dir: string; readonly settings: Settings } {
  const dir = folderFor(t)
  for (const name of ['server.pem', 'server.key', 'ca.pem', 'fleet.crl', 'sink.mjs']) write(dir, name, `${name}\n`)
  const loaded = loadSettings(write(dir, 'brokergate.yaml', text), {})
  if (loaded.kind === 'invalid') throw new Error(JSON.stringify(loaded.issues))
  return { dir, settings: loaded.settings }
}

const RESTARTS: readonly (readonly [string, string])[] = [
  ['workers', 'workers: 3\n'],
  ['transport', 'transport: portable\n'],
  ['ticketKeys.rotation', 'ticketKeys: { rotation: 1h }\n'],
  ['metrics.bind', 'metrics: { bind: "127.0.0.1:9884" }\n'],
  ['admin.socket', 'admin: { socket: other.sock }\n'],
  ['log.format', 'log: { format: json }\n'],
]

for (const [path, line] of RESTARTS) {
  test(`${path} cannot be changed by a reload`, (t) => {
    const before = settingsOf(t, BASE).settings
    const after = settingsOf(t, BASE + line).settings
    const same = { ...after, admin: path === 'admin.socket' ? after.admin : before.admin }
    t.deepEqual(
      restartsNeeded(before, same).map((steps) => steps.join('.')),
      [path],
    )
  })
}

test('the table names every setting that this test knows, and no other', (t) => {
  const named = Object.entries(NEEDS_RESTART).flatMap(([section, keys]) =>
    keys === 'all' ? [section] : keys.map((key) => `${section}.${key}`),
  )
  t.deepEqual(named.sort(), RESTARTS.map(([path]) => path).sort())
})

test('what may be changed needs no restart: level, grace, watch, and all that devices meet', (t) => {
  const before = settingsOf(t, BASE).settings
  const after = settingsOf(
    t,
    `${BASE.replace('8883" }', '8884", as: 8883 }').replaceAll('iot.example', 'other.example')}limits: { maxConnections: 5 }
drain: { grace: 1s }
reload: { watch: false }
log: { level: debug }
events: [ { kind: log } ]
`,
  ).settings
  t.deepEqual(restartsNeeded(before, { ...after, admin: before.admin }), [])
})

test('an embedded broker that was not started with the process needs a restart', (t) => {
  const before = settingsOf(t, BASE).settings
  const embedded = settingsOf(t, BASE.replace(/main: \{ kind: tls.*\n/, 'main: { kind: embedded }\n')).settings
  const after = { ...embedded, admin: before.admin }
  t.deepEqual(restartsNeeded(before, after), [['backends', 'main', 'kind']])
  t.deepEqual(restartsNeeded(after, before), [])
  t.deepEqual(restartsNeeded(after, after), [])
})

test('what changed is told by its place, never by its value', (t) => {
  const { dir, settings } = settingsOf(t, BASE)
  t.deepEqual(changesBetween(settings, settings), [])
  write(
    dir,
    'brokergate.yaml',
    `${BASE.replace('password: secret', 'password: other')}  more: { kind: tcp, servers: [ { address: "more:1883" } ] }
drain: { grace: 1s }
workers: 2
`,
  )
  const loaded = loadSettings(join(dir, 'brokergate.yaml'), {})
  if (loaded.kind === 'invalid') return t.fail(JSON.stringify(loaded.issues))
  t.deepEqual(changesBetween(settings, loaded.settings), ['backends.main', 'backends.more', 'workers', 'drain.grace'])
  const fewer = changesBetween({ ...settings, domains: [...settings.domains, settings.domains[0]!] }, settings)
  t.deepEqual(fewer, ['domains[1]'])
})

test('settings are data: they come over a pipe as they went', (t) => {
  const { settings } = settingsOf(
    t,
    `${BASE}events: [ { kind: module, path: sink.mjs, options: { a: [ 1, null ] } } ]\n`,
  )
  t.deepEqual(JSON.parse(JSON.stringify(settings)), settings)
})

test('the files that are a part of the settings are read, each once; those that are followed are not', (t) => {
  const { dir, settings } = settingsOf(t, `${BASE}events: [ { kind: module, path: sink.mjs } ]\n`)
  t.deepEqual(
    namedFiles(settings).map(({ path, file }) => `${path.join('.')} ${file.slice(dir.length)}`),
    [
      'domains.0.certificates.0.cert /server.pem',
      'domains.0.certificates.0.key /server.key',
      'domains.0.clientTrust.ca.0 /ca.pem',
      'backends.main.ca.0 /ca.pem',
    ],
  )
  t.deepEqual(
    followedFiles(settings).map((file) => file.slice(dir.length)),
    ['/fleet.crl', '/sink.mjs'],
  )
  const contents = readContents(settings)
  t.deepEqual(
    contents.kind === 'read' && Object.entries(contents.files).map(([file, text]) => [file.slice(dir.length), text]),
    [
      ['/server.pem', 'server.pem\n'],
      ['/server.key', 'server.key\n'],
      ['/ca.pem', 'ca.pem\n'],
    ],
  )
})

test('a file that went away between the look and the reading is an answer', (t) => {
  const { settings } = settingsOf(t, BASE)
  const gone = {
    ...settings,
    domains: settings.domains.map((one) => ({ ...one, certificates: [{ cert: '/nowhere', key: '/nowhere' }] })),
  }
  const contents = readContents(gone)
  t.deepEqual(contents.kind === 'unreadable' && contents.named, {
    path: ['domains', 0, 'certificates', 0, 'cert'],
    file: '/nowhere',
  })
})
