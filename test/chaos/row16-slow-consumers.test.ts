// Subscribers on bad lines, and a broker that has much to say. Were the door to take what they do not, it would hold the
// difference in memory until there is none left, and all others would go down with it.
import mqtt from 'mqtt'
import { eventually, residentBytes, sleep } from '../support/e2e.ts'
import { startFleet } from './fleet.ts'
import { row } from './row.ts'

const STUCK = 200
const READERS = 20
const MESSAGE_BYTES = 10_240
const PER_SECOND = 10
const WARM_MS = 3_000
const STALL_MS = 12_000
/**
 * What a session that is stuck may hold here, both directions together: high-water marks of the streams, TLS records in
 * the making, one read under way. The kernel's buffers are not in it.
 */
const MOST_PER_SESSION = 1_048_576
/** For garbage between two collections at 20 MB/s. */
const BREATH_BYTES = 64 * 1_048_576

row(
  {
    number: 16,
    title: 'slow consumers',
    required: `at most ${MOST_PER_SESSION / 1_048_576} MiB a stuck session, the others keep 99 % of their rate`,
    seconds: 30,
  },
  async ({ t, start }) => {
    const gateway = await start()
    const { proxy, ports, brokerPort } = gateway
    const subscribe = { filter: 'flood', qos: 0 } as const
    const stuck = await startFleet(t, { port: ports.mqtt, prefix: 'stuck', keepAliveSeconds: 600, subscribe })
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
    const from = { published, read: (await readers.report()).received }
    await stuck.pause(STUCK)
    const stalled = performance.now()
    let most = base
    while (performance.now() - stalled < STALL_MS) {
      await sleep(100)
      most = Math.max(most, residentBytes(pid))
    }
    const seconds = (performance.now() - stalled) / 1_000
    const quiet = await stuck.report()
    const reading = await readers.report()
    clearInterval(tap)

    // The fault was there: next to nothing was read by those that stood still, and much was meant for them.
    const owed = (published - from.published) * STUCK * MESSAGE_BYTES
    const rate = owed / seconds / 1_000_000
    t.true(quiet.received - warm.received < (published - from.published) * STUCK * 0.25, 'they did stop')
    t.true(rate > 10, `${rate} MB/s`)
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
      seen: `${(growth / 1_048_576).toFixed(1)} MiB more, ${(growth / 1_024 / STUCK).toFixed(0)} KiB a stuck session; ${READERS} others had ${(Math.min(1, share) * 100).toFixed(1)} %, pings worst ${reading.pingMs.worst.toFixed(0)} ms`,
    }
  },
)
