import type { AddressInfo } from 'node:net'
import { networkInterfaces } from 'node:os'
import { createServer, type TlsOptions } from 'node:tls'
import test, { type ExecutionContext } from 'ava'
import { type BackendTls, type DialResult, type Server, type TcpOptions, tcp } from '../../src/backend/tcp.ts'
import { createCa, issueDevice, issueServer } from '../../src/cli/pki.ts'
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
  type Serve,
  tcpServer,
} from './conformance.ts'

const HAS_IPV6 = Object.values(networkInterfaces()).some((list) => list?.some((entry) => entry.address === '::1'))

const ca = createCa({ commonName: 'Brokers' })
const otherCa = createCa({ commonName: 'Somebody else' })
const broker = issueServer(ca, { serverNames: ['localhost', 'broker.test'], ips: ['127.0.0.1', '::1'] })
const named = issueServer(ca, { serverNames: ['broker.test'] })
const device = issueDevice(ca, { commonName: 'brokergate' })
const stranger = issueDevice(otherCa, { commonName: 'stranger' })

const TRUSTING: BackendTls = { ca: [ca.certPem], serverName: null, cert: null, key: null }

/** A TLS broker stub; tells the server names it was asked for. */
async function tlsServer(t: ExecutionContext, serve: Serve, options: TlsOptions = {}, host = '127.0.0.1') {
  const names: (string | false | null)[] = []
  const server = createServer({
    cert: broker.chainPem,
    key: broker.keyPem,
    allowHalfOpen: true,
    ...options,
  } as TlsOptions)
  server.on('secureConnection', (peer) => {
    names.push(peer.servername ?? null)
    peer.on('error', () => {})
    serve(peer)
  })
  server.on('tlsClientError', () => {})
  await listening(t, server, { host, port: 0 })
  return { port: (server.address() as AddressInfo).port, names }
}

function backendTo(
  t: ExecutionContext,
  servers: readonly Server[],
  tls: Partial<BackendTls>,
  options: Partial<TcpOptions> = {},
) {
  const dials: DialResult[] = []
  const backend = tcp({
    name: 'main',
    identity: { username: null, password: null, clientId: null, keepAlive: 'device' },
    servers,
    balance: 'roundrobin',
    connectTimeoutMs: 20_000,
    proxyHeader: null,
    tls: { ...TRUSTING, ...tls },
    onDial: (result) => dials.push(result),
    ...options,
  })
  t.teardown(() => backend.close())
  return { backend, dials, open: (signal: AbortSignal = NEVER) => backend.open(CONNECTION, signal) }
}

const local = (port: number): Server => ({ host: '127.0.0.1', port })

// Serial, because descriptors are counted for the whole process.
const onLinux = process.platform === 'linux' ? test.serial : test.serial.skip

onLinux('handshakes that fail leave no descriptor behind', async (t) => {
  // A half-open server of Node keeps a connection whose handshake never ended, which is not what is counted here.
  const { port } = await tlsServer(t, echo, { allowHalfOpen: false } as TlsOptions)
  const { open } = backendTo(t, [local(port)], { ca: [otherCa.certPem] })
  await t.throwsAsync(open())
  await leavesNoDescriptor(t, () =>
    Promise.all(Array.from({ length: 50 }, () => t.throwsAsync(open(), { code: 'ERR_BACKEND_UNTRUSTED' }))),
  )
})

behavesLikeABackend(test, 'tls', async (t) => ({
  backendTo: async (serve) => backendTo(t, [local((await tlsServer(t, serve)).port)], {}).backend,
  unreachable: async () => backendTo(t, [local(await freePort())], {}).backend,
  connection: CONNECTION,
}))

behavesLikeABackend(test, 'tls 1.2', async (t) => ({
  backendTo: async (serve) =>
    backendTo(t, [local((await tlsServer(t, serve, { maxVersion: 'TLSv1.2' })).port)], {}).backend,
  unreachable: async () => backendTo(t, [local(await freePort())], {}).backend,
  connection: CONNECTION,
}))

