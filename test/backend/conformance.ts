import { once } from 'node:events'
import { readdirSync } from 'node:fs'
import { type AddressInfo, createServer, type ListenOptions, type Server, type Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { setImmediate } from 'node:timers/promises'
import type { ExecutionContext, TestFn } from 'ava'
import type { Backend } from '../../src/backend/backend.ts'
import type { AuthorizedConnection } from '../../src/connection.ts'

/** What a broker stub does with one connection; it may finish sending and still receive, or the other way round. */
export type Serve = (peer: Duplex) => void

export interface Setup {
  /** A backend of this kind before a broker stub that does this. */
  backendTo(serve: Serve): Promise<Backend>
  /** The same kind, pointed at nothing. */
  unreachable(): Promise<Backend>
  readonly connection: AuthorizedConnection
}

export const NEVER = new AbortController().signal

/** A backend looks at a connection only to tell the broker about it; here there is nothing to tell. */
export const CONNECTION = { id: 'c1', remoteAddress: '192.0.2.7', remotePort: 40_000 } as AuthorizedConnection

export const echo: Serve = (peer) => {
  peer.on('error', () => {})
  peer.pipe(peer)
}

/** Starts a server that ends with the test and takes its connections with it. */
export async function listening(t: ExecutionContext, server: Server, where: ListenOptions): Promise<Server> {
  const sockets = new Set<Socket>()
  server.on('connection', (socket: Socket) => {
    sockets.add(socket)
    socket.on('error', () => {})
    socket.once('close', () => sockets.delete(socket))
  })
  server.listen(where)
  await once(server, 'listening')
  t.teardown(async () => {
    const closed = new Promise((resolve) => server.close(resolve))
    for (const socket of sockets) socket.destroy()
    await closed
  })
  return server
}

export async function tcpServer(t: ExecutionContext, serve: Serve, host = '127.0.0.1', port = 0): Promise<number> {
  const server = await listening(t, createServer({ allowHalfOpen: true }, serve), { host, port })
  return (server.address() as AddressInfo).port
}

/** Nobody listens there, and nobody of the tests will. */
export { freePort } from '../support/ports.ts'

interface Readable {
  on(event: 'data', listener: (chunk: Buffer) => void): unknown
  on(event: 'end' | 'close', listener: () => void): unknown
}

/** Everything up to the end, as text. */
export function allOf(stream: Readable): Promise<string> {
  return new Promise((resolve) => {
    let text = ''
    stream.on('data', (chunk) => {
      text += chunk.toString()
    })
    stream.on('end', () => resolve(text))
    stream.on('close', () => resolve(text))
  })
}

/** As many characters as `wanted` has, or fewer when the stream closes first. */
export function received(stream: Readable, wanted: string): Promise<string> {
  return new Promise((resolve) => {
    let text = ''
    stream.on('data', (chunk) => {
      text += chunk.toString()
      if (text.length >= wanted.length) resolve(text)
    })
    stream.on('close', () => resolve(text))
  })
}

export function closed(stream: Pick<Readable, 'on'>): Promise<void> {
  return new Promise((resolve) => stream.on('close', resolve))
}

/** On Linux, and with nothing beside it: descriptors are counted for the whole process. */
export async function leavesNoDescriptor(t: ExecutionContext, attempts: () => Promise<unknown>): Promise<void> {
  const descriptors = () => readdirSync('/proc/self/fd').length
  const before = descriptors()
  await attempts()
  // Destroyed sockets are closed on a later turn; the test's own timeout is the limit.
  while (descriptors() > before) await setImmediate()
  t.pass()
}

/** What every kind of backend promises. A new kind calls this first and adds only what is its own. */
export function behavesLikeABackend(test: TestFn, kind: string, setup: (t: ExecutionContext) => Promise<Setup>): void {
  const open = async (t: ExecutionContext, serve: Serve) => {
    const { backendTo, connection } = await setup(t)
    const backend = await backendTo(serve)
    t.teardown(() => backend.close())
    return { backend, stream: (await backend.open(connection, NEVER)).stream }
  }

  test(`${kind}: carries bytes both ways`, async (t) => {
    const { stream } = await open(t, echo)
    stream.write(Buffer.from('ping'))
    t.is(await received(stream, 'ping'), 'ping')
  })

  test(`${kind}: an unreachable broker is a refusal the balancer may retry`, async (t) => {
    const { unreachable, connection } = await setup(t)
    const error = await t.throwsAsync((await unreachable()).open(connection, NEVER), {
      code: 'ERR_BACKEND_REFUSED',
    })
    t.is(error.name, 'ProxyError')
  })

  test(`${kind}: an aborted signal ends the attempt`, async (t) => {
    const { backendTo, connection } = await setup(t)
    const backend = await backendTo(echo)
    await t.throwsAsync(backend.open(connection, AbortSignal.abort()), { name: 'ProxyError' })
    const controller = new AbortController()
    const opening = backend.open(connection, controller.signal)
    controller.abort()
    await t.throwsAsync(opening, { name: 'ProxyError' })
  })

  test(`${kind}: a signal that comes after the attempt is over changes nothing`, async (t) => {
    const { backendTo, connection } = await setup(t)
    const backend = await backendTo(echo)
    t.teardown(() => backend.close())
    const controller = new AbortController()
    const { stream } = await backend.open(connection, controller.signal)
    controller.abort()
    stream.write(Buffer.from('ping'))
    t.is(await received(stream, 'ping'), 'ping')
  })

  test(`${kind}: nothing flows before somebody listens`, async (t) => {
    const asked = Promise.withResolvers<void>()
    const { stream } = await open(t, (peer) => {
      peer.write('greeting')
      peer.once('data', () => asked.resolve())
    })
    stream.write(Buffer.from('?'))
    await asked.promise
    t.is(await received(stream, 'greeting'), 'greeting')
  })

  test(`${kind}: our end reaches the broker, and its last words still reach us`, async (t) => {
    const { stream } = await open(t, (peer) => {
      peer.on('end', () => peer.end('last words')).resume()
    })
    stream.end()
    t.is(await allOf(stream), 'last words')
    await closed(stream)
  })

  test(`${kind}: the broker's end reaches us, and our last words still reach it`, async (t) => {
    const heard = Promise.withResolvers<string>()
    const { stream } = await open(t, (peer) => {
      peer.end('over')
      heard.resolve(allOf(peer))
    })
    t.is(await allOf(stream), 'over')
    stream.write(Buffer.from('and out'))
    stream.end()
    t.is(await heard.promise, 'and out')
  })

  test(`${kind}: writing to a broker that does not read returns false, and drain follows when it does`, async (t) => {
    const peers = Promise.withResolvers<Duplex>()
    const { stream } = await open(t, (peer) => peers.resolve(peer.pause()))
    const chunk = Buffer.alloc(65_536)
    let sent = 0
    while (stream.write(chunk)) t.true(++sent < 1_000, 'somebody queues without a bound')
    const drained = new Promise<void>((resolve) => stream.on('drain', resolve))
    ;(await peers.promise).resume()
    await drained
    t.pass()
  })

  test(`${kind}: a broker that breaks off is a close, and no error that nobody hears`, async (t) => {
    const { stream } = await open(t, (peer) => {
      peer.on('error', () => {})
      peer.once('data', () => peer.destroy())
    })
    const ended = closed(stream)
    stream.on('data', () => {})
    stream.on('end', () => stream.end())
    stream.write(Buffer.from('?'))
    await ended
    t.pass()
  })

  test(`${kind}: close ends what is open and opens no more`, async (t) => {
    const { backend, stream } = await open(t, echo)
    const ended = closed(stream)
    await backend.close()
    await ended
    await t.throwsAsync(backend.open(CONNECTION, NEVER), { code: 'ERR_BACKEND_REFUSED' })
  })
}
