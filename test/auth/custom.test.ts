import { generateKeyPairSync, sign, X509Certificate } from 'node:crypto'
import test, { type ExecutionContext } from 'ava'
import type { Authenticated, AuthOutcome } from '../../src/auth/authenticator.ts'
import { createAuthorizers } from '../../src/auth/authorizers.ts'
import { customX509, tokenKeyNames } from '../../src/auth/custom.ts'
import { x509 } from '../../src/auth/x509.ts'
import { createCa, issueDevice } from '../../src/cli/pki.ts'
import type { PeerCertificate } from '../../src/connection.ts'
import { NO_METRICS } from '../../src/control/metrics.ts'
import { parsePolicyDocument } from '../../src/policy/document.ts'
import { grantsOf } from '../../src/policy/grants.ts'
import { type Grants, NO_VARIABLES } from '../../src/policy/permit.ts'
import type { AuthorizerEntry } from '../../src/registry/entries.ts'
import { ARN } from '../support/identity.ts'
import {
  connect,
  customOver,
  FAULTS,
  get,
  registryOf,
  SHAPES,
  startPeer,
  webhookEntry,
  YES,
} from './authorizer-peer.ts'
import { behavesLikeAnAuthenticator, connectionOf } from './conformance.ts'

const SIGNAL = new AbortController().signal

function accepted(outcome: AuthOutcome): Authenticated {
  if (outcome.kind === 'authenticated') return outcome
  throw new Error(outcome.detail)
}

const allows = (grants: Grants, action: string, resource: string) =>
  grants.permit(ARN, NO_VARIABLES).allows(action, resource)

const statement = (effect: 'Allow' | 'Deny', resource: string) => ({
  Version: '2012-10-17',
  Statement: [{ Effect: effect, Action: 'iot:Publish', Resource: `arn:aws:iot:*:*:${resource}` }],
})

// Which authorizer: wire specification §4.1.
const chooses = test.macro({
  async exec(
    t,
    _: string,
    named: string | null,
    options: {
      readonly defaultAuthorizer: string | null
      readonly allowOverride: boolean
      readonly allowed?: string[]
    },
    expected: 'one' | 'two' | 'ERR_AUTHORIZER_NOT_FOUND' | 'ERR_CREDENTIALS_ABSENT',
  ) {
    const [one, two] = [await startPeer(t), await startPeer(t)]
    const entries = [
      webhookEntry(one, { name: 'one' }),
      webhookEntry(two, { name: 'two' }),
      webhookEntry(two, { name: 'off', status: 'INACTIVE' }),
      webhookEntry(two, { name: 'foreign' }),
    ]
    const authenticator = customOver(t, entries, { allowed: ['one', 'two', 'off', 'missing'], ...options })
    const mqtt = connect({
      username: named === null ? null : `?x-amz-customauthorizer-name=${named}`,
      password: null,
    })
    const outcome = await authenticator.authenticate({ kind: 'custom', http: null, mqtt }, connectionOf(), SIGNAL)
    t.is(one.calls.length, expected === 'one' ? 1 : 0)
    t.is(two.calls.length, expected === 'two' ? 1 : 0)
    if (expected.startsWith('ERR_')) t.like(outcome, { kind: 'denied', code: expected as 'ERR_AUTHORIZER_NOT_FOUND' })
    else t.is(accepted(outcome).principal.attributes.authorizer, expected)
  },
  title: (_, what: string) => `which authorizer: ${what}`,
})
test(chooses, 'the default, where none is named', null, { defaultAuthorizer: 'one', allowOverride: true }, 'one')
test(chooses, 'the named one, with the override on', 'two', { defaultAuthorizer: 'one', allowOverride: true }, 'two')
test(chooses, 'the default, with the override off', 'two', { defaultAuthorizer: 'one', allowOverride: false }, 'one')
test(
  chooses,
  'the default, with the override off and a name that is none',
  'missing',
  { defaultAuthorizer: 'one', allowOverride: false },
  'one',
)
test(chooses, 'the named one, without a default', 'two', { defaultAuthorizer: null, allowOverride: true }, 'two')
test(
  chooses,
  'none, without a default and the override off',
  'two',
  { defaultAuthorizer: null, allowOverride: false },
  'ERR_AUTHORIZER_NOT_FOUND',
)
test(
  chooses,
  'none, where nothing is named and there is no default',
  null,
  { defaultAuthorizer: null, allowOverride: true },
  'ERR_CREDENTIALS_ABSENT',
)
test(
  chooses,
  'none for a name that is not one of the domain’s',
  'foreign',
  { defaultAuthorizer: 'one', allowOverride: true },
  'ERR_AUTHORIZER_NOT_FOUND',
)
test(
  chooses,
  'none for one that the registry does not have',
  'missing',
  { defaultAuthorizer: 'one', allowOverride: true },
  'ERR_AUTHORIZER_NOT_FOUND',
)
test(
  chooses,
  'none for one that is INACTIVE',
  'off',
  { defaultAuthorizer: 'one', allowOverride: true },
  'ERR_AUTHORIZER_NOT_FOUND',
)
test(
  chooses,
  'none for a default that is INACTIVE',
  null,
  { defaultAuthorizer: 'off', allowOverride: true },
  'ERR_AUTHORIZER_NOT_FOUND',
)
test(
  chooses,
  'none for a name from every object',
  '__proto__',
  { defaultAuthorizer: 'one', allowOverride: true },
  'ERR_AUTHORIZER_NOT_FOUND',
)

