import test from 'ava'
import fc from 'fast-check'
import { type Clock, type FarewellOptions, farewell, type Leaving, type Progress } from '../../src/control/farewell.ts'
import type { Parting } from '../../src/mqtt/session-contract.ts'

interface Told {
  readonly name: string
  readonly at: number
  readonly parting: Parting
}

/** A clock that goes on by itself whenever somebody sleeps. */
function fakeClock(): Clock & { ms: number } {
  const clock = {
    ms: 1_000,
    now: () => clock.ms,
    async sleep(ms: number) {
      clock.ms += ms
    },
  }
  return clock
}

function setup(options: Partial<FarewellOptions> = {}) {
  const clock = fakeClock()
  const told: Told[] = []
  const everybody = new Map<string, { owed: number; gone: boolean; leaving: Leaving }>()
  const add = (name: string, silence: number, owed = 0, staysMs: number | null = 0) => {
    const one = {
      owed,
      gone: false,
      leaving: {
        silence,
        get owed() {
          return one.owed
        },
        get gone() {
          return one.gone
        },
        leave(parting: Parting) {
          told.push({ name, at: clock.ms - 1_000, parting })
          if (staysMs !== null) everybody.delete(name)
        },
      },
    }
    everybody.set(name, one)
    return one
  }
  const run = () =>
    farewell({
      code: 'ERR_DRAINING',
      serverReference: null,
      graceMs: 10_000,
      pacePerSecond: null,
      here: () => [...everybody.values()].map(({ leaving }) => leaving),
      remaining: () => everybody.size,
      clock,
      random: () => 0.5,
      ...options,
    })
  return { clock, told, everybody, add, run, names: () => told.map(({ name }) => name) }
}

test('who has been silent longest goes first, and who waits for an answer last', async (t) => {
  const { add, run, names } = setup()
  add('fresh', 1)
  add('busy', 900, 1)
  add('old', 500)
  add('older', 600)
  t.deepEqual(await run(), { told: 4, left: 0 })
  t.deepEqual(names(), ['older', 'old', 'fresh', 'busy'])
})

test('who waits for an answer when its turn comes is passed over once', async (t) => {
  const { add, run, names, told } = setup()
  const first = add('first', 9)
  add('second', 8)
  add('third', 7)
  const { leaving } = first
  first.owed = 0
  // Its publish comes between the sorting and its turn.
  let looks = 0
  Object.defineProperty(leaving, 'owed', { get: () => (looks++ < 1 ? 0 : 3) })
  await run()
  t.deepEqual(names(), ['second', 'third', 'first'])
  t.is(told.length, 3, 'and all the same it is told in the end')
})

test('farewells are spread over four fifths of the grace period, each within its own part of it', async (t) => {
  for (const random of [0, 0.25, 0.999]) {
    const { add, run, told } = setup({ random: () => random })
    for (let n = 0; n < 80; n++) add(`d${n}`, 100 - n)
    await run()
    t.is(told.length, 80)
    for (const [n, { at }] of told.entries()) {
      t.true(at >= n * 100 - 1 && at <= (n + 1) * 100 + 1, `${n} at ${at}`)
    }
  }
})

test('a pace is kept where there is time, and where there is not everybody is told all the same', async (t) => {
  const quick = setup({ pacePerSecond: 100 })
  for (let n = 0; n < 50; n++) quick.add(`d${n}`, n)
  await quick.run()
  t.true(quick.told.at(-1)!.at <= 501, 'done early')
  t.true(quick.told.at(-1)!.at >= 480)

  const slow = setup({ pacePerSecond: 1 })
  for (let n = 0; n < 50; n++) slow.add(`d${n}`, n)
  t.deepEqual(await slow.run(), { told: 50, left: 0 })
  t.true(slow.told.at(-1)!.at <= 8_000)
})

test('each is given the time for its answers that the grace period has, and nobody more than is left of it', async (t) => {
  for (const [graceMs, patienceMs] of [
    [60_000, 2_000],
    [10_000, 1_000],
    [0, 0],
  ] as const) {
    const { add, run, told } = setup({ graceMs, serverReference: 'eu2' })
    add('one', 1)
    await run()
    t.deepEqual(told[0]!.parting, { code: 'ERR_DRAINING', serverReference: 'eu2', patienceMs })
  }
})

test('who comes in meanwhile is told too, and who has left by itself is not', async (t) => {
  let begun = false
  const { add, run, names, everybody } = setup({
    progress() {
      if (begun) return
      begun = true
      leaves.gone = true
      everybody.delete('leaves')
      add('late', 900)
    },
  })
  const leaves = add('leaves', 3)
  add('b', 2)
  t.deepEqual(await run(), { told: 2, left: 0 })
  t.deepEqual(names(), ['b', 'late'])
})

test('who does not go is counted when the grace period is over', async (t) => {
  const { add, run, clock, told } = setup()
  add('stays', 1, 0, null)
  add('goes', 1)
  t.deepEqual(await run(), { told: 2, left: 1 })
  t.is(told.length, 2, 'nobody is told twice')
  t.is(clock.ms, 11_000)
})

test('called off, nobody else is told', async (t) => {
  const off = new AbortController()
  const { add, run, names } = setup({
    signal: off.signal,
    progress: ({ told }) => {
      if (told >= 2) off.abort()
    },
  })
  for (let n = 0; n < 20; n++) add(`d${n}`, n)
  const { told, left } = await run()
  t.is(told, names().length)
  t.true(told >= 2 && told < 20)
  t.is(left, 20 - told)
})

test('how far it is is said at the begin, twice a second at most, and at the end', async (t) => {
  const said: Progress[] = []
  const { add, run } = setup({ progress: (progress) => void said.push(progress) })
  for (let n = 0; n < 1_000; n++) add(`d${n}`, n)
  await run()
  t.deepEqual(said[0], { remaining: 1_000, told: 0 })
  t.deepEqual(said.at(-1), { remaining: 0, told: 1_000 })
  t.true(said.length <= 22, String(said.length))
})

test('whoever they are and whatever the dice say, each is told once and in time', async (t) => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.record({ silence: fc.nat(100), owed: fc.nat(2) }), { maxLength: 60 }),
      fc.option(fc.integer({ min: 1, max: 1_000 })),
      fc.infiniteStream(fc.double({ min: 0, max: 0.999, noNaN: true })),
      async (people, pacePerSecond, dice) => {
        const s = setup({ pacePerSecond, random: () => dice.next().value ?? 0 })
        for (const [n, { silence, owed }] of people.entries()) s.add(`d${n}`, silence, owed)
        const result = await s.run()
        t.deepEqual(result, { told: people.length, left: 0 })
        t.is(new Set(s.names()).size, people.length)
        for (const { at } of s.told) t.true(at <= 8_001)
      },
    ),
    { numRuns: 100 },
  )
})
