import test from 'ava'
import type { WebSocketStream } from '../../src/wss/stream.ts'
import { until } from '../mqtt/fakes.ts'
import { ILLEGAL, LEGAL } from './frame-shapes.ts'
import { BINARY, CLOSE, CONTINUATION, closeCodeOf, closeFrame, frame, PING, PONG, upgraded } from './frames.ts'

for (const [what, frames, data] of LEGAL) {
  test(`${what}: served`, async (t) => {
    const session = upgraded(t, { maxMessageBytes: 100_000 })
    session.device.write(Buffer.concat(frames))
    await until(() => session.data().length >= data.length)
    t.is(session.data(), data)
    t.is(session.stream.fault, null)
    t.deepEqual(session.events, ['data'])
  })
}

for (const [what, frames, close, code] of ILLEGAL) {
  test(`${what}: closed with ${close}, and nothing of it is served`, async (t) => {
    const session = upgraded(t, { maxMessageBytes: 1_000 })
    session.device.write(Buffer.concat([...frames, frame(BINARY, 'after')]))
    await until(() => session.events.includes('end') && closeCodeOf(session.received()) !== null)
    t.is(closeCodeOf(session.received()), close)
    t.is(session.stream.fault?.code, code)
    t.notRegex(session.data(), /after|abc/)
    session.stream.end()
    session.device.end(closeFrame(close))
    await until(() => session.events.includes('close'))
    t.deepEqual(session.events.slice(-2), ['end', 'close'])
    t.true(session.stream.destroyed)
  })
}

const CONVERSATION = [
  frame(BINARY, 'CONN'),
  frame(BINARY, 'EC', { fin: false }),
  frame(PING, 'are you there'),
  frame(CONTINUATION, 'T!'),
  frame(BINARY, 'x'.repeat(130)),
  frame(PONG, ''),
  closeFrame(1000, 'bye'),
]

test('a conversation is the same whatever way it is cut', async (t) => {
  const bytes = Buffer.concat(CONVERSATION)
  for (let at = 1; at < bytes.length; at++) {
    const session = upgraded(t)
    session.device.write(bytes.subarray(0, at))
    session.device.write(bytes.subarray(at))
    await until(() => session.events.includes('end'))
    session.stream.end()
    await until(() => session.received().length === 2)
    t.is(session.data(), `CONNECT!${'x'.repeat(130)}`, `cut at ${at}`)
    const [pong, close] = session.received()
    t.deepEqual([pong!.opcode, pong!.payload.toString()], [PONG, 'are you there'])
    t.deepEqual([close!.opcode, close!.payload.toString('latin1')], [CLOSE, '\x03\xe8'])
  }
})

test('a conversation is the same byte by byte', async (t) => {
  const session = upgraded(t)
  for (const byte of Buffer.concat(CONVERSATION)) session.device.write(Buffer.from([byte]))
  await until(() => session.events.includes('end'))
  t.is(session.data(), `CONNECT!${'x'.repeat(130)}`)
})

test('messages of one read come as one chunk, and a large one by itself', async (t) => {
  const { stream, device } = upgraded(t, { reads: false })
  const sizes: number[] = []
  stream.on('data', (chunk) => sizes.push(chunk.length))
  const small = frame(BINARY, 'ab')
  device.write(Buffer.concat([small, small, frame(BINARY, Buffer.alloc(65_536)), small, small]))
  await until(() => sizes.reduce((sum, size) => sum + size, 0) === 65_544)
  t.deepEqual(sizes, [4, 65_536, 4])
})

test('each write is one binary frame, unmasked, of the shortest form', async (t) => {
  const { stream, received, device } = upgraded(t)
  const raw: Buffer[] = []
  device.on('data', (chunk: Buffer) => raw.push(chunk))
  for (const length of [1, 125, 126, 4_096, 4_097, 65_535, 65_536]) stream.write(Buffer.alloc(length, 7))
  await until(() => received().length === 7)
  t.deepEqual(
    received().map(({ fin, opcode, payload }) => [fin, opcode, payload.length]),
    [1, 125, 126, 4_096, 4_097, 65_535, 65_536].map((length) => [true, BINARY, length]),
  )
  t.true(received().every(({ payload }) => payload.every((byte) => byte === 7)))
  const bytes = Buffer.concat(raw)
  const first = bytes.indexOf('\r\n\r\n') + 4
  t.deepEqual([...bytes.subarray(first, first + 5)], [0x82, 1, 7, 0x82, 125])
})