test('a domain without a registry has no authorizer', async (t) => {
  const peer = await startPeer(t)
  const authenticator = customOver(t, [webhookEntry(peer)], { registry: () => null })
  const outcome = await authenticator.authenticate(SHAPES.mqtt, connectionOf(), SIGNAL)
  t.like(outcome, { kind: 'denied', code: 'ERR_AUTHORIZER_NOT_FOUND' })
})

test('parameters that contradict each other are refused, and nobody is asked', async (t) => {
  const peer = await startPeer(t)
  const authenticator = customOver(t, [webhookEntry(peer)])
  for (const username of [
    '?MyToken=a&MyToken=b',
    '?x-amz-customauthorizer-name=a?x-amz-customauthorizer-name=b',
    '?x-amz-customauthorizer-signature=a&x-amz-customauthorizer-signature=b',
    `?MyToken=${'a'.repeat(6_145)}`,
  ]) {
    const mqtt = connect({ username })
    const outcome = await authenticator.authenticate({ kind: 'custom', http: null, mqtt }, connectionOf(), SIGNAL)
    t.like(outcome, { kind: 'denied', code: 'ERR_CREDENTIALS_MALFORMED' })
  }
  t.is(peer.calls.length, 0)
})

// Signatures: wire specification §4.3.
const { publicKey, privateKey } = generateKeyPairSync('rsa', { modulusLength: 2_048 })
const SIGNATURE = sign('RSA-SHA256', Buffer.from('abc123'), privateKey).toString('base64')
const signs = test.macro({
  async exec(t, _: string, tail: string, verified: boolean) {
    const peer = await startPeer(t)
    const authenticator = customOver(t, [webhookEntry(peer, { signingKeys: [publicKey] })])
    for (const credentials of [
      { kind: 'custom', http: null, mqtt: connect({ username: `alice?${tail}` }) },
      { kind: 'custom', http: get(`/mqtt?${tail}`), mqtt: null },
    ] as const) {
      const outcome = await authenticator.authenticate(credentials, connectionOf(), SIGNAL)
      if (verified) t.is(outcome.kind, 'authenticated')
      else t.like(outcome, { kind: 'denied', code: 'ERR_TOKEN_SIGNATURE' })
    }
    t.is(peer.calls.length, verified ? 2 : 0)
    for (const { json } of peer.calls) t.like(json, { token: 'abc123', signatureVerified: true })
  },
  title: (_, what: string, _tail: string, verified: boolean) =>
    `signing on: ${what} ${verified ? 'is asked about' : 'is refused, and nobody is asked'}`,
})
test(signs, 'a signed token', `MyToken=abc123&x-amz-customauthorizer-signature=${SIGNATURE}`, true)
test(
  signs,
  'a percent-encoded signature',
  `MyToken=abc123&x-amz-customauthorizer-signature=${encodeURIComponent(SIGNATURE)}`,
  true,
)
test(signs, 'a token without signature', 'MyToken=abc123', false)
test(signs, 'a signature without token', `x-amz-customauthorizer-signature=${SIGNATURE}`, false)
test(signs, 'a signature of another token', `MyToken=abc124&x-amz-customauthorizer-signature=${SIGNATURE}`, false)
test(signs, 'nothing', 'SDK=x', false)

