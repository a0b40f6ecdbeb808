import test from 'ava'
import type { AuthOutcome } from '../../src/auth/authenticator.ts'
import { type PresignCommand, presignUrl } from '../../src/cli/presign.ts'
import { connectionOf } from '../auth/conformance.ts'
import { folderFor, write } from '../support/proxy.ts'
import { SECRET, SIGNED_AT, TOKEN, verifier } from '../support/sigv4.ts'

const ENV = { AWS_ACCESS_KEY_ID: 'AKIDEXAMPLE', AWS_SECRET_ACCESS_KEY: SECRET }

function run(options: Partial<PresignCommand>) {
  const [printed, complained]: [string[], string[]] = [[], []]
  const code = presignUrl({
    url: null,
    host: null,
    port: null,
    region: null,
    accessKeyId: null,
    accessKey: null,
    file: null,
    expires: null,
    env: ENV,
    now: () => SIGNED_AT,
    print: (line) => printed.push(line),
    complain: (line) => complained.push(line),
    ...options,
  })
  return { code, printed, complained }
}

/** As a WebSocket client would ask with this URL. */
function ask(line: string): Promise<AuthOutcome> {
  const url = new URL(line)
  const http = { method: 'GET', target: url.pathname + url.search, rawHeaders: ['Host', url.host], body: null }
  return verifier().authenticate({ kind: 'sigv4', http }, connectionOf(), new AbortController().signal)
}

// biome-ignore format: a table is read down its columns
const SIGNED: readonly (readonly [string, Partial<PresignCommand>, RegExp])[] = [
  ['the port of the scheme is left out',         { host: 'iot.example.com' },                            /^wss:\/\/iot\.example\.com\/mqtt\?X-Amz-Algorithm=/],
  ['another port is signed',                     { host: 'iot.example.com', port: '10443' },             /^wss:\/\/iot\.example\.com:10443\/mqtt\?/],
  ['a URL',                                      { url: 'wss://iot.example.com:443/mqtt' },              /^wss:\/\/iot\.example\.com\/mqtt\?/],
  ['an IPv6 address',                            { url: 'wss://[::1]:10443' },                           /^wss:\/\/\[::1\]:10443\/mqtt\?/],
  ['an expiry',                                  { host: 'iot.example.com', expires: '300' },            /&X-Amz-Expires=300&/],
  ['our own variable before that of AWS',        { host: 'iot.example.com', env: { ...ENV, AWS_SECRET_ACCESS_KEY: 'x', BROKERGATE_SECRET: SECRET } }, /^wss:/],
  ['a session token',                            { host: 'iot.example.com', accessKeyId: 'ASIAEXAMPLE', env: { ...ENV, AWS_SESSION_TOKEN: TOKEN } }, /&X-Amz-Security-Token=[^&]+$/],
]

for (const [what, options, form] of SIGNED) {
  test(`presign with ${what}: the URL is admitted`, async (t) => {
    const { code, printed, complained } = run(options)
    t.is(code, 0)
    t.deepEqual(complained, [])
    t.is(printed.length, 1)
    t.regex(printed[0]!, form)
    t.false(printed[0]!.includes(SECRET))
    const outcome = await ask(printed[0]!)
    t.is(outcome.kind, 'authenticated')
  })
}

test('presign signs for the region that it is told', (t) => {
  t.regex(run({ host: 'a', region: 'eu-central-1' }).printed[0]!, /%2Feu-central-1%2Fiotdevicegateway%2F/)
  t.regex(run({ host: 'a', env: { ...ENV, AWS_REGION: 'eu-west-1' } }).printed[0]!, /%2Feu-west-1%2F/)
})

// biome-ignore format: a table is read down its columns
const REFUSED: readonly (readonly [string, Partial<PresignCommand>, RegExp])[] = [
  ['no host',                  {},                                                     /expected --url, --host or --config/],
  ['a host twice',             { host: 'a', url: 'wss://a' },                          /--url already says/],
  ['a URL that is none',       { url: '::' },                                          /such as wss:/],
  ['another scheme',           { url: 'https://a' },                                   /begins with wss:/],
  ['another path',             { url: 'wss://a/other' },                               /always \/mqtt/],
  ['a name with a slash',      { host: 'a/b' },                                        /expected a URL/],
  ['no key id',                { host: 'a', env: {} },                                 /expected --access-key-id/],
  ['no secret',                { host: 'a', accessKeyId: 'x', env: {} },               /expected the secret in/],
  ['a registry of nothing',    { host: 'a', accessKey: 'x' },                          /registries of --config/],
  ['an expiry of no time',     { host: 'a', expires: '0' },                            /from 1 to 604800/],
  ['an expiry of 8 days',      { host: 'a', expires: '691200' },                       /from 1 to 604800/],
  ['an expiry that is none',   { host: 'a', expires: '5m' },                           /in seconds/],
  ['a file that is not there', { file: '/nowhere/brokergate.yaml' },                   /brokergate\.yaml/],
]

for (const [what, options, message] of REFUSED) {
  test(`presign with ${what} prints nothing and says why`, (t) => {
    const { code, printed, complained } = run(options)
    t.is(code, 1)
    t.deepEqual(printed, [])
    t.is(complained.length, 1)
    t.regex(complained[0]!, message)
  })
}

test('presign takes server name and port from a configuration, and says when no registry has the key', (t) => {
  const dir = folderFor(t)
  for (const name of ['server.pem', 'server.key', 'registry/devices.yaml']) write(dir, name, '')
  const file = write(
    dir,
    'brokergate.yaml',
    `listeners: [ { bind: "127.0.0.1:8883" }, { bind: "127.0.0.1:10443", as: 443 } ]
domains:
  - { serverNames: [ iot.example.com ], certificates: [ { cert: server.pem, key: server.key } ], registry: main, backend: main }
backends: { main: { kind: embedded } }
registries: { main: { path: registry/ } }
`,
  )
  t.regex(run({ file }).printed[0] ?? '', /^wss:\/\/iot\.example\.com:10443\/mqtt\?/)
  const { code, complained } = run({ file, accessKey: 'AKIDNOBODY' })
  t.is(code, 1)
  t.deepEqual(complained, ['no registry has the access key AKIDNOBODY'])
})
