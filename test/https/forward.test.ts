import { once } from 'node:events'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { createServer as createSecureServer } from 'node:https'
import { type AddressInfo, createServer as createTcpServer, type Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import test, { type ExecutionContext } from 'ava'
import { createCa, issueServer } from '../../src/cli/pki.ts'
import { ProxyError } from '../../src/errors.ts'
import type { HttpBackend } from '../../src/https/forward.ts'
import { type RouteOptions, routeTable } from '../../src/https/routes.ts'
import type { Permit } from '../../src/policy/permit.ts'
import { authenticatedAs } from '../support/identity.ts'
import { type Device, front, ManualTimer, type Setup, X509_8443 } from './front-harness.ts'

const ROUTE: RouteOptions = {
  path: '/things/*/shadow',
  methods: ['GET', 'POST', 'DELETE'],
  backend: 'shadows',
  action: 'iot:GetThingShadow',
  resource: null,
  headers: [],
}
const get = (target: string, headers = '', method = 'GET') =>
  `${method} ${target} HTTP/1.1\r\nHost: a.example\r\n${headers}\r\n`
const SHADOW = '/things/t/shadow'

async function backend(
  t: ExecutionContext,
  serve: (request: IncomingMessage, response: ServerResponse) => void,
): Promise<Server> {
  const server = createServer(serve)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => {
    server.close()
    server.closeAllConnections()
  })
  return server
}

const behind = (server: { address(): unknown }, changes: Partial<HttpBackend> = {}): HttpBackend => ({
  name: 'shadows',
  url: new URL(`http://127.0.0.1:${(server.address() as AddressInfo).port}`),
  ca: null,
  cert: null,
  key: null,
  timeoutMs: 5_000,
  ...changes,
})

const routed = (target: HttpBackend, routes: readonly RouteOptions[] = [ROUTE], setup: Setup = {}): Setup => ({
  ...setup,
  parts: { routes: () => routeTable(routes), httpBackend: () => target, ...setup.parts },
})

/** What a backend saw of one request. */
interface Seen {
  readonly line: string
  readonly headers: Record<string, unknown>
  readonly body: string
}
async function seenBy(request: IncomingMessage): Promise<Seen> {
  let body = ''
  for await (const chunk of request) body += chunk
  return { line: `${request.method} ${request.url}`, headers: { ...request.headers }, body }
}

async function echoing(t: ExecutionContext): Promise<{ server: Server; seen: Seen[] }> {
  const seen: Seen[] = []
  const server = await backend(t, async (request, response) => {
    seen.push(await seenBy(request).catch(() => ({ line: 'broken off', headers: {}, body: '' })))
    response.setHeader('x-from-backend', '1')
    response.end('shadow')
  })
  return { server, seen }
}

test('a request travels, and its answer comes back', async (t) => {
  const { server, seen } = await echoing(t)
  const { connect, answered } = await front(t, routed(behind(server)))
  const device = await connect()
  device.send(get(`${SHADOW}?name=a&token=secret`, 'Accept: application/json\r\n'))
  const answer = await device.answer()
  t.is(answer.status, 200)
  t.is(answer.headers.get('x-from-backend'), '1')
  t.regex(answer.body, /shadow/)
  t.is(seen[0]!.line, `GET ${SHADOW}?name=a`)
  t.like(seen[0]!.headers, {
    accept: 'application/json',
    host: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    'x-brokergate-principal': 'device-1',
    'x-brokergate-method': 'custom',
    'x-brokergate-domain': 'a.example',
    'x-forwarded-for': '192.0.2.7',
    'x-forwarded-proto': 'https',
    'x-forwarded-host': 'a.example',
  })
  t.deepEqual(
    answered.map(({ route, status }) => `${route} ${status}`),
    ['forward 200'],
  )
})

