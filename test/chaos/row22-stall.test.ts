// An event loop that stands still: a garbage collection, a machine that was paused, a page that had to come from the disk.
// Devices that sent their pings in time must not pay for it.
import { eventually, sleep } from '../support/e2e.ts'
import { ca } from '../support/gateway.ts'
import { issueDevice, issueServer } from '../support/pki.ts'
import { startFleet } from './fleet.ts'
import { row } from './row.ts'

const LIVE = 100
const KEEP_ALIVE_SECONDS = 2
const STALLS = 4
const STALL_MS = 500
/** Longer than one and a half keep alives: every device has spoken meanwhile, and none was heard. */
const LONG_STALL_MS = 5_000
const RSA_CLIENTS = 50

row(
  {
    number: 22,
    title: 'stalled event loop',
    required: 'the lag is in the metrics, readiness flips and comes back, no false cut by keep alive',
    seconds: 20,
  },
  async ({ t, start }) => {
    const rsa = issueDevice(ca, { commonName: 'large key', keyType: 'rsa', rsaBits: 4_096 })
    const certificate = issueServer(ca, { serverNames: ['patient.test'] })
    const files: Record<string, string> = {
      'registry/certs/rsa.pem': rsa.certPem,
      'patient.pem': certificate.chainPem,
      'patient.key': certificate.keyPem,
    }
    const { proxy, ports } = await start({
      // The broker, too, cuts whom it does not hear; here it leaves that to the door.
      extra: 'include: [ more.yaml ]',
      between: async (brokerPort) => {
        files['more.yaml'] = `domains:
  - { serverNames: [ patient.test ], certificates: [ { cert: patient.pem, key: patient.key } ], registry: main, backend: patient }
backends:
  patient: { kind: tcp, servers: [ { address: "127.0.0.1:${brokerPort}" } ], identity: { keepAlive: 0 } }
`
        return brokerPort
      },
      files,
      registry: `certificates:
  - { file: certs/device.pem, status: ACTIVE, policies: [ everything ] }
  - { file: certs/rsa.pem, status: ACTIVE, policies: [ everything ] }
policies:
  everything: { file: policies/everything.json }
`,
    })
    const { metrics } = proxy.lines().find(({ message }) => message === 'ready') as { readonly metrics: string }
    const ready = async (): Promise<number> => (await fetch(`http://${metrics}/readyz`)).status
    const stalled = async (): Promise<number> => {
      const page = await proxy.metrics()
      const figure = (series: string) => Number(new RegExp(`^${series} (\\d+)`, 'm').exec(page)?.[1] ?? Number.NaN)
      const name = 'brokergate_event_loop_lag_seconds'
      return figure(`${name}_count`) - figure(`${name}_bucket\\{le="0.25"\\}`)
    }
    const live = await startFleet(t, {
      port: ports.mqtt,
      serverName: 'patient.test',
      prefix: 'live',
      keepAliveSeconds: KEEP_ALIVE_SECONDS,
      pingEveryMs: 500,
    })
    t.is((await live.grow(LIVE)).in, LIVE)
    await eventually(async () => (await ready()) === 200, 'ready')
    const before = await stalled()

    const { pid } = proxy.child
    let refusals = 0
    let asking = true
    const watching = (async () => {
      while (asking) {
        if ((await ready()) === 503) refusals++
        await sleep(20)
      }
    })()
    for (let stall = 0; stall < STALLS; stall++) {
      process.kill(pid!, 'SIGSTOP')
      await sleep(STALL_MS)
      process.kill(pid!, 'SIGCONT')
      await sleep(STALL_MS)
    }
    process.kill(pid!, 'SIGSTOP')
    await sleep(LONG_STALL_MS)
    process.kill(pid!, 'SIGCONT')
    const large = await startFleet(t, {
      port: ports.mqtt,
      prefix: 'rsa',
      certificates: [rsa],
      retry: { leastMs: 50, mostMs: 200 },
    })
    await large.grow(RSA_CLIENTS)
    t.is((await large.report()).in, RSA_CLIENTS)
    await sleep(KEEP_ALIVE_SECONDS * 2_000)
    const seen = (await stalled()) - before
    await eventually(async () => (await ready()) === 200, 'ready again')
    asking = false
    await watching

    t.true(seen >= STALLS + 1, `${seen} stalls in the metrics`)
    t.true(refusals > 0, 'readiness flipped')
    const report = await live.report()
    t.is(report.in, LIVE, JSON.stringify(report.endings))
    t.deepEqual(report.endings, {})
    t.is(await proxy.metric('brokergate_connections_closed_total{reason="keep_alive_timeout"}'), 0)
    await live.go('leave')
    await large.go('leave')
    return {
      injected: `${STALLS} stalls of ${STALL_MS} ms and one of ${LONG_STALL_MS / 1_000} s by SIGSTOP, ${RSA_CLIENTS} clients with RSA 4096`,
      seen: `${seen} stalls above 0.25 s in the metrics, ${refusals} times not ready and ready again, ${LIVE} sessions with a keep alive of ${KEEP_ALIVE_SECONDS} s kept, ${RSA_CLIENTS} let in`,
    }
  },
)
