import { createHash } from 'node:crypto'
import { createServer as createHttpServer } from 'node:http'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import { setImmediate } from 'node:timers/promises'
import test, { type ExecutionContext } from 'ava'
import type { DialResult } from '../../src/backend/balanced.ts'
import { type WsOptions, type WsServer, ws } from '../../src/backend/ws.ts'
import { createCa, issueServer } from '../../src/cli/pki.ts'
import type { AuthorizedConnection } from '../../src/connection.ts'
import {
  behavesLikeABackend,
  CONNECTION,
  closed,
  echo,
  freePort,
  leavesNoDescriptor,
  listening,
  NEVER,
  received,
} from './conformance.ts'
import { wsServer } from './ws-broker.ts'

const ca = createCa({ commonName: 'Brokers' })
const issued = issueServer(ca, { serverNames: ['broker.test'], ips: ['127.0.0.1'] })
const CERTIFICATE = { cert: issued.chainPem, key: issued.keyPem }

function backendTo(t: ExecutionContext, servers: readonly WsServer[], options: Partial<WsOptions> = {}) {
  const dials: DialResult[] = []
  const backend = ws({
    name: 'main',
    identity: { username: null, password: null, clientId: null, keepAlive: 'device' },
    servers,
    balance: 'roundrobin',
    connectTimeoutMs: 20_000,
    proxyHeader: null,
    tls: { ca: [ca.certPem], serverName: null, cert: null, key: null },
    headers: {},
    maxMessageBytes: 1_048_576,
    onDial: (result) => dials.push(result),
    ...options,
  })
  t.teardown(() => backend.close())
  return { backend, dials, open: (signal: AbortSignal = NEVER) => backend.open(CONNECTION, signal) }
}

const local = (port: number, rest: Partial<WsServer> = {}): WsServer => ({
  host: '127.0.0.1',
  port,
  target: '/mqtt',
  secure: false,
  ...rest,
})

behavesLikeABackend(test, 'ws', async (t) => ({
  backendTo: async (serve) => backendTo(t, [local((await wsServer(t, serve)).port)]).backend,
  unreachable: async () => backendTo(t, [local(await freePort())]).backend,
  connection: CONNECTION,
}))

behavesLikeABackend(test, 'ws over TLS', async (t) => ({
  backendTo: async (serve) =>
    backendTo(t, [local((await wsServer(t, serve, CERTIFICATE)).port, { secure: true })]).backend,
  unreachable: async () => backendTo(t, [local(await freePort(), { secure: true })]).backend,
  connection: CONNECTION,
}))

test('the upgrade asks for mqtt at the path of the URL, with the headers of the settings and no compression', async (t) => {
  const { port, requests } = await wsServer(t, echo)
  const server = local(port, { target: '/broker/mqtt?token=x' })
  const { open } = backendTo(t, [server], { headers: { authorization: 'Bearer s3cret' } })
  const { peer } = await open()
  t.is(peer, `ws://127.0.0.1:${port}/broker/mqtt`, 'a query may be a secret')
  const { url, headers } = requests[0]!
  t.is(url, '/broker/mqtt?token=x')
  t.is(headers.host, `127.0.0.1:${port}`)
  t.is(headers['sec-websocket-protocol'], 'mqtt')
  t.is(headers['sec-websocket-extensions'], undefined)
  t.is(headers.authorization, 'Bearer s3cret')
})

/** A server that answers every upgrade by hand. */
async function answering(t: ExecutionContext, answer: (key: string) => string): Promise<number> {
  const server = createServer((socket) => {
    socket.on('data', (chunk) => {
      const [, key = ''] = /sec-websocket-key: (\S+)/i.exec(chunk.toString()) ?? []
      socket.write(answer(key), 'latin1')
    })
  })
  await listening(t, server, { host: '127.0.0.1', port: 0 })
  return (server.address() as AddressInfo).port
}

const acceptOf = (key: string) =>
  createHash('sha1').update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64')

