import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { parseCrl, type RevocationList, RevocationLists, readCrlFile } from '../../src/registry/crl.ts'
import { OPENSSL } from '../support/openssl.ts'
import { type CrlOptions, createCa, createCrl, issueDevice, loadCa, type RawExtension } from '../support/pki.ts'

const NOW = new Date('2026-06-01T00:00:00Z')
const DAY = 86_400_000
const ca = createCa({ commonName: 'Fleet CA' })
const rsa = createCa({ commonName: 'Fleet CA (RSA)', keyType: 'rsa' })
const serial = (hex: string) => Buffer.from(hex, 'hex')

function listOf(options: CrlOptions, issuer = ca): RevocationList {
  const parse = parseCrl(createCrl(issuer, options).der)
  if (parse.kind === 'invalid') throw new Error(parse.reason)
  return parse.list
}

test('a list tells its issuer, its times and its serial numbers', (t) => {
  const list = listOf({
    revoked: ['00ff', '01', 'a1b2'],
    thisUpdate: NOW,
    nextUpdate: new Date('2051-01-01T00:00:00Z'),
  })
  t.true(ca.subjectDer.equals(list.issuer))
  t.is(list.thisUpdate, NOW.getTime())
  t.is(list.nextUpdate, Date.parse('2051-01-01T00:00:00Z'))
  t.is(list.size, 3)
  for (const hex of ['ff', '00ff', '01', 'a1b2', '00a1b2']) t.true(list.has(serial(hex)), hex)
  for (const hex of ['00', '02', 'a1', 'b2', 'a1b200', `01${'00'.repeat(20)}`]) t.false(list.has(serial(hex)), hex)
})

test('an empty list revokes nothing', (t) => {
  t.is(listOf({ revoked: [] }).size, 0)
  t.false(listOf({ revoked: [] }).has(serial('01')))
})

test('a list of version 1 is read', (t) => {
  const list = listOf({ revoked: ['0a'], version: 1, nextUpdate: null })
  t.true(list.has(serial('0a')))
  t.is(list.nextUpdate, null)
})

test('an entry of version 1 may have no extensions', (t) => {
  const parse = parseCrl(createCrl(ca, { revoked: [{ serial: '01', reason: 1 }], version: 1 }).der)
  t.like(parse, { kind: 'invalid', reason: 'entry extensions in a CRL of version 1' })
})

test('removeFromCRL revokes nothing, other reasons do [RFC 5280 §5.3.1]', (t) => {
  const list = listOf({
    // The dropped ones are longer: nothing of them may be left in the place that the next one takes.
    revoked: [{ serial: '0505050505', reason: 8 }, { serial: '06', reason: 6 }, { serial: '0707', reason: 8 }, '08'],
  })
  t.is(list.size, 2)
  t.deepEqual(
    ['0505050505', '06', '0707', '08'].map((hex) => list.has(serial(hex))),
    [false, true, false, true],
  )
})

test('a serial number of 20 octets is found, a longer one refuses the file', (t) => {
  t.true(listOf({ revoked: ['ff'.repeat(20)] }).has(serial(`00${'ff'.repeat(20)}`)))
  const parse = parseCrl(createCrl(ca, { revoked: [`01${'00'.repeat(20)}`] }).der)
  t.like(parse, { kind: 'invalid', reason: 'a serial number longer than 20 octets' })
})

const refusesExtension = test.macro({
  exec(t, extension: RawExtension, reason: RegExp) {
    const parse = parseCrl(createCrl(ca, { revoked: ['01'], extensions: [extension] }).der)
    t.is(parse.kind, 'invalid')
    t.regex(parse.kind === 'invalid' ? parse.reason : '', reason)
  },
  title: (_, extension: RawExtension) =>
    `the ${extension.critical ? 'critical' : 'plain'} extension ${extension.oid} refuses the file [RFC 5280 §5.2]`,
})

test(refusesExtension, { oid: '2.5.29.27', critical: true, value: serial('020101') }, /delta CRL/)
test(refusesExtension, { oid: '2.5.29.27', critical: false, value: serial('020101') }, /delta CRL/)
test(refusesExtension, { oid: '2.5.29.28', critical: true, value: serial('30038101ff') }, /issuingDistributionPoint/)
test(refusesExtension, { oid: '1.2.3.4', critical: true, value: serial('0500') }, /unknown critical extension/)

test('an unknown extension that is not critical changes nothing', (t) => {
  const list = listOf({ revoked: ['01'], extensions: [{ oid: '1.2.3.4', critical: false, value: serial('0500') }] })
  t.true(list.has(serial('01')))
})

for (const hash of ['sha256', 'sha384', 'sha512'] as const) {
  test(`a signature with ${hash} is verified for ECDSA, RSA and RSASSA-PSS`, (t) => {
    t.true(listOf({ revoked: [], hash }).isSignedBy(ca.cert))
    t.true(listOf({ revoked: [], hash }, rsa).isSignedBy(rsa.cert))
    t.true(listOf({ revoked: [], hash, pss: true }, rsa).isSignedBy(rsa.cert))
  })
}

