// A fleet that comes back in one second, and somebody who only wants to keep it out. Neither may cost a device its session
// that has one already, and nobody is left without an answer.
import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { connect as connectTls } from 'node:tls'
import { eventually, sleep } from '../support/e2e.ts'
import { TOKEN, yes } from '../support/gateway.ts'
import type { Teardowns } from '../support/proxy.ts'
import { startFleet } from './fleet.ts'
import { row } from './row.ts'
import { PATIENT } from './settings.ts'

const FULL = 1_500
const HALF = 1_500
const HANDSHAKES_PER_SECOND = 200
const HANDSHAKE_TIMEOUT_SECONDS = 10

/** The ClientHello of this runtime for `localhost`. */
async function helloOf(t: Teardowns): Promise<Buffer> {
  const server = createServer()
  server.listen({ port: 0, host: '127.0.0.1' })
  await once(server, 'listening')
  t.teardown(() => server.close())
  const client = connectTls({
    port: (server.address() as AddressInfo).port,
    host: '127.0.0.1',
    servername: 'localhost',
  })
  client.on('error', () => {})
  const [accepted] = (await once(server, 'connection')) as [Socket]
  accepted.on('error', () => {})
  const [hello] = (await once(accepted, 'data')) as [Buffer]
  accepted.destroy()
  client.destroy()
  return hello
}

interface Halves {
  readonly open: number
  /** Were sent something back: their handshake was begun. */
  readonly begun: number
}

/** Says hello and then nothing. */
function halfHandshakes(t: Teardowns, port: number, count: number, hello: Buffer): Halves {
  const state = { open: count, begun: 0 }
  for (let index = 0; index < count; index++) {
    const socket = connect({ host: '127.0.0.1', port, localAddress: `127.0.1.${2 + (index % 8)}` }, () =>
      socket.write(hello),
    )
    let answered = false
    socket.on('data', () => {
      if (!answered) state.begun++
      answered = true
    })
    socket.on('error', () => {})
    socket.on('close', () => state.open--)
    t.teardown(() => socket.destroy())
  }
  return state
}

row(
  {
    number: 4,
    title: 'handshake flood',
    required: 'shed is counted, none hangs, the good client lives',
    seconds: 20,
  },
  async ({ t, start }) => {
    const { proxy, ports } = await start({
      extra: `governor: { full: { perSecond: ${HANDSHAKES_PER_SECOND} }, queue: { size: 400, timeout: 2s } }`,
      prefix: ['env', 'BROKERGATE_LOG__LEVEL=info'],
    })
    const hello = await helloOf(t)
    const refusals = async (): Promise<number> => {
      const lines = (await proxy.metrics()).split('\n')
      return lines
        .filter((line) => /^brokergate_admission_refusals_total\{reason="handshake_(?:queue|wait)"\}/.test(line))
        .reduce((sum, line) => sum + Number(line.split('} ')[1]), 0)
    }
    const before = await refusals()
    const fleet = await startFleet(t, { port: ports.mqtt, prefix: 'flood' })
    const began = performance.now()
    const halves = halfHandshakes(t, ports.mqtt, HALF, hello)
    const full = await fleet.grow(FULL)
    await eventually(() => halves.open === 0, 'every half handshake ended', (HANDSHAKE_TIMEOUT_SECONDS + 20) * 1_000)
    const seconds = (performance.now() - began) / 1_000
    const shed = (await refusals()) - before

    const others = Object.entries(full.outcomes).filter(
      ([outcome]) => outcome !== 'in' && !outcome.startsWith('closed'),
    )
    t.deepEqual(others, [], 'in, or closed: nobody was left without an answer')
    t.true(shed > FULL / 10, `${shed} shed`)
    t.true(full.in > 0, JSON.stringify(full.outcomes))
    // Whoever was shed was shed before any key work: no more handshakes began than the budget allows.
    const most = HANDSHAKES_PER_SECOND * (seconds + 2)
    t.true(halves.begun + full.in <= most, `${halves.begun + full.in} in ${seconds} s`)
    await fleet.go('leave')
    return {
      injected: `${FULL} full and ${HALF} half handshakes without a pause, a budget of ${HANDSHAKES_PER_SECOND} a second`,
      seen: `${shed} shed and counted, ${full.in} in, ${halves.begun} half ones begun, all ended within ${seconds.toFixed(1)} s`,
    }
  },
)

