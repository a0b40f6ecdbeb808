// A fleet that lost its power comes back in the same second. Were all of its handshakes begun as they come, every session
// that never left would wait behind them; were they all queued, whoever is last would have given up; and a flood of hellos
// by somebody who wants nothing else would keep everybody out. STORM_DEVICES sets the size.
import { get } from 'node:http'
import { connect } from 'node:net'
import { join } from 'node:path'
import { connect as connectTls } from 'node:tls'
import type { ExecutionContext } from 'ava'
import test from 'ava'
import {
  ca,
  type Device,
  type Door,
  device,
  eventually,
  knock,
  mqttClient,
  openDoor,
  PINGREQ,
  PINGRESP,
  residentBytes,
  sleep,
  startSink,
} from '../support/e2e.ts'
import { createCa, issueDevice } from '../support/pki.ts'
import { startStorm } from '../support/storm.ts'

const DEVICES = Number(process.env.STORM_DEVICES ?? 600)
const FLOOD = Number(process.env.STORM_FLOOD ?? 600)
const RETURNING = Number(process.env.STORM_RETURNING ?? 400)
const stranger = issueDevice(createCa({ commonName: 'elsewhere' }), { commonName: 'stranger' })

const identity = { ca: ca.certPem, cert: device.chainPem, key: device.keyPem }

/** Publishes at QoS 1 and looks how long each takes, until told to stop; milliseconds, sorted. */
async function goodClient(t: ExecutionContext, port: number) {
  const client = await mqttClient(t, port, { clientId: 'good' })
  let lost = 0
  client.on('close', () => lost++)
  const publishing = (everyMs: number) => {
    const latencies: number[] = []
    let going = true
    const done = (async () => {
      while (going) {
        const from = performance.now()
        try {
          await client.publishAsync('good/client', 'x', { qos: 1 })
        } catch {
          // Lost, or over: whoever looks at `lost` knows.
          return
        }
        latencies.push(performance.now() - from)
        await sleep(everyMs)
      }
    })()
    return async () => {
      going = false
      await done
      return latencies.sort((a, b) => a - b)
    }
  }
  return { publishing, lost: () => lost }
}

const at = (sorted: readonly number[], part: number): number =>
  sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? Number.NaN

const told = (sorted: readonly number[]) =>
  `${sorted.length} publishes, p50 ${at(sorted, 0.5).toFixed(1)}, p99 ${at(sorted, 0.99).toFixed(1)}, worst ${at(sorted, 1).toFixed(1)} ms`

const EMBEDDED = 'kind: embedded'

async function alive(t: ExecutionContext, { proxy }: Door): Promise<void> {
  t.is(proxy.child.exitCode, null)
  t.notRegex(proxy.output(), /unhandled|uncaught/i)
}

test.serial(`${DEVICES} devices come back at once, and are let in at 200 a second while others publish`, async (t) => {
  t.timeout(600_000)
  const door = await openDoor(t, {
    backend: EMBEDDED,
    extra: 'governor: { full: { perSecond: 200 } }',
  })
  const { proxy, port } = door
  const good = await goodClient(t, port)
  const quietly = good.publishing(10)
  await sleep(2_000)
  const quiet = await quietly()

  const storm = startStorm(t, { port, devices: DEVICES, prefix: 'storm', ...identity, overMs: 500, giveUpMs: 400_000 })
  const stormily = good.publishing(10)
  const result = await storm.result()
  const during = await stormily()

  const [refused, queued] = [
    await proxy.metric('brokergate_admission_refusals_total{reason="handshake_wait"}'),
    await proxy.metric('brokergate_handshake_wait_seconds_count'),
  ]
  t.log(`quiet: ${told(quiet)}`)
  t.log(`storm: ${told(during)}; ${(at(during, 0.99) / at(quiet, 0.99)).toFixed(2)} × quiet`)
  t.log(`${JSON.stringify(result)}; ${queued} waited, ${refused} waited too long`)
  t.is(result.inside, DEVICES)
  t.is(result.hung, 0)
  // Not faster than told: a tenth of a second's worth may come at once.
  t.true(result.seconds >= (DEVICES - 20) / 200 - 1, `${result.seconds} s`)
  // On a machine that is too busy to send them faster than they are let in, nobody has to wait.
  t.true(queued > DEVICES / 4 || result.seconds > (2 * DEVICES) / 200, `${queued} waited, ${result.seconds} s`)
  t.is(await proxy.metric('brokergate_handshakes_queued'), 0)
  t.is(good.lost(), 0)
  t.true(at(during, 0.99) < 5_000, told(during))
  await alive(t, door)
})

