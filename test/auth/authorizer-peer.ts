import { once } from 'node:events'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer, type Server } from 'node:https'
import type { AddressInfo } from 'node:net'
import { gzipSync } from 'node:zlib'
import type { ExecutionContext } from 'ava'
import type { HttpProof, MqttProof } from '../../src/auth/authenticator.ts'
import { createAuthorizers } from '../../src/auth/authorizers.ts'
import { type CustomOptions, custom } from '../../src/auth/custom.ts'
import { createCa, issueServer } from '../../src/cli/pki.ts'
import { NO_METRICS } from '../../src/control/metrics.ts'
import type { AuthorizerEntry } from '../../src/registry/entries.ts'
import { createRegistry, type Registry } from '../../src/registry/registry.ts'

export const ca = createCa({ commonName: 'authorizer' })
const identity = issueServer(ca, { serverNames: ['localhost'], ips: ['127.0.0.1'] })

export const ALLOW_ALL = {
  Version: '2012-10-17',
  Statement: [{ Effect: 'Allow', Action: 'iot:*', Resource: '*' }],
}
/** The answer of the wire specification §4.5. */
export const YES = {
  isAuthenticated: true,
  principalId: 'abc123',
  disconnectAfterInSeconds: 86_400,
  refreshAfterInSeconds: 300,
  policyDocuments: [ALLOW_ALL],
}

export interface Call {
  readonly headers: IncomingMessage['headers']
  readonly body: string
  readonly json: Record<string, unknown>
}

type Behavior = (call: Call, response: ServerResponse, request: IncomingMessage) => void

export interface Peer {
  readonly port: number
  readonly calls: Call[]
  /** What it does next; an object is answered as JSON. */
  behavior: Behavior | object
}

/** An authorizer under the test's hand, on loopback, with a certificate for `localhost`. */
export async function startPeer(t: ExecutionContext): Promise<Peer> {
  const calls: Call[] = []
  const server: Server = createServer({ cert: identity.chainPem, key: identity.keyPem }, (request, response) => {
    const chunks: Buffer[] = []
    request.on('data', (chunk: Buffer) => chunks.push(chunk))
    request.on('error', () => {})
    response.on('error', () => {})
    request.on('end', () => {
      const body = Buffer.concat(chunks).toString()
      const call: Call = { headers: request.headers, body, json: body === '' ? {} : JSON.parse(body) }
      calls.push(call)
      const { behavior } = peer
      if (typeof behavior === 'function') (behavior as Behavior)(call, response, request)
      else response.end(JSON.stringify(behavior))
    })
  })
  server.on('tlsClientError', () => {})
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  const peer: Peer = { port: (server.address() as AddressInfo).port, calls, behavior: YES }
  return peer
}

const status =
  (code: number, headers: Record<string, string> = {}, body = 'x'): Behavior =>
  (_, response) => {
    response.writeHead(code, headers)
    response.end(body)
  }
const raw =
  (body: string | Buffer): Behavior =>
  (_, response) => {
    response.end(body)
  }

