import { request } from 'node:https'
import test, { type ExecutionContext } from 'ava'
import mqtt, { type IClientOptions } from 'mqtt'
import { ca as authorizerCa, FAULTS, type Peer, startPeer, YES } from '../auth/authorizer-peer.ts'
import { ca, server } from '../support/e2e.ts'
import { folderFor, freePort, type RunningProxy, startProxy, write } from '../support/proxy.ts'

/**
 * Custom authentication through the real program, in the ways in of rows E, B and I: what an authorizer says decides,
 * what it cannot say admits nobody, and neither password nor token nor the proxy's own secret is told to anybody else.
 */

interface Door {
  readonly proxy: RunningProxy
  readonly port: number
  readonly authorizer: Peer
}

async function openDoor(t: ExecutionContext, extra = ''): Promise<Door> {
  const authorizer = await startPeer(t)
  const dir = folderFor(t)
  const [port, metricsPort] = [await freePort(), await freePort()]
  write(dir, 'server.pem', server.chainPem)
  write(dir, 'server.key', server.keyPem)
  write(dir, 'registry/auth-ca.pem', authorizerCa.certPem)
  write(
    dir,
    'registry/authorizers.yaml',
    `authorizers:
  tokens:
    kind: webhook
    url: "https://localhost:${authorizer.port}/device"
    ca: auth-ca.pem
    headers: { authorization: "planted-secret-of-the-proxy" }
    tokenKeyName: token
    timeout: 2s
`,
  )
  const config = write(
    dir,
    'brokergate.yaml',
    `listeners: [ { bind: "127.0.0.1:${port}", as: 443 } ]
domains:
  - serverNames: [ localhost ]
    certificates: [ { cert: server.pem, key: server.key } ]
    registry: main
    authorizers: [ tokens ]
    allowAuthorizerOverride: true
    ${extra}
    backend: main
backends: { main: { kind: embedded } }
registries: { main: { path: registry } }
metrics: { bind: "127.0.0.1:${metricsPort}" }
admin: { socket: admin.sock }
workers: 1
log: { format: json, level: debug }
`,
  )
  return { proxy: await startProxy(t, config, metricsPort), port, authorizer }
}

const USERNAME = 'alice?x-amz-customauthorizer-name=tokens&token=planted-token&SDK=test'
const QUERY = 'x-amz-customauthorizer-name=tokens&token=planted-token'
const PASSWORD = 'planted-password'

function connect(port: number, options: IClientOptions & { readonly path?: string }) {
  return mqtt.connectAsync({
    host: '127.0.0.1',
    port,
    servername: 'localhost',
    ca: ca.certPem,
    reconnectPeriod: 0,
    connectTimeout: 10_000,
    clientId: `c-${Math.random().toString(36).slice(2)}`,
    ...options,
  } as IClientOptions)
}

/** What a publish over HTTPS is answered with. */
function publish(port: number, headers: Record<string, string>): Promise<{ status: number; body: string }> {
  return new Promise((resolve, reject) => {
    const outgoing = request(
      {
        host: '127.0.0.1',
        port,
        servername: 'localhost',
        path: '/topics/a?qos=1',
        method: 'POST',
        ca: ca.certPem,
        headers: { host: 'localhost', ...headers },
      },
      (incoming) => {
        let body = ''
        incoming.on('data', (chunk: Buffer) => {
          body += chunk.toString()
        })
        incoming.on('end', () => resolve({ status: incoming.statusCode ?? 0, body }))
      },
    )
    outgoing.on('error', reject)
    outgoing.end('hello')
  })
}

/** The status of an upgrade; MQTT.js does not tell a refused one on every runtime. */
function upgrade(port: number): Promise<number> {
  return new Promise((resolve, reject) => {
    const outgoing = request({
      host: '127.0.0.1',
      port,
      servername: 'localhost',
      path: `/mqtt?${QUERY}`,
      ca: ca.certPem,
      headers: {
        host: 'localhost',
        connection: 'Upgrade',
        upgrade: 'websocket',
        'sec-websocket-version': '13',
        'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ==',
        'sec-websocket-protocol': 'mqtt',
      },
    })
    outgoing.on('upgrade', (_, socket) => {
      socket.destroy()
      resolve(101)
    })
    outgoing.on('response', (incoming) => {
      incoming.resume()
      resolve(incoming.statusCode ?? 0)
    })
    outgoing.on('error', reject)
    outgoing.end()
  })
}

const HEADERS = { 'x-amz-customauthorizer-name': 'tokens', token: 'planted-token' }

