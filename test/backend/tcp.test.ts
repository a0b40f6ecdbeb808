import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { connect, createServer, type LookupFunction } from 'node:net'
import { networkInterfaces } from 'node:os'
import test, { type ExecutionContext } from 'ava'
import type { UpstreamIdentity } from '../../src/backend/backend.ts'
import { type DialResult, type Server, type TcpOptions, tcp } from '../../src/backend/tcp.ts'
import type { AuthorizedConnection } from '../../src/connection.ts'
import { ProxyError } from '../../src/errors.ts'
import {
  allOf,
  behavesLikeABackend,
  CONNECTION,
  closed,
  echo,
  freePort,
  leavesNoDescriptor,
  listening,
  NEVER,
  received,
  tcpServer,
} from './conformance.ts'

const IDENTITY: UpstreamIdentity = { username: null, password: null, clientId: null, keepAlive: 'device' }
const HAS_IPV6 = Object.values(networkInterfaces()).some((list) => list?.some((entry) => entry.address === '::1'))

function backendTo(t: ExecutionContext, servers: readonly Server[], options: Partial<TcpOptions> = {}) {
  const dials: DialResult[] = []
  const backend = tcp({
    name: 'main',
    identity: IDENTITY,
    servers,
    balance: 'roundrobin',
    connectTimeoutMs: 20_000,
    proxyHeader: null,
    tls: null,
    onDial: (result) => dials.push(result),
    ...options,
  })
  t.teardown(() => backend.close())
  return { backend, dials, open: (signal: AbortSignal = NEVER) => backend.open(CONNECTION, signal) }
}

const local = (port: number): Server => ({ host: '127.0.0.1', port })

behavesLikeABackend(test, 'tcp', async (t) => ({
  backendTo: async (serve) => backendTo(t, [local(await tcpServer(t, serve))]).backend,
  unreachable: async () => backendTo(t, [local(await freePort())]).backend,
  connection: CONNECTION,
}))

test('a server is reached by IPv4 address and by name, and called host:port', async (t) => {
  const port = await tcpServer(t, echo)
  t.is((await backendTo(t, [local(port)]).open()).peer, `127.0.0.1:${port}`)
  t.is((await backendTo(t, [{ host: 'localhost', port }]).open()).peer, `localhost:${port}`)
})

const onIPv6 = HAS_IPV6 ? test : test.skip

onIPv6('a server is reached by IPv6 address', async (t) => {
  const port = await tcpServer(t, echo, '::1')
  const { peer, stream } = await backendTo(t, [{ host: '::1', port }]).open()
  t.is(peer, `[::1]:${port}`)
  stream.write(Buffer.from('ping'))
  t.is(await received(stream, 'ping'), 'ping')
})

onIPv6('of a name with several addresses, one that answers is enough', async (t) => {
  const port = await tcpServer(t, echo, '127.0.0.1')
  const lookup = ((_host, options, callback) => {
    const all = [
      { address: '::1', family: 6 },
      { address: '127.0.0.1', family: 4 },
    ]
    if (typeof options === 'object' && options.all) callback(null, all)
    else callback(null, '127.0.0.1', 4)
  }) as LookupFunction
  const { stream } = await backendTo(t, [{ host: 'broker.test', port }], { lookup }).open()
  stream.write(Buffer.from('ping'))
  t.is(await received(stream, 'ping'), 'ping')
})

test('a name that nobody knows is a refusal', async (t) => {
  const lookup = ((host, _options, callback) => {
    callback(Object.assign(new Error(`getaddrinfo ENOTFOUND ${host}`), { code: 'ENOTFOUND' }), '', 0)
  }) as LookupFunction
  const { dials, open } = backendTo(t, [{ host: 'broker.test', port: 1883 }], { lookup })
  const error = await t.throwsAsync(open(), { code: 'ERR_BACKEND_REFUSED' })
  t.regex(error.message, /^broker\.test:1883: /)
  t.deepEqual(dials, ['refused'])
})

test('a name that is never looked up ends at the deadline', async (t) => {
  const lookup = (() => {}) as unknown as LookupFunction
  const { dials, open } = backendTo(t, [{ host: 'broker.test', port: 1883 }], { lookup, connectTimeoutMs: 50 })
  await t.throwsAsync(open(), { code: 'ERR_BACKEND_TIMEOUT' })
  t.deepEqual(dials, ['timeout'])
})

test('a server that refuses is followed by the next one', async (t) => {
  const port = await tcpServer(t, echo)
  const { dials, open } = backendTo(t, [local(await freePort()), local(port)])
  t.is((await open()).peer, `127.0.0.1:${port}`)
  t.deepEqual(dials, ['refused', 'connected'])
  await open()
  t.deepEqual(dials, ['refused', 'connected', 'connected'], 'the one that refused is resting')
})

test('each server is tried once, and the error names the last', async (t) => {
  const ports = [await freePort(), await freePort(), await freePort()]
  const { dials, open } = backendTo(t, ports.map(local))
  const error = await t.throwsAsync(open(), { code: 'ERR_BACKEND_REFUSED' })
  t.true(error.message.startsWith(`127.0.0.1:${ports[2]}: `), error.message)
  t.deepEqual(dials, ['refused', 'refused', 'refused'])
})