/** Everything that an authorizer can do wrong; none of it is an answer. */
export const FAULTS: Readonly<Record<string, Behavior>> = {
  'says nothing until the deadline': () => {},
  'answers 500': status(500, {}, JSON.stringify(YES)),
  'answers 204': status(204),
  'answers 418 with a yes': status(418, {}, JSON.stringify(YES)),
  'answers JSON that is cut': raw(JSON.stringify(YES).slice(0, -2)),
  'answers a list': raw(JSON.stringify([YES])),
  'answers null': raw('null'),
  'answers isAuthenticated as a text': raw(JSON.stringify({ ...YES, isAuthenticated: 'true' })),
  'answers isAuthenticated as a number': raw(JSON.stringify({ ...YES, isAuthenticated: 1 })),
  'answers without isAuthenticated': raw(JSON.stringify({ ...YES, isAuthenticated: undefined })),
  'answers text that is not UTF-8': raw(Buffer.concat([Buffer.from(JSON.stringify(YES)), Buffer.of(0xff)])),
  'answers 10 MB': raw(Buffer.alloc(10_000_000, 0x20)),
  'answers a yes behind 10 MB of chunks': (_, response) => {
    for (let count = 0; count < 100; count++) response.write(Buffer.alloc(100_000, 0x20))
    response.end(JSON.stringify(YES))
  },
  'redirects to a yes': status(307, { location: '/yes' }, JSON.stringify(YES)),
  'closes in the middle of the body': (_, response, request) => {
    response.writeHead(200, { 'content-length': '1000' })
    response.write(JSON.stringify(YES))
    setTimeout(() => request.socket.destroy(), 20)
  },
  'closes in the middle of a chunked body': (_, response, request) => {
    response.write(JSON.stringify(YES))
    setTimeout(() => request.socket.destroy(), 20)
  },
  'closes without an answer': (_, _response, request) => request.socket.destroy(),
  'drips its body': (_, response) => {
    const timer = setInterval(() => response.write(' '), 20)
    response.on('close', () => clearInterval(timer))
  },
  'answers an empty body': raw(''),
  'compresses its answer': status(
    200,
    { 'content-encoding': 'gzip' },
    gzipSync(JSON.stringify(YES)).toString('latin1'),
  ),
}

type Webhook = Extract<AuthorizerEntry, { kind: 'webhook' }>

export function webhookEntry(peer: { readonly port: number }, changes: Partial<Webhook> = {}): Webhook {
  return {
    kind: 'webhook',
    name: 'MyAuth',
    status: 'ACTIVE',
    digest: JSON.stringify(changes.url ?? ''),
    tokenKeyName: 'MyToken',
    signingKeys: null,
    cacheForHttp: false,
    shareForMs: null,
    timeoutMs: 1_000,
    concurrency: 8,
    url: new URL(`https://localhost:${peer.port}/device`),
    ca: [ca.certPem],
    headers: { authorization: 'secret of the proxy' },
    lifetimes: 'refuse',
    ...changes,
  }
}

export function registryOf(...entries: readonly AuthorizerEntry[]): Registry {
  return createRegistry([], { authorizer: (name) => entries.find((entry) => entry.name === name) ?? null })
}

export type Options = Partial<Omit<CustomOptions, 'registry'>> & { readonly registry?: () => Registry | null }

/** An authenticator over these entries, of which the first is the default, with clocks that stand still unless given. */
export function customOver(t: ExecutionContext, entries: readonly AuthorizerEntry[], options: Options = {}) {
  const authorizers = options.authorizers ?? createAuthorizers({ metrics: NO_METRICS, random: () => 0 })
  t.teardown(() => authorizers.close())
  const registry = registryOf(...entries)
  return custom({
    registry: () => registry,
    allowed: entries.map(({ name }) => name),
    defaultAuthorizer: entries[0]?.name ?? null,
    allowOverride: false,
    ...options,
    authorizers,
  })
}

export const connect = (changes: Partial<MqttProof> = {}): MqttProof => ({
  clientId: 'device-1',
  username: 'alice?MyToken=abc123',
  password: Buffer.from('secret'),
  ...changes,
})

export const get = (target: string, ...rawHeaders: string[]): HttpProof => ({
  method: 'GET',
  target,
  rawHeaders,
  body: null,
})

/** The same credentials in the three shapes in which they come. */
export const SHAPES = {
  mqtt: { kind: 'custom', http: null, mqtt: connect() },
  'wss upgrade': { kind: 'custom', http: get('/mqtt?MyToken=abc123', 'Host', 'iot.example.com'), mqtt: null },
  https: {
    kind: 'custom',
    http: { ...get('/topics/a?qos=1', 'Host', 'iot.example.com', 'MyToken', 'abc123'), body: Buffer.from('x') },
    mqtt: null,
  },
} as const
