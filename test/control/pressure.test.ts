import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import test from 'ava'
import { admissionCounters } from '../../src/control/admission-metrics.ts'
import { memoryShare } from '../../src/control/memory.ts'
import { describe, Pressure, type PressureState } from '../../src/control/pressure.ts'
import { pressureNotice, pressurePrimary, readinessOf } from '../../src/control/pressure-link.ts'

const SETTINGS = {
  lag: { trickle: 250, refuse: 1_000, stall: 400 },
  memory: { trickle: 85, refuse: 92, limit: null },
  descriptors: { trickle: 85, refuse: 95 },
}

function rig() {
  const counters = admissionCounters()
  const told: PressureState[] = []
  const world = { now: 0, memory: 10, descriptors: 10 }
  const pressure = new Pressure({
    settings: SETTINGS,
    counters,
    changed: (state) => told.push(state),
    now: () => world.now,
    senses: { memory: () => world.memory, descriptors: () => world.descriptors },
  })
  /** Ticks for so long, each so late. */
  const pass = (ms: number, late = 0) => {
    for (const until = world.now + ms; world.now < until; ) {
      world.now += 50 + late
      pressure.tick()
    }
  }
  return { pressure, counters, told, world, pass }
}

test('nothing is told while all is well', (t) => {
  const { told, pass, pressure } = rig()
  pass(10_000)
  t.deepEqual(told, [])
  t.deepEqual(pressure.state, { stage: 0, ready: true, reasons: [] })
})

test('a single stall of half a second turns readiness off for a moment and refuses nobody', (t) => {
  const { told, pass, world, pressure } = rig()
  pass(2_000)
  world.now += 500
  pressure.tick()
  t.deepEqual(pressure.state, { stage: 0, ready: false, reasons: ['lag'] })
  t.is(describe(pressure.state), 'the event loop stood still')
  pass(1_900)
  t.false(pressure.state.ready)
  pass(200)
  t.true(pressure.state.ready)
  t.is(told.length, 2)
})

test('lag that stays is stage 1, more of it stage 2, and it ends alone, one stage after the other', (t) => {
  const { told, pass, counters, pressure } = rig()
  pass(6_000, 350)
  t.is(pressure.state.stage, 1)
  t.true(pressure.state.ready)
  t.is(counters.shedding.lag, 1)
  pass(12_000, 1_500)
  t.is(pressure.state.stage, 2)
  t.false(pressure.state.ready)
  pass(30_000)
  t.deepEqual(pressure.state, { stage: 0, ready: true, reasons: [] })
  t.is(counters.shedding.lag, 0)
  const stages = told.map(({ stage }) => stage).filter((stage, at, all) => stage !== all[at - 1])
  t.deepEqual(stages.slice(-3), [2, 1, 0])
})

for (const reason of ['memory', 'descriptors'] as const) {
  test(`short of ${reason}: up at once, and down only when it is clearly below for two seconds`, (t) => {
    const { pass, world, pressure, counters } = rig()
    world[reason] = 86
    pass(600)
    t.is(pressure.state.stage, 1)
    world[reason] = 96
    pass(600)
    t.deepEqual(pressure.state, { stage: 2, ready: false, reasons: [reason] })
    t.regex(describe(pressure.state)!, new RegExp(reason))
    t.is(counters.shedding[reason], 2)
    // Just below the threshold is not clearly below.
    world[reason] = reason === 'memory' ? 91 : 94
    pass(10_000)
    t.is(pressure.state.stage, 2)
    world[reason] = 84
    pass(1_500)
    t.is(pressure.state.stage, 2)
    pass(1_600)
    t.is(pressure.state.stage, 1)
    world[reason] = 10
    pass(3_500)
    t.is(pressure.state.stage, 0)
  })
}

test('a worker that takes nobody in is no reason as long as another one does', (t) => {
  const primary = pressurePrimary()
  const shut: PressureState = { stage: 2, ready: false, reasons: ['memory'] }
  t.deepEqual(primary.readiness([]), { ready: false, reason: 'no worker is ready' })
  t.deepEqual(primary.readiness([1, 2]), { ready: true, reason: null })
  t.true(primary.heard(pressureNotice(shut), 1))
  t.false(primary.heard({ brokergate: 'other' }, 1))
  t.true(primary.readiness([1, 2]).ready)
  primary.heard(pressureNotice(shut), 2)
  t.deepEqual(primary.readiness([1, 2]), {
    ready: false,
    reason: 'shedding: no new connections, short of memory',
  })
  t.is(primary.of(1), 'shedding: no new connections, short of memory')
  primary.ended(2)
  t.is(primary.of(2), null)
  t.true(primary.readiness([1, 3]).ready)
  t.deepEqual(readinessOf(shut), { ready: false, reason: 'shedding: no new connections, short of memory' })
})

test('memory is that of the fullest control group with a limit, without pages that nobody uses', (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'brokergate-memory-'))
  t.teardown(() => rmSync(dir, { recursive: true, force: true }))
  const put = (name: string, text: string) => {
    mkdirSync(dirname(join(dir, name)), { recursive: true })
    writeFileSync(join(dir, name), text)
  }
  const files = { self: join(dir, 'self'), groups: join(dir, 'groups'), machine: join(dir, 'machine') }
  t.is(memoryShare(null, files), 0)
  put('machine', 'MemTotal:       1000 kB\nMemFree:         100 kB\nMemAvailable:    400 kB\n')
  t.is(memoryShare(null, files), 0.6)
  put('self', '4:memory:/old\n0::/pod/box\n')
  t.is(memoryShare(null, files), 0.6)
  put('groups/pod/box/memory.max', 'max\n')
  put('groups/pod/box/memory.current', '900\n')
  put('groups/pod/memory.max', '1000\n')
  put('groups/pod/memory.current', '950\n')
  put('groups/pod/memory.stat', 'active_file 10\ninactive_file 50\n')
  t.is(memoryShare(null, files), 0.9)
  const own = memoryShare(1_073_741_824, files)
  t.true(own > 0.01 && own < 1, `${own}`)
})
