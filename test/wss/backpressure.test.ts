import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { createServer } from 'node:http'
import { type AddressInfo, connect, type Socket } from 'node:net'
import { setImmediate } from 'node:timers/promises'
import test, { type ExecutionContext } from 'ava'
import type { WebSocketStream } from '../../src/wss/stream.ts'
import { type UpgradeOptions, upgrade } from '../../src/wss/upgrade.ts'
import { until } from '../mqtt/fakes.ts'
import { BINARY, CONTINUATION, closeCodeOf, frame, LIMITS, PING, PONG, parseFrames, REQUEST_HEADERS } from './frames.ts'

/**
 * A stream that nobody reads, or a device that does not read, must hold up the other end and not fill our memory. And
 * whatever a device sends in its smallest pieces must cost no more than its own bytes.
 */

interface Served {
  readonly stream: WebSocketStream
  readonly device: Socket
}

/** A device over loopback whose upgrade was answered; neither end reads yet. */
async function served(t: ExecutionContext, options: Partial<UpgradeOptions> = {}): Promise<Served> {
  const accepted = Promise.withResolvers<WebSocketStream>()
  const server = createServer().listen(0, '127.0.0.1')
  server.on('upgrade', (request, socket, head) => {
    const result = upgrade(request, socket, head, { ...LIMITS, ...options })
    if (result.kind === 'accepted') accepted.resolve(result.stream)
    else accepted.reject(new Error(result.detail))
  })
  await once(server, 'listening')
  const device = connect({ port: (server.address() as AddressInfo).port, host: '127.0.0.1' })
  device.on('error', () => {})
  const headers = Object.entries(REQUEST_HEADERS).map(([name, value]) => `${name}: ${value}\r\n`)
  device.write(`GET /mqtt HTTP/1.1\r\n${headers.join('')}\r\n`)
  const stream = await accepted.promise
  await once(device, 'readable')
  const answer = String(device.read())
  if (!answer.endsWith('\r\n\r\n')) throw new Error(`not only the answer: ${answer}`)
  t.teardown(async () => {
    device.destroy()
    stream.destroy()
    await new Promise((resolve) => server.close(resolve))
  })
  return { stream, device }
}

const TOTAL = 64 * 1_048_576
const PAYLOAD = 16_384

/** Both sockets' buffers in the kernel and ours. */
const BOUND = 16 * 1_048_576

/** Writes until the other end stops taking, and says how much went before. */
async function writeUntilStuck(write: () => boolean, drained: () => boolean): Promise<number> {
  let bytes = 0
  let still = 0
  while (still < 200 && bytes < TOTAL) {
    if (drained()) {
      while (write()) bytes += PAYLOAD
      still = 0
    } else still++
    await setImmediate()
  }
  return bytes
}

test('inbound: a session that does not read stops the device, and nothing is lost when it goes on', async (t) => {
  const { stream, device } = await served(t)
  stream.pause()
  const sent = createHash('sha256')
  let messages = 0
  const write = () => {
    const payload = Buffer.alloc(PAYLOAD, `${messages++}-`)
    sent.update(payload)
    return device.write(frame(BINARY, payload))
  }
  const stuckAt = await writeUntilStuck(write, () => !device.writableNeedDrain)
  t.true(stuckAt < BOUND, `${stuckAt} bytes were taken`)

  const got = createHash('sha256')
  let bytes = 0
  stream.on('data', (chunk) => {
    got.update(chunk)
    bytes += chunk.length
    // One step at a time: a pause must hold what is in the same read.
    stream.pause()
    queueMicrotask(() => stream.resume())
  })
  stream.resume()
  await until(() => bytes === messages * PAYLOAD)
  t.is(got.digest('hex'), sent.digest('hex'))
})

test('outbound: a device that does not read stops the writer, drain follows, and nothing is lost', async (t) => {
  const { stream, device } = await served(t)
  const sent = createHash('sha256')
  let messages = 0
  let drained = true
  let drains = 0
  stream.on('drain', () => {
    drained = true
    drains++
  })
  const write = () => {
    const payload = Buffer.alloc(PAYLOAD, `${messages++}-`)
    sent.update(payload)
    drained = stream.write(payload)
    return drained
  }
  const stuckAt = await writeUntilStuck(write, () => drained)
  t.true(stuckAt < BOUND, `${stuckAt} bytes were taken`)
  t.false(drained)

  const got = createHash('sha256')
  let bytes = 0
  let rest: Buffer = Buffer.alloc(0)
  device.on('data', (chunk: Buffer) => {
    const parsed = parseFrames(Buffer.concat([rest, chunk]))
    rest = Buffer.from(parsed.rest)
    for (const { payload } of parsed.frames) {
      got.update(payload)
      bytes += payload.length
    }
  })
  await until(() => bytes === messages * PAYLOAD)
  await until(() => drained)
  t.is(got.digest('hex'), sent.digest('hex'))
  t.true(drains > 0)
})

