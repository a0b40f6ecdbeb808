// Many subscribers at once stop reading while the broker has much to say to each. What the gateway holds for one of them it
// holds for all, and memory that is bounded per session is still the end of the process if the bound is large enough.
import type { Socket } from 'node:net'
import test, { type ExecutionContext } from 'ava'
import {
  type Device,
  eventually,
  knock,
  openDoor,
  PINGREQ,
  publishPacket,
  residentBytes,
  sleep,
  startSink,
} from '../support/e2e.ts'

const SUBSCRIBERS = Number(process.env.E2E_SUBSCRIBERS ?? 50)
const SECONDS = Number(process.env.E2E_STALL_SECONDS ?? 5)
/** Of all of them together. A kernel's own buffers are not in it. */
const BYTES_PER_SECOND = 20_000_000
const MESSAGE_BYTES = 32 * 1_024
/**
 * What one that does not read may cost: the marks of both sockets, a chunk under way, and the same encrypted. Measured with
 * 200 of them: 110 to 210 KiB on Bun's own sockets, 240 to 400 on Bun's streams, 550 to 600 on Node's. And garbage, once.
 */
const EACH_BYTES = 768 * 1_024
const GARBAGE_BYTES = 64 * 1_048_576

/** Offers each of them so much a second, as a broker does, and takes no for an answer. */
function flood(sockets: readonly Socket[]): { stop(): void; taken(): number } {
  const message = publishPacket('f', Buffer.alloc(MESSAGE_BYTES, 0x78))
  const full = new Set<Socket>()
  let taken = 0
  const each = Math.max(1, Math.round(BYTES_PER_SECOND / 20 / sockets.length / MESSAGE_BYTES))
  const timer = setInterval(() => {
    for (const socket of sockets) {
      for (let index = 0; index < each && !full.has(socket) && !socket.destroyed; index++) {
        taken += message.length
        if (socket.write(message)) continue
        full.add(socket)
        socket.once('drain', () => full.delete(socket))
      }
    }
  }, 50)
  return { stop: () => clearInterval(timer), taken: () => taken }
}

async function setting(t: ExecutionContext, extra: string) {
  const brokers: Socket[] = []
  const sink = await startSink(t, (socket, clientId) => {
    if (clientId.startsWith('slow')) {
      brokers.push(socket)
      return
    }
    socket.on('data', (chunk) => socket.write(Buffer.alloc(chunk.length, Buffer.from([0xd0, 0]))))
    socket.resume()
  })
  const door = await openDoor(t, { backend: `kind: tcp, servers: [ { address: "127.0.0.1:${sink.port}" } ]`, extra })
  const other = await knock(door.port, 'other')
  t.teardown(() => other.socket.destroy())
  const slow: Device[] = []
  for (let index = 0; index < SUBSCRIBERS; index++) slow.push(await knock(door.port, `slow-${index}`))
  t.teardown(() => {
    for (const { socket } of slow) socket.destroy()
  })
  await eventually(() => brokers.length === SUBSCRIBERS, 'all of them at the broker')
  return { sink, door, other, slow, brokers }
}

test.serial(`${SUBSCRIBERS} subscribers that stop reading cost bounded memory each, and hold up nobody`, async (t) => {
  t.timeout(SECONDS * 1_000 + 150_000)
  const { door, other, brokers } = await setting(t, '')
  const pid = door.proxy.child.pid!
  const base = residentBytes(pid)
  const flooding = flood(brokers)
  t.teardown(() => flooding.stop())
  let [most, asked, answered] = [base, 0, 0]
  other.socket.on('data', (chunk: Buffer) => {
    answered += chunk.length / 2
  })
  other.socket.resume()
  const until = performance.now() + SECONDS * 1_000
  let worst = 0
  while (performance.now() < until) {
    other.socket.write(PINGREQ)
    asked++
    const sent = performance.now()
    await eventually(() => answered === asked, 'an answer to the other session', 10_000)
    worst = Math.max(worst, performance.now() - sent)
    most = Math.max(most, residentBytes(pid))
    await sleep(20)
  }
  const each = (most - base) / SUBSCRIBERS
  t.log(
    `${SECONDS} s: ${(flooding.taken() / 1_048_576).toFixed(0)} MiB taken; ${(each / 1_024).toFixed(0)} KiB resident for each of ${SUBSCRIBERS} at most, ${((residentBytes(pid) - base) / SUBSCRIBERS / 1_024).toFixed(0)} at the end; ${answered} answers to the other session, the slowest after ${worst.toFixed(0)} ms`,
  )
  t.true(most - base < GARBAGE_BYTES + EACH_BYTES * SUBSCRIBERS, `${each} bytes each`)
  t.is(door.proxy.child.exitCode, null)
  t.notRegex(door.proxy.output(), /unhandled|uncaught/i)
})

test.serial('past slowConsumerTimeout they are closed and counted, and the others are not', async (t) => {
  t.timeout(150_000)
  const { sink, door, other, brokers } = await setting(t, 'limits: { slowConsumerTimeout: 2s }')
  const flooding = flood(brokers)
  t.teardown(() => flooding.stop())
  const closed = () => door.proxy.metric('brokergate_connections_closed_total{reason="slow_consumer"}')
  await eventually(() => closed().then((n) => n === SUBSCRIBERS), 'all of them closed', 60_000)
  flooding.stop()
  await eventually(() => sink.live.size === 1, 'one connection to the broker', 20_000)
  t.is(await door.proxy.metric('brokergate_limits_exceeded_total{limit="slow_consumer"}'), SUBSCRIBERS)
  t.is(await door.proxy.metric('brokergate_sessions'), 1)
  t.false(other.socket.destroyed)
})
