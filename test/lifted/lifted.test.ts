import { type AddressInfo, connect, createServer, type Server, Socket } from 'node:net'
import { connect as connectTls, type TLSSocket } from 'node:tls'
import test, { type ExecutionContext } from 'ava'
import { tcp } from '../../src/backend/tcp.ts'
import type { AcceptedSocket } from '../../src/connection.ts'
import { CAN_LIFT } from '../../src/lifted/native.ts'
import { canLift, LiftedTcp, lifted, liftServer } from '../../src/lifted/tcp.ts'
import { LiftedTls } from '../../src/lifted/tls.ts'
import { readConnect } from '../../src/mqtt/connect.ts'
import type { ByteStream } from '../../src/relay.ts'
import { createDomains } from '../../src/tls/domains.ts'
import { handshake } from '../../src/tls/handshake.ts'
import { behavesLikeABackend, CONNECTION, freePort, tcpServer } from '../backend/conformance.ts'
import { ca, domainOptions } from '../tls/server.ts'

// What a lifted stream promises beside the two conformance suites. The same tests run on the portable transport.

const context = createDomains({ generation: 1, domains: [domainOptions()] })
  .find('a.example')!
  .context(false)

behavesLikeABackend(test, 'lifted tcp', async (t) => {
  const to = (port: number) => {
    const backend = tcp({
      name: 'main',
      identity: { username: null, password: null, clientId: null, keepAlive: 'device' },
      servers: [{ host: '127.0.0.1', port }],
      balance: 'roundrobin',
      connectTimeoutMs: 20_000,
      proxyHeader: null,
      tls: null,
      lift: true,
      onDial: () => {},
    })
    t.teardown(() => backend.close())
    return backend
  }
  return {
    backendTo: async (serve) => to(await tcpServer(t, serve)),
    unreachable: async () => to(await freePort()),
    connection: CONNECTION,
  }
})

/** Which transport, and from which stage on. */
type Kind = 'portable' | 'lifted' | 'lifted from the listener on'

const KINDS: readonly Kind[] = ['portable', 'lifted', 'lifted from the listener on']

interface Opened {
  readonly device: TLSSocket
  readonly stream: ByteStream
  /** What was accepted, and what is left of it. */
  readonly accepted: AcceptedSocket
  readonly closes: () => number
}

/** A loopback port of the system's choice. */
async function listening(server: Server): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return (server.address() as AddressInfo).port
}

/** `via`: what the device reaches in place of the port that accepts. */
async function open(
  t: ExecutionContext,
  kind: Kind,
  via: (port: number) => number | Promise<number> = (port) => port,
): Promise<Opened> {
  const opened = Promise.withResolvers<Omit<Opened, 'device'>>()
  const lift = kind !== 'portable'
  const accept = (accepted: AcceptedSocket) => {
    let closes = 0
    accepted.once('close', () => closes++)
    const onData = (chunk: Buffer) => {
      accepted.off('data', onData)
      accepted.pause()
      accepted.unshift(chunk)
      handshake(accepted, { context, requestCert: false, alpn: null, deadlineMs: 5_000, lift }).then(({ tls }) => {
        opened.resolve({ stream: tls, accepted, closes: () => closes })
        t.teardown(() => tls.destroy())
      }, opened.reject)
    }
    accepted.on('data', onData)
  }
  const server = createServer({ allowHalfOpen: true, noDelay: true }, accept)
  const accepting = await listening(server)
  if (kind === 'lifted from the listener on') t.is(liftServer(server, 60_000, accept), CAN_LIFT)
  t.teardown(() => server.close())
  const port = await via(accepting)
  const options = { port, host: '127.0.0.1', servername: 'a.example', ca: ca.certPem, allowHalfOpen: true }
  const device = connectTls(options)
  device.on('error', () => {})
  t.teardown(() => device.destroy())
  await new Promise((resolve) => device.once('secureConnect', resolve))
  return { device, ...(await opened.promise) }
}

/** Bytes in which a lost, doubled or swapped part shows. */
function pattern(length: number): Buffer {
  const bytes = Buffer.alloc(length)
  for (let at = 0; at + 4 <= length; at += 4) bytes.writeUInt32BE(at, at)
  return bytes
}

const ended = (stream: { on(event: 'end', listener: () => void): unknown }) =>
  new Promise<void>((resolve) => stream.on('end', resolve))
const closed = (stream: { on(event: 'close', listener: () => void): unknown }) =>
  new Promise<void>((resolve) => stream.on('close', resolve))
const turn = () => new Promise((resolve) => setImmediate(resolve))

