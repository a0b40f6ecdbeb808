import test from 'ava'
import { CallFault, guard } from '../../src/auth/guard.ts'
import { NO_METRICS } from '../../src/control/metrics.ts'
import { ProxyError } from '../../src/errors.ts'

const SIGNAL = new AbortController().signal

function guarded(options: Partial<Parameters<typeof guard>[0]> = {}) {
  const told: string[] = []
  const metrics = {
    ...NO_METRICS,
    authorizerCall: (name: string, result: string) => void told.push(`${name} ${result}`),
  }
  return { told, run: guard({ name: 'a', timeoutMs: 5_000, concurrency: 2, metrics, ...options }).run }
}

/** A call that the test ends. */
function held() {
  let end: (answer: string) => void = () => {}
  let fail: (error: unknown) => void = () => {}
  let started = 0
  let signal: AbortSignal | null = null
  const answer = new Promise<string>((resolve, reject) => {
    end = resolve
    fail = reject
  })
  answer.catch(() => {})
  const call = (given: AbortSignal) => {
    started++
    signal = given
    return answer
  }
  return { call, end, fail, started: () => started, signal: () => signal }
}

test('more calls than may run at once wait for their turn, in their order', async (t) => {
  const { run, told } = guarded()
  const calls = [held(), held(), held(), held()]
  const order: number[] = []
  const runs = calls.map(({ call }, at) => run(call, SIGNAL).then(() => order.push(at)))
  await new Promise(setImmediate)
  t.deepEqual(
    calls.map(({ started }) => started()),
    [1, 1, 0, 0],
  )
  calls[1]!.end('')
  await runs[1]
  await new Promise(setImmediate)
  t.deepEqual(
    calls.map(({ started }) => started()),
    [1, 1, 1, 0],
  )
  for (const { end } of calls) end('')
  await Promise.all(runs)
  t.deepEqual(order, [1, 0, 2, 3])
  t.deepEqual(told, Array(4).fill('a ok'))
})

test('when too many wait already, the next one is refused at once', async (t) => {
  const { run, told } = guarded({ concurrency: 1 })
  const calls = Array.from({ length: 17 }, held)
  const runs = calls.map(({ call }) => run(call, SIGNAL))
  await t.throwsAsync(
    run(async () => '', SIGNAL),
    { code: 'ERR_AUTHORIZER_UNAVAILABLE', message: /too many/ },
  )
  t.deepEqual(told, ['a busy'])
  for (const { end } of calls) end('')
  await Promise.all(runs)
  t.is(await run(async () => 'again', SIGNAL), 'again')
})

test('the deadline counts from the first moment, waiting included, and ends a call that does not listen', async (t) => {
  const { run, told } = guarded({ concurrency: 1, timeoutMs: 50 })
  const first = held()
  const waiting = held()
  const error = { code: 'ERR_AUTHORIZER_UNAVAILABLE', message: /no answer in 50 ms/ }
  await Promise.all([t.throwsAsync(run(first.call, SIGNAL), error), t.throwsAsync(run(waiting.call, SIGNAL), error)])
  t.true(first.signal()?.aborted)
  t.deepEqual(told, ['a timeout', 'a timeout'])
  t.is(await run(async () => 'next', SIGNAL), 'next', 'the place is free again')
})

test('a device that leaves ends its call, and its place in the queue', async (t) => {
  const { run, told } = guarded({ concurrency: 1 })
  const [running, waiting] = [held(), held()]
  const [one, two] = [new AbortController(), new AbortController()]
  const runs = [run(running.call, one.signal), run(waiting.call, two.signal)]
  two.abort()
  await t.throwsAsync(runs[1]!, { name: 'ProxyError' })
  one.abort(new ProxyError('ERR_DRAINING', 'ends'))
  await t.throwsAsync(runs[0]!, { code: 'ERR_DRAINING' })
  t.is(waiting.started(), 0)
  t.deepEqual(told, ['a canceled', 'a canceled'])
  await t.throwsAsync(run(held().call, AbortSignal.abort()), { name: 'ProxyError' })
})

test('devices that leave do not open the circuit', async (t) => {
  const { run } = guarded()
  for (let count = 0; count < 10; count++) {
    const leaving = new AbortController()
    const running = run(held().call, leaving.signal)
    leaving.abort()
    await t.throwsAsync(running)
  }
  t.is(await run(async () => 'asked', SIGNAL), 'asked')
})