const switching = (key: string, ...lines: string[]) =>
  [
    'HTTP/1.1 101 Switching Protocols',
    'Upgrade: websocket',
    'Connection: Upgrade',
    `Sec-WebSocket-Accept: ${acceptOf(key)}`,
    ...lines,
    '\r\n',
  ].join('\r\n')

const WRONG: readonly (readonly [what: string, answer: (key: string) => string])[] = [
  ['404', () => 'HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n'],
  ['401', () => 'HTTP/1.1 401 Unauthorized\r\nContent-Length: 4\r\n\r\nno!\n'],
  ['503 without a length', () => 'HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\n\r\nlater'],
  ['200', () => 'HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n'],
  ['a redirect', () => 'HTTP/1.1 302 Found\r\nLocation: ws://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n'],
  ['a wrong accept', (key) => switching(`${key}x`, 'Sec-WebSocket-Protocol: mqtt')],
  ['no subprotocol', (key) => switching(key)],
  ['another subprotocol', (key) => switching(key, 'Sec-WebSocket-Protocol: chat')],
  [
    'compression',
    (key) => switching(key, 'Sec-WebSocket-Protocol: mqtt', 'Sec-WebSocket-Extensions: permessage-deflate'),
  ],
  ['no HTTP at all', () => 'MQTT\x00\x01\x02\r\n\r\n'],
  ['a header without an end', () => `HTTP/1.1 101 Switching Protocols\r\nX: ${'x'.repeat(200_000)}`],
]

for (const [what, answer] of WRONG) {
  test(`${what} in answer to the upgrade is a refusal, and the next server is tried`, async (t) => {
    const wrong = await answering(t, answer)
    const { port } = await wsServer(t, echo)
    const { dials, open } = backendTo(t, [local(wrong), local(port)])
    t.is((await open()).peer, `ws://127.0.0.1:${port}/mqtt`)
    t.deepEqual(dials, ['refused', 'connected'])
    const alone = await t.throwsAsync(backendTo(t, [local(wrong)]).open(), { code: 'ERR_BACKEND_REFUSED' })
    t.true(alone.message.startsWith(`ws://127.0.0.1:${wrong}/mqtt: WebSocket upgrade: `), alone.message)
  })
}

test('a server that never answers the upgrade ends at the deadline', async (t) => {
  const port = await answering(t, () => '')
  const { dials, open } = backendTo(t, [local(port)], { connectTimeoutMs: 50 })
  await t.throwsAsync(open(), { code: 'ERR_BACKEND_TIMEOUT' })
  t.deepEqual(dials, ['timeout'])
})

test('a server that closes instead of answering is a refusal', async (t) => {
  const server = createServer((socket) => socket.once('data', () => socket.destroy()))
  await listening(t, server, { host: '127.0.0.1', port: 0 })
  const { open } = backendTo(t, [local((server.address() as AddressInfo).port)])
  await t.throwsAsync(open(), { code: 'ERR_BACKEND_REFUSED' })
})

test('an aborted signal ends a wait for the answer', async (t) => {
  const controller = new AbortController()
  const port = await answering(t, () => {
    controller.abort()
    return ''
  })
  const { dials, open } = backendTo(t, [local(port)])
  await t.throwsAsync(open(controller.signal), { name: 'ProxyError' })
  t.deepEqual(dials, ['canceled'])
})

test('a certificate that is not trusted is never followed by plaintext, nor by another server', async (t) => {
  const stranger = issueServer(createCa({ commonName: 'Somebody else' }), {
    serverNames: ['x.test'],
    ips: ['127.0.0.1'],
  })
  const { port, requests } = await wsServer(t, echo, { cert: stranger.chainPem, key: stranger.keyPem })
  const other = await wsServer(t, echo)
  const { dials, open } = backendTo(t, [local(port, { secure: true }), local(other.port)])
  await t.throwsAsync(open(), { code: 'ERR_BACKEND_UNTRUSTED' })
  t.deepEqual(dials, ['untrusted'])
  t.deepEqual([requests.length, other.requests.length], [0, 0])
})