for (const [title, request, body] of [
  ['with a length', `${get(SHADOW, 'Content-Length: 5\r\n', 'POST')}hello`, 'hello'],
  ['in chunks', `${get(SHADOW, 'Transfer-Encoding: chunked\r\n', 'POST')}3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n`, 'hello'],
  ['in chunks of DELETE', `${get(SHADOW, 'Transfer-Encoding: chunked\r\n', 'DELETE')}5\r\nhello\r\n0\r\n\r\n`, 'hello'],
  ['that is empty', get(SHADOW, '', 'POST'), ''],
  ['of GET', `${get(SHADOW, 'Content-Length: 5\r\n')}hello`, 'hello'],
  [
    'that is signed',
    `${get(SHADOW, 'Authorization: AWS4-HMAC-SHA256 x\r\nTransfer-Encoding: chunked\r\n', 'POST')}5\r\nhello\r\n0\r\n\r\n`,
    'hello',
  ],
] as const) {
  test(`a body ${title} arrives whole, and the connection goes on`, async (t) => {
    const { server, seen } = await echoing(t)
    const { connect } = await front(t, routed(behind(server)))
    const device = await connect()
    device.send(request)
    t.is((await device.answer()).status, 200)
    device.send(get(SHADOW))
    t.is((await device.answer()).status, 200)
    t.deepEqual(
      seen.map((each) => each.body),
      [body, ''],
    )
    t.is(seen[0]!.headers.authorization, undefined)
  })
}

test('a large body goes through no faster than it is taken', async (t) => {
  const { server, seen } = await echoing(t)
  const { connect } = await front(t, routed(behind(server)))
  const device = await connect()
  device.send(`${get(SHADOW, 'Content-Length: 1000000\r\n', 'POST')}${'x'.repeat(1_000_000)}`)
  t.is((await device.answer()).status, 200)
  t.is(seen[0]!.body.length, 1_000_000)
})

test('the policy is asked about the action and the thing, and no byte travels before it said yes', async (t) => {
  const asked: string[] = []
  const { server, seen } = await echoing(t)
  const permit: Permit = {
    allows(action, resource) {
      asked.push(`${action} ${resource}`)
      return false
    },
    allowsAll: () => false,
  }
  const { connect } = await front(t, routed(behind(server), [ROUTE], { parts: { permitFor: () => permit } }))
  const device = await connect()
  device.send(get(`${SHADOW}?name=x`))
  t.is((await device.answer()).status, 401)
  t.deepEqual(asked, ['iot:GetThingShadow thing/t/x'])
  t.deepEqual(seen, [])
})

test('a route without an action asks who it is, and no more', async (t) => {
  const { server, seen } = await echoing(t)
  const { connect } = await front(
    t,
    routed(behind(server), [{ ...ROUTE, action: null }], { parts: { hasDefaultAuthorizer: () => false } }),
  )
  const device = await connect()
  device.send(get(SHADOW))
  t.is((await device.answer()).status, 403)
  device.send(get(SHADOW, 'x-amz-customauthorizer-name: a\r\n'))
  t.is((await device.answer()).status, 200)
  t.is(seen.length, 1)
})

test('the exclusive thing of a certificate is told', async (t) => {
  const { server, seen } = await echoing(t)
  const thing = { name: 'sensor-1', typeName: null, attributes: {} }
  const { connect } = await front(
    t,
    routed(behind(server), [ROUTE], {
      rows: X509_8443,
      parts: {
        identify: async () =>
          authenticatedAs(
            { id: 'ü%\r\n', method: 'x509', attributes: {} },
            { things: { of: () => thing, exclusive: thing } },
          ),
      },
    }),
  )
  const device = await connect()
  device.send(get(SHADOW))
  t.is((await device.answer()).status, 200)
  t.like(seen[0]!.headers, { 'x-brokergate-thing': 'sensor-1', 'x-brokergate-principal': '%C3%BC%25%0D%0A' })
})

