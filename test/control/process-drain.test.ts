import test from 'ava'
import { NO_LOG } from '../../src/control/log.ts'
import { type Drainable, type DrainOrder, drainProcess } from '../../src/control/process-drain.ts'

const ORDER: DrainOrder = { graceMs: 10_000, pacePerSecond: null, serverReference: 'eu2', newcomers: 'turned away' }

/** A proxy that notes what is done to it. */
function setup(order: Partial<DrainOrder> = {}, sessions = 3, stays = 0) {
  const done: string[] = []
  let ms = 0
  const left = new Set(Array.from({ length: sessions }, (_, n) => n))
  const everybody = [...left].map((n) => ({
    silence: n,
    owed: 0,
    gone: false,
    leave() {
      done.push(`leave ${n}`)
      if (n >= stays) left.delete(n)
    },
  }))
  const running: Drainable = {
    live: {
      get connections() {
        return left.size
      },
    },
    stopAccepting: async () => void done.push('stop accepting'),
    turnAway: ({ code, serverReference }) => void done.push(`turn away ${code} ${serverReference}`),
    stopEntering: () => void done.push('stop entering'),
    leaving: () => everybody,
    close: async () => void done.push('close'),
  }
  const counted: string[] = []
  const progress: number[] = []
  const run = () =>
    drainProcess(
      running,
      { ...ORDER, ...order },
      {
        log: NO_LOG,
        drains: {
          draining: (on) => void counted.push(`draining ${on}`),
          remaining: (_scope, count) => void counted.push(`remaining ${count}`),
          ended: (result) => void counted.push(result),
          serverEnded() {},
          serversDrained() {},
        },
        remaining: (count) => void progress.push(count),
        clock: {
          now: () => ms,
          async sleep(more) {
            ms += more
          },
        },
      },
    )
  return { running, run, done, counted, progress }
}

test('listeners close first, then newcomers are turned away, sessions are told, and what is left is closed', async (t) => {
  const { run, done, counted, progress } = setup()
  t.is(await run(), 0)
  t.deepEqual(done, [
    'stop accepting',
    'turn away ERR_DRAINING eu2',
    'leave 2',
    'leave 1',
    'leave 0',
    'stop entering',
    'close',
  ])
  t.deepEqual([counted[0], counted.at(-1)], ['draining true', 'done'])
  t.deepEqual([progress[0], progress.at(-1)], [3, 0])
})

test('where another process takes over, newcomers are served', async (t) => {
  const { run, done } = setup({ newcomers: 'served' })
  await run()
  t.false(done.some((one) => one.startsWith('turn away')))
})

test('how many were cut off is counted and returned', async (t) => {
  const { run, counted } = setup({}, 5, 2)
  t.is(await run(), 2)
  t.is(counted.at(-1), 'cut')
})

test('brokers that do not close do not hold the end', async (t) => {
  const { running, run } = setup()
  await t.notThrowsAsync(async () => {
    Object.assign(running, { close: () => new Promise(() => {}) })
    t.is(await run(), 0)
  })
})

test('without a grace period everybody is told all the same', async (t) => {
  const { run, done } = setup({ graceMs: 0 })
  t.is(await run(), 0)
  t.is(done.filter((one) => one.startsWith('leave')).length, 3)
})
