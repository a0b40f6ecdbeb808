// Sessions that are resumed, or must not be, with a real client that resumes whatever it is told to: Node's own drops a
// session by itself when the name differs, and a test with it would see nothing.
import { randomBytes } from 'node:crypto'
import test from 'ava'
import { createCa, issueDevice } from '../../src/cli/pki.ts'
import { parseCrl, RevocationLists } from '../../src/registry/crl.ts'
import { RotatingSecret } from '../../src/store/ticket-secret.ts'
import { checkDomains } from '../../src/tls/domain-checks.ts'
import { createDomains } from '../../src/tls/domains.ts'
import { TLS_RUNTIME } from '../../src/tls/policies.ts'
import {
  type AdmissionFacts,
  admissionHash,
  RefusedResumptions,
  sessionIdContext,
  TICKET_FACTS,
  ticketKeys,
} from '../../src/tls/tickets.ts'
import { NO_OPENSSL, OPENSSL } from '../support/openssl.ts'
import { createCrl } from '../support/pki.ts'
import {
  CA_MODE,
  device,
  fingerprints,
  fleet,
  judged,
  line,
  processOf,
  visit,
  withTickets,
} from './resumption-harness.ts'
import { ca as serverCa } from './server.ts'

const { sharesKeys, keepsChain } = TICKET_FACTS[TLS_RUNTIME]

const FACTS: AdmissionFacts = {
  serverNames: ['a.example'],
  authenticationType: 'DEFAULT',
  applicationProtocol: 'DEFAULT',
  endpointType: 'data',
  wantsCertificate: true,
  trustMode: 'ca',
  caCertificates: [fleet.cert],
  registry: 'main',
  tlsPolicy: 'P',
  generation: 1,
}

const OTHERWISE: readonly Partial<AdmissionFacts>[] = [
  {},
  { serverNames: ['b.example'] },
  { serverNames: ['a.example', 'b.example'] },
  { authenticationType: 'AWS_X509' },
  { applicationProtocol: 'HTTPS' },
  { endpointType: 'jobs' },
  { wantsCertificate: false },
  { trustMode: 'registry-and-ca' },
  { caCertificates: [] },
  { caCertificates: [line.cert] },
  { caCertificates: [fleet.cert, line.cert] },
  { registry: null },
  { registry: 'other' },
  { tlsPolicy: 'Q' },
  { generation: 2 },
]

test('session id context and ticket keys are different wherever admission differs, and long enough', (t) => {
  const secret = Buffer.alloc(32, 7)
  const all = OTHERWISE.map((over) => ({ ...FACTS, ...over }))
  for (const made of [
    admissionHash,
    sessionIdContext,
    (facts: AdmissionFacts) => ticketKeys(secret, facts).toString('hex'),
  ]) {
    t.is(new Set(all.map(made)).size, all.length)
  }
  for (const facts of all) t.regex(sessionIdContext(facts), /^[0-9a-f]{32}$/)
  const [one, two] = [fleet.cert, line.cert]
  t.is(admissionHash({ ...FACTS, caCertificates: [one, two] }), admissionHash({ ...FACTS, caCertificates: [two, one] }))
})

test('ticket keys are 48 bytes, the same for the same secret, and nothing of one tells another', (t) => {
  const keys = ticketKeys(Buffer.alloc(32, 7), FACTS)
  t.is(keys.length, 48)
  t.deepEqual(keys, ticketKeys(Buffer.alloc(32, 7), { ...FACTS }))
  const other = ticketKeys(Buffer.alloc(32, 8), FACTS)
  // Name, HMAC key and AES key are each their own.
  for (const part of [0, 16, 32]) t.notDeepEqual(keys.subarray(part, part + 16), other.subarray(part, part + 16))
})

test('addresses of refused resumptions are forgotten after ten minutes', (t) => {
  let now = 1
  const refused = new RefusedResumptions(() => now)
  t.false(refused.has('192.0.2.1'))
  refused.add('192.0.2.1')
  t.true(refused.has('192.0.2.1'))
  t.false(refused.has('192.0.2.2'))
  now += 10 * 60_000 + 1
  t.false(refused.has('192.0.2.1'))
})