test('no servers is a refusal', async (t) => {
  await t.throwsAsync(backendTo(t, []).open(), { code: 'ERR_BACKEND_REFUSED' })
})

// Linux lets one more than the backlog in, then drops every SYN. Bun 1.4.5 ignores `backlog` and asks for 512.
const QUEUE = 'bun' in process.versions ? 513 : 2

const ends: (() => unknown)[] = []
test.after.always(() => Promise.all(ends.map((end) => end())))

let hole: Promise<number> | null = null

/** A loopback port whose queue is full, behind a process that is stopped: what arrives is neither taken nor refused. */
function blackHole(): Promise<number> {
  hole ??= digHole()
  return hole
}

async function digHole(): Promise<number> {
  const script =
    "const s=require('net').createServer().listen({host:'127.0.0.1',port:0,backlog:1},()=>console.log(s.address().port))"
  const child = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'inherit'] })
  ends.push(() => child.kill('SIGKILL'))
  const port = Number(String((await once(child.stdout, 'data'))[0]))
  child.kill('SIGSTOP')
  await Promise.all(
    Array.from({ length: QUEUE }, () => {
      const socket = connect({ host: '127.0.0.1', port })
      socket.on('error', () => {})
      ends.push(() => socket.destroy())
      return once(socket, 'connect')
    }),
  )
  return port
}

const onLinux = process.platform === 'linux' ? test : test.skip
const onLinuxAlone = process.platform === 'linux' ? test.serial : test.serial.skip

// Serial, because descriptors are counted for the whole process.
onLinuxAlone('attempts that fail leave no descriptor behind', async (t) => {
  const { open } = backendTo(t, [local(await freePort()), local(await blackHole())], { connectTimeoutMs: 100 })
  await leavesNoDescriptor(t, () => Promise.all(Array.from({ length: 50 }, () => t.throwsAsync(open()))))
})

onLinux('a black hole ends at the deadline', async (t) => {
  const { dials, open } = backendTo(t, [local(await blackHole())], { connectTimeoutMs: 100 })
  await t.throwsAsync(open(), { code: 'ERR_BACKEND_TIMEOUT' })
  t.deepEqual(dials, ['timeout'])
})

onLinux('a black hole leaves time for the server after it', async (t) => {
  const { dials, open } = backendTo(t, [local(await blackHole()), local(await tcpServer(t, echo))], {
    connectTimeoutMs: 2_000,
  })
  await open()
  t.deepEqual(dials, ['timeout', 'connected'])
})

onLinux('an aborted signal ends a wait for a black hole, and is not held against the server', async (t) => {
  const { dials, open } = backendTo(t, [local(await blackHole())])
  const controller = new AbortController()
  const opening = open(controller.signal)
  controller.abort()
  await t.throwsAsync(opening, { name: 'ProxyError' })
  t.deepEqual(dials, ['canceled'])
})

onLinux('close ends attempts under way', async (t) => {
  const { backend, open } = backendTo(t, [local(await blackHole())])
  const opening = open()
  await Promise.all([backend.close(), t.throwsAsync(opening, { code: 'ERR_BACKEND_REFUSED' })])
})

test('a signal aborted for a reason of ours says so', async (t) => {
  const reason = new ProxyError('ERR_DRAINING', 'shutting down')
  const { open } = backendTo(t, [local(await freePort())])
  await t.throwsAsync(open(AbortSignal.abort(reason)), { code: 'ERR_DRAINING' })
})

test('leastconn counts streams while they are open', async (t) => {
  const ports = [await tcpServer(t, echo), await tcpServer(t, echo)]
  const { open } = backendTo(t, ports.map(local), { balance: 'leastconn' })
  const first = await open()
  const second = await open()
  t.not(first.peer, second.peer)
  const ended = closed(first.stream)
  first.stream.destroy()
  await ended
  t.is((await open()).peer, first.peer)
  t.is((await open()).peer === first.peer, (await open()).peer !== first.peer)
})

test('the PROXY header is the first thing the broker reads', async (t) => {
  const port = await tcpServer(t, echo)
  const proxyHeader = (connection: AuthorizedConnection | null) => Buffer.from(`PROXY ${connection?.remoteAddress};`)
  const { stream } = await backendTo(t, [local(port)], { proxyHeader }).open()
  stream.write(Buffer.from('CONNECT'))
  t.is(await received(stream, 'PROXY 192.0.2.7;CONNECT'), 'PROXY 192.0.2.7;CONNECT')
})

test('bytes the broker sent before it ended are not lost', async (t) => {
  const big = 'x'.repeat(300_000)
  const port = await tcpServer(t, (peer) => peer.end(big))
  const { stream } = await backendTo(t, [local(port)]).open()
  t.is((await allOf(stream)).length, big.length)
})

test('a reset is a close, and no error that nobody hears', async (t) => {
  const server = createServer((socket) => socket.once('data', () => socket.resetAndDestroy()))
  await listening(t, server, { host: '127.0.0.1', port: 0 })
  const { stream } = await backendTo(t, [local((server.address() as { port: number }).port)]).open()
  const ended = closed(stream)
  stream.on('data', () => {})
  stream.write(Buffer.from('?'))
  await ended
  t.pass()
})