test('a method without a route is 405, a browser’s question is answered here', async (t) => {
  const { server, seen } = await echoing(t)
  const { connect } = await front(t, routed(behind(server)))
  const device = await connect()
  device.send(get(SHADOW, '', 'PATCH'))
  const answer = await device.answer()
  t.is(answer.status, 405)
  t.is(answer.headers.get('allow'), 'GET, POST, DELETE, OPTIONS')
  device.send(get(SHADOW, '', 'OPTIONS'))
  t.is((await device.answer()).status, 204)
  t.deepEqual(seen, [])
})

test('hop-by-hop headers of the backend stay with it, and what its Connection names', async (t) => {
  const server = await backend(t, (_request, response) => {
    response.setHeader('connection', 'x-inner, close')
    response.setHeader('x-inner', '1')
    response.setHeader('keep-alive', 'timeout=9')
    response.setHeader('set-cookie', ['a=1', 'b=2'])
    response.end('ok')
  })
  const { connect } = await front(t, routed(behind(server)))
  const device = await connect()
  device.send(get(SHADOW))
  const { headers } = await device.answer()
  t.is(headers.get('x-inner'), undefined)
  t.not(headers.get('connection'), 'x-inner, close')
  device.send(get(SHADOW))
  t.is((await device.answer()).status, 200, 'the backend closed its connection, not ours')
})

// What the backend does wrong.

async function raw(t: ExecutionContext, answer: (socket: Socket, chunk: Buffer) => void): Promise<HttpBackend> {
  const server = createTcpServer((socket) => {
    socket.on('error', () => {})
    socket.once('data', (chunk: Buffer) => answer(socket, chunk))
    t.teardown(() => socket.destroy())
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => server.close())
  return behind(server)
}

const fails = test.macro({
  async exec(
    t,
    answer: ((socket: Socket) => void) | null,
    status: number,
    code: string,
    changes: Partial<HttpBackend> = {},
  ) {
    const target = await raw(t, answer ?? (() => {}))
    const { connect, answered } = await front(t, routed({ ...target, ...changes }))
    const device = await connect()
    device.send(get(SHADOW))
    const { status: got, headers, body } = await device.answer()
    t.is(got, status)
    t.is(JSON.parse(body).traceId, headers.get('x-amzn-requestid'))
    t.is(answered[0]!.failure?.code, code as never)
  },
  title: (title) => title ?? 'fails',
})

test(
  'a backend that closes without an answer is 503',
  fails,
  (socket: Socket) => socket.destroy(),
  503,
  'ERR_BACKEND_LOST',
)
test('a backend that ends without an answer is 503', fails, (socket: Socket) => socket.end(), 503, 'ERR_BACKEND_LOST')
test(
  'a backend that speaks something else is 502',
  fails,
  (socket: Socket) => socket.end('SSH-2.0-x\r\n'),
  502,
  'ERR_BACKEND_PROTOCOL',
)
test(
  'a backend with two lengths is 502',
  fails,
  (socket: Socket) => socket.end('HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nok'),
  502,
  'ERR_BACKEND_PROTOCOL',
)
test('a backend that is silent is 504', fails, null, 504, 'ERR_BACKEND_TIMEOUT', { timeoutMs: 100 })
test('a backend that is not there is 503', fails, null, 503, 'ERR_BACKEND_REFUSED', {
  url: new URL('http://127.0.0.1:1'),
})
test('a backend whose name is not known is 503', fails, null, 503, 'ERR_BACKEND_REFUSED', {
  url: new URL('http://nowhere.invalid'),
})

test('a backend that breaks off in the midst of its answer ends the device’s too', async (t) => {
  const target = await raw(t, (socket) => {
    socket.write('HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf')
    setTimeout(() => socket.destroy(), 20)
  })
  const { connect, answered, endings } = await front(t, routed(target))
  const device = await connect()
  device.send(get(SHADOW))
  await device.closed
  t.regex(device.text, /^HTTP\/1\.1 200 [\s\S]*content-length: 100[\s\S]*half$/i)
  t.is(answered.at(-1)!.failure?.code, 'ERR_BACKEND_LOST')
  t.like(await endings[0], { code: 'ERR_BACKEND_LOST' })
})

test('a certificate of the backend that nobody vouches for is 503, one of the CA is not', async (t) => {
  const ca = createCa({ commonName: 'internal' })
  const issued = issueServer(ca, { serverNames: ['localhost'] })
  const server = createSecureServer(
    { cert: issued.chainPem, key: issued.keyPem },
    (_request, response) => void response.end('ok'),
  )
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => server.close())
  const url = new URL(`https://localhost:${(server.address() as AddressInfo).port}`)
  let target = behind(server, { url })
  const { connect } = await front(t, { parts: { routes: () => routeTable([ROUTE]), httpBackend: () => target } })
  const device = await connect()
  device.send(get(SHADOW))
  t.is((await device.answer()).status, 503)
  target = { ...target, ca: [ca.certPem] }
  device.send(get(SHADOW))
  t.is((await device.answer()).status, 200)
  const other = createCa({ commonName: 'other' })
  target = { ...target, ca: [other.certPem] }
  device.send(get(SHADOW))
  t.is((await device.answer()).status, 503)
})

