import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import type { ExecutionContext } from 'ava'
import test from 'ava'
import { admissionCounters } from '../../src/control/admission-metrics.ts'
import { ProxyError } from '../../src/errors.ts'
import {
  Governor,
  type GovernorSettings,
  type HandshakeKind,
  LISTENED_TO_AFTER_MS,
  STARTS_PER_TURN,
} from '../../src/listener/governor.ts'

const SETTINGS: GovernorSettings = {
  full: { inFlight: 1_000, perSecond: null },
  resumed: { inFlight: 1_000, perSecond: null },
  queue: { size: 100, timeout: 5_000 },
  perAddress: { connections: null, inFlight: null, ipv6Prefix: 64 },
}

/** A governor whose turns, clock and timer are in our hands, and real sockets, which it has to leave as they were. */
async function rig(t: ExecutionContext, over: Partial<GovernorSettings> = {}) {
  const server = createServer({ allowHalfOpen: true, pauseOnConnect: false })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const devices: Socket[] = []
  t.teardown(() => {
    for (const device of devices) device.destroy()
    server.close()
  })
  const counters = admissionCounters()
  const waits: number[] = []
  let now = 0
  let turn: (() => void) | null = null
  let alarm: { at: number; work: () => void } | null = null
  const governor = new Governor({
    settings: { ...SETTINGS, ...over },
    counters,
    waited: (seconds) => waits.push(seconds),
    now: () => now,
    soon(work) {
      turn = work
    },
    after(work, ms) {
      const mine = { at: now + ms, work }
      alarm = mine
      return {
        cancel() {
          if (alarm === mine) alarm = null
        },
      }
    },
  })
  return {
    governor,
    counters,
    waits,
    /** The event loop turns once. */
    turn() {
      const work = turn
      turn = null
      work?.()
    },
    /** Time passes, with the timer that is set and without turns. */
    pass(ms: number) {
      const until = now + ms
      while (alarm !== null && alarm.at <= until) {
        const { at, work }: { at: number; work: () => void } = alarm
        alarm = null
        now = at
        work()
      }
      now = until
    },
    get alarmed() {
      return alarm !== null
    },
    async hello(text = 'hello') {
      const device = connect((server.address() as AddressInfo).port, '127.0.0.1')
      devices.push(device)
      device.on('error', () => {})
      const [socket] = (await once(server, 'connection')) as [Socket]
      devices.push(socket)
      socket.on('error', () => {})
      device.write(text)
      const [bytes] = (await once(socket, 'data')) as [Buffer]
      socket.pause()
      socket.unshift(bytes)
      return { device, socket }
    },
    enter(
      socket: Socket,
      options: { kind?: HandshakeKind; tenant?: string; address?: string; deadline?: number } = {},
    ) {
      const { kind = 'full', tenant = 'one', address = '192.0.2.1', deadline = Number.POSITIVE_INFINITY } = options
      const visit = governor.arrive(address)
      return { visit, turn: governor.enter({ visit, kind, tenant, socket, deadline }) }
    },
  }
}

/** What became of a wait, without waiting. */
function watched(turn: Promise<void> | null) {
  const state = { now: turn === null ? 'begun' : 'waits' }
  turn?.then(
    () => {
      state.now = 'begun'
    },
    (error: unknown) => {
      state.now = error instanceof ProxyError ? error.code : String(error)
    },
  )
  return state
}

const settled = () => new Promise<void>((resolve) => setImmediate(resolve))

test('a handshake begins at once while nobody waits and there is room', async (t) => {
  const { governor, enter, hello, counters, alarmed } = await rig(t)
  const { socket } = await hello()
  const { visit, turn } = enter(socket)
  t.is(turn, null)
  t.deepEqual({ ...counters.inFlight }, { full: 1, resumed: 0 })
  governor.secured(visit, false)
  t.is(counters.inFlight.full, 0)
  t.false(alarmed)
})

test('a few begin in a turn of the event loop, the others in the turns after it', async (t) => {
  const { enter, hello, turn, counters } = await rig(t)
  const states: ReturnType<typeof watched>[] = []
  for (let index = 0; index < 3 * STARTS_PER_TURN; index++) {
    states.push(watched(enter((await hello()).socket).turn))
  }
  const begun = () => states.filter(({ now }) => now === 'begun').length
  t.is(begun(), STARTS_PER_TURN)
  t.is(counters.queued, 2 * STARTS_PER_TURN)
  turn()
  await settled()
  t.is(begun(), 2 * STARTS_PER_TURN)
  turn()
  await settled()
  t.is(begun(), 3 * STARTS_PER_TURN)
  t.is(counters.queued, 0)
})

