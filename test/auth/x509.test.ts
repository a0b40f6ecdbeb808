import { createHash, type X509Certificate } from 'node:crypto'
import test from 'ava'
import { type X509Options, x509 } from '../../src/auth/x509.ts'
import { parseCrl, RevocationLists } from '../../src/registry/crl.ts'
import { type CertificateStatus, createRegistry, type Registry } from '../../src/registry/registry.ts'
import type { TrustMode } from '../../src/tls/domain-options.ts'
import {
  type CrlOptions,
  createCa,
  createCrl,
  type DeviceOptions,
  type Issuer,
  issueDevice,
  malleate,
} from '../support/pki.ts'
import { behavesLikeAnAuthenticator, connectionOf } from './conformance.ts'

const NOW = new Date()
const DAY = 86_400_000
const later = (days: number) => new Date(NOW.getTime() + days * DAY)

const root = createCa({ commonName: 'Root' })
const intermediate = createCa({ commonName: 'Intermediate', issuer: root })
const device = issueDevice(root, { commonName: 'device-1' })
/** Signed by the intermediate, which it presents. */
const remote = issueDevice(intermediate, { commonName: 'device-2' })
const sha256 = (cert: X509Certificate) => createHash('sha256').update(cert.raw).digest('hex')

const registryOf = (...entries: readonly (readonly [X509Certificate, CertificateStatus])[]) =>
  createRegistry(
    entries.map(([cert, status]) => ({
      fingerprint: sha256(cert),
      status,
      der: cert.raw,
      policies: [],
      things: [],
      exclusive: false,
    })),
  )

function crls(...lists: readonly (readonly [Issuer, CrlOptions])[]): RevocationLists {
  return new RevocationLists(
    lists.map(([issuer, options]) => {
      const parse = parseCrl(createCrl(issuer, options).der)
      if (parse.kind === 'invalid') throw new Error(parse.reason)
      return parse.list
    }),
    [root.cert],
  )
}

const DEFAULTS: X509Options = {
  mode: 'ca',
  registry: () => null,
  policies: [],
  hasCa: true,
  caCertificates: [root.cert],
  revocation: () => null,
  onExpired: 'deny',
  onMissing: 'deny',
  now: () => NOW,
}

interface Judged extends Partial<Omit<X509Options, 'registry' | 'revocation'>> {
  readonly registry?: Registry
  readonly revocation?: RevocationLists
}

/** `authenticated`, or the code of the denial. */
async function judge(
  leaf: X509Certificate,
  { registry, revocation, ...options }: Judged = {},
  peer: { chain?: readonly X509Certificate[]; verifyError?: string | null; resumed?: boolean } = {},
): Promise<string> {
  const presented = {
    leaf,
    chain: peer.chain ?? [leaf],
    verifyError: peer.verifyError ?? null,
    resumed: peer.resumed ?? false,
  }
  const authenticator = x509({
    ...DEFAULTS,
    ...options,
    registry: () => registry ?? null,
    revocation: () => revocation ?? null,
  })
  const outcome = await authenticator.authenticate(
    { kind: 'x509', peer: presented },
    connectionOf(),
    AbortSignal.abort(),
  )
  return outcome.kind === 'denied' ? outcome.code : outcome.kind
}

behavesLikeAnAuthenticator(test, 'x509', () => ({
  authenticator: x509(DEFAULTS),
  accepted: { kind: 'x509', peer: { leaf: device.cert, chain: [device.cert], verifyError: null } },
  refused: { kind: 'x509', peer: { leaf: device.cert, chain: [device.cert], verifyError: 'CERT_UNTRUSTED' } },
  faulty: x509({
    ...DEFAULTS,
    registry: () => ({
      ...createRegistry([]),
      find() {
        throw new TypeError('broken')
      },
    }),
  }),
}))

test('the principal is the fingerprint, the common name an attribute', async (t) => {
  const peer = { leaf: device.cert, chain: [device.cert], verifyError: null }
  const outcome = await x509(DEFAULTS).authenticate({ kind: 'x509', peer }, connectionOf(), AbortSignal.abort())
  if (outcome.kind !== 'authenticated') return t.fail(outcome.detail)
  t.deepEqual(outcome.principal, { id: sha256(device.cert), method: 'x509', attributes: { commonName: 'device-1' } })
})

