import { createHmac, createPublicKey, generateKeyPairSync, type KeyObject, X509Certificate } from 'node:crypto'
import test, { type ExecutionContext } from 'ava'
import { exportJWK, type JWTPayload, SignJWT } from 'jose'
import { createAuthorizers } from '../../src/auth/authorizers.ts'
import { customX509 } from '../../src/auth/custom.ts'
import type { PeerCertificate } from '../../src/connection.ts'
import { NO_METRICS } from '../../src/control/metrics.ts'
import { NO_VARIABLES, OPEN_GRANTS } from '../../src/policy/permit.ts'
import type { AuthorizerEntry } from '../../src/registry/entries.ts'
import { createRegistry } from '../../src/registry/registry.ts'
import { ARN, authenticatedAs } from '../support/identity.ts'
import {
  ca,
  connect,
  customOver,
  deadlineFor,
  FAULTS,
  get,
  type Peer,
  registryOf,
  startPeer,
} from './authorizer-peer.ts'
import { behavesLikeAnAuthenticator, connectionOf } from './conformance.ts'

type Jwt = Extract<AuthorizerEntry, { kind: 'jwt' }>

const SIGNAL = new AbortController().signal
const NOW = Date.parse('2026-01-01T00:00:00Z')
const SECONDS = NOW / 1_000

const ec = generateKeyPairSync('ec', { namedCurve: 'P-256' })
const other = generateKeyPairSync('ec', { namedCurve: 'P-256' })
const rsa = generateKeyPairSync('rsa', { modulusLength: 2_048 })

const CLAIMS: JWTPayload = { sub: 'device-1', iss: 'https://id.internal', aud: 'devices', exp: SECONDS + 3_600 }

function tokenWith(
  claims: Readonly<Record<string, unknown>> = {},
  header: object = {},
  key: KeyObject = ec.privateKey,
): Promise<string> {
  return new SignJWT({ ...CLAIMS, ...claims }).setProtectedHeader({ alg: 'ES256', ...header }).sign(key)
}

const entry = (changes: Partial<Jwt> = {}): Jwt => ({
  kind: 'jwt',
  name: 'people',
  status: 'ACTIVE',
  digest: 'd',
  tokenKeyName: null,
  signingKeys: null,
  cacheForHttp: false,
  shareForMs: null,
  timeoutMs: 5_000,
  concurrency: 8,
  jwksUrl: null,
  keys: [ec.publicKey],
  ca: null,
  algorithms: ['ES256'],
  issuer: 'https://id.internal',
  audience: 'devices',
  tokenFrom: 'password',
  principal: 'sub',
  policies: ['devices'],
  ...changes,
})

function over(t: ExecutionContext, one: Jwt, wallClock = () => NOW) {
  const authorizers = createAuthorizers({ metrics: NO_METRICS, now: () => 0, random: () => 0, wallClock })
  const registry = createRegistry([], {
    authorizer: (name) => (name === one.name ? one : null),
    grants: (names) =>
      names.includes('devices') ? OPEN_GRANTS : { permit: () => ({ allows: () => false, allowsAll: () => false }) },
  })
  return customOver(t, [one], { authorizers, registry: () => registry })
}

const withPassword = (password: string) =>
  ({ kind: 'custom', http: null, mqtt: connect({ username: 'someone', password: Buffer.from(password) }) }) as const

const ask = (t: ExecutionContext, token: string, changes: Partial<Jwt> = {}) =>
  over(t, entry(changes)).authenticate(withPassword(token), connectionOf(), SIGNAL)

behavesLikeAnAuthenticator(test, 'custom by JWT', async (t) => {
  const peer = await startPeer(t)
  peer.behavior = FAULTS['answers 500']!
  return {
    authenticator: over(t, entry()),
    accepted: withPassword(await tokenWith()),
    refused: withPassword(await tokenWith({}, {}, other.privateKey)),
    faulty: over(t, remote(peer)),
    faultCode: 'ERR_AUTHORIZER_UNAVAILABLE',
  }
})