test('contexts are kept for as long as the secret is the same, with and without tickets', (t) => {
  const ticketSecret = new RotatingSecret({ maxAgeMs: 1_000, now: () => 0 })
  const domain = createDomains({ generation: 1, domains: [withTickets()] }, { ticketSecret }).all[0]!
  const before = domain.context(true)
  t.is(domain.context(true), before)
  t.not(domain.context(true, true), before)
  t.is(domain.context(true, true), domain.context(true, true))
  ticketSecret.replace(randomBytes(32))
  t.not(domain.context(true), before)
})

test('where the library forgets chains that are judged, there are no tickets, and `check` says so', (t) => {
  const judged = { domains: [withTickets({ judgesChains: true })], generation: 1 }
  const told = (settings: typeof judged, runtime: 'openssl' | 'boringssl') =>
    checkDomains(settings, { runtime }).warnings.filter((text) => text.includes('sessionTickets'))
  t.is(told(judged, 'openssl').length, 1)
  t.regex(told(judged, 'openssl')[0]!, /domains\[0\] \(a\.example\).*without tickets/)
  t.deepEqual(told(judged, 'boringssl'), [])
  t.deepEqual(told({ ...judged, domains: [withTickets()] }, 'openssl'), [])
  const unasked = { authenticationType: 'BACKEND', applicationProtocol: 'SECURE_MQTT' } as const
  t.deepEqual(told({ ...judged, domains: [withTickets({ judgesChains: true, ...unasked })] }, 'openssl'), [])
})

// From here on with real handshakes.

// One after the other: they start some sixty clients, and all of them at once would be late on a busy machine.
const real = OPENSSL ? test.serial : test.serial.skip
const reason = OPENSSL ? '' : ` (${NO_OPENSSL})`

