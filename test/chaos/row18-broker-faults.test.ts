// A broker that is away is an ordinary day. Devices are told so in the words of their protocol within the deadline, those
// of a healthy broker do not notice, and when it is back, so are they.

import { spawnSync } from 'node:child_process'
import { brokerTap } from '../support/broker-tap.ts'
import { ca, eventually, sleep, startMosquitto } from '../support/e2e.ts'
import { issueServer } from '../support/pki.ts'
import { folderFor, freePort, type Teardowns, write } from '../support/proxy.ts'
import { acknowledgedOf } from './accounts.ts'
import { acceptAnd, type BadBroker, blackHole, type FakeDns, fakeDns } from './bad-brokers.ts'
import { startFleet } from './fleet.ts'
import { row } from './row.ts'

const CLIENTS = 50
const CONNECT_TIMEOUT_MS = 2_000
/** Fixed: for the broker's CONNACK. */
const CONNACK_TIMEOUT_MS = 10_000
/** Above a deadline: for the handshakes of all that knock at once on a busy machine. */
const SLACK_MS = 10_000
/** «Server unavailable» in MQTT 3.1.1 §3.2.2.3 and MQTT 5 §3.2.2.2. */
const UNAVAILABLE = { 4: 'connack 3', 5: 'connack 136' } as const

interface Mode {
  readonly name: string
  /** `host:port` of the server. */
  readonly address: string
  readonly deadlineMs: number
  /** How many have met the fault. */
  met(): number
}

const counted = (name: string, broker: BadBroker, deadlineMs: number): Mode => ({
  name,
  address: `127.0.0.1:${broker.port}`,
  deadlineMs,
  met: () => broker.knocks,
})

/** A file of ours in place of the resolver's, for one process: needs the right to mount, and to bind port 53. */
async function resolverOf(t: Teardowns): Promise<{ readonly dns: FakeDns | null; readonly why: string }> {
  const tried = spawnSync('unshare', ['--mount', 'true'], { encoding: 'utf8' })
  if (tried.status !== 0) return { dns: null, why: tried.error?.message ?? tried.stderr.trim() }
  try {
    const dns = await fakeDns(t, (name) =>
      name.startsWith('nxdomain.') ? 'nxdomain' : name.startsWith('servfail.') ? 'servfail' : 'silence',
    )
    return { dns, why: '' }
  } catch (error) {
    return { dns: null, why: error instanceof Error ? error.message : String(error) }
  }
}

async function modes(t: Teardowns, dns: FakeDns | null): Promise<readonly Mode[]> {
  const closed = await freePort()
  const hole = await blackHole(t)
  const named = (name: string, by: FakeDns): Mode => ({
    name: `dns ${name}`,
    address: `${name}.brokers.test:1883`,
    deadlineMs: CONNECT_TIMEOUT_MS,
    met: () => by.asked(`${name}.brokers.test`),
  })
  const connected = { met: () => CLIENTS, deadlineMs: CONNECT_TIMEOUT_MS }
  return [
    { name: 'refuses', address: `127.0.0.1:${closed}`, ...connected },
    { name: 'black hole', address: `127.0.0.1:${hole.port}`, ...connected },
    counted('resets', await acceptAnd(t, (socket) => void socket.resetAndDestroy()), CONNECT_TIMEOUT_MS),
    counted('ends at once', await acceptAnd(t, (socket) => void socket.end()), CONNECT_TIMEOUT_MS),
    counted('is silent', await acceptAnd(t, (socket) => void socket.resume()), CONNACK_TIMEOUT_MS),
    counted('talks nonsense', await acceptAnd(t, (socket) => void socket.write('220 mail\r\n')), CONNACK_TIMEOUT_MS),
    ...(dns === null ? [] : [named('nxdomain', dns), named('servfail', dns), named('silence', dns)]),
  ]
}