for (const kind of KINDS) {
  test(`${kind}: megabytes written past a device that does not read arrive whole, in order, and before the end`, async (t) => {
    const { device, stream } = await open(t, kind)
    const all = pattern(6_000_000)
    let at = 0
    let drains = 0
    const go = () => {
      while (at < all.length) {
        const from = at
        at += 65_521
        if (!stream.write(all.subarray(from, at))) return
      }
      stream.end()
    }
    stream.on('drain', () => {
      drains++
      go()
    })
    go()
    t.true(at < all.length, 'nobody reads and everything was taken: somebody queues without a bound')
    const chunks: Buffer[] = []
    device.on('data', (chunk: Buffer) => chunks.push(chunk))
    await ended(device)
    t.true(Buffer.concat(chunks).equals(all))
    t.true(drains > 0)
  })

  test(`${kind}: megabytes read with a pause after every chunk arrive whole, in order, and before the end`, async (t) => {
    const { device, stream } = await open(t, kind)
    const all = pattern(3_000_000)
    device.end(all)
    const chunks: Buffer[] = []
    let paused = false
    let late = 0
    stream.on('data', (chunk) => {
      if (paused) late++
      chunks.push(chunk)
      paused = true
      stream.pause()
      setImmediate(() => {
        paused = false
        stream.resume()
      })
    })
    await ended(stream)
    t.true(Buffer.concat(chunks).equals(all))
    t.is(late, 0, 'data while it was paused')
  })

  test(`${kind}: our end leaves the device its last words`, async (t) => {
    const { device, stream } = await open(t, kind)
    let heard = ''
    stream.on('data', (chunk) => {
      heard += chunk.toString()
    })
    device.resume()
    stream.end()
    await ended(device)
    device.end('and out')
    await ended(stream)
    t.is(heard, 'and out')
    await closed(stream)
    t.true(stream.destroyed)
  })

  test(`${kind}: what is paused keeps what came before the device ended`, async (t) => {
    const { device, stream } = await open(t, kind)
    stream.pause()
    device.end('publish and goodbye')
    await new Promise((resolve) => setTimeout(resolve, 50))
    t.not(stream.destroyed, true)
    let heard = ''
    stream.on('data', (chunk) => {
      heard += chunk.toString()
    })
    await turn()
    t.is(heard, '', 'listening does not end a pause')
    stream.resume()
    await ended(stream)
    t.is(heard, 'publish and goodbye')
  })

  test(`${kind}: a reset closes it once, and whoever waits for the accepted socket hears of it`, async (t) => {
    let far = new Socket()
    const { stream, closes } = await open(t, kind, (port) => {
      const server = createServer((near) => {
        far = connect(port, '127.0.0.1')
        for (const socket of [near, far]) socket.on('error', () => {})
        near.pipe(far).pipe(near)
        t.teardown(() => near.destroy())
      })
      t.teardown(() => server.close())
      return listening(server)
    })
    let closings = 0
    stream.on('close', () => closings++)
    stream.on('data', () => {})
    // Who does not read does not learn of a reset; to OpenSSL it is an end, and whoever ends too is told of the close.
    stream.on('end', () => stream.end())
    stream.resume()
    t.is(closes(), 0)
    const over = closed(stream)
    far.resetAndDestroy()
    await over
    await turn()
    t.is(closings, 1)
    t.is(closes(), 1)
    t.true(stream.destroyed)
    t.false(stream.write(Buffer.from('nobody')))
  })

  test(`${kind}: destroyed, it closes the connection and hands over nothing more`, async (t) => {
    const { device, stream, closes } = await open(t, kind)
    let events = 0
    stream.on('drain', () => events++)
    stream.on('data', () => events++)
    device.write('on its way')
    // An end in good order or a reset, as the system has it: the device hangs up in either case.
    device.on('end', () => device.end())
    device.resume()
    const over = closed(stream)
    const hungUp = closed(device)
    stream.destroy()
    stream.destroy()
    await over
    await hungUp
    await turn()
    t.is(events, 0)
    t.is(closes(), 1)
  })

  test(`${kind}: it may be destroyed from within its own data`, async (t) => {
    const { device, stream } = await open(t, kind)
    let chunks = 0
    stream.on('data', () => {
      chunks++
      stream.destroy()
    })
    const over = closed(stream)
    device.write(Buffer.alloc(200_000))
    await over
    await turn()
    t.is(chunks, 1)
  })
}

const onBun = CAN_LIFT ? test : test.skip