test('the principal, its texts and its end come from the claims', async (t) => {
  const token = await tokenWith({ site: 'berlin', 'bad name': 'x', level: 3, authorizer: 'mine', secret: 'a\nb' })
  const outcome = await ask(t, token)
  if (outcome.kind === 'denied') return t.fail(outcome.detail)
  t.is(outcome.principal.id, 'device-1')
  t.deepEqual(
    { ...outcome.principal.attributes },
    {
      sub: 'device-1',
      iss: 'https://id.internal',
      aud: 'devices',
      site: 'berlin',
      authorizer: 'people',
    },
  )
  // Ten seconds for clocks that differ.
  t.is(outcome.disconnectAfterMs, 3_610_000)
  t.is(outcome.refreshAfterMs, null)
  t.true(outcome.grants.permit(ARN, NO_VARIABLES).allows('iot:Connect', 'client/a'))
})

test('a token that lasts longer than a day lets stay for a day', async (t) => {
  t.like(await ask(t, await tokenWith({ exp: SECONDS + 10_000_000 })), { disconnectAfterMs: 86_400_000 })
})

test('without a policy nothing is allowed', async (t) => {
  const outcome = await ask(t, await tokenWith(), { policies: [] })
  if (outcome.kind === 'denied') return t.fail(outcome.detail)
  t.false(outcome.grants.permit(ARN, NO_VARIABLES).allows('iot:Connect', 'client/a'))
})

const b64 = (value: unknown) =>
  Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url')
const spki = String(ec.publicKey.export({ type: 'spki', format: 'pem' }))
const hmacToken = (key: string) => {
  const head = `${b64({ alg: 'HS256' })}.${b64(CLAIMS)}`
  return `${head}.${createHmac('sha256', key).update(head).digest('base64url')}`
}
const jwkOf = (key: KeyObject) => exportJWK(createPublicKey(key.export({ type: 'spki', format: 'pem' })))

// Attacks: RFC 8725, and CVE-2015-9235, CVE-2022-23539, -23540, -23541.
const refuses = test.macro({
  async exec(t, _: string, token: () => string | Promise<string>, changes: Partial<Jwt> = {}) {
    const outcome = await ask(t, await token(), changes)
    t.like(outcome, { kind: 'denied', code: 'ERR_CREDENTIALS_REFUSED' })
    if (outcome.kind === 'denied') t.regex(outcome.detail, /^[^\r\n]{1,300}$/)
  },
  title: (_, what: string) => `refuses ${what}`,
})
test(refuses, 'alg none', () => `${b64({ alg: 'none' })}.${b64(CLAIMS)}.`)
test(
  refuses,
  'alg None with a signature',
  async () => `${b64({ alg: 'None' })}.${b64(CLAIMS)}.${(await tokenWith()).split('.')[2]}`,
)
test(refuses, 'HMAC with the public key as its secret', () => hmacToken(spki))
test(refuses, 'HMAC with an empty secret', () => hmacToken(''))
test(refuses, 'HMAC, even if somebody configured it', () => hmacToken(spki), { algorithms: ['HS256', 'ES256'] })
test(refuses, 'RSA where ECDSA is pinned', () => tokenWith({}, { alg: 'RS256' }, rsa.privateKey))
test(refuses, 'PS256 where RS256 is pinned', () => tokenWith({}, { alg: 'PS256' }, rsa.privateKey), {
  algorithms: ['RS256'],
  keys: [rsa.publicKey],
})
test(refuses, 'the key of a stranger', () => tokenWith({}, {}, other.privateKey))
test(refuses, 'the key of a stranger, sent along', async () =>
  tokenWith({}, { jwk: await jwkOf(other.publicKey) }, other.privateKey),
)
test(refuses, 'a kid that is a path', () => tokenWith({}, { kid: '../../../../dev/null' }, other.privateKey))
test(
  refuses,
  'a critical header that is not understood',
  () => `${b64({ alg: 'ES256', crit: ['x'], x: 1 })}.${b64(CLAIMS)}.AAAA`,
)
test(refuses, 'an unencoded payload', () => `${b64({ alg: 'ES256', crit: ['b64'], b64: false })}.${b64(CLAIMS)}.AAAA`)
test(refuses, 'a token without exp', () => tokenWith({ exp: undefined }))
test(refuses, 'an exp that is a text', () => tokenWith({ exp: '9999999999' as unknown as number }))
test(refuses, 'a token past its exp', () => tokenWith({ exp: SECONDS - 11 }))
test(refuses, 'a token before its nbf', () => tokenWith({ nbf: SECONDS + 11 }))
test(refuses, 'a token without aud', () => tokenWith({ aud: undefined }))
test(refuses, 'another aud', () => tokenWith({ aud: 'others' }))
test(refuses, 'a token without iss', () => tokenWith({ iss: undefined }))
test(refuses, 'another iss', () => tokenWith({ iss: 'https://id.internal.example' }))
test(refuses, 'a token without the claim of the principal', () => tokenWith({ sub: undefined }))
test(refuses, 'a principal that is a number', () => tokenWith({ id: 7 }), { principal: 'id' })
test(refuses, 'a principal with a line break', () => tokenWith({ sub: 'a\nb' }))
test(refuses, 'a principal with a space', () => tokenWith({ sub: 'a b' }))
test(refuses, 'an empty principal', () => tokenWith({ sub: '' }))
test(refuses, 'a principal of 129 characters', () => tokenWith({ sub: 'a'.repeat(129) }))
test(refuses, 'the principal of every object', () => tokenWith(), { principal: 'constructor' })
test(refuses, 'what is no token', () => 'hello')
test(refuses, 'three empty parts', () => '..')
test(refuses, 'a token with another payload', async () => {
  const [head, , signature] = (await tokenWith()).split('.')
  return `${head}.${b64({ ...CLAIMS, sub: 'admin' })}.${signature}`
})
test(refuses, 'a token encrypted and not signed', () => `${b64({ alg: 'dir', enc: 'A256GCM' })}....`)

