import test from 'ava'
import type { AuthOutcome, HttpProof } from '../../src/auth/authenticator.ts'
import { REST_SERVICES, type SigV4Options } from '../../src/auth/sigv4.ts'
import { presentsSigV4 } from '../../src/auth/sigv4-read.ts'
import type { FailureCode } from '../../src/errors.ts'
import { NO_VARIABLES, OPEN_PERMIT } from '../../src/policy/permit.ts'
import type { AccessKey } from '../../src/registry/entries.ts'
import { createRegistry } from '../../src/registry/registry.ts'
import { ARN } from '../support/identity.ts'
import { HOST, KEYS, posted, registryOf, SECRET, SIGNED_AT, TOKEN, upgrade, verifier } from '../support/sigv4.ts'
import { behavesLikeAnAuthenticator, connectionOf } from './conformance.ts'

const signal = new AbortController().signal

const ask = (http: HttpProof, changes: Partial<SigV4Options> = {}): Promise<AuthOutcome> =>
  verifier(changes).authenticate({ kind: 'sigv4', http }, connectionOf(), signal)

const resultOf = (outcome: AuthOutcome): 'ok' | FailureCode => (outcome.kind === 'denied' ? outcome.code : 'ok')

const seconds = (offset: number) => () => new Date(SIGNED_AT.getTime() + offset * 1_000)

behavesLikeAnAuthenticator(test, 'sigv4', () => ({
  authenticator: verifier(),
  accepted: { kind: 'sigv4', http: upgrade() },
  refused: { kind: 'sigv4', http: upgrade({ secret: 'another' }) },
  faulty: verifier({
    registry: () => {
      throw new Error('the registry is broken')
    },
  }),
}))

// Each row: what is sent, what it is answered. The clock stands at the time of signing.
const target = (change: (target: string) => string, http: HttpProof = upgrade()): HttpProof => ({
  ...http,
  target: change(http.target),
})
const headers = (change: (text: string) => string, http: HttpProof = posted()): HttpProof => ({
  ...http,
  rawHeaders: http.rawHeaders.map(change),
})
const withHeaders = (http: HttpProof, ...more: string[]): HttpProof => ({
  ...http,
  rawHeaders: [...http.rawHeaders, ...more],
})
const replace = (from: string | RegExp, to: string) => (text: string) => text.replace(from, to)

// biome-ignore format: a table is read down its columns
const ADMITTED: readonly (readonly [string, HttpProof])[] = [
  ['a presigned upgrade without X-Amz-Expires, as the IoT SDKs make it', upgrade()],
  ['a presigned upgrade with X-Amz-Expires', upgrade({ expiresSeconds: 86_400 })],
  ['an upgrade whose host is signed with the port it was received with', upgrade({ host: `${HOST}:8443` })],
  ['a presigned upgrade with Basic credentials beside it', withHeaders(upgrade(), 'Authorization', 'Basic eDp5')],
  ['a temporary key with its token outside of the signature', upgrade({ accessKeyId: 'ASIAEXAMPLE', sessionToken: TOKEN })],
  ['parameters in another order', target((text) => `${text.replace(/X-Amz-Algorithm=[^&]*&/, '')}&X-Amz-Algorithm=AWS4-HMAC-SHA256`)],
  ['escapes in lower case', target((text) => text.replaceAll('%2F', '%2f'))],
  ['an upgrade signed in its headers', { ...posted({ method: 'GET', target: '/mqtt', service: 'iotdevicegateway', body: new Uint8Array() }), body: null }],
  ['SDK v2: connection;host as the signed headers', { ...posted({ method: 'GET', target: '/mqtt', service: 'iotdevicegateway', body: new Uint8Array(), headers: ['Connection', 'Upgrade'], signedHeaders: 'connection;host;x-amz-date' }), body: null }],
  ['a publish signed for iotdata', posted()],
  ['a publish signed for iotdevicegateway', posted({ service: 'iotdevicegateway' })],
  ['a publish with an empty body', posted({ body: new Uint8Array() })],
  ['a publish with the SHA-256 of its body', posted({ headers: ['x-amz-content-sha256', 'bd0d627406ce45439ab17b9e26ed56de666517e00705d4ea85754ef624be28e4'], signedHeaders: 'host;x-amz-content-sha256;x-amz-date' })],
  ['a publish with a temporary key and its token unsigned', posted({ accessKeyId: 'ASIAEXAMPLE', headers: ['X-Amz-Security-Token', TOKEN] })],
  ['a publish with a temporary key and its token signed', posted({ accessKeyId: 'ASIAEXAMPLE', headers: ['X-Amz-Security-Token', TOKEN], signedHeaders: 'host;x-amz-date;x-amz-security-token' })],
  ['a publish dated by an HTTP date', posted({ date: ['Date', 'Sun, 30 Aug 2015 12:36:00 GMT'], signedHeaders: 'date;host' })],
  ['a publish dated by Date in the basic form', posted({ date: ['Date', '20150830T123600Z'], signedHeaders: 'date;host' })],
  ['X-Amz-Date counts before Date', posted({ headers: ['Date', 'Mon, 01 Jan 2001 00:00:00 GMT'] })],
  ['Authorization without spaces after its commas', headers(replace(/, /g, ','))],
  ['a plus sign in the query stays one', posted({ target: '/topics/a?contentType=a+b&qos=1' })],
  ['a signed header that came twice', posted({ headers: ['x-amz-meta', ' a  b ', 'X-Amz-Meta', 'c'], signedHeaders: 'host;x-amz-date;x-amz-meta' })],
  ['headers of proxies that nobody signed', withHeaders(posted(), 'X-Amzn-Trace-Id', 'Root=1', 'User-Agent', 'curl')],
]