test('so many are under way and no more; one that ends makes room, and who waited has its socket as it was', async (t) => {
  const { governor, enter, hello, turn, pass } = await rig(t, { full: { inFlight: 1, perSecond: null } })
  const first = enter((await hello()).socket)
  const { device, socket } = await hello('first ')
  const second = watched(enter(socket).turn)
  t.is(socket.listenerCount('data'), 0, 'most wait for a moment only')
  pass(LISTENED_TO_AFTER_MS)
  device.write('second')
  await once(socket, 'data')
  turn()
  await settled()
  t.is(second.now, 'waits')
  governor.secured(first.visit, false)
  await settled()
  t.is(second.now, 'begun')
  t.is(String(socket.read()), 'first second')
  t.true(socket.isPaused())
  t.is(socket.listenerCount('data'), 0)
})

test('full and resumed handshakes have budgets of their own', async (t) => {
  const { enter, hello, turn } = await rig(t, { full: { inFlight: 1, perSecond: null } })
  enter((await hello()).socket)
  turn()
  const full = watched(enter((await hello()).socket).turn)
  const resumed = watched(enter((await hello()).socket, { kind: 'resumed' }).turn)
  turn()
  await settled()
  t.deepEqual([full.now, resumed.now], ['waits', 'begun'])
})

test('so many a second begin, and the timer sees to the next', async (t) => {
  const { enter, hello, turn, pass, waits } = await rig(t, { full: { inFlight: 100, perSecond: 10 } })
  const states: ReturnType<typeof watched>[] = []
  for (let index = 0; index < 4; index++) states.push(watched(enter((await hello()).socket).turn))
  const begun = () => states.filter(({ now }) => now === 'begun').length
  t.is(begun(), 1)
  for (const expected of [2, 3, 4]) {
    turn()
    pass(101)
    await settled()
    t.is(begun(), expected)
  }
  t.is(waits.length, 3)
})

test('a claimed session that turns out to be none is charged as a full handshake', async (t) => {
  const { governor, enter, hello, turn, pass, counters } = await rig(t, { full: { inFlight: 100, perSecond: 10 } })
  const claimed = enter((await hello()).socket, { kind: 'resumed' })
  t.is(claimed.turn, null)
  governor.secured(claimed.visit, false)
  t.is(counters.falseClaims, 1)
  turn()
  const honest = watched(enter((await hello()).socket).turn)
  t.is(honest.now, 'waits')
  pass(101)
  await settled()
  t.is(honest.now, 'begun')
  const resumed = enter((await hello()).socket, { kind: 'resumed' })
  governor.secured(resumed.visit, true)
  t.is(counters.falseClaims, 1)
})

test('a claimed session that comes to no end is charged as a full handshake, too', async (t) => {
  const { governor, enter, hello, turn, counters } = await rig(t, { full: { inFlight: 100, perSecond: 10 } })
  const claimed = enter((await hello()).socket, { kind: 'resumed' })
  governor.leave(claimed.visit)
  t.is(counters.falseClaims, 1)
  turn()
  t.is(watched(enter((await hello()).socket).turn).now, 'waits')
})

test('who waits too long is refused, without a key having been touched', async (t) => {
  const { enter, hello, turn, pass, counters } = await rig(t, { full: { inFlight: 1, perSecond: 1 } })
  enter((await hello()).socket)
  const late = watched(enter((await hello()).socket, { deadline: 600 }).turn)
  turn()
  pass(601)
  await settled()
  t.is(late.now, 'ERR_HANDSHAKE_WAIT')
  t.is(counters.refused.handshake_wait, 1)
  t.is(counters.queued, 0)
})

test('when the queue is full, the oldest of whoever has most is refused, and others wait on', async (t) => {
  const { enter, hello, counters } = await rig(t, {
    full: { inFlight: 1, perSecond: null },
    queue: { size: 3, timeout: 5_000 },
  })
  enter((await hello()).socket)
  const crowd: ReturnType<typeof watched>[] = []
  for (let index = 0; index < 2; index++) crowd.push(watched(enter((await hello()).socket).turn))
  const other = watched(enter((await hello()).socket, { tenant: 'two' }).turn)
  const late = watched(enter((await hello()).socket, { tenant: 'two', address: '192.0.2.9' }).turn)
  await settled()
  t.deepEqual(
    [...crowd, other, late].map(({ now }) => now),
    ['ERR_HANDSHAKE_QUEUE', 'waits', 'waits', 'waits'],
  )
  t.is(counters.refused.handshake_queue, 1)
})

