import { eventually, knock, PINGREQ, PINGRESP, sleep } from './e2e.ts'
import { openGateway, write } from './gateway.ts'
import { createCa, issueDevice } from './pki.ts'
import type { Teardowns } from './proxy.ts'

/** Devices whose traffic is watched: each is answered, one question after the other, all the time. */
const WATCHED = 20

export interface RevokedOne {
  /** Client ids of the sessions that ended; the revoked device is `victim`. */
  readonly closed: readonly string[]
  /** As the metrics say at the end. */
  readonly revoked: number
  readonly sessions: number
  /** From the write of the registry to the end of the session. Milliseconds. */
  readonly goneAfterMs: number
  /** Answers to the watched devices, and the longest that one of them waited, before the revocation and from it on. */
  readonly before: Answered
  readonly after: Answered
}

interface Answered {
  readonly answers: number
  readonly worstMs: number
}

/** One certificate of a fleet is revoked while all are connected, and some of the others talk. */
export async function revokeOne(t: Teardowns, fleet: number, workers: number): Promise<RevokedOne> {
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
  for (let at = 0; at < fleet - 1; at += 50) {
    const names = Array.from({ length: Math.min(50, fleet - 1 - at) }, (_, n) => `d${at + n}`)
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
  await eventually(() => closed.has('victim'), 'the end of the revoked device')
  const goneAfterMs = performance.now() - from
  await sleep(1_000)
  watching = false
  await Promise.all(watchers)
  return {
    closed: [...closed],
    revoked: await gateway.proxy.metric('brokergate_connections_closed_total{reason="certificate_revoked"}'),
    sessions: await gateway.proxy.metric('brokergate_sessions'),
    goneAfterMs,
    before,
    after: { answers: answers - before.answers, worstMs },
  }
}
