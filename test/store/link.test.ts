import test from 'ava'
import { type LinkedStore, linkedStore, storeServer } from '../../src/store/link.ts'
import { memoryStore } from '../../src/store/memory.ts'
import type { Claim } from '../../src/store/store.ts'

/** A primary and its workers; messages wait until they are carried, so that every order can be tried. */
function fleet(workers: number, deadlineMs?: number) {
  const up: [number, unknown][] = []
  const down: [number, unknown][] = []
  // As over IPC: what arrives is a copy.
  const copy = (message: unknown): unknown => JSON.parse(JSON.stringify(message))
  const server = storeServer((worker, message) => down.push([worker, copy(message)]))
  const stores = new Map<number, LinkedStore>()
  for (let worker = 1; worker <= workers; worker++) {
    stores.set(
      worker,
      linkedStore((message) => up.push([worker, copy(message)]), deadlineMs),
    )
  }
  const carryUp = () => {
    for (const [worker, message] of up.splice(0)) server.heard(message, worker)
  }
  const carryDown = () => {
    for (const [worker, message] of down.splice(0)) stores.get(worker)!.heard(message)
  }
  return { server, store: (worker: number) => stores.get(worker)!, carryUp, carryDown, up, down }
}

const claim = (session: string, changes: Partial<Claim> = {}): Claim => ({
  key: 'main\na',
  owner: 'x509 ab12',
  session,
  perSecond: null,
  tentative: false,
  ...changes,
})

test('of two workers that claim in the same instant the later one wins, and the other is told behind its grant', async (t) => {
  const { store, carryUp, carryDown, down } = fleet(2)
  const lost: string[] = []
  store(1).onLost((session) => lost.push(session))
  store(2).onLost((session) => lost.push(session))
  const first = store(1).claim(claim('s1'))
  const second = store(2).claim(claim('s2'))
  carryUp()
  t.deepEqual(
    down.filter(([worker]) => worker === 1).map(([, message]) => (message as { store: string }).store),
    ['answer', 'lost'],
  )
  carryDown()
  t.deepEqual(
    [await first, await second],
    [
      { kind: 'granted', version: 0 },
      { kind: 'granted', version: 1 },
    ],
  )
  t.deepEqual(lost, ['s1'])
})

test('of two principals in the same instant the first has it', async (t) => {
  const { store, carryUp, carryDown } = fleet(2)
  const first = store(2).claim(claim('s2', { owner: 'somebody' }))
  const second = store(1).claim(claim('s1'))
  carryUp()
  carryDown()
  t.deepEqual([await first, await second], [{ kind: 'granted', version: 0 }, { kind: 'taken' }])
})

test('what a dead worker held is free, and its last words claim nothing', async (t) => {
  const { store, server, carryUp, carryDown } = fleet(2)
  const first = store(1).claim(claim('s1'))
  carryUp()
  carryDown()
  await first
  void store(1)
    .claim(claim('late', { key: 'main\nb' }))
    .catch(() => {})
  server.ended(1)
  carryUp()
  t.is(server.claims.held, 0)
  const second = store(2).claim(claim('s2', { owner: 'somebody' }))
  carryUp()
  carryDown()
  t.deepEqual(await second, { kind: 'granted', version: 1 })
})

test('a claim without an answer is rejected in time, and should it be granted after all, it is given back', async (t) => {
  const { store, server, carryUp, carryDown } = fleet(1, 5)
  await t.throwsAsync(store(1).claim(claim('s1')), { message: 'no answer to a claim in 5 ms' })
  carryUp()
  carryDown()
  t.is(server.claims.held, 0)
})

test('claims that nobody answers do not pile up', async (t) => {
  const { store, carryUp, carryDown } = fleet(1, 600_000)
  for (let n = 0; n < 10_000; n++) void store(1).claim(claim(`s${n}`, { key: `main\n${n}` }))
  await t.throwsAsync(store(1).claim(claim('one more')), { message: /10000 claims/ })
  carryUp()
  carryDown()
  const last = store(1).claim(claim('last'))
  carryUp()
  carryDown()
  t.deepEqual(await last, { kind: 'granted', version: 0 })
})

test('messages of others are left alone', (t) => {
  const { store, server } = fleet(1)
  for (const message of [null, undefined, 'text', 7, {}, { brokergate: 'ready' }, { store: 'other' }]) {
    t.false(store(1).heard(message))
    t.false(server.heard(message, 1))
  }
})

test('a process that is alone decides for itself', async (t) => {
  const store = memoryStore()
  const lost: string[] = []
  const off = store.onLost((session) => lost.push(session))
  t.deepEqual(await store.claim(claim('s1')), { kind: 'granted', version: 0 })
  t.deepEqual(await store.claim(claim('s2')), { kind: 'granted', version: 1 })
  t.deepEqual(await store.claim(claim('s3', { owner: 'somebody' })), { kind: 'taken' })
  store.release('main\na', 's2')
  off()
  t.deepEqual(await store.claim(claim('s3', { owner: 'somebody' })), { kind: 'granted', version: 2 })
  t.deepEqual(lost, ['s1'])
})