test('the PROXY header is the first thing the broker reads', async (t) => {
  const heard = Promise.withResolvers<string>()
  const server = createServer((socket) => socket.once('data', (chunk) => heard.resolve(chunk.toString())))
  await listening(t, server, { host: '127.0.0.1', port: 0 })
  const proxyHeader = (connection: AuthorizedConnection | null) =>
    Buffer.from(`PROXY ${connection?.remoteAddress};`.padEnd(64))
  const { open, backend } = backendTo(t, [local((server.address() as AddressInfo).port)], { proxyHeader })
  const opening = open()
  t.true((await heard.promise).startsWith('PROXY 192.0.2.7;'))
  await Promise.all([backend.close(), t.throwsAsync(opening)])
})

test('what we send is masked, with another mask each time [RFC 6455 §5.3]', async (t) => {
  const seen: Buffer[] = []
  const server = createHttpServer()
  server.on('upgrade', (request, socket: Socket) => {
    const key = request.headers['sec-websocket-key'] ?? ''
    socket.write(switching(key, 'Sec-WebSocket-Protocol: mqtt'))
    socket.on('data', (chunk: Buffer) => seen.push(chunk))
  })
  await listening(t, server, { host: '127.0.0.1', port: 0 })
  const { stream } = await backendTo(t, [local((server.address() as AddressInfo).port)]).open()
  const payload = Buffer.from('CONNECT')
  for (let at = 0; at < 8; at++) stream.write(payload)
  t.is(payload.toString(), 'CONNECT', 'and the chunk itself is left as it was')
  while (Buffer.concat(seen).length < 8 * 13) await setImmediate()
  const bytes = Buffer.concat(seen)
  const frames = Array.from({ length: 8 }, (_, at) => bytes.subarray(at * 13, at * 13 + 13))
  t.true(frames.every((frame) => frame[0] === 0x82 && frame[1] === 0x87))
  const masks = frames.map((frame) => frame.subarray(2, 6))
  t.true(new Set(masks.map((mask) => mask.toString('hex'))).size > 6)
  for (const [at, frame] of frames.entries()) {
    t.is(Buffer.from(frame.subarray(6).map((byte, index) => byte ^ masks[at]![index & 3]!)).toString(), 'CONNECT')
  }
})

test('a message over the limit ends the stream', async (t) => {
  const { port } = await wsServer(t, (peer) => peer.write(Buffer.alloc(2_000)))
  const { stream } = await backendTo(t, [local(port)], { maxMessageBytes: 1_000 }).open()
  let bytes = 0
  stream.on('data', (chunk) => {
    bytes += chunk.length
  })
  await new Promise<void>((resolve) => stream.on('end', resolve))
  t.is(bytes, 0)
})

test('bytes that come with the 101 are not lost', async (t) => {
  const port = await answering(t, (key) => `${switching(key, 'Sec-WebSocket-Protocol: mqtt')}\x82\x05early`)
  const { stream } = await backendTo(t, [local(port)]).open()
  t.is(await received(stream, 'early'), 'early')
})

// Serial, because descriptors are counted for the whole process.
const onLinux = process.platform === 'linux' ? test.serial : test.serial.skip

onLinux('upgrades that fail leave no descriptor behind', async (t) => {
  const wrong = await answering(t, () => 'HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n')
  const silent = await answering(t, () => '')
  const { open } = backendTo(t, [local(wrong), local(silent)], { connectTimeoutMs: 100 })
  await leavesNoDescriptor(t, () => Promise.all(Array.from({ length: 50 }, () => t.throwsAsync(open()))))
})

test('close ends what is open, whatever the broker does', async (t) => {
  const { port } = await wsServer(t, (peer) => void peer.pause())
  const { backend, open } = backendTo(t, [local(port)])
  const { stream } = await open()
  const ended = closed(stream)
  await backend.close()
  await ended
  t.pass()
})
