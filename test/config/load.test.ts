import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { formatIssue, loadSettings } from '../../src/config/load.ts'
import type { Settings } from '../../src/config/schema.ts'

/** Thirteen lines that are right; a case changes one or adds after them. */
const BASE = `listeners:
  - bind: "127.0.0.1:8883"
domains:
  - serverNames: [ iot.example.com ]
    certificates: [ { cert: server.pem, key: server.key } ]
    registry: main
    backend: main
backends:
  main:
    kind: tcp
    servers: [ { address: "broker:1883" } ]
registries:
  main: { path: registry }
`

type Files = Readonly<Record<string, string>>

function folderWith(t: ExecutionContext, files: Files): string {
  const dir = mkdtempSync(join(tmpdir(), 'brokergate-config-'))
  t.teardown(() => rmSync(dir, { recursive: true, force: true }))
  mkdirSync(join(dir, 'registry'))
  const all: Files = { 'server.pem': '', 'server.key': '', 'ca.pem': '', 'fleet.crl': '', ...files }
  for (const [name, text] of Object.entries(all)) {
    mkdirSync(dirname(join(dir, name)), { recursive: true })
    writeFileSync(join(dir, name), text)
  }
  return dir
}

function load(t: ExecutionContext, text: string, files: Files = {}, env: NodeJS.ProcessEnv = {}) {
  const dir = folderWith(t, { ...files, 'brokergate.yaml': text })
  return { dir, loaded: loadSettings(join(dir, 'brokergate.yaml'), env) }
}

function valid(t: ExecutionContext, text: string, files: Files = {}, env: NodeJS.ProcessEnv = {}): Settings {
  const { loaded } = load(t, text, files, env)
  if (loaded.kind === 'valid') return loaded.settings
  throw new Error(loaded.issues.map(formatIssue).join('\n'))
}

/** `file:line path | message`, the folder written as DIR. */
function issuesOf(t: ExecutionContext, text: string, files: Files = {}, env: NodeJS.ProcessEnv = {}): string[] {
  const { dir, loaded } = load(t, text, files, env)
  if (loaded.kind === 'valid') return []
  return loaded.issues.map(({ file, line, path, message }) =>
    `${file}:${line} ${path} | ${message}`.replaceAll(`${dir}/brokergate.yaml`, 'MAIN').replaceAll(dir, 'DIR'),
  )
}

const refuses = test.macro({
  exec(t, _: string, from: string, to: string, expected: readonly string[]) {
    t.true(BASE.includes(from), 'the case changes something')
    const text = from === '' ? BASE + to : BASE.replace(from, to)
    t.deepEqual(issuesOf(t, text), expected as string[])
  },
  title: (_, what: string) => `is refused, with file, line and path: ${what}`,
})

const NAMES =
  'IoTSecurityPolicy_TLS13_1_3_2022_10, IoTSecurityPolicy_TLS13_1_2_2022_10, IoTSecurityPolicy_TLS12_1_2_2022_10, IoTSecurityPolicy_TLS12_1_0_2016_01, IoTSecurityPolicy_TLS12_1_0_2015_01, IoTSecurityPolicy_TLS13_1_2_2022_01'
const TOP =
  'aws, include, listeners, domains, backends, registries, limits, events, metrics, admin, workers, transport, governor, shedding, ticketKeys, drain, reload, log'
const DOMAIN =
  'serverNames, status, certificates, tlsPolicy, authenticationType, applicationProtocol, endpointType, registry, clientTrust, authorizers, defaultAuthorizer, allowAuthorizerOverride, sigv4, handshakeTimeout, sessionTickets, backend, aws, routes, policy, denials, clientId, sessions, limits'
const HOST = 'expected a host name of letters, digits and hyphens, without wildcard, port or final dot'
const DURATION = 'expected a duration with its unit (ms, s, m or h) such as "30s"'
const SIZE = 'expected a size with its unit (B, KiB or MiB) such as "64KiB"'
const BIND = 'expected an address and port such as "[::]:8883" or "127.0.0.1:8443"'
const TEMPLATE = 'expected only ${clientId}, ${domain}, ${principal.id} and ${principal.<attribute>} as variables'
const IN_DOMAIN = '    backend: main\n'
const IN_BACKEND = '    kind: tcp\n'
const domain = (lines: string) => `${IN_DOMAIN}    ${lines}\n`
const backend = (lines: string) => `${IN_BACKEND}    ${lines}\n`

test(
  refuses,
  'sessions that last for longer than a day',
  IN_DOMAIN,
  domain('sessionTickets: { enabled: yes, lifetime: 25h }'),
  [
    'MAIN:8 domains[0].sessionTickets.enabled | expected true or false',
    'MAIN:8 domains[0].sessionTickets.lifetime | expected at most "24h"',
  ],
)
test(refuses, 'ticket keys for longer than a day', '', 'ticketKeys: { rotation: 48h }\n', [
  'MAIN:14 ticketKeys.rotation | expected at most "24h"',
])
test(refuses, 'ticket keys for no time', '', 'ticketKeys: { rotation: 10ms }\n', [
  'MAIN:14 ticketKeys.rotation | expected at least "1s"',
])