// Lifetimes: wire specification §4.6.
test('a refresh asks again, replaces the documents and does not move the end', async (t) => {
  const peer = await startPeer(t)
  let now = 0
  const authorizers = createAuthorizers({ metrics: NO_METRICS, now: () => now })
  const authenticator = customOver(t, [webhookEntry(peer)], { authorizers })
  peer.behavior = { ...YES, policyDocuments: [statement('Allow', 'topic/a')], disconnectAfterInSeconds: 1_000 }
  const first = accepted(await authenticator.authenticate(SHAPES.mqtt, connectionOf(), SIGNAL))
  t.is(first.disconnectAfterMs, 1_000_000)
  t.is(first.refreshAfterMs, 300_000)
  t.true(allows(first.grants, 'iot:Publish', 'topic/a'))

  now = 300_000
  peer.behavior = { ...YES, policyDocuments: [statement('Allow', 'topic/b')], disconnectAfterInSeconds: 86_400 }
  const second = accepted(await first.refresh(SIGNAL))
  t.is(second.disconnectAfterMs, 700_000)
  t.is(second.refreshAfterMs, 300_000)
  t.false(allows(second.grants, 'iot:Publish', 'topic/a'))
  t.true(allows(second.grants, 'iot:Publish', 'topic/b'))
  t.deepEqual(peer.calls[0]!.json, peer.calls[1]!.json)
})

test('a refresh that fails, refuses or names another principal ends the connection', async (t) => {
  const peer = await startPeer(t)
  const authenticator = customOver(t, [webhookEntry(peer)])
  const first = accepted(await authenticator.authenticate(SHAPES.mqtt, connectionOf(), SIGNAL))
  peer.behavior = FAULTS['answers 500']!
  await t.throwsAsync(first.refresh(SIGNAL), { code: 'ERR_AUTHORIZER_UNAVAILABLE' })
  peer.behavior = { isAuthenticated: false }
  t.like(await first.refresh(SIGNAL), { kind: 'denied', code: 'ERR_CREDENTIALS_REFUSED' })
  peer.behavior = { ...YES, principalId: 'other' }
  t.like(await first.refresh(SIGNAL), { kind: 'denied', code: 'ERR_AUTHORIZATION_ENDED' })
  peer.behavior = YES
  t.is((await first.refresh(SIGNAL)).kind, 'authenticated')
})

test('an authorizer that is set INACTIVE or taken away ends its connections, without a call', async (t) => {
  const peer = await startPeer(t)
  const entry = webhookEntry(peer)
  let entries: AuthorizerEntry[] = [entry]
  const authenticator = customOver(t, entries, { registry: () => registryOf(...entries) })
  const first = accepted(await authenticator.authenticate(SHAPES.mqtt, connectionOf(), SIGNAL))
  t.is(first.rejudge().kind, 'authenticated')
  entries = [{ ...entry, status: 'INACTIVE' }]
  t.like(first.rejudge(), { kind: 'denied', code: 'ERR_AUTHORIZATION_ENDED' })
  entries = []
  t.like(first.rejudge(), { kind: 'denied', code: 'ERR_AUTHORIZATION_ENDED' })
  t.like(await first.refresh(SIGNAL), { kind: 'denied', code: 'ERR_AUTHORIZER_NOT_FOUND' })
  t.is(peer.calls.length, 1)
})

// Who remembers what.
test('each connection asks for itself, and each HTTPS request too, unless something else is set', async (t) => {
  const peer = await startPeer(t)
  const authenticator = customOver(t, [webhookEntry(peer)])
  for (const credentials of Object.values(SHAPES)) {
    await authenticator.authenticate(credentials, connectionOf(), SIGNAL)
    await authenticator.authenticate(credentials, connectionOf(), SIGNAL)
  }
  t.is(peer.calls.length, 6)
})

const onConnection = (id: string, domain?: string) => ({ ...connectionOf(domain), id })

