import type { X509Certificate } from 'node:crypto'
import test from 'ava'
import type { AuthOutcome } from '../../src/auth/authenticator.ts'
import { type X509Options, x509 } from '../../src/auth/x509.ts'
import { parsePolicyDocument } from '../../src/policy/document.ts'
import { NO_VARIABLES } from '../../src/policy/permit.ts'
import type { AutoRegister, RegisteredCa } from '../../src/registry/cas.ts'
import { sha256 } from '../../src/registry/certificate-index.ts'
import { EMPTY_CONTENTS, registryOf } from '../../src/registry/contents.ts'
import { parseCrl, RevocationLists } from '../../src/registry/crl.ts'
import { Overlay, type RegisteredRecord } from '../../src/registry/overlay.ts'
import { type CertificateEntry, indexOf, type Registry } from '../../src/registry/registry.ts'
import {
  type ProvisionResult,
  type RegisterAnswer,
  type RegisteredEvent,
  selfRegistration,
} from '../../src/registry/self-registration.ts'
import { parseTemplate } from '../../src/registry/template.ts'
import type { TrustMode } from '../../src/tls/domain-options.ts'
import { ARN } from '../support/identity.ts'
import { createCa, createCrl, type Issued, type Issuer, issueDevice, malleate } from '../support/pki.ts'
import { connectionOf } from './conformance.ts'

// What the registry makes of a certificate: permissions, things, and first contact.

const ca = createCa({ commonName: 'Fleet CA' })
const device = issueDevice(ca, { commonName: 'sensor-1' })
const NOW = new Date()

const document = (effect: 'Allow' | 'Deny', resource = '*') => {
  const parsed = parsePolicyDocument({
    Version: '2012-10-17',
    Statement: [{ Effect: effect, Action: 'iot:Publish', Resource: resource }],
  })
  if (parsed.kind === 'invalid') throw new Error(JSON.stringify(parsed.issues))
  return parsed.document
}

const CONTENTS = {
  ...EMPTY_CONTENTS,
  policies: new Map([
    ['all', document('Allow')],
    ['none', document('Deny')],
    ['own', document('Allow', 'arn:aws:iot:us-east-1:000000000000:topic/${iot:Certificate.Subject.CommonName}')],
  ]),
  things: new Map(
    ['sensor-1', 'sensor-2'].map((name) => [name, { name, typeName: null, attributes: { site: 'berlin' } }] as const),
  ),
}

const entryOf = (cert: X509Certificate, changes: Partial<CertificateEntry> = {}): CertificateEntry => ({
  fingerprint: sha256(cert.raw),
  status: 'ACTIVE',
  der: cert.raw,
  policies: ['all'],
  things: [],
  exclusive: false,
  ...changes,
})

const registryWith = (
  entries: readonly CertificateEntry[],
  cas: readonly RegisteredCa[] = [],
  overlay?: Overlay,
): Registry => registryOf({ ...CONTENTS, certificates: indexOf(entries), cas }, overlay ?? null)

const OPTIONS: X509Options = {
  mode: 'registry',
  registry: () => null,
  policies: [],
  hasCa: true,
  caCertificates: [ca.cert],
  revocation: () => null,
  onExpired: 'deny',
  onMissing: 'allow',
  now: () => NOW,
}

async function ask(
  options: Partial<X509Options>,
  leaf = device.cert,
  verifyError: string | null = null,
): Promise<AuthOutcome> {
  const peer = { leaf, chain: [leaf], verifyError }
  return x509({ ...OPTIONS, ...options }).authenticate({ kind: 'x509', peer }, connectionOf(), AbortSignal.abort())
}

const may = (outcome: AuthOutcome, topic = 'a'): boolean =>
  outcome.kind === 'authenticated' &&
  outcome.grants.permit(ARN, outcome.variables).allows('iot:Publish', `topic/${topic}`)
const said = (outcome: AuthOutcome): string => (outcome.kind === 'denied' ? outcome.code : outcome.kind)

test('an entry may what its policies say together', async (t) => {
  const withPolicies = (policies: readonly string[]) =>
    ask({ registry: () => registryWith([entryOf(device.cert, { policies })]) })
  t.true(may(await withPolicies(['all'])))
  t.false(may(await withPolicies(['all', 'none'])))
  t.false(may(await withPolicies(['none'])))
  // The one that is not there may have been the one that denies.
  t.false(may(await withPolicies(['all', 'gone'])))
})

test('an entry without policies is authenticated and may nothing', async (t) => {
  const outcome = await ask({
    registry: () => registryWith([entryOf(device.cert, { policies: [] })]),
    policies: ['all'],
  })
  t.is(outcome.kind, 'authenticated')
  t.false(may(outcome))
})