// listeners
test(refuses, 'no listener', '  - bind: "127.0.0.1:8883"\n', '  []\n', [
  'MAIN:2 listeners | expected at least one listener such as { bind: "[::]:8883" }',
])
test(refuses, 'a listener without an address', 'bind: "127.0.0.1:8883"', 'as: 443', [
  `MAIN:2 listeners[0].bind | is missing, ${BIND}`,
])
test(refuses, 'a port without an address', '"127.0.0.1:8883"', '8883', [`MAIN:2 listeners[0].bind | ${BIND}`])
test(refuses, 'a host name to listen on', '127.0.0.1:8883', 'localhost:8883', [`MAIN:2 listeners[0].bind | ${BIND}`])
test(refuses, 'a port past 65535', '8883', '88830', [
  'MAIN:2 listeners[0].as | is missing, expected 8883, 8443 or 443: port 88830 has no rules of its own',
  `MAIN:2 listeners[0].bind | ${BIND}`,
])
test(refuses, 'a port without rules of its own', '8883', '10443', [
  'MAIN:2 listeners[0].as | is missing, expected 8883, 8443 or 443: port 10443 has no rules of its own',
])
test(refuses, 'rules of a port that has none', 'bind: "127.0.0.1:8883"', 'bind: "127.0.0.1:10443"\n    as: 80', [
  'MAIN:3 listeners[0].as | expected 8883, 8443 or 443',
])
test(refuses, 'one address twice', 'domains:', '  - bind: "127.0.0.1:8883"\ndomains:', [
  'MAIN:3 listeners[1].bind | is the address of listeners[0] too',
])
test(refuses, 'the address of metrics', '127.0.0.1:8883"', '127.0.0.1:9883"\n    as: 8883', [
  'MAIN:2 listeners[0].bind | is the address of metrics.bind too',
])
test(refuses, 'a PROXY header from nobody', '8883"\n', '8883"\n    proxyProtocol: { trustedSources: [] }\n', [
  'MAIN:3 listeners[0].proxyProtocol.trustedSources | expected at least one network such as 10.0.0.0/8',
])
test(
  refuses,
  'a PROXY header from what is no network',
  '8883"\n',
  '8883"\n    proxyProtocol: { trustedSources: [ 10.0.0.0/33 ] }\n',
  ['MAIN:3 listeners[0].proxyProtocol.trustedSources[0] | expected a network such as 10.0.0.0/8'],
)
test(refuses, 'a PROXY header whose sources nobody named', '8883"\n', '8883"\n    proxyProtocol: { versions: [3] }\n', [
  'MAIN:3 listeners[0].proxyProtocol.trustedSources | is missing, expected a list of networks such as [ 10.0.0.0/8 ]',
  'MAIN:3 listeners[0].proxyProtocol.versions[0] | expected 1 or 2',
])
test(refuses, 'a duration without a unit', '8883"\n', '8883"\n    helloTimeout: 5\n', [
  `MAIN:3 listeners[0].helloTimeout | ${DURATION}`,
])
test(refuses, 'a duration of no time', '8883"\n', '8883"\n    helloTimeout: 0s\n', [
  'MAIN:3 listeners[0].helloTimeout | expected at least "1ms"',
])
test(refuses, 'a duration longer than a timer holds', '8883"\n', '8883"\n    helloTimeout: 600h\n', [
  'MAIN:3 listeners[0].helloTimeout | expected a duration of at most "576h"',
])