test('a write of nothing sends nothing', async (t) => {
  const { stream, received } = upgraded(t)
  t.true(stream.write(Buffer.alloc(0)))
  stream.write(Buffer.from('a'))
  await until(() => received().length === 1)
  t.is(received()[0]!.payload.toString(), 'a')
})

test('a ping is answered with its own bytes [RFC 6455 §5.5.3]', async (t) => {
  const { device, received, events } = upgraded(t)
  device.write(frame(PING, 'hello'))
  await until(() => received().length === 1)
  t.deepEqual([received()[0]!.opcode, received()[0]!.payload.toString()], [PONG, 'hello'])
  t.deepEqual(events, [])
})

test('end sends Close 1000 after what was written, and the connection ends with the answer', async (t) => {
  const { stream, device, received, events } = upgraded(t)
  stream.write(Buffer.from('last'))
  stream.end()
  stream.end()
  await until(() => received().length === 2)
  t.is(received()[0]!.payload.toString(), 'last')
  t.is(closeCodeOf(received()), 1000)
  t.true(stream.write(Buffer.from('too late')))
  device.write(frame(BINARY, 'still'))
  device.end(closeFrame(1000))
  await until(() => events.includes('close'))
  t.deepEqual(events, ['data', 'end', 'close'])
  t.is(received().length, 2)
})

test('a stream that goes away for a shutdown says so with 1001', async (t) => {
  const { stream, received } = upgraded(t)
  stream.closeCode = 1001
  stream.end()
  await until(() => received().length === 1)
  t.is(closeCodeOf(received()), 1001)
})

test('a peer that never answers our Close is cut', async (t) => {
  const { stream, device, events } = upgraded(t, { closeMs: 5 })
  stream.end()
  await new Promise((resolve) => stream.on('close', resolve as () => void))
  t.deepEqual(events, ['close'])
  await until(() => device.destroyed)
  t.true(stream.destroyed)
})

test("the device's Close is an end, and what is still to be written goes out before our answer", async (t) => {
  const { stream, device, received, events } = upgraded(t)
  device.write(Buffer.concat([frame(BINARY, 'a'), closeFrame(1001)]))
  await until(() => events.includes('end'))
  t.true(stream.readableEnded)
  stream.write(Buffer.from('last words'))
  stream.end()
  await until(() => received().length === 2)
  t.is(received()[0]!.payload.toString(), 'last words')
  t.is(closeCodeOf(received()), 1001, 'its own code comes back')
  device.end()
  await until(() => events.includes('close'))
  t.deepEqual(events, ['data', 'end', 'close'])
})

test('a Close without a code is answered without one', async (t) => {
  const { stream, device, received, events } = upgraded(t)
  device.write(frame(CLOSE))
  await until(() => events.includes('end'))
  stream.end()
  await until(() => received().length === 1)
  t.deepEqual([received()[0]!.opcode, received()[0]!.payload.length], [CLOSE, 0])
})

test("the device's Close is answered after a while, even if nobody ends", async (t) => {
  const { stream, device, received, events } = upgraded(t, { answerMs: 5 })
  device.write(closeFrame(1000))
  await until(() => received().length > 0 || stream.destroyed)
  t.is(closeCodeOf(received()), 1000)
  device.end()
  await until(() => events.includes('close'))
  t.deepEqual(events, ['end', 'close'])
})

test('a FIN without a Close is an end', async (t) => {
  const { device, events } = upgraded(t)
  device.end(frame(BINARY, 'a'))
  await until(() => events.includes('close'))
  t.deepEqual(events, ['data', 'end', 'close'])
})

test('a connection that breaks off is a close without an end', async (t) => {
  const { device, events, near } = upgraded(t)
  device.destroy()
  near.destroy()
  await until(() => events.includes('close'))
  t.deepEqual(events, ['close'])
})

test('destroy ends at once, once, and is heard', async (t) => {
  const { stream, near, events } = upgraded(t)
  stream.destroy()
  stream.destroy()
  t.true(stream.destroyed)
  t.true(near.destroyed)
  await until(() => events.includes('close'))
  stream.end()
  stream.pause()
  stream.resume()
  t.true(stream.write(Buffer.from('a')))
  await until(() => true)
  t.deepEqual(events, ['close'])
})