test('clocks may differ by ten seconds', async (t) => {
  t.is((await ask(t, await tokenWith({ exp: SECONDS - 9 }))).kind, 'authenticated')
  t.is((await ask(t, await tokenWith({ nbf: SECONDS + 9 }))).kind, 'authenticated')
})

test('one of several audiences is enough, and null leaves issuer and audience unchecked', async (t) => {
  t.is((await ask(t, await tokenWith({ aud: ['a', 'devices'] }))).kind, 'authenticated')
  const free = await ask(t, await tokenWith({ aud: undefined, iss: undefined }), { issuer: null, audience: null })
  t.is(free.kind, 'authenticated')
})

test('of several keys any that fits may have signed', async (t) => {
  const keys = [rsa.publicKey, other.publicKey, ec.publicKey]
  const algorithms = ['RS256', 'ES256']
  t.is((await ask(t, await tokenWith(), { keys, algorithms })).kind, 'authenticated')
  t.is(
    (await ask(t, await tokenWith({}, { alg: 'RS256' }, rsa.privateKey), { keys, algorithms })).kind,
    'authenticated',
  )
  t.is((await ask(t, await tokenWith(), { keys: [other.publicKey] })).kind, 'denied')
})

test('no token is absent, and one that is too long is malformed before it is looked at', async (t) => {
  t.like(await ask(t, ''), { kind: 'denied', code: 'ERR_CREDENTIALS_ABSENT' })
  t.like(await ask(t, 'a'.repeat(6_145)), { kind: 'denied', code: 'ERR_CREDENTIALS_MALFORMED' })
  t.like(await ask(t, '\u{10ffff}'.repeat(10)), { kind: 'denied', code: 'ERR_CREDENTIALS_REFUSED' })
})