for (const [what, http] of ADMITTED) {
  test(`${what}: admitted`, async (t) => {
    t.true(presentsSigV4(http))
    const outcome = await ask(http)
    if (outcome.kind === 'denied') return t.fail(`${outcome.code}: ${outcome.detail}`)
    t.like(outcome, { disconnectAfterMs: null, refreshAfterMs: null, variables: NO_VARIABLES })
    t.regex(outcome.principal.id, /^(AKID|ASIA)EXAMPLE$/)
    t.is(outcome.grants.permit(ARN, NO_VARIABLES), OPEN_PERMIT)
  })
}

const ZEROS = '0'.repeat(64)
const JULY = upgrade({ at: new Date('2015-07-30T12:36:00Z') }).target

// biome-ignore format: a table is read down its columns
const REFUSED: readonly (readonly [FailureCode, string, HttpProof])[] = [
  ['ERR_CREDENTIALS_ABSENT',    'a request without any of it', { method: 'GET', target: '/mqtt', rawHeaders: ['Host', HOST], body: null }],
  ['ERR_CREDENTIALS_ABSENT',    'Basic credentials', { method: 'POST', target: '/topics/a', rawHeaders: ['Host', HOST, 'Authorization', 'Basic eDp5'], body: new Uint8Array() }],
  ['ERR_CREDENTIALS_MALFORMED', 'a signature in the headers and in the query', { ...posted({ method: 'GET', target: upgrade().target }), body: null }],
  ['ERR_CREDENTIALS_MALFORMED', 'a signature in the headers and a token in the query', { ...posted({ target: '/topics/a?X-Amz-Security-Token=x' }) }],
  ['ERR_CREDENTIALS_MALFORMED', 'a signature in the query and a token in the headers', withHeaders(upgrade(), 'X-Amz-Security-Token', TOKEN)],
  ['ERR_CREDENTIALS_MALFORMED', 'a parameter twice', target((text) => `${text}&X-Amz-Date=20150830T123600Z`)],
  ['ERR_CREDENTIALS_MALFORMED', 'a parameter twice, once in other letters', target((text) => `${text}&x-amz-date=20150830T123600Z`)],
  ['ERR_CREDENTIALS_MALFORMED', 'a parameter twice, once in escapes', target((text) => `${text}&X%2dAmz-Date=20150830T123600Z`)],
  ['ERR_CREDENTIALS_MALFORMED', 'any X-Amz parameter twice', target((text) => `${text}&X-Amz-Other=1&x-amz-other=1`)],
  ['ERR_CREDENTIALS_MALFORMED', 'a parameter in another spelling', target(replace('X-Amz-Date', 'x-amz-date'))],
  ['ERR_CREDENTIALS_MALFORMED', 'a broken escape', target(replace('%2F', '%2'))],
  ['ERR_CREDENTIALS_MALFORMED', 'an octet that no target has', target((text) => `${text}&a=\xe9`)],
  ['ERR_CREDENTIALS_MALFORMED', 'a target that is not a path', target((text) => `https://${HOST}${text}`)],
  ['ERR_CREDENTIALS_MALFORMED', 'a path with an empty segment, which its signature does not show', target((text) => `/${text}`)],
  ['ERR_CREDENTIALS_MALFORMED', 'a topic with an empty level that nobody signed', { ...posted({ target: '/topics/a' }), target: '/topics//a' }],
  ['ERR_CREDENTIALS_MALFORMED', 'another topic with dot segments behind it', { ...posted({ target: '/topics/a' }), target: '/topics/b/../a' }],
  ['ERR_CREDENTIALS_MALFORMED', 'a target of more than 16 KiB', target((text) => `${text}&a=${'a'.repeat(16_384)}`)],
  ['ERR_CREDENTIALS_MALFORMED', 'headers of more than 64 KiB', withHeaders(posted(), 'a', 'a'.repeat(65_536))],
  ['ERR_CREDENTIALS_MALFORMED', 'a method that is none', { ...posted(), method: 'POST\n' }],
  ['ERR_CREDENTIALS_MALFORMED', 'another algorithm in the query', target(replace('SHA256', 'SHA512'))],
  ['ERR_CREDENTIALS_MALFORMED', 'another algorithm in the headers', headers(replace('AWS4-HMAC-SHA256', 'AWS4-ECDSA-P256-SHA256'))],
  ['ERR_CREDENTIALS_MALFORMED', 'no algorithm', target(replace(/X-Amz-Algorithm=[^&]*&/, ''))],
  ['ERR_CREDENTIALS_MALFORMED', 'no credential', target(replace(/X-Amz-Credential=[^&]*&/, ''))],
  ['ERR_CREDENTIALS_MALFORMED', 'no date', target(replace(/X-Amz-Date=[^&]*&/, ''))],
  ['ERR_CREDENTIALS_MALFORMED', 'no signed headers', target(replace(/X-Amz-SignedHeaders=[^&]*&/, ''))],
  ['ERR_CREDENTIALS_MALFORMED', 'no signature', target(replace(/&X-Amz-Signature=[^&]*/, ''))],
  ['ERR_CREDENTIALS_MALFORMED', 'a credential of four parts', target(replace('%2Faws4_request', ''))],
  ['ERR_CREDENTIALS_MALFORMED', 'a credential of six parts', target(replace('%2Faws4_request', '%2Faws4_request%2Fx'))],
  ['ERR_CREDENTIALS_MALFORMED', 'a credential with another end', target(replace('aws4_request', 'aws4_requests'))],
  ['ERR_CREDENTIALS_MALFORMED', 'a key id with a line break', target(replace('AKIDEXAMPLE', 'AKID%0AEXAMPLE'))],
  ['ERR_CREDENTIALS_MALFORMED', 'a day that is none', target(replace('20150830T', '20150631T'))],
  ['ERR_CREDENTIALS_MALFORMED', 'a date in another form', target(replace('T123600Z', 'T12:36:00Z'))],
  ['ERR_CREDENTIALS_MALFORMED', 'expires in 0 s', target(replace('X-Amz-Date', 'X-Amz-Expires=0&X-Amz-Date'))],
  ['ERR_CREDENTIALS_MALFORMED', 'expires in more than seven days', target(replace('X-Amz-Date', 'X-Amz-Expires=604801&X-Amz-Date'))],
  ['ERR_CREDENTIALS_MALFORMED', 'expires in no number', target(replace('X-Amz-Date', 'X-Amz-Expires=1e3&X-Amz-Date'))],
  ['ERR_CREDENTIALS_MALFORMED', 'host is not signed', posted({ signedHeaders: 'x-amz-date' })],
  ['ERR_CREDENTIALS_MALFORMED', 'signed headers out of order', posted({ signedHeaders: 'x-amz-date;host' })],
  ['ERR_CREDENTIALS_MALFORMED', 'a signed header named twice', posted({ signedHeaders: 'host;host;x-amz-date' })],
  ['ERR_CREDENTIALS_MALFORMED', 'a signed header in upper case', posted({ signedHeaders: 'Host;x-amz-date' })],
  ['ERR_CREDENTIALS_MALFORMED', 'an empty signed header', posted({ signedHeaders: ';host;x-amz-date' })],
  ['ERR_CREDENTIALS_MALFORMED', 'more than 64 signed headers', posted({ signedHeaders: [...Array.from({ length: 63 }, (_, at) => `a${String(at).padStart(2, '0')}`), 'host', 'x-amz-date'].join(';') })],
  ['ERR_CREDENTIALS_MALFORMED', 'two dates', withHeaders(posted(), 'x-amz-date', '20150830T123600Z')],
  ['ERR_CREDENTIALS_MALFORMED', 'two Authorization fields', withHeaders(posted(), 'authorization', 'Basic eDp5')],
  ['ERR_CREDENTIALS_MALFORMED', 'two session tokens', withHeaders(posted({ accessKeyId: 'ASIAEXAMPLE', headers: ['X-Amz-Security-Token', TOKEN] }), 'X-Amz-Security-Token', TOKEN)],
  ['ERR_CREDENTIALS_MALFORMED', 'no date in the headers', posted({ date: [], signedHeaders: 'host' })],
  ['ERR_CREDENTIALS_MALFORMED', 'an HTTP date on the wrong day of the week', posted({ date: ['Date', 'Mon, 30 Aug 2015 12:36:00 GMT'], signedHeaders: 'date;host' })],
  ['ERR_CREDENTIALS_MALFORMED', 'Authorization with a part twice', headers(replace('Signature=', `Signature=${ZEROS}, Signature=`))],
  ['ERR_CREDENTIALS_MALFORMED', 'Authorization with a part that is none', headers(replace('Signature=', 'X=1, Signature='))],
  ['ERR_CREDENTIALS_MALFORMED', 'Authorization without a signature', headers(replace(/, Signature=.*/, ''))],
  ['ERR_CREDENTIALS_MALFORMED', 'Authorization that ends after the algorithm', headers(replace(/^AWS4-HMAC-SHA256 .*/, 'AWS4-HMAC-SHA256'))],
  ['ERR_ACCESS_KEY_UNKNOWN',    'a key that nobody knows', upgrade({ accessKeyId: 'AKIDNOBODY' })],
  ['ERR_ACCESS_KEY_UNKNOWN',    'a key that nobody knows, in the headers', posted({ accessKeyId: 'AKIDNOBODY' })],
  ['ERR_ACCESS_KEY_UNKNOWN',    'a key that is INACTIVE', upgrade({ accessKeyId: 'AKIDINACTIVE' })],
  ['ERR_SIGNATURE_MISMATCH',    'another secret', upgrade({ secret: `${SECRET}x` })],
  ['ERR_SIGNATURE_MISMATCH',    'another region', upgrade({ region: 'eu-west-1' })],
  ['ERR_SIGNATURE_MISMATCH',    'iotdata on /mqtt', upgrade({ service: 'iotdata' })],
  ['ERR_SIGNATURE_MISMATCH',    'iotdata on /mqtt, the path in escapes', upgrade({ service: 'iotdata', path: '/%6Dqtt' })],
  ['ERR_SIGNATURE_MISMATCH',    'the jobs service at the data endpoint', posted({ service: 'iot-jobs-data' })],
  ['ERR_SIGNATURE_MISMATCH',    'a credential of another day', target(() => JULY.replace('X-Amz-Date=20150730', 'X-Amz-Date=20150830'))],
  ['ERR_SIGNATURE_MISMATCH',    'a signature of zeros', target(replace(/X-Amz-Signature=\w+/, `X-Amz-Signature=${ZEROS}`))],
  ['ERR_SIGNATURE_MISMATCH',    'a signature cut short', target(replace(/(X-Amz-Signature=\w+)\w/, '$1'))],
  ['ERR_SIGNATURE_MISMATCH',    'a signature in upper case', target((text) => text.replace(/X-Amz-Signature=\w+/, (found) => `X-Amz-Signature=${found.slice(16).toUpperCase()}`))],
  ['ERR_SIGNATURE_MISMATCH',    'an empty signature', target(replace(/X-Amz-Signature=\w+/, 'X-Amz-Signature='))],
  ['ERR_SIGNATURE_MISMATCH',    'a host with another port', upgrade({ host: HOST }, ['Host', `${HOST}:443`])],
  ['ERR_SIGNATURE_MISMATCH',    'no host', { ...upgrade(), rawHeaders: [] }],
  ['ERR_SIGNATURE_MISMATCH',    'two hosts', withHeaders(upgrade(), 'Host', HOST)],
  ['ERR_SIGNATURE_MISMATCH',    'a signed header that was taken out', posted({ signedHeaders: 'connection;host;x-amz-date' })],
  ['ERR_SIGNATURE_MISMATCH',    'a signed header with a line break', withHeaders(posted({ headers: ['a', 'b'], signedHeaders: 'a;host;x-amz-date' }), 'a', 'c\nd')],
  ['ERR_SIGNATURE_MISMATCH',    'an x-amz header that nobody signed', withHeaders(posted(), 'x-amz-mqtt5-correlation-data', 'eA==')],
  ['ERR_SIGNATURE_MISMATCH',    'an x-amz header beside a signed query', withHeaders(upgrade(), 'x-amz-mqtt5-correlation-data', 'eA==')],
  ['ERR_SIGNATURE_MISMATCH',    'another body', { ...posted(), body: Buffer.from('{"message":"Hellp"}') }],
  ['ERR_SIGNATURE_MISMATCH',    'a body at an upgrade', { ...upgrade(), body: Buffer.from('x') }],
  ['ERR_SIGNATURE_MISMATCH',    'another method', { ...posted(), method: 'PUT' }],
  ['ERR_SIGNATURE_MISMATCH',    'UNSIGNED-PAYLOAD', posted({ headers: ['x-amz-content-sha256', 'UNSIGNED-PAYLOAD'], signedHeaders: 'host;x-amz-content-sha256;x-amz-date' })],
  ['ERR_SIGNATURE_MISMATCH',    'the SHA-256 of another body', posted({ headers: ['x-amz-content-sha256', ZEROS], signedHeaders: 'host;x-amz-content-sha256;x-amz-date' })],
  ['ERR_SIGNATURE_MISMATCH',    'a plus sign for a space', target(replace('a+b', 'a%20b'), posted({ target: '/topics/a?contentType=a+b' }))],
  ['ERR_SIGNATURE_MISMATCH',    'a path encoded once, which no setting tolerates', posted({ encoding: 'single' })],
  ['ERR_SESSION_TOKEN_INVALID', 'a temporary key without its token', upgrade({ accessKeyId: 'ASIAEXAMPLE' })],
  ['ERR_SESSION_TOKEN_INVALID', 'a temporary key with another token', upgrade({ accessKeyId: 'ASIAEXAMPLE', sessionToken: `${TOKEN}x` })],
  ['ERR_SESSION_TOKEN_INVALID', 'a temporary key with an empty token', upgrade({ accessKeyId: 'ASIAEXAMPLE', sessionToken: '' })],
  ['ERR_SESSION_TOKEN_INVALID', 'a token for a key that has none', upgrade({ sessionToken: TOKEN })],
  ['ERR_SESSION_TOKEN_INVALID', 'a temporary key that the registry has no token for', upgrade({ accessKeyId: 'ASIATOKENLESS' })],
  ['ERR_SESSION_TOKEN_INVALID', 'another token in the headers', posted({ accessKeyId: 'ASIAEXAMPLE', headers: ['X-Amz-Security-Token', 'x'] })],
]

