import { X509Certificate } from 'node:crypto'
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { parse } from 'yaml'
import { init } from '../../src/cli/init.ts'
import { loadSettings } from '../../src/config/load.ts'
import { NO_VARIABLES } from '../../src/policy/permit.ts'
import { readRegistry } from '../../src/registry/files.ts'
import { ARN } from '../support/identity.ts'

function folder(t: ExecutionContext): string {
  const dir = mkdtempSync(join(tmpdir(), 'brokergate-init-'))
  t.teardown(() => rmSync(dir, { recursive: true, force: true }))
  return dir
}

const modeOf = (path: string): string => (statSync(path).mode & 0o777).toString(8)

test('makes a folder that loads as it is', (t) => {
  const dir = join(folder(t), 'new')
  t.is(
    init(dir, () => {}),
    0,
  )
  const loaded = loadSettings(join(dir, 'brokergate.yaml'), {})
  t.is(loaded.kind, 'valid')
  if (loaded.kind === 'invalid') return
  t.deepEqual(loaded.settings.domains[0]?.serverNames, ['localhost'])
  t.is(loaded.settings.backends.main?.kind, 'embedded')
})

test('folders are 0700 and keys 0600, whatever the umask', (t) => {
  const dir = folder(t)
  init(dir, () => {})
  for (const name of ['', 'pki', 'registry', 'var']) t.is(modeOf(join(dir, name)), '700', name)
  for (const name of ['ca', 'server', 'device']) t.is(modeOf(join(dir, `pki/${name}.key`)), '600', name)
})

test('server and device certificates come from the CA and fit localhost; nothing of it goes into version control', (t) => {
  const dir = folder(t)
  init(dir, () => {})
  const read = (name: string) => new X509Certificate(readFileSync(join(dir, 'pki', name)))
  const ca = read('ca.pem')
  t.true(read('server.pem').verify(ca.publicKey) && read('device.pem').verify(ca.publicKey))
  t.is(read('server.pem').checkHost('localhost'), 'localhost')
  t.is(read('server.pem').checkIP('127.0.0.1'), '127.0.0.1')
  t.true(readFileSync(join(dir, '.gitignore'), 'utf8').split('\n').includes('*'))
})

test('the registry has the device as ACTIVE, with a policy that allows everything', (t) => {
  const dir = folder(t)
  init(dir, () => {})
  const registry = parse(readFileSync(join(dir, 'registry/registry.yaml'), 'utf8'))
  t.deepEqual(registry.certificates, [{ file: '../pki/device.pem', status: 'ACTIVE', policies: ['devices'] }])
  const read = readRegistry(join(dir, 'registry'))
  if (read.kind === 'invalid') return t.fail(read.issues.join('\n'))
  const permit = read.registry.grants(['devices']).permit(ARN, NO_VARIABLES)
  for (const action of ['iot:Connect', 'iot:Publish', 'iot:RetainPublish', 'iot:Subscribe', 'iot:Receive'] as const) {
    t.true(permit.allowsAll(action), action)
  }
})

test('a folder with something else in it is refused and left alone', (t) => {
  const dir = folder(t)
  writeFileSync(join(dir, 'thesis.txt'), 'years of work')
  const lines: string[] = []
  t.is(
    init(dir, (line) => lines.push(line)),
    1,
  )
  t.deepEqual(readdirSync(dir), ['thesis.txt'])
  t.deepEqual(lines, [`${dir} is not empty and was not made by brokergate; nothing was written`])
})

test('again in its own folder it adds only what is missing', (t) => {
  const dir = folder(t)
  init(dir, () => {})
  writeFileSync(join(dir, 'brokergate.yaml'), '# mine\n')
  const key = readFileSync(join(dir, 'pki/server.key'), 'utf8')
  rmSync(join(dir, 'pki/device.key'))
  const lines: string[] = []
  t.is(
    init(dir, (line) => lines.push(line)),
    0,
  )
  t.deepEqual(lines.slice(0, -1), ['wrote pki/device.key', 'wrote pki/device.pem'])
  t.is(readFileSync(join(dir, 'brokergate.yaml'), 'utf8'), '# mine\n')
  t.is(readFileSync(join(dir, 'pki/server.key'), 'utf8'), key)
})
