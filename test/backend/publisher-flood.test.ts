// The promise behind every 200: what was acknowledged is there, whatever happens to the broker meanwhile.
import { once } from 'node:events'
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net'
import { Aedes } from 'aedes'
import test from 'ava'
import { publisher } from '../../src/backend/publisher.ts'
import { tcp } from '../../src/backend/tcp.ts'
import { flood } from '../support/publishes.ts'

test('2,000 publishes at QoS 1 while the broker is killed and restarted twice: none that resolved was lost', async (t) => {
  const delivered = new Set<string>()
  let [server, sockets]: [Server | null, Set<Socket>] = [null, new Set()]
  let [port, starts, nowMs] = [0, 0, 0]
  const brokers: Aedes[] = []

  async function start(): Promise<void> {
    const aedes = await Aedes.createBroker()
    brokers.push(aedes)
    aedes.on('publish', (packet, client) => {
      if (client !== null) delivered.add(packet.payload.toString())
    })
    server = createServer((socket) => {
      sockets.add(socket)
      socket.on('error', () => {})
      aedes.handle(socket)
    })
    server.listen({ port, host: '127.0.0.1' })
    await once(server, 'listening')
    port = (server.address() as AddressInfo).port
    starts++
    // Nobody has to wait for the end of a rest.
    nowMs += 10_000
  }

  /** As a kill does: no farewell, and what was written may be lost. */
  function kill(): void {
    server?.close()
    for (const socket of sockets) socket.resetAndDestroy()
    sockets = new Set()
  }

  await start()
  const backend = tcp({
    name: 'main',
    identity: { username: null, password: null, clientId: null, keepAlive: 'device' },
    servers: [{ host: '127.0.0.1', port }],
    balance: 'leastconn',
    connectTimeoutMs: 2_000,
    proxyHeader: null,
    tls: null,
    onDial: () => {},
  })
  const to = publisher({
    backend,
    username: null,
    password: null,
    connections: 2,
    timeoutMs: 5_000,
    queue: 1_000,
    principalProperty: null,
    addressProperty: null,
    now: () => nowMs,
  })
  t.teardown(async () => {
    await to.close()
    await backend.close()
    kill()
    await Promise.all(brokers.map((broker) => new Promise<void>((resolve) => broker.close(() => resolve()))))
  })

  let up: Promise<void> = Promise.resolve()
  const { acknowledged, statuses } = await flood(to, 2_000, 50, async (ended, failed) => {
    if (ended === 500 || ended === 1_200) {
      kill()
      up = new Promise((resolve) => setTimeout(resolve, 50)).then(start)
    }
    // A device that was refused comes back later; without that the flood would be over before the broker is back.
    if (failed) await up
  })

  t.is(starts, 3)
  t.is(acknowledged.size + statuses.length, 2_000)
  t.true(acknowledged.size > 1_500, `${acknowledged.size} acknowledged`)
  t.deepEqual(
    [...acknowledged].filter((payload) => !delivered.has(payload)),
    [],
  )
  t.true(statuses.length > 0)
  t.deepEqual(
    statuses.filter((status) => status < 500 || status > 504),
    [],
  )
})