test('a device that gives up while it waits takes no turn', async (t) => {
  const { governor, enter, hello, turn, pass, counters } = await rig(t, { full: { inFlight: 1, perSecond: null } })
  const first = enter((await hello()).socket)
  const { device, socket } = await hello()
  const given = enter(socket)
  const next = watched(enter((await hello()).socket).turn)
  turn()
  pass(LISTENED_TO_AFTER_MS)
  device.end()
  await t.throwsAsync(given.turn!, { code: 'ERR_HANDSHAKE_FAILED' })
  t.is(counters.queued, 1)
  governor.secured(first.visit, false)
  await settled()
  t.is(next.now, 'begun')
})

test('a device that has gone before anybody listened takes no turn either', async (t) => {
  const { enter, hello, pass, counters } = await rig(t, { full: { inFlight: 1, perSecond: null } })
  enter((await hello()).socket)
  const { socket } = await hello()
  const { turn } = enter(socket)
  socket.destroy()
  await once(socket, 'close')
  t.is(counters.queued, 1)
  pass(LISTENED_TO_AFTER_MS)
  await t.throwsAsync(turn!, { code: 'ERR_HANDSHAKE_FAILED' })
  t.is(counters.queued, 0)
})

test('a handshake that is silent for a second holds nobody up', async (t) => {
  const { enter, hello, turn, pass, counters } = await rig(t, { full: { inFlight: 1, perSecond: null } })
  enter((await hello()).socket)
  const next = watched(enter((await hello()).socket).turn)
  turn()
  pass(999)
  await settled()
  t.is(next.now, 'waits')
  pass(1)
  await settled()
  t.is(next.now, 'begun')
  t.is(counters.inFlight.full, 1)
})

test('an address has so many under way, and others pass it', async (t) => {
  const { governor, enter, hello, turn } = await rig(t, {
    perAddress: { connections: null, inFlight: 1, ipv6Prefix: 64 },
  })
  const first = enter((await hello()).socket)
  const same = watched(enter((await hello()).socket).turn)
  const other = watched(enter((await hello()).socket, { address: '192.0.2.2' }).turn)
  turn()
  await settled()
  t.is(same.now, 'waits')
  t.is(other.now, 'begun')
  governor.leave(first.visit)
  turn()
  await settled()
  t.is(same.now, 'begun')
})

test('an address has so many connections, counted by network for IPv6', async (t) => {
  const { governor, counters } = await rig(t, { perAddress: { connections: 2, inFlight: null, ipv6Prefix: 64 } })
  const first = governor.arrive('2001:db8::1')
  governor.arrive('2001:db8::2')
  t.throws(() => governor.arrive('2001:db8::3'), { code: 'ERR_ADDRESS_CONNECTIONS' })
  t.notThrows(() => governor.arrive('2001:db9::1'))
  t.is(counters.refused.address_connections, 1)
  governor.leave(first)
  governor.leave(first)
  t.notThrows(() => governor.arrive('2001:db8::3'))
  t.throws(() => governor.arrive('2001:db8::4'), { code: 'ERR_ADDRESS_CONNECTIONS' })
})

test('new numbers count at once, and whoever waits goes on waiting', async (t) => {
  const { governor, enter, hello, turn } = await rig(t, { full: { inFlight: 1, perSecond: null } })
  enter((await hello()).socket)
  const second = watched(enter((await hello()).socket).turn)
  turn()
  await settled()
  t.is(second.now, 'waits')
  governor.configure(SETTINGS)
  await settled()
  t.is(second.now, 'begun')
})

test('a trickle lets few full handshakes begin and every resumed one', async (t) => {
  const { governor, enter, hello, turn } = await rig(t)
  governor.trickle(1)
  t.is(enter((await hello()).socket).turn, null)
  turn()
  const second = watched(enter((await hello()).socket).turn)
  t.is(second.now, 'waits')
  const resumed = watched(enter((await hello()).socket, { kind: 'resumed' }).turn)
  turn()
  governor.trickle(null)
  await settled()
  t.deepEqual([second.now, resumed.now], ['begun', 'begun'])
})

test('when the process stops, nobody waits any more', async (t) => {
  const { governor, enter, hello, counters } = await rig(t, { full: { inFlight: 1, perSecond: null } })
  enter((await hello()).socket)
  const { turn } = enter((await hello()).socket)
  governor.stop(new ProxyError('ERR_DRAINING', 'over'))
  await t.throwsAsync(turn!, { code: 'ERR_DRAINING' })
  t.is(counters.queued, 0)
})