test.serial(`${FLOOD} full and half handshakes without pause shed what is too much, and hang nobody`, async (t) => {
  t.timeout(600_000)
  const door = await openDoor(t, {
    backend: EMBEDDED,
    extra: 'governor: { full: { perSecond: 100 }, queue: { size: 50, timeout: 2s } }\nlimits: { connectTimeout: 5s }',
    domain: 'handshakeTimeout: 5s',
  })
  const { proxy, port } = door
  const good = await goodClient(t, port)
  const publishing = good.publishing(20)
  const half = Math.floor(FLOOD / 2)
  const storm = startStorm(t, {
    port,
    devices: half,
    silent: half,
    prefix: 'flood',
    ...identity,
    overMs: 200,
    giveUpMs: 400_000,
  })
  const result = await storm.result()
  const latencies = await publishing()
  const shed =
    (await proxy.metric('brokergate_admission_refusals_total{reason="handshake_queue"}')) +
    (await proxy.metric('brokergate_admission_refusals_total{reason="handshake_wait"}'))
  t.log(`${told(latencies)}; ${JSON.stringify(result)}; ${shed} shed`)
  t.true(shed > 0)
  t.is(result.hung, 0)
  t.is(result.silentClosed, half, 'every half handshake was ended')
  t.is(result.inside, half, 'and the devices among them are in')
  t.is(good.lost(), 0)
  await alive(t, door)
})

test.serial(
  'strangers from one address pay less after a while, and a device from there gets in all the same',
  async (t) => {
    t.timeout(300_000)
    const door = await openDoor(t, {
      backend: EMBEDDED,
      extra: 'governor: { refusals: { addressAfter: 5, addressPause: 60s } }',
    })
    const { proxy, port } = door
    const tries = 60
    for (let index = 0; index < tries; index++) {
      await t.throwsAsync(knock(port, `stranger-${index}`, { as: stranger }))
    }
    const cheap = await proxy.metric('brokergate_admission_refusals_total{reason="address_refused"}')
    const again = await proxy.metric('brokergate_admission_refusals_total{reason="certificate_refused"}')
    const handshakes = await proxy.metric('brokergate_handshakes_started_total{kind="full"}')
    t.log(`${tries} tries: ${cheap} before any key work, ${again} without a question, ${handshakes} handshakes`)
    t.true(cheap > tries / 4)
    t.is(cheap + handshakes, tries)
    t.true(again > 0)
    // One in eight is let through, and the first that is known opens the address.
    const inside = await eventually(() => knock(port, 'good').catch(() => null), 'a good device', 60_000)
    t.teardown(() => inside.socket.destroy())
    const next = await knock(port, 'second')
    t.teardown(() => next.socket.destroy())
    await alive(t, door)
  },
)

test.serial(`${RETURNING} sessions whose broker restarts come back, and no CONNACK is lost`, async (t) => {
  t.timeout(600_000)
  let down = false
  let connects = 0
  const sink = await startSink(t, (socket) => {
    connects++
    socket.on('data', () => {})
    if (down) socket.destroy()
  })
  const door = await openDoor(t, {
    backend: `kind: tcp, servers: [ { address: "127.0.0.1:${sink.port}" } ]`,
    extra: 'governor: { full: { perSecond: 400 } }',
  })
  const { proxy, port } = door
  const storm = startStorm(t, { port, devices: RETURNING, prefix: 'back', ...identity, overMs: 500, giveUpMs: 400_000 })
  t.is((await storm.result()).inside, RETURNING)
  const first = connects
  t.is(first, RETURNING)

  down = true
  for (const socket of sink.live) socket.destroy()
  await sleep(500)
  down = false
  storm.again()
  const result = await storm.result()
  t.log(`back after ${result.seconds.toFixed(1)} s: ${JSON.stringify(result)}`)
  t.is(result.inside, RETURNING)
  t.is(result.hung, 0)
  const ok = await proxy.metric('brokergate_connects_total{result="ok",version="3.1.1"}')
  t.true(ok >= 2 * RETURNING, `${ok}`)
  t.is(await proxy.metric('brokergate_sessions'), RETURNING)
  await alive(t, door)
})

