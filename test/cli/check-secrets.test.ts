// A configuration that is wrong is shown to many: in a terminal, in a CI log, in a ticket. Whatever is wrong with it, what is
// said about it never repeats the secrets in it.
import { generateKeyPairSync } from 'node:crypto'
import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { assemble } from '../../src/assemble.ts'
import { check } from '../../src/cli/check.ts'
import { NO_METRICS } from '../../src/control/metrics.ts'
import { createCa, issueDevice, issueServer } from '../support/pki.ts'
import { folderFor, write } from '../support/proxy.ts'
import { leakText, PlantedSecrets } from '../support/secrets.ts'

const ca = createCa({ commonName: 'check' })
const server = issueServer(ca, { serverNames: ['iot.example.com'] })
const client = issueDevice(ca, { commonName: 'gate' })
const secrets = new PlantedSecrets()
const S = secrets.plant('the secret')
for (const [name, pem] of Object.entries({ server: server.keyPem, client: client.keyPem })) secrets.keepKey(name, pem)

const encrypted = (() => {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'prime256v1' })
  secrets.keepKey('encrypted', privateKey.export({ type: 'pkcs8', format: 'pem' }) as string)
  return privateKey.export({ type: 'pkcs8', format: 'pem', cipher: 'aes-256-cbc', passphrase: S }) as string
})()

const CONFIG = `listeners: [ { bind: "[::]:8883" } ]
domains:
  - serverNames: [ iot.example.com ]
    certificates:
      - { cert: server.pem, key: server.key }
    clientTrust:
      mode: registry-or-ca
      ca: [ ca.pem ]
      certificateCallback: { url: "https://auth.internal/", headers: { authorization: "${S}" } }
    registry: main
    authorizers: [ hook, people ]
    defaultAuthorizer: hook
    backend: main
backends:
  main:
    kind: tls
    servers: [ { address: "broker.internal:8883" } ]
    cert: client.pem
    key: client.key
    identity: { username: gate, password: "${S}" }
  socket: { kind: ws, servers: [ { url: "wss://broker.internal/mqtt?key=${S}" } ], headers: { authorization: "${S}" } }
  shadows: { kind: http, url: "https://shadows.internal" }
registries: { main: { path: registry, state: state } }
events: [ { kind: module, path: sink.mjs, options: { apiKey: "${S}" } } ]
`
const REGISTRY = `accessKeys:
  - { id: AKIDEXAMPLE, secret: "${S}", sessionToken: { env: SESSION } }
authorizers:
  hook: { kind: webhook, url: "https://auth.internal/", tokenKeyName: token, signing: { keys: [ token.pem ] }, headers: { authorization: "${S}" } }
  people: { kind: password, file: users.txt }
`
const FILES = {
  'brokergate.yaml': CONFIG,
  'registry/registry.yaml': REGISTRY,
  'registry/token.pem': generateKeyPairSync('rsa', { modulusLength: 2_048 }).publicKey.export({
    type: 'spki',
    format: 'pem',
  }) as string,
  'registry/users.txt':
    'alice:$7$1000$AAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==\n',
  'server.pem': server.chainPem,
  'server.key': server.keyPem,
  'client.pem': client.chainPem,
  'client.key': client.keyPem,
  'ca.pem': ca.certPem,
  'sink.mjs': 'export default () => ({ send() {}, close() {} })\n',
} as const

interface Broken {
  /** Replaced in a file, which is the configuration unless told. */
  readonly in?: keyof typeof FILES
  readonly from?: string
  readonly to: string
  readonly env?: Readonly<Record<string, string>>
}

const PASSWORD = `password: "${S}"`
const KEY = 'key: server.key'
const SECRET = `secret: "${S}"`
const HEADER = `authorization: "${S}"`
const indented = (pem: string, depth: number) => pem.trim().replaceAll('\n', `\n${' '.repeat(depth)}`)
const registry = (from: string, to: string): Broken => ({ in: 'registry/registry.yaml', from, to })
const environment = (name: string, value: string): Broken => ({ to: '', env: { [name]: value } })

