import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import test from 'ava'
import { KeepAliveWheel } from '../../src/mqtt/keep-alive.ts'

function wheelOf(t: { teardown(end: () => void): void }) {
  const wheel = new KeepAliveWheel()
  const entries: Parameters<KeepAliveWheel['remove']>[0][] = []
  t.teardown(() => {
    for (const entry of entries) wheel.remove(entry)
  })
  const add = (seconds: number, expired: () => void) => {
    const entry = wheel.add(seconds, { silent: expired })
    entries.push(entry)
    return entry
  }
  /** How many ticks pass until `done`, at most `limit`. */
  const ticksUntil = (done: () => boolean, limit = 200_000) => {
    let ticks = 0
    while (!done() && ticks < limit) {
      wheel.tick()
      ticks++
    }
    return ticks
  }
  return { wheel, add, ticksUntil }
}

for (const [seconds, ticks] of [
  [1, 3],
  [2, 4],
  [10, 16],
  [60, 91],
  [340, 511],
  [341, 513],
  [342, 514],
  [1_200, 1_801],
  [65_535, 98_304],
] as const) {
  test(`silence ends a session of keep alive ${seconds} s at tick ${ticks}, never before [MQTT-3.1.2-22]`, (t) => {
    const { wheel, add, ticksUntil } = wheelOf(t)
    let expired = 0
    add(seconds, () => expired++)
    t.is(
      ticksUntil(() => expired > 0),
      ticks,
    )
    t.is(wheel.size, 0)
    ticksUntil(() => false, 1_100)
    t.is(expired, 1)
  })
}

test('bytes from the device put the end off by as much', (t) => {
  const { wheel, add, ticksUntil } = wheelOf(t)
  let expired = false
  const entry = add(10, () => {
    expired = true
  })
  for (let round = 0; round < 100; round++) {
    ticksUntil(() => expired, 15)
    entry.lastSeen = wheel.now
  }
  t.false(expired)
  t.is(
    ticksUntil(() => expired),
    16,
  )
})

test('a device that we do not read from is not blamed for its silence', (t) => {
  const { wheel, add, ticksUntil } = wheelOf(t)
  let expired = false
  const entry = add(10, () => {
    expired = true
  })
  entry.held = true
  ticksUntil(() => expired, 1_000)
  t.false(expired)
  entry.held = false
  entry.lastSeen = wheel.now
  t.is(
    ticksUntil(() => expired),
    16,
  )
})

test('a session that is removed never expires, and is removed once', (t) => {
  const { wheel, add, ticksUntil } = wheelOf(t)
  let expired = false
  const entry = add(10, () => {
    expired = true
  })
  wheel.remove(entry)
  wheel.remove(entry)
  t.is(wheel.size, 0)
  ticksUntil(() => expired, 100)
  t.false(expired)
})

test('a session that takes another along as it expires takes it for good', (t) => {
  const { wheel, add, ticksUntil } = wheelOf(t)
  let expired = 0
  const second = { entry: null as ReturnType<typeof add> | null }
  add(10, () => {
    expired++
    wheel.remove(second.entry!)
  })
  second.entry = add(10, () => expired++)
  ticksUntil(() => false, 100)
  t.deepEqual([expired, wheel.size], [1, 0])
})

test('ten thousand sessions expire in their own tick each', (t) => {
  const { wheel, add, ticksUntil } = wheelOf(t)
  const due = new Map<number, number>()
  for (let i = 0; i < 10_000; i++) {
    const seconds = 1 + (i % 1_000)
    add(seconds, () => due.set(seconds, wheel.now))
  }
  ticksUntil(() => wheel.size === 0)
  for (const [seconds, tick] of due) t.is(tick, Math.ceil(seconds * 1.5) + 1)
  t.is(due.size, 1_000)
})

test('after a stall, bytes that wait in a socket are read before anybody is judged', async (t) => {
  const server = createServer()
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const [stall, device] = [connect(port, '127.0.0.1'), connect(port, '127.0.0.1')]
  const sockets = [(await once(server, 'connection'))[0], (await once(server, 'connection'))[0]] as [Socket, Socket]
  t.teardown(() => {
    for (const socket of [stall, device, ...sockets]) socket.destroy()
    server.close()
  })
  const wheel = new KeepAliveWheel()
  const entry = wheel.add(1, { silent() {} })
  t.teardown(() => wheel.remove(entry))
  let readAt = -1
  const ping = Promise.withResolvers<void>()
  for (const socket of sockets) {
    socket.on('data', (chunk: Buffer) => {
      if (String(chunk) === 'ping') {
        readAt = wheel.now
        return ping.resolve()
      }
      // In the middle of a turn: the device speaks, the loop stands still, and the wheel's timer is long due.
      device.write('ping')
      const until = performance.now() + 1_300
      while (performance.now() < until);
    })
  }
  stall.write('stall')
  await ping.promise
  t.is(readAt, 0, 'no tick has been run before the ping was read')
})
