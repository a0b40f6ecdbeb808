// One certificate of a fleet is revoked. Exactly that device must be gone within a second, and the traffic of the
// others must show nothing of it: a look at every session in one go would be a gap for all.
import test, { type ExecutionContext } from 'ava'
import { eventually, knock, PINGREQ, PINGRESP, sleep } from '../support/e2e.ts'
import { openGateway, write } from '../support/gateway.ts'
import { createCa, issueDevice } from '../support/pki.ts'

const FLEET = Number(process.env.E2E_FLEET ?? 2_000)
/** Devices whose traffic is watched: each is answered, one question after the other, all the time. */
const WATCHED = 20

for (const workers of [1, 2]) {
  const title = `one certificate revoked among the sessions of a fleet on ${workers} worker${workers === 1 ? '' : 's'}: that device is gone, nobody else notices`
  test.serial(title, (t) => revokeOne(t, workers))
}

async function revokeOne(t: ExecutionContext, workers: number): Promise<void> {
  t.timeout(110_000)
  const fleetCa = createCa({ commonName: 'fleet' })
  const bad = issueDevice(fleetCa, { commonName: 'bad' })
  const good = issueDevice(fleetCa, { commonName: 'good' })
  const registry = (status: string) => `certificates:
  - { file: certs/good.pem, status: ACTIVE, policies: [ everything ] }
  - { file: certs/bad.pem, status: ${status}, policies: [ everything ] }
policies:
  everything: { file: policies/everything.json }
`
  const gateway = await openGateway(t, {
    workers,
    registry: registry('ACTIVE'),
    files: { 'registry/certs/good.pem': good.certPem, 'registry/certs/bad.pem': bad.certPem },
  })
  const { mqtt: port } = gateway.ports

  const closed = new Set<string>()
  const join = async (clientId: string, certificate: typeof good) => {
    const device = await knock(port, clientId, { as: certificate })
    device.socket.on('close', () => closed.add(clientId))
    t.teardown(() => device.socket.destroy())
    return device
  }
  const victim = await join('victim', bad)
  victim.socket.resume()
  const others: Awaited<ReturnType<typeof join>>[] = []
  for (let at = 0; at < FLEET - 1; at += 50) {
    const names = Array.from({ length: Math.min(50, FLEET - 1 - at) }, (_, n) => `d${at + n}`)
    others.push(...(await Promise.all(names.map((name) => join(name, good)))))
  }
  // Everybody else stays quiet; a few ask and are answered.
  let worstMs = 0
  let answers = 0
  let watching = true
  const watchers = others.slice(0, WATCHED).map(async ({ socket }) => {
    while (watching) {
      const from = performance.now()
      const answered = new Promise<Buffer>((resolve) => socket.once('data', resolve))
      socket.resume()
      socket.write(PINGREQ)
      if (!(await answered).equals(PINGRESP)) throw new Error('not a PINGRESP')
      worstMs = Math.max(worstMs, performance.now() - from)
      answers++
      await sleep(5)
    }
  })
  for (const { socket } of others.slice(WATCHED)) socket.resume()
  await sleep(500)
  const before = { answers, worstMs }
  worstMs = 0

  const from = performance.now()
  write(gateway.dir, 'registry/registry.yaml', registry('REVOKED'))
  await eventually(() => closed.has('victim'), 'the end of the revoked device', 5_000)
  const goneAfterMs = performance.now() - from
  await sleep(1_000)
  watching = false
  await Promise.all(watchers)

  t.log({ sessions: FLEET, workers, goneAfterMs: Math.round(goneAfterMs), answers, worstMs, before })
  t.deepEqual([...closed], ['victim'])
  t.true(answers > before.answers)
  // What this machine does to every process at once is in both figures.
  t.true(worstMs < Math.max(500, 10 * before.worstMs), `somebody waited ${worstMs} ms for an answer`)
  t.is(await gateway.proxy.metric('brokergate_connections_closed_total{reason="certificate_revoked"}'), 1)
  t.is(await gateway.proxy.metric('brokergate_sessions'), FLEET - 1)
}
