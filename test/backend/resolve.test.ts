import type { LookupAddress } from 'node:dns'
import { setImmediate } from 'node:timers/promises'
import test from 'ava'
import {
  DOUBTED_MS,
  FORGOTTEN_MS,
  FRESH_MS,
  LOOKUP_DEADLINE_MS,
  PATIENCE_MS,
  Resolver,
  STALE_MS,
} from '../../src/backend/resolve.ts'

type Reply = (error: NodeJS.ErrnoException | null, found: LookupAddress[]) => void

/** A system resolver that answers when it is told to, and a clock that moves when it is told to. */
function rig() {
  let nowMs = 1_000_000
  let timers: { readonly at: number; readonly call: () => void }[] = []
  const asked: { readonly host: string; readonly reply: Reply }[] = []
  const resolver = new Resolver({
    now: () => nowMs,
    after(ms, call) {
      const timer = { at: nowMs + ms, call }
      timers.push(timer)
      return () => {
        timers = timers.filter((each) => each !== timer)
      }
    },
    lookup: (host, _options, callback) => {
      asked.push({ host, reply: (error, found) => callback(error, found) })
    },
  })
  return {
    resolver,
    asked,
    timers: () => timers.length,
    /** Asks as `net.connect` does; the outcome is an address list or an error code. */
    async ask(host = 'broker.test', family: 0 | 4 | 6 = 0) {
      const outcome: { said: readonly string[] | string | null } = { said: null }
      resolver.lookup(host, { all: true, family }, (error, found) => {
        outcome.said = error === null ? (found as LookupAddress[]).map(({ address }) => address) : (error.code ?? '?')
      })
      await setImmediate()
      return outcome
    },
    async tell(...addresses: string[]) {
      for (const { reply } of asked.splice(0)) {
        reply(
          null,
          addresses.map((address) => ({ address, family: address.includes(':') ? 6 : 4 })),
        )
      }
      await setImmediate()
    },
    async fail(code: string) {
      for (const { reply } of asked.splice(0)) reply(Object.assign(new Error(code), { code }), [])
      await setImmediate()
    },
    async pass(ms: number) {
      nowMs += ms
      for (const timer of timers.filter(({ at }) => at <= nowMs)) {
        timers = timers.filter((each) => each !== timer)
        timer.call()
      }
      await setImmediate()
    },
  }
}

test('many who ask for a name at once are one question', async (t) => {
  const { ask, asked, tell, timers } = rig()
  const all = await Promise.all(Array.from({ length: 50 }, () => ask()))
  t.is(asked.length, 1)
  await tell('192.0.2.1', '192.0.2.2')
  for (const { said } of all) t.deepEqual(said, ['192.0.2.1', '192.0.2.2'])
  t.is(timers(), 0)
})

test('an answer is taken for as long as it is fresh, and then asked for again', async (t) => {
  const { ask, asked, tell, pass } = rig()
  await ask()
  await tell('192.0.2.1')
  await pass(FRESH_MS - 1)
  t.deepEqual((await ask()).said, ['192.0.2.1'])
  t.is(asked.length, 0)
  await pass(1)
  const late = await ask()
  t.is(late.said, null)
  await tell('192.0.2.9')
  t.deepEqual(late.said, ['192.0.2.9'], 'new dials go to the new address')
})

test('an answer at which nobody was reached is taken for a second only', async (t) => {
  const { resolver, ask, asked, tell, pass } = rig()
  await ask()
  await tell('192.0.2.1')
  resolver.doubt('broker.test')
  t.deepEqual((await ask()).said, ['192.0.2.1'])
  await pass(DOUBTED_MS)
  const after = await ask()
  t.is(asked.length, 1)
  await tell('192.0.2.2')
  t.deepEqual(after.said, ['192.0.2.2'])
  await pass(FRESH_MS - 1)
  t.deepEqual((await ask()).said, ['192.0.2.2'], 'the new one is not in doubt')
})

