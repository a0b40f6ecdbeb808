import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'
import test, { type ExecutionContext } from 'ava'
import type { CloseReason, SecuredConnection, Trace } from '../../src/connection.ts'
import { httpsHandler } from '../../src/https/request.ts'

/** A device's socket on which the handler serves; TLS is not its business, so none is in the way. */
async function served(
  t: ExecutionContext,
  deadlineMs: number,
  signal: AbortSignal,
): Promise<{ device: Socket; reason: Promise<CloseReason> }> {
  const handler = httpsHandler(deadlineMs)
  const { promise: reason, resolve } = Promise.withResolvers<CloseReason>()
  const server = createServer((socket) => {
    socket.on('error', () => {})
    void handler.serve({ tls: socket } as unknown as SecuredConnection, {} as Trace, signal).then(resolve)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => server.close())
  const device = connect((server.address() as { port: number }).port, '127.0.0.1')
  device.on('error', () => {})
  t.teardown(() => device.destroy())
  await once(device, 'connect')
  return { device, reason }
}

test('a request is told that this way in is not served, in the form of the data plane', async (t) => {
  const { device, reason } = await served(t, 10_000, new AbortController().signal)
  let answer = ''
  device.on('data', (chunk: Buffer) => {
    answer += chunk.toString()
  })
  device.write('POST /topics/a HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n\r\nhi')
  await once(device, 'end')
  t.regex(answer, /^HTTP\/1\.1 501 /)
  t.regex(answer, /x-amzn-ErrorType: NotImplementedException:\r\n/)
  device.end()
  t.is(await reason, 'ERR_MODE_UNSERVED')
})

test('a WebSocket upgrade is told the same', async (t) => {
  const { device } = await served(t, 10_000, new AbortController().signal)
  device.write(
    'GET /mqtt HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n',
  )
  const [chunk] = (await once(device, 'data')) as [Buffer]
  t.regex(chunk.toString(), /^HTTP\/1\.1 501 /)
})

test('one deadline ends a stranger that drips, however often it drips', async (t) => {
  const { device, reason } = await served(t, 300, new AbortController().signal)
  const drip = setInterval(() => device.write('x'), 50)
  t.teardown(() => clearInterval(drip))
  t.is(await reason, 'ERR_MODE_UNSERVED')
})

test('a process that stops taking in devices cuts those that wait here', async (t) => {
  const stopping = new AbortController()
  const { reason } = await served(t, 60_000, stopping.signal)
  setImmediate(() => stopping.abort())
  t.is(await reason, 'ERR_MODE_UNSERVED')
})
