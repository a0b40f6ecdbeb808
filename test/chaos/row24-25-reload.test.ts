// Certificates are renewed by machines, at night, and configurations are edited by people. Neither may cost a device its
// connection, and a slip must say where it is.
import { connect as connectTls } from 'node:tls'
import { BROKEN } from '../support/broken-settings.ts'
import { ca, eventually, server, startMosquitto } from '../support/e2e.ts'
import { createCa, issueServer } from '../support/pki.ts'
import { folderFor, freePort, type Teardowns, write } from '../support/proxy.ts'
import { openReloadable } from '../support/reloads.ts'
import { startFleet } from './fleet.ts'
import { row } from './row.ts'
import { PATIENT } from './settings.ts'

const CONNECTIONS = 500
const SWAPS = 20
const MISMATCHED = 10

/** Mosquitto, because the good client subscribes. */
async function openBroker(t: Teardowns): Promise<number> {
  const brokerPort = await freePort()
  await startMosquitto(t, folderFor(t), `listener ${brokerPort} 127.0.0.1\nallow_anonymous true`)
  return brokerPort
}

function servedAt(port: number): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connectTls({ host: '127.0.0.1', port, servername: 'localhost', ca: ca.certPem })
    socket.once('error', reject)
    socket.once('secureConnect', () => {
      resolve(socket.getPeerX509Certificate()!.fingerprint256)
      socket.destroy()
    })
  })
}

row(
  {
    number: 24,
    title: 'certificate rotation',
    required: 'no connection drops, the mismatched pair is refused and counted, each swap is served',
    seconds: 20,
  },
  async ({ t, watch }) => {
    const brokerPort = await openBroker(t)
    const gate = await openReloadable(t, { workers: 1, brokerPort, config: () => ({ rest: PATIENT }) })
    const { proxy, port, dir } = gate
    await watch({ proxy, port, brokerPort })
    const fleet = await startFleet(t, { port, prefix: 'rotation', retry: { leastMs: 50, mostMs: 500 } })
    t.is((await fleet.grow(CONNECTIONS)).in, CONNECTIONS)
    await fleet.publish({ everyMs: 1_000, topic: 'rotation/${id}', bytes: 0 })

    const pairs = [server, issueServer(ca, { serverNames: ['localhost'], ips: ['127.0.0.1'] })] as const
    const spare = createCa({ commonName: 'spare' })
    const refused = () => proxy.metric('brokergate_config_reloads_total{result="refused"}')
    for (let swap = 1; swap <= SWAPS; swap++) {
      const pair = pairs[swap % 2]!
      const other = pairs[(swap + 1) % 2]!
      write(dir, 'ca.pem', swap % 3 === 0 ? ca.certPem : ca.certPem + spare.certPem)
      write(dir, 'server.pem', pair.chainPem)
      write(dir, 'server.key', swap === MISMATCHED ? other.keyPem : pair.keyPem)
      const before = await refused()
      proxy.child.kill('SIGHUP')
      if (swap === MISMATCHED) {
        await eventually(async () => (await refused()) === before + 1, 'the mismatched pair refused')
        t.is(await servedAt(port), other.cert.fingerprint256, 'the former pair goes on')
      } else {
        await eventually(async () => (await servedAt(port)) === pair.cert.fingerprint256, `swap ${swap} served`)
      }
    }
    t.is(await refused(), 1)
    t.true(await fleet.quiet())
    const report = await fleet.report()
    t.is(report.in, CONNECTIONS)
    t.deepEqual(report.endings, {})
    t.is(report.sent, report.acked)
    await eventually(
      () => proxy.metric('brokergate_config_generations_live').then((count) => count <= SWAPS),
      'generations retired',
    )
    await fleet.go('leave')
    return {
      injected: `${SWAPS} swaps of server and CA files by SIGHUP under ${CONNECTIONS} publishing connections, swap ${MISMATCHED} mismatched`,
      seen: `${SWAPS - 1} served, 1 refused and counted, 0 of ${CONNECTIONS} dropped, ${report.acked} of ${report.sent} publishes acknowledged`,
    }
  },
)

row(
  {
    number: 25,
    title: 'bad reload',
    required: 'the old settings stay, each refusal is counted and names file and field',
    seconds: 15,
  },
  async ({ t, watch }) => {
    const brokerPort = await openBroker(t)
    const files = Object.assign({}, ...BROKEN.map((one) => one.files ?? {})) as Record<string, string>
    const gate = await openReloadable(t, { workers: 1, brokerPort, files })
    const { proxy, port, dir } = gate
    await watch({ proxy, port, brokerPort })
    const fleet = await startFleet(t, { port, prefix: 'bystander', retry: { leastMs: 50, mostMs: 500 } })
    t.is((await fleet.grow(50)).in, 50)
    const unclear: string[] = []
    for (const { what, parts, says, files: own = {} } of BROKEN) {
      for (const [name, text] of Object.entries(own)) write(dir, name, text)
      gate.configure(parts)
      const reloaded = await gate.post()
      t.is(reloaded.generation, 1, what)
      const said = reloaded.kind === 'refused' ? reloaded.issues.join('\n') : reloaded.kind
      if (!says.test(said)) unclear.push(`${what}: ${said}`)
    }
    t.deepEqual(unclear, [])
    t.true(BROKEN.length >= 40)
    // By signal, too: nobody is there to be told, and the log is.
    gate.configure(BROKEN[0]!.parts)
    proxy.child.kill('SIGHUP')
    const refused = () => proxy.metric('brokergate_config_reloads_total{result="refused"}')
    await eventually(async () => (await refused()) === BROKEN.length + 1, 'the refusal by signal')
    const report = await fleet.report()
    t.is(report.in, 50)
    t.deepEqual(report.endings, {})
    // Newcomers are served by what was in force.
    const late = await startFleet(t, { port, prefix: 'newcomer', retry: { leastMs: 50, mostMs: 500 } })
    t.is((await late.grow(10)).in, 10)
    await late.go('leave')
    await fleet.go('leave')
    return {
      injected: `${BROKEN.length} broken configurations over the administration socket, one more by SIGHUP`,
      seen: `${await refused()} refused and counted, each with file and field; generation 1 served on, 0 of 50 dropped`,
    }
  },
)