test('with cacheForHttp an answer is kept for the requests of one connection until its refresh', async (t) => {
  const peer = await startPeer(t)
  let now = 0
  const authorizers = createAuthorizers({ metrics: NO_METRICS, now: () => now })
  const authenticator = customOver(t, [webhookEntry(peer, { cacheForHttp: true })], { authorizers })
  const request = (length: string, token = 'abc123') => ({
    kind: 'custom' as const,
    // Whose body is still to come: it is read for those alone who are let in.
    http: get('/topics/a', 'MyToken', token, 'Content-Length', length),
    mqtt: null,
  })
  const ask = (id: string, length = '1', token?: string) =>
    authenticator.authenticate(request(length, token), onConnection(id), SIGNAL)
  const first = accepted(await ask('c-1'))
  now = 100_000
  const second = accepted(await ask('c-1', '2'))
  t.is(peer.calls.length, 1, 'a body of another length is no other proof')
  t.is(first.disconnectAfterMs! - second.disconnectAfterMs!, 100_000, 'the end is not moved')
  t.is(second.refreshAfterMs, 200_000)
  await ask('c-2')
  t.is(peer.calls.length, 2, 'another connection')
  await ask('c-1', '1', 'other')
  t.is(peer.calls.length, 3, 'another token')
  now = 300_000
  await ask('c-1')
  t.is(peer.calls.length, 4, 'past its refresh')
  await authenticator.authenticate(SHAPES.mqtt, onConnection('c-1'), SIGNAL)
  await authenticator.authenticate(SHAPES.mqtt, onConnection('c-1'), SIGNAL)
  t.is(peer.calls.length, 6, 'not for MQTT')
})

test('with shareFor an answer serves who sends exactly the same, and nobody else', async (t) => {
  const peer = await startPeer(t)
  const entry = webhookEntry(peer, { shareForMs: 60_000 })
  const authorizers = createAuthorizers({ metrics: NO_METRICS, now: () => 0 })
  const authenticator = customOver(t, [entry, { ...entry, name: 'two' }], { authorizers, allowOverride: true })
  const ask = async (mqtt: Parameters<typeof connect>[0], id = 'c-1', domain?: string) => {
    const before = peer.calls.length
    await authenticator.authenticate(
      { kind: 'custom', http: null, mqtt: connect(mqtt) },
      onConnection(id, domain),
      SIGNAL,
    )
    return peer.calls.length - before
  }
  t.is(await ask({}), 1)
  t.is(await ask({}, 'c-2'), 0, 'another connection')
  t.is(await ask({ clientId: 'device-2' }), 1, 'another client id')
  t.is(await ask({ password: Buffer.from('secres') }), 1, 'another password')
  t.is(await ask({ password: null }), 1, 'no password')
  t.is(await ask({ username: 'alice?MyToken=abc124' }), 1, 'another token')
  t.is(await ask({ username: 'alice?MyToken=abc12%33' }), 1, 'another spelling of it')
  t.is(await ask({}, 'c-1', 'other.example.com'), 1, 'another domain')
  t.is(await ask({ username: 'alice?MyToken=abc123&x-amz-customauthorizer-name=two' }), 1, 'another authorizer')
  t.is(await ask({}), 0)
})

// CUSTOM_AUTH_X509.
const fleet = createCa({ commonName: 'fleet' })
const device = issueDevice(fleet, { commonName: 'device-1' })
const leaf = new X509Certificate(device.certPem)
const peerOf = (certificate: X509Certificate): PeerCertificate => ({
  leaf: certificate,
  chain: [certificate],
  verifyError: null,
})
const ID = leaf.fingerprint256.replaceAll(':', '').toLowerCase()
const judge = (grants?: Grants) => {
  const authenticator = x509({
    mode: 'ca',
    registry: () => null,
    policies: [],
    hasCa: true,
    caCertificates: [new X509Certificate(fleet.certPem)],
    revocation: () => null,
    onExpired: 'deny',
    onMissing: 'deny',
  })
  if (grants === undefined) return authenticator
  return {
    ...authenticator,
    async authenticate(...args: Parameters<typeof authenticator.authenticate>): Promise<AuthOutcome> {
      const outcome = await authenticator.authenticate(...args)
      if (outcome.kind === 'denied') return outcome
      const changed: Authenticated = { ...outcome, grants, rejudge: () => changed }
      return changed
    },
  }
}
const documentsOf = (...documents: object[]) =>
  grantsOf(
    documents.map((document) => {
      const parsed = parsePolicyDocument(document)
      if (parsed.kind === 'invalid') throw new Error(JSON.stringify(parsed.issues))
      return parsed.document
    }),
  )
const X509 = { kind: 'custom-x509', peer: peerOf(leaf), http: null, mqtt: connect() } as const

function x509Over(t: ExecutionContext, entry: AuthorizerEntry, grants?: Grants) {
  const authorizers = createAuthorizers({ metrics: NO_METRICS, now: () => 0 })
  t.teardown(() => authorizers.close())
  const options = {
    registry: () => registryOf(entry),
    authorizers,
    allowed: [],
    defaultAuthorizer: entry.name,
    allowOverride: false,
  }
  return customX509(options, judge(grants))
}

