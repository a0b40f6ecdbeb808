import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { OPENSSL } from '../support/openssl.ts'
import { createCa, createCrl, issueDevice, issueServer, loadCa } from '../support/pki.ts'

// The judge is the openssl command: what it takes with -x509_strict, every device's library takes.

/** The peer that checks what we made; on a machine without it these are skipped, and `.ci/run` installs it. */
const withOpenssl = OPENSSL === null ? test.skip : test

/** Runs openssl with `@name` standing for the file of that name. */
function openssl(t: ExecutionContext, command: string, files: Readonly<Record<string, string>>): string {
  const folder = mkdtempSync(join(tmpdir(), 'brokergate-pki-'))
  t.teardown(() => rmSync(folder, { recursive: true }))
  for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text)
  const args = command.split(' ').map((word) => (word.startsWith('@') ? join(folder, word.slice(1)) : word))
  return execFileSync('openssl', args, { encoding: 'utf8', stdio: 'pipe' })
}

for (const keyType of ['ec', 'rsa'] as const) {
  const root = createCa({ commonName: 'Root é', keyType, pathLength: 1 })
  const mid = createCa({ commonName: 'Mid', keyType, issuer: root, pathLength: 0 })
  const server = issueServer(mid, { serverNames: ['localhost', 'iot.example.com'], ips: ['127.0.0.1', '::1'], keyType })
  const device = issueDevice(mid, { commonName: 'device-1', organization: 'Fleet', keyType })

  withOpenssl(`${keyType}: openssl verifies server and device through the intermediate`, (t) => {
    const files = { root: root.certPem, mid: mid.certPem, server: server.certPem, device: device.certPem }
    const verify = 'verify -x509_strict -CAfile @root -untrusted @mid'
    t.regex(openssl(t, `${verify} -purpose sslserver -verify_hostname iot.example.com @server`, files), /OK/)
    t.regex(openssl(t, `${verify} -purpose sslserver -verify_ip ::1 @server`, files), /OK/)
    t.regex(openssl(t, `${verify} -purpose sslclient @device`, files), /OK/)
    t.throws(() => openssl(t, `${verify} -purpose sslserver @device`, files))
    t.throws(() => openssl(t, `${verify} -purpose sslclient @server`, files))
  })

  withOpenssl(`${keyType}: openssl reads and verifies the CRL, and refuses what it names`, (t) => {
    const other = issueDevice(mid, { commonName: 'device-2' })
    const crl = createCrl(mid, { revoked: [device.cert.serialNumber, { serial: '01', reason: 1 }], number: 300 }).pem
    const empty = createCrl(root, { revoked: [] }).pem
    const files = { root: root.certPem, mid: mid.certPem, one: device.certPem, two: other.certPem, crl: crl + empty }
    const text = openssl(t, 'crl -in @crl -CAfile @mid -noout -text', files)
    t.regex(text, new RegExp(`Serial Number: ${device.cert.serialNumber}`))
    t.regex(text, /Key Compromise/)
    t.regex(text, /CRL Number:\s+300/)
    const verify = 'verify -crl_check_all -CRLfile @crl -CAfile @root -untrusted @mid'
    t.regex(openssl(t, `${verify} @two`, files), /OK/)
    t.throws(() => openssl(t, `${verify} @one`, files))
  })

  withOpenssl(`${keyType}: the extensions are those of a CA, a server and a device`, (t) => {
    const show = (certPem: string) => openssl(t, 'x509 -in @cert -noout -text', { cert: certPem }).replace(/\s+/g, ' ')
    const ca = show(mid.certPem)
    t.regex(ca, /Basic Constraints: critical CA:TRUE, pathlen:0/)
    t.regex(ca, /Key Usage: critical Digital Signature, Certificate Sign, CRL Sign/)
    const leaf = show(server.certPem)
    t.regex(leaf, /Basic Constraints: critical CA:FALSE/)
    t.regex(leaf, /DNS:localhost, DNS:iot\.example\.com, IP Address:127\.0\.0\.1, IP Address:0:0:0:0:0:0:0:1/)
    t.regex(leaf, /Extended Key Usage: TLS Web Server Authentication/)
    t.regex(show(device.certPem), /Extended Key Usage: TLS Web Client Authentication/)
    t.regex(show(device.certPem), /Subject: O = Fleet, CN = device-1/)
    const identifier = /Subject Key Identifier: ([0-9A-F:]+)/.exec(ca)?.[1] ?? 'none'
    t.true(leaf.includes(`Authority Key Identifier: ${identifier}`) || leaf.includes(`keyid:${identifier}`))
  })

  test(`${keyType}: the chain has the leaf and the intermediate, not the root`, (t) => {
    t.is(server.chainPem, server.certPem + mid.certPem)
    t.is(root.chainPem, root.certPem)
    t.is(issueDevice(root, { commonName: 'd' }).chainPem.split('BEGIN').length, 2)
  })
}

withOpenssl('years before 2050 are UTCTime, later ones GeneralizedTime [RFC 5280 §4.1.2.5]', (t) => {
  const notBefore = new Date('2049-12-31T23:59:59Z')
  const notAfter = new Date('2050-01-01T00:00:00Z')
  const { cert, certPem } = createCa({ commonName: 'Long', notBefore, notAfter })
  t.deepEqual([cert.validFromDate, cert.validToDate], [notBefore, notAfter])
  t.regex(
    openssl(t, 'asn1parse -in @cert', { cert: certPem }),
    /UTCTIME\s*:491231235959Z[\s\S]*GENERALIZEDTIME\s*:20500101000000Z/,
  )
})

test('serial numbers are positive, not repeated and at most 20 octets [RFC 5280 §4.1.2.2]', (t) => {
  const ca = createCa({ commonName: 'Root' })
  const serials = Array.from({ length: 20 }, () => issueDevice(ca, { commonName: 'd' }).cert.serialNumber)
  t.is(new Set(serials).size, 20)
  for (const serial of serials) t.regex(serial, /^[4-7][0-9A-F]{31}$/)
  t.is(issueDevice(ca, { commonName: 'd', serialNumber: 'ff' }).cert.serialNumber, 'FF')
})

test('a CA read back from its files signs what the first one would', (t) => {
  const ca = createCa({ commonName: 'Root' })
  const device = issueDevice(loadCa(ca.certPem, ca.keyPem), { commonName: 'd' })
  t.true(device.cert.checkIssued(ca.cert))
  t.true(device.cert.verify(ca.cert.publicKey))
  t.throws(() => loadCa(ca.certPem, createCa({ commonName: 'Root' }).keyPem), { message: /do not belong together/ })
})

test('an address that is none is refused', (t) => {
  const ca = createCa({ commonName: 'Root' })
  t.throws(() => issueServer(ca, { serverNames: ['localhost'], ips: ['localhost'] }), { message: /not an IP address/ })
})
