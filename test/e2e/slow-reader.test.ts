// One subscriber on a bad line, and a broker that has much to say. Were the proxy to take what the subscriber does not,
// it would hold the difference in memory until there is none left, and all other sessions would go down with it.
import { createHash } from 'node:crypto'
import type { Socket } from 'node:net'
import type { Readable, Writable } from 'node:stream'
import test, { type ExecutionContext } from 'ava'
import {
  type Door,
  eventually,
  knock,
  openDoor,
  PINGREQ,
  publishPacket,
  residentBytes,
  sleep,
  startSink,
} from '../support/e2e.ts'

const STALL_SECONDS = Number(process.env.E2E_STALL_SECONDS ?? 5)
const BOUND_BYTES = 16 * 1_048_576
const MESSAGE_BYTES = 32 * 1_024
/** Read before the stall, so that the memory of a process at work is what growth is measured from. */
const WARM_BYTES = 64 * 1_048_576
/** More than the kernel takes on both connections together, by far. */
const TOTAL_BYTES = 320 * 1_048_576

/** Numbered messages as fast as the socket takes them. */
async function flood(to: Writable): Promise<{ hash: string; bytes: number }> {
  const hash = createHash('sha256')
  let bytes = 0
  let broken = false
  to.once('close', () => {
    broken = true
    to.emit('drain')
  })
  for (let number = 0; bytes < TOTAL_BYTES && !broken; number++) {
    const payload = Buffer.alloc(MESSAGE_BYTES, number & 0xff)
    payload.writeUInt32BE(number)
    const message = publishPacket('f', payload)
    hash.update(message)
    bytes += message.length
    if (!to.write(message)) await new Promise((resolve) => to.once('drain', resolve))
  }
  return { hash: hash.digest('hex'), bytes }
}

/** Reads on, hashing; `stall` is called once with everything paused. */
function drainSlowly(from: Readable, stall: () => Promise<void>): { bytes: () => number; digest(): string } {
  const hash = createHash('sha256')
  let bytes = 0
  let stalled = false
  from.on('data', (chunk: Buffer) => {
    hash.update(chunk)
    bytes += chunk.length
    if (bytes < WARM_BYTES || stalled) return
    stalled = true
    from.pause()
    void stall().then(() => from.resume())
  })
  from.resume()
  return { bytes: () => bytes, digest: () => hash.copy().digest('hex') }
}

async function stallAndWatch(t: ExecutionContext, { proxy }: Door, other: Socket, bytesRead: () => number) {
  const pid = proxy.child.pid!
  const base = residentBytes(pid)
  const stillAt = bytesRead()
  let most = base
  let answers = 0
  let asked = 0
  const onAnswer = (chunk: Buffer) => {
    answers += chunk.length / 2
  }
  other.on('data', onAnswer)
  other.resume()
  const until = Date.now() + STALL_SECONDS * 1_000
  while (Date.now() < until) {
    other.write(PINGREQ)
    asked++
    await eventually(() => answers === asked, 'an answer to the other session', 10_000)
    most = Math.max(most, residentBytes(pid))
    await sleep(50)
  }
  other.off('data', onAnswer)
  t.is(bytesRead(), stillAt, 'the reader did stop')
  t.true(answers > 0)
  const growth = most - base
  t.log(
    `${STALL_SECONDS} s: resident ${(base / 1_048_576).toFixed(1)} MiB, at most ${(growth / 1_048_576).toFixed(1)} MiB more; ${answers} answers to the other session`,
  )
  t.true(growth <= BOUND_BYTES, `${growth} bytes more`)
}

for (const direction of ['subscriber', 'broker'] as const) {
  test.serial(
    `a ${direction} that stops reading costs bounded memory, holds up nobody and loses nothing`,
    async (t) => {
      t.timeout(STALL_SECONDS * 1_000 + 120_000)
      const { promise: arrived, resolve } = Promise.withResolvers<Socket>()
      const sink = await startSink(t, (socket, clientId) => {
        if (clientId === 'slow') return resolve(socket)
        socket.on('data', (chunk) => socket.write(Buffer.alloc(chunk.length, Buffer.from([0xd0, 0]))))
        socket.resume()
      })
      const door = await openDoor(t, { backend: `kind: tcp, servers: [ { address: "127.0.0.1:${sink.port}" } ]` })
      const other = await knock(door.port, 'other')
      t.teardown(() => other.socket.destroy())
      const slow = await knock(door.port, 'slow')
      t.teardown(() => slow.socket.destroy())
      const broker = await arrived

      const [from, to] = direction === 'subscriber' ? [slow.socket, broker] : [broker, slow.socket]
      let wrote = 0
      const { promise: watched, resolve: seen, reject: failed } = Promise.withResolvers<void>()
      const reader = drainSlowly(from, async () => {
        await stallAndWatch(t, door, other.socket, () => reader.bytes()).then(seen, failed)
      })
      const flooding = flood(to).then((sent) => {
        wrote = sent.bytes
        return sent
      })
      await watched
      t.is(wrote, 0, 'the writer was held back')
      const sent = await flooding
      await eventually(() => reader.bytes() >= sent.bytes, 'all bytes', 60_000)
      t.is(reader.bytes(), sent.bytes)
      t.is(reader.digest(), sent.hash)
      t.notRegex(door.proxy.output(), /unhandled|uncaught/i)
    },
  )
}
