import test from 'ava'
import { NO_LOG } from '../../src/control/log.ts'
import { Roll, type RollOptions } from '../../src/control/rolling.ts'

/** Places whose new workers do what the test says, and a record of what was done. */
function setup(ready: (place: number) => Promise<boolean>, options: Partial<RollOptions> = {}) {
  const done: string[] = []
  const roll = new Roll({
    places: 3,
    readyDeadlineMs: 60_000,
    prepare: async () => null,
    log: NO_LOG,
    over: () => false,
    fork(place) {
      done.push(`fork ${place}`)
      return {
        id: place + 10,
        ready: ready(place).then((well) => {
          if (well) done.push(`ready ${place}`)
          return well
        }),
        kill: () => void done.push(`kill ${place}`),
        retireOthers: async () => void done.push(`retired ${place}`),
      }
    },
    ...options,
  })
  return { done, roll }
}

test('a place is given up only when its new worker is ready, and the next one only then', async (t) => {
  const { done, roll } = setup(async () => true)
  t.like(roll.status, { state: 'running', replaced: 0, of: 3 })
  t.deepEqual(await roll.run(), { kind: 'done', status: { state: 'done', replaced: 3, of: 3, reason: null } })
  t.deepEqual(
    done,
    [0, 1, 2].flatMap((place) => [`fork ${place}`, `ready ${place}`, `retired ${place}`]),
  )
})

test('what is said against it before the first place ends it with nothing touched', async (t) => {
  const { done, roll } = setup(async () => true, { prepare: async () => 'the settings are broken' })
  t.deepEqual(await roll.run(), {
    kind: 'aborted',
    status: { state: 'aborted', replaced: 0, of: 3, reason: 'the settings are broken' },
  })
  t.deepEqual(done, [])
})

test('a new worker that ends before it is ready ends it, and whoever has not been replaced stays', async (t) => {
  const { done, roll } = setup(async (place) => place !== 1)
  const { kind, status } = await roll.run()
  t.is(kind, 'aborted')
  t.like(status, { state: 'aborted', replaced: 1, of: 3 })
  t.regex(status.reason!, /^worker 11 ended before it was ready/)
  t.deepEqual(done, ['fork 0', 'ready 0', 'retired 0', 'fork 1'])
})

test('a new worker that does not become ready in time is killed, and ends it', async (t) => {
  const { done, roll } = setup(() => new Promise(() => {}), { readyDeadlineMs: 1 })
  const { kind, status } = await roll.run()
  t.deepEqual([kind, status.reason], ['aborted', 'worker 10 was not ready in 1 ms'])
  t.deepEqual(done, ['fork 0', 'kill 0'])
})

test('when the instance is about to end nobody else is forked or retired', async (t) => {
  for (const [from, expected] of [
    ['fork 1', ['fork 0', 'ready 0', 'retired 0', 'fork 1', 'ready 1']],
    ['retired 1', ['fork 0', 'ready 0', 'retired 0', 'fork 1', 'ready 1', 'retired 1']],
  ] as const) {
    const { done, roll } = setup(async () => true, { over: () => done.includes(from) })
    t.like(await roll.run(), { kind: 'aborted', status: { reason: 'the instance is about to end' } })
    t.deepEqual(done, expected)
  }
})