type Way = (port: number, protocolVersion: 4 | 5) => Promise<'in' | 'out'>
const overMqtt =
  (options: IClientOptions & { readonly path?: string }): Way =>
  (port, protocolVersion) =>
    connect(port, { ...options, protocolVersion }).then(
      async (client) => {
        await client.publishAsync('a', 'hello', { qos: 1 })
        await client.endAsync(true)
        return 'in' as const
      },
      () => 'out' as const,
    )

// `ws` hands what it does not know to `tls.connect`; its types do not say so.
const WS = { servername: 'localhost', headers: { host: 'localhost' }, ca: ca.certPem } as IClientOptions['wsOptions'] &
  object

/** Rows E, B (in CONNECT and in the upgrade) and I of the matrix. */
const WAYS: Readonly<Record<string, Way>> = {
  'E, MQTT with ALPN mqtt': overMqtt({
    protocol: 'mqtts',
    ALPNProtocols: ['mqtt'],
    username: USERNAME,
    password: PASSWORD,
  } as IClientOptions),
  'B, WebSocket with the credentials in CONNECT': overMqtt({
    protocol: 'wss',
    path: '/mqtt',
    username: USERNAME,
    password: PASSWORD,
    wsOptions: WS,
  }),
  'B, WebSocket with the credentials in the upgrade': async (port) => ((await upgrade(port)) === 101 ? 'in' : 'out'),
  'I, HTTPS': async (port) => ((await publish(port, HEADERS)).status === 200 ? 'in' : 'out'),
}

const PROTOCOLS: Readonly<Record<string, readonly string[]>> = {
  'E, MQTT with ALPN mqtt': ['tls', 'mqtt'],
  'B, WebSocket with the credentials in CONNECT': ['tls', 'http', 'mqtt'],
  'B, WebSocket with the credentials in the upgrade': ['tls', 'http'],
  'I, HTTPS': ['tls', 'http'],
}

for (const [name, way] of Object.entries(WAYS)) {
  test.serial(`row ${name}: the authorizer decides, and its faults admit nobody`, async (t) => {
    const { proxy, port, authorizer } = await openDoor(t)
    for (const version of [4, 5] as const) {
      authorizer.behavior = YES
      t.is(await way(port, version), 'in', proxy.output())
      t.deepEqual(authorizer.calls[0]?.json.protocols, PROTOCOLS[name] as string[])
      t.is(authorizer.calls[0]?.json.token, 'planted-token')
      authorizer.behavior = { isAuthenticated: false }
      t.is(await way(port, version), 'out')
    }
    for (const fault of ['answers 500', 'answers JSON that is cut', 'closes in the middle of the body']) {
      authorizer.behavior = FAULTS[fault]!
      t.is(await way(port, 5), 'out', fault)
    }
    authorizer.behavior = YES
    t.is(await way(port, 5), 'in')

    t.is(await proxy.metric('brokergate_authorizer_calls_total{authorizer="tokens",result="allowed"}'), 3)
    t.is(await proxy.metric('brokergate_authorizer_calls_total{authorizer="tokens",result="denied"}'), 2)
    t.is(await proxy.metric('brokergate_authorizer_calls_total{authorizer="tokens",result="status"}'), 1)
    t.notRegex(proxy.output() + (await proxy.metrics()), /planted-/)
  })
}

test.serial('a real client over WebSocket, with its credentials in the URL, is let in at the upgrade', async (t) => {
  const { port, authorizer } = await openDoor(t)
  const client = await connect(port, { protocol: 'wss', path: `/mqtt?${QUERY}`, wsOptions: WS })
  await client.publishAsync('a', 'hello', { qos: 1 })
  await client.endAsync(true)
  t.is(authorizer.calls.length, 1)
})

test.serial('an answer without documents lets nobody publish', async (t) => {
  const { port, authorizer } = await openDoor(t)
  authorizer.behavior = { isAuthenticated: true, principalId: 'abc' }
  t.is((await publish(port, HEADERS)).status, 401)
})

test.serial('without credentials HTTPS is refused with 403, and with a default authorizer it is asked', async (t) => {
  const without = await openDoor(t)
  t.is((await publish(without.port, {})).status, 403)
  t.is(without.authorizer.calls.length, 0)
  const withDefault = await openDoor(t, 'defaultAuthorizer: tokens')
  t.is((await publish(withDefault.port, {})).status, 200)
  t.is(withDefault.authorizer.calls.length, 1)
})

test.serial('an authorizer that nobody has is refused, and nobody is asked', async (t) => {
  const { port, authorizer } = await openDoor(t)
  t.is((await publish(port, { ...HEADERS, 'x-amz-customauthorizer-name': 'other' })).status, 403)
  const username = USERNAME.replace('tokens', 'other')
  await t.throwsAsync(connect(port, { protocol: 'mqtts', ALPNProtocols: ['mqtt'], username } as IClientOptions))
  t.is(authorizer.calls.length, 0)
})
