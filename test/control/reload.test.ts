import test from 'ava'
import type { Log } from '../../src/control/log.ts'
import { type Read, Reloads, type Target } from '../../src/control/reload.ts'

interface Settings {
  readonly number: number
  readonly text: string
}

interface Rig {
  /** What is on disk. */
  disk: string
  broken: string[]
  /** What processes say to it. */
  issues: string[]
  fails: boolean
}

function rig(open = true) {
  const now: Rig = { disk: 'one', broken: [], issues: [], fails: false }
  const told: string[] = []
  const lines: string[] = []
  const counts: string[] = []
  /** Preparations under way, to be let go by the test. */
  const gates: (() => void)[] = []
  let gated = false
  const write =
    (level: string): Log['info'] =>
    (_fields, message) =>
      void lines.push(`${level} ${message}`)
  const log: Log = { debug: write('debug'), info: write('info'), warn: write('warn'), error: write('error') }
  const target: Target<Settings> = {
    async prepare({ number, text }) {
      told.push(`prepare ${number} ${text}`)
      if (gated) await new Promise<void>((resolve) => gates.push(resolve))
      if (now.fails) throw new Error('no reason')
      return now.issues
    },
    async commit() {
      told.push('commit')
    },
    async abort() {
      told.push('abort')
    },
  }
  const reloads = new Reloads<Settings>({
    first: { number: 1, text: 'one' },
    read(before): Read<Settings> {
      told.push('read')
      if (now.broken.length > 0) return { kind: 'refused', issues: now.broken }
      const material = { number: before.number + 1, text: now.disk }
      return { kind: 'read', material, changed: before.text === now.disk ? [] : ['text'] }
    },
    target,
    inForce: ({ number }) => void told.push(`in force ${number}`),
    log,
    counted: {
      reloaded: (result) => void counts.push(result),
      generation: (number) => void counts.push(`generation ${number}`),
      living() {},
      known() {},
      succeeded: () => void counts.push('success'),
    },
    now: () => 0,
  })
  if (open) reloads.open()
  counts.length = 0
  return {
    now,
    told,
    lines,
    counts,
    reloads,
    gate() {
      gated = true
    },
    async letGo() {
      while (gates.length === 0) await new Promise((resolve) => setImmediate(resolve))
      gates.shift()!()
    },
  }
}

test('other settings are made possible, then count, then everybody is told', async (t) => {
  const { now, reloads, told, counts } = rig()
  now.disk = 'two'
  t.deepEqual(await reloads.request('signal'), { kind: 'done', generation: 2, changed: ['text'] })
  t.deepEqual(told, ['read', 'prepare 2 two', 'in force 2', 'commit'])
  t.deepEqual(counts, ['done', 'generation 2', 'success'])
  t.is(reloads.current.text, 'two')
})

test('the same settings make no other generation', async (t) => {
  const { reloads, told, counts } = rig()
  t.deepEqual(await reloads.request('admin'), { kind: 'unchanged', generation: 1 })
  t.deepEqual(told, ['read'])
  t.deepEqual(counts, ['unchanged', 'success'])
})

test('what cannot be read is refused with all that is wrong, and nobody is asked', async (t) => {
  const { now, reloads, told, counts, lines } = rig()
  now.broken = ['a.yaml:1:1: broken', 'a.yaml:2:1: broken too']
  t.deepEqual(await reloads.request('files'), { kind: 'refused', generation: 1, issues: now.broken })
  t.deepEqual(told, ['read'])
  t.deepEqual(counts, ['refused'])
  t.deepEqual(lines, [
    'error a.yaml:1:1: broken',
    'error a.yaml:2:1: broken too',
    'error settings not reloaded; the former ones go on',
  ])
})

test('what a process cannot serve is refused, and the next one may be better', async (t) => {
  const { now, reloads, told } = rig()
  now.disk = 'two'
  now.issues = ['not the key']
  t.is((await reloads.request('signal')).kind, 'refused')
  t.is(reloads.current.number, 1)
  now.issues = []
  t.deepEqual(await reloads.request('signal'), { kind: 'done', generation: 2, changed: ['text'] })
  t.deepEqual(told, ['read', 'prepare 2 two', 'read', 'prepare 2 two', 'in force 2', 'commit'])
})

test('a fault of ours is a refusal too', async (t) => {
  const { now, reloads, counts } = rig()
  now.disk = 'two'
  now.fails = true
  const reloaded = await reloads.request('signal')
  t.deepEqual(reloaded, { kind: 'refused', generation: 1, issues: ['a fault of this program: no reason'] })
  t.deepEqual(counts, ['refused'])
})

test('who asks while one is under way gets the next one, and many get the same', async (t) => {
  const { now, reloads, told, gate, letGo } = rig()
  gate()
  now.disk = 'two'
  const first = reloads.request('signal')
  now.disk = 'three'
  const [second, third] = [reloads.request('files'), reloads.request('admin')]
  t.is(second, third)
  now.disk = 'four'
  await letGo()
  t.is((await first).generation, 2)
  await letGo()
  t.deepEqual(await second, { kind: 'done', generation: 3, changed: ['text'] })
  t.is(reloads.current.text, 'four')
  t.is(told.filter((line) => line === 'read').length, 2)
})

test('before the start and from the end on it is told, and nothing else', async (t) => {
  const { reloads, told, lines } = rig(false)
  t.deepEqual(await reloads.request('signal'), { kind: 'ignored', generation: 1, why: 'the program is starting' })
  reloads.open()
  reloads.close('the program is ending')
  t.deepEqual(await reloads.request('signal'), { kind: 'ignored', generation: 1, why: 'the program is ending' })
  t.deepEqual(told, [])
  t.deepEqual(lines, ['warn reload ignored: the program is starting', 'warn reload ignored: the program is ending'])
})

test('a file that changed during the start is looked at when it is over', async (t) => {
  const { now, reloads, told } = rig(false)
  now.disk = 'two'
  t.is((await reloads.request('files')).kind, 'ignored')
  reloads.open()
  // It is under way, so that who asks now gets the one after it.
  t.deepEqual(await reloads.request('signal'), { kind: 'unchanged', generation: 2 })
  t.deepEqual(told, ['read', 'prepare 2 two', 'in force 2', 'commit', 'read'])
})

test('what is being prepared when the end begins comes to nothing', async (t) => {
  const { now, reloads, told, gate, letGo } = rig()
  gate()
  now.disk = 'two'
  const reloading = reloads.request('signal')
  const queued = reloads.request('files')
  reloads.close('the program is ending')
  await letGo()
  t.is((await reloading).kind, 'ignored')
  t.is((await queued).kind, 'ignored')
  t.deepEqual(told, ['read', 'prepare 2 two', 'abort'])
  t.is(reloads.current.number, 1)
})