behavesLikeAnAuthenticator(test, 'custom-x509', async (t) => {
  const [peer, faulty] = [await startPeer(t), await startPeer(t)]
  peer.behavior = { ...YES, principalId: ID }
  faulty.behavior = FAULTS['closes in the middle of the body']!
  const stranger = issueDevice(createCa({ commonName: 'other' }), { commonName: 'stranger' })
  return {
    authenticator: x509Over(t, webhookEntry(peer)),
    accepted: X509,
    refused: { ...X509, peer: { ...peerOf(new X509Certificate(stranger.certPem)), verifyError: 'unknown CA' } },
    faulty: x509Over(t, webhookEntry(faulty)),
    faultCode: 'ERR_AUTHORIZER_UNAVAILABLE',
  }
})

test('with a certificate the authorizer is told of it and must name it', async (t) => {
  const peer = await startPeer(t)
  peer.behavior = { isAuthenticated: true, principalId: ID }
  const outcome = accepted(await x509Over(t, webhookEntry(peer)).authenticate(X509, connectionOf(), SIGNAL))
  t.is(outcome.principal.id, ID)
  t.is(outcome.principal.attributes.commonName, 'device-1')
  t.like(peer.calls[0]!.json, { protocolData: { tls: { principalId: ID, x509CertificatePem: leaf.toString() } } })
  peer.behavior = YES
  const asking = x509Over(t, webhookEntry(peer)).authenticate(X509, connectionOf(), SIGNAL)
  await t.throwsAsync(asking, { code: 'ERR_AUTHORIZER_UNAVAILABLE', message: /principalId/ })
})

test('a certificate that is refused, or absent, is refused before anybody is asked', async (t) => {
  const peer = await startPeer(t)
  const authenticator = x509Over(t, webhookEntry(peer))
  const ask = (changed: PeerCertificate | null) =>
    authenticator.authenticate({ ...X509, peer: changed }, connectionOf(), SIGNAL)
  t.like(await ask(null), { kind: 'denied', code: 'ERR_CERTIFICATE_ABSENT' })
  t.like(await ask({ ...peerOf(leaf), verifyError: 'no' }), { kind: 'denied', code: 'ERR_CERTIFICATE_UNTRUSTED_CA' })
  t.is(peer.calls.length, 0)
})

test('the documents of both count as one, and a Deny of either wins', async (t) => {
  const peer = await startPeer(t)
  const documents = (...policyDocuments: object[]) => ({ isAuthenticated: true, principalId: ID, policyDocuments })
  const ask = async (answer: object, own: Grants) => {
    peer.behavior = answer
    const outcome = await x509Over(t, webhookEntry(peer), own).authenticate(X509, connectionOf(), SIGNAL)
    const { grants } = accepted(outcome)
    return ['topic/a', 'topic/b', 'topic/c'].filter((topic) => allows(grants, 'iot:Publish', topic))
  }
  const own = documentsOf(statement('Allow', 'topic/a'), statement('Deny', 'topic/c'))
  t.deepEqual(await ask(documents(), own), ['topic/a'])
  t.deepEqual(await ask(documents(statement('Allow', 'topic/b')), own), ['topic/a', 'topic/b'])
  t.deepEqual(await ask(documents(statement('Allow', 'topic/*')), own), ['topic/a', 'topic/b'])
  t.deepEqual(await ask(documents(statement('Deny', 'topic/a')), own), [])
  t.deepEqual(await ask(documents(statement('Allow', 'topic/b')), documentsOf()), ['topic/b'])
})

test('the names under which a token may come are those of the domain’s authorizers', async (t) => {
  const peer = { port: 1 }
  const registry = registryOf(
    webhookEntry(peer, { name: 'one', tokenKeyName: 'a' }),
    webhookEntry(peer, { name: 'two', tokenKeyName: 'b' }),
    webhookEntry(peer, { name: 'three', tokenKeyName: null }),
    webhookEntry(peer, { name: 'foreign', tokenKeyName: 'c' }),
  )
  const names = tokenKeyNames({
    registry: () => registry,
    allowed: ['two', 'three', 'missing'],
    defaultAuthorizer: 'one',
  })
  t.deepEqual(names.sort(), ['a', 'b'])
})