onBun('on Bun the handshake with `lift` gives a lifted stream, and the accepted socket is let go', async (t) => {
  const { stream, accepted } = await open(t, 'lifted')
  t.true(stream instanceof LiftedTls)
  t.true(accepted instanceof Socket && accepted.destroyed)
  t.false(canLift(accepted as Socket))
  t.is((stream as LiftedTls).localAddress, '127.0.0.1')
  t.is((await open(t, 'portable')).stream instanceof LiftedTls, false)
})

onBun('on Bun a lifted server makes no stream of node:net for what it accepts, and it knows who it is', async (t) => {
  const { stream, accepted, device } = await open(t, 'lifted from the listener on')
  t.true(accepted instanceof LiftedTcp)
  t.true(stream instanceof LiftedTls)
  t.true(accepted.destroyed, 'what it was is handed over')
  t.is((stream as LiftedTls).localPort, device.remotePort)
})

onBun('on Bun a lifted server tells the address of a stranger, and hears how he leaves', async (t) => {
  const server = createServer({ allowHalfOpen: true, noDelay: true }, () => t.fail('a socket of node:net'))
  const port = await listening(server)
  t.teardown(() => server.close())
  const { promise, resolve } = Promise.withResolvers<LiftedTcp>()
  t.true(liftServer(server, 60_000, resolve))
  const stranger = connect(port, '127.0.0.1')
  stranger.on('error', () => {})
  await new Promise((settle) => stranger.once('connect', settle))
  const accepted = await promise
  t.is(accepted.remoteAddress, '127.0.0.1')
  t.is(accepted.remotePort, stranger.localPort)
  t.teardown(() => accepted.destroy())
  let heard = ''
  accepted.on('data', (chunk: Buffer) => {
    heard += chunk.toString()
  })
  stranger.end('hello and goodbye')
  await ended(accepted)
  t.is(heard, 'hello and goodbye')
  accepted.end()
  await closed(accepted)
  t.true(accepted.writableFinished)
})

onBun('on Bun what a lifted server has accepted waits, bounded by its socket, until somebody listens', async (t) => {
  const server = createServer({ allowHalfOpen: true, noDelay: true }, () => t.fail('a socket of node:net'))
  const port = await listening(server)
  t.teardown(() => server.close())
  const { promise, resolve } = Promise.withResolvers<LiftedTcp>()
  liftServer(server, 60_000, resolve)
  const stranger = connect(port, '127.0.0.1')
  t.teardown(() => stranger.destroy())
  const all = pattern(20_000_000)
  stranger.end(all)
  const accepted = await promise
  t.teardown(() => accepted.destroy())
  await new Promise((settle) => setTimeout(settle, 100))
  t.true(stranger.writableLength > 0, 'nobody listens and everything was taken')
  const chunks: Buffer[] = []
  accepted.on('data', (chunk: Buffer) => chunks.push(chunk))
  accepted.resume()
  await ended(accepted)
  t.true(Buffer.concat(chunks).equals(all))
})

for (const kind of KINDS) {
  test(`${kind}: what came with CONNECT is there after the dial, also from a device that did not wait for it`, async (t) => {
    const { stream, device } = await open(t, kind)
    const connect = Buffer.from([0x10, 13, 0, 4, 0x4d, 0x51, 0x54, 0x54, 4, 2, 0, 0, 0, 1, 0x61])
    const publish = Buffer.from([0x30, 5, 0, 1, 0x74, 0x68, 0x69])
    const disconnect = Buffer.from([0xe0, 0])
    // In one read, and the end right behind it.
    device.end(Buffer.concat([connect, publish, disconnect]))
    const read = await readConnect(stream, 1_024, 10_000)
    if (read.kind !== 'connect') return t.fail(read.kind)
    // A broker is looked for.
    await new Promise((settle) => setTimeout(settle, 150))
    // Who saw it close would not dial on, and what it has said would be lost.
    if (CAN_LIFT) t.not(stream.destroyed, true)
    const chunks = read.rest === null ? [] : [read.rest]
    stream.on('data', (chunk) => chunks.push(chunk))
    stream.resume()
    // One of node:tls may have told of it while nobody read.
    if (stream.readableEnded !== true) await ended(stream)
    t.deepEqual(Buffer.concat(chunks), Buffer.concat([publish, disconnect]))
    return undefined
  })
}

