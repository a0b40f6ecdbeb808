import { createHash } from 'node:crypto'
import { connect } from 'node:tls'
import test from 'ava'
import { createCa, issueDevice, issueServer } from '../../src/cli/pki.ts'
import { checkDomains } from '../../src/tls/domain-checks.ts'
import type { DomainOptions } from '../../src/tls/domain-options.ts'
import { createDomains, DomainsError } from '../../src/tls/domains.ts'
import { TLS_RUNTIME } from '../../src/tls/policies.ts'
import { NO_OPENSSL, OPENSSL, sClient, tempFiles } from '../support/openssl.ts'
import { ca, domainOptions, ecdsa, listen, pair, rsa } from './server.ts'

const one = (over: Partial<DomainOptions> = {}, generation = 1) =>
  createDomains({ generation, domains: [domainOptions(over)] })
const check = (over: Partial<DomainOptions> = {}, now?: number) =>
  checkDomains({ generation: 1, domains: [domainOptions(over)] }, now === undefined ? {} : { now: () => now })

test('a domain is found by each of its names, in lower case, and by nothing else', (t) => {
  const domains = one({ serverNames: ['A.example', 'b.example.'] })
  t.is(domains.find('a.example')?.name, 'a.example')
  t.is(domains.find('b.example'), domains.find('a.example'))
  for (const name of [
    '',
    'example',
    'x.a.example',
    '__proto__',
    'constructor',
    'toString',
    'a.example\0',
    'a.example.',
  ]) {
    t.is(domains.find(name), null, name)
  }
})

test('one context per name, policy, generation and certificate asked for', (t) => {
  const domain = one().find('a.example')!
  t.is(domain.context(true), domain.context(true))
  t.not(domain.context(true), domain.context(false))
  t.not(one({}, 2).find('a.example')!.context(true), domain.context(true))
})

test('contexts over the bound are made again instead of kept', (t) => {
  const settings = { generation: 1, domains: [domainOptions(), domainOptions({ serverNames: ['b.example'] })] }
  const domains = createDomains(settings, { maxContexts: 1 })
  const first = domains.find('a.example')!.context(false)
  domains.find('b.example')!.context(false)
  t.not(domains.find('a.example')!.context(false), first)
})

test('explicit domains have their own rows, DEFAULT ones the table', (t) => {
  t.is(one().find('a.example')!.admissions.length, 9)
  const backend = one({ authenticationType: 'BACKEND', applicationProtocol: 'SECURE_MQTT' }).find('a.example')!
  t.false(backend.byAlpn)
  t.deepEqual(
    backend.admissions.map((row) => [row.port, row.auth]),
    [
      [8883, 'backend'],
      [443, 'backend'],
    ],
  )
})

test('CAs are kept in the CA modes only', (t) => {
  t.deepEqual(one({ caPems: [ca.certPem] }).find('a.example')!.trust, { mode: 'registry', caCertificates: [] })
  const trust = one({ trustMode: 'ca', caPems: [ca.certPem] }).find('a.example')!.trust
  t.deepEqual(
    trust.caCertificates.map((each) => each.fingerprint256),
    [ca.cert.fingerprint256],
  )
})

test('sound settings have no issues', (t) => {
  t.deepEqual(check({ certificates: [pair(ecdsa), pair(rsa)] }).issues, [])
})

const issue = test.macro({
  exec(t, over: Partial<DomainOptions>, expected: RegExp) {
    const { issues } = check(over)
    t.is(issues.length, 1, issues.join('\n'))
    t.regex(issues[0]!, expected)
    t.throws(() => one(over), { instanceOf: DomainsError })
  },
  title: (text) => `refused: ${text}`,
})