// domains
test(refuses, 'a setting of later work', '8883"\n', '8883"\nstore: { kind: memory }\n', [
  `MAIN:3 store | is not a setting, expected one of: ${TOP}`,
])
test(refuses, 'a setting of later work, within a domain', IN_DOMAIN, domain('reports: only'), [
  `MAIN:8 domains[0].reports | is not a setting, expected one of: ${DOMAIN}`,
])
test(refuses, 'a key spelled wrongly', 'serverNames', 'servernames', [
  'MAIN:4 domains[0].serverNames | is missing, expected a list of host names such as [ iot.example.com ]',
  `MAIN:4 domains[0].servernames | is not a setting, expected one of: ${DOMAIN}`,
])
test(refuses, 'a wildcard name', 'iot.example.com', '"*.example.com"', [`MAIN:4 domains[0].serverNames[0] | ${HOST}`])
test(refuses, 'a name with an underscore', 'iot.example.com', 'my_iot.example.com', [
  `MAIN:4 domains[0].serverNames[0] | ${HOST}`,
])
test(refuses, 'an address as a name [RFC 6066 §3]', 'iot.example.com', '10.0.0.1', [
  `MAIN:4 domains[0].serverNames[0] | ${HOST}`,
])
test(refuses, 'a name with a final dot', 'iot.example.com', 'iot.example.com.', [
  `MAIN:4 domains[0].serverNames[0] | ${HOST}`,
])
test(refuses, 'a name twice, whatever its case', '[ iot.example.com ]', '[ iot.example.com, IOT.example.com ]', [
  'MAIN:4 domains[0].serverNames[1] | is taken by domains[0].serverNames[0]',
])
test(refuses, 'no name', '[ iot.example.com ]', '[]', [
  'MAIN:4 domains[0].serverNames | expected at least one host name',
])
test(refuses, 'no certificate', '    certificates: [ { cert: server.pem, key: server.key } ]\n', '', [
  'MAIN:4 domains[0].certificates | is missing, expected a list of one or two { cert: …, key: … }',
])
test(refuses, 'a certificate without a key', ', key: server.key', '', [
  'MAIN:5 domains[0].certificates[0].key | is missing, expected a PEM file',
])
test(
  refuses,
  'three certificates',
  '[ { cert: server.pem, key: server.key } ]',
  `[ ${Array(3).fill('{ cert: server.pem, key: server.key }').join(', ')} ]`,
  ['MAIN:5 domains[0].certificates | expected one or two certificates (one RSA, one ECDSA)'],
)
test(refuses, 'a certificate file that is missing', 'cert: server.pem', 'cert: tls/gone.pem', [
  'MAIN:5 domains[0].certificates[0].cert | no such file: DIR/tls/gone.pem',
])
test(refuses, 'a folder for a file', 'key: server.key', 'key: registry', [
  'MAIN:5 domains[0].certificates[0].key | expected a file, this is a folder: DIR/registry',
])
test(refuses, 'an unknown TLS policy', IN_DOMAIN, domain('tlsPolicy: TLSv1.3'), [
  `MAIN:8 domains[0].tlsPolicy | expected one of ${NAMES}`,
])
test(refuses, 'an unknown status', IN_DOMAIN, domain('status: off'), [
  'MAIN:8 domains[0].status | expected one of enabled, disabled',
])
test(refuses, 'an authentication that is none', IN_DOMAIN, domain('authenticationType: LDAP'), [
  'MAIN:8 domains[0].authenticationType | expected one of DEFAULT, AWS_X509, CUSTOM_AUTH, CUSTOM_AUTH_X509, AWS_SIGV4, BACKEND',
])
test(refuses, 'a protocol that is none', IN_DOMAIN, domain('applicationProtocol: MQTT'), [
  'MAIN:8 domains[0].applicationProtocol | expected one of DEFAULT, SECURE_MQTT, MQTT_WSS, HTTPS',
])
for (const [type, expected] of [
  ['AWS_X509', 'SECURE_MQTT or HTTPS'],
  ['AWS_SIGV4', 'MQTT_WSS or HTTPS'],
] as const) {
  test(refuses, `${type} without a protocol [§1.2]`, IN_DOMAIN, domain(`authenticationType: ${type}`), [
    `MAIN:4 domains[0].applicationProtocol | expected ${expected}, what goes with authenticationType ${type}`,
  ])
}
test(
  refuses,
  'a signature over plain MQTT [§1.2]',
  IN_DOMAIN,
  domain('authenticationType: AWS_SIGV4\n    applicationProtocol: SECURE_MQTT'),
  ['MAIN:9 domains[0].applicationProtocol | expected MQTT_WSS or HTTPS, what goes with authenticationType AWS_SIGV4'],
)
test(refuses, 'DEFAULT with a protocol [§1.2]', IN_DOMAIN, domain('applicationProtocol: SECURE_MQTT'), [
  'MAIN:8 domains[0].applicationProtocol | expected DEFAULT, the only one that goes with authenticationType DEFAULT',
])
test(refuses, 'BACKEND without its protocol', '    registry: main\n', '    authenticationType: BACKEND\n', [
  'MAIN:4 domains[0].applicationProtocol | expected SECURE_MQTT, the only one that goes with authenticationType BACKEND',
])
test(
  refuses,
  'client trust where no certificate is asked for',
  IN_DOMAIN,
  domain(
    'authenticationType: BACKEND\n    applicationProtocol: SECURE_MQTT\n    clientTrust: { mode: ca, ca: [ ca.pem ] }',
  ),
  [
    'MAIN:6 domains[0].registry | has no effect with authenticationType BACKEND, which asks for no certificate',
    'MAIN:10 domains[0].clientTrust | has no effect with authenticationType BACKEND, which asks for no certificate',
  ],
)
test(
  refuses,
  'BACKEND with policies and more',
  IN_DOMAIN,
  domain(
    'authenticationType: BACKEND\n    applicationProtocol: SECURE_MQTT\n    clientTrust: { policies: [ devices ], cutAtExpiry: true }',
  ),
  [
    'MAIN:10 domains[0].clientTrust | only policies: all else has no effect with authenticationType BACKEND, which asks for no certificate',
  ],
)
test(
  refuses,
  'policies of a CA without the registry that has them',
  '    registry: main\n',
  '    clientTrust: { mode: ca, ca: [ ca.pem ], policies: [ devices ] }\n',
  ['MAIN:4 domains[0].registry | is missing, expected the registry with clientTrust.policies'],
)
test(
  refuses,
  'policies for strangers where there are none',
  IN_DOMAIN,
  domain('clientTrust: { policies: [ devices ] }'),
  [
    'MAIN:8 domains[0].clientTrust.policies | has no effect with clientTrust.mode registry: the registry knows all who may',
  ],
)
test(
  refuses,
  'two registries that write to one folder',
  'path: registry',
  'path: registry, state: state }\n  other: { path: registry, state: ./state',
  ['MAIN:14 registries.other.state | is the folder of registries.main too'],
)
test(refuses, 'a registry that would be written', 'path: registry', 'path: registry, state: ./registry', [
  'MAIN:13 registries.main.state | expected another folder than path, which is never written',
])
test(refuses, 'registry mode without a registry', '    registry: main\n', '', [
  'MAIN:4 domains[0].registry | is missing, expected a registry: clientTrust.mode is registry',
])
test(refuses, 'a registry that does not exist', 'registry: main', 'registry: other', [
  'MAIN:6 domains[0].registry | no such registry, expected one of: main',
])
test(refuses, 'a mode with CAs, without one', IN_DOMAIN, domain('clientTrust: { mode: registry-or-ca }'), [
  'MAIN:8 domains[0].clientTrust.ca | is missing, expected at least one PEM file: clientTrust.mode is registry-or-ca',
])
test(
  refuses,
  'CRLs without the CA that signed them',
  IN_DOMAIN,
  domain('clientTrust: { crl: { files: [ fleet.crl ] } }'),
  ['MAIN:8 domains[0].clientTrust.ca | is missing, expected the CAs that signed the files of clientTrust.crl'],
)
test(refuses, 'a CA that nothing uses', IN_DOMAIN, domain('clientTrust: { ca: [ ca.pem ] }'), [
  'MAIN:8 domains[0].clientTrust.ca | has no effect with clientTrust.mode registry and no clientTrust.crl',
])
test(refuses, 'an unknown mode', IN_DOMAIN, domain('clientTrust: { mode: any }'), [
  'MAIN:8 domains[0].clientTrust.mode | expected one of registry, ca, registry-or-ca, registry-and-ca',
])
test(
  refuses,
  'CRL files that are missing, and an unknown way with old ones',
  IN_DOMAIN,
  domain(
    'clientTrust:\n      mode: registry-and-ca\n      ca: [ ca.pem ]\n      crl:\n        files: [ gone.crl ]\n        onExpired: allow',
  ),
  [
    'MAIN:12 domains[0].clientTrust.crl.files[0] | no such file: DIR/gone.crl',
    'MAIN:13 domains[0].clientTrust.crl.onExpired | expected one of keep, deny',
  ],
)
test(refuses, 'a backend that does not exist', 'backend: main', 'backend: other', [
  'MAIN:7 domains[0].backend | no such backend, expected one of: main',
])
test(refuses, 'no domain', BASE.slice(BASE.indexOf('domains:'), BASE.indexOf('backends:')), '', [
  'MAIN:1 domains | is missing, expected a list of domains, each with serverNames, certificates and backend',
])

