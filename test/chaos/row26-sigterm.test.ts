// A deployment is an outage that we make ourselves. Devices are told to go in the words of their protocol, what was
// acknowledged is with the broker, and whoever comes again finds another replica.
import { once } from 'node:events'
import { Agent, request } from 'node:https'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { witness } from '../support/clients.ts'
import { eventually, sleep } from '../support/e2e.ts'
import { ca, device, type Gateway, openGateway, TOKEN } from '../support/gateway.ts'
import type { Teardowns } from '../support/proxy.ts'
import { acknowledgedOf } from './accounts.ts'
import { startFleet } from './fleet.ts'
import { row } from './row.ts'
import { PATIENT } from './settings.ts'

const MQTT = { 4: 450, 5: 450, publishing: 100 } as const
const WEBSOCKETS = 100
const HTTP = 50
const GRACE_SECONDS = 10

const readyAt = async (gateway: Gateway): Promise<boolean> => {
  const { metrics } = gateway.proxy.lines().find(({ message }) => message === 'ready') as { readonly metrics: string }
  return fetch(`http://${metrics}/readyz`).then(
    ({ status }) => status === 200,
    () => false,
  )
}

/** As a load balancer does it: a new connection goes to the first replica that says it is ready. */
async function balancer(t: Teardowns, replicas: readonly Gateway[]): Promise<number> {
  const sockets = new Set<Socket>()
  const server = createServer(async (outer) => {
    outer.on('error', () => {})
    sockets.add(outer)
    for (const replica of replicas) {
      if (!(await readyAt(replica))) continue
      const inner = connect({ host: '127.0.0.1', port: replica.ports.mqtt })
      inner.on('error', () => {})
      sockets.add(inner)
      outer.pipe(inner).pipe(outer)
      outer.on('close', () => inner.destroy())
      inner.on('close', () => outer.destroy())
      return
    }
    outer.destroy()
  })
  server.listen({ port: 0, host: '127.0.0.1' })
  await once(server, 'listening')
  t.teardown(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  return (server.address() as AddressInfo).port
}

/** Devices that publish over kept connections until they are told not to; which publishes were answered with 200. */
function publishOverHttp(
  t: Teardowns,
  port: number,
): { readonly accepted: string[]; readonly statuses: Map<string, number> } {
  const accepted: string[] = []
  const statuses = new Map<string, number>()
  const agent = new Agent({
    keepAlive: true,
    maxSockets: HTTP,
    ca: ca.certPem,
    cert: device.chainPem,
    key: device.keyPem,
  })
  let over = false
  t.teardown(() => {
    over = true
    agent.destroy()
  })
  let number = 0
  const one = (payload: string): Promise<string> =>
    new Promise((resolve) => {
      const asked = request(
        {
          host: '127.0.0.1',
          port,
          servername: 'localhost',
          path: '/topics/drain/http?qos=1',
          method: 'POST',
          headers: { host: 'localhost' },
          agent,
        },
        (response) => {
          response.resume()
          response.on('end', () => resolve(String(response.statusCode)))
          response.on('error', () => resolve('cut'))
        },
      )
      asked.on('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? 'error'))
      asked.end(payload)
    })
  for (let index = 0; index < HTTP; index++) {
    void (async () => {
      while (!over) {
        const payload = `http:${number++}`
        const status = await one(payload)
        statuses.set(status, (statuses.get(status) ?? 0) + 1)
        if (status === '200') accepted.push(payload)
        await sleep(status === '200' ? 50 : 500)
      }
    })()
  }
  return { accepted, statuses }
}

row(
  {
    number: 26,
    part: 'SIGTERM',
    title: 'SIGTERM under MQTT, WebSocket and HTTP',
    required:
      'exit 0 within the grace, DISCONNECT 0x8B to all of MQTT 5 and 1001 on WebSockets, nothing acknowledged is lost',
    seconds: 25,
    good: 'returns',
    // The good client's own connection, which was at the other replica at first.
    kept: 4,
  },
  async (chaos) => {
    const { t, watch } = chaos
    const leaving = await openGateway(t, {
      extra: PATIENT,
      prefix: ['env', `BROKERGATE_DRAIN__GRACE=${GRACE_SECONDS}s`],
    })
    const staying = await openGateway(t)
    const port = await balancer(t, [leaving, staying])
    await watch({ proxy: staying.proxy, port })
    const seen = await witness(t, leaving, 'drain/#')

    const { ports } = leaving
    const old = await startFleet(t, { port: ports.mqtt, prefix: 'old', version: 4 })
    const young = await startFleet(t, { port: ports.mqtt, prefix: 'young' })
    const publishing = await startFleet(t, { port: ports.mqtt, prefix: 'publishing' })
    const web = await startFleet(t, {
      port: ports.web,
      prefix: 'web',
      certificates: [null],
      webSocket: `/mqtt?x-amz-customauthorizer-name=open&MyToken=${TOKEN}`,
    })
    const all = [
      [old, MQTT[4]],
      [young, MQTT[5]],
      [publishing, MQTT.publishing],
      [web, WEBSOCKETS],
    ] as const
    for (const [fleet, count] of all) t.is((await fleet.grow(count)).in, count)
    await publishing.publish({ everyMs: 30, topic: 'drain/${id}', bytes: 0 })
    const http = publishOverHttp(t, ports.https)
    await publishing.until((report) => report.acked > 1_000, 'publishes')
    await eventually(() => http.accepted.length > HTTP, 'publishes over HTTP')

    const began = performance.now()
    const { code, signal } = await leaving.proxy.stop('SIGTERM')
    const seconds = (performance.now() - began) / 1_000
    t.deepEqual({ code, signal }, { code: 0, signal: null })
    t.true(seconds < GRACE_SECONDS + 10, `${seconds} s`)

    const endings = await Promise.all(
      all.map(async ([fleet]) => (await fleet.until((report) => report.in === 0, 'everybody out')).endings),
    )
    t.deepEqual(endings, [
      { closed: MQTT[4] },
      { 'disconnect 139': MQTT[5] },
      { 'disconnect 139': MQTT.publishing },
      { 'disconnect 139, ws 1001': WEBSOCKETS },
    ])
    const { sent, acked } = await publishing.report()
    const told = [...acknowledgedOf(await publishing.accounts()), ...http.accepted]
    const arrived = new Set<string>()
    await eventually(() => {
      for (const { payload } of seen.splice(0)) arrived.add(payload)
      return told.every((payload) => arrived.has(payload))
    }, 'everything acknowledged at the broker').catch(() => {})
    t.deepEqual(
      told.filter((payload) => !arrived.has(payload)),
      [],
    )
    await chaos.good.echo()
    return {
      injected: `SIGTERM under ${MQTT[4] + MQTT[5] + MQTT.publishing} MQTT, ${WEBSOCKETS} WebSocket and ${HTTP} HTTP connections, ${MQTT.publishing} of them publishing`,
      seen: `exit 0 after ${seconds.toFixed(1)} s; 0x8B to ${MQTT[5] + MQTT.publishing + WEBSOCKETS}, 1001 to ${WEBSOCKETS}; ${acked} of ${sent} publishes and ${http.accepted.length} over HTTP acknowledged, all at the broker; HTTP ${[...http.statuses].map(([status, count]) => `${status} × ${count}`).join(', ')}`,
    }
  },
)

const PUBLISHERS = 100
const KILLS = 3

row(
  {
    number: 26,
    part: 'worker killed',
    title: 'kill -9 of a worker in the middle of 100 publishers at QoS 1',
    required: 'nothing acknowledged is lost, the worker is replaced, all come back',
    seconds: 15,
    good: 'returns',
    kept: 20,
  },
  async ({ t, start, random }) => {
    const gateway = await start({ workers: 2, extra: PATIENT })
    const seen = await witness(t, gateway, 'killed/#')
    const fleet = await startFleet(t, {
      port: gateway.ports.mqtt,
      prefix: 'publisher',
      retry: { leastMs: 100, mostMs: 500 },
    })
    await fleet.grow(PUBLISHERS)
    await fleet.publish({ everyMs: 20, topic: 'killed/${id}', bytes: 0 })
    const workers = (): number[] => {
      const gone = new Set<unknown>()
      const ready: number[] = []
      for (const { message, workerPid } of gateway.proxy.lines()) {
        if (message === 'worker ready') ready.push(Number(workerPid))
        if (typeof message === 'string' && message.startsWith('worker ended')) gone.add(workerPid)
      }
      return ready.filter((pid) => !gone.has(pid))
    }
    for (let kill = 0; kill < KILLS; kill++) {
      const { acked } = await fleet.report()
      await fleet.until((report) => report.acked > acked + 1_500, 'publishes')
      const victims = await eventually(() => (workers().length === 2 ? workers() : null), 'two workers')
      // After the first one it is the survivor, the first of the list, to whom they all went; the new one may have nobody.
      process.kill(victims[kill === 0 ? random(2) : 0]!, 'SIGKILL')
      await eventually(() => workers().length < 2, 'a worker less')
      await eventually(() => workers().length === 2, 'the worker replaced')
      await fleet.until((report) => report.in === PUBLISHERS, 'all back')
    }
    t.true(await fleet.quiet())
    const report = await fleet.report()
    const told = acknowledgedOf(await fleet.accounts())
    const arrived = new Set<string>()
    await eventually(() => {
      for (const { payload } of seen.splice(0)) arrived.add(payload)
      return told.every((payload) => arrived.has(payload))
    }, 'everything acknowledged at the broker').catch(() => {})
    t.is(told.length, report.acked)
    t.true(report.acked > KILLS * 1_500 && report.acked < report.sent, 'killed under publishes')
    t.deepEqual(
      told.filter((payload) => !arrived.has(payload)),
      [],
    )
    const lost = report.attempts - PUBLISHERS
    t.true(lost > 0, 'somebody lost a connection')
    t.is(await gateway.proxy.metric('brokergate_worker_exits_total{reason="signal"}'), KILLS)
    await fleet.go('leave')
    return {
      injected: `${PUBLISHERS} publishers on 2 workers, ${KILLS} workers killed`,
      seen: `${report.sent} sent, ${report.acked} acknowledged, all at the broker; ${lost} reconnects, ${KILLS} workers replaced`,
    }
  },
)