test('a signature with SHA-1 is refused', (t) => {
  const oids = ['2a8648ce3d0401', '2a864886f70d010105']
  for (const [n, issuer] of [ca, rsa].entries()) {
    const parse = parseCrl(createCrl(issuer, { revoked: [], hash: 'sha1' }).der)
    t.like(parse, {
      kind: 'invalid',
      reason: `a signature algorithm that is not accepted (${oids[n]}); use SHA-256 or stronger`,
    })
  }
})

test('a list counts only for the name and the key that signed it', (t) => {
  const namesake = createCa({ commonName: 'Fleet CA' })
  const other = createCa({ commonName: 'Another CA' })
  const list = listOf({ revoked: ['01'] })
  t.false(list.isSignedBy(namesake.cert))
  t.false(list.isSignedBy(other.cert))
  t.true(list.isSignedBy(ca.cert))
  t.false(list.isSignedBy(namesake.cert))
})

test('one changed octet in the signed part takes the signature away', (t) => {
  const { der } = createCrl(ca, { revoked: ['a1b2c3d4'] })
  der[der.indexOf(serial('a1b2c3d4')) + 3]! ^= 1
  const parse = parseCrl(der)
  t.false(parse.kind === 'list' && parse.list.isSignedBy(ca.cert))
})

test('the algorithm beside the signature must be the signed one [RFC 5280 §5.1.1.2]', (t) => {
  const { der } = createCrl(ca, { revoked: [] })
  const oid = serial('2a8648ce3d040302')
  der[der.lastIndexOf(oid) + oid.length - 1] = 3
  t.like(parseCrl(der), { kind: 'invalid', reason: 'the two signature algorithms differ' })
})

test('a certificate whose key usage lacks cRLSign signs no list [RFC 5280 §6.3.3 (f)]', (t) => {
  const device = issueDevice(ca, { commonName: 'device-1' })
  const forged = listOf({ revoked: ['01'] }, loadCa(device.certPem, device.keyPem))
  t.false(forged.isSignedBy(device.cert))
})

test('status: good, revoked, missing and expired', (t) => {
  const other = createCa({ commonName: 'Another CA' })
  const nextUpdate = new Date(NOW.getTime() + DAY)
  const lists = new RevocationLists([listOf({ revoked: ['01'], thisUpdate: NOW, nextUpdate })], [ca.cert])
  const late = new Date(nextUpdate.getTime() + 1)
  t.is(lists.statusOf(ca.cert, serial('02'), NOW), 'good')
  t.is(lists.statusOf(ca.cert, serial('02'), nextUpdate), 'good')
  t.is(lists.statusOf(ca.cert, serial('01'), NOW), 'revoked')
  t.is(lists.statusOf(other.cert, serial('01'), NOW), 'missing')
  t.is(lists.statusOf(ca.cert, serial('02'), late), 'expired')
})

test('an expired CRL still revokes what it names', (t) => {
  const lists = new RevocationLists([
    listOf({ revoked: ['01'], thisUpdate: NOW, nextUpdate: new Date(NOW.getTime() + DAY) }),
  ])
  t.is(lists.statusOf(ca.cert, serial('01'), new Date(NOW.getTime() + 365 * DAY)), 'revoked')
})

test('a list that another key of the same name signed is as good as none', (t) => {
  const forged = listOf({ revoked: [] }, createCa({ commonName: 'Fleet CA' }))
  t.is(new RevocationLists([forged]).statusOf(ca.cert, serial('01')), 'missing')
})

test('of two lists of one CA the newer counts, in whatever order they come', (t) => {
  const held = listOf({ revoked: ['01'], thisUpdate: NOW, nextUpdate: null })
  const released = listOf({ revoked: ['02'], thisUpdate: new Date(NOW.getTime() + DAY), nextUpdate: null })
  for (const lists of [new RevocationLists([held, released]), new RevocationLists([released, held])]) {
    t.is(lists.statusOf(ca.cert, serial('01')), 'good')
    t.is(lists.statusOf(ca.cert, serial('02')), 'revoked')
  }
})

test('a file is DER, or PEM with any number of lists', (t) => {
  const first = createCrl(ca, { revoked: ['01'] })
  const second = createCrl(rsa, { revoked: ['02', '03'] })
  const sizes = (bytes: Buffer) => {
    const file = readCrlFile(bytes)
    return file.kind === 'lists' ? file.lists.map((list) => list.size) : file.reason
  }
  t.deepEqual(sizes(first.der), [1])
  t.deepEqual(sizes(Buffer.from(first.pem)), [1])
  t.deepEqual(sizes(Buffer.from(`Fleet\n${first.pem.replaceAll('\n', '\r\n')}\n${second.pem}`)), [1, 2])
})

const refusesFile = test.macro({
  exec(t, text: string, reason: RegExp) {
    const file = readCrlFile(Buffer.from(text))
    t.regex(file.kind === 'invalid' ? file.reason : 'read', reason)
  },
  title: (_, text: string) => `the file ${JSON.stringify(text.slice(0, 40))} is refused`,
})