test('a token is taken from the place that is configured, and from no other', async (t) => {
  const token = await tokenWith()
  const basic = (user: string, password: string) => `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}`
  const shapes = {
    password: [
      withPassword(token),
      { kind: 'custom', http: get('/', 'Authorization', basic('me', token)), mqtt: null },
    ],
    username: [
      { kind: 'custom', http: null, mqtt: connect({ username: `${token}?SDK=x`, password: null }) },
      { kind: 'custom', http: get('/', 'Authorization', basic(token, 'x')), mqtt: null },
    ],
    parameter: [
      { kind: 'custom', http: null, mqtt: connect({ username: `me?authorization=${token}`, password: null }) },
      { kind: 'custom', http: get('/', 'Authorization', `Bearer ${token}`), mqtt: null },
      { kind: 'custom', http: get(`/?authorization=${token}`), mqtt: null },
    ],
  } as const
  for (const [from, all] of Object.entries(shapes)) {
    for (const tokenFrom of ['password', 'username', 'parameter'] as const) {
      const authenticator = over(t, entry({ tokenFrom, tokenKeyName: 'authorization' }))
      for (const credentials of all) {
        const outcome = await authenticator.authenticate(credentials, connectionOf(), SIGNAL)
        t.is(outcome.kind, tokenFrom === from ? 'authenticated' : 'denied', `${from} for ${tokenFrom}`)
      }
    }
  }
})

test('another set of policies counts at once, on a live connection too', async (t) => {
  let current = entry()
  const authorizers = createAuthorizers({ metrics: NO_METRICS, wallClock: () => NOW })
  const asked: (readonly string[])[] = []
  const grants = (names: readonly string[]) => {
    asked.push(names)
    return OPEN_GRANTS
  }
  const registry = () => createRegistry([], { authorizer: () => current, grants })
  const authenticator = customOver(t, [current], { authorizers, registry })
  const outcome = await authenticator.authenticate(withPassword(await tokenWith()), connectionOf(), SIGNAL)
  if (outcome.kind === 'denied') return t.fail(outcome.detail)
  current = entry({ policies: ['fewer'] })
  t.is(outcome.rejudge().kind, 'authenticated')
  t.deepEqual(asked, [['devices'], ['fewer']])
})

test('a refresh after the end of the token is a no', async (t) => {
  let now = NOW
  const authenticator = over(t, entry(), () => now)
  const outcome = await authenticator.authenticate(withPassword(await tokenWith()), connectionOf(), SIGNAL)
  if (outcome.kind === 'denied') return t.fail(outcome.detail)
  now += 3_611_000
  t.like(await outcome.refresh(SIGNAL), { kind: 'denied', code: 'ERR_CREDENTIALS_REFUSED' })
})

// Key sets.
const remote = (peer: Peer, changes: Partial<Jwt> = {}): Jwt =>
  entry({ keys: null, jwksUrl: new URL(`https://localhost:${peer.port}/jwks`), ca: [ca.certPem], ...changes })

async function keySet(...keys: (readonly [KeyObject, object])[]) {
  return { keys: await Promise.all(keys.map(async ([key, more]) => ({ ...(await exportJWK(key)), ...more }))) }
}

test('a key set is read once, and its key is picked by kid', async (t) => {
  const peer = await startPeer(t)
  peer.behavior = await keySet([other.publicKey, { kid: 'a' }], [ec.publicKey, { kid: 'b' }])
  const authenticator = over(t, remote(peer))
  const token = await tokenWith({}, { kid: 'b' })
  const asking = Array.from({ length: 20 }, () =>
    authenticator.authenticate(withPassword(token), connectionOf(), SIGNAL),
  )
  for (const outcome of await Promise.all(asking)) t.is(outcome.kind, 'authenticated')
  t.is(peer.calls.length, 1)
  const wrong = withPassword(await tokenWith({}, { kid: 'a' }))
  t.is((await authenticator.authenticate(wrong, connectionOf(), SIGNAL)).kind, 'denied')
})

test('a token without kid is tried with every key that fits', async (t) => {
  const peer = await startPeer(t)
  peer.behavior = await keySet([other.publicKey, { kid: 'a' }], [ec.publicKey, { kid: 'b' }])
  const authenticator = over(t, remote(peer))
  t.is(
    (await authenticator.authenticate(withPassword(await tokenWith()), connectionOf(), SIGNAL)).kind,
    'authenticated',
  )
  const stranger = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const wrong = withPassword(await tokenWith({}, {}, stranger.privateKey))
  t.is((await authenticator.authenticate(wrong, connectionOf(), SIGNAL)).kind, 'denied')
})