// backends and registries
test(refuses, 'an unknown kind', 'kind: tcp', 'kind: udp', [
  'MAIN:10 backends.main.kind | expected a backend with kind tcp, tls, ws, embedded or http',
])
test(refuses, 'a backend without a server', 'servers: [ { address: "broker:1883" } ]', 'balance: leastconn', [
  'MAIN:10 backends.main.servers | is missing, expected a list of servers such as [ { address: "broker:1883" } ]',
])
test(refuses, 'a broker without a port', 'broker:1883', 'broker', [
  'MAIN:11 backends.main.servers[0].address | expected a host and port such as "broker:1883"',
])
test(refuses, 'a balance of later work', IN_BACKEND, backend('balance: clientid'), [
  'MAIN:11 backends.main.balance | expected one of leastconn, roundrobin',
])
test(refuses, 'a setting of tls on tcp', IN_BACKEND, backend('ca: [ ca.pem ]'), [
  'MAIN:11 backends.main.ca | is not a setting, expected one of: kind, servers, balance, connectTimeout, identity, outageShield, publish',
])
test(refuses, 'a client certificate without its key', IN_BACKEND, '    kind: tls\n    cert: server.pem\n', [
  'MAIN:10 backends.main.key | is missing, expected a PEM file: cert is set',
])
const IN_WS = 'kind: tcp\n    servers: [ { address: "broker:1883" } ]'
const wsTo = (url: string, rest = '') =>
  `kind: ws\n    servers: [ { url: "${url}" } ]${rest === '' ? '' : `\n    ${rest}`}`