test('the deadline of questions that had to wait for most of it does not open the circuit', async (t) => {
  let now = 0
  const { run, told } = guarded({ concurrency: 1, timeoutMs: 50, now: () => now })
  const first = held()
  const running = run(first.call, SIGNAL)
  const waiting = Array.from({ length: 10 }, () => t.throwsAsync(run(held().call, SIGNAL), { message: /in 50 ms/ }))
  now = 40
  first.end('')
  await running
  now = 50
  await Promise.all(waiting)
  t.deepEqual(told, ['a ok', ...waiting.map(() => 'a timeout')])
  t.is(await run(async () => 'asked', SIGNAL), 'asked')
})

test('the deadline of questions that were asked at once does', async (t) => {
  let now = 0
  const { run } = guarded({ concurrency: 5, timeoutMs: 50, now: () => now })
  const asked = Array.from({ length: 5 }, () => t.throwsAsync(run(held().call, SIGNAL), { message: /in 50 ms/ }))
  // They have their turn at 0.
  await new Promise((resolve) => setImmediate(resolve))
  now = 50
  await Promise.all(asked)
  await t.throwsAsync(
    run(async () => '', SIGNAL),
    { message: /not asked for a while/ },
  )
})

test('whatever a call throws is a fault with one code', async (t) => {
  for (const thrown of [new Error('x'), 'text', undefined, new CallFault('network', 'x')]) {
    const { run } = guarded()
    const fails = () => {
      throw thrown
    }
    await t.throwsAsync(run(fails, SIGNAL), { name: 'ProxyError', code: 'ERR_AUTHORIZER_UNAVAILABLE' })
  }
})

test('the circuit: five faults in a row open it, an answer between them does not let it come so far', async (t) => {
  let now = 0
  const { run } = guarded({ now: () => now, random: () => 0.5 })
  const fails = () =>
    t.throwsAsync(
      run(() => Promise.reject(new Error('x')), SIGNAL),
      { message: /a: x/ },
    )
  const open = () =>
    t.throwsAsync(
      run(async () => '', SIGNAL),
      { message: /not asked for a while/ },
    )
  for (let count = 0; count < 4; count++) await fails()
  await run(async () => '', SIGNAL)
  for (let count = 0; count < 5; count++) await fails()
  await open()
  // A second, and a quarter of it by chance.
  now = 1_249
  await open()
  now = 1_250
  await fails()
  now += 2_499
  await open()
  now += 1
  t.is(await run(async () => 'back', SIGNAL), 'back')
  t.is(await run(async () => 'closed', SIGNAL), 'closed')
})

test('the pause of an open circuit grows to half a minute and no further', async (t) => {
  let now = 0
  let asked = 0
  const { run } = guarded({ now: () => now, random: () => 0 })
  const fail = () => {
    asked++
    return Promise.reject(new Error('x'))
  }
  for (let count = 0; count < 5; count++) await t.throwsAsync(run(fail, SIGNAL))
  for (const pause of [1, 2, 4, 8, 16, 30, 30, 30]) {
    now += pause * 1_000 - 1
    await t.throwsAsync(run(fail, SIGNAL), { message: /not asked/ })
    now += 1
    await t.throwsAsync(run(fail, SIGNAL), { message: /a: x/ })
  }
  t.is(asked, 13)
})

test('an open circuit lets one question through at a time', async (t) => {
  let now = 0
  const { run } = guarded({ now: () => now, random: () => 0 })
  for (let count = 0; count < 5; count++) await t.throwsAsync(run(() => Promise.reject(new Error('x')), SIGNAL))
  now = 1_000
  const probe = held()
  const probing = run(probe.call, SIGNAL)
  await t.throwsAsync(
    run(async () => '', SIGNAL),
    { message: /not asked/ },
  )
  probe.end('well')
  t.is(await probing, 'well')
  t.is(await run(async () => 'closed', SIGNAL), 'closed')
})

test('a probe whose device leaves makes room for another', async (t) => {
  let now = 0
  const { run } = guarded({ now: () => now, random: () => 0 })
  for (let count = 0; count < 5; count++) await t.throwsAsync(run(() => Promise.reject(new Error('x')), SIGNAL))
  now = 1_000
  const leaving = new AbortController()
  const probing = run(held().call, leaving.signal)
  leaving.abort()
  await t.throwsAsync(probing)
  t.is(await run(async () => 'well', SIGNAL), 'well')
})
