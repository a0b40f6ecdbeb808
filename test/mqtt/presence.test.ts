import test from 'ava'
import { NO_THINGS } from '../../src/registry/entries.ts'
import { memoryStore } from '../../src/store/memory.ts'
import { authenticatedAs } from '../support/identity.ts'
import { PRINCIPAL, served } from './served.ts'

const V5 = '100e00044d5154540502003c00000161'
const OK5 = '2003000000'
/** DISCONNECT with its reason, 0. */
const GOODBYE = 'e000'

const kinds = (events: readonly { topic: string }[]) => events.map(({ topic }) => topic)

test('a device that comes and says goodbye is told of twice, as one connection', async (t) => {
  const s = served(t)
  await s.connected(V5, OK5)
  await Promise.resolve()
  s.device.say(GOODBYE)
  await s.over()
  t.deepEqual(kinds(s.events), ['presence/connected/a', 'presence/disconnected/a'])
  const [came, went] = s.events.map(({ body }) => body)
  t.like(came, { clientId: 'a', principalIdentifier: PRINCIPAL.id, ipAddress: '198.51.100.4', versionNumber: 0 })
  t.like(went, { disconnectReason: 'CLIENT_INITIATED_DISCONNECT', clientInitiatedDisconnect: true, versionNumber: 0 })
  t.is(came?.sessionIdentifier, went?.sessionIdentifier)
})

test('a device that vanishes is told of as lost', async (t) => {
  const s = served(t)
  await s.connected(V5, OK5)
  await Promise.resolve()
  await s.over()
  t.like(s.events.at(-1)?.body, { disconnectReason: 'CONNECTION_LOST', clientInitiatedDisconnect: false })
})

test('whoever cannot be told of the end does not keep it from being one', async (t) => {
  const released: string[] = []
  const store = { ...memoryStore(), release: (key: string) => void released.push(key) }
  const tell = ({ topic }: { topic: string }) => {
    if (topic.includes('disconnected')) throw new Error('nobody listens')
  }
  const s = served(t, { store, tell })
  await s.connected(V5, OK5)
  await Promise.resolve()
  await s.over()
  t.is(await s.ended, 'ERR_INTERNAL')
  t.deepEqual(released, ['main\na'])
  t.is(s.handler.live.size, 0)
})

test('a device that the broker refuses was never there', async (t) => {
  const s = served(t)
  t.is(await s.connected(V5, '2003008700'), '2003008700')
  await s.over()
  t.deepEqual(s.events, [])
})

test('a CONNECT that the policies refuse is told of as such, with no broker dialled', async (t) => {
  const s = served(t, {
    outcome: authenticatedAs(PRINCIPAL, {
      grants: { permit: () => ({ allows: () => false, allowsAll: () => false }) },
      things: { ...NO_THINGS, exclusive: { name: 'sensor-1', typeName: null, attributes: {} } },
    }),
  })
  s.device.say(V5)
  t.is(await s.ended, 'ERR_ACTION_DENIED')
  t.deepEqual([kinds(s.events), s.dials], [['presence/connect_failed/a'], []])
  t.like(s.events[0]?.body, { connectFailureReason: 'AUTHORIZATION_FAILED', thingName: 'sensor-1' })
})

test('subscriptions are told of with what was granted', async (t) => {
  const s = served(t)
  await s.connected(V5, OK5)
  await Promise.resolve()
  // SUBSCRIBE 1 to `t`, SUBACK 0; UNSUBSCRIBE 2, UNSUBACK 0.
  s.device.say('82070001000001' + '7400')
  s.broker.say('900400010000')
  s.device.say('a20600020000' + '0174')
  s.broker.say('b00400020000')
  await s.over()
  t.deepEqual(kinds(s.events).slice(1, 3), ['subscriptions/subscribed/a', 'subscriptions/unsubscribed/a'])
  t.deepEqual(s.events[1]?.body.topics, ['t'])
})

test('a device that is gone before the store has answered was never there', async (t) => {
  const store = memoryStore()
  const answers: (() => void)[] = []
  const s = served(t, {
    outcome: authenticatedAs({ ...PRINCIPAL, method: 'backend' }),
    store: {
      ...store,
      async claim(claim) {
        const answer = await store.claim(claim)
        if (!claim.tentative) await new Promise<void>((resolve) => answers.push(resolve))
        return answer
      },
    },
  })
  await s.connected(V5, OK5)
  await s.over()
  for (const answer of answers) answer()
  await new Promise((resolve) => setImmediate(resolve))
  t.deepEqual([answers.length, s.events], [1, []])
})
