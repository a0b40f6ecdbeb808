// Devices do not say goodbye: a tunnel, a dead battery, a modem that restarts. What is kept for a peer that is gone is
// kept for nothing, and a fleet on bad lines leaves more of it every hour.
import { eventually } from '../support/e2e.ts'
import { freePort } from '../support/proxy.ts'
import { startFleet } from './fleet.ts'
import { openNamespace } from './namespace.ts'
import { row } from './row.ts'
import { PATIENT } from './settings.ts'

const VANISHED = 1_000
const RESETS = 5_000
const AT_ONCE = 1_000
const KEEP_ALIVE_SECONDS = 2

row(
  {
    number: 17,
    part: 'vanish',
    title: 'peers that vanish without a word',
    required: 'all reaped by 1.5 × keep alive, descriptors back',
    seconds: 20,
  },
  async ({ t, start, note }) => {
    const opened = openNamespace(t)
    const port = await freePort()
    const outside = opened.kind === 'open' ? opened.namespace.outside : '127.0.0.2'
    const { proxy } = await start({
      extra: `include: [ more.yaml ]\n${PATIENT}`,
      files: { 'more.yaml': `listeners: [ { bind: "${outside}:${port}", as: 8883 } ]\n` },
    })
    const away = await startFleet(
      t,
      {
        host: outside,
        port,
        prefix: 'gone',
        keepAliveSeconds: KEEP_ALIVE_SECONDS,
        pingEveryMs: 700,
        localAddresses: 0,
        retry: { leastMs: 50, mostMs: 500 },
      },
      opened.kind === 'open' ? opened.namespace.prefix : [],
    )
    const arrived = await away.grow(VANISHED)
    t.is(arrived.in, VANISHED, JSON.stringify(arrived.outcomes))
    t.is(await proxy.metric('brokergate_sessions'), VANISHED + 1)
    const timeouts = 'brokergate_connections_closed_total{reason="keep_alive_timeout"}'
    const before = await proxy.metric(timeouts)
    const began = performance.now()
    if (opened.kind === 'open') {
      opened.namespace.cut()
      // With the wire cut, the FINs of its end do not arrive either.
      away.signal('SIGKILL')
    } else {
      note(`no namespace here (${opened.why}): the fleet's process was stopped instead`)
      away.signal('SIGSTOP')
    }
    await eventually(() => proxy.metric('brokergate_sessions').then((n) => n === 1), 'the vanished reaped', 60_000)
    const seconds = (performance.now() - began) / 1_000
    const reaped = (await proxy.metric(timeouts)) - before
    t.is(reaped, VANISHED)
    // Nobody is cut early; the upper end is the wheel's tick and a busy machine.
    t.true(seconds > KEEP_ALIVE_SECONDS * 1.5 - 0.8 && seconds < 30, `${seconds} s`)
    return {
      injected: `${VANISHED} devices vanished ${opened.kind === 'open' ? 'behind a cut wire' : 'by SIGSTOP'}, keep alive ${KEEP_ALIVE_SECONDS} s`,
      seen: `${reaped} reaped for keep alive, the last after ${seconds.toFixed(1)} s`,
    }
  },
)

row(
  {
    number: 17,
    part: 'reset',
    title: 'connections that are reset in mid-stream',
    required: 'every session ends, descriptors and broker connections back',
    seconds: 25,
  },
  async ({ t, start }) => {
    const { proxy, ports } = await start({ extra: PATIENT })
    const fleet = await startFleet(t, {
      port: ports.mqtt,
      prefix: 'reset',
      retry: { leastMs: 20, mostMs: 200 },
    })
    await fleet.grow(AT_ONCE)
    await fleet.publish({ everyMs: 500, topic: 'reset/${id}', bytes: 256 })
    let resets = 0
    while (resets < RESETS) {
      await fleet.until((report) => report.in === AT_ONCE, 'everybody back')
      resets += await fleet.reset(Math.min(AT_ONCE, RESETS - resets))
    }
    const back = await fleet.until((report) => report.in === AT_ONCE, 'everybody back')
    t.is(resets, RESETS)
    // What a device sees of the connection it has reset is an end; none may end in another way.
    t.deepEqual(Object.keys(back.endings), ['closed'])
    t.is(back.endings.closed, RESETS)
    await eventually(() => proxy.metric('brokergate_sessions').then((n) => n === AT_ONCE + 1), 'as many as there are')
    await fleet.go('leave')
    await eventually(() => proxy.metric('brokergate_sessions').then((n) => n === 1), 'the good client alone')
    return {
      injected: `${resets} RST while publishing, ${AT_ONCE} at once`,
      seen: `all came back and were let in (${back.attempts} connects, ${back.outcomes.in} in), ${back.acked} publishes acknowledged`,
    }
  },
)
