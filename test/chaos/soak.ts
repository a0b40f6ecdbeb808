/**
 * Hours of ordinary life, with everything that goes wrong in it:
 *
 *   npm run soak -- [--minutes 60] [--connections 5000] [--seed N] [--out FILE]
 *
 * Connections that stay and publish at QoS 1, others that come and go, and a fault every few seconds, in the order that
 * the seed gives. Exit code 1 when something was lost, did not come back, or grew.
 */
import { appendFileSync, readdirSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { brokergate } from '../support/clients.ts'
import { eventually, residentBytes, sleep } from '../support/e2e.ts'
import { ca, device, openGateway, TOKEN } from '../support/gateway.ts'
import { freePort, type Teardowns } from '../support/proxy.ts'
import { randomFrom } from '../support/random.ts'
import { type Sample, type Slope, slopeOf, troughs } from '../support/slope.ts'
import { type FleetReport, startFleet } from './fleet.ts'
import { startGoodClient } from './good.ts'
import { openNamespace } from './namespace.ts'
import { chooseFault, type Scene } from './soak-faults.ts'
import { startWitness } from './soak-witness.ts'
import { treeOf } from './tree.ts'

const CHURN_PER_SECOND = 20
/** How many of those that come and go are there at a time. */
const CHURN_HELD = 100
const PUBLISH_EVERY_MS = 10_000
const SAMPLE_EVERY_MS = 5_000
const QUIET_MS = { least: 5_000, most: 20_000 } as const
const READERS = 20
const FAR = 50
/** The troughs of the heap are looked for in stretches of this length, and each life of a process warms up for so long. */
const STRETCH_MS = 30_000
const WARM_UP_MS = 60_000
const HOUR_MS = 3_600_000
const MEBIBYTE = 1_048_576
/** Per hour and process. */
const MOST_MEBIBYTES = 1
const MOST_DESCRIPTORS = 10
/** Below this a slope of 1 MB an hour is less than what one collection moves: it is told, and decides nothing. */
const TELLING_MINUTES = 30

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '60' },
    connections: { type: 'string', default: '5000' },
    seed: { type: 'string', default: String(Math.floor(Math.random() * 0x7fffffff)) },
    out: { type: 'string' },
  },
})
const [minutes, connections, seed] = [values.minutes, values.connections, values.seed].map(Number) as [
  number,
  number,
  number,
]
if (![minutes, connections, seed].every((value) => Number.isFinite(value) && value >= 0) || connections < 10) {
  console.error('usage: npm run soak -- [--minutes N] [--connections N, at least 10] [--seed N] [--out FILE]')
  process.exit(2)
}

const ends: (() => unknown)[] = []
const t: Teardowns = { teardown: (end) => void ends.push(end) }
const random = randomFrom(seed)
const began = performance.now()
const failures: string[] = []
const faults = new Map<string, number>()

const write = (line: Readonly<Record<string, unknown>>): void => {
  if (values.out !== undefined) appendFileSync(values.out, `${JSON.stringify({ seconds: elapsed(), ...line })}\n`)
}
const elapsed = (): number => Math.round((performance.now() - began) / 1_000)
const isLive = process.stdout.isTTY === true
const say = (text: string): void => void process.stdout.write(`${isLive ? '\r\x1b[2K' : ''}${text}\n`)
const live = (text: string): void => {
  if (isLive) process.stdout.write(`\r\x1b[2K${text.slice(0, (process.stdout.columns ?? 80) - 1)}`)
}

interface Measured {
  readonly heap: Sample[]
  readonly resident: Sample[]
  readonly descriptors: Sample[]
  readonly ackP99: number[]
}

const share = (count: number): number => Math.max(1, Math.round(connections * count))
const retry = { leastMs: 200, mostMs: 2_000 } as const