/** A device whose first bytes were read and given back, and that has ended since; nobody listens. */
async function endedInBetween(t: ExecutionContext): Promise<LiftedTcp> {
  const server = createServer({ allowHalfOpen: true, noDelay: true }, () => t.fail('a socket of node:net'))
  const port = await listening(server)
  t.teardown(() => server.close())
  const { promise, resolve } = Promise.withResolvers<LiftedTcp>()
  liftServer(server, 60_000, resolve)
  const device = connect(port, '127.0.0.1')
  device.on('error', () => {})
  t.teardown(() => device.destroy())
  device.write('hello')
  const accepted = await promise
  t.teardown(() => accepted.destroy())
  const { promise: read, resolve: onRead } = Promise.withResolvers<void>()
  const fail = () => t.fail('nobody listens')
  accepted.attach({
    onData(chunk) {
      accepted.attach(null)
      accepted.unshift(chunk)
      onRead()
    },
    onDrain: fail,
    onEnd: fail,
    onClose: fail,
  })
  await read
  device.end()
  for (let waited = 0; !accepted.peerEnded && waited < 5_000; waited += 5)
    await new Promise((settle) => setTimeout(settle, 5))
  t.true(accepted.peerEnded)
  t.false(accepted.readableEnded)
  return accepted
}

onBun('on Bun an end that came while nobody listened is told to whoever listens next, behind the bytes', async (t) => {
  const accepted = await endedInBetween(t)
  const heard: string[] = []
  accepted.on('data', (chunk: Buffer) => heard.push(chunk.toString()))
  await ended(accepted)
  t.deepEqual(heard, ['hello'])
})

onBun('on Bun it is told, too, when the bytes were taken before', async (t) => {
  const accepted = await endedInBetween(t)
  t.is(accepted.read()?.toString(), 'hello')
  accepted.on('data', () => t.fail('they were taken'))
  await ended(accepted)
  t.pass()
})

onBun('on Bun no handshake begins with a device that has ended', async (t) => {
  const accepted = await endedInBetween(t)
  const gone = closed(accepted)
  const error = await t.throwsAsync(
    handshake(accepted, { context, requestCert: false, alpn: null, deadlineMs: 60_000, lift: true }),
    { message: /hung up before the handshake/ },
  )
  t.is((error as unknown as { code: string }).code, 'ERR_HANDSHAKE_FAILED')
  await gone
})

for (const kind of ['portable', 'lifted from the listener on'] as const) {
  test(`${kind}: what was written before destroySoon arrives, and then it is gone, though the device stays`, async (t) => {
    const all = pattern(6_000_000)
    const gone = Promise.withResolvers<void>()
    const accept = (accepted: AcceptedSocket) => {
      accepted.on('error', () => {})
      accepted.once('close', gone.resolve)
      accepted.write(all)
      accepted.destroySoon()
    }
    const server = createServer({ allowHalfOpen: true, noDelay: true }, accept)
    t.teardown(() => server.close())
    const port = await listening(server)
    if (kind !== 'portable') t.is(liftServer(server, 60_000, accept), CAN_LIFT)
    const device = connect({ port, host: '127.0.0.1', allowHalfOpen: true })
    t.teardown(() => device.destroy())
    const chunks: Buffer[] = []
    device.on('data', (chunk: Buffer) => chunks.push(chunk))
    await ended(device)
    t.true(Buffer.concat(chunks).equals(all))
    await gone.promise
  })
}

onBun('on Bun a lifted socket that has been told its end, and is then reset, is closed', async (t) => {
  const gone = Promise.withResolvers<void>()
  const accepted = Promise.withResolvers<AcceptedSocket>()
  const server = createServer({ allowHalfOpen: true }, () => {})
  t.teardown(() => server.close())
  const port = await listening(server)
  liftServer(server, 60_000, accepted.resolve)
  const device = connect({ port, host: '127.0.0.1', allowHalfOpen: true })
  device.on('error', () => {})
  const stream = await accepted.promise
  stream.once('close', gone.resolve)
  const over = ended(stream)
  stream.resume()
  // More than fits, so that the reset finds something to break.
  stream.write(Buffer.alloc(8_000_000))
  device.pause()
  device.end()
  await over
  // Until all that fits has been sent: what is told of the reset is then a close, and no failed write.
  await new Promise((resolve) => setTimeout(resolve, 100))
  t.not(stream.destroyed, true)
  device.resetAndDestroy()
  await gone.promise
  t.true(stream.destroyed)
})

test('what is not as expected stays on the portable transport', async (t) => {
  const socketOf = (handle: unknown, more: object = {}) =>
    ({
      _handle: handle,
      destroyed: false,
      writableLength: 0,
      readableLength: 0,
      readableEnded: false,
      ...more,
    }) as unknown as Socket
  for (const handle of [null, undefined, {}, Object.create({ upgradeTLS() {}, write() {}, pause() {}, resume() {} })]) {
    const socket = socketOf(handle)
    t.false(canLift(socket))
    t.is(lifted(socket), socket as unknown as ByteStream)
  }
})