for (const [code, what, http] of REFUSED) {
  test(`${what}: ${code}`, async (t) => {
    t.is(presentsSigV4(http), code !== 'ERR_CREDENTIALS_ABSENT')
    const outcome = await ask(http)
    t.is(resultOf(outcome), code)
    if (outcome.kind === 'denied') t.false([SECRET, TOKEN, HOST].some((text) => outcome.detail.includes(text)))
  })
}

// biome-ignore format: a table is read down its columns
const CLOCK: readonly (readonly [string, HttpProof, Partial<SigV4Options>, readonly [seconds: number, ok: boolean][]])[] = [
  ['signed headers count for the skew',                    posted(),                         {}, [[-300.001, false], [-300, true], [300, true], [300.001, false]]],
  ['a presigned query counts for its age and the skew',    upgrade(),                        {}, [[-300.001, false], [-300, true], [600, true], [600.001, false]]],
  ['X-Amz-Expires makes the age shorter',                  upgrade({ expiresSeconds: 60 }),  {}, [[-300.001, false], [-300, true], [360, true], [360.001, false]]],
  ['X-Amz-Expires never makes it longer',                  upgrade({ expiresSeconds: 604_800 }), {}, [[600, true], [600.001, false]]],
  ['both are settings',                                    upgrade(),  { clockSkewMs: 0, maxPresignAgeMs: 1_000 }, [[-0.001, false], [0, true], [1, true], [1.001, false]]],
]

