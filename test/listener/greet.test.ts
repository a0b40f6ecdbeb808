import { PassThrough } from 'node:stream'
import test from 'ava'
import type { AcceptedSocket } from '../../src/connection.ts'
import { type Greeting, greet } from '../../src/listener/greet.ts'

const OPTIONS = { host: '127.0.0.1', port: 0, as: 8883, proxyProtocol: null, helloTimeoutMs: 60_000 }

const greeted = (socket: AcceptedSocket, address: string | null, waitedMs = 0) =>
  new Promise<Greeting>((resolve, reject) =>
    greet(socket, address, OPTIONS, waitedMs, (met) => (met instanceof Error ? reject(met) : resolve(met))),
  )

const accepted = (): PassThrough & AcceptedSocket => new PassThrough() as PassThrough & AcceptedSocket

test('whoever went while it waited for its turn is a probe, and nobody waits for the deadline', async (t) => {
  const reset = accepted()
  reset.destroy()
  await new Promise((resolve) => reset.once('close', resolve))
  t.deepEqual(await greeted(reset, '192.0.2.1'), { kind: 'probe' })

  const ended = accepted()
  ended.end()
  ended.resume()
  await new Promise((resolve) => ended.once('end', resolve))
  t.deepEqual(await greeted(ended, '192.0.2.1'), { kind: 'probe' })
})

test('a refusal leaves no listener behind', async (t) => {
  const socket = accepted()
  const greeting = greeted(socket, '192.0.2.1')
  socket.write('GET / HTTP/1.1\r\n')
  await t.throwsAsync(greeting, { message: /first bytes 474554/ })
  for (const event of ['data', 'drain', 'end', 'close'] as const) {
    t.false(
      socket.listeners(event).some((listener) => /listener\.on/.test(String(listener))),
      event,
    )
  }
  socket.destroy()
})

test('who has no address is not judged by its bytes', async (t) => {
  const socket = accepted()
  const greeting = greeted(socket, null)
  socket.write('SSH-2.0-x\r\n')
  socket.destroy()
  t.deepEqual(await greeting, { kind: 'probe' })
})

test('what it waited for its turn counts for the deadline of the hello', async (t) => {
  const slow = accepted()
  const error = await t.throwsAsync(greeted(slow, '192.0.2.1', OPTIONS.helloTimeoutMs), {
    message: /0 bytes in 60000 ms/,
  })
  t.is((error as unknown as { code: string }).code, 'ERR_HELLO_TIMEOUT')
  slow.destroy()
})