for (const url of [
  'http://broker/mqtt',
  'broker:8083',
  'ws://',
  'ws:///mqtt',
  'ws://user:secret@broker/mqtt',
  'ws://broker/mqtt#here',
  'ws://broker:0/mqtt',
  'ws://broker:65536/mqtt',
  'ws://broker/a b',
  'ws://bro ker/',
  'ws://broker\\\\evil/',
  'ws://[::1/mqtt',
  'WS://broker/mqtt',
]) {
  test(refuses, `the URL ${url}`, IN_WS, wsTo(url), [
    'MAIN:11 backends.main.servers[0].url | expected a URL such as "wss://broker:8084/mqtt", without user name and fragment',
  ])
}
test(refuses, 'TLS toward a URL without it', IN_WS, wsTo('ws://broker/mqtt', 'ca: [ ca.pem ]'), [
  'MAIN:12 backends.main.ca | has no effect, because no server has a URL with wss:',
])
test(
  refuses,
  'a header of the upgrade itself',
  IN_WS,
  wsTo('ws://broker', 'headers: { Sec-WebSocket-Key: x, Host: y }'),
  [
    'MAIN:12 backends.main.headers.Sec-WebSocket-Key | expected a header that is not part of the upgrade itself',
    'MAIN:12 backends.main.headers.Host | expected a header that is not part of the upgrade itself',
  ],
)
test(refuses, 'a header that is none', IN_WS, wsTo('ws://broker', 'headers: { "a b": x }'), [
  'MAIN:12 backends.main.headers.a b | expected the name of an HTTP header',
])
test(refuses, 'a header that holds another', IN_WS, wsTo('ws://broker', 'headers: { a: "x\\r\\nb: y" }'), [
  'MAIN:12 backends.main.headers.a | expected the value of an HTTP header, in ASCII',
])
test('the URL of a WebSocket broker is taken apart, and its headers may be secrets', (t) => {
  const server = (url: string) => {
    const backend = valid(t, BASE.replace(IN_WS, wsTo(url))).backends.main
    return backend?.kind === 'ws' ? backend.servers[0]!.url : null
  }
  const plain = { host: 'broker', port: 80, target: '/', secure: false }
  t.deepEqual(server('ws://broker'), plain)
  t.deepEqual(server('wss://broker?token=x'), { ...plain, port: 443, target: '/?token=x', secure: true })
  t.deepEqual(server('wss://[::1]:8084/mqtt'), { host: '::1', port: 8084, target: '/mqtt', secure: true })
  const headers = 'headers: { authorization: { file: token }, x-fleet: blue }'
  const backend = valid(t, BASE.replace(IN_WS, wsTo('ws://broker', headers)), { token: 'Bearer s\n' }).backends.main
  t.deepEqual(backend?.kind === 'ws' ? { ...backend.headers } : null, { authorization: 'Bearer s', 'x-fleet': 'blue' })
})
test(refuses, 'an unknown variable', IN_BACKEND, backend('identity: { username: "${thing}" }'), [
  `MAIN:11 backends.main.identity.username | ${TEMPLATE}`,
])
test(refuses, 'a keep alive of our own making', IN_BACKEND, backend('identity: { keepAlive: 60 }'), [
  'MAIN:11 backends.main.identity.keepAlive | expected device or 0',
])
test(refuses, 'a password that is a number', IN_BACKEND, backend('identity: { password: 12345678 }'), [
  'MAIN:11 backends.main.identity.password | expected a text (quoted if it looks like a number), { file: … } or { env: … }',
])
test(refuses, 'a password file that is missing', IN_BACKEND, backend('identity: { password: { file: gone } }'), [
  'MAIN:11 backends.main.identity.password.file | no such file: DIR/gone',
])
test(
  refuses,
  'a password in an environment variable that is not set',
  IN_BACKEND,
  backend('identity: { password: { env: GONE } }'),
  ['MAIN:11 backends.main.identity.password.env | no such environment variable: GONE'],
)
test(refuses, 'a PROXY header of version 1 to the broker', IN_BACKEND, backend('identity: { proxyProtocol: v1 }'), [
  'MAIN:11 backends.main.identity.proxyProtocol | expected v2',
])
test(refuses, 'a name that is none', 'registries:\n  main:', 'registries:\n  main: { path: registry }\n  "a b":', [
  'MAIN:14 registries.a b | expected a name of letters, digits, "-" and "_"',
])
test(refuses, 'a registry that is missing', 'path: registry', 'path: gone', [
  'MAIN:13 registries.main.path | no such folder: DIR/gone',
])
test(refuses, 'a registry that is a file', 'path: registry', 'path: ca.pem', [
  'MAIN:13 registries.main.path | expected a folder, this is a file: DIR/ca.pem',
])

// the rest
test(refuses, 'a size without a unit', '', 'limits: { connectSize: 65536 }\n', [`MAIN:14 limits.connectSize | ${SIZE}`])
test(refuses, 'a packet larger than MQTT can express', '', 'limits: { packetSize: 257MiB }\n', [
  'MAIN:14 limits.packetSize | expected a size with its unit (B, KiB or MiB) from 128B to 268435456B',
])
test(refuses, 'a profile that is none', '', 'limits: { profile: aws }\n', [
  'MAIN:14 limits.profile | expected one of open, aws-iot',
])
test(
  refuses,
  'a limit without its unit, and one out of its range',
  IN_DOMAIN,
  domain('limits: { payloadSize: 1024, keepAliveLeast: 0s }'),
  [
    'MAIN:8 domains[0].limits.payloadSize | expected a size with its unit (B, KiB or MiB) from 0B to 268435455B or none',
    'MAIN:8 domains[0].limits.keepAliveLeast | expected a duration of whole seconds with its unit (s, m or h) from 1s to 65535s or none',
  ],
)
test(refuses, 'a limit that cannot be taken away', '', 'limits: { maxQoS: none }\n', [
  'MAIN:14 limits.maxQoS | expected 0, 1 or 2',
])
test(refuses, 'a least keep alive above the most', '', 'limits: { keepAliveLeast: 2m, keepAliveMost: 60s }\n', [
  'MAIN:14 limits.keepAliveLeast | is above keepAliveMost',
])
test(refuses, 'a prefix that could be a topic filter', IN_DOMAIN, domain('clientId: { prefix: "a+#" }'), [
  'MAIN:8 domains[0].clientId.prefix | expected at most 64 letters, digits and ._-/:@=',
])
test(refuses, 'an account id that YAML takes for a number', '', 'aws: { accountId: 000000000000 }\n', [
  'MAIN:14 aws.accountId | expected an account id of 12 digits, quoted',
])
test(refuses, 'no connections at all', '', 'limits: { maxConnections: 0 }\n', [
  'MAIN:14 limits.maxConnections | expected a whole number from 1',
])
test(refuses, 'an administration over TCP', '', 'admin: { bind: "127.0.0.1:9884" }\n', [
  'MAIN:14 admin.bind | is not a setting, expected one of: socket',
])
test(refuses, 'half a worker', '', 'workers: 0.5\n', [
  'MAIN:14 workers | expected auto or a whole number from 1 to 1024',
])
test(refuses, 'an unknown log level and format', '', 'log:\n  level: trace\n  format: text\n', [
  'MAIN:15 log.level | expected one of debug, info, warn, error',
  'MAIN:16 log.format | expected one of auto, json, pretty',
])
test(refuses, 'a section without a value', '', 'drain:\n', ['MAIN:14 drain | expected a section of settings'])
test(refuses, 'a key named __proto__', '', '__proto__: { a: 1 }\n', [
  `MAIN:14 __proto__ | is not a setting, expected one of: ${TOP}`,
])