for (const [what, http, changes, edges] of CLOCK) {
  test(`${what}, to the millisecond`, async (t) => {
    for (const [offset, ok] of edges) {
      t.is(
        resultOf(await ask(http, { ...changes, now: seconds(offset) })),
        ok ? 'ok' : 'ERR_SIGNATURE_EXPIRED',
        `${offset} s`,
      )
    }
  })
}

test('a clock that tells no time admits nobody', async (t) => {
  t.is(resultOf(await ask(upgrade(), { now: () => new Date(Number.NaN) })), 'ERR_SIGNATURE_EXPIRED')
})

test('the jobs endpoint takes its own service name too', async (t) => {
  t.is(resultOf(await ask(posted({ service: 'iot-jobs-data' }), { services: REST_SERVICES.jobs })), 'ok')
  t.is(
    resultOf(await ask(upgrade({ service: 'iot-jobs-data' }), { services: REST_SERVICES.jobs })),
    'ERR_SIGNATURE_MISMATCH',
  )
})

test('a path encoded once is admitted where the setting tolerates it, and the other form still is', async (t) => {
  const changes = { allowSingleEncodedPath: true }
  t.is(resultOf(await ask(posted({ encoding: 'single' }), changes)), 'ok')
  t.is(resultOf(await ask(posted(), changes)), 'ok')
})