const DEVICES = 2_000
const AWAY_MS = 2_000
/** Of the authorizer, as it is unless told: most calls at once in one process. */
const CONCURRENCY = 64

row(
  {
    number: 14,
    title: 'CONNECT storm',
    required: `all ${DEVICES} back in 20 s, at most ${CONCURRENCY} authorizer calls at once, no CONNACK lost`,
    seconds: 35,
    good: 'returns',
    // The authorizer's connections are kept.
    kept: CONCURRENCY,
  },
  async ({ t, start }) => {
    const gateway = await start({ extra: PATIENT, prefix: ['env', 'BROKERGATE_LOG__LEVEL=info'] })
    const { proxy, ports } = gateway
    let running = 0
    let mostRunning = 0
    let calls = 0
    gateway.answer = async (asked, response) => {
      calls++
      mostRunning = Math.max(mostRunning, ++running)
      await sleep(5)
      running--
      response.end(JSON.stringify(yes(asked)))
    }
    const connected = () => proxy.metric('brokergate_connects_total{result="ok",version="5"}')
    const fleet = await startFleet(t, {
      port: ports.web,
      prefix: 'storm',
      alpn: 'mqtt',
      certificates: [null],
      username: `u?x-amz-customauthorizer-name=open&MyToken=${TOKEN}`,
      keepAliveSeconds: 300,
      retry: { leastMs: 200, mostMs: 2_000 },
    })
    const okBefore = await connected()
    const goodBefore = gateway.proxy.lines().length
    await fleet.grow(DEVICES)
    const before = { calls, ...(await fleet.report()) }

    await gateway.stopBroker()
    await fleet.until((report) => report.in === 0, 'all out')
    await sleep(AWAY_MS)
    const broker = performance.now()
    await gateway.startBroker()
    const back = await fleet.until((report) => report.in === DEVICES, 'all back', 90_000)
    const seconds = (performance.now() - broker) / 1_000

    t.true(seconds < 60, `${seconds} s`)
    t.is(back.endings['disconnect 128'] ?? 0, DEVICES, JSON.stringify(back.endings))
    t.is(back.outcomes.silent ?? 0, 0, 'nobody was left without an answer')
    t.true(mostRunning <= CONCURRENCY, `${mostRunning} calls at once`)
    t.true(calls - before.calls <= back.attempts - before.attempts, 'asked at most once an attempt')
    t.true(calls - before.calls >= DEVICES, 'and for each that came back')
    // Every CONNACK that let somebody in was heard: the good client's are the rest.
    const others = (await connected()) - okBefore - (back.outcomes.in ?? 0)
    const good = proxy
      .lines()
      .slice(goodBefore)
      .filter(({ clientId }) => clientId === 'good-client').length
    t.true(others >= 0 && others <= good + 1, `${others} CONNACKs more than devices heard, ${good} of the good client`)
    await fleet.go('leave')
    await eventually(() => proxy.metric('brokergate_sessions').then((n) => n <= 1), 'the good client alone', 40_000)
    return {
      injected: `the broker killed under ${DEVICES} devices with an authorizer, back after ${AWAY_MS / 1_000} s`,
      seen: `all back ${seconds.toFixed(1)} s after the broker; ${back.attempts - before.attempts} attempts, ${calls - before.calls} authorizer calls, at most ${mostRunning} at once; ${back.outcomes.in} of ${back.outcomes.in} CONNACKs heard`,
    }
  },
)
