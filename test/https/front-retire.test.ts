// After a reload a connection is served to its next answer by the settings that let it in, and told that it was the last.
import test from 'ava'
import { ProxyError } from '../../src/errors.ts'
import { front, LIMITS, ManualTimer, post } from './front-harness.ts'

test('a connection that waits gets one more answer, with the word that it was the last', async (t) => {
  const { connect, handler, published, endings } = await front(t)
  const device = await connect()
  device.send(post('a'))
  t.is((await device.answer()).headers.get('connection'), 'keep-alive')
  handler.retire()
  device.send(post('b'))
  const last = await device.answer()
  t.is(last.status, 200)
  t.is(last.headers.get('connection'), 'close')
  await device.closed
  t.deepEqual(published, ['a', 'b'])
  device.socket.destroy()
  t.is(await endings[0], 'downstream')
})

test('a request under way is answered, and the connection ends with it', async (t) => {
  const { promise, resolve } = Promise.withResolvers<void>()
  const { connect, handler } = await front(t, {
    parts: { publisher: () => ({ publish: () => promise, close: async () => {} }) },
  })
  const device = await connect()
  device.send(post('a'))
  await new Promise((soon) => setTimeout(soon, 50))
  handler.retire()
  resolve()
  const last = await device.answer()
  t.is(last.status, 200)
  t.is(last.headers.get('connection'), 'close')
  await device.closed
})

test('one whose handshake ended after the reload is told with its first answer', async (t) => {
  const { connect, handler } = await front(t)
  handler.retire()
  const device = await connect()
  device.send(post('a'))
  t.is((await device.answer()).headers.get('connection'), 'close')
  await device.closed
})

test('one that never asks again goes when its time for that is over, and that is no failure', async (t) => {
  const manual = new ManualTimer()
  const { connect, handler, endings } = await front(t, { timer: manual.timer })
  const device = await connect()
  device.send(post('a'))
  await device.answer()
  handler.retire()
  t.true(manual.fire(LIMITS.idleTimeoutMs) > 0)
  await device.closed
  device.socket.destroy()
  t.false((await endings[0]) instanceof ProxyError)
})