test('an IP address is found among the certificate’s IP names, and is not sent as SNI [RFC 6066 §3]', async (t) => {
  const { port, names } = await tlsServer(t, echo)
  const { stream } = await backendTo(t, [local(port)], {}).open()
  stream.write(Buffer.from('ping'))
  t.is(await received(stream, 'ping'), 'ping')
  t.falsy(names[0])
})

const onIPv6 = HAS_IPV6 ? test : test.skip

onIPv6('an IPv6 address too', async (t) => {
  const { port } = await tlsServer(t, echo, {}, '::1')
  const { stream } = await backendTo(t, [{ host: '::1', port }], {}).open()
  stream.write(Buffer.from('ping'))
  t.is(await received(stream, 'ping'), 'ping')
})

test('a host name is sent as SNI and found in the certificate', async (t) => {
  const { port, names } = await tlsServer(t, echo)
  const { stream } = await backendTo(t, [{ host: 'localhost', port }], {}).open()
  stream.write(Buffer.from('ping'))
  await received(stream, 'ping')
  t.deepEqual(names, ['localhost'])
})

test('serverName stands in for the host', async (t) => {
  const { port, names } = await tlsServer(t, echo, { cert: named.chainPem, key: named.keyPem })
  const { stream } = await backendTo(t, [local(port)], { serverName: 'broker.test' }).open()
  stream.write(Buffer.from('ping'))
  await received(stream, 'ping')
  t.deepEqual(names, ['broker.test'])
})

const untrusted = test.macro({
  async exec(t: ExecutionContext, server: TlsOptions, tls: Partial<BackendTls>, host?: string) {
    const { port } = await tlsServer(t, echo, server)
    const at: Server = { host: host ?? '127.0.0.1', port }
    const { dials, open } = backendTo(t, [at, at], tls)
    await t.throwsAsync(open(), { code: 'ERR_BACKEND_UNTRUSTED' })
    t.deepEqual(dials, ['untrusted'], 'and no other server is asked')
  },
  title: (title?: string) => `${title}: not trusted`,
})

// OpenSSL serves the old versions only at its lowest security level, which BoringSSL does not have.
const LEVEL = 'bun' in process.versions ? {} : { ciphers: 'DEFAULT@SECLEVEL=0' }
const OLD: TlsOptions = { minVersion: 'TLSv1', maxVersion: 'TLSv1.1', ...LEVEL }
const NAMED: TlsOptions = { cert: named.chainPem, key: named.keyPem }

test('a certificate of another CA', untrusted, {}, { ca: [otherCa.certPem] })
test('a certificate that the runtime’s own list does not know', untrusted, {}, { ca: null })
test('a certificate without the address', untrusted, NAMED, {})
test('a certificate without the host name', untrusted, NAMED, {}, 'localhost')
test('a certificate without the configured serverName', untrusted, {}, { serverName: 'other.test' })
test('a serverName that is an address the certificate lacks', untrusted, {}, { serverName: '127.0.0.2' })
test('a certificate past its time', untrusted, expired(), {})
test('a server that speaks no TLS 1.2', untrusted, OLD, {})

function expired(): TlsOptions {
  const old = issueServer(ca, {
    serverNames: ['localhost'],
    ips: ['127.0.0.1'],
    notBefore: new Date('2020-01-01'),
    notAfter: new Date('2020-01-02'),
  } as Parameters<typeof issueServer>[1])
  return { cert: old.chainPem, key: old.keyPem }
}

test('a broker that wants a client certificate gets ours', async (t) => {
  const asking: TlsOptions = { requestCert: true, rejectUnauthorized: true, ca: [ca.certPem] }
  const { port } = await tlsServer(t, echo, asking)
  const { stream } = await backendTo(t, [local(port)], { cert: device.chainPem, key: device.keyPem }).open()
  stream.write(Buffer.from('ping'))
  t.is(await received(stream, 'ping'), 'ping')
})