const password = Object.fromEntries(
  Object.entries({
    'a list': `[ ${S} ]`,
    'a section': `{ ${S}: ${S} }`,
    'a file and a variable': `{ file: a, env: b, ${S}: c }`,
    'cut at a comma': `ab,${S}`,
    'with a colon': `${S}: ${S}`,
    'with an open quote': `"${S}`,
    'with an open single quote': `'${S}`,
    'with a quote behind': `${S}"${S}", ${S}`,
    'with an escape that there is not': `"${S}\\q"`,
    'as an alias': `*${S}`,
    'as an anchor': `&${S}`,
    'as a tag': `!${S} x`,
    'as a tag of a scheme': `!!${S} x`,
    'with a percent sign before': `%${S}`,
    'with an at sign before': `@${S}`,
    'with a backtick before': `\`${S}\``,
    'in a block that is none': `|${S}`,
    'in a folded block that is none': `>${S}`,
    'in brackets that stay open': `[ ${S}`,
    'in a variable of a template': `"\${${S}}"`,
    'from a variable of a name that none has': `{ env: "${S}-1" }`,
    'with a tab before': `\t"${S}`,
  }).map(([name, text]) => [`a password ${name}`, { from: PASSWORD, to: `password: ${text}` }]),
)

const BROKEN: Readonly<Record<string, Broken>> = {
  ...password,
  'the key itself in place of its path': { from: KEY, to: `key: "${server.keyPem.replaceAll('\n', '\\n')}"` },
  'the key itself in a block': {
    from: `- { cert: server.pem, ${KEY} }`,
    to: `- cert: server.pem\n        key: |\n          ${indented(server.keyPem, 10)}`,
  },
  'the key itself, unquoted': { from: 'key: client.key', to: `key:\n      ${indented(client.keyPem, 6)}` },
  'a key that is a password': { in: 'server.key', to: S },
  'a key that is cut': { in: 'server.key', to: server.keyPem.slice(0, -60) },
  'a key with a passphrase': { in: 'server.key', to: encrypted },
  'a key of another certificate': { in: 'server.key', to: client.keyPem },
  'a key toward the broker with a passphrase': { in: 'client.key', to: encrypted },
  'a key toward the broker of another certificate': { in: 'client.key', to: server.keyPem },
  'a key toward the broker that is none': {
    in: 'client.key',
    to: `-----BEGIN PRIVATE KEY-----\n${S}\n-----END PRIVATE KEY-----\n`,
  },
  'a certificate that is a key': { in: 'server.pem', to: server.keyPem },
  'a CA that is a key': { in: 'ca.pem', to: server.keyPem },
  'a URL of a backend with a password': { from: 'https://shadows.internal', to: `https://user:${S}@shadows.internal` },
  'a URL of a broker with a password': { from: 'wss://broker', to: `wss://user:${S}@broker` },
  'a URL of a callback with a password': { from: 'https://auth.internal/', to: `https://user:${S}@auth.internal/` },
  'a header that is a list': { from: HEADER, to: `authorization: [ ${S} ]` },
  'a header of two lines': { from: HEADER, to: `authorization: "${S}\\n${S}"` },
  'a header cut at a comma': { from: HEADER, to: `authorization: Bearer,${S}` },
  'a module that is none': { in: 'sink.mjs', to: 'export const nothing = 1\n' },
  'a module that cannot be parsed': { in: 'sink.mjs', to: `const key = '${S}' '\n` },
  'an include that is no settings': { in: 'brokergate.yaml', to: S },
  'an access key that is a list': registry(SECRET, `secret: [ ${S} ]`),
  'an access key cut at a comma': registry(SECRET, `secret: ab,${S}`),
  'an access key in an open quote': registry(SECRET, `secret: "${S}`),
  'an access key as an alias': registry(SECRET, `secret: *${S}`),
  'an access key as a tag': registry(SECRET, `secret: !${S} x`),
  'an access key of a section': registry(SECRET, `secret: { ${S}: ${S} }`),
  'a session token from a variable of a name that none has': registry('{ env: SESSION }', `{ env: "${S}-1" }`),
  'a session token that stands in no variable': { to: '', env: { SESSION: '' } },
  'a header of an authorizer of two lines': registry(HEADER, `authorization: "${S}\\n${S}"`),
  'a header of an authorizer cut at a comma': registry(HEADER, `authorization: ab,${S}`),
  'a header of an authorizer from a variable of a name that none has': registry(
    HEADER,
    `authorization: { env: "${S}-1" }`,
  ),
  'a URL of an authorizer with a password': registry('https://auth.internal/', `https://user:${S}@auth.internal/`),
  'a key of tokens in place of its path': registry(
    'keys: [ token.pem ]',
    `keys: [ "${server.keyPem.replaceAll('\n', '\\n')}" ]`,
  ),
  'a key of tokens that is private': { in: 'registry/token.pem', to: server.keyPem },
  'a key of tokens that is none': { in: 'registry/token.pem', to: S },
  'a file of passwords in plain text': { in: 'registry/users.txt', to: `alice:${S}\n${S}\nbob:$7$1$${S}$${S}\n` },
  'a state that is damaged': { in: 'registry/registry.yaml', to: REGISTRY, env: { DAMAGED: '1' } },
  'a variable that names no setting': environment('BROKERGATE_BACKENDS__MAIN__IDENTITY__PASSWD', S),
  'a variable that names a section': environment('BROKERGATE_BACKENDS__MAIN__IDENTITY', S),
  'a variable with a value that does not fit': environment('BROKERGATE_LOG__LEVEL', S),
  'a variable with a duration that is none': environment('BROKERGATE_DRAIN__GRACE', S),
  'a variable with a key in place of its path': environment(
    'BROKERGATE_DOMAINS__0__CERTIFICATES__0__KEY',
    server.keyPem,
  ),
}

