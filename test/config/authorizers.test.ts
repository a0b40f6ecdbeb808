import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { loadSettings } from '../../src/config/load.ts'
import { COMBINATIONS } from '../../src/tls/admission.ts'

function load(t: ExecutionContext, domain: string) {
  const dir = mkdtempSync(join(tmpdir(), 'brokergate-config-'))
  t.teardown(() => rmSync(dir, { recursive: true, force: true }))
  mkdirSync(join(dir, 'registry'))
  for (const file of ['server.pem', 'server.key', 'ca.pem']) writeFileSync(join(dir, file), '')
  writeFileSync(join(dir, 'secret'), 'from a file\n')
  const file = join(dir, 'brokergate.yaml')
  writeFileSync(
    file,
    `listeners: [ { bind: "127.0.0.1:8883" } ]
domains:
  - serverNames: [ iot.example.com ]
    certificates: [ { cert: server.pem, key: server.key } ]
    backend: main
${domain.replace(/^/gm, '    ')}
backends: { main: { kind: embedded } }
registries: { main: { path: registry } }
`,
  )
  const loaded = loadSettings(file, { AUTH: 'from the environment' })
  if (loaded.kind === 'valid') return { settings: loaded.settings.domains[0]!, issues: [], files: loaded.files }
  return {
    settings: null,
    issues: loaded.issues.map(({ path, message }) => `${path}: ${message.replace(dir, 'DIR')}`),
    files: [],
  }
}

const NEEDS: Readonly<Record<string, string>> = {
  DEFAULT: 'registry: main',
  AWS_X509: 'registry: main',
  CUSTOM_AUTH: 'registry: main\ndefaultAuthorizer: tokens',
  CUSTOM_AUTH_X509: 'registry: main\ndefaultAuthorizer: tokens',
  AWS_SIGV4: 'registry: main',
  BACKEND: 'status: enabled',
}

// Wire specification §1.2, every cell.
for (const [type, protocols] of Object.entries(COMBINATIONS)) {
  for (const protocol of ['SECURE_MQTT', 'MQTT_WSS', 'HTTPS', 'DEFAULT'] as const) {
    const may = protocols.includes(protocol)
    test(`authenticationType ${type} with applicationProtocol ${protocol} is ${may ? 'accepted' : 'refused'}`, (t) => {
      const { issues } = load(t, `authenticationType: ${type}\napplicationProtocol: ${protocol}\n${NEEDS[type]}`)
      t.is(issues.length, may ? 0 : 1, issues.join('\n'))
      if (!may) t.regex(issues[0]!, /^domains\[0\]\.applicationProtocol: expected /)
    })
  }
}

const CUSTOM = 'authenticationType: CUSTOM_AUTH\napplicationProtocol: SECURE_MQTT\n'

const refuses = test.macro({
  exec(t, _: string, domain: string, ...expected: string[]) {
    t.deepEqual(load(t, domain).issues, expected)
  },
  title: (_, what: string) => `is refused: ${what}`,
})
const NO_DEFAULT =
  'domains[0].defaultAuthorizer: is missing, expected the name of an authorizer, or authorizers with allowAuthorizerOverride: true'
test(refuses, 'custom authentication that could ask nobody', `${CUSTOM}registry: main`, NO_DEFAULT)
test(
  refuses,
  'authorizers that nobody may name, without a default',
  `${CUSTOM}registry: main\nauthorizers: [ tokens ]`,
  NO_DEFAULT,
)
test(
  refuses,
  'custom authentication without a registry',
  `${CUSTOM}defaultAuthorizer: tokens`,
  'domains[0].registry: is missing, expected the registry with the authorizers',
)
test(
  refuses,
  'an authorizer where none is asked',
  'authenticationType: AWS_X509\napplicationProtocol: SECURE_MQTT\nregistry: main\ndefaultAuthorizer: tokens',
  'domains[0].defaultAuthorizer: has no effect with authenticationType AWS_X509, which asks no authorizer',
)
test(
  refuses,
  'a name that no authorizer can have',
  `${CUSTOM}registry: main\ndefaultAuthorizer: "a b"`,
  'domains[0].defaultAuthorizer: expected a name of 1–128 letters, digits and _ = , @ -',
)
test(
  refuses,
  'client trust where no certificate is asked for',
  `${CUSTOM}registry: main\ndefaultAuthorizer: tokens\nclientTrust: { mode: registry }`,
  'domains[0].clientTrust: has no effect with authenticationType CUSTOM_AUTH, which asks for no certificate',
)

const X509 = 'authenticationType: AWS_X509\napplicationProtocol: SECURE_MQTT\nregistry: main\n'
const URL_WORDS = 'expected an https:// URL without user and fragment (http:// only to this machine)'
const callback = (text: string) => `${X509}clientTrust: { certificateCallback: ${text} }`
const AT = 'domains[0].clientTrust.certificateCallback'
test(
  refuses,
  'a callback over plain HTTP to another machine',
  callback('{ url: "http://auth.internal/" }'),
  `${AT}.url: ${URL_WORDS}`,
)
test(
  refuses,
  'a callback with a user in its URL',
  callback('{ url: "https://a:b@auth.internal/" }'),
  `${AT}.url: ${URL_WORDS}`,
)
test(
  refuses,
  'a callback with more than 5 s',
  callback('{ url: "https://auth.internal/", timeout: 6s }'),
  `${AT}.timeout: expected at most "5s"`,
)
test(
  refuses,
  'a callback whose CA is not there',
  callback('{ url: "https://auth.internal/", ca: [ no.pem ] }'),
  `${AT}.ca[0]: no such file: DIR/no.pem`,
)
test(
  refuses,
  'a callback whose secret is not there',
  callback('{ url: "https://auth.internal/", headers: { authorization: { env: NO } } }'),
  `${AT}.headers.authorization.env: no such environment variable: NO`,
)
test(
  refuses,
  'a callback with a header in two lines',
  callback('{ url: "https://auth.internal/", headers: { a: "b\\r\\nc: d" } }'),
  `${AT}.headers.a: holds a character that a header may not have`,
)

test('a domain with authorizers and a certificate callback is read as it is written', (t) => {
  const { settings, issues, files } = load(
    t,
    `registry: main
authorizers: [ tokens, "a=,@-b" ]
defaultAuthorizer: tokens
allowAuthorizerOverride: true
clientTrust:
  certificateCallback:
    url: https://auth.internal/certificate
    ca: [ ca.pem ]
    headers: { authorization: { env: AUTH }, x-other: { file: secret }, x-plain: plain }
    timeout: 2s`,
  )
  if (settings === null) return t.deepEqual(issues, [])
  t.deepEqual(settings.authorizers, ['tokens', 'a=,@-b'])
  t.is(settings.defaultAuthorizer, 'tokens')
  t.true(settings.allowAuthorizerOverride)
  const { ca, ...rest } = settings.clientTrust.certificateCallback!
  t.deepEqual(rest as object, {
    url: 'https://auth.internal/certificate',
    headers: { authorization: 'from the environment', 'x-other': 'from a file', 'x-plain': 'plain' },
    timeout: 2_000,
  })
  t.true(ca?.[0]?.endsWith('/ca.pem'))
  t.true(files.includes(ca![0]!))
})