test.serial('short of memory no device is taken in and readiness says so; those that are in go on', async (t) => {
  t.timeout(300_000)
  const sink = await startSink(t)
  const backend = `kind: tcp, servers: [ { address: "127.0.0.1:${sink.port}" } ]`
  const plain = await openDoor(t, { backend })
  const visitor = await knock(plain.port, 'visitor')
  visitor.socket.destroy()
  const limit = Math.ceil(residentBytes(plain.proxy.child.pid!) / 1_048_576) + 24
  await plain.proxy.stop()

  const memory = `{ limit: ${limit}MiB, trickle: 90, refuse: 95 }`
  const door = await openDoor(t, { backend, extra: `shedding: { memory: ${memory}, fullPerSecond: 1000 }` })
  const { proxy, port } = door
  const inside: Device[] = []
  t.teardown(() => {
    for (const { socket } of inside) socket.destroy()
  })
  const stage = () => proxy.metric('brokergate_shedding{reason="memory"}')
  for (let index = 0; (await stage()) < 2; index += 50) {
    t.true(index < 5_000, `${residentBytes(proxy.child.pid!)} bytes with ${inside.length} sessions`)
    const more = Array.from({ length: 50 }, (_, each) => knock(port, `d-${index + each}`, { timeoutMs: 20_000 }))
    for (const each of await Promise.allSettled(more)) if (each.status === 'fulfilled') inside.push(each.value)
  }
  t.log(`${limit} MiB: no more after ${inside.length} sessions`)
  t.true(inside.length > 0)
  const ready = await fetch(`http://127.0.0.1:${metricsPort(proxy)}/readyz`)
  t.is(ready.status, 503)
  t.regex(((await ready.json()) as { reason: string }).reason, /memory/)
  t.is((await fetch(`http://127.0.0.1:${metricsPort(proxy)}/healthz`)).status, 200)
  t.true((await proxy.metric('brokergate_accept_pauses_total{reason="overload"}')) >= 1)
  await t.throwsAsync(knock(port, 'late', { timeoutMs: 15_000 }))
  const { socket } = inside[0]!
  const answered = new Promise<Buffer>((resolve) => socket.once('data', resolve))
  socket.resume()
  socket.write(PINGREQ)
  t.deepEqual(await answered, PINGRESP)
  await alive(t, door)
})

test.serial('a domain that is full says so in CONNACK; a place that is given back is taken', async (t) => {
  t.timeout(120_000)
  const door = await openDoor(t, { backend: EMBEDDED, domain: 'sessions: { most: 3, perPrincipal: 2 }' })
  const { proxy, port } = door
  const [first, second] = [await knock(port, 'one'), await knock(port, 'two')]
  t.teardown(() => second.socket.destroy())
  t.is((await t.throwsAsync(knock(port, 'three')))?.message, 'CONNACK 20020003')
  const five = mqttClient(t, port, { protocolVersion: 5, clientId: 'five' })
  t.is(((await t.throwsAsync(five)) as { code?: number }).code, 0x97)
  // Whoever takes its own session over needs no second place.
  const again = await knock(port, 'two')
  t.teardown(() => again.socket.destroy())
  first.leave()
  const next = await eventually(() => knock(port, 'three').catch(() => null), 'a place')
  t.teardown(() => next.socket.destroy())
  t.true((await proxy.metric('brokergate_admission_refusals_total{reason="principal_sessions"}')) >= 2)
  await alive(t, door)
})

test.serial('a process that stood still for half a second cuts nobody, and says that it did', async (t) => {
  t.timeout(120_000)
  const door = await openDoor(t, { backend: EMBEDDED })
  const { proxy, port } = door
  const client = await mqttClient(t, port, { clientId: 'steady', keepalive: 3 })
  let lost = 0
  client.on('close', () => lost++)
  const pid = proxy.child.pid!
  let unready = 0
  for (let stall = 0; stall < 4; stall++) {
    process.kill(pid, 'SIGSTOP')
    await sleep(700)
    process.kill(pid, 'SIGCONT')
    await eventually(
      async () => (await fetch(`http://127.0.0.1:${metricsPort(proxy)}/readyz`)).status === 503,
      'not ready',
    )
    unready++
    await eventually(async () => (await fetch(`http://127.0.0.1:${metricsPort(proxy)}/readyz`)).status === 200, 'ready')
  }
  const late =
    (await proxy.metric('brokergate_event_loop_lag_seconds_count')) -
    (await proxy.metric('brokergate_event_loop_lag_seconds_bucket{le="0.5"}'))
  t.is(unready, 4)
  t.true(late >= 4, `${late} looks were later than 0.5 s`)
  t.is(lost, 0)
  t.is(await proxy.metric('brokergate_connections_closed_total{reason="keep_alive_timeout"}'), 0)
  await alive(t, door)
})