test('policies may name the fields of the certificate', async (t) => {
  const outcome = await ask({ registry: () => registryWith([entryOf(device.cert, { policies: ['own'] })]) })
  t.true(may(outcome, 'sensor-1'))
  t.false(may(outcome, 'sensor-2'))
})

test('trusted by CA and unknown to the registry: the policies of the domain, or none', async (t) => {
  const registry = () => registryWith([])
  t.true(may(await ask({ mode: 'ca', registry, policies: ['all'] })))
  t.true(may(await ask({ mode: 'registry-or-ca', registry, policies: ['all'] })))
  for (const options of [{ registry, policies: [] }, { registry, policies: ['gone'] }, { policies: ['all'] }]) {
    const outcome = await ask({ mode: 'ca', ...options })
    t.is(outcome.kind, 'authenticated')
    t.false(may(outcome))
  }
})

test('trusted by CA and known to the registry: its own policies, not those of the domain', async (t) => {
  const registry = () => registryWith([entryOf(device.cert, { policies: ['none'] })])
  for (const mode of ['ca', 'registry-or-ca', 'registry-and-ca'] as const) {
    t.false(may(await ask({ mode, registry, policies: ['all'] })), mode)
  }
})

test('the malleated twin that a CA vouches for is the device that is registered', async (t) => {
  const twin = malleate(device.certPem).cert
  const registry = () =>
    registryWith([entryOf(device.cert, { policies: ['none'], things: ['sensor-1'], exclusive: true })])
  const outcome = await ask({ mode: 'registry-or-ca', registry, policies: ['all'] }, twin)
  if (outcome.kind === 'denied') return t.fail(outcome.detail)
  t.is(outcome.principal.id, sha256(device.cert.raw))
  t.is(outcome.things.exclusive?.name, 'sensor-1')
  t.false(may(outcome))
})

test('another certificate with the same serial number is not the device that is registered', async (t) => {
  const other = issueDevice(ca, { commonName: 'other', serialNumber: device.cert.serialNumber }).cert
  const registry = () => registryWith([entryOf(device.cert, { things: ['sensor-1'], exclusive: true })])
  const outcome = await ask({ mode: 'ca', registry }, other)
  if (outcome.kind === 'denied') return t.fail(outcome.detail)
  t.is(outcome.principal.id, sha256(other.raw))
  t.is(outcome.things.exclusive, null)
  t.false(may(outcome))
})

test('an exclusive thing holds for every client id and stands among the attributes', async (t) => {
  const outcome = await ask({
    registry: () => registryWith([entryOf(device.cert, { things: ['sensor-2'], exclusive: true })]),
  })
  if (outcome.kind === 'denied') return t.fail(outcome.detail)
  t.is(outcome.things.of('anything')?.name, 'sensor-2')
  t.deepEqual(outcome.principal.attributes, { commonName: 'sensor-1', thingName: 'sensor-2' })
})

test('of several things the one named as the client id counts', async (t) => {
  const outcome = await ask({
    registry: () => registryWith([entryOf(device.cert, { things: ['sensor-1', 'sensor-2'] })]),
  })
  if (outcome.kind === 'denied') return t.fail(outcome.detail)
  t.is(outcome.things.of('sensor-2')?.name, 'sensor-2')
  t.is(outcome.things.of('sensor-3'), null)
  t.is(outcome.things.of('__proto__'), null)
  t.is(outcome.things.exclusive, null)
  t.is(outcome.principal.attributes.thingName, undefined)
})

for (const [status, code] of [
  ['INACTIVE', 'ERR_CERTIFICATE_INACTIVE'],
  ['PENDING_ACTIVATION', 'ERR_CERTIFICATE_INACTIVE'],
  ['REVOKED', 'ERR_CERTIFICATE_REVOKED'],
] as const) {
  for (const mode of ['registry', 'ca', 'registry-or-ca', 'registry-and-ca'] as const satisfies TrustMode[]) {
    for (const twin of [false, true]) {
      const admitted = !twin || mode === 'ca' || mode === 'registry-or-ca'
      if (!admitted) continue
      test(`${mode}: a live session of ${twin ? 'a twin of ' : ''}a certificate that becomes ${status} ends`, async (t) => {
        let registry = registryWith([entryOf(device.cert)])
        const outcome = await ask(
          { mode, registry: () => registry },
          twin ? malleate(device.certPem).cert : device.cert,
        )
        if (outcome.kind === 'denied') return t.fail(outcome.detail)
        t.is(outcome.rejudge().kind, 'authenticated')
        registry = registryWith([entryOf(device.cert, { status })])
        t.is(said(outcome.rejudge()), code)
        t.is(said(await outcome.refresh(AbortSignal.abort())), code)
      })
    }
  }
}