test('a silent resolver: the first one waits its deadline, whoever has an old answer a moment only', async (t) => {
  const { ask, asked, tell, pass, timers } = rig()
  const first = await ask()
  await pass(LOOKUP_DEADLINE_MS - 1)
  t.is(first.said, null)
  await pass(1)
  t.is(first.said, 'ETIMEDOUT')
  const second = await ask()
  t.is(asked.length, 1, 'no other thread is given to the same name')
  await tell('192.0.2.1')
  t.deepEqual(second.said, ['192.0.2.1'])
  await pass(FRESH_MS)
  const third = await ask()
  await pass(PATIENCE_MS)
  t.deepEqual(third.said, ['192.0.2.1'])
  t.is(timers(), 0)
})

test('a question that is never answered is given up after a minute', async (t) => {
  const { ask, asked, pass, tell } = rig()
  await ask()
  await pass(FORGOTTEN_MS)
  const again = await ask()
  t.is(asked.length, 2)
  await tell('192.0.2.1')
  t.deepEqual(again.said, ['192.0.2.1'])
})

for (const code of ['EAI_AGAIN', 'ESERVFAIL', 'ETIMEOUT']) {
  test(`${code}: the last answer goes on being used, for an hour`, async (t) => {
    const { ask, asked, tell, fail, pass } = rig()
    await ask()
    await tell('192.0.2.1')
    await pass(FRESH_MS)
    const during = await ask()
    await fail(code)
    t.deepEqual(during.said, ['192.0.2.1'])
    t.deepEqual((await ask()).said, ['192.0.2.1'])
    t.is(asked.length, 0, 'it is not asked again at once')
    await pass(DOUBTED_MS)
    await ask()
    t.is(asked.length, 1)
    await fail(code)
    await pass(STALE_MS)
    const late = await ask()
    await fail(code)
    t.is(late.said, code)
  })
}

test('ENOTFOUND is an answer: what was known before is over, and it is remembered for a second', async (t) => {
  const { ask, asked, tell, fail, pass } = rig()
  await ask()
  await tell('192.0.2.1')
  await pass(FRESH_MS)
  const during = await ask()
  await fail('ENOTFOUND')
  t.is(during.said, 'ENOTFOUND')
  t.is((await ask()).said, 'ENOTFOUND')
  t.is(asked.length, 0)
  await pass(DOUBTED_MS)
  const after = await ask()
  await tell('192.0.2.2')
  t.deepEqual(after.said, ['192.0.2.2'])
})

test('a resolver that throws, or answers with nothing, has failed', async (t) => {
  const throwing = new Resolver({
    lookup: () => {
      throw Object.assign(new Error('no'), { code: 'EBROKEN' })
    },
  })
  const said = await new Promise((resolve) => throwing.lookup('x.test', { all: true }, (error) => resolve(error?.code)))
  t.is(said, 'EBROKEN')
  const { ask, tell } = rig()
  const empty = await ask()
  await tell()
  t.is(empty.said, 'ENOTFOUND')
})

test('an address is no name, families are kept apart, and one address is given where one is asked for', async (t) => {
  const { resolver, ask, asked, tell } = rig()
  t.deepEqual((await ask('192.0.2.7')).said, ['192.0.2.7'])
  t.deepEqual((await ask('2001:db8::1')).said, ['2001:db8::1'])
  t.is(asked.length, 0)
  await ask()
  await tell('2001:db8::1', '192.0.2.1')
  t.deepEqual((await ask('broker.test', 4)).said, ['192.0.2.1'])
  t.deepEqual((await ask('broker.test', 6)).said, ['2001:db8::1'])
  const one = await new Promise((resolve) =>
    resolver.lookup('broker.test', { family: 4 }, (_error, address, family) => resolve([address, family])),
  )
  t.deepEqual(one, ['192.0.2.1', 4])
  await ask('four.test')
  await tell('192.0.2.1')
  t.is((await ask('four.test', 6)).said, 'ENOTFOUND')
})

test('two names are two questions', async (t) => {
  const { ask, asked } = rig()
  await ask('one.test')
  await ask('two.test')
  t.deepEqual(
    asked.map(({ host }) => host),
    ['one.test', 'two.test'],
  )
})
