import { setTimeout as sleep } from 'node:timers/promises'
import type { Bench, Context } from './harness/bench.ts'
import { processesOf } from './harness/proc.ts'
import { able, deviceAt, fleet, isOurs, type Side, startSide, stopSide } from './harness/sides.ts'
import { percentiles } from './harness/statistics.ts'
import { connectMany, openMany } from './load/connects.ts'
import { type Identity, openDevice } from './load/device.ts'
import { payloadOf } from './load/packets.ts'
import { publishOpenLoop } from './load/publishers.ts'
import { TOPIC_OF } from './peers/brokergate.ts'

export const bench: Bench = {
  title: 'Does anybody notice a reload?',
  about:
    'Settings are read anew three times while 20 sessions publish on a fixed schedule and one device after the other connects: brokergate learns or forgets a device in its registry, HAProxy and nginx replace their processes (SIGUSR2, SIGHUP). That it happened is seen: the device is let in or refused, the processes are others.',
  figures: {
    p99Ms: { label: 'PUBACK p99', unit: 'ms', better: 'less' },
    maxMs: { label: 'PUBACK worst', unit: 'ms', better: 'less' },
    connectP99Ms: { label: 'CONNACK p99', unit: 'ms', better: 'less' },
    failed: { label: 'connects failed', unit: '', better: 'less' },
    lost: { label: 'sessions lost', unit: '', better: 'less' },
    effectMs: { label: 'until it took effect', unit: 'ms', better: 'less' },
  },
  async run(context) {
    for (const kind of able(context, { setup: { reloads: true, graceSeconds: 30 } })) {
      // Only brokergate has devices that it can learn of.
      const trust = isOurs(kind) ? ('registry' as const) : ('ca' as const)
      const side = await startSide(context, kind, { setup: { reloads: true, graceSeconds: 30, trust } })
      try {
        await reloads(context, side)
      } finally {
        await stopSide(side)
      }
    }
  },
}

const EFFECT_WITHIN_MS = 15_000

async function reloads(context: Context, side: Side): Promise<void> {
  const [times, sessions, ratePerSecond, everyMs] = context.smoke ? [1, 4, 50, 600] : [3, 20, 200, 1_500]
  const [newcomer, ...identities] = fleet(context.materials)
  const devices = await openMany(0, sessions, 8, (index) => deviceAt(side, identities, index))
  let lost = 0
  let over = false
  const publishing = (async () => {
    const all: number[] = []
    while (!over) {
      const total = Math.max(1, Math.round(ratePerSecond / 4))
      all.push(
        ...(await publishOpenLoop({ devices, topic: TOPIC_OF, payload: payloadOf(128), ratePerSecond, total }))
          .latenciesMs,
      )
    }
    return all.sort((a, b) => a - b)
  })()
  publishing.catch(() => {})
  const connecting = (async () => {
    let failed = 0
    const all: number[] = []
    while (!over) {
      const device = (index: number) => deviceAt(side, identities, 1_000 + index)
      const result = await connectMany({ count: 5, concurrency: 1, withinMs: 2_000, device })
      failed += result.failed
      all.push(...result.latenciesMs)
    }
    return { failed, latenciesMs: all.sort((a, b) => a - b) }
  })()
  connecting.catch(() => {})
  const effects: number[] = []
  try {
    for (let time = 0; time < times; time++) {
      context.progress(`${side.label}: reload ${time + 1} of ${times}`)
      await sleep(everyMs / 3)
      const from = performance.now()
      if (isOurs(side.peer)) await judged(side, newcomer!, time % 2 === 0)
      else await replaced(side)
      effects.push(performance.now() - from)
      await sleep(everyMs)
    }
  } finally {
    over = true
  }
  const { failed, latenciesMs } = await connecting
  const published = await publishing.catch(() => {
    lost = devices.filter(({ socket }) => socket.destroyed).length
    return []
  })
  const { p99Ms, maxMs } = percentiles(published)
  const values = {
    p99Ms,
    maxMs,
    connectP99Ms: percentiles(latenciesMs).p99Ms,
    failed,
    lost,
    effectMs: Math.max(...effects),
  }
  context.measured({ case: times === 1 ? 'one reload' : `${times} reloads`, peer: side.label, round: 1, values })
  for (const device of devices) device.destroy()
}

/** The registry is changed, and so is its answer. */
async function judged(side: Side, newcomer: Identity, welcome: boolean): Promise<void> {
  const letIn = () =>
    openDevice({ ...deviceAt(side, [newcomer], 9_999) }).then(
      (device) => device.leave().then(() => true),
      () => false,
    )
  if ((await letIn()) === welcome) throw new Error(`${side.label}: judged before it could know`)
  side.peer.reload()
  await until(side, async () => (await letIn()) === welcome)
}

/** Other processes serve than before. */
async function replaced(side: Side): Promise<void> {
  const before = new Set(processesOf(side.peer.pid))
  side.peer.reload()
  await until(side, async () => processesOf(side.peer.pid).some((pid) => !before.has(pid)))
}

async function until(side: Side, seen: () => Promise<boolean>): Promise<void> {
  const patience = performance.now() + EFFECT_WITHIN_MS
  while (!(await seen())) {
    if (performance.now() > patience) throw new Error(`${side.label}: nothing changed in ${EFFECT_WITHIN_MS} ms`)
    await sleep(20)
  }
}