const device = issueDevice(ca, { commonName: 'd' })
test('no server name', issue, { serverNames: [] }, /at least one server name/)
test('no certificate', issue, { certificates: [] }, /needs a certificate/)
test(
  'a key of another certificate',
  issue,
  { certificates: [{ ...pair(ecdsa), keyPem: rsa.keyPem }] },
  /not the key of/,
)
test(
  'a key that is none',
  issue,
  { certificates: [{ ...pair(ecdsa), keyPem: 'x' }] },
  /cannot be read as a private key/,
)
test('a file without certificates', issue, { certificates: [{ ...pair(ecdsa), certPem: 'x' }] }, /no PEM certificate/)
test(
  'a broken certificate',
  issue,
  { certificates: [{ ...pair(ecdsa), certPem: '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n' }] },
  /cannot be read as certificates/,
)
test('two of one kind', issue, { certificates: [pair(ecdsa), pair(ecdsa)] }, /second ec certificate/)
test('a name the certificate lacks', issue, { serverNames: ['c.example'] }, /does not cover "c\.example"/)
test(
  'a certificate for clients only',
  issue,
  {
    serverNames: ['a.example'],
    certificates: [pair(issueServerWithUsage())],
  },
  /without serverAuth/,
)
test(
  'a short RSA key',
  issue,
  { certificates: [pair(issueServer(ca, { serverNames: ['a.example'], keyType: 'rsa', rsaBits: 1024 }))] },
  /1024 bits/,
)
test('an unknown policy', issue, { tlsPolicy: 'best' }, /unknown TLS policy "best"/)
test('a CA mode without a CA', issue, { trustMode: 'ca' }, /needs at least one certificate/)
test('a leaf where a CA belongs', issue, { trustMode: 'ca', caPems: [device.certPem] }, /is not a CA certificate/)
test(
  'authentication and protocol that do not go together',
  issue,
  { authenticationType: 'AWS_X509', applicationProtocol: 'MQTT_WSS' },
  /not MQTT_WSS/,
)

/** A device certificate whose common name is the server's: right name, wrong use. */
function issueServerWithUsage() {
  return issueDevice(ca, { commonName: 'a.example' })
}

test('refused: wildcards, addresses and other scripts as server names', (t) => {
  for (const name of ['*.example', '127.0.0.1', '::1', 'bücher.example', 'a..example', 'a b', '-a.example']) {
    t.true(
      check({ serverNames: [name] }).issues.some((text) => text.includes('is not a host name')),
      name,
    )
  }
})

test('refused: one name in two domains, whatever its case', (t) => {
  const { issues } = checkDomains({
    generation: 1,
    domains: [domainOptions(), domainOptions({ serverNames: ['A.EXAMPLE'] })],
  })
  t.is(issues.length, 1)
  t.regex(issues[0]!, /already belongs to domains\[0\]/)
})

test('all issues at once', (t) => {
  t.true(check({ serverNames: ['*.x'], tlsPolicy: 'best', trustMode: 'ca', certificates: [] }).issues.length >= 4)
})

test('an expired certificate is warned of and served; so is one close to its end', (t) => {
  const end = Date.parse(ecdsa.cert.validTo)
  const quiet = (now: number) => check({}, now).warnings.filter((text) => !text.includes('is served without'))
  t.deepEqual(quiet(end - 60 * 86_400_000), [])
  t.regex(quiet(end - 86_400_000)[0] ?? '', /expires at/)
  t.regex(quiet(end + 1)[0] ?? '', /expired at/)
  t.deepEqual(check({}, end + 1).issues, [])
})

const real = OPENSSL ? test : test.skip
const reason = OPENSSL ? '' : ` (${NO_OPENSSL})`

/** SHA-256 of the leaf that s_client printed. */
function leafOf(output: string): string | null {
  const body = /-----BEGIN CERTIFICATE-----([^-]+)-----END/.exec(output)?.[1]
  return body ? createHash('sha256').update(Buffer.from(body, 'base64')).digest('hex') : null
}
const sha256 = (raw: Buffer) => createHash('sha256').update(raw).digest('hex')

const bothKinds: readonly (readonly [title: string, args: string[], leaf: typeof rsa])[] = [
  ['1.2, RSA suites', ['-tls1_2', '-cipher', 'ECDHE-RSA-AES128-GCM-SHA256'], rsa],
  ['1.2, ECDSA suites', ['-tls1_2', '-cipher', 'ECDHE-ECDSA-AES128-GCM-SHA256'], ecdsa],
  ['1.3, RSA signatures', ['-tls1_3', '-sigalgs', 'rsa_pss_rsae_sha256'], rsa],
  ['1.3, ECDSA signatures', ['-tls1_3', '-sigalgs', 'ecdsa_secp256r1_sha256'], ecdsa],
]
for (const [title, args, leaf] of bothKinds) {
  for (const order of ['ECDSA first', 'RSA first']) {
    real(`a name with both certificates gives the one that fits: ${title}; ${order}${reason}`, async (t) => {
      const certificates = order === 'RSA first' ? [pair(rsa), pair(ecdsa)] : [pair(ecdsa), pair(rsa)]
      const server = await listen({ context: one({ certificates }).find('a.example')!.context(false) })
      try {
        const { output } = await sClient({ port: server.port, args, until: /UP\n/ })
        t.is(leafOf(output), sha256(leaf.cert.raw), output.slice(0, 500))
      } finally {
        await server.close()
      }
    })
  }
}

