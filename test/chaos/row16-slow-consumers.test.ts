// Subscribers on bad lines, and a broker that has much to say. Were the door to take what they do not, it would hold the
// difference in memory until there is none left, and all others would go down with it.
import mqtt from 'mqtt'
import { eventually, residentBytes, sleep } from '../support/e2e.ts'
import { freePort } from '../support/proxy.ts'
import { startFleet } from './fleet.ts'
import { openNamespace } from './namespace.ts'
import { row } from './row.ts'
import { PATIENT } from './settings.ts'

const STUCK = 200
const READERS = 20
const MESSAGE_BYTES = 10_240
const PER_SECOND = 16
const WARM_MS = 3_000
const STALL_MS = 15_000
const RECEIVE_BUFFER = 65_536
/**
 * What a session that is stuck may hold here, both directions together: high-water marks of the streams, TLS records in
 * the making, one read under way. The kernel's buffers are not in it.
 */
const MOST_PER_SESSION = 1_048_576
/** For garbage between two collections at 20 MB/s. */
const BREATH_BYTES = 64 * 1_048_576

const BYTES_OUT = 'brokergate_bytes_total{direction="out"}'

row(
  {
    number: 16,
    title: 'slow consumers',
    required: `at most ${MOST_PER_SESSION / 1_048_576} MiB a stuck session, the others keep 99 % of their rate`,
    seconds: 30,
  },
  async ({ t, start, note }) => {
    // On loopback the kernel takes some 4 MB for a reader who stands still; behind a wire of its own it can be told not to,
    // and what is left is for the door to hold back.
    const opened = openNamespace(t)
    const port = await freePort()
    const outside = opened.kind === 'open' ? opened.namespace.outside : '127.0.0.2'
    if (opened.kind === 'open') opened.namespace.receiveBuffer(RECEIVE_BUFFER)
    else note(`no namespace here (${opened.why}): kernel buffers of loopback, a longer stall`)
    const stallMs = opened.kind === 'open' ? STALL_MS : 5 * STALL_MS
    const { proxy, ports, brokerPort } = await start({
      extra: `include: [ more.yaml ]\n${PATIENT}`,
      files: { 'more.yaml': `listeners: [ { bind: "${outside}:${port}", as: 8883 } ]\n` },
    })
    const subscribe = { filter: 'flood', qos: 0 } as const
    const stuck = await startFleet(
      t,
      { host: outside, port, prefix: 'stuck', keepAliveSeconds: 600, subscribe, localAddresses: 0 },
      opened.kind === 'open' ? opened.namespace.prefix : [],
    )
    const readers = await startFleet(t, { port: ports.mqtt, prefix: 'reader', pingEveryMs: 1_000, subscribe })
    t.is((await stuck.grow(STUCK)).in, STUCK)
    t.is((await readers.grow(READERS)).in, READERS)

    const source = await mqtt.connectAsync(`mqtt://127.0.0.1:${brokerPort}`, { protocolVersion: 4 })
    t.teardown(() => source.endAsync(true))
    const payload = Buffer.alloc(MESSAGE_BYTES, 'x')
    let published = 0
    const tap = setInterval(() => source.publish('flood', payload, () => void published++), 1_000 / PER_SECOND)
    t.teardown(() => clearInterval(tap))
    await sleep(WARM_MS)
    const warm = await stuck.report()
    t.true(warm.received > STUCK, 'everybody reads at first')

    const pid = proxy.child.pid!
    const base = residentBytes(pid)
    await readers.report()
    const from = { published, read: (await readers.report()).received, out: await proxy.metric(BYTES_OUT) }
    await stuck.pause(STUCK)
    const stalled = performance.now()
    let most = base
    while (performance.now() - stalled < stallMs) {
      await sleep(100)
      most = Math.max(most, residentBytes(pid))
    }
    const seconds = (performance.now() - stalled) / 1_000
    const quiet = await stuck.report()
    const reading = await readers.report()
    const passedOn = (await proxy.metric(BYTES_OUT)) - from.out - (reading.received - from.read) * MESSAGE_BYTES
    clearInterval(tap)

    // The fault was there: next to nothing was read by those that stood still, and much was meant for them.
    const owed = (published - from.published) * STUCK * MESSAGE_BYTES
    const rate = owed / seconds / 1_000_000
    t.true(quiet.received - warm.received < (published - from.published) * STUCK * 0.25, 'they did stop')
    t.true(rate > 10, `${rate} MB/s`)
    // Nor did the kernel take it all: the door itself had to hold back.
    t.true(passedOn < owed * 0.75, `${passedOn} of ${owed} bytes went on`)
    const growth = most - base
    t.true(growth <= STUCK * MOST_PER_SESSION + BREATH_BYTES, `${growth} bytes more`)
    // The last messages may be under way.
    const share = (reading.received - from.read) / ((published - from.published - PER_SECOND / 2) * READERS)
    t.true(share >= 0.99, `${share}`)
    t.is(reading.in, READERS)

    // Whoever reads again is no worse for it.
    await stuck.resume()
    await stuck.go('leave')
    await readers.go('leave')
    await eventually(() => proxy.metric('brokergate_sessions').then((n) => n === 1), 'the good client alone', 40_000)
    return {
      injected: `${STUCK} subscribers stopped reading for ${seconds.toFixed(0)} s under ${rate.toFixed(1)} MB/s toward them (${(owed / 1_000_000).toFixed(0)} MB)`,
      seen: `${(passedOn / 1_000_000).toFixed(0)} MB of it went on into kernel buffers; ${(growth / 1_048_576).toFixed(1)} MiB more, ${(growth / 1_024 / STUCK).toFixed(0)} KiB a stuck session; ${READERS} others had ${(Math.min(1, share) * 100).toFixed(1)} %, pings worst ${reading.pingMs.worst.toFixed(0)} ms`,
    }
  },
)