test('without a registry no key is known', async (t) => {
  t.is(resultOf(await ask(upgrade(), { registry: () => null })), 'ERR_ACCESS_KEY_UNKNOWN')
})

test('a registry that fails after admission ends it instead of throwing', async (t) => {
  let broken = false
  const registry = registryOf(KEYS)
  const outcome = await ask(upgrade(), {
    registry: () => {
      if (broken) throw new Error('gone')
      return registry
    },
  })
  if (outcome.kind === 'denied') return t.fail(outcome.detail)
  broken = true
  t.is(resultOf(outcome.rejudge()), 'ERR_IDENTITY_FAULT')
})

const REJUDGED: readonly (readonly [string, Partial<AccessKey> | null, 'ok' | FailureCode])[] = [
  ['unchanged', {}, 'ok'],
  ['with other policies', { policies: ['others'] }, 'ok'],
  ['gone', null, 'ERR_ACCESS_KEY_UNKNOWN'],
  ['INACTIVE', { status: 'INACTIVE' }, 'ERR_ACCESS_KEY_UNKNOWN'],
  ['with another secret', { secret: 'new' }, 'ERR_AUTHORIZATION_ENDED'],
  ['with another session token', { sessionToken: 'new' }, 'ERR_SESSION_TOKEN_INVALID'],
]

