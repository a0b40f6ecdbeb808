import { setImmediate } from 'node:timers/promises'
import test from 'ava'
import type { AuthorizedConnection } from '../../src/connection.ts'
import { ProxyError } from '../../src/errors.ts'
import { Shield, shields } from '../../src/mqtt/shield.ts'
import type { ShieldOutcome } from '../../src/mqtt/shield-outcomes.ts'
import type { ShieldedUpstream } from '../../src/mqtt/shielded-upstream.ts'
import { FakeStream, hex } from './fakes.ts'

const CONNECT = hex('100d 0004 4d515454 04 00 003c 0001 64')

type Broker = 'away' | 'silent' | 'there' | 'busy' | 'empty'
const ANSWERS: Readonly<Record<Exclude<Broker, 'away' | 'silent'>, string>> = {
  there: '20020100',
  busy: '20020003',
  empty: '20020000',
}

interface RigOptions {
  readonly resumesPerSecond?: number
  readonly holdMs?: number
}

/** A shield whose clock moves when it is told to; sessions as they are asked for, and one broker. */
function rig({ resumesPerSecond = 10, holdMs = 60_000 }: RigOptions = {}) {
  const clock = { now: 0 }
  let timers: { readonly at: number; readonly call: () => void }[] = []
  const outcomes: ShieldOutcome[] = []
  const dials: number[] = []
  const logged: string[] = []
  const held = { count: 0 }
  const broker = { is: 'away' as Broker }
  const closing = new AbortController()
  const gone = { is: false }
  const shield = new Shield({
    name: 'main',
    settings: { holdMs, bufferBytes: 65_536, resumesPerSecond },
    clock: {
      now: () => clock.now,
      after(ms, call) {
        const timer = { at: clock.now + ms, call }
        timers.push(timer)
        return () => {
          timers = timers.filter((each) => each !== timer)
        }
      },
    },
    random: () => 0.5,
    closing: closing.signal,
    isClosed: () => gone.is,
    counted: (delta) => {
      held.count += delta
    },
    ended: (outcome) => outcomes.push(outcome),
    log: {
      info: (fields, text) => logged.push(`${text} ${JSON.stringify(fields)}`),
      warn: (fields, text) => logged.push(`${text} ${JSON.stringify(fields)}`),
    },
  })
  const open = async () => {
    dials.push(clock.now)
    if (broker.is === 'away') throw new ProxyError('ERR_BACKEND_REFUSED', 'away')
    const stream = new FakeStream()
    if (broker.is !== 'silent') stream.say(ANSWERS[broker.is])
    return { stream, peer: 'broker:1883' }
  }
  return {
    shield,
    outcomes,
    dials,
    logged,
    held,
    broker,
    closing,
    gone,
    timers: () => timers.length,
    /** A session that the broker has accepted, with a subscription. */
    async session(): Promise<{ readonly shielded: ShieldedUpstream; readonly stream: FakeStream }> {
      const stream = new FakeStream()
      const shielded = shield.guard(
        { stream, peer: 'broker:1883' },
        {
          backend: { open },
          connection: {} as AuthorizedConnection,
          version: 4,
          packet: CONNECT,
          cleanStart: false,
          enhancedAuth: false,
          asked: { keepAliveSeconds: 60, sessionExpirySeconds: 0 },
          moved() {},
        },
      )
      shielded.on('data', () => {})
      shielded.write(CONNECT)
      shielded.write(hex('8206 0007 0001 61 01'))
      shielded.resume()
      stream.say('20020000', '9003000701')
      await setImmediate()
      return { shielded, stream }
    },
    /** Time passes, in steps of 10 ms, so that what is due in between is done in between. */
    async pass(ms: number) {
      for (const until = clock.now + ms; clock.now < until; ) {
        clock.now += 10
        for (const timer of timers.filter(({ at }) => at <= clock.now)) {
          timers = timers.filter((each) => each !== timer)
          timer.call()
        }
        await setImmediate()
        await setImmediate()
      }
    },
  }
}

async function lost(made: ReturnType<typeof rig>, count: number) {
  const sessions = []
  for (let index = 0; index < count; index++) sessions.push(await made.session())
  for (const { stream } of sessions) stream.reset()
  await setImmediate()
  return sessions
}

test('while the broker is away one session at a time tries, with longer and longer rests up to a second', async (t) => {
  const made = rig()
  await lost(made, 20)
  t.is(made.held.count, 20)
  await made.pass(10_000)
  const rests = made.dials.slice(1).map((at, index) => at - made.dials[index]!)
  // Of 250, 500 and 1,000 ms three quarters, by these dice.
  t.deepEqual(rests.slice(0, 3), [190, 380, 750])
  t.true(rests.slice(2).every((ms) => ms === 750))
  t.true(made.dials[0]! >= 250)
})

