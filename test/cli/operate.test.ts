import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { init } from '../../src/cli/init.ts'
import { drain, restart, status, statusLines } from '../../src/cli/operate.ts'
import { restartOrder, serversOf, shutdownOrder } from '../../src/cli/orders.ts'
import { startAdminServer } from '../../src/control/admin.ts'
import { NO_LOG } from '../../src/control/log.ts'
import type { RollStatus } from '../../src/control/rolling.ts'
import { ServerDrains } from '../../src/control/server-drains.ts'
import { folderFor } from '../support/proxy.ts'

const NOW = { version: '1.2.3', runtime: 'bun 1', draining: false, workers: [], restart: null, drained: [] }

/** A process that answers on its admin socket, and the commands that ask it. */
async function asked(t: ExecutionContext, rolls: (RollStatus | null)[] = [], refused: string | null = null) {
  const dir = join(folderFor(t), 'gate')
  init(dir, () => {})
  let drains = 0
  const server = await startAdminServer({
    path: join(dir, 'var/admin.sock'),
    status: () => ({ ...NOW, restart: rolls.length > 1 ? rolls.shift() : (rolls[0] ?? null) }),
    drain: () => void drains++,
    servers: new ServerDrains(
      () => new Map([['main', ['a:1883', 'b:1883']]]),
      () => {},
    ),
    restart: () => ({ refused }),
    reload: async () => ({ kind: 'unchanged', generation: 1 }),
    certificates: { list: () => [], decide: () => ({ kind: 'refused', reason: 'no' }) },
    connections: { list: async () => ({ connections: [], total: 0 }), kick: async () => 0 },
    log: NO_LOG,
  })
  t.teardown(() => server.close())
  const lines: string[] = []
  const common = { file: join(dir, 'brokergate.yaml'), env: {}, print: (line: string) => void lines.push(line) }
  return { common, lines, drains: () => drains }
}

const rolling = (state: RollStatus['state'], replaced: number, reason: string | null = null): RollStatus => ({
  state,
  replaced,
  of: 2,
  reason,
})

test('a restart is followed until it is done', async (t) => {
  const { common, lines } = await asked(t, [
    rolling('running', 0),
    rolling('running', 0),
    rolling('running', 1),
    rolling('done', 2),
  ])
  t.is(await restart({ ...common, lookMs: 1 }), 0)
  t.deepEqual(lines, [
    'restart running: 0 of 2 workers replaced',
    'restart running: 1 of 2 workers replaced',
    'restart done: 2 of 2 workers replaced',
  ])
})

test('a restart that is broken off, or not begun, is exit code 1 and says why', async (t) => {
  const aborted = await asked(t, [rolling('aborted', 1, 'worker 4 ended')])
  t.is(await restart(aborted.common), 1)
  t.deepEqual(aborted.lines, ['restart aborted: 1 of 2 workers replaced; worker 4 ended'])
  const refused = await asked(t, [], 'set workers to 2')
  t.is(await restart(refused.common), 1)
  t.deepEqual(refused.lines, ['set workers to 2'])
})

test('the instance is drained, or a server of a backend; what does not go together is not asked', async (t) => {
  const { common, lines, drains } = await asked(t)
  const whole = { ...common, backend: null, server: null, undo: false }
  t.is(await drain(whole), 0)
  t.is(drains(), 1)
  for (const half of [{ backend: 'main' }, { server: 'a:1883' }, { undo: true }])
    t.is(await drain({ ...whole, ...half }), 1)
  const one = { ...whole, backend: 'main', server: 'a:1883' }
  t.is(await drain(one), 0)
  t.is(await drain({ ...one, server: 'b:1883' }), 0)
  t.is(await drain({ ...one, undo: true }), 0)
  t.is(await drain({ ...one, server: 'c:1883' }), 1)
  t.is(drains(), 1)
  const together = '--backend and --server go together, and --undo with them'
  t.deepEqual(lines, [
    'draining; brokergate ends when it is done',
    together,
    together,
    together,
    'main a:1883 gets no new connections',
    'warning: backend main has no other server: devices are refused until one is back',
    'main b:1883 gets no new connections',
    'main a:1883 gets connections again',
    'backend main has no server c:1883; there are: a:1883, b:1883',
  ])
})

test('the status is told to people, or as it is', async (t) => {
  const { common, lines } = await asked(t)
  t.is(await status({ ...common, json: false }), 0)
  t.is(await status({ ...common, json: true }), 0)
  t.deepEqual([lines[0], JSON.parse(lines[1]!)], ['brokergate 1.2.3 on bun 1', NOW])
  t.deepEqual(
    statusLines({
      ...NOW,
      draining: true,
      connections: 3,
      sessions: 2,
      workers: [
        { id: 1, pid: 10, state: 'ready', ageMs: 61_000 },
        { id: 2, pid: 11, state: 'draining', ageMs: 2_000, remaining: 40 },
        { id: 3, pid: 12, state: 'draining', ageMs: 2_000, remaining: null },
      ],
      restart: rolling('running', 1),
      drained: [{ backend: 'main', server: 'a:1883', sessions: 5 }],
    }),
    [
      'brokergate 1.2.3 on bun 1, draining',
      '3 connections, 2 sessions',
      'worker 1  pid 10  ready  61 s old',
      'worker 2  pid 11  draining, 40 connections left  2 s old',
      'worker 3  pid 12  draining  2 s old',
      'restart running: 1 of 2 workers replaced',
      'drained: main a:1883, 5 sessions left',
    ],
  )
})

test('nobody is there to be asked', async (t) => {
  const dir = join(folderFor(t), 'gate')
  init(dir, () => {})
  const lines: string[] = []
  const common = { file: join(dir, 'brokergate.yaml'), env: {}, print: (line: string) => void lines.push(line) }
  t.deepEqual(
    [
      await status({ ...common, json: false }),
      await restart(common),
      await drain({ ...common, backend: null, server: null, undo: false }),
    ],
    [1, 1, 1],
  )
  for (const line of lines) t.regex(line, /^no brokergate runs/)
})

test('at a shutdown devices are sent elsewhere and newcomers away; a worker that is replaced does neither', (t) => {
  const drain = { grace: 1, settle: 0, pace: 5, serverReference: 'eu2' }
  t.deepEqual(shutdownOrder({ drain }), {
    graceMs: 1,
    pacePerSecond: 5,
    serverReference: 'eu2',
    newcomers: 'turned away',
  })
  t.deepEqual(restartOrder({ drain }), { graceMs: 1, pacePerSecond: 5, serverReference: null, newcomers: 'served' })
})

test('servers are called as the settings call them, without what may be a secret', (t) => {
  const servers = (hosts: readonly string[]) => hosts.map((host) => ({ address: { host, port: 1883 } }))
  const url = { host: 'broker', port: 443, target: '/mqtt?key=secret', secure: true }
  const backends = {
    tcp: { kind: 'tcp', servers: servers(['broker', '::1']) },
    ws: { kind: 'ws', servers: [{ url }] },
    embedded: { kind: 'embedded' },
    http: { kind: 'http' },
  }
  t.deepEqual(
    // Only what is looked at.
    [...serversOf({ backends } as unknown as Parameters<typeof serversOf>[0])],
    [
      ['tcp', ['broker:1883', '[::1]:1883']],
      ['ws', ['wss://broker/mqtt']],
      ['embedded', []],
      ['http', []],
    ],
  )
})