test('while paused at most one message and one read wait, whatever their number', async (t) => {
  const { stream, device } = await served(t)
  const small = frame(BINARY, 'x')
  const many = Buffer.concat(Array.from({ length: 20_000 }, () => small))
  let seen = 0
  stream.on('data', (chunk) => {
    seen += chunk.length
    stream.pause()
  })
  device.write(many)
  for (let round = 0; seen < 20_000; round++) {
    t.true(round < 1_000_000)
    const before = seen
    stream.resume()
    await setImmediate()
    // A read is 64 KiB; a runtime may have a few of them under way.
    t.true(seen - before <= (8 * 65_536) / small.length, `${seen - before} messages in one turn`)
  }
  t.is(seen, 20_000)
})

const RSS_MB = 50

/** What an attack adds to the process, at its worst. */
async function rssDuring(attack: () => Promise<void>): Promise<number> {
  const before = process.memoryUsage.rss()
  let most = before
  const timer = setInterval(() => {
    most = Math.max(most, process.memoryUsage.rss())
  }, 5)
  await attack()
  clearInterval(timer)
  return (Math.max(most, process.memoryUsage.rss()) - before) / 1_048_576
}

/** In writes of about a read each, as fast as they are taken. */
async function flood(device: Socket, one: Buffer, count: number, over: () => boolean): Promise<void> {
  const batch = Math.ceil(65_536 / one.length)
  const bytes = Buffer.concat(Array.from({ length: batch }, () => one))
  for (let sent = 0; sent < count && !over(); sent += batch) {
    device.write(bytes)
    while (device.writableNeedDrain && !over()) await setImmediate()
  }
}

for (const [what, payload] of [
  ['of one byte', 'x'],
  ['that are empty', ''],
] as const) {
  test.serial(`200,000 fragments ${what}: closed, with ${RSS_MB} MB at most`, async (t) => {
    const { stream, device } = await served(t)
    const frames: Buffer[] = []
    device.on('data', (chunk: Buffer) => frames.push(chunk))
    let bytes = 0
    stream.on('data', (chunk) => {
      bytes += chunk.length
    })
    const grown = await rssDuring(async () => {
      device.write(frame(BINARY, payload, { fin: false }))
      await flood(device, frame(CONTINUATION, payload, { fin: false }), 200_000, () => stream.readableEnded)
      await until(() => stream.readableEnded && frames.length > 0)
    })
    t.true(grown < RSS_MB, `${grown} MB`)
    t.is(bytes, 0)
    t.is(stream.fault?.code, 'ERR_WEBSOCKET_TOO_LARGE')
    t.is(closeCodeOf(parseFrames(Buffer.concat(frames)).frames), 1008)
  })
}

test.serial(`a message in 20,000 reads of one byte: closed, with ${RSS_MB} MB at most`, async (t) => {
  const { stream, device } = await served(t)
  device.setNoDelay(true)
  stream.on('data', () => {})
  const grown = await rssDuring(async () => {
    device.write(frame(BINARY, '', { declared: 100_000n }))
    for (let sent = 0; sent < 20_000 && !stream.readableEnded; sent++) {
      device.write('x')
      await setImmediate()
    }
  })
  t.true(grown < RSS_MB, `${grown} MB`)
  // The kernel may join what was written byte by byte; then there were fewer reads, and the message is still awaited.
  t.true(stream.fault === null || stream.fault.code === 'ERR_WEBSOCKET_TOO_LARGE')
})

test.serial(`200,000 pings of a device that does not read: ${RSS_MB} MB at most, and it is still served`, async (t) => {
  const { stream, device } = await served(t)
  let data = ''
  stream.on('data', (chunk) => {
    data += chunk.toString()
  })
  const grown = await rssDuring(async () => {
    await flood(device, frame(PING, 'x'.repeat(125)), 200_000, () => stream.destroyed)
    device.write(frame(BINARY, 'still here'))
    await until(() => data === 'still here')
  })
  t.true(grown < RSS_MB, `${grown} MB`)
  t.is(stream.fault, null)
  const seen: Buffer[] = []
  device.on('data', (chunk: Buffer) => seen.push(chunk))
  stream.write(Buffer.from('answer'))
  await until(() => Buffer.concat(seen).includes('answer'))
  const { frames } = parseFrames(Buffer.concat(seen))
  t.true(frames.length > 1 && frames.length < 200_000)
  t.true(frames.slice(0, -1).every(({ opcode }) => opcode === PONG || opcode === BINARY))
})
