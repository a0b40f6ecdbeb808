import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { setImmediate } from 'node:timers/promises'
import test, { type ExecutionContext } from 'ava'
import {
  type ByteStream,
  type Inspector,
  type RelayOptions,
  relay,
  type Side,
  throwAway,
  type Way,
} from '../src/relay.ts'
import { FakeStream, until } from './mqtt/fakes.ts'

/** Both ends of one connection over loopback. */
async function pair(t: ExecutionContext): Promise<[near: Socket, far: Socket]> {
  const server = createServer({ allowHalfOpen: true, pauseOnConnect: true }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const accepted = once(server, 'connection')
  const far = connect({ port: (server.address() as AddressInfo).port, host: '127.0.0.1', allowHalfOpen: true })
  const [near] = (await accepted) as [Socket]
  await (far.connecting ? once(far, 'connect') : null)
  for (const socket of [near, far]) socket.on('error', () => {})
  t.teardown(() => {
    near.destroy()
    far.destroy()
    server.close()
  })
  return [near, far]
}

function counting(): Inspector & { bytes: number; holds: number; way: Way | null } {
  return {
    bytes: 0,
    holds: 0,
    way: null,
    attached(way) {
      this.way = way
    },
    inspect(chunk) {
      this.bytes += chunk.length
      this.way!.pass(chunk)
    },
    held(paused) {
      if (paused) this.holds++
    },
  }
}

/** With its end as a promise. */
function relayed(device: ByteStream, upstream: ByteStream, options: Omit<RelayOptions, 'over'>) {
  const { promise: done, resolve: over } = Promise.withResolvers<Side | null>()
  const link = relay(device, upstream, { ...options, over })
  return { close: (last: Buffer | null) => link.close(last), done }
}

const TOTAL = 64 * 1_048_576
const CHUNK = 65_536

/** What may wait in the relay's own heap: one high-water mark and one read. */
const BOUND = 2 * 1_048_576

const sha = () => createHash('sha256')

for (const way of ['inbound', 'outbound'] as const) {
  test(`${way}: a reader that stops stops the writer, and nothing is lost when it goes on`, async (t) => {
    const [device, deviceFar] = await pair(t)
    const [upstream, brokerFar] = await pair(t)
    const inbound = counting()
    const outbound = counting()
    const link = relayed(device, upstream, { inbound, outbound, upstreamLost: () => null, halfCloseMs: 60_000 })
    device.resume()
    upstream.resume()
    const [writer, reader, to, meter] =
      way === 'inbound' ? [deviceFar, brokerFar, upstream, inbound] : [brokerFar, deviceFar, device, outbound]
    reader.pause()

    const sent = sha()
    let written = 0
    let largest = 0
    const write = async () => {
      for (let at = 0; at < TOTAL; at += CHUNK) {
        const chunk = Buffer.alloc(CHUNK, `${at}-`)
        sent.update(chunk)
        written += CHUNK
        if (!writer.write(chunk)) await once(writer, 'drain')
      }
      writer.end()
    }
    const writing = write()

    // The way fills up: first the reader's buffers, then ours, then the writer's.
    await until(() => meter.holds > 0)
    let still = 0
    for (let seen = -1; still < 500; ) {
      await setImmediate()
      largest = Math.max(largest, to.writableLength)
      still = meter.bytes === seen ? still + 1 : 0
      seen = meter.bytes
    }
    t.true(written < TOTAL, 'the writer was made to wait')
    t.true(meter.bytes < TOTAL / 2, `${meter.bytes} bytes taken`)
    t.true(largest > 0 && largest < BOUND, `${largest} bytes in the heap`)

    const received = sha()
    let length = 0
    reader.on('data', (chunk: Buffer) => {
      received.update(chunk)
      length += chunk.length
      largest = Math.max(largest, to.writableLength)
    })
    const end = once(reader, 'end')
    reader.resume()
    writer.resume()
    await Promise.all([writing, end])
    reader.end()
    await link.done
    t.is(length, TOTAL)
    t.is(meter.bytes, TOTAL)
    t.is(received.digest('hex'), sent.digest('hex'))
    t.true(largest < BOUND, `${largest} bytes in the heap`)
  })
}

test('both ways at once, byte-exact, with a half-close in between', async (t) => {
  const [device, deviceFar] = await pair(t)
  const [upstream, brokerFar] = await pair(t)
  const link = relayed(device, upstream, {
    inbound: counting(),
    outbound: counting(),
    upstreamLost: () => null,
    halfCloseMs: 60_000,
  })
  device.resume()
  upstream.resume()
  const heard = { device: '', broker: '' }
  deviceFar.setEncoding('latin1').on('data', (text) => {
    heard.device += text
  })
  brokerFar.setEncoding('latin1').on('data', (text) => {
    heard.broker += text
  })
  const brokerSawEnd = once(brokerFar, 'end')
  const deviceSawEnd = once(deviceFar, 'end')
  deviceFar.end('in'.repeat(50_000))
  await brokerSawEnd
  brokerFar.end('out'.repeat(50_000))
  await deviceSawEnd
  t.is(await link.done, 'downstream')
  t.true(heard.broker === 'in'.repeat(50_000) && heard.device === 'out'.repeat(50_000))
})

test('our last word reaches a device that we have left unread', async (t) => {
  const [device, deviceFar] = await pair(t)
  const [upstream, brokerFar] = await pair(t)
  const link = relayed(device, upstream, {
    inbound: counting(),
    outbound: counting(),
    upstreamLost: () => null,
    halfCloseMs: 60_000,
  })
  let heard = ''
  deviceFar.on('data', (chunk: Buffer) => {
    heard += chunk.toString('hex')
  })
  deviceFar.write(Buffer.alloc(200_000))
  brokerFar.resume().on('end', () => brokerFar.end())
  const end = once(deviceFar, 'end')
  link.close(Buffer.from('e0028b00', 'hex'))
  await end
  deviceFar.end()
  t.is(await link.done, null)
  t.is(heard, 'e0028b00')
})

// --- by hand

function byHand(options: Partial<RelayOptions> = {}) {
  const device = new FakeStream()
  const upstream = new FakeStream()
  const link = (): ReturnType<typeof relayed> => {
    const made = relayed(device, upstream, {
      inbound: counting(),
      outbound: counting(),
      upstreamLost: () => null,
      halfCloseMs: 60_000,
      ...options,
    })
    device.resume()
    upstream.resume()
    return made
  }
  return { device, upstream, link }
}

test('the chunk that arrives is the chunk that leaves', (t) => {
  const { device, upstream, link } = byHand()
  link()
  const chunk = Buffer.from('c000', 'hex')
  const left: Uint8Array[] = []
  upstream.write = (leaving) => {
    left.push(leaving)
    return true
  }
  device.say(chunk)
  t.is(left[0], chunk)
  device.destroy()
})

test('of a chunk goes on what its inspector passes, and after the end of the session nothing', (t) => {
  const inbound = counting()
  const { device, upstream, link } = byHand({ inbound })
  inbound.inspect = (chunk) => {
    inbound.bytes += chunk.length
    inbound.way!.pass(chunk.subarray(0, 1))
    made.close(null)
    inbound.way!.pass(chunk.subarray(1))
  }
  const made = link()
  device.say('c000', 'c000')
  t.deepEqual([upstream.heard, inbound.bytes, upstream.finished, device.finished], ['c0', 2, true, true])
  device.destroy()
  upstream.destroy()
})

test('a device that does not take our answers is not read from, and the broker neither', (t) => {
  const inbound = counting()
  const outbound = counting()
  const { device, upstream, link } = byHand({ inbound, outbound })
  link()
  device.roomy = false
  outbound.way!.say(Buffer.from('40020001', 'hex'))
  t.deepEqual([device.flowing, upstream.flowing, inbound.holds, outbound.holds], [false, false, 1, 1])
  device.roomy = true
  device.emit('drain')
  t.deepEqual([device.flowing, upstream.flowing, device.heard], [true, true, '40020001'])
  device.destroy()
})

test('a direction is read again when every reason to hold it is gone', (t) => {
  const inbound = counting()
  const { device, upstream, link } = byHand({ inbound })
  link()
  upstream.roomy = false
  inbound.way!.pass(Buffer.from('c000', 'hex'))
  inbound.way!.hold(true)
  upstream.emit('drain')
  t.false(device.flowing)
  inbound.way!.hold(false)
  t.true(device.flowing)
  t.is(inbound.holds, 1)
  upstream.emit('drain')
  device.destroy()
})

test('a side that was gone before we listened ends the other', async (t) => {
  const lost = byHand()
  lost.device.destroyed = true
  t.is(await lost.link().done, 'downstream')
  t.true(lost.upstream.destroyed)

  const word = Buffer.from('e0028000', 'hex')
  const broken = byHand({ upstreamLost: () => word })
  broken.upstream.destroyed = true
  const link = broken.link()
  await until(() => broken.device.finished)
  t.deepEqual([broken.device.heard, broken.device.finished], ['e0028000', true])
  broken.device.say(null)
  t.is(await link.done, 'upstream')
})

test('a side that is closed by the end of the other is one end', (t) => {
  const { device, upstream } = byHand()
  // No stream of ours tells it so soon.
  upstream.destroy = () => void upstream.emit('close')
  const ends: (Side | null)[] = []
  const [inbound, outbound] = [counting(), counting()]
  const over = (side: Side | null) => void ends.push(side)
  relay(device, upstream, { inbound, outbound, upstreamLost: () => null, halfCloseMs: 60_000, over })
  device.emit('close')
  t.deepEqual(ends, ['downstream'])
})

test('a half-closed side is not waited for for ever', async (t) => {
  const { device, upstream, link } = byHand({ halfCloseMs: 1 })
  const made = link()
  device.say(null)
  t.is(await made.done, 'downstream')
  t.true(upstream.finished && upstream.destroyed && device.destroyed)
})

test('what comes after our last word is thrown away, and who goes on and on is cut off', async (t) => {
  const device = new FakeStream()
  throwAway(device)
  for (let kilobytes = 0; kilobytes < 256; kilobytes++) device.say(Buffer.alloc(1_024))
  await until(() => device.flowing)
  t.false(device.destroyed)
  device.say(Buffer.alloc(1))
  await until(() => device.destroyed)
  t.true(device.destroyed)
})