async function setScene() {
  const opened = openNamespace(t)
  const farPort = await freePort()
  const outside = opened.kind === 'open' ? opened.namespace.outside : '127.0.0.2'
  const reloads = /^ +reload\b/m.test(await brokergate(['--help']))
  const gateway = await openGateway(t, {
    workers: 2,
    // What a broker drops of its own queues would look like something that we lost.
    broker: 'max_inflight_messages 0',
    extra: 'include: [ more.yaml ]',
    files: { 'more.yaml': `listeners: [ { bind: "${outside}:${farPort}", as: 8883 } ]\n` },
    prefix: ['env', 'BROKERGATE_LOG__LEVEL=info', 'BROKERGATE_DRAIN__GRACE=20s'],
  })
  const { ports } = gateway
  const common = { port: ports.mqtt, retry, pingEveryMs: 20_000 }
  const fleet = await startFleet(t, { ...common, prefix: 'steady' })
  const asking = await startFleet(t, {
    ...common,
    port: ports.web,
    prefix: 'asking',
    alpn: 'mqtt',
    certificates: [null],
    username: `u?x-amz-customauthorizer-name=open&MyToken=${TOKEN}`,
  })
  const readers = await startFleet(t, { ...common, prefix: 'reader', subscribe: { filter: 'flood', qos: 0 } })
  const churn = await startFleet(t, { ...common, prefix: 'churn', retry: null })
  const far =
    opened.kind === 'open'
      ? {
          namespace: opened.namespace,
          fleet: await startFleet(
            t,
            {
              ...common,
              host: outside,
              port: farPort,
              prefix: 'far',
              localAddresses: 0,
              keepAliveSeconds: 10,
              pingEveryMs: 3_000,
            },
            opened.namespace.prefix,
          ),
        }
      : null
  const netem = opened.kind === 'open' ? opened.namespace.netem('delay 30ms 10ms loss 1%') : opened
  say(netem.kind === 'set' ? 'netem on the far wire: 30 ms ± 10, 1 % lost' : `no netem here: ${netem.why}`)
  if (!reloads) say('this program has no reload: not among the faults')
  const witness = await startWitness(t, gateway.brokerPort, 'soak/#')
  return { gateway, fleet, asking, readers, churn, far, reloads, witness }
}

/** Comes and goes: some leave in good order, some are cut. */
async function churning(churn: Scene['fleet'], until: number): Promise<void> {
  const ways = ['leave', 'reset', 'destroy'] as const
  while (performance.now() < until) {
    const second = performance.now()
    await churn.grow(CHURN_PER_SECOND, CHURN_PER_SECOND)
    const { devices } = await churn.report()
    const over = devices - CHURN_HELD
    if (over > 0) await churn.go(ways[random(3)]!, over)
    await sleep(Math.max(0, second + 1_000 - performance.now()))
  }
}

async function harming(scene: Scene, until: number): Promise<void> {
  for (;;) {
    await sleep(QUIET_MS.least + random(QUIET_MS.most - QUIET_MS.least))
    if (performance.now() > until) return
    const fault = chooseFault(scene)
    const done = await fault.run(scene)
    faults.set(fault.name, (faults.get(fault.name) ?? 0) + 1)
    write({ kind: 'fault', name: fault.name, done })
    if (!isLive) say(`${elapsed()} s: ${fault.name}: ${done}`)
  }
}

async function sampling(scene: Scene, measured: Measured, until: number): Promise<void> {
  const { gateway, fleet } = scene
  const born = new Map<number, number>()
  for (;;) {
    await sleep(SAMPLE_EVERY_MS)
    if (performance.now() > until) return
    const at = performance.now()
    const pids = treeOf(gateway.proxy.child.pid!)
    const page = await gateway.proxy.metrics().catch(() => '')
    const heap = Number(/^brokergate_process_heap_used_bytes (\S+)/m.exec(page)?.[1] ?? Number.NaN)
    const sessions = Number(/^brokergate_sessions (\d+)/m.exec(page)?.[1] ?? Number.NaN)
    const looks = pids.flatMap((pid) => {
      try {
        return [{ pid, resident: residentBytes(pid), descriptors: readdirSync(`/proc/${pid}/fd`).length }]
      } catch {
        // It ended as it was looked at.
        return []
      }
    })
    for (const { pid, resident, descriptors } of looks) {
      if (!born.has(pid)) born.set(pid, at)
      if (at - born.get(pid)! < WARM_UP_MS) continue
      measured.resident.push({ life: String(pid), at, value: resident })
      measured.descriptors.push({ life: String(pid), at, value: descriptors })
    }
    // The page has one figure for all processes, so its life is that of this set of them.
    const isWarm = looks.every(({ pid }) => at - born.get(pid)! >= WARM_UP_MS)
    if (isWarm && Number.isFinite(heap))
      measured.heap.push({ life: looks.map(({ pid }) => pid).join(), at, value: heap })
    const report = await fleet.report()
    if (report.ackMs.count > 0) measured.ackP99.push(report.ackMs.p99)
    const resident = looks.reduce((sum, look) => sum + look.resident, 0)
    write({
      kind: 'sample',
      sessions,
      heap,
      looks,
      in: report.in,
      acked: report.acked,
      ackMs: report.ackMs,
      connectMs: report.connectMs,
    })
    live(
      `${elapsed()} s of ${minutes * 60} · ${sessions} sessions · ${report.acked} acknowledged, p99 ${report.ackMs.p99.toFixed(0)} ms · ` +
        `${(resident / MEBIBYTE).toFixed(0)} MB, heap ${(heap / MEBIBYTE).toFixed(0)} MB · ${[...faults.values()].reduce((sum, count) => sum + count, 0)} faults`,
    )
  }
}

