import test from 'ava'
import { NO_LOG } from '../../src/control/log.ts'
import { type Follower, follower, type Waiting, workersTarget } from '../../src/control/reload-link.ts'

interface Material {
  readonly number: number
}

interface WorkerRig {
  readonly told: string[]
  /** What it answers; null: never. */
  issues: readonly string[] | null
  failed: unknown
  deaf: boolean
}

/** A primary and its workers, joined by messages that arrive a turn later. */
function rig(options: { readonly prepareDeadlineMs?: number; readonly commitDeadlineMs?: number } = {}) {
  let current: Material = { number: 1 }
  const followers = new Map<number, { readonly link: Follower; readonly worker: WorkerRig }>()
  const complaints: string[] = []
  const target = workersTarget<Material>({
    current: () => current,
    tell(workerId, message) {
      const to = followers.get(workerId)
      if (to === undefined || to.worker.deaf) return
      to.worker.told.push(String((message as { reload: string }).reload))
      queueMicrotask(() => to.link.heard(message))
    },
    log: { ...NO_LOG, error: (_fields, message) => void complaints.push(message) },
    ...options,
  })
  /** @param serving the generation that it starts to serve; null: it is still starting */
  const join = (workerId: number, serving: number | null): WorkerRig & { serve(number: number): void } => {
    const worker: WorkerRig & { serve(number: number): void } = {
      told: [],
      issues: [],
      failed: null,
      deaf: false,
      serve: (number) => link.serves(number),
    }
    const link = follower<Material>({
      send: (message) => queueMicrotask(() => target.heard(message, workerId)),
      async prepare({ number }): Promise<Waiting | { readonly issues: readonly string[] }> {
        worker.told.push(`makes ${number}`)
        const { issues } = worker
        if (issues === null) return new Promise(() => {})
        if (issues.length > 0) return { issues }
        return {
          commit: () => void worker.told.push(`counts ${number}`),
          async abort() {
            worker.told.push(`drops ${number}`)
          },
        }
      },
      fail(error) {
        worker.failed = error
      },
    })
    followers.set(workerId, { link, worker })
    target.heard({ reload: 'ask' }, workerId)
    if (serving !== null) link.serves(serving)
    return worker
  }
  const settle = () => new Promise((resolve) => setImmediate(resolve))
  return {
    target,
    join,
    settle,
    complaints,
    setCurrent(number: number) {
      current = { number }
    },
    end(workerId: number, asAsked = false) {
      followers.delete(workerId)
      target.ended(workerId, asAsked)
    },
  }
}

test('all are asked, and only when all could they are told to', async (t) => {
  const { target, join, settle } = rig()
  const workers = [join(1, 1), join(2, 1)]
  await settle()
  t.deepEqual(await target.prepare({ number: 2 }), [])
  for (const { told } of workers) t.deepEqual(told, ['material', 'prepare', 'makes 2'])
  await target.commit()
  for (const { told } of workers) t.deepEqual(told.slice(3), ['commit', 'counts 2'])
})

test('one that cannot is enough: everywhere it comes to nothing', async (t) => {
  const { target, join, settle } = rig()
  const [one, two] = [join(1, 1), join(2, 1)]
  two.issues = ['domains[0]: not the key']
  await settle()
  t.deepEqual(await target.prepare({ number: 2 }), ['domains[0]: not the key'])
  await settle()
  t.deepEqual(one.told, ['material', 'prepare', 'makes 2', 'abort', 'drops 2'])
  t.false(two.told.includes('counts 2'))
})

test('one that ends while it is asked calls it off', async (t) => {
  const { target, join, settle, end } = rig()
  const [one, two] = [join(1, 1), join(2, 1)]
  two.issues = null
  await settle()
  const preparing = target.prepare({ number: 2 })
  await settle()
  end(2)
  t.deepEqual(await preparing, ['worker 2 ended while it made the new settings possible'])
  await settle()
  t.is(one.told.at(-1), 'drops 2')
})

test('one that has drained while it is asked is not waited for, and calls nothing off', async (t) => {
  const { target, join, settle, end } = rig()
  const [one, two] = [join(1, 1), join(2, 1)]
  two.issues = null
  await settle()
  const preparing = target.prepare({ number: 2 })
  await settle()
  end(2, true)
  t.deepEqual(await preparing, [])
  await target.commit()
  t.is(one.told.at(-1), 'counts 2')
})

test('one that does not answer in time calls it off', async (t) => {
  const { target, join, settle } = rig({ prepareDeadlineMs: 20 })
  const [one, two] = [join(1, 1), join(2, 1)]
  two.issues = null
  await settle()
  t.deepEqual(await target.prepare({ number: 2 }), ['worker 2 has not answered in 20 ms'])
  await settle()
  t.is(one.told.at(-1), 'drops 2')
})