for (const version of ['1_2', '1_3']) {
  const named = (what: string) => `TLS ${version.replace('_', '.')}: ${what}${reason}`

  real(named('a session is resumed under its own name, and the device is judged as one that came anew'), async (t) => {
    const at = processOf()
    const [made, resumed] = await visit(version, at('a.example'), [at('a.example')])
    t.false(made.secured.resumed)
    t.is(resumed!.secured.resumed, keepsChain)
    t.is(resumed!.secured.peer?.resumed, keepsChain)
    t.deepEqual(fingerprints(resumed!), fingerprints(made))
    t.is(await judged(made), 'device-1')
    t.is(await judged(resumed!), 'device-1')
  })

  real(named('with a registry the device’s own certificate is enough, and every library gives it back'), async (t) => {
    const at = processOf({ domains: [withTickets()] })
    const [made, resumed] = await visit(version, at('a.example'), [at('a.example')])
    t.false(made.secured.resumed)
    t.true(resumed!.secured.resumed)
    t.is(resumed!.secured.peer?.leaf.fingerprint256, device.cert.fingerprint256)
    t.is(resumed!.secured.peer!.chain.length > 1, keepsChain)
    for (const [status, says] of [
      ['ACTIVE', 'device-1'],
      ['INACTIVE', 'ERR_CERTIFICATE_INACTIVE'],
      ['PENDING_ACTIVATION', 'ERR_CERTIFICATE_INACTIVE'],
      ['REVOKED', 'ERR_CERTIFICATE_REVOKED'],
      [undefined, 'ERR_CERTIFICATE_NOT_REGISTERED'],
    ] as const) {
      t.is(await judged(resumed!, { mode: 'registry', hasCa: false }, status), says)
    }
    const late = new Date(device.cert.validToDate.getTime() + 1)
    t.is(await judged(resumed!, { mode: 'registry', now: () => late }, 'ACTIVE'), 'ERR_CERTIFICATE_EXPIRED')
  })

  real(named('no session is resumed at another domain, neither way, whatever else is the same'), async (t) => {
    for (const over of [{}, CA_MODE]) {
      const at = processOf({ domains: [withTickets(over), withTickets({ ...over, serverNames: ['b.example'] })] })
      for (const [from, to] of [
        ['a.example', 'b.example'],
        ['b.example', 'a.example'],
      ] as const) {
        // Without a certificate at the second: the other domain's identity is not lent to it.
        const [made, other] = await visit(version, at(from), [at(to)])
        t.is(made.secured.peer?.leaf.fingerprint256, device.cert.fingerprint256)
        t.false(other!.secured.resumed)
      }
    }
  })

  real(
    named('a session of a way in that asks for no certificate is none where one is asked for, nor the other way'),
    async (t) => {
      const explicit = { authenticationType: 'BACKEND', applicationProtocol: 'SECURE_MQTT' } as const
      const secret = new RotatingSecret({ maxAgeMs: 3_600_000 })
      const at = processOf({ secret, domains: [withTickets()] })
      const [, asked] = await visit(version, at('a.example', false), [at('a.example', true)])
      t.false(asked!.secured.resumed)
      t.truthy(asked!.secured.peer)
      const [, unasked] = await visit(version, at('a.example', true), [at('a.example', false)])
      t.false(unasked!.secured.resumed)
      t.is(unasked!.secured.peer, null)
      for (const authenticationType of ['BACKEND', 'CUSTOM_AUTH'] as const) {
        const before = processOf({ secret, domains: [withTickets({ ...explicit, authenticationType })] })
        const after = processOf({ secret, domains: [withTickets({ ...explicit, authenticationType: 'AWS_X509' })] })
        const [, later] = await visit(version, before('a.example', false), [after('a.example', true)])
        t.false(later!.secured.resumed)
        t.is(await judged(later!, { mode: 'registry' }, 'REVOKED'), 'ERR_CERTIFICATE_REVOKED')
      }
    },
  )

  real(named('a device that is revoked, by registry or by list, is refused with its session as without'), async (t) => {
    const at = processOf()
    const [, resumed] = await visit(version, at('a.example'), [at('a.example')])
    t.is(resumed!.secured.resumed, keepsChain)
    t.is(await judged(resumed!, {}, 'REVOKED'), 'ERR_CERTIFICATE_REVOKED')
    t.is(await judged(resumed!, {}, 'INACTIVE'), 'ERR_CERTIFICATE_INACTIVE')
    const list = (issuer: typeof fleet, revoked: readonly string[]) => {
      const parsed = parseCrl(createCrl(issuer, { revoked: [...revoked] }).der)
      if (parsed.kind === 'invalid') throw new Error(parsed.reason)
      return parsed.list
    }
    for (const [lists, says] of [
      [[list(fleet, []), list(line, [])], 'device-1'],
      [[list(fleet, []), list(line, [device.cert.serialNumber])], 'ERR_CERTIFICATE_REVOKED'],
      [[list(fleet, [line.cert.serialNumber]), list(line, [])], 'ERR_CERTIFICATE_REVOKED'],
      [[list(fleet, [])], 'ERR_CRL_MISSING'],
    ] as const) {
      const revocation = new RevocationLists(lists, [fleet.cert])
      t.is(await judged(resumed!, { revocation: () => revocation }), says)
    }
  })

  real(named('a CA that is taken away takes its sessions along'), async (t) => {
    const other = createCa({ commonName: 'other' })
    const secret = new RotatingSecret({ maxAgeMs: 3_600_000 })
    const both = { trustMode: 'ca', caPems: [fleet.certPem, other.certPem] } as const
    const before = processOf({ secret, domains: [withTickets(both)] })
    const after = processOf({ secret, domains: [withTickets({ ...both, caPems: [other.certPem] })] })
    const [made, later] = await visit(version, before('a.example'), [after('a.example')])
    t.is(made.secured.peer?.verifyError, null)
    t.false(later!.secured.resumed)
    t.is(await judged(later!, { caCertificates: [other.cert] }), 'ERR_CERTIFICATE_UNTRUSTED_CA')
  })

  real(named('who was not trusted is not trusted when the session goes on'), async (t) => {
    const stranger = issueDevice(createCa({ commonName: 'somebody' }), { commonName: 'device-1' })
    const at = processOf()
    const [made, resumed] = await visit(version, at('a.example'), [at('a.example')], { present: stranger })
    t.is(resumed!.secured.resumed, keepsChain)
    t.truthy(made.secured.peer?.verifyError)
    t.is(resumed!.secured.peer?.verifyError, made.secured.peer?.verifyError)
    t.is(await judged(resumed!), 'ERR_CERTIFICATE_UNTRUSTED_CA')
  })

  real(named('the chain of a resumed session must lead to a CA that is valid now'), async (t) => {
    const DAY = 86_400_000
    const middle = createCa({ commonName: 'soon over', issuer: fleet, notAfter: new Date(Date.now() + DAY) })
    const present = issueDevice(middle, { commonName: 'device-2' })
    const at = processOf()
    const [, resumed] = await visit(version, at('a.example'), [at('a.example')], { present })
    t.is(await judged(resumed!), 'device-2')
    if (!resumed!.secured.resumed) return
    const later = new Date(Date.now() + 2 * DAY)
    t.is(await judged(resumed!, { now: () => later }), 'ERR_CERTIFICATE_UNTRUSTED_CA')
    t.is(await judged(resumed!, { caCertificates: [serverCa.cert] }), 'ERR_CERTIFICATE_UNTRUSTED_CA')
  })

  real(named('a session without a certificate goes on without one, and is refused for it'), async (t) => {
    const at = processOf({ domains: [withTickets()] })
    const [made, resumed] = await visit(version, at('a.example'), [at('a.example')], { present: null })
    t.is(made.secured.peer, null)
    t.true(resumed!.secured.resumed)
    t.is(resumed!.secured.peer, null)
    t.is(await judged(resumed!, { mode: 'registry' }), 'ERR_CERTIFICATE_ABSENT')
  })

  real(
    named('a restart, other keys, another policy and a reload each make the next handshake a full one'),
    async (t) => {
      const secret = new RotatingSecret({ maxAgeMs: 3_600_000 })
      const domains = [withTickets()]
      const at = processOf({ secret, domains })
      const only12 = 'IoTSecurityPolicy_TLS12_1_2_2022_10'
      const only13 = 'IoTSecurityPolicy_TLS13_1_3_2022_10'
      const others = [
        processOf({ domains })('a.example'),
        processOf({ secret, domains, generation: 2 })('a.example'),
        processOf({ secret, domains: [withTickets({ tlsPolicy: version === '1_2' ? only12 : only13 })] })('a.example'),
        processOf({ secret, domains: [withTickets({ sessionTickets: null })] })('a.example'),
        // Last, for all others have the secret too.
        { ...at('a.example'), before: () => secret.replace(randomBytes(32)) },
      ]
      const [, ...later] = await visit(version, at('a.example'), others)
      t.deepEqual(
        later.map(({ secured }) => [secured.resumed, secured.peer?.leaf.fingerprint256]),
        others.map(() => [false, device.cert.fingerprint256]),
      )
    },
  )

  real(named('another process with the same secret goes on with the session where keys can be shared'), async (t) => {
    const secret = new RotatingSecret({ maxAgeMs: 3_600_000 })
    const domains = [withTickets()]
    const [, other] = await visit(version, processOf({ secret, domains })('a.example'), [
      processOf({ secret, domains })('a.example'),
    ])
    t.is(other!.secured.resumed, sharesKeys)
  })

  real(named('a full handshake resumes nothing, and nothing resumes it'), async (t) => {
    const at = processOf({ domains: [withTickets()] })
    const [, full] = await visit(version, at('a.example'), [at('a.example', true, true)])
    t.false(full!.secured.resumed)
    t.truthy(full!.secured.peer)
    const again = await visit(version, at('a.example', true, true), [at('a.example')]).catch((error: unknown) => {
      // There was no ticket, and so nothing that could be saved.
      t.regex(String(error), /Can't open session|unable to load|no start line/i)
      return null
    })
    t.not(again?.[1]?.secured.resumed, true)
  })

  real(named('a ticket says how long it lasts, and allows no early data'), async (t) => {
    const at = processOf({ domains: [withTickets()] })
    const [{ output }] = await visit(version, at('a.example'), [])
    t.regex(output, /TLS session ticket lifetime hint: 3(?:600|59\d) \(seconds\)/)
    t.notRegex(output, /Max Early Data: [1-9]/)
  })
}

real(
  `TLS 1.2: a client that wants no ticket has nothing to resume: session ids are good for nothing${reason}`,
  async (t) => {
    const at = processOf({ domains: [withTickets()] })
    const [made, later] = await visit('1_2', at('a.example'), [at('a.example')], { args: ['-no_ticket'] })
    t.notRegex(made.output, /TLS session ticket:/)
    t.false(later!.secured.resumed)
  },
)