test('a live session loses what its policies lose, and is one of a stranger when its entry goes', async (t) => {
  let registry = registryWith([entryOf(device.cert)])
  const outcome = await ask({ registry: () => registry })
  if (outcome.kind === 'denied') return t.fail(outcome.detail)
  registry = registryWith([entryOf(device.cert, { policies: [] })])
  const again = outcome.rejudge()
  t.is(again.kind, 'authenticated')
  t.false(may(again))
  registry = registryWith([])
  t.is(said(outcome.rejudge()), 'ERR_CERTIFICATE_NOT_REGISTERED')
})

test('a live session ends when a list names its certificate', async (t) => {
  const lists = (revoked: readonly string[]) => {
    const parsed = parseCrl(createCrl(ca, { revoked }).der)
    if (parsed.kind === 'invalid') throw new Error(parsed.reason)
    return new RevocationLists([parsed.list], [ca.cert])
  }
  for (const mode of ['registry', 'ca'] as const) {
    let revocation = lists(['01'])
    const registry = () => registryWith([entryOf(device.cert)])
    const outcome = await ask({ mode, registry, revocation: () => revocation })
    if (outcome.kind === 'denied') return t.fail(outcome.detail)
    t.is(outcome.rejudge().kind, 'authenticated')
    revocation = lists([device.cert.serialNumber])
    t.is(said(outcome.rejudge()), 'ERR_CERTIFICATE_REVOKED')
  }
})

test('whatever goes wrong while a live session is judged again ends it', async (t) => {
  let broken = false
  const registry = () => {
    if (broken) throw new TypeError('broken')
    return registryWith([entryOf(device.cert)])
  }
  const outcome = await ask({ registry })
  if (outcome.kind === 'denied') return t.fail(outcome.detail)
  broken = true
  t.is(said(outcome.rejudge()), 'ERR_IDENTITY_FAULT')
})

test('an expiry that passes ends a live session only where it is told to', async (t) => {
  for (const cutAtExpiry of [false, true]) {
    let now = NOW
    const outcome = await ask({ registry: () => registryWith([entryOf(device.cert)]), cutAtExpiry, now: () => now })
    if (outcome.kind === 'denied') return t.fail(outcome.detail)
    t.is(outcome.disconnectAfterMs, cutAtExpiry ? device.cert.validToDate.getTime() - NOW.getTime() : null)
    now = new Date(device.cert.validToDate.getTime() + 1)
    t.is(said(outcome.rejudge()), cutAtExpiry ? 'ERR_CERTIFICATE_EXPIRED' : 'authenticated')
  }
})

// First contact, wire specification §2.4.

const templateOf = (input: unknown): AutoRegister => {
  const parsed = parseTemplate(input)
  if (parsed.kind === 'invalid') throw new Error(JSON.stringify(parsed.issues))
  return { kind: 'template', template: parsed.template }
}
const caOf = (autoRegister: AutoRegister, changes: Partial<RegisteredCa> = {}, issuer: Issuer = ca): RegisteredCa => ({
  id: sha256(issuer.cert.raw),
  certificate: issuer.cert,
  status: 'ACTIVE',
  autoRegister,
  maxPerMinute: 60,
  ...changes,
})

/** A registry whose overlay is written at once, as by the owner in the same process. */
function contact(cas: readonly RegisteredCa[], answer: RegisterAnswer | Error = 'written') {
  const overlay = new Overlay()
  const records: RegisteredRecord[] = []
  const counted: ProvisionResult[] = []
  const events: RegisteredEvent[] = []
  const registration = selfRegistration({
    registry: 'main',
    registrar: {
      async register(name, record, maxPerMinute) {
        if (answer instanceof Error) throw answer
        if (name !== 'main' || maxPerMinute !== cas[0]?.maxPerMinute) throw new Error('asked wrongly')
        if (answer === 'written') {
          records.push(record)
          overlay.apply(record)
        }
        return answer
      },
    },
    accountId: '123456789012',
    counted: (result) => counted.push(result),
    registered: (event) => events.push(event),
    now: () => 1_500_000_000_000,
  })
  const registry = () => registryWith([], cas, overlay)
  const come = (options: Partial<X509Options> = {}, { cert }: Pick<Issued, 'cert'> = device, verifyError?: string) =>
    ask({ registry, registration, ...options }, cert, verifyError)
  return { come, overlay, records, counted, events }
}

