import type { Config } from './reloads.ts'
import { domain } from './reloads.ts'

/** A configuration that must be refused, and what of the answer shows that somebody can find the fault. */
export interface Broken {
  readonly what: string
  readonly parts: Partial<Config>
  /** Contents of more files. */
  readonly files?: Readonly<Record<string, string>>
  readonly says: RegExp
}

const listener = (text: string): Partial<Config> => ({ listeners: `  - ${text}` })
const inDomain = (line: string): Partial<Config> => ({ domains: domain(`    ${line}\n`) })
const changed = (from: string, to: string): Partial<Config> => ({ domains: domain().replace(from, to) })
const backend = (text: string): Partial<Config> => ({ backends: `  main: ${text}` })
const rest = (text: string): Partial<Config> => ({ rest: text })
const at = (path: string): RegExp => new RegExp(`brokergate\\.yaml:\\d+:\\d+: ${path.replace(/[[\].]/g, '\\$&')}: `)

/** Faults of syntax, of form, of combination and of what files hold; row 25. */
export const BROKEN: readonly Broken[] = [
  { what: 'YAML that ends in the middle', parts: backend('['), says: /brokergate\.yaml:\d+:\d+: YAML: / },
  { what: 'a key twice', parts: rest('workers: 1'), says: /brokergate\.yaml:\d+:\d+: YAML: / },
  { what: 'a section that is none', parts: rest('listener: []'), says: at('listener') },
  { what: 'no listener', parts: { listeners: '  []' }, says: at('listeners') },
  { what: 'a listener without an address', parts: listener('{ as: 8883 }'), says: at('listeners[0].bind') },
  { what: 'a host name to listen on', parts: listener('{ bind: "localhost:8883" }'), says: at('listeners[0].bind') },
  {
    what: 'a port past 65535',
    parts: listener('{ bind: "127.0.0.1:88830", as: 8883 }'),
    says: at('listeners[0].bind'),
  },
  { what: 'a port without rules', parts: listener('{ bind: "127.0.0.1:10443" }'), says: at('listeners[0].as') },
  { what: 'rules of no port', parts: listener('{ bind: "127.0.0.1:10443", as: 80 }'), says: at('listeners[0].as') },
  {
    what: 'a duration without its unit',
    parts: listener('{ bind: "127.0.0.1:8883", helloTimeout: 5 }'),
    says: at('listeners[0].helloTimeout'),
  },
  {
    what: 'a PROXY header from nobody',
    parts: listener('{ bind: "127.0.0.1:8883", proxyProtocol: { trustedSources: [] } }'),
    says: at('listeners[0].proxyProtocol.trustedSources'),
  },
  { what: 'no domain', parts: { domains: '  []' }, says: at('domains') },
  { what: 'a wildcard name', parts: changed('[ localhost ]', '[ "*.local" ]'), says: at('domains[0].serverNames[0]') },
  {
    what: 'an address as a name',
    parts: changed('[ localhost ]', '[ 10.0.0.1 ]'),
    says: at('domains[0].serverNames[0]'),
  },
  { what: 'a name twice', parts: { domains: domain() + domain() }, says: at('domains[1].serverNames[0]') },
  {
    what: 'a certificate that is not there',
    parts: changed('server.pem', 'gone.pem'),
    says: at('domains[0].certificates[0].cert'),
  },
  {
    what: 'a key that is not there',
    parts: changed('server.key', 'gone.key'),
    says: at('domains[0].certificates[0].key'),
  },
  {
    what: 'a CA that is not there',
    parts: changed('ca.pem ]', 'gone.pem ]'),
    says: at('domains[0].clientTrust.ca[0]'),
  },
  {
    what: 'a folder for a file',
    parts: changed('server.pem', 'registry'),
    says: at('domains[0].certificates[0].cert'),
  },
  { what: 'an unknown TLS policy', parts: inDomain('tlsPolicy: TLSv1.3'), says: at('domains[0].tlsPolicy') },
  { what: 'an unknown status', parts: inDomain('status: off'), says: at('domains[0].status') },
  {
    what: 'an unknown authentication',
    parts: inDomain('authenticationType: LDAP'),
    says: at('domains[0].authenticationType'),
  },
  {
    what: 'a pair that is none',
    parts: inDomain('authenticationType: AWS_SIGV4\n    applicationProtocol: SECURE_MQTT'),
    says: at('domains[0].applicationProtocol'),
  },
  { what: 'no such registry', parts: changed('registry: main', 'registry: other'), says: at('domains[0].registry') },
  { what: 'no such backend', parts: changed('backend: main', 'backend: other'), says: at('domains[0].backend') },
  {
    what: 'an unknown mode of trust',
    parts: changed('mode: ca', 'mode: any'),
    says: at('domains[0].clientTrust.mode'),
  },
  {
    what: 'a policy that no registry has',
    parts: changed('[ devices ]', '[ gone ]'),
    says: /domains\[0\]\.clientTrust\.policies: .*no policy gone/,
  },
  { what: 'a mode with CAs and none', parts: changed('ca: [ ca.pem ], ', ''), says: at('domains[0].clientTrust.ca') },
  { what: 'a setting that is none', parts: inDomain('reports: only'), says: at('domains[0].reports') },
  { what: 'an unknown kind of backend', parts: backend('{ kind: amqp }'), says: at('backends.main.kind') },
  {
    what: 'a backend without servers',
    parts: backend('{ kind: tcp, servers: [] }'),
    says: at('backends.main.servers'),
  },
  {
    what: 'a server without its port',
    parts: backend('{ kind: tcp, servers: [ { address: broker } ] }'),
    says: at('backends.main.servers[0].address'),
  },
  {
    what: 'a registry that is not there',
    parts: { registries: '  main: { path: gone }' },
    says: at('registries.main.path'),
  },
  { what: 'a size without its unit', parts: rest('limits: { connectSize: 100 }'), says: at('limits.connectSize') },
  {
    what: 'a limit past its range',
    parts: rest('limits: { connectTimeout: 600h }'),
    says: at('limits.connectTimeout'),
  },
  {
    what: 'an event sink that is none',
    parts: rest('events: [ { kind: mail } ]'),
    says: /brokergate\.yaml:\d+:\d+: events\[0\]/,
  },
  {
    what: 'a module that is not there',
    parts: rest('events: [ { kind: module, path: gone.mjs } ]'),
    says: at('events[0].path'),
  },
  {
    what: 'a module that makes nothing',
    parts: rest('events: [ { kind: module, path: nothing.mjs } ]'),
    files: { 'nothing.mjs': 'export default () => ({})\n' },
    says: /events\[0\]: .*nothing\.mjs made nothing/,
  },
  { what: 'an include that is not there', parts: rest('include: gone/'), says: at('include') },
  {
    what: 'an embedded broker that was not started',
    parts: backend('{ kind: embedded }'),
    says: at('backends.main.kind'),
  },
  {
    what: 'what only a restart can change',
    parts: rest('ticketKeys: { rotation: 2h }'),
    says: at('ticketKeys.rotation'),
  },
  {
    what: 'a certificate that is none',
    parts: changed('server.pem', 'text.pem'),
    files: { 'text.pem': 'no certificate at all\n' },
    says: /domains\[0\] \(localhost\): .*text\.pem holds no PEM certificate/,
  },
  {
    what: 'a key that is none',
    parts: changed('server.key', 'text.pem'),
    files: { 'text.pem': 'no key at all\n' },
    says: /domains\[0\] \(localhost\): .*text\.pem cannot be read as a private key/,
  },
  {
    what: 'a CA file without a CA',
    parts: changed('ca.pem ]', 'text.pem ]'),
    files: { 'text.pem': 'no CA at all\n' },
    says: /domains\[0\] \(localhost\): clientTrust\.mode ca needs at least one certificate/,
  },
  {
    what: 'a registry with a fault of syntax',
    parts: { registries: '  main: { path: broken }' },
    files: { 'broken/policies.yaml': 'policies: [ nonsense' },
    says: /broken\/policies\.yaml:\d+/,
  },
  {
    what: 'a registry with an unknown section',
    parts: { registries: '  main: { path: broken }' },
    files: { 'broken/policies.yaml': 'devices: {}\n' },
    says: /broken\/policies\.yaml:\d+.*devices/,
  },
  {
    what: 'a revocation list that is none',
    parts: changed('policies: [ devices ]', 'policies: [ devices ], crl: { files: [ text.crl ] }'),
    files: { 'text.crl': 'no list at all\n' },
    says: /domains\[0\]\.clientTrust\.crl\.files: .*text\.crl/,
  },
  {
    what: 'an authorizer that nobody has',
    parts: inDomain('defaultAuthorizer: gone'),
    says: /domains\[0\]\.defaultAuthorizer: .*no authorizer gone/,
  },
]
