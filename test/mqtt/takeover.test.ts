import test, { type ExecutionContext } from 'ava'
import type { Principal } from '../../src/auth/authenticator.ts'
import { rulesOf } from '../../src/mqtt/limits.ts'
import { linkedStore, storeServer } from '../../src/store/link.ts'
import { memoryStore } from '../../src/store/memory.ts'
import type { Store } from '../../src/store/store.ts'
import { authenticatedAs } from '../support/identity.ts'
import { until } from './fakes.ts'
import { leavesNothing, OK4, OK5, PRINCIPAL, type ServedOptions, served, V4, V5 } from './served.ts'

const OTHER: Principal = { ...PRINCIPAL, id: 'cd34' }
const as = (principal: Principal) => ({ outcome: authenticatedAs(principal) })

/** Two workers and their primary; messages are copies and come one turn later, as over IPC. */
function twoWorkers(now?: () => number) {
  const workers: ReturnType<typeof linkedStore>[] = []
  const later = (deliver: () => void) => void setImmediate(deliver)
  const server = storeServer((worker, message) => later(() => workers[worker]!.heard(structuredClone(message))), now)
  for (const id of [0, 1]) {
    workers.push(linkedStore((message) => later(() => server.heard(structuredClone(message), id))))
  }
  return { server, workers }
}

const sameStore = (): [Store, Store] => {
  const store = memoryStore()
  return [store, store]
}

for (const [where, stores] of [
  ['in one process', sameStore],
  ['on two workers', () => twoWorkers().workers as unknown as [Store, Store]],
] as const) {
  for (const [version, connect, ok, farewell] of [
    ['5', V5, OK5, 'e0028e00'],
    ['3.1.1', V4, OK4, ''],
  ] as const) {
    test(`${where} the newcomer of the same principal wins; a ${version} device hears ${farewell || 'nothing'} [MQTT-3.1.4-3]`, async (t) => {
      const [here, there] = stores()
      const first = served(t, { store: here })
      await first.connected(connect, ok)
      const second = served(t, { store: there })
      await second.connected(connect, ok)
      await until(() => first.device.finished)
      t.deepEqual([first.device.heard, first.broker.finished], [farewell, true])
      t.is(await first.over(), 'ERR_SESSION_TAKEN_OVER')
      t.false(second.device.finished)
      leavesNothing(t, first)
      t.is(second.handler.live.size, 1)
    })
  }

  test(`${where} another principal is refused, and the live one is not disturbed`, async (t) => {
    const [here, there] = stores()
    const first = served(t, { store: here })
    await first.connected()
    for (const [connect, heard] of [
      [V5, '2003008500'],
      [V4, '20020002'],
    ] as const) {
      const second = served(t, { store: there, ...as(OTHER) })
      second.device.say(connect)
      t.is(await second.ended, 'ERR_CLIENT_ID_TAKEN')
      t.deepEqual([second.device.heard, second.dials], [heard, []])
      leavesNothing(t, second)
    }
    t.deepEqual([first.device.heard, first.device.finished], ['', false])
  })
}

test('the principal of another authorizer is another one, whatever it is called', async (t) => {
  const store = memoryStore()
  const ofAuthorizer = (authorizer: string) =>
    as({ id: 'alice', method: 'custom', attributes: Object.assign(Object.create(null), { authorizer }) })
  const first = served(t, { store, ...ofAuthorizer('staff') })
  await first.connected()
  const second = served(t, { store, ...ofAuthorizer('guests') })
  second.device.say(V5)
  t.is(await second.ended, 'ERR_CLIENT_ID_TAKEN')
  t.deepEqual([second.dials, first.device.finished], [[], false])
  const again = served(t, { store, ...ofAuthorizer('staff') })
  await again.connected()
  await until(() => first.device.finished)
  t.is(await first.over(), 'ERR_SESSION_TAKEN_OVER')
})

test('two workers that read the same client id in the same instant end with one live session', async (t) => {
  const { workers, server } = twoWorkers()
  const both = [0, 1].map((id) => served(t, { store: workers[id]! }))
  for (const one of both) one.device.say(V5)
  await until(() => both.filter((one) => one.device.finished).length === 1)
  const [loser, winner] = both[0]!.device.finished ? [both[0]!, both[1]!] : [both[1]!, both[0]!]
  await until(() => winner.broker.heard === V5)
  await loser.over()
  t.is(server.claims.held, 1)
  t.false(winner.device.finished)
})

test('the id of a session is free when it is over', async (t) => {
  const store = memoryStore()
  const first = served(t, { store })
  await first.connected()
  first.device.say('e000', null)
  first.broker.say(null)
  await first.ended
  const second = served(t, { store, ...as(OTHER) })
  await second.connected()
  t.is(second.handler.live.size, 1)
})

test('the id is free as well when the broker could not be reached', async (t) => {
  const store = memoryStore()
  const first = served(t, { store, open: () => Promise.reject(new Error('nobody')) })
  first.device.say(V5)
  await first.ended
  const second = served(t, { store, ...as(OTHER) })
  await second.connected()
  t.is(second.handler.live.size, 1)
})

test('a live id is taken over at most once a second: 0x97, and 3 on 3.1.1', async (t) => {
  let now = 0
  const store = memoryStore(() => now)
  await served(t, { store }).connected()
  await served(t, { store }).connected()
  for (const [connect, heard] of [
    [V5, '2003009700'],
    [V4, '20020003'],
  ] as const) {
    const third = served(t, { store })
    third.device.say(connect)
    t.is(await third.ended, 'ERR_CONNECT_RATE')
    t.deepEqual([third.device.heard, third.dials], [heard, []])
  }
  now += 1_000
  const fourth = served(t, { store })
  await fourth.connected()
  t.is(fourth.handler.live.size, 1)
})