const namesDevice = test.macro({
  async exec(t, commonName: string | null, expected: object) {
    const { cert } = issueDevice(root, { commonName, organization: 'Fleet' })
    const peer = { leaf: cert, chain: [cert], verifyError: null }
    const outcome = await x509(DEFAULTS).authenticate({ kind: 'x509', peer }, connectionOf(), AbortSignal.abort())
    t.deepEqual(
      outcome.kind === 'authenticated' ? outcome.principal.attributes : null,
      expected as Record<string, string>,
    )
  },
  title: (_, commonName: string | null) =>
    `the common name ${JSON.stringify(commonName)} is taken as it stands or not at all`,
})

test(namesDevice, null, {})
test(namesDevice, 'Sensor é', { commonName: 'Sensor é' })
test(namesDevice, 'a, CN=admin', { commonName: 'a, CN=admin' })
test(namesDevice, 'a\nCN=admin', {})

test('no certificate: ERR_CERTIFICATE_ABSENT', async (t) => {
  const outcome = await x509(DEFAULTS).authenticate({ kind: 'x509', peer: null }, connectionOf(), AbortSignal.abort())
  t.like(outcome, { kind: 'denied', code: 'ERR_CERTIFICATE_ABSENT' })
})

for (const mode of ['registry', 'ca', 'registry-or-ca', 'registry-and-ca'] as const satisfies TrustMode[]) {
  test(`${mode}: a certificate outside of its validity is refused`, async (t) => {
    const registry = registryOf([device.cert, 'ACTIVE'])
    const at = (date: Date) => judge(device.cert, { mode, registry, now: () => date })
    t.is(await at(later(-10)), 'ERR_CERTIFICATE_NOT_YET_VALID')
    t.is(await at(later(10_000)), 'ERR_CERTIFICATE_EXPIRED')
    t.is(await at(device.cert.validFromDate), 'authenticated')
    t.is(await at(device.cert.validToDate), 'authenticated')
  })

  for (const [status, code] of [
    ['INACTIVE', 'ERR_CERTIFICATE_INACTIVE'],
    ['PENDING_ACTIVATION', 'ERR_CERTIFICATE_INACTIVE'],
    ['REVOKED', 'ERR_CERTIFICATE_REVOKED'],
  ] as const) {
    test(`${mode}: an entry that is ${status} denies, whatever a CA says`, async (t) => {
      t.is(await judge(device.cert, { mode, registry: registryOf([device.cert, status]) }), code)
    })

    test(`${mode}: the malleated twin of a ${status === 'REVOKED' ? 'revoked' : status} certificate is refused`, async (t) => {
      const twin = malleate(device.certPem).cert
      t.true(twin.verify(root.cert.publicKey))
      t.is(await judge(twin, { mode, registry: registryOf([device.cert, status]) }), code)
    })
  }
}

const weak = test.macro({
  async exec(t, options: Partial<DeviceOptions>, limits: Judged, expected: string) {
    t.is(await judge(issueDevice(root, { commonName: 'weak', ...options }).cert, limits), expected)
  },
  title: (_, options: Partial<DeviceOptions>, limits: Judged, expected: string) =>
    `a key of ${JSON.stringify(options)} with ${JSON.stringify(limits)}: ${expected}`,
})

test(weak, { keyType: 'rsa', rsaBits: 1024 }, {}, 'ERR_CERTIFICATE_WEAK_KEY')
test(weak, { keyType: 'rsa', rsaBits: 1024 }, { minRsaBits: 1024 }, 'authenticated')
test(weak, { keyType: 'rsa' }, {}, 'authenticated')
test(weak, { keyType: 'rsa' }, { maxRsaBits: 1024 }, 'ERR_CERTIFICATE_WEAK_KEY')
test(weak, { curve: 'P-384' }, {}, 'authenticated')
test(weak, { curve: 'P-521' }, {}, 'authenticated')
test(weak, { curve: 'secp224r1' }, {}, 'ERR_CERTIFICATE_WEAK_KEY')

const trusts = test.macro({
  async exec(t, mode: TrustMode, registered: boolean, verifyError: string | null, expected: string) {
    const registry = registered ? registryOf([device.cert, 'ACTIVE']) : registryOf()
    t.is(await judge(device.cert, { mode, registry }, { verifyError }), expected)
  },
  title: (_, mode: TrustMode, registered: boolean, verifyError: string | null, expected: string) =>
    `${mode}, ${registered ? 'ACTIVE' : 'unknown'}, path ${verifyError ?? 'valid'}: ${expected}`,
})

