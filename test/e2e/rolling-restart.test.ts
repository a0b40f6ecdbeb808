import { execFile } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import mqtt from 'mqtt'
import { WebSocket } from 'websocket'
import { call } from '../support/clients.ts'
import { CONNACK, connectPacket, eventually, knock, openDoor, startMosquitto } from '../support/e2e.ts'
import { farewellOf, many, publisher } from '../support/fleet.ts'
import { device, ca as gatewayCa, openGateway } from '../support/gateway.ts'
import { folderFor, freePort, type RunningProxy, type Teardowns } from '../support/proxy.ts'
import { rawDevice } from '../support/raw-mqtt.ts'

/**
 * Workers come and go under a fleet that connects all the time: replaced one after the other, killed in the middle of
 * their work, or not replaced at all because what is on disk is broken.
 */

const size = (name: string, normal: number): number => Number(process.env[name] ?? normal)
const CONNECTS = size('E2E_RESTART_CONNECTS', 300)
const PUBLISHERS = size('E2E_RESTART_PUBLISHERS', 40)

const MAIN = new URL('../../src/main.ts', import.meta.url).pathname

async function opened(t: Teardowns, workers: number, grace = '3s') {
  const brokerPort = await freePort()
  const server = `127.0.0.1:${brokerPort}`
  await startMosquitto(t, folderFor(t), `listener ${brokerPort} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0`)
  const door = await openDoor(t, {
    backend: `kind: tcp, servers: [ { address: "${server}" } ]`,
    workers,
    extra: `drain: { grace: ${grace} }`,
  })
  const file = join(door.dir, 'brokergate.yaml')
  const restart = () =>
    new Promise<{ readonly code: number; readonly text: string }>((resolve) => {
      execFile(process.execPath, [MAIN, 'restart', '-c', file], (error, stdout, stderr) =>
        resolve({ code: error === null ? 0 : Number(error.code), text: stdout + stderr }),
      )
    })
  return { ...door, brokerPort, file, restart }
}

/** Process ids of the workers that are ready, the newest last. */
const ready = (proxy: RunningProxy): number[] =>
  proxy.lines().flatMap(({ message, workerPid }) => (message === 'worker ready' ? [Number(workerPid)] : []))

/** One connect after the other, each to its CONNACK, until told to stop. */
async function stream(port: number, name: string, until: () => boolean) {
  let count = 0
  const failures: string[] = []
  while (!until()) {
    try {
      const device = await knock(port, `${name}-${count}`)
      count++
      device.leave()
    } catch (error) {
      failures.push(`${name}-${count}: ${String(error)}`)
      count++
    }
  }
  return { count, failures }
}

test.serial(
  'workers are replaced one after the other, and of all that connect meanwhile none is refused or reset',
  async (t) => {
    const { port, proxy, restart } = await opened(t, 2)
    const before = ready(proxy)
    const sessions = await many(20, (n) => rawDevice(t, { port, version: 5, clientId: `live-${n}` }))
    await Promise.all(sessions.map((one) => one.hear('connack', 30_000)))
    let connects = 0
    let restarts = 0
    let over = false
    const streams = Array.from({ length: 8 }, (_, n) =>
      stream(port, `s${n}`, () => {
        connects++
        return over && connects > CONNECTS
      }),
    )
    // A device of an old worker comes again under its own client id, most likely to another one.
    const returning = sessions.map(async (one, n) => {
      await one.end(60_000)
      t.like(farewellOf(one), { reasonCode: 0x8b })
      const again = await rawDevice(t, { port, version: 5, clientId: `live-${n}` })
      return again.hear('connack', 30_000)
    })
    const result = await restart()
    restarts++
    t.deepEqual([result.code, result.text.trim().split('\n').at(-1)], [0, 'restart done: 2 of 2 workers replaced'])
    for (const connack of await Promise.all(returning)) t.like(connack, { reasonCode: 0 })
    over = true
    const done = await Promise.all(streams)
    t.deepEqual(
      done.flatMap(({ failures }) => failures),
      [],
    )
    const count = done.reduce((sum, one) => sum + one.count, 0)
    t.true(count >= CONNECTS)

    const after = ready(proxy).slice(before.length)
    t.is(after.length, 2)
    t.deepEqual(
      after.filter((pid) => before.includes(pid)),
      [],
    )
    t.is(await proxy.metric('brokergate_worker_restarts_total{result="done"}'), 1)
    t.is(await proxy.metric('brokergate_worker_exits_total{reason="drained"}'), 2)
    t.is(await proxy.metric('brokergate_workers'), 2)
    t.is(await proxy.metric('brokergate_connections_closed_total{reason="backend_refused"}'), 0)
    t.deepEqual(await proxy.stop(), { code: 0, signal: null })
    t.log(`${restarts} restart of 2 workers under ${count} connects, none refused, none reset`)
  },
)