test(refusesFile, '', /neither DER nor PEM/)
test(refusesFile, ca.certPem, /neither DER nor PEM/)
test(refusesFile, '-----BEGIN X509 CRL-----\nMAA=\n', /no end/)
test(refusesFile, '-----BEGIN X509 CRL-----\nM*A=\n-----END X509 CRL-----', /not base64/)
test(refusesFile, '-----BEGIN X509 CRL-----\nMAA=\n-----END X509 CRL-----', /no tbsCertList/)

test('a list cut anywhere, or followed by anything, is refused', (t) => {
  const { der } = createCrl(ca, { revoked: ['01', 'ff02'] })
  for (let length = 0; length < der.length; length++) {
    if (parseCrl(der.subarray(0, length)).kind === 'list') t.fail(`cut at ${length}`)
  }
  t.like(parseCrl(Buffer.concat([der, Buffer.alloc(2)])), { kind: 'invalid', reason: 'more after the list' })
})

// The peer that made the lists; on a machine without it this is skipped, and `.ci/run` installs it.
const withOpenssl = OPENSSL === null ? test.skip : test

withOpenssl('lists made by the openssl command are read', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'brokergate-crl-'))
  t.teardown(() => rmSync(folder, { recursive: true }))
  const file = (name: string, text = '') => {
    writeFileSync(join(folder, name), text)
    return join(folder, name)
  }
  const database = file(
    'index.txt',
    'R\t300101000000Z\t260101000000Z,keyCompromise\tA1B2C3D4E5F6\tunknown\t/CN=device-1\n',
  )
  const settings = `[ca]\ndefault_ca=d\n[d]\ndatabase=${database}\ncrlnumber=${file('number', '0A\n')}\ncrl_extensions=x\n[x]\nauthorityKeyIdentifier=keyid\n`
  for (const [issuer, more] of [
    [ca, []],
    [rsa, []],
    [rsa, ['-sigopt', 'rsa_padding_mode:pss', '-sigopt', 'rsa_pss_saltlen:digest']],
  ] as const) {
    const crl = join(folder, 'out.crl')
    const cert = file('ca.pem', issuer.certPem)
    const key = file('ca.key', issuer.keyPem)
    const args = ['ca', '-gencrl', '-config', file('ca.cnf', settings), '-cert', cert, '-keyfile', key, '-md', 'sha256']
    execFileSync('openssl', [...args, '-crldays', '30', '-out', crl, ...more], { stdio: 'pipe' })
    const read = readCrlFile(readFileSync(crl))
    if (read.kind === 'invalid') return t.fail(read.reason)
    t.true(read.lists[0]?.isSignedBy(issuer.cert))
    t.true(read.lists[0]?.has(serial('a1b2c3d4e5f6')))
  }
})

test('a list of a million entries costs no object per entry, and every one is found', (t) => {
  const count = 1_000_000
  // Odd multiples of a prime, spread over 16 octets and out of order; the even ones are not named.
  const nth = (n: number) => (BigInt(n) * 0x9e3779b97f4a7c15f39cc0605cedc835n) & ((1n << 127n) - 1n)
  const hex = (n: number) => nth(n).toString(16).padStart(32, '0')
  const { der } = createCrl(ca, {
    revoked: (function* () {
      for (let n = 0; n < count; n++) yield hex(2 * n + 1)
    })(),
  })
  // In a process of its own: here the collector's mood would be measured. Not `maxRSS`, which a process inherits.
  const folder = mkdtempSync(join(tmpdir(), 'brokergate-crl-'))
  t.teardown(() => rmSync(folder, { recursive: true }))
  writeFileSync(join(folder, 'large.crl'), der)
  const script = `
    const { readFileSync } = await import('node:fs')
    const { readCrlFile } = await import(${JSON.stringify(new URL('../../src/registry/crl.ts', import.meta.url).href)})
    const bytes = readFileSync(${JSON.stringify(join(folder, 'large.crl'))})
    const before = process.memoryUsage().rss
    const { lists } = readCrlFile(bytes)
    console.log(JSON.stringify([lists[0].size, process.memoryUsage().rss - before]))`
  const [size, grown] = JSON.parse(execFileSync(process.execPath, ['-e', script], { encoding: 'utf8' }))
  t.log(`file ${Math.round(der.length / 2 ** 20)} MiB, RSS grown by ${Math.round(grown / 2 ** 20)} MiB`)
  t.is(size, count)
  // 20 octets an entry twice (unsorted, sorted) and two indexes of 4: 46 MiB; an object an entry would be over 100.
  t.true(grown < 80 * 2 ** 20, `${grown} bytes`)

  const parse = parseCrl(der)
  if (parse.kind === 'invalid') return t.fail(parse.reason)
  const { list } = parse
  t.is(list.size, count)
  t.true(list.isSignedBy(ca.cert))
  for (let n = 0; n < count; n += 997) {
    if (!list.has(serial(hex(2 * n + 1)))) t.fail(`${n} is missing`)
    if (list.has(serial(hex(2 * n)))) t.fail(`${n} is too much`)
  }
})