const PENDING: AutoRegister = { kind: 'pending' }

test('pending: a stranger is written down and refused, an event goes out at each attempt, activation lets it in', async (t) => {
  const { come, overlay, records, counted, events } = contact([caOf(PENDING)])
  t.is(said(await come()), 'ERR_CERTIFICATE_INACTIVE')
  t.is(said(await come()), 'ERR_CERTIFICATE_INACTIVE')
  t.is(records.length, 1)
  t.like(records[0], { status: 'PENDING_ACTIVATION', policies: [], thing: null })
  t.deepEqual(counted, ['pending'])
  const event = {
    certificateId: sha256(device.cert.raw),
    caCertificateId: sha256(ca.cert.raw),
    timestamp: 1_500_000_000_000,
    certificateStatus: 'PENDING_ACTIVATION',
    awsAccountId: '123456789012',
    certificateRegistrationTimestamp: '1500000000000',
  } as const
  t.deepEqual(events, [event, event])
  const { fingerprint } = records[0]!
  overlay.apply({ kind: 'status', at: 2, fingerprint, status: 'ACTIVE', der: null, policies: ['all'] })
  t.true(may(await come()))
  t.is(events.length, 2)
})

test('a template: the first connection is refused, the second has the thing and the policies', async (t) => {
  const auto = templateOf({ thing: '${CommonName}', exclusive: true, policies: ['all'] })
  const { come, counted, events } = contact([caOf(auto)])
  t.is(said(await come()), 'ERR_CERTIFICATE_INACTIVE')
  const outcome = await come()
  if (outcome.kind === 'denied') return t.fail(outcome.detail)
  t.is(outcome.things.exclusive?.name, 'sensor-1')
  t.true(may(outcome))
  t.deepEqual(counted, ['success'])
  t.deepEqual(events, [])
})

test('a template with a policy document: the device has what was made for it', async (t) => {
  const prefix = 'AWS::IoT::Certificate::'
  const auto = templateOf({
    Parameters: { [`${prefix}CommonName`]: { Type: 'String' }, [`${prefix}Id`]: { Type: 'String' } },
    Resources: {
      certificate: { Type: 'AWS::IoT::Certificate', Properties: { CertificateId: { Ref: `${prefix}Id` } } },
      policy: {
        Type: 'AWS::IoT::Policy',
        Properties: {
          PolicyDocument: {
            Version: '2012-10-17',
            Statement: [
              {
                Effect: 'Allow',
                Action: 'iot:Publish',
                Resource: { 'Fn::Join': ['', ['arn:aws:iot:us-east-1:*:topic/', { Ref: `${prefix}CommonName` }]] },
              },
            ],
          },
        },
      },
    },
  })
  const { come } = contact([caOf(auto)])
  await come()
  const outcome = await come()
  t.true(may(outcome, 'sensor-1'))
  t.false(may(outcome, 'sensor-2'))
})

test('a template that does not fit the subject registers nobody', async (t) => {
  const { come, records, counted } = contact([caOf(templateOf({ thing: '${SerialNumber}' }))])
  t.is(said(await come()), 'ERR_CERTIFICATE_NOT_REGISTERED')
  t.deepEqual(records, [])
  t.deepEqual(counted, ['client_error'])
})

test('past the cap of the CA nobody is registered', async (t) => {
  for (const auto of [PENDING, templateOf({ policies: ['all'] })]) {
    const { come, counted, events } = contact([caOf(auto)], 'capped')
    t.is(said(await come()), 'ERR_CERTIFICATE_NOT_REGISTERED')
    t.deepEqual(counted, ['throttled'])
    t.deepEqual(events, [])
  }
})

test('known elsewhere already: refused, and not counted again', async (t) => {
  for (const auto of [PENDING, templateOf({ policies: ['all'] })]) {
    const { come, counted } = contact([caOf(auto)], 'known')
    t.is(said(await come()), 'ERR_CERTIFICATE_INACTIVE')
    t.deepEqual(counted, [])
  }
})

test('what cannot be written down is a fault, and admits nobody', async (t) => {
  const { come, counted } = contact([caOf(PENDING)], new Error('the disk is full'))
  await t.throwsAsync(come(), { code: 'ERR_IDENTITY_FAULT' })
  t.deepEqual(counted, ['server_error'])
})

const foreign = createCa({ commonName: 'Fleet CA' })
const strangers = test.macro({
  async exec(
    t,
    cas: readonly RegisteredCa[],
    who: Pick<Issued, 'cert'>,
    options: Partial<X509Options>,
    expected: string,
    verifyError?: string,
  ) {
    const { come, records } = contact(cas)
    t.is(said(await come(options, who, verifyError)), expected)
    t.deepEqual(records, [])
  },
  title: (title) => `nobody is registered: ${title}`,
})