const BAD_PATH = 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY'
test(trusts, 'registry', true, null, 'authenticated')
test(trusts, 'registry', true, BAD_PATH, 'authenticated')
test(trusts, 'registry', false, null, 'ERR_CERTIFICATE_NOT_REGISTERED')
test(trusts, 'registry', false, BAD_PATH, 'ERR_CERTIFICATE_NOT_REGISTERED')
test(trusts, 'ca', true, null, 'authenticated')
test(trusts, 'ca', true, BAD_PATH, 'ERR_CERTIFICATE_UNTRUSTED_CA')
test(trusts, 'ca', false, null, 'authenticated')
test(trusts, 'ca', false, BAD_PATH, 'ERR_CERTIFICATE_UNTRUSTED_CA')
test(trusts, 'registry-or-ca', true, null, 'authenticated')
test(trusts, 'registry-or-ca', true, BAD_PATH, 'authenticated')
test(trusts, 'registry-or-ca', false, null, 'authenticated')
test(trusts, 'registry-or-ca', false, BAD_PATH, 'ERR_CERTIFICATE_UNTRUSTED_CA')
test(trusts, 'registry-and-ca', true, null, 'authenticated')
test(trusts, 'registry-and-ca', true, BAD_PATH, 'ERR_CERTIFICATE_UNTRUSTED_CA')
test(trusts, 'registry-and-ca', false, null, 'ERR_CERTIFICATE_NOT_REGISTERED')
test(trusts, 'registry-and-ca', false, BAD_PATH, 'ERR_CERTIFICATE_NOT_REGISTERED')

test('without a registry nobody is registered', async (t) => {
  t.is(await judge(device.cert, { mode: 'registry' }), 'ERR_CERTIFICATE_NOT_REGISTERED')
})

test('the library’s verdict counts only where it was given CAs', async (t) => {
  t.is(await judge(device.cert, { hasCa: false }), 'ERR_CERTIFICATE_UNTRUSTED_CA')
})

test('the twin of an ACTIVE certificate is not registered by it', async (t) => {
  const twin = malleate(device.certPem).cert
  const registry = registryOf([device.cert, 'ACTIVE'])
  t.is(await judge(twin, { mode: 'registry', registry }), 'ERR_CERTIFICATE_NOT_REGISTERED')
  t.is(await judge(twin, { mode: 'registry-and-ca', registry }), 'ERR_CERTIFICATE_NOT_REGISTERED')
})

const purposes = test.macro({
  async exec(t, extendedKeyUsage: readonly string[] | null, expected: string) {
    t.is(await judge(issueDevice(root, { commonName: 'd', extendedKeyUsage }).cert), expected)
  },
  title: (_, extendedKeyUsage: readonly string[] | null, expected: string) =>
    `ca: the extended key usage ${extendedKeyUsage ?? 'absent'}: ${expected} [RFC 5280 §4.2.1.12]`,
})

test(purposes, null, 'authenticated')
test(purposes, ['clientAuth'], 'authenticated')
test(purposes, ['serverAuth', 'clientAuth'], 'authenticated')
test(purposes, ['serverAuth'], 'ERR_CERTIFICATE_UNTRUSTED_CA')
test(purposes, ['2.5.29.37.0'], 'ERR_CERTIFICATE_UNTRUSTED_CA')

test('a CRL that names the device denies it, one that does not admits it', async (t) => {
  const naming = crls([root, { revoked: [device.cert.serialNumber] }])
  t.is(await judge(device.cert, { revocation: naming }), 'ERR_CERTIFICATE_REVOKED')
  t.is(await judge(malleate(device.certPem).cert, { revocation: naming }), 'ERR_CERTIFICATE_REVOKED')
  t.is(await judge(device.cert, { revocation: crls([root, { revoked: ['01'] }]) }), 'authenticated')
})

test('an expired CRL denies with onExpired: deny and admits with keep', async (t) => {
  const revocation = crls([root, { revoked: ['01'], thisUpdate: later(-2), nextUpdate: later(-1) }])
  t.is(await judge(device.cert, { revocation, onExpired: 'deny' }), 'ERR_CRL_EXPIRED')
  t.is(await judge(device.cert, { revocation, onExpired: 'keep' }), 'authenticated')
})

test('an expired CRL that names the device denies as revoked, also with onExpired: keep', async (t) => {
  const revocation = crls([root, { revoked: [device.cert.serialNumber], thisUpdate: later(-2), nextUpdate: later(-1) }])
  for (const onExpired of ['keep', 'deny'] as const) {
    t.is(await judge(device.cert, { revocation, onExpired }), 'ERR_CERTIFICATE_REVOKED')
  }
})

test('a missing CRL denies with onMissing: deny and admits with allow', async (t) => {
  t.is(await judge(device.cert, { revocation: crls(), onMissing: 'deny' }), 'ERR_CRL_MISSING')
  t.is(await judge(device.cert, { revocation: crls(), onMissing: 'allow' }), 'authenticated')
})