for (const [what, change, result] of REJUDGED) {
  test(`a key that is ${what} when it is judged again, long after its signature expired: ${result}`, async (t) => {
    let keys = KEYS
    let nowMs = SIGNED_AT.getTime()
    const granted: (readonly string[])[] = []
    const outcome = await ask(upgrade({ accessKeyId: 'ASIAEXAMPLE', sessionToken: TOKEN }), {
      registry: () =>
        createRegistry([], {
          accessKey: (id) => keys.find((key) => key.id === id) ?? null,
          grants: (policies) => {
            granted.push(policies)
            return { permit: () => OPEN_PERMIT }
          },
        }),
      now: () => new Date(nowMs),
    })
    if (outcome.kind === 'denied') return t.fail(outcome.detail)
    nowMs += 86_400_000
    keys = KEYS.flatMap((key) => (key.id !== 'ASIAEXAMPLE' ? [key] : change === null ? [] : [{ ...key, ...change }]))
    t.is(resultOf(outcome.rejudge()), result)
    t.is(resultOf(await outcome.refresh(signal)), result)
    if (result === 'ok') t.deepEqual(granted.at(-1), change?.policies ?? ['devices'])
    // What once ended stays ended only as long as the registry says so: every judgement starts from it.
    keys = KEYS
    t.is(resultOf(outcome.rejudge()), 'ok')
  })
}

test('a secret that changed counts at once, whatever was derived from the old one', async (t) => {
  let keys = KEYS
  const authenticator = verifier({ registry: () => registryOf(keys) })
  const decide = async (secret: string) =>
    resultOf(await authenticator.authenticate({ kind: 'sigv4', http: upgrade({ secret }) }, connectionOf(), signal))
  t.is(await decide(SECRET), 'ok')
  keys = KEYS.map((key) => ({ ...key, secret: 'new' }))
  t.is(await decide(SECRET), 'ERR_SIGNATURE_MISMATCH')
  t.is(await decide('new'), 'ok')
})
