// A fleet that comes back asks for more descriptors than a process may have. Were accepting not to rest then, accept
// would fail and be tried again without end, and every session that was in would pay for those that never were.
import { cpuTicks, eventually } from '../support/e2e.ts'
import { startFleet } from './fleet.ts'
import { row } from './row.ts'

const CLIENTS = 400
const LIMIT = 256

row(
  {
    number: 20,
    title: 'descriptors exhausted',
    required: 'no crash, no spin (less than half a core while full), a new device is in within 2 s of room',
    seconds: 15,
  },
  async ({ t, start }) => {
    const { proxy, ports } = await start({
      prefix: ['bash', '-c', `ulimit -n ${LIMIT}; exec "$@"`, '--'],
    })
    const port = ports.mqtt
    t.is(await proxy.metric('brokergate_process_max_fds'), LIMIT)
    const fleet = await startFleet(t, { port, prefix: 'many', version: 4, withinMs: 5_000 })
    const crowd = await fleet.grow(CLIENTS)
    const outside = CLIENTS - crowd.in
    t.true(crowd.in > 50 && outside > 50, JSON.stringify(crowd))
    t.true((await proxy.metric('brokergate_accept_pauses_total{reason="descriptors"}')) >= 1)

    // More that knock while it is full: it must not answer that by trying without end.
    const pid = proxy.child.pid!
    const ticks = cpuTicks(pid)
    const began = performance.now()
    const knocking = await startFleet(t, { port, prefix: 'late', version: 4, withinMs: 2_000 })
    await knocking.grow(50)
    const share = ((cpuTicks(pid) - ticks) * 10) / (performance.now() - began)
    t.true(share < 0.5, `${share} of a core`)

    const room = performance.now()
    const late = await startFleet(t, { port, prefix: 'later', version: 4, retry: { leastMs: 50, mostMs: 100 } })
    await fleet.go('leave')
    await late.grow(1)
    const backMs = performance.now() - room
    t.true(backMs < 10_000, `${backMs} ms`)
    await late.go('leave')
    await eventually(() => proxy.metric('brokergate_sessions').then((n) => n === 1), 'the good client alone')
    return {
      injected: `${CLIENTS + 50} clients, ${LIMIT} descriptors`,
      seen: `${crowd.in} in, ${outside} not let in, ${Math.round(share * 100)} % of a core while full, a new one in after ${Math.round(backMs)} ms`,
    }
  },
)
