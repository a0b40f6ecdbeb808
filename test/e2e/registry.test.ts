// A device must be able to come and to be thrown out without a restart, and every worker must know. It went wrong if one
// worker still lets in what another has seen revoked, or if a device that registered itself is known to one worker alone.
import { execFile } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import test, { type ExecutionContext } from 'ava'
import { ca, eventually, knock, mqttClient, server } from '../support/e2e.ts'
import { createCa, type Issued, issueDevice } from '../support/pki.ts'
import { folderFor, freePort, OPEN_POLICIES, startProxy, write } from '../support/proxy.ts'

const exec = promisify(execFile)
const MAIN = new URL('../../src/main.ts', import.meta.url).pathname

let count = 0
const factory = createCa({ commonName: 'Factory CA' })
const line = createCa({ commonName: 'Line CA' })
const known = issueDevice(ca, { commonName: 'known' })

async function house(t: ExecutionContext, workers: number) {
  const dir = folderFor(t)
  const [port, metricsPort] = [await freePort(), await freePort()]
  write(dir, 'server.pem', server.chainPem)
  write(dir, 'server.key', server.keyPem)
  write(dir, 'registry/policies.yaml', OPEN_POLICIES)
  write(dir, 'registry/known.pem', known.certPem)
  write(dir, 'registry/factory.pem', factory.certPem)
  write(dir, 'registry/line.pem', line.certPem)
  write(dir, 'registry/devices.yaml', 'certificates: [ { file: known.pem, policies: [ devices ] } ]\n')
  write(
    dir,
    'registry/cas.yaml',
    `cas:
  - { file: line.pem, autoRegister: pending }
  - { file: factory.pem, autoRegister: { template: { thing: "\${CommonName}", policies: [ devices ] } } }
`,
  )
  const config = write(
    dir,
    'brokergate.yaml',
    `listeners: [ { bind: "127.0.0.1:${port}", as: 8883 } ]
domains:
  - serverNames: [ localhost ]
    certificates: [ { cert: server.pem, key: server.key } ]
    registry: main
    backend: main
backends: { main: { kind: embedded } }
registries: { main: { path: registry, state: state } }
metrics: { bind: "127.0.0.1:${metricsPort}" }
admin: { socket: admin.sock }
workers: ${workers}
log: { format: json }
`,
  )
  const proxy = await startProxy(t, config, metricsPort)
  const certs = async (...args: string[]): Promise<string> => {
    const { stdout } = await exec(process.execPath, [MAIN, 'certs', ...args, '-c', config])
    return stdout
  }
  const connects = async (device: Issued): Promise<boolean> => {
    const came = await knock(port, `c-${count++}`, { as: device }).catch(() => null)
    came?.leave()
    return came !== null
  }
  /** As often as it takes to have met every worker, in all likelihood. */
  const everywhere = async (device: Issued, wanted: boolean): Promise<boolean> => {
    const met = await Promise.all(Array.from({ length: 12 }, () => connects(device)))
    return met.every((result) => result === wanted)
  }
  return { dir, proxy, certs, connects, everywhere, mqttPort: port }
}

for (const workers of [1, 2]) {
  test.serial(`with ${workers} of them every worker knows what was learnt and what was written`, async (t) => {
    const { dir, proxy, certs, connects, everywhere } = await house(t, workers)

    const made = issueDevice(factory, { commonName: 'lamp-1' })
    t.false(await connects(made))
    t.true(await everywhere(made, true))
    t.is(await proxy.metric('brokergate_provisions_total{result="success"}'), 1)

    const waiting = issueDevice(line, { commonName: 'lamp-2' })
    t.true(await everywhere(waiting, false))
    t.is(await proxy.metric('brokergate_provisions_total{result="pending"}'), 1)
    await proxy.until(() => proxy.lines().some((one) => one.event === 'registered'), 'the event')
    write(dir, 'lamp-2.pem', waiting.certPem)
    t.regex(await certs('activate', join(dir, 'lamp-2.pem'), '--policy', 'devices'), /ACTIVE/)
    await eventually(() => everywhere(waiting, true), 'let in by every worker')

    t.true(await everywhere(known, true))
    const id = known.cert.fingerprint256.replaceAll(':', '').toLowerCase()
    t.regex(await certs('revoke', id.slice(0, 16)), /REVOKED/)
    await eventually(() => everywhere(known, false), 'refused by every worker')
    t.regex(await certs('list'), new RegExp(`${id}  REVOKED`))

    write(dir, 'registry/devices.yaml', 'certificates: []\ncertificates: []\n')
    await proxy.until(() => proxy.lines().some((one) => String(one.message).includes('not reloaded')), 'refused')
    t.true(await connects(made))

    const before = readFileSync(join(dir, 'state/overlay.jsonl'), 'utf8')
    t.is(before.split('\n').length, 5)
    await proxy.stop()
  })
}

test.serial('a revoked certificate ends its live session with the reason code, and no other', async (t) => {
  const { dir, certs, everywhere, mqttPort } = await house(t, 2)
  const others = Array.from({ length: 20 }, (_, n) => issueDevice(ca, { commonName: `other-${n}` }))
  for (const [n, other] of others.entries()) write(dir, `registry/other-${n}.pem`, other.certPem)
  const lines = others.map((_, n) => `  - { file: other-${n}.pem, policies: [ devices ] }\n`)
  write(dir, 'registry/others.yaml', `certificates:\n${lines.join('')}`)
  const open = (device: Issued) =>
    mqttClient(t, mqttPort, { cert: device.chainPem, key: device.keyPem, protocolVersion: 5 }).catch(() => null)
  await eventually(async () => {
    const came = await knock(mqttPort, 'probe', { as: others[0]! }).catch(() => null)
    came?.leave()
    return came !== null
  }, 'registered')
  await eventually(() => everywhere(others.at(-1)!, true), 'registered at every worker')
  const live = await Promise.all([known, ...others].map(open))
  t.true(live.every((client) => client !== null))
  const reasons = live.map(() => 0)
  for (const [n, client] of live.entries()) {
    client!.on('disconnect', ({ reasonCode }) => {
      reasons[n] = reasonCode ?? 0
    })
  }
  const begun = performance.now()
  const id = known.cert.fingerprint256.replaceAll(':', '').toLowerCase()
  await certs('revoke', id)
  await eventually(() => !live[0]!.connected, 'gone')
  t.log(`${Math.round(performance.now() - begun)} ms, the start of the command included`)
  t.is(reasons[0], 0x87)
  // The others are heard, not only still open.
  await Promise.all(live.slice(1).map((client) => client!.publishAsync('still/here', 'x', { qos: 1 })))
  t.true(reasons.slice(1).every((reason) => reason === 0))
})