async function said(t: Parameters<typeof folderFor>[0], broken: Broken | null) {
  const dir = folderFor(t)
  for (const [name, text] of Object.entries(FILES)) write(dir, name, text)
  const name = broken?.in ?? 'brokergate.yaml'
  if (broken !== null && broken.to !== '') {
    const { from } = broken
    if (from !== undefined && !FILES[name].includes(from)) throw new Error(`${from} does not stand in ${name}`)
    write(dir, name, from === undefined ? broken.to : FILES[name].replace(from, broken.to))
  }
  if (broken?.env?.DAMAGED !== undefined) write(dir, 'state/overlay.jsonl', `{"kind":"${S}"}\n{"${S}":\n`)
  // What registries have from the environment is the process's own.
  process.env.SESSION = broken?.env?.SESSION ?? S
  const lines: string[] = []
  const code = await check({
    file: join(dir, 'brokergate.yaml'),
    env: { ...broken?.env },
    inspections: [
      async (settings) => {
        const assembled = await assemble(settings, { number: 0, metrics: NO_METRICS, embeddedPath: '' })
        if (assembled.kind === 'refused') return assembled.issues
        lines.push(...assembled.generation.warnings)
        await assembled.generation.close()
        return []
      },
    ],
    print: (line) => lines.push(line),
  })
  return { code, text: lines.join('\n') }
}

test.serial('the configuration without a fault passes, and its secrets stay in it', async (t) => {
  const { code, text } = await said(t, null)
  t.is(code, 0, text)
  t.is(leakText(secrets.scan(text)), '')
})

for (const [name, broken] of Object.entries(BROKEN)) {
  test.serial(`${name} is refused, and nothing secret is repeated`, async (t) => {
    const { code, text } = await said(t, broken)
    t.is(code, 1, text)
    t.is(leakText(secrets.scan(text)), '', text)
    t.regex(text, /issue/)
  })
}

test.serial('a file that is gone is named, since its name is none', async (t) => {
  const dir = folderFor(t)
  for (const [name, text] of Object.entries(FILES)) write(dir, name, text)
  rmSync(join(dir, 'server.key'))
  writeFileSync(join(dir, 'brokergate.yaml'), CONFIG)
  const lines: string[] = []
  await check({ file: join(dir, 'brokergate.yaml'), env: {}, inspections: [], print: (line) => lines.push(line) })
  t.regex(lines.join('\n'), /no such file: .*server\.key/)
})