row(
  {
    number: 18,
    part: 'faults',
    title: 'a broker that fails in nine ways',
    required: 'CONNACK 3 and 0x88, the deadline kept, devices of another broker do not notice',
    seconds: 25,
  },
  async ({ t, start, note }) => {
    const { dns, why } = await resolverOf(t)
    if (dns === null) note(`no resolver of our own here (${why}): without the three faults of DNS`)
    const all = await modes(t, dns)
    const nameOf = (index: number) => `fault-${index}.test`
    const certificate = issueServer(ca, { serverNames: all.map((_, index) => nameOf(index)) })
    const more = `domains:
${all.map((_, index) => `  - { serverNames: [ ${nameOf(index)} ], certificates: [ { cert: faults.pem, key: faults.key } ], registry: main, backend: fault${index} }`).join('\n')}
backends:
${all.map(({ address }, index) => `  fault${index}: { kind: tcp, servers: [ { address: "${address}" } ], connectTimeout: ${CONNECT_TIMEOUT_MS}ms }`).join('\n')}
`
    const resolv = write(folderFor(t), 'resolv.conf', `nameserver ${dns?.address}\n`)
    const { proxy, ports } = await start({
      extra: 'include: [ more.yaml ]',
      files: { 'more.yaml': more, 'faults.pem': certificate.chainPem, 'faults.key': certificate.keyPem },
      ...(dns !== null && {
        prefix: ['unshare', '--mount', 'sh', '-c', `mount --bind ${resolv} /etc/resolv.conf && exec "$@"`, '--'],
      }),
    })
    const meet = async ({ name, deadlineMs, met }: Mode, index: number): Promise<string> => {
      const reports = await Promise.all(
        ([4, 5] as const).map(async (version) => {
          const serverName = nameOf(index)
          const fleet = await startFleet(t, { port: ports.mqtt, serverName, version, prefix: `${index}-${version}` })
          const report = await fleet.grow(CLIENTS / 2)
          t.deepEqual(report.outcomes, { [UNAVAILABLE[version]]: CLIENTS / 2 }, `${name}, version ${version}`)
          fleet.signal('SIGKILL')
          return report
        }),
      )
      t.true(met() > 0, `${name}: nobody met it`)
      const worst = Math.max(...reports.map(({ connectMs }) => connectMs.worst))
      // How long a refusal took is in the log lines; that of an attempt is told by the fleet's own deadline.
      t.true(worst < deadlineMs + SLACK_MS, `${name}: ${worst} ms`)
      return name
    }
    // A few at a time: what is tested is the door, not how many processes the machine can start at once.
    const queue = all.map((mode, index) => ({ mode, index }))
    await Promise.all(
      Array.from({ length: 3 }, async () => {
        for (let next = queue.shift(); next !== undefined; next = queue.shift()) await meet(next.mode, next.index)
      }),
    )
    const slowest = Math.max(
      ...proxy
        .lines()
        .filter(({ event, clientId }) => event !== undefined && clientId !== 'good-client')
        .map(({ durationMs }) => Number(durationMs ?? 0)),
    )
    t.true(slowest < CONNACK_TIMEOUT_MS + SLACK_MS, `${slowest} ms`)
    const series = (await proxy.metrics())
      .split('\n')
      .filter((line) => /^brokergate_backend_dials_total\{.*"fault\d/.test(line))
    const dials = ['backend_refused', 'backend_timeout'].map((result) =>
      series.filter((line) => line.includes(`"${result}"`)).reduce((sum, line) => sum + Number(line.split('} ')[1]), 0),
    )
    t.true(
      dials.every((count) => count > 0),
      JSON.stringify(dials),
    )
    return {
      injected: `${all.length} ways to fail × ${CLIENTS} clients: ${all.map(({ name }) => name).join(', ')}`,
      seen: `all ${all.length * CLIENTS} were told CONNACK 3 or 0x88, the slowest connection took ${(slowest / 1_000).toFixed(1)} s; ${dials[0]} dials refused, ${dials[1]} timed out`,
    }
  },
)

const RESTARTS = 10

row(
  {
    number: 18,
    part: 'restarts',
    title: 'a broker that is killed and started ten times',
    required: 'whoever comes is told or let in, all are back within 2 s of the broker',
    seconds: 25,
  },
  async ({ t, start, random }) => {
    const dir = folderFor(t)
    const brokerPort = await freePort()
    const certificate = issueServer(ca, { serverNames: ['flaps.test'] })
    const { ports } = await start({
      extra: 'include: [ more.yaml ]',
      files: {
        'more.yaml': `domains:
  - { serverNames: [ flaps.test ], certificates: [ { cert: flaps.pem, key: flaps.key } ], registry: main, backend: flaps }
backends:
  flaps: { kind: tcp, servers: [ { address: "127.0.0.1:${brokerPort}" } ], connectTimeout: ${CONNECT_TIMEOUT_MS}ms }
`,
        'flaps.pem': certificate.chainPem,
        'flaps.key': certificate.keyPem,
      },
    })
    const fleet = await startFleet(t, {
      port: ports.mqtt,
      serverName: 'flaps.test',
      prefix: 'flaps',
      retry: { leastMs: 100, mostMs: 200 },
    })
    const ended: (() => unknown)[] = []
    t.teardown(() => Promise.all(ended.map((end) => end())))
    const up = async () => {
      const ends: (() => unknown)[] = []
      await startMosquitto(
        { teardown: (end) => void ends.push(end) },
        dir,
        `listener ${brokerPort} 127.0.0.1\nallow_anonymous true`,
      )
      const down = async () => {
        for (const end of ends.splice(0)) await end()
      }
      ended.push(down)
      return down
    }
    let down = await up()
    await fleet.grow(CLIENTS)
    const backMs: number[] = []
    for (let restart = 0; restart < RESTARTS; restart++) {
      await down()
      await fleet.until((report) => report.in === 0, 'all out')
      await sleep(random(500))
      down = await up()
      const from = performance.now()
      await fleet.until((report) => report.in === CLIENTS, 'all back')
      backMs.push(performance.now() - from)
    }
    const { outcomes, endings } = await fleet.report()
    t.is(endings['disconnect 128'] ?? 0, RESTARTS * CLIENTS, JSON.stringify(endings))
    t.is(outcomes.silent ?? 0, 0)
    t.deepEqual(
      Object.keys(outcomes).filter((outcome) => outcome !== 'in' && outcome !== 'connack 136'),
      [],
    )
    t.true((outcomes['connack 136'] ?? 0) > 0, 'somebody knocked while it was away')
    const worst = Math.max(...backMs)
    t.true(worst < 10_000, `${worst} ms`)
    await fleet.go('leave')
    return {
      injected: `kill -9 and restart × ${RESTARTS} under ${CLIENTS} clients`,
      seen: `${endings['disconnect 128']} sessions ended with 0x80, ${outcomes['connack 136']} attempts told 0x88, all back at most ${(worst / 1_000).toFixed(1)} s after the broker`,
    }
  },
)

const PUBLISHERS = 100

row(
  {
    number: 18,
    part: 'killed',
    title: 'the broker is killed in the middle of 100 publishers at QoS 1',
    required: 'what a device was told is acknowledged, the broker has acknowledged',
    seconds: 15,
    good: 'returns',
  },
  async ({ t, start }) => {
    const acknowledged = new Set<string>()
    const gateway = await start({ between: (brokerPort) => brokerTap(t, brokerPort, acknowledged) })
    const fleet = await startFleet(t, {
      port: gateway.ports.mqtt,
      prefix: 'publisher',
      retry: { leastMs: 100, mostMs: 500 },
    })
    await fleet.grow(PUBLISHERS)
    await fleet.publish({ everyMs: 20, topic: 'killed/${id}', bytes: 0 })
    for (let kill = 0; kill < 2; kill++) {
      const { acked } = await fleet.report()
      await fleet.until((report) => report.acked > acked + 3_000, 'publishes')
      await gateway.stopBroker()
      await fleet.until((report) => report.in === 0, 'all out')
      await gateway.startBroker()
      await fleet.until((report) => report.in === PUBLISHERS, 'all back')
    }
    await eventually(() => fleet.quiet(), 'the last ones acknowledged')
    const { sent, acked } = await fleet.report()
    const accounts = await fleet.accounts()
    const told = acknowledgedOf(accounts)
    t.is(told.length, acked)
    t.true(acked > 6_000 && acked < sent, `${acked} of ${sent}: the broker was killed under publishes`)
    t.deepEqual(
      told.filter((payload) => !acknowledged.has(payload)),
      [],
    )
    await fleet.go('leave')
    return {
      injected: `${PUBLISHERS} publishers, the broker killed and restarted twice`,
      seen: `${sent} sent, ${acked} acknowledged to the devices, all of them by the broker; ${sent - acked} without an answer`,
    }
  },
)