test('a CRL that another key signed in the issuer’s name is a missing CRL', async (t) => {
  const revocation = crls([createCa({ commonName: 'Root' }), { revoked: [] }])
  t.is(await judge(device.cert, { revocation }), 'ERR_CRL_MISSING')
})

const chain = [remote.cert, intermediate.cert]

test('a missing intermediate’s CRL denies, and so does a missing root’s', async (t) => {
  const ofRoot = [root, { revoked: [] }] as const
  const ofIntermediate = [intermediate, { revoked: [] }] as const
  t.is(await judge(remote.cert, { revocation: crls(ofRoot) }, { chain }), 'ERR_CRL_MISSING')
  t.is(await judge(remote.cert, { revocation: crls(ofIntermediate) }, { chain }), 'ERR_CRL_MISSING')
  t.is(await judge(remote.cert, { revocation: crls(ofRoot, ofIntermediate) }, { chain }), 'authenticated')
  t.is(await judge(remote.cert, { revocation: crls(ofRoot), onMissing: 'allow' }, { chain }), 'authenticated')
})

test('a revoked intermediate denies what it has signed, and weighs more than a missing CRL', async (t) => {
  const revocation = crls([root, { revoked: [intermediate.cert.serialNumber] }])
  for (const onMissing of ['deny', 'allow'] as const) {
    t.is(await judge(remote.cert, { revocation, onMissing }, { chain }), 'ERR_CERTIFICATE_REVOKED')
  }
})

test('an intermediate among the CAs is checked against its root all the same', async (t) => {
  const revocation = crls([root, { revoked: [intermediate.cert.serialNumber] }] as const, [
    intermediate,
    { revoked: [] },
  ])
  const caCertificates = [root.cert, intermediate.cert]
  t.is(await judge(remote.cert, { revocation, caCertificates }), 'ERR_CERTIFICATE_REVOKED')
})

test('an intermediate among the CAs is the anchor when its root is nowhere', async (t) => {
  const revocation = crls([intermediate, { revoked: [] }])
  t.is(await judge(remote.cert, { revocation, caCertificates: [intermediate.cert] }), 'authenticated')
})

test('a second, good certificate of a revoked intermediate does not hide the revoked one', async (t) => {
  const again = createCa({ commonName: 'Intermediate', issuer: root })
  const revocation = crls([root, { revoked: [intermediate.cert.serialNumber] }], [intermediate, { revoked: [] }])
  for (const presented of [
    [remote.cert, again.cert, intermediate.cert],
    [remote.cert, intermediate.cert, again.cert],
  ]) {
    t.is(await judge(remote.cert, { revocation }, { chain: presented }), 'ERR_CERTIFICATE_REVOKED')
  }
})

test('where no path can be rebuilt, revocation cannot be told: untrusted', async (t) => {
  t.is(await judge(remote.cert, { revocation: crls([root, { revoked: [] }]) }), 'ERR_CERTIFICATE_UNTRUSTED_CA')
  const forged = createCa({ commonName: 'Intermediate', issuer: createCa({ commonName: 'Root' }) })
  const presented = [remote.cert, forged.cert]
  t.is(await judge(remote.cert, { revocation: crls() }, { chain: presented }), 'ERR_CERTIFICATE_UNTRUSTED_CA')
})

test('a namesake with the issuer’s key identifier and another key is no issuer', async (t) => {
  const subjectKeyIdentifier = createHash('sha1')
    .update(intermediate.cert.publicKey.export({ type: 'spki', format: 'der' }).subarray(26))
    .digest()
  const namesake = createCa({ commonName: 'Intermediate', issuer: root, subjectKeyIdentifier })
  t.true(remote.cert.checkIssued(namesake.cert))
  const revocation = crls([root, { revoked: [] }], [intermediate, { revoked: [] }])
  const presented = [remote.cert, namesake.cert, intermediate.cert]
  t.is(await judge(remote.cert, { revocation }, { chain: presented }), 'authenticated')
})

test('CAs that sign each other end the search', async (t) => {
  const one = createCa({ commonName: 'One' })
  const two = createCa({ commonName: 'Two', issuer: one })
  const oneAgain = createCa({ commonName: 'One', issuer: two, key: one.key })
  const { cert } = issueDevice(two, { commonName: 'device-4' })
  const presented = [cert, two.cert, oneAgain.cert]
  t.is(
    await judge(cert, { revocation: crls(), onMissing: 'allow' }, { chain: presented }),
    'ERR_CERTIFICATE_UNTRUSTED_CA',
  )
})

