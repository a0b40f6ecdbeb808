import test, { type ExecutionContext } from 'ava'
import { poolCredentials } from '../../src/backend/publisher.ts'
import { loadSettings } from '../../src/config/load.ts'
import type { Settings } from '../../src/config/schema.ts'
import { folderFor, write } from '../support/proxy.ts'

interface Case {
  readonly bind?: string
  readonly domain?: string
  readonly backend?: string
}

function load(t: ExecutionContext, { bind = '"127.0.0.1:8443"', domain = '', backend = '' }: Case) {
  const dir = folderFor(t)
  for (const name of ['server.pem', 'server.key', 'registry/devices.yaml']) write(dir, name, '')
  const file = write(
    dir,
    'brokergate.yaml',
    `listeners: [ { bind: ${bind} } ]
domains:
  - serverNames: [ iot.example.com ]
    certificates: [ { cert: server.pem, key: server.key } ]
    registry: main
    backend: main
${domain}
backends:
  main:
    kind: tcp
    servers: [ { address: "broker:1883" } ]
${backend}
registries: { main: { path: registry } }
`,
  )
  const loaded = loadSettings(file, { BROKER_PASSWORD: 's3cret${x}' })
  return loaded.kind === 'valid'
    ? { settings: loaded.settings, issues: [] }
    : { settings: null, issues: loaded.issues.map(({ path, message }) => `${path} ${message}`) }
}

function publishOf({ backends: { main } }: Settings) {
  return main?.kind === 'tcp' ? main.publish : null
}

test('what publishes and signatures need has a default each', (t) => {
  const { settings } = load(t, {})
  t.deepEqual(publishOf(settings!), {
    username: null,
    password: null,
    connections: 2,
    timeout: 10_000,
    queue: 1_000,
    principalProperty: null,
    addressProperty: null,
  })
  t.deepEqual(settings!.domains[0]!.sigv4, {
    clockSkew: 300_000,
    maxPresignAge: 300_000,
    singleEncodedPath: false,
    signedToken: false,
  })
})

test('each of them can be set, and the password is a secret that no template touches', (t) => {
  const { settings } = load(t, {
    domain: '    sigv4: { clockSkew: 0s, maxPresignAge: 1m, singleEncodedPath: true, signedToken: true }',
    backend:
      '    publish: { username: gate, password: { env: BROKER_PASSWORD }, connections: 4, timeout: 5s, queue: 10, principalProperty: principal, addressProperty: address }',
  })
  t.deepEqual(publishOf(settings!), {
    username: 'gate',
    password: 's3cret${x}',
    connections: 4,
    timeout: 5_000,
    queue: 10,
    principalProperty: 'principal',
    addressProperty: 'address',
  })
  t.deepEqual(settings!.domains[0]!.sigv4, {
    clockSkew: 0,
    maxPresignAge: 60_000,
    singleEncodedPath: true,
    signedToken: true,
  })
})

const TEMPLATE = '    identity: { username: "${principal.id}" }'
const MISSING = (key: string) =>
  `backends.main.publish.username is missing, expected the user name for publishes of our own: identity.${key} has variables, and those need a device`

// biome-ignore format: a table is read down its columns
const CASES: readonly (readonly [string, Case, readonly string[]])[] = [
  ['a template as the user name, where devices publish over HTTPS',  { backend: TEMPLATE },                                                                  [MISSING('username')]],
  ['the same on a port that stands for 443',                         { backend: TEMPLATE, bind: '"127.0.0.1:10443", as: 443' },                              [MISSING('username')]],
  ['a template as the password',                                     { backend: '    identity: { username: a, password: "${clientId}" }' },                  [MISSING('password')]],
  ['a template, and a user name of our own',                         { backend: `${TEMPLATE}\n    publish: { username: gate }` },                            []],
  ['a template, where only MQTT is spoken',                          { backend: TEMPLATE, bind: '"127.0.0.1:8883"' },                                        []],
  ['a template, where the domain speaks MQTT alone',                 { backend: TEMPLATE, domain: '    authenticationType: AWS_X509\n    applicationProtocol: SECURE_MQTT' }, []],
  ['no template',                                                    { backend: '    identity: { username: gate, password: secret }' },                      []],
  ['a password without its user name',                               { backend: '    publish: { password: x }' },                                            ['backends.main.publish.username is missing, expected a text: password is set']],
  ['no connection',                                                  { backend: '    publish: { connections: 0 }' },                                         ['backends.main.publish.connections expected a whole number from 1']],
  ['too many connections',                                           { backend: '    publish: { connections: 65 }' },                                        ['backends.main.publish.connections expected a whole number to 64']],
  ['no queue',                                                       { backend: '    publish: { queue: 0 }' },                                               ['backends.main.publish.queue expected a whole number from 1']],
  ['no time',                                                        { backend: '    publish: { timeout: 0s }' },                                            ['backends.main.publish.timeout expected at least "1ms"']],
  ['a property without a name',                                      { backend: '    publish: { principalProperty: "" }' },                                  ['backends.main.publish.principalProperty expected a name']],
  ['a tolerance that is no answer',                                  { domain: '    sigv4: { signedToken: "maybe" }' },                                      ['domains[0].sigv4.signedToken expected true or false']],
]

for (const [what, given, issues] of CASES) {
  test(`${what}: ${issues.length === 0 ? 'taken' : 'refused'}`, (t) => {
    t.deepEqual(load(t, given).issues, issues as string[])
  })
}

test('our connections use the credentials of `publish`, or those of `identity`, never half of each', (t) => {
  const identity = { username: 'device', password: 'secret' }
  t.deepEqual(poolCredentials(identity, { username: null, password: null }), identity)
  t.deepEqual(poolCredentials(identity, { username: 'gate', password: null }), { username: 'gate', password: null })
  t.deepEqual(poolCredentials(identity, { username: 'gate', password: 'own' }), { username: 'gate', password: 'own' })
})