// Bodies that are broken off.

async function reading(t: ExecutionContext) {
  const { promise: begun, resolve: begin } = Promise.withResolvers<void>()
  const { promise: broken, resolve: breakOff } = Promise.withResolvers<void>()
  const server = await backend(t, (request, response) => {
    request.on('data', () => begin())
    request.on('end', () => response.end('whole'))
    request.on('error', () => {})
    request.on('close', () => {
      if (!request.complete) breakOff()
    })
  })
  return { server, begun, broken }
}

test('a device that leaves in the midst of its body breaks the backend’s request off', async (t) => {
  const { server, begun, broken } = await reading(t)
  const { connect, endings } = await front(t, routed(behind(server)))
  const device = await connect()
  device.send(`${get(SHADOW, 'Content-Length: 100\r\n', 'POST')}half`)
  await begun
  device.socket.destroy()
  await broken
  t.is(await endings[0], 'downstream')
})

test('a device whose chunks make no sense is refused, and the backend’s request breaks off', async (t) => {
  const { server, begun, broken } = await reading(t)
  const { connect } = await front(t, routed(behind(server)))
  const device = await connect()
  device.send(`${get(SHADOW, 'Transfer-Encoding: chunked\r\n', 'POST')}4\r\nhalf\r\n`)
  await begun
  device.send('zz\r\n')
  t.is((await device.answer()).status, 400)
  await broken
})

test('chunks over the limit are 413, and the backend’s request breaks off', async (t) => {
  const { server, begun, broken } = await reading(t)
  const { connect } = await front(t, routed(behind(server), [ROUTE], { limits: { bodyBytes: 1_000 } }))
  const device = await connect()
  device.send(`${get(SHADOW, 'Transfer-Encoding: chunked\r\n', 'POST')}200\r\n${'x'.repeat(0x200)}\r\n`)
  await begun
  device.send(`200\r\n${'x'.repeat(0x200)}\r\n`)
  t.is((await device.answer()).status, 413)
  await broken
})

test('a length over the limit is 413 and nothing travels', async (t) => {
  const { server, seen } = await echoing(t)
  const { connect } = await front(t, routed(behind(server), [ROUTE], { limits: { bodyBytes: 1_000 } }))
  const device = await connect()
  device.send(get(SHADOW, 'Content-Length: 1001\r\n', 'POST'))
  t.is((await device.answer()).status, 413)
  t.deepEqual(seen, [])
})

test('a body that does not come in time is 408', async (t) => {
  const clock = new ManualTimer()
  const { server, begun, broken } = await reading(t)
  const { connect } = await front(t, routed(behind(server), [ROUTE], { timer: clock.timer }))
  const device = await connect()
  device.send(`${get(SHADOW, 'Content-Length: 100\r\n', 'POST')}half`)
  await begun
  t.is(clock.fire(30_000), 1)
  t.is((await device.answer()).status, 408)
  await broken
})