test('nothing is read before somebody listens, and nothing is lost', async (t) => {
  const { stream, device } = upgraded(t, { reads: false })
  device.write(Buffer.concat([frame(BINARY, 'ab'), frame(BINARY, 'c')]))
  await until(() => device.writableLength === 0)
  let data = ''
  stream.on('data', (chunk) => {
    data += chunk.toString()
  })
  await until(() => data === 'abc')
  t.pass()
})

test('what came before a pause waits, with the end after it, and a gone connection is told last', async (t) => {
  const { stream, device, near, events, data } = upgraded(t, { answerMs: 1 })
  stream.pause()
  stream.on('data', () => stream.pause())
  // The second message is in the same read as the first: it is here when the reader pauses.
  device.write(Buffer.concat([frame(BINARY, 'a'), frame(BINARY, Buffer.alloc(65_536)), closeFrame(1000)]))
  stream.resume()
  await until(() => events.includes('data'))
  device.end()
  await until(() => near.destroyed)
  t.deepEqual(events, ['data'])
  t.is(data(), 'a')
  t.false(stream.destroyed)
  stream.resume()
  await until(() => events.includes('close'))
  t.is(data().length, 65_537)
  t.deepEqual(events, ['data', 'end', 'close'])
})

test('destroy gives up what waits', async (t) => {
  const { stream, device, near, events } = upgraded(t, { answerMs: 1 })
  stream.on('data', () => stream.pause())
  device.end(Buffer.concat([frame(BINARY, 'a'), frame(BINARY, Buffer.alloc(65_536)), closeFrame(1000)]))
  await until(() => near.destroyed)
  stream.destroy()
  await until(() => events.includes('close'))
  t.deepEqual(events, ['data', 'close'])
})

test('a stranger is held to a small first message, a device that was let in is not', async (t) => {
  const stranger = upgraded(t, { firstMessageBytes: 1_000 })
  stranger.device.write(frame(BINARY, '', { declared: 1_000_000n }))
  stranger.device.write(Buffer.alloc(6_000))
  await until(() => stranger.events.includes('end'))
  t.is(closeCodeOf(stranger.received()), 1009)
  t.is(stranger.stream.fault?.code, 'ERR_WEBSOCKET_TOO_LARGE')

  const device = upgraded(t, { firstMessageBytes: 1_000 })
  for (const byte of frame(BINARY, 'x'.repeat(993), { lengthBytes: 8 })) device.device.write(Buffer.from([byte]))
  device.device.write(frame(BINARY, 'CONNECT'))
  await until(() => device.data().endsWith('CONNECT'))
  device.stream.pause()
  device.stream.resume()
  device.device.write(frame(BINARY, 'x'.repeat(5_000)))
  await until(() => device.data().length === 6_000)
  t.is(device.stream.fault, null)
})

for (const [what, refuse] of [
  ['a stranger', () => {}],
  [
    'a stranger who was refused',
    ({ stream }: { stream: WebSocketStream }) => {
      stream.pause()
      stream.write(Buffer.from('CONNACK'))
      stream.end()
      stream.resume()
    },
  ],
] as const) {
  test(`${what} who sends on is not read any more, and cut`, async (t) => {
    const session = upgraded(t, { firstMessageBytes: 100_000, closeMs: 200 })
    refuse(session)
    const { device, near, stream } = session
    device.write(frame(BINARY, '', { declared: 1_000_000n }))
    for (let sent = 0; sent < 60; sent++) device.write(Buffer.alloc(16_384))
    await until(() => near.isPaused() && device.writableLength > 0)
    stream.resume()
    const waiting = device.writableLength
    t.true(waiting > 500_000, `${waiting} bytes are still with the device`)
    await new Promise((resolve) => stream.on('close', resolve as () => void))
    t.is(session.data(), '')
    t.is(stream.fault?.code ?? null, what === 'a stranger' ? 'ERR_WEBSOCKET_TOO_LARGE' : null)
  })
}

test('a first message in many small frames is served within its limit', async (t) => {
  const session = upgraded(t, { firstMessageBytes: 1_000 })
  for (let at = 0; at < 500; at++) session.device.write(frame(BINARY, 'x'))
  await until(() => session.data().length === 500)
  t.is(session.stream.fault, null)
})