// YAML itself
test(refuses, 'a key twice', '', 'workers: 1\nworkers: 2\n', ['MAIN:15  | YAML: Map keys must be unique'])
test(refuses, 'a tab for a space', '', 'log:\n\tlevel: info\n', [
  'MAIN:15  | YAML: Tabs are not allowed as indentation',
])
test(refuses, 'an anchor that is missing', '', 'drain: *gone\n', [
  'MAIN:14  | YAML: no anchor of this name stands before it',
])

test('an empty file lacks all that is needed', (t) => {
  t.deepEqual(issuesOf(t, ''), [
    'MAIN:1 listeners | is missing, expected a list of listeners such as [ { bind: "[::]:8883" } ]',
    'MAIN:1 domains | is missing, expected a list of domains, each with serverNames, certificates and backend',
    'MAIN:1 backends | is missing, expected at least one backend such as main: { kind: tcp, servers: [ … ] }',
  ])
})

test('a file that is a list is refused', (t) => {
  t.deepEqual(issuesOf(t, '- a\n'), ['MAIN:1  | expected settings such as «listeners: …»'])
})

test('a file that does not exist is one issue', (t) => {
  const loaded = loadSettings('/nowhere/brokergate.yaml', {})
  t.deepEqual(loaded, {
    kind: 'invalid',
    files: ['/nowhere/brokergate.yaml'],
    issues: [{ file: '/nowhere/brokergate.yaml', line: 0, column: 0, path: '', message: 'no such file' }],
  })
})

test('anchors that multiply into millions are refused', (t) => {
  const rows = Array.from(
    { length: 9 },
    (_, at) => `a${at}: &a${at} [${Array(10).fill(at === 0 ? 'x' : `*a${at - 1}`)}]`,
  )
  t.deepEqual(issuesOf(t, `${rows.join('\n')}\n`), ['MAIN:1  | YAML: too many or too deeply nested values'])
})

test('an anchor within itself is refused', (t) => {
  t.deepEqual(issuesOf(t, 'a: &a [ *a ]\n'), ['MAIN:1  | YAML: too many or too deeply nested values'])
})

test('no issue repeats a secret', (t) => {
  const attempts = [
    backend('identity: { password: "hunter2${x}" }'),
    backend('identity: { password: [ hunter2 ] }'),
    backend('identity: { password: { file: gone, hunter2: hunter2 } }'),
    backend('identity: { password: "hunter2'),
    backend('identity: { password: "a" hunter2 }'),
    backend('identity: { password: *hunter2 }'),
  ]
  for (const attempt of attempts) {
    const issues = issuesOf(t, BASE.replace(IN_BACKEND, attempt))
    t.not(issues.length, 0, attempt)
    t.notRegex(issues.join('\n'), /hunter2/)
  }
})

test('everything wrong in all files comes at once, by file and line', (t) => {
  const issues = issuesOf(
    t,
    `include: more.yaml\n${BASE.replace('backend: main', 'backend: other').replace('8883', '1')}`,
    {
      'more.yaml': 'workers: none\nlimits: { connectTimeout: soon }\n',
    },
  )
  t.deepEqual(issues, [
    'MAIN:3 listeners[0].as | is missing, expected 8883, 8443 or 443: port 1 has no rules of its own',
    'MAIN:8 domains[0].backend | no such backend, expected one of: main',
    'DIR/more.yaml:1 workers | expected auto or a whole number from 1 to 1024',
    `DIR/more.yaml:2 limits.connectTimeout | ${DURATION}`,
  ])
})

