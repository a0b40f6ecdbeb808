import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net'
import test from 'ava'
import type { AcceptedSocket } from '../../src/connection.ts'
import { FAILURES } from '../../src/errors.ts'
import { CAN_LIFT } from '../../src/lifted/native.ts'
import { liftServer } from '../../src/lifted/tcp.ts'
import { sendAlert } from '../../src/tls/alert.ts'
import { NO_OPENSSL, OPENSSL, sClient } from '../support/openssl.ts'

async function serve(
  onSocket: (socket: AcceptedSocket & Pick<Socket, 'bytesRead'>) => void,
  lift = false,
): Promise<{ port: number; server: Server; close(): Promise<void> }> {
  const server = createServer({ allowHalfOpen: true }, onSocket)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  if (lift) liftServer(server, 60_000, onSocket as (socket: AcceptedSocket) => void)
  return {
    port: (server.address() as AddressInfo).port,
    server,
    close: () => new Promise((resolve) => server.close(() => resolve())),
  }
}

/** As the listener does: look at the first bytes, give them back, then refuse. */
const refusing =
  (code: number | null, done: (ended: Promise<void>) => void, flightBytes: number | 'all' | null = null) =>
  (socket: AcceptedSocket) => {
    const look = (chunk: Buffer) => {
      socket.off('data', look)
      socket.pause()
      socket.unshift(chunk)
      done(sendAlert(socket, code, flightBytes === 'all' ? chunk.length : flightBytes))
    }
    socket.on('data', look)
  }

const CODES = [...new Set(Object.values(FAILURES).map((failure) => failure.alert))].filter((code) => code !== null)
const real = OPENSSL ? test : test.skip
const TRANSPORTS = CAN_LIFT ? ['portable', 'lifted'] : ['portable']
for (const code of CODES) {
  for (const transport of TRANSPORTS) {
    for (const flight of [null, 'all'] as const) {
      const how = `${transport}, ${flight === null ? 'gently' : 'at once'}`
      real(`a real client sees alert ${code} (${OPENSSL ? how : NO_OPENSSL})`, async (t) => {
        const ended = Promise.withResolvers<void>()
        const { port, close } = await serve(refusing(code, ended.resolve, flight), transport === 'lifted')
        const { output } = await sClient({ port })
        t.regex(output, new RegExp(`SSL alert number ${code}\\n`))
        await ended.promise
        await close()
      })
    }
  }
}

for (const transport of TRANSPORTS) {
  test(`${transport}: who has said its flight and nothing else is told, and holds no socket here while it stays`, async (t) => {
    const gone: string[] = []
    const said = ['hello, and more', 'hello']
    let next = 0
    const { port, close } = await serve((socket) => {
      const what = said[next++]!
      socket.once('close', () => gone.push(what))
      refusing(112, () => {}, 5)(socket)
    }, transport === 'lifted')
    const clients: Socket[] = []
    for (const what of said) {
      const client = connect({ port, host: '127.0.0.1', allowHalfOpen: true }, () => client.write(what))
      clients.push(client)
      const heard: Buffer[] = []
      client.on('data', (chunk: Buffer) => heard.push(chunk))
      await new Promise((resolve) => client.once('end', resolve))
      t.deepEqual([...Buffer.concat(heard)], [0x15, 3, 3, 0, 2, 2, 112])
    }
    // Neither hangs up: who is listened to, though refused first, is the last to go.
    while (gone.length < 2) await new Promise((resolve) => setImmediate(resolve))
    t.deepEqual(gone, ['hello', 'hello, and more'])
    for (const client of clients) client.destroy()
    await close()
  })

  test(`${transport}: who has said more than its flight is listened to until it hangs up`, async (t) => {
    const gone = Promise.withResolvers<void>()
    let isGone = false
    const { port, close } = await serve((socket) => {
      socket.once('close', () => {
        isGone = true
        gone.resolve()
      })
      refusing(112, () => {}, 5)(socket)
    }, transport === 'lifted')
    const client = connect({ port, host: '127.0.0.1', allowHalfOpen: true }, () => client.write('hello, and more'))
    client.resume()
    await new Promise((resolve) => client.once('end', resolve))
    t.false(isGone)
    client.end()
    await gone.promise
    await close()
  })
}

test('the alert arrives whole, before an orderly end, though the client had more to say', async (t) => {
  const ended = Promise.withResolvers<void>()
  const { port, close } = await serve(refusing(112, ended.resolve))
  const heard = await new Promise<Buffer>((resolve, reject) => {
    const chunks: Buffer[] = []
    const socket = connect(port, '127.0.0.1')
    socket.on('error', reject)
    socket.on('data', (chunk: Buffer) => chunks.push(chunk))
    socket.on('end', () => resolve(Buffer.concat(chunks)))
    socket.write(Buffer.alloc(20_000, 1))
  })
  t.deepEqual([...heard], [0x15, 3, 3, 0, 2, 2, 112])
  await ended.promise
  await close()
})

test('without a code it ends in silence, orderly too', async (t) => {
  const ended = Promise.withResolvers<void>()
  const { port, close } = await serve(refusing(null, ended.resolve))
  const socket = connect(port, '127.0.0.1', () => socket.write('GET / HTTP/1.1\r\n\r\n'))
  let heard = 0
  socket.on('data', (chunk) => {
    heard += chunk.length
  })
  await new Promise<void>((resolve, reject) => {
    socket.on('error', reject)
    socket.on('end', resolve)
  })
  t.is(heard, 0)
  await ended.promise
  await close()
})

test('a client that never hangs up is cut off', async (t) => {
  const ended = Promise.withResolvers<void>()
  const { port, close } = await serve(refusing(80, ended.resolve))
  const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true }, () => socket.write('x'))
  socket.on('error', () => {})
  socket.resume()
  const start = performance.now()
  await ended.promise
  t.true(performance.now() - start < 3_000)
  socket.destroy()
  await close()
})

test('a client that goes on sending is cut off by bytes', async (t) => {
  const read = Promise.withResolvers<number>()
  const { port, close } = await serve((socket) => {
    socket.once('close', () => read.resolve(socket.bytesRead))
    refusing(80, () => {})(socket)
  })
  const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true }, () => socket.write(Buffer.alloc(16_000_000)))
  socket.on('error', () => {})
  socket.resume()
  // 64 KiB and what one read brings: the bound of time would have let all of it in.
  const bytes = await read.promise
  t.true(bytes < 2_000_000, `${bytes} bytes were read`)
  socket.destroy()
  await close()
})

test('a socket that is gone already is no trouble', async (t) => {
  const ended = Promise.withResolvers<void>()
  const { port, close } = await serve((socket) => {
    socket.destroy()
    sendAlert(socket, 112).then(ended.resolve)
  })
  const socket = connect(port, '127.0.0.1')
  socket.on('error', () => {})
  await ended.promise
  socket.destroy()
  await close()
  t.pass()
})