const mebibytes = ({ perUnit, standardError, samples }: Slope, processes = 1): string =>
  samples === 0
    ? 'too short to tell'
    : `${((perUnit * HOUR_MS) / MEBIBYTE / processes).toFixed(2)} ± ${((standardError * HOUR_MS) / MEBIBYTE / processes).toFixed(2)} MB/h and process (${samples} troughs)`
const perHour = ({ perUnit, standardError, samples }: Slope): string =>
  samples === 0
    ? 'too short to tell'
    : `${(perUnit * HOUR_MS).toFixed(1)} ± ${(standardError * HOUR_MS).toFixed(1)} an hour and process`
const median = (values: readonly number[]): number => values.toSorted((a, b) => a - b)[values.length >> 1] ?? 0

/** What must hold of how things went over time. */
function judge(measured: Measured): void {
  const processes = 3
  const heap = slopeOf(troughs(measured.heap, STRETCH_MS))
  const resident = slopeOf(troughs(measured.resident, STRETCH_MS))
  const descriptors = slopeOf(troughs(measured.descriptors, STRETCH_MS))
  say(`heap ${mebibytes(heap, processes)}; resident ${mebibytes(resident)}; descriptors ${perHour(descriptors)}`)
  const third = Math.floor(measured.ackP99.length / 3)
  const [first, last] = [median(measured.ackP99.slice(0, third)), median(measured.ackP99.slice(-third || undefined))]
  say(`p99 of an acknowledgement: median ${first.toFixed(0)} ms in the first third, ${last.toFixed(0)} ms in the last`)
  write({ kind: 'slopes', heap, resident, descriptors, ackP99: { first, last } })
  if (minutes < TELLING_MINUTES) {
    say(`slopes decide from ${TELLING_MINUTES} minutes on`)
    return
  }
  const leastHeap = ((heap.perUnit - 2 * heap.standardError) * HOUR_MS) / MEBIBYTE / processes
  const leastDescriptors = (descriptors.perUnit - 2 * descriptors.standardError) * HOUR_MS
  if (leastHeap > MOST_MEBIBYTES)
    failures.push(`the heap grows by ${leastHeap.toFixed(1)} MB an hour and process at least`)
  if (leastDescriptors > MOST_DESCRIPTORS) failures.push(`descriptors grow by ${leastDescriptors.toFixed(0)} an hour`)
}

const filesOf = (pid: number): number =>
  treeOf(pid).reduce((sum, each) => {
    try {
      return sum + readdirSync(`/proc/${each}/fd`).length
    } catch {
      return sum
    }
  }, 0)