test('connects under one client id are no more per second than the limit', async (t) => {
  const store = memoryStore(() => 0)
  const domain = { rules: rulesOf('open', { connectsPerSecondPerClientId: 1 }) }
  const first = served(t, { store, domain })
  await first.connected()
  await first.over()
  const second = served(t, { store, domain })
  second.device.say(V5)
  t.is(await second.ended, 'ERR_CONNECT_RATE')
})

for (const [what, store] of [
  ['rejects', { claim: () => Promise.reject(new Error('away')), release: () => {}, onLost: () => () => {} }],
  [
    'throws',
    {
      claim: () => {
        throw new TypeError('undefined')
      },
      release: () => {},
      onLost: () => () => {},
    },
  ],
] as const satisfies readonly (readonly [string, Store])[]) {
  test(`a store that ${what} refuses with 0x88, and nobody is dialled`, async (t) => {
    for (const [connect, heard] of [
      [V5, '2003008800'],
      [V4, '20020003'],
    ] as const) {
      const s = served(t, { store })
      s.device.say(connect)
      t.is(await s.ended, 'ERR_IDENTITY_FAULT')
      t.deepEqual([s.device.heard, s.dials], [heard, []])
      leavesNothing(t, s)
    }
  })
}

test('a device that is taken over while a broker is looked for is let go', async (t) => {
  const store = memoryStore()
  const found = Promise.withResolvers<void>()
  const first = served(t, { store, open: () => found.promise })
  first.device.say(V5)
  await until(() => first.dials.length > 0)
  await served(t, { store }).connected()
  found.resolve()
  t.is(await first.ended, 'ERR_SESSION_TAKEN_OVER')
  t.deepEqual([first.broker.heard, first.broker.destroyed, first.device.finished], ['', true, true])
})

test('the broker’s own farewell to the one that it takes over is not spoken over', async (t) => {
  const store = memoryStore()
  const first = served(t, { store })
  await first.connected()
  first.broker.say('e0018e')
  await until(() => first.device.heard === 'e0018e')
  await served(t, { store }).connected()
  await until(() => first.device.finished)
  t.is(first.device.heard, 'e0018e')
  t.is(await first.over(), 'ERR_SESSION_TAKEN_OVER')
})

test('the same client id on another backend, or with another prefix, is another client', async (t) => {
  const store = memoryStore()
  const first = served(t, { store, domain: { clientId: { bind: 'policy', prefix: 'x-' } } })
  await first.connected()
  const second = served(t, { store, ...as(OTHER), domain: { clientId: { bind: 'policy', prefix: 'y-' } } })
  await second.connected()
  // And one that spells out another tenant's prefix is that tenant's client, which it may not take.
  const third = served(t, { store, ...as(OTHER) })
  third.device.say('101000044d5154540502003c000003782d61')
  t.is(await third.ended, 'ERR_CLIENT_ID_TAKEN')
  t.false(first.device.finished)
})

test('what an authorizer calls somebody is another one in another domain', async (t) => {
  const store = memoryStore()
  const custom: Principal = { id: 'ada', method: 'custom', attributes: {} }
  const who = authenticatedAs(custom)
  const connection = { domain: { name: 'b.example.com' } } as ServedOptions['connection']
  await served(t, { store, who }).connected()
  const second = served(t, { store, who, ...(connection !== undefined && { connection }) })
  second.device.say(V5)
  t.is(await second.ended, 'ERR_CLIENT_ID_TAKEN')
})

// --- devices that only the broker can judge

const judgedByBroker = (t: ExecutionContext, store: Store) =>
  served(t, { store, who: authenticatedAs({ id: 'iot.example.com', method: 'backend', attributes: {} }) })

test('a stranger with the client id of a live device throws nobody out: its broker has to accept it first', async (t) => {
  const store = memoryStore()
  const first = judgedByBroker(t, store)
  await first.connected()
  for (let attempt = 0; attempt < 3; attempt++) {
    const stranger = judgedByBroker(t, store)
    t.is(await stranger.connected(V5, '2003008600'), '2003008600')
    await stranger.over()
  }
  t.deepEqual([first.device.heard, first.device.finished], ['', false])
  // Its owner with another connection does.
  const second = judgedByBroker(t, store)
  await second.connected()
  await until(() => first.device.finished)
  t.is(first.device.heard, 'e0028e00')
})

test('a device that only the broker can judge takes no id of one that is known, and its broker is not dialled', async (t) => {
  const store = memoryStore()
  const first = served(t, { store })
  await first.connected()
  const second = judgedByBroker(t, store)
  second.device.say(V5)
  t.is(await second.ended, 'ERR_CLIENT_ID_TAKEN')
  t.deepEqual(second.dials, [])
})

test('should somebody known have come meanwhile, the one that the broker has accepted goes', async (t) => {
  const store = memoryStore()
  const first = judgedByBroker(t, store)
  first.device.say(V5)
  await until(() => first.broker.written.length > 0)
  await served(t, { store }).connected()
  first.broker.say(OK5)
  await until(() => first.device.finished)
  t.is(await first.over(), 'ERR_CLIENT_ID_TAKEN')
  leavesNothing(t, first)
})
