import { createHash } from 'node:crypto'
import test from 'ava'
import { type CertificateEntry, type CertificateStatus, createRegistry } from '../../src/registry/registry.ts'
import { createCa, type Issued, issueDevice, malleate } from '../support/pki.ts'

const ca = createCa({ commonName: 'Fleet CA' })
const device = issueDevice(ca, { commonName: 'device-1' })
const twin = malleate(device.certPem).cert

function entryOf(cert: Pick<Issued, 'cert'>['cert'], status: CertificateStatus, known = true): CertificateEntry {
  const fingerprint = createHash('sha256').update(cert.raw).digest('hex')
  return { fingerprint, status, der: known ? cert.raw : null, policies: [], things: [], exclusive: false }
}

test('the twin is valid and has another fingerprint', (t) => {
  t.true(twin.verify(ca.cert.publicKey))
  t.not(twin.fingerprint256, device.cert.fingerprint256)
  t.is(twin.serialNumber, device.cert.serialNumber)
})

test('a registered certificate is found, a stranger is not', (t) => {
  const registry = createRegistry([entryOf(device.cert, 'ACTIVE')])
  t.is(registry.size, 1)
  t.like(registry.find(device.cert), { kind: 'registered', entry: { status: 'ACTIVE' } })
  t.deepEqual(registry.find(issueDevice(ca, { commonName: 'device-1' }).cert), { kind: 'unknown' })
})

for (const status of ['ACTIVE', 'INACTIVE', 'REVOKED', 'PENDING_ACTIVATION'] as const) {
  test(`the malleated twin of an entry that is ${status} is a twin, never registered`, (t) => {
    t.like(createRegistry([entryOf(device.cert, status)]).find(twin), { kind: 'twin', entry: { status } })
  })
}

test('a certificate of the same issuer and serial number is a twin', (t) => {
  const again = issueDevice(ca, { commonName: 'device-2', serialNumber: device.cert.serialNumber })
  const registry = createRegistry([entryOf(device.cert, 'REVOKED')])
  t.like(registry.find(again.cert), { kind: 'twin', entry: { status: 'REVOKED' } })
})

test('the same serial number of another issuer is a stranger', (t) => {
  const other = createCa({ commonName: 'Another CA' })
  const same = issueDevice(other, { commonName: 'device-1', serialNumber: device.cert.serialNumber })
  t.is(createRegistry([entryOf(device.cert, 'REVOKED')]).find(same.cert).kind, 'unknown')
})

test('of a certificate and its twin, both registered, the stricter status counts for both', (t) => {
  for (const entries of [
    [entryOf(device.cert, 'ACTIVE'), entryOf(twin, 'REVOKED')],
    [entryOf(twin, 'REVOKED'), entryOf(device.cert, 'ACTIVE')],
  ]) {
    const registry = createRegistry(entries)
    t.like(registry.find(device.cert), { kind: 'registered', entry: { status: 'REVOKED' } })
    t.like(registry.find(twin), { kind: 'registered', entry: { status: 'REVOKED' } })
  }
})

test('self-signed devices that share issuer and serial number keep their own status', (t) => {
  const [one, two] = [1, 2].map(() => createCa({ commonName: 'device', serialNumber: '01' }).cert)
  const registry = createRegistry([entryOf(one!, 'ACTIVE'), entryOf(two!, 'REVOKED')])
  t.like(registry.find(one!), { kind: 'registered', entry: { status: 'ACTIVE' } })
  t.like(registry.find(two!), { kind: 'registered', entry: { status: 'REVOKED' } })
})

test('by fingerprint alone the certificate is found and its twin is not', (t) => {
  const registry = createRegistry([entryOf(device.cert, 'REVOKED', false)])
  t.is(registry.find(device.cert).kind, 'registered')
  t.is(registry.find(twin).kind, 'unknown')
})

test('one fingerprint has one entry', (t) => {
  t.throws(() => createRegistry([entryOf(device.cert, 'ACTIVE'), entryOf(device.cert, 'REVOKED')]), {
    instanceOf: RangeError,
    message: /registered twice/,
  })
})
