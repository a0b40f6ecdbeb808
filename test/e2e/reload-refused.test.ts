// An operator saves a file with a slip in it, at night, on a gate that a fleet is connected to. Whatever the slip is: the
// fleet notices nothing, the operator is told where to look, and the next good file counts. Rows 24 and 25.
import { once } from 'node:events'
import { connect as connectTls } from 'node:tls'
import test, { type ExecutionContext } from 'ava'
import { BROKEN } from '../support/broken-settings.ts'
import { ca, eventually, knock, PINGREQ, PINGRESP, server, startSink } from '../support/e2e.ts'
import { createCa, issueServer } from '../support/pki.ts'
import { write } from '../support/proxy.ts'
import { domain, openReloadable, settled } from '../support/reloads.ts'

const ROTATING = Number(process.env.E2E_ROTATION_SESSIONS ?? 500)
const SWAPS = 20
const other = issueServer(ca, { serverNames: ['localhost'], ips: ['127.0.0.1'] })
const PAIRS = [server, other] as const
const spare = createCa({ commonName: 'spare' })

for (const workers of [1, 2]) {
  const on = `on ${workers} worker${workers === 1 ? '' : 's'}`

  test.serial(`${BROKEN.length} broken configurations change nothing and say where, ${on}`, async (t) => {
    t.timeout(110_000)
    const broker = await startSink(t)
    const files = Object.assign({}, ...BROKEN.map((one) => one.files ?? {})) as Record<string, string>
    const gate = await openReloadable(t, { workers, brokerPort: broker.port, files })
    const device = await knock(gate.port, 'stays')
    t.teardown(() => device.socket.destroy())
    const unclear: string[] = []
    for (const { what, parts, says, files: own = {} } of BROKEN) {
      for (const [name, text] of Object.entries(own)) write(gate.dir, name, text)
      gate.configure(parts)
      const reloaded = await gate.post()
      t.is(reloaded.generation, 1, what)
      const said = reloaded.kind === 'refused' ? reloaded.issues.join('\n') : reloaded.kind
      if (!says.test(said))
        unclear.push(`${what}: ${said}`)
        // What was in force serves newcomers.
      ;(await knock(gate.port, `guest`)).leave()
    }
    t.deepEqual(unclear, [])
    t.is(await gate.proxy.metric('brokergate_config_reloads_total{result="refused"}'), BROKEN.length)
    t.true(gate.proxy.child.exitCode === null)
    const answered = once(device.socket, 'data') as Promise<[Buffer]>
    device.socket.resume()
    device.socket.write(PINGREQ)
    t.deepEqual((await answered)[0], PINGRESP)
    gate.configure({ domains: domain('    handshakeTimeout: 9s\n') })
    t.is((await gate.post()).kind, 'done')
    device.leave()
    await settled(gate, 2)
  })

  test.serial(
    `certificates and CAs swapped ${SWAPS} times under ${ROTATING} sessions, one pair mismatched, ${on}`,
    (t) => rotate(t, workers),
  )
}

async function rotate(t: ExecutionContext, workers: number): Promise<void> {
  t.timeout(110_000)
  const broker = await startSink(t)
  const gate = await openReloadable(t, { workers, brokerPort: broker.port, watch: true })
  let closed = 0
  for (let at = 0; at < ROTATING; at += 50) {
    await Promise.all(
      Array.from({ length: Math.min(50, ROTATING - at) }, async (_, n) => {
        const { socket } = await knock(gate.port, `d-${at + n}`)
        socket.resume()
        socket.on('close', () => closed++)
        t.teardown(() => socket.destroy())
      }),
    )
  }
  const refusals = () => gate.proxy.metric('brokergate_config_reloads_total{result="refused"}')
  const mismatched = Math.floor(SWAPS / 2)
  for (let n = 1; n <= SWAPS; n++) {
    const pair = PAIRS[n % 2]!
    // As a certificate manager does it: one file after the other, and nobody tells us.
    write(gate.dir, 'ca.pem', n % 3 === 0 ? ca.certPem : ca.certPem + spare.certPem)
    write(gate.dir, 'server.pem', pair.chainPem)
    write(gate.dir, 'server.key', n === mismatched ? PAIRS[(n + 1) % 2]!.keyPem : pair.keyPem)
    if (n !== mismatched)
      await eventually(async () => (await served(gate.port)) === pair.cert.fingerprint256, `swap ${n}`)
    else {
      const before = await refusals()
      await eventually(async () => (await refusals()) > before, 'the refusal of a mismatched pair')
      t.is(await served(gate.port), PAIRS[(n + 1) % 2]!.cert.fingerprint256)
    }
  }
  t.is(closed, 0)
  t.is(await gate.proxy.metric('brokergate_sessions'), ROTATING)
  t.true((await refusals()) >= 1)
  t.true(gate.proxy.lines().some(({ message }) => /is not the key of/.test(String(message))))
  t.log({ workers, sessions: ROTATING, generation: (await gate.status()).generation, refused: await refusals() })
}

function served(port: number): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connectTls({ host: '127.0.0.1', port, servername: 'localhost', ca: ca.certPem })
    socket.once('error', reject)
    socket.once('secureConnect', () => {
      resolve(socket.getPeerX509Certificate()!.fingerprint256)
      socket.destroy()
    })
  })
}