async function soak(): Promise<void> {
  say(`soak: ${minutes} min, ${connections} connections, seed ${seed}`)
  const { witness, churn, ...parts } = await setScene()
  const { gateway, fleet, asking, readers, far } = parts
  const good = await startGoodClient(t, {
    port: gateway.ports.mqtt,
    servername: 'localhost',
    ca: ca.certPem,
    cert: device.chainPem,
    key: device.keyPem,
    clientId: 'good-client',
    topic: 'good/client',
    everyMs: 1_000,
    returns: true,
  })
  const pid = gateway.proxy.child.pid!
  const filesAtStart = filesOf(pid)
  const scene: Scene = {
    ...parts,
    connections,
    askingCount: share(0.05),
    readersCount: READERS,
    random,
    workers: () => treeOf(pid).slice(1),
  }
  await Promise.all([
    fleet.grow(connections),
    asking.grow(scene.askingCount),
    readers.grow(READERS),
    far?.fleet.grow(FAR),
  ])
  for (const one of [fleet, asking, churn, far?.fleet]) {
    await one?.publish({ everyMs: PUBLISH_EVERY_MS, topic: 'soak/${id}', bytes: 0 })
  }
  say(`${elapsed()} s: everybody is in`)
  const until = performance.now() + minutes * 60_000
  const measured: Measured = { heap: [], resident: [], descriptors: [], ackP99: [] }
  const ended = new Promise<never>((_, reject) => {
    gateway.proxy.child.once('exit', (code, signal) => {
      reject(new Error(`the program ended with ${signal ?? code}\n${gateway.proxy.output().slice(-2_000)}`))
    })
  })
  // It has to end some time, when nobody waits for it any more.
  ended.catch(() => {})
  await Promise.race([
    ended,
    Promise.all([churning(churn, until), harming(scene, until), sampling(scene, measured, until)]),
  ])

  // The end: everybody is back, what is under way is answered, and everything acknowledged has arrived.
  const fleets = {
    steady: [fleet, connections],
    asking: [asking, scene.askingCount],
    readers: [readers, READERS],
  } as const
  for (const [name, [one, count]] of Object.entries(fleets)) {
    await one
      .until((report) => report.in === count, `all of ${name} back`, 90_000)
      .catch((error: Error) => {
        failures.push(error.message)
      })
  }
  const publishing = [fleet, asking, churn, ...(far === null ? [] : [far.fleet])]
  await Promise.all(publishing.map((one) => one.quiet(30_000)))
  const reports: FleetReport[] = await Promise.all(publishing.map((one) => one.report()))
  const accounts = (await Promise.all(publishing.map((one) => one.accounts()))).flat()
  const missing = () => witness.missing(accounts)
  await eventually(() => missing().length === 0, 'everything acknowledged has arrived', 30_000).catch(() => {})
  const lost = missing()
  if (lost.length > 0) failures.push(`${lost.length} acknowledged and never arrived: ${lost.slice(0, 5).join(', ')}`)
  const sum = (pick: (report: FleetReport) => number) => reports.reduce((total, report) => total + pick(report), 0)
  say(
    `${sum(({ sent }) => sent)} published, ${sum(({ acked }) => acked)} acknowledged, ${witness.received} arrived (${witness.duplicates} twice), ${lost.length} lost; ` +
      `${sum(({ attempts }) => attempts)} connects`,
  )
  // Behind a wire that was cut nobody can be told anything.
  const silent = reports.slice(0, 3).reduce((total, { outcomes }) => total + (outcomes.silent ?? 0), 0)
  if (silent > 0) failures.push(`${silent} attempts were not answered at all`)
  await good.echo(60_000).catch((error: Error) => failures.push(error.message))
  await good.finish()
  failures.push(...good.faults.map((fault) => `good client: ${fault}`))
  const { worst, p99, count } = good.latency()
  say(
    `good client: ${count} messages, p99 ${p99.toFixed(0)} ms, worst ${worst.toFixed(0)} ms, away ${good.outages.length} times, at most ${Math.max(0, ...good.outages).toFixed(0)} ms`,
  )
  judge(measured)

  for (const one of [...publishing, readers]) await one.go('leave')
  // The pools toward authorizer and broker stay, in each worker.
  await eventually(() => filesOf(pid) <= filesAtStart + 40, 'descriptors given back', 60_000).catch(() => {
    failures.push(`${filesOf(pid)} descriptors at the end, ${filesAtStart} at the start`)
  })
  say(`descriptors: ${filesAtStart} at the start, ${filesOf(pid)} at the end`)
  const complaint = /^.*(?:unhandled|uncaught).*$/im.exec(gateway.proxy.output())
  if (complaint !== null) failures.push(`in the log: ${complaint[0]}`)
  if (gateway.proxy.child.exitCode !== null) failures.push(`the program ended with ${gateway.proxy.child.exitCode}`)
  const stopped = await gateway.proxy.stop()
  if (stopped.code !== 0) failures.push(`ended with ${stopped.signal ?? stopped.code}`)
  say(`faults: ${[...faults].map(([name, times]) => `${name} × ${times}`).join(', ') || 'none'}`)
  if (faults.size === 0) failures.push('no fault was done')
}

try {
  await soak()
} catch (error) {
  failures.push(error instanceof Error ? (error.stack ?? error.message) : String(error))
} finally {
  for (const end of ends.reverse()) await Promise.resolve(end()).catch?.(() => {})
}
for (const failure of failures) say(`FAILED: ${failure}`)
say(failures.length === 0 ? `soaked for ${minutes} min, seed ${seed}` : `${failures.length} failures, seed ${seed}`)
write({ kind: 'end', failures })
process.exit(failures.length === 0 ? 0 : 1)