test('a backend that answers before the body is there is passed on, and the connection ends', async (t) => {
  const server = await backend(t, (_request, response) => {
    response.statusCode = 409
    response.end('conflict')
  })
  const { connect } = await front(t, routed(behind(server)))
  const device = await connect()
  device.send(`${get(SHADOW, 'Content-Length: 100\r\n', 'POST')}half`)
  const answer = await device.answer()
  t.is(answer.status, 409)
  t.is(answer.headers.get('connection'), 'close')
  await device.closed
})

// WebSockets of other paths.

const UPGRADE =
  'Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: x\r\n'
const LIVE: RouteOptions = { ...ROUTE, path: '/live', action: null }

async function webSocketBackend(t: ExecutionContext, onUpgrade: (request: IncomingMessage, socket: Duplex) => void) {
  const server = await backend(t, (_request, response) => void response.end())
  server.on('upgrade', (request, socket) => {
    socket.on('error', () => {})
    t.teardown(() => socket.destroy())
    onUpgrade(request, socket)
  })
  return server
}
const accept = (socket: Duplex) =>
  socket.write(
    'HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-protocol: x\r\n\r\n',
  )

async function switched(device: Device): Promise<void> {
  while (!device.text.includes('\r\n\r\n')) await once(device.socket, 'data')
}

test('a WebSocket of another path is joined with the backend’s, early bytes in order', async (t) => {
  const seen: IncomingMessage[] = []
  const server = await webSocketBackend(t, (request, socket) => {
    seen.push(request)
    accept(socket)
    socket.on('data', (chunk: Buffer) => socket.write(`<${chunk}>`))
  })
  const { connect, handler, endings, answered } = await front(t, routed(behind(server), [LIVE]))
  const device = await connect()
  device.send(
    `${get('/live?token=secret&a=1', `${UPGRADE}X-Brokergate-Principal: root\r\nX-Forwarded-For: 10.0.0.1\r\n`)}early`,
  )
  await switched(device)
  while (!device.text.endsWith('<early>')) await once(device.socket, 'data')
  t.regex(device.text, /^HTTP\/1\.1 101 /)
  t.is(seen[0]!.url, '/live?a=1')
  t.like(seen[0]!.headers, {
    'x-brokergate-principal': 'device-1',
    'x-forwarded-for': '192.0.2.7',
    'x-forwarded-proto': 'wss',
    'sec-websocket-protocol': 'x',
  })
  t.deepEqual(
    answered.map(({ route, status }) => `${route} ${status}`),
    ['forward 101'],
  )
  t.is(handler.live.size, 1)
  device.socket.destroy()
  t.is(await endings[0], 'downstream')
  t.is(handler.live.size, 0)
})

test('no byte behind an upgrade reaches the backend before its 101', async (t) => {
  const early: string[] = []
  const { promise: asked, resolve: ask } = Promise.withResolvers<Socket>()
  const target = await raw(t, (socket, chunk) => {
    early.push(chunk.toString())
    socket.on('data', (more) => early.push(more.toString()))
    ask(socket)
  })
  const { connect } = await front(t, routed(target, [LIVE]))
  const device = await connect()
  device.send(`${get('/live', UPGRADE)}POST /admin HTTP/1.1\r\n\r\n`)
  const socket = await asked
  device.send('more')
  for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve))
  t.is(early.length, 1)
  t.notRegex(early[0]!, /admin|more/)
  socket.end('HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno')
  await device.closed
  t.regex(device.text, /^HTTP\/1\.1 403 [\s\S]*no$/)
  t.is(early.length, 1)
})

test('a refusal in chunks comes out without them', async (t) => {
  const target = await raw(t, (socket) =>
    socket.end('HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ngone\r\n0\r\n\r\n'),
  )
  const { connect } = await front(t, routed(target, [LIVE]))
  const device = await connect()
  device.send(get('/live', UPGRADE))
  await device.closed
  t.notRegex(device.text, /chunked/i)
  t.regex(device.text, /\r\n\r\ngone$/)
})