test('once one is back the others follow at their pace, and nothing is left', async (t) => {
  const made = rig({ resumesPerSecond: 10 })
  await lost(made, 30)
  await made.pass(2_000)
  made.broker.is = 'there'
  const before = made.dials.length
  await made.pass(1_000)
  t.true(made.dials.length - before <= 12, `${made.dials.length - before} in a second`)
  t.true(made.outcomes.length >= 5)
  await made.pass(4_000)
  t.deepEqual(
    made.outcomes,
    Array.from({ length: 30 }, () => 'resumed'),
  )
  t.is(made.held.count, 0)
  await made.pass(1_000)
  t.is(made.timers(), 0)
  t.is(made.logged.length, 2)
  t.regex(made.logged[1]!, /"resumed":30,"closed":0/)
})

test('a broker that is busy is left alone as one that is away', async (t) => {
  const made = rig()
  await lost(made, 5)
  made.broker.is = 'busy'
  await made.pass(3_000)
  t.true(made.dials.length < 8)
  t.deepEqual(made.outcomes, [])
  made.broker.is = 'there'
  await made.pass(3_000)
  t.is(made.outcomes.filter((outcome) => outcome === 'resumed').length, 5)
})

test('a broker that says nothing has one session before it, and the others wait', async (t) => {
  const made = rig()
  await lost(made, 5)
  made.broker.is = 'silent'
  await made.pass(3_000)
  t.is(made.dials.length, 1)
})

test('who is held is closed when its time is over, and not a moment before', async (t) => {
  const made = rig({ holdMs: 5_000 })
  await lost(made, 3)
  await made.pass(4_990)
  t.deepEqual(made.outcomes, [])
  await made.pass(10)
  t.deepEqual(made.outcomes, ['expired', 'expired', 'expired'])
  await made.pass(2_000)
  t.is(made.timers(), 0)
  t.is(made.held.count, 0)
})

test('a broker that has lost its sessions closes them all, at the same pace', async (t) => {
  const made = rig()
  await lost(made, 12)
  made.broker.is = 'empty'
  await made.pass(700)
  t.true(made.outcomes.length < 8)
  await made.pass(3_000)
  t.deepEqual(
    made.outcomes,
    Array.from({ length: 12 }, () => 'session_gone'),
  )
})

test('one that is lost alone while its neighbors stay was meant, and is closed', async (t) => {
  const made = rig()
  made.broker.is = 'there'
  const sessions = []
  for (let index = 0; index < 40; index++) sessions.push(await made.session())
  sessions[0]!.stream.reset()
  await made.pass(300)
  t.deepEqual(made.outcomes, ['alone'])
  // Two at once are an outage of a part.
  await made.pass(1_000)
  for (const { stream } of sessions.slice(1, 3)) stream.reset()
  await made.pass(1_000)
  t.deepEqual(made.outcomes, ['alone', 'resumed', 'resumed'])
})

test('the only session there is has nobody to compare itself with, and is held', async (t) => {
  const made = rig()
  made.broker.is = 'there'
  await lost(made, 1)
  await made.pass(1_000)
  t.deepEqual(made.outcomes, ['resumed'])
})

test('who has not acknowledged what it got is passed over until it has', async (t) => {
  const made = rig()
  made.broker.is = 'there'
  const slow = await made.session()
  const other = await made.session()
  slow.stream.say('3206 0001 61 0005 78')
  await setImmediate()
  slow.stream.reset()
  other.stream.reset()
  await made.pass(2_000)
  t.true(slow.shielded.isHeld)
  t.false(other.shielded.isHeld)
  slow.shielded.write(hex('4002 0005'))
  await made.pass(500)
  t.false(slow.shielded.isHeld)
  t.deepEqual(made.outcomes, ['resumed', 'resumed'])
})

test('while the process is closing nobody tries any more, and nobody is held anew', async (t) => {
  const made = rig()
  await lost(made, 2)
  made.closing.abort()
  made.broker.is = 'there'
  const late = await made.session()
  late.stream.reset()
  await made.pass(3_000)
  t.deepEqual(made.dials, [])
  t.is(made.held.count, 2)
  t.true(late.shielded.destroyed)
})

test('a backend that is closed for good lets go of everybody', async (t) => {
  const made = rig()
  await lost(made, 3)
  made.gone.is = true
  await made.pass(1_000)
  t.deepEqual(made.outcomes, ['ended', 'ended', 'ended'])
  t.deepEqual(made.dials, [])
})

test('a backend has one shield, or none', (t) => {
  const { closing } = rig()
  const told: string[] = []
  const shieldFor = shields({
    metrics: { shielded: () => {}, shieldOutcome: (name, outcome) => told.push(`${name} ${outcome}`) },
    closing: closing.signal,
    log: { info() {}, warn() {} },
  })
  const backend = {
    name: 'main',
    identity: { username: null, password: null, clientId: null, keepAlive: 'device' },
    open: () => Promise.reject(new Error('never')),
    close: async () => {},
  } as const
  t.is(shieldFor(backend), null)
  t.is(shieldFor({ ...backend, outageShield: null }), null)
  const shielded = { ...backend, outageShield: { holdMs: 1, bufferBytes: 1, resumesPerSecond: 1 } }
  const shield = shieldFor(shielded)
  t.truthy(shield)
  t.is(shieldFor(shielded), shield)
  t.not(shieldFor({ ...shielded }), shield)
  shield?.notHeld('qos2')
  t.deepEqual(told, ['main qos2'])
})