test.serial('an address has so many connections, and behind a load balancer it is the one that is told', async (t) => {
  t.timeout(120_000)
  const door = await openDoor(t, {
    backend: EMBEDDED,
    listener: 'proxyProtocol: { trustedSources: [ 127.0.0.0/8 ] }',
    extra: 'governor: { perAddress: { connections: 2 } }',
  })
  const { proxy, port } = door
  const from = (address: string) => {
    const family = address.includes(':') ? 'TCP6' : 'TCP4'
    const us = family === 'TCP6' ? '2001:db8:ffff::1' : '192.0.2.254'
    const balancer = connect(port, '127.0.0.1')
    balancer.write(`PROXY ${family} ${address} ${us} 1111 8883\r\n`)
    const socket = connectTls({ socket: balancer, servername: 'localhost', ...identity })
    socket.on('error', () => {})
    t.teardown(() => balancer.destroy())
    return new Promise<boolean>((resolve) => {
      socket.once('secureConnect', () => resolve(true))
      socket.once('close', () => resolve(false))
      balancer.once('close', () => resolve(false))
    })
  }
  t.deepEqual(await Promise.all([from('192.0.2.1'), from('192.0.2.1')]), [true, true])
  t.false(await from('192.0.2.1'))
  t.true(await from('192.0.2.2'))
  t.deepEqual(await Promise.all([from('2001:db8::1'), from('2001:db8::2')]), [true, true])
  t.false(await from('2001:db8::3'))
  t.true(await from('2001:db8:0:1::1'))
  t.is(await proxy.metric('brokergate_admission_refusals_total{reason="address_connections"}'), 2)
  t.is(await proxy.metric('brokergate_hellos_total{result="address_connections"}'), 2)
  await alive(t, door)
})

test.serial('a claimed session counts as one, and as a full handshake where it turns out to be none', async (t) => {
  t.timeout(120_000)
  const options = { backend: EMBEDDED, domain: 'sessionTickets: { enabled: true }' }
  const [door, other] = [await openDoor(t, options), await openDoor(t, options)]
  let session: Buffer | undefined
  const visit = (port: number) =>
    new Promise<boolean>((resolve, reject) => {
      const socket = connectTls({ host: '127.0.0.1', port, servername: 'localhost', ca: ca.certPem, session })
      socket.once('error', reject)
      // A ticket of 1.3 comes behind the handshake; whoever has no certificate is let go then.
      socket.on('session', (ticket: Buffer) => {
        session = ticket
      })
      let resumed = false
      socket.once('secureConnect', () => {
        resumed = socket.isSessionReused()
      })
      socket.on('data', () => {})
      socket.once('close', () => resolve(resumed))
    })
  const started = ({ proxy }: Door) => proxy.metric('brokergate_handshakes_started_total{kind="resumed"}')
  const lies = ({ proxy }: Door) => proxy.metric('brokergate_resumption_claims_failed_total')
  t.false(await visit(door.port))
  t.is(await started(door), 0)
  t.truthy(session)
  await visit(other.port)
  t.deepEqual([await started(other), await lies(other)], [1, 1])
  await alive(t, other)
})

test.serial('with two workers readiness goes when neither takes devices in, and status says why', async (t) => {
  t.timeout(120_000)
  // Each needs more than this as it is.
  const door = await openDoor(t, { backend: EMBEDDED, workers: 2, extra: 'shedding: { memory: { limit: 16MiB } }' })
  const { proxy, dir } = door
  const ready = await eventually(async () => {
    const answer = await fetch(`http://127.0.0.1:${metricsPort(proxy)}/readyz`)
    return answer.status === 503 ? ((await answer.json()) as { reason: string }) : null
  }, 'not ready')
  t.is(ready.reason, 'shedding: no new connections, short of memory')
  const status = await new Promise<string>((resolve, reject) => {
    const request = get({ socketPath: join(dir, 'admin.sock'), path: '/status' }, (response) => {
      let body = ''
      response.on('data', (chunk: Buffer) => {
        body += chunk.toString()
      })
      response.on('end', () => resolve(body))
    })
    request.on('error', reject)
  })
  const { workers } = JSON.parse(status) as { workers: { shedding: string | null }[] }
  t.deepEqual(
    workers.map(({ shedding }) => shedding),
    [ready.reason, ready.reason],
  )
  await alive(t, door)
})

/** Where it said that its metrics are. */
function metricsPort({ lines }: Door['proxy']): number {
  const ready = lines().find(({ message }) => message === 'ready')
  return Number(String(ready?.metrics).split(':').at(-1))
}