test('an upgrade whose backend is not there is 503 in our form', async (t) => {
  const target = { ...(await raw(t, () => {})), url: new URL('http://127.0.0.1:1') }
  const { connect, answered } = await front(t, routed(target, [LIVE]))
  const device = await connect()
  device.send(get('/live', UPGRADE))
  t.is((await device.answer()).status, 503)
  t.is(answered[0]!.failure?.code, 'ERR_BACKEND_REFUSED')
})

test('an upgrade whose backend is silent is 504', async (t) => {
  const target = { ...(await raw(t, () => {})), timeoutMs: 100 }
  const { connect } = await front(t, routed(target, [LIVE]))
  const device = await connect()
  device.send(get('/live', UPGRADE))
  t.is((await device.answer()).status, 504)
})

test('no certificate is an identity over a WebSocket', async (t) => {
  const server = await webSocketBackend(t, (_request, socket) => accept(socket))
  const { connect, identified } = await front(t, routed(behind(server), [LIVE], { rows: X509_8443 }))
  const device = await connect()
  device.send(get('/live', UPGRADE))
  t.is((await device.answer()).status, 404)
  t.deepEqual(identified, [])
})

for (const [title, code, ms, change] of [
  ['its identity is taken away', 'ERR_CERTIFICATE_REVOKED', 1_000, 'rejudge'],
  ['a judgement throws', 'ERR_INTERNAL', 1_000, 'throw'],
  ['its time is over', 'ERR_MAX_CONNECT_TIME', 300_000, 'time'],
  ['the authorizer refuses on refresh', 'ERR_CREDENTIALS_REFUSED', 200_000, 'refresh'],
  ['the authorizer cannot be asked on refresh', 'ERR_AUTHORIZER_UNAVAILABLE', 200_000, 'fault'],
  ['somebody ends it', 'ERR_DRAINING', 0, 'close'],
] as const) {
  test(`a forwarded WebSocket ends when ${title}`, async (t) => {
    const clock = new ManualTimer()
    const { promise: left, resolve: leave } = Promise.withResolvers<void>()
    const server = await webSocketBackend(t, (_request, socket) => {
      accept(socket)
      socket.resume()
      socket.on('end', () => {
        socket.end()
        leave()
      })
    })
    const { connect, endings, handler } = await front(
      t,
      routed(behind(server), [LIVE], {
        timer: clock.timer,
        parts: {
          identify: async () =>
            authenticatedAs(
              { id: 'x', method: 'custom', attributes: {} },
              {
                ...(change === 'rejudge' && {
                  rejudge: () => ({ kind: 'denied', code: 'ERR_CERTIFICATE_REVOKED', detail: '' }),
                }),
                ...(change === 'throw' && {
                  rejudge: () => {
                    throw new TypeError('bug')
                  },
                }),
                ...(change === 'time' && { disconnectAfterMs: 300_000 }),
                ...(change === 'refresh' && {
                  refreshAfterMs: 200_000,
                  refresh: async () => ({ kind: 'denied', code: 'ERR_CREDENTIALS_REFUSED', detail: '' }),
                }),
                ...(change === 'fault' && {
                  refreshAfterMs: 200_000,
                  refresh: async () => {
                    throw new ProxyError('ERR_AUTHORIZER_UNAVAILABLE', '')
                  },
                }),
              },
            ),
        },
      }),
    )
    const device = await connect()
    device.send(get('/live', UPGRADE))
    await switched(device)
    while (handler.live.size === 0) await new Promise((resolve) => setImmediate(resolve))
    if (change === 'close') for (const each of handler.live) each.close('ERR_DRAINING')
    else t.is(clock.fire(ms), 1)
    await device.closed
    await left
    t.like(await endings[0], { code })
    t.is(clock.pending.filter((entry) => entry.ms >= 1_000 && entry.ms !== 2_000).length, 0, 'no deadline stays behind')
  })
}
