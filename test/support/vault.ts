import { generateKeyPairSync, sign } from 'node:crypto'
import { once } from 'node:events'
import { createServer as createHttp, type ServerResponse } from 'node:http'
import { createServer as createHttps } from 'node:https'
import type { AddressInfo } from 'node:net'
import { SignJWT } from 'jose'
import { passwordLine } from '../../src/registry/password-file.ts'
import { startMosquitto } from './e2e.ts'
import { ca, device, powerless, serverCertificate } from './gateway.ts'
import { issueDevice, issueServer } from './pki.ts'
import { folderFor, freePort, type RunningProxy, startProxy, type Teardowns, write } from './proxy.ts'
import { PlantedSecrets } from './secrets.ts'

// brokergate with a secret in every place of its configuration that can hold one, before a Mosquitto, an authorizer, a
// certificate callback and an HTTP backend that all have secrets of their own.

export const REGION = 'us-east-1'
const ALLOW = { Version: '2012-10-17', Statement: [{ Effect: 'Allow', Action: 'iot:*', Resource: '*' }] }
const CONNECT_ONLY = { Version: '2012-10-17', Statement: [{ Effect: 'Allow', Action: 'iot:Connect', Resource: '*' }] }

export type AuthorizerAnswer = (response: ServerResponse, path: string) => void

export interface Vault {
  readonly secrets: PlantedSecrets
  readonly dir: string
  readonly file: string
  readonly env: Readonly<Record<string, string>>
  readonly proxy: RunningProxy
  readonly ports: {
    readonly mqtt: number
    readonly https: number
    readonly web: number
    readonly proxied: number
    readonly metrics: number
    readonly broker: number
  }
  readonly keys: {
    readonly permanent: { readonly id: string; readonly secret: string }
    readonly temporary: { readonly id: string; readonly secret: string; readonly token: string }
  }
  readonly password: string
  /** What the authorizer answers from now on; it starts with yes. */
  answer: AuthorizerAnswer
  /** A signed token of the authorizer `signed`. */
  signed(token: string): string
  jwt(claims: Readonly<Record<string, unknown>>): Promise<string>
}

const json = (value: unknown): string => JSON.stringify(value)

/** The yes of an authorizer, with a policy of its own that names what nobody else is told. */
export const yesWith = (topic: string) => ({
  isAuthenticated: true,
  principalId: 'custom1',
  disconnectAfterInSeconds: 86_400,
  refreshAfterInSeconds: 300,
  policyDocuments: [
    ALLOW,
    {
      Version: '2012-10-17',
      Statement: [
        { Effect: 'Deny', Action: 'iot:Publish', Resource: `arn:aws:iot:us-east-1:000000000000:topic/${topic}` },
      ],
    },
  ],
})