test('an answer that comes too late is not taken for one to the next question', async (t) => {
  const { target, join, settle } = rig({ prepareDeadlineMs: 20 })
  const worker = join(1, 1)
  worker.issues = null
  await settle()
  t.is((await target.prepare({ number: 2 })).length, 1)
  const second = target.prepare({ number: 2 })
  target.heard({ reload: 'ready', attempt: 1 }, 1)
  t.deepEqual(await second, ['worker 1 has not answered in 20 ms'])
})

test('one that ends between its yes and the word is not waited for', async (t) => {
  const { target, join, settle, end } = rig()
  join(1, 1)
  join(2, 1)
  await settle()
  await target.prepare({ number: 2 })
  end(2)
  await target.commit()
  t.pass()
})

test('one that has not confirmed the word in time is told of, and hears it all the same', async (t) => {
  const { target, join, settle, complaints } = rig({ commitDeadlineMs: 20 })
  const worker = join(1, 1)
  await settle()
  await target.prepare({ number: 2 })
  worker.deaf = true
  await target.commit()
  t.deepEqual(complaints, ['a worker has not confirmed the settings yet'])
})

test('one that starts is given what counts, not what is on its way', async (t) => {
  const { target, join, settle, setCurrent } = rig()
  join(1, 1)
  await settle()
  await target.prepare({ number: 2 })
  const late = join(3, null)
  await settle()
  t.deepEqual(late.told, ['material'])
  setCurrent(2)
  await target.commit()
  // It comes up with the former one, and follows.
  late.serve(1)
  await settle()
  await settle()
  t.deepEqual(late.told, ['material', 'prepare', 'makes 2', 'commit', 'counts 2'])
})

test('one that comes up between the question and the word follows with the word', async (t) => {
  const { target, join, settle, setCurrent } = rig()
  join(1, 1)
  await settle()
  await target.prepare({ number: 2 })
  const late = join(3, 1)
  await settle()
  t.deepEqual(late.told, ['material'])
  setCurrent(2)
  await target.commit()
  t.is(late.told.at(-1), 'counts 2')
})

test('one that cannot follow makes room for another', async (t) => {
  const { target, join, settle, setCurrent, complaints } = rig()
  join(1, 1)
  await settle()
  await target.prepare({ number: 2 })
  const late = join(3, 1)
  late.issues = ['registry: broken']
  await settle()
  setCurrent(2)
  await target.commit()
  await settle()
  t.is((late.failed as Error).message, 'the settings in force cannot be served here')
  t.deepEqual(complaints, [
    'registry: broken',
    'a worker cannot serve the settings in force; another one takes its place',
  ])
})

test('what is asked of one that is still starting waits until it serves', async (t) => {
  const { join, settle, target } = rig()
  const worker = join(1, null)
  await settle()
  t.deepEqual(await target.prepare({ number: 2 }), [])
  await target.abort()
  t.deepEqual(worker.told, ['material'])
})

test('a word about what was never prepared is a fault, and not served', async (t) => {
  const { target: _, join, settle } = rig()
  const worker = join(1, 1)
  await settle()
  const failures: unknown[] = []
  const link = follower<Material>({
    send() {},
    prepare: async () => ({ issues: [] }),
    fail: (error) => void failures.push(error),
  })
  link.serves(1)
  t.true(link.heard({ reload: 'commit', attempt: 7 }))
  await settle()
  t.is((failures[0] as Error).message, 'what was not prepared cannot count')
  t.is(worker.failed, null)
})

test('a question that takes the place of another drops that one', async (t) => {
  const told: string[] = []
  const sent: unknown[] = []
  const link = follower<Material>({
    send: (message) => void sent.push(message),
    prepare: async ({ number }) => ({
      commit: () => void told.push(`counts ${number}`),
      abort: async () => void told.push(`drops ${number}`),
    }),
    fail: (error) => t.fail(String(error)),
  })
  link.serves(1)
  for (const number of [2, 3]) link.heard({ reload: 'prepare', attempt: 10 + number, material: { number } })
  link.heard({ reload: 'commit', attempt: 13 })
  await new Promise((resolve) => setImmediate(resolve))
  t.deepEqual(told, ['drops 2', 'counts 3'])
  t.deepEqual(sent, [
    { reload: 'serves', number: 1 },
    { reload: 'ready', attempt: 12 },
    { reload: 'ready', attempt: 13 },
    { reload: 'serves', number: 3 },
  ])
})

test('messages of others are left to them', (t) => {
  const { target } = rig()
  t.false(target.heard({ store: 'claim' }, 1))
  t.false(target.heard(null, 1))
  const link = follower<Material>({ send() {}, prepare: async () => ({ issues: [] }), fail() {} })
  t.false(link.heard({ tickets: 'secret' }))
})

test('what lives in a worker is known from it alone', async (t) => {
  const { target, join, settle, end } = rig()
  join(1, 1)
  await settle()
  t.is(target.living(1), null)
  target.heard({ reload: 'living', numbers: [1, 2] }, 1)
  t.deepEqual(target.living(1), [1, 2])
  end(1)
  t.is(target.living(1), null)
})