real(`a client that knows both gets ECDSA, the cheaper one to serve${reason}`, async (t) => {
  const server = await listen({
    context: one({ certificates: [pair(rsa), pair(ecdsa)] })
      .find('a.example')!
      .context(false),
  })
  try {
    const { output } = await sClient({ port: server.port, args: ['-tls1_2'], until: /UP\n/ })
    t.is(leafOf(output), sha256(ecdsa.cert.raw))
  } finally {
    await server.close()
  }
})

real(`a CA of the domain judges device certificates, root or intermediate${reason}`, async (t) => {
  const middle = createCa({ commonName: 'middle', issuer: ca })
  const mine = issueDevice(ca, { commonName: 'mine' })
  const below = issueDevice(middle, { commonName: 'below' })
  const beside = issueDevice(createCa({ commonName: 'brokergate tests' }), { commonName: 'beside' })
  const foreign = issueDevice(createCa({ commonName: 'foreign' }), { commonName: 'foreign' })
  const wrongUse = issueDevice(ca, { commonName: 'wrong', extendedKeyUsage: ['serverAuth'] })
  const files = tempFiles(
    Object.fromEntries(
      Object.entries({ mine, below, beside, foreign, wrongUse }).flatMap(([name, issued]) => [
        [`${name}.pem`, issued.certPem],
        [`${name}.key`, issued.keyPem],
        [`${name}.chain`, issued.chainPem],
      ]),
    ),
  )
  const context = one({ trustMode: 'ca', caPems: [ca.certPem] })
    .find('a.example')!
    .context(true)
  const server = await listen({ context, requestCert: true })
  try {
    const verdict = async (name: string) => {
      const { paths } = files
      const args = [
        '-cert',
        paths[`${name}.pem`]!,
        '-key',
        paths[`${name}.key`]!,
        '-cert_chain',
        paths[`${name}.chain`]!,
      ]
      await sClient({ port: server.port, args, until: /UP\n/ })
      const end = await server.next()
      if (end instanceof Error) throw end
      return end.peer?.verifyError
    }
    t.is(await verdict('mine'), null)
    t.is(await verdict('below'), null)
    t.truthy(await verdict('foreign'))
    t.truthy(await verdict('beside'))
    t.truthy(await verdict('wrongUse'), `wrong use on ${TLS_RUNTIME}`)
  } finally {
    await server.close()
    files.remove()
  }
})

real(`a listed intermediate is trusted without its root, and its siblings are not${reason}`, async (t) => {
  const middle = createCa({ commonName: 'middle', issuer: ca })
  const sibling = createCa({ commonName: 'sibling', issuer: ca })
  const context = one({ trustMode: 'ca', caPems: [middle.certPem] })
    .find('a.example')!
    .context(true)
  const server = await listen({ context, requestCert: true })
  try {
    for (const issuer of [middle, sibling]) {
      const { chainPem, keyPem } = issueDevice(issuer, { commonName: 'd' })
      const files = tempFiles({ chain: chainPem, key: keyPem })
      const { chain, key } = files.paths
      await sClient({ port: server.port, args: ['-cert', chain!, '-key', key!, '-cert_chain', chain!], until: /UP\n/ })
      files.remove()
      const end = await server.next()
      if (end instanceof Error) throw end
      t.is(end.peer?.verifyError === null, issuer === middle)
    }
  } finally {
    await server.close()
  }
})

test('each of two certificates is served with its own intermediates, and without the other’s', async (t) => {
  const made = (['ec', 'rsa'] as const).map((keyType) => {
    const middle = createCa({ commonName: `middle of ${keyType}`, issuer: ca })
    return { keyType, middle, leaf: issueServer(middle, { serverNames: ['a.example'], keyType }) }
  })
  const certificates = made.map(({ leaf, keyType }) => ({ ...pair(leaf, keyType), certPem: leaf.chainPem }))
  t.deepEqual(check({ certificates }).issues, [])
  const server = await listen({ context: one({ certificates }).find('a.example')!.context(false) })
  try {
    for (const { keyType, leaf, middle } of made) {
      const ciphers = keyType === 'ec' ? 'ECDHE-ECDSA-AES128-GCM-SHA256' : 'ECDHE-RSA-AES128-GCM-SHA256'
      const device = connect({
        port: server.port,
        host: '127.0.0.1',
        servername: 'a.example',
        ca: ca.certPem,
        ciphers,
        maxVersion: 'TLSv1.2',
      })
      await new Promise((resolve, reject) => device.once('secureConnect', resolve).once('error', reject))
      t.true(device.authorized)
      const peer = device.getPeerX509Certificate()
      t.is(peer?.fingerprint256, leaf.cert.fingerprint256)
      t.is(peer?.issuerCertificate?.fingerprint256, middle.cert.fingerprint256)
      device.destroy()
    }
  } finally {
    await server.close()
  }
})
