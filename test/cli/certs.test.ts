import { X509Certificate } from 'node:crypto'
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { decide, issue, list } from '../../src/cli/certs.ts'
import { init } from '../../src/cli/init.ts'
import { startAdminServer } from '../../src/control/admin.ts'
import { NO_LOG } from '../../src/control/log.ts'
import { ServerDrains } from '../../src/control/server-drains.ts'
import { RegistryOwner } from '../../src/registry/owner.ts'
import { folderFor } from '../support/proxy.ts'

function started(t: ExecutionContext) {
  const dir = join(folderFor(t), 'gate')
  init(dir, () => {})
  const lines: string[] = []
  const common = { file: join(dir, 'brokergate.yaml'), env: {}, print: (line: string) => void lines.push(line) }
  const make = (name: string, rest: { pki?: string; out?: string; days?: string } = {}) =>
    issue({ ...common, name, pki: null, out: null, days: null, ...rest })
  const change = (certificate: string, status: 'ACTIVE' | 'INACTIVE' | 'REVOKED') =>
    decide({ ...common, certificate, status, registry: null, policies: [], things: [] })
  const device = new X509Certificate(readFileSync(join(dir, 'pki/device.pem')))
  return { dir, lines, common, make, change, id: device.fingerprint256.replaceAll(':', '').toLowerCase() }
}

test('a device certificate is made by the development CA, with its key for its owner alone', async (t) => {
  const { dir, lines, make } = started(t)
  t.is(await make('sensor-1', { days: '10' }), 0)
  const certificate = new X509Certificate(readFileSync(join(dir, 'pki/sensor-1.pem')))
  t.true(certificate.verify(new X509Certificate(readFileSync(join(dir, 'pki/ca.pem'))).publicKey))
  t.true(certificate.validToDate.getTime() - Date.now() < 10 * 86_400_000)
  t.is(statSync(join(dir, 'pki/sensor-1.key')).mode & 0o777, 0o600)
  t.regex(lines.join('\n'), /file: \.\.\/pki\/sensor-1\.pem, status: ACTIVE/)
})

test('what is there is left alone, and what cannot be is told', async (t) => {
  const { dir, lines, make } = started(t)
  const before = readFileSync(join(dir, 'pki/device.pem'), 'utf8')
  t.is(await make('device'), 1)
  t.is(readFileSync(join(dir, 'pki/device.pem'), 'utf8'), before)
  for (const name of ['../x', 'a/b', '', '.hidden', 'a'.repeat(65)]) t.is(await make(name), 1, name)
  for (const days of ['0', '-1', '1.5', 'ten', '4000']) t.is(await make('x', { days }), 1, days)
  t.is(await make('x', { pki: join(dir, 'registry') }), 1)
  t.regex(lines.at(-1)!, /no development CA/)
  t.false(existsSync(join(dir, 'pki/x.key')))
})

test('without a running process the files are listed, and nothing is changed', async (t) => {
  const { lines, common, change, id } = started(t)
  t.is(await list(common), 0)
  t.deepEqual(lines, [`main  ${id}  ACTIVE  things: -  policies: devices`])
  t.is(await change(id, 'REVOKED'), 1)
  t.regex(lines.at(-1)!, /no brokergate runs/)
})

test('files that cannot be read are no list', async (t) => {
  const { dir, common, lines } = started(t)
  writeFileSync(join(dir, 'registry/registry.yaml'), '- 1')
  t.is(await list(common), 1)
  t.regex(lines.join('\n'), /registry\.yaml:1: /)
})

test('a running process is asked, and says why not', async (t) => {
  const { dir, lines, common, change, id } = started(t)
  const registries = { main: { path: join(dir, 'registry'), state: join(dir, 'var/registry') } }
  const owner = new RegistryOwner({ registries, log: NO_LOG, changed() {} })
  const path = join(dir, 'var/admin.sock')
  const connections = { list: async () => ({ connections: [], total: 0 }), kick: async () => 0 }
  const server = await startAdminServer({
    path,
    status: () => ({}),
    drain() {},
    servers: new ServerDrains(
      () => new Map(),
      () => {},
    ),
    restart: () => ({ refused: null }),
    reload: async () => ({ kind: 'unchanged', generation: 1 }),
    certificates: owner,
    connections,
    log: NO_LOG,
  })
  t.teardown(async () => {
    await server.close()
    owner.close()
  })
  t.is(await change(join(dir, 'pki/device.pem'), 'INACTIVE'), 0)
  t.is(await list(common), 0)
  t.regex(lines.at(-1)!, new RegExp(`${id}  INACTIVE`))
  t.is(await change(id.slice(0, 8), 'REVOKED'), 0)
  t.is(await change(id, 'ACTIVE'), 1)
  t.is(lines.at(-1), 'it is revoked, which is final')
  t.is(await change(join(dir, 'brokergate.yaml'), 'REVOKED'), 1)
  t.regex(lines.at(-1)!, /is not a certificate/)
  t.is(await change('0'.repeat(64), 'ACTIVE'), 1)
})

test('a configuration that is wrong is told', async (t) => {
  const { dir, common, lines } = started(t)
  writeFileSync(join(dir, 'brokergate.yaml'), 'listeners: []')
  t.is(await list(common), 1)
  t.true(lines.length > 0)
})