for (const mode of ['registry', 'registry-or-ca'] as const) {
  test(`${mode}: a CRL revokes an ACTIVE device too, but need not be there or fresh`, async (t) => {
    const registry = registryOf([device.cert, 'ACTIVE'], [remote.cert, 'ACTIVE'])
    const ask = (revocation: RevocationLists) =>
      judge(device.cert, { mode, registry, revocation }, { verifyError: BAD_PATH })
    t.is(await ask(crls([root, { revoked: [device.cert.serialNumber] }])), 'ERR_CERTIFICATE_REVOKED')
    t.is(await ask(crls()), 'authenticated')
    t.is(await ask(crls([root, { revoked: [], thisUpdate: later(-2), nextUpdate: later(-1) }])), 'authenticated')
    const revocation = crls([root, { revoked: [intermediate.cert.serialNumber] }])
    t.is(await judge(remote.cert, { mode, registry, revocation }, { chain }), 'ERR_CERTIFICATE_REVOKED')
  })
}

test('a self-signed certificate is admitted by the registry alone', async (t) => {
  const { cert } = createCa({ commonName: 'device-3' })
  const options = {
    mode: 'registry',
    registry: registryOf([cert, 'ACTIVE']),
    revocation: crls(),
    caCertificates: [],
  } as const
  t.is(await judge(cert, options, { verifyError: 'DEPTH_ZERO_SELF_SIGNED_CERT' }), 'authenticated')
})

test('a clock that fails is a fault, not an answer', async (t) => {
  const now = () => {
    throw new Error('no clock')
  }
  await t.throwsAsync(judge(device.cert, { now }), { name: 'ProxyError', code: 'ERR_IDENTITY_FAULT' })
})

test('a clock that tells nonsense admits nobody', async (t) => {
  t.is(await judge(device.cert, { now: () => new Date(Number.NaN) }), 'ERR_CERTIFICATE_NOT_YET_VALID')
})

// The library's verdict on a resumed session is as old as the session.

test('a resumed chain that still leads to a CA of the domain is as good as a new one', async (t) => {
  t.is(await judge(device.cert, {}, { resumed: true }), 'authenticated')
  const chain = [remote.cert, intermediate.cert]
  t.is(await judge(remote.cert, {}, { chain, resumed: true }), 'authenticated')
  // Bun goes on with the domain's CAs.
  t.is(await judge(remote.cert, {}, { chain: [...chain, root.cert, root.cert], resumed: true }), 'authenticated')
  t.is(await judge(remote.cert, { caCertificates: [intermediate.cert] }, { resumed: true }), 'authenticated')
})

test('a resumed chain that leads to no CA of today is refused, whatever was said of it before', async (t) => {
  const refused = 'ERR_CERTIFICATE_UNTRUSTED_CA'
  const stranger = createCa({ commonName: 'Root' })
  t.is(await judge(remote.cert, {}, { chain: [remote.cert], resumed: true }), refused)
  t.is(await judge(device.cert, { caCertificates: [stranger.cert] }, { resumed: true }), refused)
  t.is(await judge(device.cert, { caCertificates: [] }, { chain: [device.cert, root.cert], resumed: true }), refused)
  t.is(await judge(device.cert, {}, { verifyError: 'CERT_UNTRUSTED', resumed: true }), refused)
})

test('every certificate of a resumed chain must be within its dates today, the CA too', async (t) => {
  const ending = (days: number, issuer?: Issuer) =>
    createCa({ commonName: `CA for ${days} days`, notAfter: later(days), ...(issuer && { issuer }) })
  for (const [anchor, middle] of [
    [root, ending(1, root)],
    [ending(1), null],
  ] as const) {
    const caCertificates = [anchor.cert]
    const { cert } = issueDevice(middle ?? anchor, { commonName: 'device-3', notAfter: later(9) })
    const peer = { chain: middle === null ? [cert] : [cert, middle.cert], resumed: true }
    t.is(await judge(cert, { caCertificates }, peer), 'authenticated')
    t.is(await judge(cert, { caCertificates, now: () => later(2) }, peer), 'ERR_CERTIFICATE_UNTRUSTED_CA')
  }
})

test('of several lines one within its dates is enough', async (t) => {
  const { key } = intermediate
  const over = createCa({ commonName: 'Intermediate', issuer: root, key, notAfter: later(-1), notBefore: later(-9) })
  const chain = [remote.cert, over.cert, intermediate.cert]
  t.is(await judge(remote.cert, {}, { chain, resumed: true }), 'authenticated')
  t.is(await judge(remote.cert, {}, { chain: chain.slice(0, 2), resumed: true }), 'ERR_CERTIFICATE_UNTRUSTED_CA')
})