test('the CA does not register', strangers, [caOf({ kind: 'no' })], device, {}, 'ERR_CERTIFICATE_NOT_REGISTERED')
test(
  'the CA is INACTIVE',
  strangers,
  [caOf(PENDING, { status: 'INACTIVE' })],
  device,
  {},
  'ERR_CERTIFICATE_NOT_REGISTERED',
)
test(
  'another CA of the same name',
  strangers,
  [caOf(PENDING, {}, foreign)],
  device,
  {},
  'ERR_CERTIFICATE_NOT_REGISTERED',
)
test('no CA at all', strangers, [], device, {}, 'ERR_CERTIFICATE_NOT_REGISTERED')
test('the certificate is that of the CA itself', strangers, [caOf(PENDING)], ca, {}, 'ERR_CERTIFICATE_NOT_REGISTERED')
test(
  'the certificate may sign others',
  strangers,
  [caOf(PENDING)],
  createCa({ commonName: 'Below', issuer: ca }),
  {},
  'ERR_CERTIFICATE_NOT_REGISTERED',
)
test(
  'the certificate is one of a server',
  strangers,
  [caOf(PENDING)],
  issueDevice(ca, { commonName: 'server', extendedKeyUsage: ['serverAuth'] }),
  {},
  'ERR_CERTIFICATE_NOT_REGISTERED',
)
test(
  'a CA past its dates',
  strangers,
  [
    caOf(
      PENDING,
      {},
      createCa({ commonName: 'Fleet CA', key: ca.key, notAfter: new Date(Date.now() - 1_000), notBefore: new Date(0) }),
    ),
  ],
  device,
  {},
  'ERR_CERTIFICATE_NOT_REGISTERED',
)
test('mode ca', strangers, [caOf(PENDING)], device, { mode: 'ca' }, 'ERR_CERTIFICATE_UNTRUSTED_CA', 'UNTRUSTED')
test(
  'registry-and-ca without a valid path',
  strangers,
  [caOf(PENDING)],
  device,
  { mode: 'registry-and-ca' },
  'ERR_CERTIFICATE_UNTRUSTED_CA',
  'UNTRUSTED',
)
test(
  'a list names it',
  strangers,
  [caOf(PENDING)],
  device,
  {
    caCertificates: [],
    revocation: () => {
      const parsed = parseCrl(createCrl(ca, { revoked: [device.cert.serialNumber] }).der)
      if (parsed.kind === 'invalid') throw new Error(parsed.reason)
      return new RevocationLists([parsed.list])
    },
  },
  'ERR_CERTIFICATE_REVOKED',
)
test(
  'nothing writes it down',
  strangers,
  [caOf(PENDING)],
  device,
  { registration: null },
  'ERR_CERTIFICATE_NOT_REGISTERED',
)

test('the twin of a device that waits is that device, and registers nobody', async (t) => {
  const { come, records } = contact([caOf(PENDING)])
  await come()
  t.is(said(await come({}, malleate(device.certPem))), 'ERR_CERTIFICATE_INACTIVE')
  t.is(records.length, 1)
})

test('the twin of an ACTIVE device registers nobody', async (t) => {
  const { come, overlay, records } = contact([caOf(PENDING)])
  await come()
  overlay.apply({ kind: 'status', at: 2, fingerprint: records[0]!.fingerprint, status: 'ACTIVE', der: null })
  t.is(said(await come({}, malleate(device.certPem))), 'ERR_CERTIFICATE_NOT_REGISTERED')
  t.is(records.length, 1)
})

test('registry-or-ca: a CA that is trusted needs no registration, another registers', async (t) => {
  const { come, records } = contact([caOf(PENDING)])
  t.is(said(await come({ mode: 'registry-or-ca' })), 'authenticated')
  t.is(records.length, 0)
  t.is(said(await come({ mode: 'registry-or-ca' }, device, 'UNTRUSTED')), 'ERR_CERTIFICATE_INACTIVE')
  t.is(records.length, 1)
})

test('what the operator writes of a device that waits counts', async (t) => {
  const { overlay, come } = contact([caOf(PENDING)])
  await come()
  const outcome = await ask({ registry: () => registryWith([entryOf(device.cert)], [], overlay) })
  t.true(may(outcome))
  t.false(may(await ask({ registry: () => registryWith([entryOf(device.cert, { status: 'INACTIVE' })], [], overlay) })))
  t.is(outcome.kind === 'authenticated' ? outcome.variables === NO_VARIABLES : null, false)
})