test('an issue is printed as file:line:column: path: message', (t) => {
  const { dir, loaded } = load(t, BASE.replace('backend: main', 'backend: other'))
  t.deepEqual(loaded.kind === 'invalid' && loaded.issues.map(formatIssue), [
    `${dir}/brokergate.yaml:7:14: domains[0].backend: no such backend, expected one of: main`,
  ])
  t.is(
    formatIssue({ file: join(process.cwd(), 'a.yaml'), line: 0, column: 0, path: '', message: 'no such file' }),
    'a.yaml: no such file',
  )
})

// what is right

test('defaults are filled in, in milliseconds and bytes', (t) => {
  const settings = valid(t, BASE)
  t.deepEqual(settings.listeners, [
    { bind: { host: '127.0.0.1', port: 8883 }, as: 8883, proxyProtocol: null, helloTimeout: 5_000 },
  ])
  t.is(settings.domains[0]?.tlsPolicy, 'IoTSecurityPolicy_TLS13_1_2_2022_10')
  t.deepEqual(settings.domains[0]?.clientTrust, {
    mode: 'registry',
    ca: [],
    crl: null,
    policies: [],
    cutAtExpiry: false,
    certificateCallback: null,
  })
  t.is(settings.domains[0]?.handshakeTimeout, 10_000)
  t.deepEqual(settings.limits, {
    connectTimeout: 10_000,
    connectSize: 65_536,
    webSocketMessageSize: 16_777_216,
    maxConnections: null,
    halfCloseTimeout: 30_000,
    http: {
      headerTimeout: 10_000,
      bodyTimeout: 30_000,
      idleTimeout: 60_000,
      headerSize: 16_384,
      headers: 100,
      bodySize: 1_048_576,
    },
    profile: 'open',
    own: {},
  })
  t.deepEqual(settings.aws, { partition: 'aws', region: 'us-east-1', accountId: '000000000000' })
  t.deepEqual(settings.domains[0]?.clientId, { bind: 'policy', prefix: '' })
  t.deepEqual(settings.domains[0]?.limits, { profile: null, own: {} })
  t.deepEqual(settings.metrics.bind, { host: '127.0.0.1', port: 9883 })
  t.is(settings.workers, 'auto')
  t.is(settings.drain.grace, 30_000)
  t.false('include' in settings)
})

test('paths are absolute, and everything that is read is told', (t) => {
  const { dir, loaded } = load(t, BASE)
  if (loaded.kind === 'invalid') return t.fail()
  t.deepEqual(loaded.settings.domains[0]?.certificates, [
    { cert: join(dir, 'server.pem'), key: join(dir, 'server.key') },
  ])
  t.is(loaded.settings.registries.main?.path, join(dir, 'registry'))
  t.is(loaded.settings.admin.socket, join(dir, 'var/admin.sock'))
  t.deepEqual(
    loaded.files.toSorted(),
    ['brokergate.yaml', 'server.key', 'server.pem'].map((name) => join(dir, name)),
  )
})

test('settings are frozen, all the way in', (t) => {
  const settings = valid(t, BASE)
  t.true(Object.isFrozen(settings) && Object.isFrozen(settings.domains[0]?.certificates[0]))
})

test('server names are lower case', (t) => {
  t.deepEqual(valid(t, BASE.replace('iot.example.com', 'IOT.Example.com')).domains[0]?.serverNames, ['iot.example.com'])
})

test('a listener on port 0 may repeat, and says whose rules it has', (t) => {
  const two = '  - { bind: "[::1]:0", as: 443 }\n  - { bind: "[::1]:0", as: 443 }\n'
  const settings = valid(t, BASE.replace('  - bind: "127.0.0.1:8883"\n', two))
  t.deepEqual(
    settings.listeners.map(({ bind, as }) => [bind.host, bind.port, as]),
    [
      ['::1', 0, 443],
      ['::1', 0, 443],
    ],
  )
})

test('an anchor repeats a value', (t) => {
  const settings = valid(t, `${BASE.replace('path: registry', 'path: &r registry')}  other: { path: *r }\n`)
  t.is(settings.registries.other?.path, settings.registries.main?.path)
})

test('a secret comes from a file, without the newline at its end, or from the environment', (t) => {
  const password = (source: string, files: Files, env: NodeJS.ProcessEnv) => {
    const { main } = valid(
      t,
      BASE.replace(IN_BACKEND, backend(`identity: { password: ${source} }`)),
      files,
      env,
    ).backends
    return main?.kind === 'tcp' ? main.identity.password : null
  }
  t.is(password('{ file: secrets/p }', { 'secrets/p': 'a b\n\n' }, {}), 'a b\n')
  t.is(password('{ env: P }', {}, { P: '12' }), '12')
  t.is(password('plain', {}, {}), 'plain')
})

