import { X509Certificate } from 'node:crypto'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { networkInterfaces, tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { ensureFirstRun, pasteLines } from '../../src/cli/first-run.ts'
import { createCa, issueDevice, issueServer, loadCa } from '../../src/cli/pki.ts'
import { loadSettings } from '../../src/config/load.ts'

function folder(t: ExecutionContext): string {
  const dir = mkdtempSync(join(tmpdir(), 'brokergate-first-'))
  t.teardown(() => rmSync(dir, { recursive: true, force: true }))
  return join(dir, '.brokergate')
}

const read = (dir: string, name: string): string => readFileSync(join(dir, name), 'utf8')
const hasIpv6 = Object.values(networkInterfaces()).some((list) => list?.some(({ address }) => address === '::1'))

test('the first run makes its folder, the second finds it as it was', (t) => {
  const dir = folder(t)
  t.deepEqual(ensureFirstRun(dir), { configFile: join(dir, 'brokergate.yaml'), created: true })
  const before = ['pki/ca.pem', 'pki/server.pem', 'pki/device.key'].map((name) => read(dir, name))
  t.deepEqual(ensureFirstRun(dir), { configFile: join(dir, 'brokergate.yaml'), created: false })
  t.deepEqual(
    ['pki/ca.pem', 'pki/server.pem', 'pki/device.key'].map((name) => read(dir, name)),
    before,
  )
})

test('listens on this machine only, at 8883, 8443 and 10443 as 443', (t) => {
  const dir = folder(t)
  const loaded = loadSettings(ensureFirstRun(dir).configFile, {})
  if (loaded.kind === 'invalid') return t.fail()
  const expected = (hasIpv6 ? ['127.0.0.1', '::1'] : ['127.0.0.1']).flatMap((host) => [
    [host, 8883, 8883],
    [host, 8443, 8443],
    [host, 10443, 443],
  ])
  t.deepEqual(
    loaded.settings.listeners.map(({ bind, as }) => [bind.host, bind.port, as]),
    expected as [string, number, number][],
  )
})

test('expired certificates are renewed, from the same CA', (t) => {
  const dir = folder(t)
  ensureFirstRun(dir)
  const ca = loadCa(read(dir, 'pki/ca.pem'), read(dir, 'pki/ca.key'))
  const past = { notBefore: new Date(Date.now() - 2e8), notAfter: new Date(Date.now() - 1e8) }
  writeFileSync(join(dir, 'pki/server.pem'), issueServer(ca, { serverNames: ['localhost'], ...past }).chainPem)
  writeFileSync(join(dir, 'pki/device.pem'), issueDevice(ca, { commonName: 'device', ...past }).chainPem)
  t.false(ensureFirstRun(dir).created)
  for (const name of ['server', 'device']) {
    const cert = new X509Certificate(read(dir, `pki/${name}.pem`))
    t.true(Date.parse(cert.validTo) > Date.now() + 1e9)
    t.true(cert.verify(ca.cert.publicKey))
  }
})

test('an expired CA is renewed with all that it signed', (t) => {
  const dir = folder(t)
  ensureFirstRun(dir)
  const device = read(dir, 'pki/device.pem')
  const old = createCa({
    commonName: 'old',
    notBefore: new Date(Date.now() - 2e8),
    notAfter: new Date(Date.now() - 1e8),
  })
  writeFileSync(join(dir, 'pki/ca.pem'), old.certPem)
  writeFileSync(join(dir, 'pki/ca.key'), old.keyPem)
  ensureFirstRun(dir)
  const ca = new X509Certificate(read(dir, 'pki/ca.pem'))
  t.true(Date.parse(ca.validTo) > Date.now())
  t.not(read(dir, 'pki/device.pem'), device)
  t.true(new X509Certificate(read(dir, 'pki/device.pem')).verify(ca.publicKey))
})

test('a folder of that name with a configuration of somebody’s own is used as it is', (t) => {
  const dir = folder(t)
  mkdirSync(dir)
  writeFileSync(join(dir, 'brokergate.yaml'), '# mine\n')
  t.deepEqual(ensureFirstRun(dir), { configFile: join(dir, 'brokergate.yaml'), created: false })
  t.is(read(dir, 'brokergate.yaml'), '# mine\n')
})

test('a folder of that name with something else in it is refused', (t) => {
  const dir = folder(t)
  mkdirSync(dir)
  writeFileSync(join(dir, 'notes.txt'), '')
  t.throws(() => ensureFirstRun(dir), { message: /not made by brokergate; give a configuration with -c/ })
})

test('the lines to paste name ports, ALPN and files, quoted where a shell needs it', (t) => {
  const lines = pasteLines('/tmp/my things/.brokergate')
  t.regex(lines, /^mosquitto_sub -h localhost -p 8883 --cafile '\/tmp\/my things\/\.brokergate\/pki\/ca\.pem' /m)
  t.regex(lines, /^mosquitto_pub -h localhost -p 10443 --tls-alpn x-amzn-mqtt-ca /m)
  t.regex(lines, /^npx mqtt pub -h localhost -p 8883 -C mqtts /m)
  t.regex(pasteLines(join(process.cwd(), '.brokergate')), / --key \.brokergate\/pki\/device\.key /)
})
