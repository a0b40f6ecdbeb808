import test from 'ava'
import {
  type Connections,
  connectionsPrimary,
  connectionsWorker,
  ownConnections,
  type Shown,
} from '../../src/control/connections.ts'

function sessionsNamed(...clientIds: string[]) {
  const closed: string[] = []
  const sessions = clientIds.map(
    (clientId, n): Shown => ({
      id: `c${n}`,
      clientId,
      principal: 'ab12',
      domain: 'iot.example.com',
      connectedAt: 0,
      close: (code) => closed.push(`${clientId} ${code}`),
    }),
  )
  return { own: ownConnections(() => sessions), closed }
}

/** A primary and its workers; messages are copies, as over IPC. */
function fleet(own: readonly Connections[], deadlineMs?: number) {
  const copy = (message: unknown): unknown => structuredClone(message)
  const workers = own.map((one) => connectionsWorker(one, (message) => primary.heard(copy(message))))
  const primary = connectionsPrimary(
    (message) => {
      for (const worker of workers) worker(copy(message))
    },
    () => workers.length,
    deadlineMs,
  )
  return primary
}

test('sessions of one process are listed, and ended by client id with 0x98', async (t) => {
  const { own, closed } = sessionsNamed('a', 'b', 'a')
  t.deepEqual((await own.list()).connections[1], {
    id: 'c1',
    clientId: 'b',
    principal: 'ab12',
    domain: 'iot.example.com',
    connectedAt: '1970-01-01T00:00:00.000Z',
  })
  t.is(await own.kick('a'), 2)
  t.is(await own.kick('c'), 0)
  t.deepEqual(closed, ['a ERR_ADMINISTRATIVE', 'a ERR_ADMINISTRATIVE'])
})

test('a long list is cut, and its length is told', async (t) => {
  const { own } = sessionsNamed(...Array.from({ length: 1_500 }, (_, n) => String(n)))
  const { connections, total } = await own.list()
  t.deepEqual([connections.length, total], [1_000, 1_500])
})

test('the primary joins what its workers say', async (t) => {
  const [one, two] = [sessionsNamed('a', 'b'), sessionsNamed('c', 'a')]
  const primary = fleet([one.own, two.own])
  const { connections, total } = await primary.list()
  t.deepEqual([connections.map(({ clientId }) => clientId), total], [['a', 'b', 'c', 'a'], 4])
  t.is(await primary.kick('a'), 2)
  t.deepEqual([one.closed, two.closed], [['a ERR_ADMINISTRATIVE'], ['a ERR_ADMINISTRATIVE']])
})

test('a worker that does not answer is left out in time', async (t) => {
  const silent: Connections = { list: () => new Promise(() => {}), kick: () => new Promise(() => {}) }
  const primary = fleet([sessionsNamed('a').own, silent], 5)
  t.is((await primary.list()).total, 1)
})

test('without workers there is nobody to wait for', async (t) => {
  t.is((await fleet([], 600_000).list()).total, 0)
})

test('messages of others are left alone', (t) => {
  const worker = connectionsWorker(sessionsNamed('a').own, () => t.fail())
  const primary = fleet([])
  for (const message of [null, undefined, 'text', {}, { store: 'claim' }, { brokergate: 'ready' }]) {
    t.false(worker(message))
    t.false(primary.heard(message))
  }
})