test.serial('HTTPS and WebSockets that begin while workers are replaced are served, every one of them', async (t) => {
  const gateway = await openGateway(t, { workers: 2, drain: '{ grace: 3s }' })
  const { proxy, ports } = gateway
  let over = false
  const failures: string[] = []
  const round = async (what: string, once: () => Promise<unknown>) => {
    let count = 0
    while (!over) {
      await once().catch((error: unknown) => failures.push(`${what} ${count}: ${String(error)}`))
      count++
    }
    return count
  }
  const publish = async () => {
    const { status } = await call(ports.https, '/topics/restart?qos=1', { certificate: device, body: 'hello' })
    if (status !== 200) throw new Error(`status ${status}`)
  }
  const streams = [
    ...Array.from({ length: 4 }, () => round('https', publish)),
    ...Array.from({ length: 2 }, () => round('wss', () => greeted(ports.web))),
  ]
  proxy.child.kill('SIGUSR2')
  await eventually(() => proxy.output().includes('restart of the workers is done'), 'the restart', 60_000)
  over = true
  const counts = await Promise.all(streams)
  t.deepEqual(failures, [])
  const sum = (from: number, to: number) => counts.slice(from, to).reduce((all, one) => all + one, 0)
  t.log(`${sum(0, 4)} publishes over HTTPS, ${sum(4, 6)} WebSockets, none refused, none reset`)
})

/** A WebSocket to its CONNACK. */
async function greeted(port: number): Promise<void> {
  const name = 'customwss.test'
  const options = { ca: gatewayCa.certPem, servername: name, headers: { host: name } }
  const socket = new WebSocket(`wss://127.0.0.1:${port}/mqtt`, 'mqtt', options)
  try {
    await new Promise<void>((resolve, reject) => {
      socket.on('open', () => socket.send(connectPacket(`w-${Math.random().toString(36).slice(2)}`)))
      socket.on('message', (data) => {
        if ((data as Buffer).equals(CONNACK)) resolve()
        else reject(new Error(`heard ${(data as Buffer).toString('hex')}`))
      })
      socket.on('error', reject)
      socket.on('close', (code) => reject(new Error(`closed with ${code}`)))
    })
  } finally {
    socket.terminate()
  }
}

test.serial(
  'new settings on disk are those of the new workers; broken ones end the restart and the old workers go on',
  async (t) => {
    const { port, proxy, file, restart } = await opened(t, 2, '1s')
    const settings = readFileSync(file, 'utf8')
    const device = await rawDevice(t, { port, version: 5, clientId: 'stays' })
    await device.hear('connack')
    const before = ready(proxy)

    writeFileSync(file, settings.replace('policies: [ devices ]', 'policies: [ no-such-policy ]'))
    const broken = await restart()
    t.is(broken.code, 1)
    t.regex(broken.text, /restart aborted: 0 of 2 workers replaced; the settings on disk are refused: .*no-such-policy/)
    t.true(proxy.output().includes('has no policy no-such-policy'))
    t.is(await proxy.metric('brokergate_worker_restarts_total{result="aborted"}'), 1)
    t.is(await proxy.metric('brokergate_workers'), 2)
    t.deepEqual(ready(proxy), before)
    t.false(device.closed)
    t.like(await (await rawDevice(t, { port, version: 5, clientId: 'more' })).hear('connack'), { reasonCode: 0 })

    const newPort = await freePort()
    writeFileSync(file, settings.replace('listeners: [', `listeners: [ { bind: "127.0.0.1:${newPort}", as: 8883 },`))
    proxy.child.kill('SIGUSR2')
    await eventually(() => proxy.output().includes('restart of the workers is done'), 'the restart by signal', 60_000)
    await device.end()
    t.like(farewellOf(device), { reasonCode: 0x8b })
    t.like(await (await rawDevice(t, { port: newPort, version: 5, clientId: 'new' })).hear('connack'), {
      reasonCode: 0,
    })
  },
)

test.serial('one process alone says which setting it takes to be restarted, and lives on', async (t) => {
  const { port, proxy, restart } = await opened(t, 1)
  const { code, text } = await restart()
  t.is(code, 1)
  t.regex(text, /workers: 1.*set workers to 2 or more/)
  proxy.child.kill('SIGUSR2')
  await eventually(() => proxy.output().split('workers are not restarted').length > 2, 'the signal is told')
  t.like(await (await rawDevice(t, { port, version: 5 })).hear('connack'), { reasonCode: 0 })
})

test.serial('a worker that is killed loses nothing that was acknowledged, and is replaced', async (t) => {
  const { port, proxy, brokerPort } = await opened(t, 2)
  const arrived = new Set<string>()
  const witness = await mqtt.connectAsync(`mqtt://127.0.0.1:${brokerPort}`, { protocolVersion: 5 })
  t.teardown(() => witness.endAsync(true))
  witness.on('message', (_topic, payload) => arrived.add(payload.toString()))
  await witness.subscribeAsync('kill/t', { qos: 1 })
  const publishers = await many(PUBLISHERS, (n) => publisher(t, 'kill/t', { port, version: 5, clientId: `k-${n}` }))
  await eventually(() => publishers.every(({ acknowledged }) => acknowledged.size > 10), 'all publish')
  const [victim] = ready(proxy)
  process.kill(victim!, 'SIGKILL')
  await eventually(() => ready(proxy).length === 3, 'it is replaced')
  const lost = publishers.filter(({ device }) => device.closed)
  t.true(lost.length > 0, 'it had sessions')
  for (const one of publishers) one.stop()
  const acknowledged = publishers.flatMap((one) => [...one.acknowledged])
  await eventually(() => acknowledged.every((payload) => arrived.has(payload)), 'every acknowledged message is there')
  // Their client ids are free again.
  for (const [n, one] of publishers.entries()) {
    if (!one.device.closed) continue
    const again = await rawDevice(t, { port, version: 5, clientId: `k-${n}` })
    t.like(await again.hear('connack', 30_000), { reasonCode: 0 })
  }
  t.log(`${PUBLISHERS} publishers, ${lost.length} on the killed worker, ${acknowledged.length} acknowledged, none lost`)
})
