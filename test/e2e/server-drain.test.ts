import { execFile } from 'node:child_process'
import { join } from 'node:path'
import test from 'ava'
import { eventually, openDoor, startMosquitto } from '../support/e2e.ts'
import { farewellOf, many, publisher } from '../support/fleet.ts'
import { folderFor, freePort, type Teardowns } from '../support/proxy.ts'
import { rawDevice } from '../support/raw-mqtt.ts'

/**
 * One broker of two is emptied for its upgrade: nobody new comes to it, whoever is on it is asked to come again and
 * lands on the other one, and what was acknowledged on the way is there.
 */

const MAIN = new URL('../../src/main.ts', import.meta.url).pathname

interface Ran {
  readonly code: number
  readonly text: string
}

const run = (...args: readonly string[]): Promise<Ran> =>
  new Promise((resolve) => {
    execFile(process.execPath, [MAIN, ...args], (error, stdout, stderr) =>
      resolve({ code: error === null ? 0 : Number(error.code), text: stdout + stderr }),
    )
  })

async function twoBrokers(t: Teardowns, workers: number) {
  const brokers = await many(2, async () => {
    const port = await freePort()
    const { log } = await startMosquitto(t, folderFor(t), `listener ${port} 127.0.0.1\nallow_anonymous true`)
    return { server: `127.0.0.1:${port}`, port, log, has: (id: string) => log().includes(` as ${id} (`) }
  })
  const servers = brokers.map(({ server }) => `{ address: "${server}" }`).join(', ')
  const door = await openDoor(t, {
    backend: `kind: tcp, servers: [ ${servers} ], balance: roundrobin`,
    workers,
    extra: 'drain: { grace: 4s }',
  })
  const file = join(door.dir, 'brokergate.yaml')
  const command = (name: string, ...args: readonly string[]) => run(name, '-c', file, ...args)
  const drain = (...args: readonly string[]) => command('drain', '--backend', 'main', '--server', ...args)
  const status = async () => (await command('status')).text
  return { ...door, brokers, command, drain, status }
}

for (const workers of [1, 2]) {
  test.serial(`sessions of a drained server move to the other one, with workers: ${workers}`, async (t) => {
    const { port, brokers, drain, status, proxy } = await twoBrokers(t, workers)
    const [one, other] = brokers as [(typeof brokers)[number], (typeof brokers)[number]]
    const connect = (clientId: string) => rawDevice(t, { port, version: 5, clientId })
    const devices = await many(12, (n) => connect(`d-${n}`))
    await Promise.all(devices.map((device) => device.hear('connack', 30_000)))
    await eventually(() => devices.every((_, n) => one.has(`d-${n}`) || other.has(`d-${n}`)), 'all are on a broker')
    const moving = devices.filter((_, n) => one.has(`d-${n}`))
    const staying = devices.filter((_, n) => other.has(`d-${n}`))
    t.true(moving.length > 0 && staying.length > 0)
    const busy = await publisher(t, 'moved/t', { port, version: 5, clientId: 'busy' })

    t.deepEqual(await drain(one.server), { code: 0, text: `main ${one.server} gets no new connections\n` })
    await Promise.all(moving.map((device) => device.end(30_000)))
    for (const device of moving) t.like(farewellOf(device), { reasonCode: 0x8b })
    for (const device of staying) t.deepEqual([device.closed, farewellOf(device)], [false, null])
    await eventually(
      async () => (await status()).includes(`drained: main ${one.server}, 0 sessions left`),
      'the status says that it is empty',
    )
    t.is(await proxy.metric('brokergate_backend_servers_drained{backend="main"}'), 1)
    busy.stop()
    t.is(busy.device.closed, one.has('busy'))

    const back = await many(8, (n) => connect(`back-${n}`))
    for (const device of back) t.like(await device.hear('connack', 30_000), { reasonCode: 0 })
    await eventually(() => back.every((_, n) => other.has(`back-${n}`)), 'all of them are on the other broker')
    t.false(one.log().includes(' as back-'))

    t.is((await drain(one.server, '--undo')).code, 0)
    const again = await many(8, (n) => connect(`again-${n}`))
    await Promise.all(again.map((device) => device.hear('connack', 30_000)))
    await eventually(() => one.log().includes(' as again-'), 'it is chosen again')
    t.false((await status()).includes('drained:'))
  })
}

test.serial(
  'a worker that is forked later knows what is drained, and with no server left devices are refused',
  async (t) => {
    const { port, brokers, drain, command, proxy, dir } = await twoBrokers(t, 2)
    const [one, other] = brokers as [(typeof brokers)[number], (typeof brokers)[number]]
    t.is((await drain(one.server)).code, 0)
    t.is((await command('restart')).code, 0)
    const devices = await many(8, (n) => rawDevice(t, { port, version: 5, clientId: `d-${n}` }))
    for (const device of devices) t.like(await device.hear('connack', 30_000), { reasonCode: 0 })
    t.false(one.log().includes(' as d-'))

    const last = await drain(other.server)
    t.is(last.code, 0)
    t.regex(last.text, /^warning: backend main has no other server/)
    await Promise.all(devices.map((device) => device.end(30_000)))
    const refused = await rawDevice(t, { port, version: 5, clientId: 'nowhere' })
    t.like(await refused.hear('connack', 30_000), { reasonCode: 0x88 })
    await eventually(() => proxy.output().includes('every server of it is drained'), 'the log says why')

    t.deepEqual(
      await Promise.all([
        drain('127.0.0.1:1'),
        run('drain', '-c', join(dir, 'brokergate.yaml'), '--backend', 'mian', '--server', one.server),
        drain('127.0.0.1:1', '--undo'),
      ]),
      [
        `backend main has no server 127.0.0.1:1; there are: ${one.server}, ${other.server}`,
        'no backend mian; there are: main',
        `main 127.0.0.1:1 is not drained; these are: main ${one.server}, main ${other.server}`,
      ].map((text) => ({ code: 1, text: `${text}\n` })),
    )
  },
)
