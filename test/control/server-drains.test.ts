import { setImmediate } from 'node:timers/promises'
import test from 'ava'
import { DrainedServers } from '../../src/backend/drained.ts'
import { NO_LOG } from '../../src/control/log.ts'
import { Emptier, ServerDrains } from '../../src/control/server-drains.ts'
import { drainedLink, drainedNotice, drainedPrimary } from '../../src/control/server-drains-link.ts'
import type { LiveSession, Parting } from '../../src/mqtt/session-contract.ts'

const SERVERS = new Map<string, readonly string[]>([
  ['main', ['a:1883', 'b:1883']],
  ['shadows', []],
])

test('a server is drained and let in again; whoever has to know is told the whole list', (t) => {
  const told: unknown[] = []
  const drains = new ServerDrains(
    () => SERVERS,
    (list) => told.push(list),
  )
  const a = { backend: 'main', server: 'a:1883' }
  t.deepEqual(drains.drain('main', 'a:1883'), { kind: 'done', drained: [a], warning: null })
  t.deepEqual(drains.drain('main', 'a:1883'), { kind: 'done', drained: [a], warning: null })
  const b = { backend: 'main', server: 'b:1883' }
  const last = drains.drain('main', 'b:1883')
  t.deepEqual(last, {
    kind: 'done',
    drained: [a, b],
    warning: 'backend main has no other server: devices are refused until one is back',
  })
  t.deepEqual(drains.undo('main', 'a:1883'), { kind: 'done', drained: [b], warning: null })
  t.deepEqual(told, [[a], [a, b], [b]], 'to drain what is drained changes nothing')
})

test('a name that is unknown is an error that lists what there is, and changes nothing', (t) => {
  const drains = new ServerDrains(
    () => SERVERS,
    () => t.fail(),
  )
  for (const [answer, reason] of [
    [drains.drain('mian', 'a:1883'), 'no backend mian; there are: main, shadows'],
    [drains.drain('main', 'c:1883'), 'backend main has no server c:1883; there are: a:1883, b:1883'],
    [drains.drain('shadows', 'a:1883'), 'backend shadows has no servers to choose from'],
    [drains.undo('main', 'a:1883'), 'main a:1883 is not drained; these are: none'],
  ] as const) {
    t.deepEqual(answer, { kind: 'refused', reason })
  }
})

/** Sessions on servers, and the one that ends them. */
function emptying(graceMs = 1_000) {
  const drained = new DrainedServers()
  const sessions = new Set<LiveSession>()
  const told: string[] = []
  const counted: string[] = []
  const add = (name: string, upstream: string, backend = 'main', stays = false) => {
    const session = {
      backend,
      upstream,
      silence: 0,
      owed: 0,
      gone: false,
      leave({ code, serverReference }: Parting) {
        told.push(`${name} ${code} ${serverReference}`)
        if (!stays) sessions.delete(session)
      },
      close(code: string) {
        told.push(`${name} cut ${code}`)
        sessions.delete(session)
      },
    } as unknown as LiveSession
    sessions.add(session)
  }
  const emptier = new Emptier({
    drained,
    sessions: () => sessions,
    backends: () => ['main', 'other'],
    order: () => ({ graceMs, pacePerSecond: null }),
    drains: {
      draining() {},
      ended() {},
      remaining: (scope, count) => void counted.push(`${scope} ${count}`),
      serverEnded: (result) => void counted.push(result),
      serversDrained: (backend, count) => void counted.push(`${backend}: ${count}`),
    },
    log: NO_LOG,
    // Time goes by itself, and everybody else gets a turn.
    clock: (() => {
      let ms = 0
      return {
        now: () => ms,
        async sleep(more: number) {
          ms += more
          await setImmediate()
        },
      }
    })(),
  })
  const over = async () => {
    while (!counted.some((word) => ['done', 'cut', 'undone'].includes(word))) await setImmediate()
  }
  return { drained, sessions, told, counted, add, emptier, over }
}

test('sessions of a drained server are told to come again, and no others', async (t) => {
  const { drained, told, counted, add, emptier, over, sessions } = emptying()
  add('one', 'a:1883')
  add('two', 'b:1883')
  add('three', 'a:1883', 'other')
  drained.replace([{ backend: 'main', server: 'a:1883' }])
  t.deepEqual(emptier.status, [{ backend: 'main', server: 'a:1883', sessions: 1 }])
  await over()
  t.deepEqual(told, ['one ERR_SERVER_DRAINING null'])
  t.is(sessions.size, 2)
  t.deepEqual(emptier.status, [{ backend: 'main', server: 'a:1883', sessions: 0 }])
  t.true(counted.includes('main: 1') && counted.includes('other: 0') && counted.includes('done'))
  t.is(counted.filter((word) => word.startsWith('server')).at(-1), 'server 0')
  drained.replace([])
  t.is(counted.filter((word) => word.startsWith('main:')).at(-1), 'main: 0')
  emptier.close()
})

test('who stays beyond the grace period is cut off', async (t) => {
  const { drained, told, counted, add, emptier, over } = emptying()
  add('one', 'a:1883', 'main', true)
  drained.replace([{ backend: 'main', server: 'a:1883' }])
  await over()
  t.deepEqual(told, ['one ERR_SERVER_DRAINING null', 'one cut ERR_SERVER_DRAINING'])
  t.true(counted.includes('cut'))
  emptier.close()
})

test('let in again, nobody else is told to go', async (t) => {
  const { drained, told, counted, add, emptier, over, sessions } = emptying(60_000)
  for (let n = 0; n < 50; n++) add(`d${n}`, 'a:1883')
  drained.replace([{ backend: 'main', server: 'a:1883' }])
  while (told.length < 3) await setImmediate()
  drained.replace([])
  await over()
  t.true(counted.includes('undone'))
  t.true(told.length < 50)
  t.is(sessions.size, 50 - told.length)
  emptier.close()
})

test('a worker knows what is drained before it accepts, is told of changes, and tells what is left', async (t) => {
  const list = [{ backend: 'main', server: 'a:1883' }]
  const toWorker: unknown[] = []
  const primary = drainedPrimary(
    () => list,
    (workerId, message) => {
      t.is(workerId, 7)
      toWorker.push(structuredClone(message))
    },
  )
  const drained = new DrainedServers()
  const toPrimary: unknown[] = []
  const link = drainedLink(
    drained,
    () => [],
    (message) => toPrimary.push(structuredClone(message)),
  )
  t.true(primary.heard(toPrimary[0], 7))
  t.true(link.heard(toWorker[0]))
  await link.known
  t.true(drained.has('main', 'a:1883'))
  t.true(link.heard(structuredClone(drainedNotice([]))))
  t.false(drained.has('main', 'a:1883'))
  t.deepEqual([link.heard({ store: 'lost' }), primary.heard({ store: 'claim' }, 7)], [false, false])

  const status = (sessions: number) => ({ drained: 'status', status: [{ ...list[0], sessions }] })
  primary.heard(status(3), 7)
  primary.heard(status(4), 8)
  t.deepEqual(primary.status(list), [{ ...list[0]!, sessions: 7 }])
  primary.ended(7)
  t.deepEqual(primary.status(list), [{ ...list[0]!, sessions: 4 }])
})

test('a primary that does not answer does not keep a worker for ever', async (t) => {
  const link = drainedLink(
    new DrainedServers(),
    () => [],
    () => {},
    1,
  )
  const alive = setInterval(() => {}, 1_000)
  await link.known
  clearInterval(alive)
  t.pass()
})