export async function openVault(t: Teardowns): Promise<Vault> {
  const secrets = new PlantedSecrets()
  const dir = folderFor(t)
  const ports = {
    mqtt: await freePort(),
    https: await freePort(),
    web: await freePort(),
    proxied: await freePort(),
    metrics: await freePort(),
    broker: await freePort(),
  }
  const vault = { answer: (response) => void response.end(json(yesWith('hidden'))) } as { answer: AuthorizerAnswer }
  const hook = createHttps(
    (({ keyPem, chainPem }) => ({ key: keyPem, cert: chainPem }))(
      issueServer(ca, { serverNames: ['localhost'], ips: ['127.0.0.1'] }),
    ),
    (request, response) => {
      request.resume()
      request.on('end', () => vault.answer(response, request.url ?? ''))
      request.on('error', () => {})
    },
  )
  hook.on('tlsClientError', () => {})
  const hookPort = await listen(t, hook)
  const shadowSecret = secrets.plant('body of the HTTP backend')
  const cookie = secrets.plant('cookie set by the HTTP backend')
  const shadows = createHttp((request, response) => {
    request.resume()
    request.on('end', () => {
      if (request.url?.startsWith('/broken') === true) return void request.socket.end(`HTTP/9 ${shadowSecret}\r\n\r\n`)
      response.setHeader('set-cookie', `id=${cookie}`)
      response.end(shadowSecret)
    })
  })
  const echo = secrets.plant('answer of the WebSocket broker')
  shadows.on('upgrade', (_, socket) =>
    socket.end(`HTTP/1.1 401 ${echo}\r\nx-why: ${echo}\r\ncontent-length: 0\r\n\r\n`),
  )
  const shadowPort = await listen(t, shadows)

  // Ours, from files and from the environment.
  const keep = (name: string, pem: string): string => {
    secrets.keepKey(name, pem)
    return pem
  }
  const backendClient = issueDevice(ca, { commonName: 'gate', keyType: 'rsa' })
  write(dir, 'ca.pem', ca.certPem)
  write(dir, 'server.pem', serverCertificate.chainPem)
  write(dir, 'server.key', keep('private key of the server', serverCertificate.keyPem))
  write(dir, 'client.pem', backendClient.chainPem)
  write(dir, 'client.key', keep('private key toward the broker', backendClient.keyPem))
  write(dir, 'secrets/publish', `${secrets.plant('password for publishes, from a file')}\n`)
  write(dir, 'secrets/socket', `Bearer ${secrets.plant('header of the WebSocket backend, from a file')}\n`)
  write(dir, 'registry/secrets/access', secrets.plant('secret access key, from a file'))
  write(dir, 'registry/secrets/hook', secrets.plant('header of the webhook, from a file'))
  const env = {
    VAULT_BROKER: secrets.plant('password of the broker, from the environment'),
    VAULT_CALLBACK: secrets.plant('header of the certificate callback, from the environment'),
    VAULT_SESSION: secrets.plant('session token, from the environment'),
    VAULT_TEMPORARY: secrets.plant('temporary secret access key, from the environment'),
    BROKERGATE_BACKENDS__SECURE__IDENTITY__PASSWORD: secrets.plant('password that overrides a setting'),
  }
  const keys = {
    permanent: { id: 'AKIDVAULT', secret: secrets.plant('secret access key, written out') },
    temporary: { id: 'ASIAVAULT', secret: env.VAULT_TEMPORARY, token: env.VAULT_SESSION },
  }
  const password = secrets.plant('password of a user')
  const line = await passwordLine('alice', password)
  if (line.kind !== 'line') throw new Error(line.message)
  secrets.keep('hash of a password', line.text.split('$').at(-1)!)
  write(dir, 'registry/users.txt', `${line.text}\n`)

  const tokenKeys = generateKeyPairSync('rsa', { modulusLength: 2_048 })
  const jwtKeys = generateKeyPairSync('ec', { namedCurve: 'prime256v1' })
  write(dir, 'registry/token.pem', tokenKeys.publicKey.export({ type: 'spki', format: 'pem' }) as string)
  write(dir, 'registry/jwt.pem', jwtKeys.publicKey.export({ type: 'spki', format: 'pem' }) as string)
  write(dir, 'registry/ca.pem', ca.certPem)
  for (const [name, issued] of Object.entries({ device, powerless })) write(dir, `registry/${name}.pem`, issued.certPem)
  write(
    dir,
    'registry/registry.yaml',
    `certificates:
  - { file: device.pem, status: ACTIVE, policies: [ everything ] }
  - { file: powerless.pem, status: ACTIVE, policies: [ connect ] }
policies:
  everything: ${json(ALLOW)}
  connect: ${json(CONNECT_ONLY)}
accessKeys:
  - { id: ${keys.permanent.id}, secret: ${keys.permanent.secret}, policies: [ everything ] }
  - { id: AKIDVAULTFILE, secret: { file: secrets/access }, policies: [ everything ] }
  - { id: ${keys.temporary.id}, secret: { env: VAULT_TEMPORARY }, sessionToken: { env: VAULT_SESSION }, policies: [ everything ] }
authorizers:
  signed: { kind: webhook, url: "https://localhost:${hookPort}/signed", ca: ca.pem, tokenKeyName: MyToken, signing: { keys: [ token.pem ] }, headers: { authorization: { file: secrets/hook }, x-own: ${secrets.plant('header of the webhook, written out')} } }
  open: { kind: webhook, url: "https://localhost:${hookPort}/open?code=${secrets.plant("query of the webhook's URL")}", ca: ca.pem, tokenKeyName: MyToken }
  fragile: { kind: webhook, url: "https://localhost:${hookPort}/fragile", ca: ca.pem, tokenKeyName: MyToken }
  tokens: { kind: jwt, keys: [ jwt.pem ], algorithms: [ ES256 ], issuer: us, audience: null, tokenFrom: password, policies: [ everything ] }
  people: { kind: password, file: users.txt, policies: [ everything ] }
`,
  )
  write(
    dir,
    'sink.mjs',
    'export default (options) => ({ send() { throw new Error(JSON.stringify(options)) }, close() {} })\n',
  )
  const certificates = 'certificates: [ { cert: server.pem, key: server.key } ], registry: main'
  const file = write(
    dir,
    'brokergate.yaml',
    `listeners:
  - { bind: "127.0.0.1:${ports.mqtt}", as: 8883 }
  - { bind: "127.0.0.1:${ports.https}", as: 8443 }
  - { bind: "127.0.0.1:${ports.web}", as: 443 }
  - { bind: "127.0.0.1:${ports.proxied}", as: 8883, proxyProtocol: { trustedSources: [ 127.0.0.1/32 ] } }
domains:
  - serverNames: [ localhost ]
    certificates: [ { cert: server.pem, key: server.key } ]
    registry: main
    clientTrust: { mode: registry-or-ca, ca: [ ca.pem ] }
    authorizers: [ signed, open, fragile, tokens, people ]
    allowAuthorizerOverride: true
    backend: main
    routes:
      - { path: "/broken/*", methods: [ GET, POST ], backend: shadows, authorize: none }
      - { path: "/shadows/*", methods: [ GET, POST ], backend: shadows, authorize: none }
      - { path: "/away/*", methods: [ GET, POST ], backend: away, authorize: none }
  - { serverNames: [ custom.test ], ${certificates}, backend: main, authenticationType: CUSTOM_AUTH, applicationProtocol: SECURE_MQTT, authorizers: [ people ], defaultAuthorizer: people }
  - { serverNames: [ both.test ], ${certificates}, backend: main, authenticationType: AWS_X509, applicationProtocol: SECURE_MQTT, clientTrust: { certificateCallback: { url: "https://localhost:${hookPort}/callback", ca: [ ca.pem ], headers: { authorization: { env: VAULT_CALLBACK } } } } }
  - { serverNames: [ x509.test ], ${certificates}, backend: own, authenticationType: BACKEND, applicationProtocol: SECURE_MQTT, clientTrust: { policies: [ everything ] } }
  - { serverNames: [ jobs.test ], ${certificates}, backend: secure }
  - { serverNames: [ https.test ], ${certificates}, backend: socket }
backends:
  main: { kind: tcp, servers: [ { address: "127.0.0.1:${ports.broker}" } ], identity: { username: "\${principal.id}", password: { env: VAULT_BROKER } }, publish: { username: gate, password: { file: secrets/publish } } }
  own: { kind: tcp, servers: [ { address: "127.0.0.1:${ports.broker}" } ] }
  secure: { kind: tls, servers: [ { address: "127.0.0.1:${hookPort}" } ], ca: [ ca.pem ], serverName: elsewhere.test, cert: client.pem, key: client.key, identity: { username: gate } }
  socket: { kind: ws, servers: [ { url: "ws://127.0.0.1:${shadowPort}/mqtt?key=${secrets.plant("query of the broker's URL")}" } ], headers: { authorization: { file: secrets/socket } } }
  shadows: { kind: http, url: "http://127.0.0.1:${shadowPort}" }
  away: { kind: http, url: "https://127.0.0.1:${shadowPort}", ca: [ ca.pem ], cert: client.pem, key: client.key }
registries: { main: { path: registry, state: state } }
events:
  - { kind: log }
  - { kind: broker, backend: main }
  - { kind: module, path: sink.mjs, options: { apiKey: ${secrets.plant('options of a module')} } }
metrics: { bind: "127.0.0.1:${ports.metrics}" }
admin: { socket: admin.sock }
workers: 2
drain: { grace: 2s }
log: { format: json, level: debug }
`,
  )
  await startMosquitto(t, `${dir}/broker`, `listener ${ports.broker} 127.0.0.1\nallow_anonymous true`)
  const prefix = ['env', ...Object.entries(env).map(([name, value]) => `${name}=${value}`)]
  const proxy = await startProxy(t, file, ports.metrics, { prefix })
  return Object.assign(vault, {
    secrets,
    dir,
    file,
    env,
    proxy,
    ports,
    keys,
    password,
    signed: (token: string) => sign('RSA-SHA256', Buffer.from(token), tokenKeys.privateKey).toString('base64'),
    jwt: (claims: Readonly<Record<string, unknown>>) =>
      new SignJWT({ iss: 'us', sub: 'alice', exp: Math.floor(Date.now() / 1_000) + 600, ...claims })
        .setProtectedHeader({ alg: 'ES256' })
        .sign(jwtKeys.privateKey),
  })
}

async function listen(t: Teardowns, server: ReturnType<typeof createHttp> | ReturnType<typeof createHttps>) {
  server.listen({ host: '127.0.0.1', port: 0 })
  await once(server, 'listening')
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  return (server.address() as AddressInfo).port
}