test('a hundred tokens with made-up kids ask for the key set no more often', async (t) => {
  const peer = await startPeer(t)
  peer.behavior = await keySet([ec.publicKey, { kid: 'a' }])
  const authenticator = over(t, remote(peer))
  for (let count = 0; count < 100; count++) {
    const token = await tokenWith({}, { kid: `made-up-${count}`, jku: `https://localhost:${peer.port}/evil` })
    const outcome = await authenticator.authenticate(withPassword(token), connectionOf(), SIGNAL)
    t.like(outcome, { kind: 'denied', code: 'ERR_CREDENTIALS_REFUSED' })
  }
  t.is(peer.calls.length, 1)
})

test('a symmetric key in a key set makes no HMAC token good', async (t) => {
  const peer = await startPeer(t)
  peer.behavior = { keys: [{ kty: 'oct', k: Buffer.from('secret').toString('base64url'), alg: 'HS256' }] }
  const outcome = await over(t, remote(peer)).authenticate(withPassword(hmacToken('secret')), connectionOf(), SIGNAL)
  t.like(outcome, { kind: 'denied', code: 'ERR_CREDENTIALS_REFUSED' })
})

for (const [fault, behavior] of Object.entries(FAULTS)) {
  test(`an issuer that ${fault} admits nobody, denies nobody, and is asked again`, async (t) => {
    const peer = await startPeer(t)
    peer.behavior = behavior
    const authenticator = over(t, remote(peer, { timeoutMs: deadlineFor(fault) }))
    const token = withPassword(await tokenWith())
    await t.throwsAsync(authenticator.authenticate(token, connectionOf(), SIGNAL), {
      name: 'ProxyError',
      code: 'ERR_AUTHORIZER_UNAVAILABLE',
    })
    peer.behavior = await keySet([ec.publicKey, {}])
    t.is((await authenticator.authenticate(token, connectionOf(), SIGNAL)).kind, 'authenticated')
  })
}

test('a device that leaves does not end the fetch of keys for the others', async (t) => {
  const peer = await startPeer(t)
  const leaving = new AbortController()
  const jwks = JSON.stringify(await keySet([ec.publicKey, {}]))
  peer.behavior = (_, response) => {
    leaving.abort(new Error('left'))
    setImmediate(() => response.end(jwks))
  }
  const authenticator = over(t, remote(peer))
  const token = withPassword(await tokenWith())
  const [left, stays] = [
    authenticator.authenticate(token, connectionOf(), leaving.signal),
    authenticator.authenticate(token, connectionOf(), SIGNAL),
  ]
  await t.throwsAsync(left)
  t.is((await stays).kind, 'authenticated')
  t.is(peer.calls.length, 1)
})

test('beside a certificate a token of somebody else is refused, and no claim speaks for the certificate', async (t) => {
  const authorizers = createAuthorizers({ metrics: NO_METRICS, now: () => 0, random: () => 0, wallClock: () => NOW })
  t.teardown(() => authorizers.close())
  const id = 'ab'.repeat(32)
  const certified = authenticatedAs({ id, method: 'x509', attributes: { commonName: 'device-1', thingName: 'pump' } })
  const authenticator = customX509(
    {
      registry: () => registryOf(entry()),
      authorizers,
      allowed: [],
      defaultAuthorizer: 'people',
      allowOverride: false,
    },
    { method: 'x509', authenticate: async () => certified },
  )
  const peer: PeerCertificate = { leaf: new X509Certificate(ca.certPem), chain: [], verifyError: null }
  const withToken = async (claims: object) =>
    authenticator.authenticate(
      { ...withPassword(await tokenWith({ ...claims })), kind: 'custom-x509', peer },
      connectionOf(),
      SIGNAL,
    )
  t.like(await withToken({}), { kind: 'denied', code: 'ERR_CREDENTIALS_REFUSED' })
  const outcome = await withToken({ sub: id, thingName: 'valve', site: 'berlin' })
  if (outcome.kind === 'denied') return t.fail(outcome.detail)
  t.like(outcome.principal.attributes, { commonName: 'device-1', thingName: 'pump', site: 'berlin' })
})