test('included files and folders are merged: lists joined, maps joined, each path from its own file', (t) => {
  const more =
    '  - { serverNames: [ b.example ], certificates: [ { cert: b.pem, key: b.key } ], registry: main, backend: b }\n'
  const { dir, loaded } = load(t, `include: [ parts, one/b.yaml ]\n${BASE}`, {
    'parts/20-log.yaml': 'log: { level: warn }\n',
    'parts/10-log.yml': 'log: { format: json }\nbackends: { b: { kind: embedded } }\n',
    'parts/notes.txt': 'not: read\n',
    'parts/.hidden.yaml': 'not: read\n',
    'one/b.yaml': `include: ../deep.yaml\ndomains:\n${more}`,
    'one/b.pem': '',
    'one/b.key': '',
    'deep.yaml': 'drain: { grace: 0s }\n',
  })
  if (loaded.kind === 'invalid') return t.fail(loaded.issues.map(formatIssue).join('\n'))
  t.deepEqual(
    loaded.settings.domains.map(({ serverNames }) => serverNames[0]),
    ['iot.example.com', 'b.example'],
  )
  t.is(loaded.settings.domains[1]?.certificates[0]?.cert, join(dir, 'one/b.pem'))
  t.deepEqual(loaded.settings.log, { level: 'warn', format: 'json' })
  t.is(loaded.settings.drain.grace, 0)
  for (const name of ['parts', 'parts/20-log.yaml', 'one/b.yaml', 'deep.yaml'])
    t.true(loaded.files.includes(join(dir, name)))
})

test('a single setting in two files is refused, and names the other place', (t) => {
  t.deepEqual(issuesOf(t, `include: b.yaml\nworkers: 2\n${BASE}`, { 'b.yaml': '\nworkers: 2\nlisteners: x\n' }), [
    'DIR/b.yaml:2 workers | is set already, in MAIN:2',
    'DIR/b.yaml:3 listeners | is set already, in MAIN:4',
  ])
})

test('an include that is missing, of the wrong kind or a circle is refused where it stands', (t) => {
  t.deepEqual(
    issuesOf(t, `include:\n  - gone.yaml\n  - 3\n  - b.yaml\n${BASE}`, { 'b.yaml': 'include: brokergate.yaml\n' }),
    [
      'DIR/b.yaml:1 include | is read already: MAIN',
      'MAIN:2 include[0] | no such file: DIR/gone.yaml',
      'MAIN:3 include[1] | expected a path or a list of paths',
    ],
  )
})

test('a fault of syntax in an included file names that file', (t) => {
  t.deepEqual(issuesOf(t, `include: b.yaml\n${BASE}`, { 'b.yaml': 'log:\n  level: "info\n' }), [
    'DIR/b.yaml:3  | YAML: Missing closing "quote',
  ])
})

// the environment

test('BROKERGATE_SECTION__KEY sets a single setting over the files', (t) => {
  const settings = valid(
    t,
    `${BASE}drain: { grace: 1s }\n`,
    {},
    {
      BROKERGATE_DRAIN__GRACE: '5s',
      BROKERGATE_METRICS__BIND: '[::]:9000',
      BROKERGATE_LIMITS__MAX_CONNECTIONS: '7',
      BROKERGATE_LIMITS__CONNECTTIMEOUT: '3s',
      BROKERGATE_BACKENDS__MAIN__BALANCE: 'roundrobin',
      BROKERGATE_BACKENDS__MAIN__IDENTITY__PASSWORD: '1234',
      BROKERGATE_LISTENERS__0__BIND: '127.0.0.1:8443',
      BROKERGATE_ADMIN__SOCKET: 'run/a.sock',
    },
  )
  t.is(settings.drain.grace, 5_000)
  t.deepEqual(settings.metrics.bind, { host: '::', port: 9000 })
  t.is(settings.limits.maxConnections, 7)
  t.is(settings.limits.connectTimeout, 3_000)
  t.is(settings.listeners[0]?.as, 8443)
  t.regex(settings.admin.socket, /brokergate-config-\w+\/run\/a\.sock$/)
  const { main } = settings.backends
  t.is(main?.kind === 'tcp' ? main.balance : null, 'roundrobin')
  t.is(main?.kind === 'tcp' ? main.identity.password : null, '1234', 'a password of digits stays a text')
})

test('names without two underscores are not settings, such as those Kubernetes injects for a Service', (t) => {
  t.is(
    valid(t, BASE, {}, { BROKERGATE_PORT: 'tcp://10.0.0.1:8883', BROKERGATE_SERVICE_HOST: '10.0.0.1' }).workers,
    'auto',
  )
})

test('a variable that names no single setting, or holds a wrong value, is refused by its name', (t) => {
  const issues = issuesOf(
    t,
    BASE,
    {},
    {
      BROKERGATE_DRAIN__GRAZE: '5s',
      BROKERGATE_BACKENDS__OTHER__BALANCE: 'leastconn',
      BROKERGATE_LISTENERS__7__BIND: '127.0.0.1:1',
      BROKERGATE_BACKENDS__MAIN: 'x',
      BROKERGATE_LOG__LEVEL: 'loud',
    },
  )
  t.deepEqual(issues, [
    'environment variable BROKERGATE_BACKENDS__MAIN:0  | names a section or a list, expected the name of a single setting',
    'environment variable BROKERGATE_BACKENDS__OTHER__BALANCE:0  | names no setting: «OTHER» is unknown, expected one of: main',
    'environment variable BROKERGATE_DRAIN__GRAZE:0  | names no setting: «GRAZE» is unknown, expected one of: grace, settle, pace, serverReference',
    'environment variable BROKERGATE_LISTENERS__7__BIND:0  | names no setting: «7» is unknown, expected one of: 0',
    'environment variable BROKERGATE_LOG__LEVEL:0 log.level | expected one of debug, info, warn, error',
  ])
})