const refusesUs = test.macro(async (t, maxVersion: 'TLSv1.2' | 'TLSv1.3', tls: Partial<BackendTls>) => {
  const asking: TlsOptions = { requestCert: true, rejectUnauthorized: true, ca: [ca.certPem], maxVersion }
  const { port } = await tlsServer(t, echo, asking)
  const { open } = backendTo(t, [local(port)], tls)
  try {
    const { stream } = await open()
    t.is(maxVersion, 'TLSv1.3', 'before 1.3 the broker’s judgement is part of the handshake')
    const ended = closed(stream)
    stream.write(Buffer.from('ping'))
    const heard = allOf(stream)
    stream.on('end', () => stream.end())
    await ended
    t.is(await heard, '')
  } catch (error) {
    t.regex((error as { code: string }).code, /^ERR_BACKEND_(UNTRUSTED|REFUSED)$/)
  }
})

test('TLS 1.3: a broker that wants a certificate and gets none carries nothing', refusesUs, 'TLSv1.3', {})
test('TLS 1.2: a broker that wants a certificate and gets none carries nothing', refusesUs, 'TLSv1.2', {})
const STRANGER = { cert: stranger.chainPem, key: stranger.keyPem }
test('TLS 1.3: a broker that does not know our certificate carries nothing', refusesUs, 'TLSv1.3', STRANGER)
test('TLS 1.2: a broker that does not know our certificate carries nothing', refusesUs, 'TLSv1.2', STRANGER)

test('a server that answers in plaintext is not trusted', async (t) => {
  const port = await tcpServer(t, (peer) => peer.once('data', () => peer.write('\x20\x02\x00\x00\x90\x02\x00\x00')))
  await t.throwsAsync(backendTo(t, [local(port)], {}).open(), { code: 'ERR_BACKEND_UNTRUSTED' })
})

test('a server that closes at the ClientHello has refused, and the next one is asked', async (t) => {
  let heard: Buffer = Buffer.alloc(0)
  const closing = await tcpServer(t, (peer) => {
    peer.on('error', () => {})
    peer.once('data', (chunk: Buffer) => {
      heard = chunk
      peer.destroy()
    })
  })
  const { port } = await tlsServer(t, echo)
  const { dials, open } = backendTo(t, [local(closing), local(port)], {})
  await open()
  t.deepEqual(dials, ['refused', 'connected'])
  t.is(heard[0], 0x16, 'a handshake record, RFC 8446 §5.1, and never a CONNECT')
})

test('a server that never answers the ClientHello ends at the deadline', async (t) => {
  const port = await tcpServer(t, (peer) => {
    peer.on('error', () => {}).resume()
  })
  const { dials, open } = backendTo(t, [local(port)], {}, { connectTimeoutMs: 100 })
  await t.throwsAsync(open(), { code: 'ERR_BACKEND_TIMEOUT' })
  t.deepEqual(dials, ['timeout'])
})

test('a signal aborted during the handshake ends it', async (t) => {
  const controller = new AbortController()
  const port = await tcpServer(t, (peer) => {
    peer.on('error', () => {})
    peer.once('data', () => controller.abort())
  })
  const { dials, open } = backendTo(t, [local(port)], {})
  await t.throwsAsync(open(controller.signal), { name: 'ProxyError' })
  t.deepEqual(dials, ['canceled'])
})

test('the PROXY header goes ahead of TLS', async (t) => {
  const first = Promise.withResolvers<Buffer>()
  const port = await tcpServer(t, (peer) => {
    peer.on('error', () => {})
    peer.once('data', (chunk: Buffer) => {
      first.resolve(chunk)
      peer.destroy()
    })
  })
  const { open } = backendTo(t, [local(port)], {}, { proxyHeader: () => Buffer.from('PROXY;') })
  await t.throwsAsync(open(), { name: 'ProxyError' })
  t.is((await first.promise).subarray(0, 6).toString(), 'PROXY;')
})

test('certificates that cannot be read are an error at once', (t) => {
  t.throws(() => backendTo(t, [local(1)], { cert: 'nothing', key: 'nothing' }))
})
