import test from 'ava'
import fc from 'fast-check'
import type { HttpProof, MqttProof } from '../../src/auth/authenticator.ts'
import { presentsCustom, readParameters } from '../../src/auth/parameters.ts'

const http = (target: string, ...rawHeaders: string[]): HttpProof => ({ method: 'GET', target, rawHeaders, body: null })
const mqtt = (username: string | null): MqttProof => ({ clientId: 'c', username, password: null })

const NAME = 'x-amz-customauthorizer-name'
const SIGNATURE = 'x-amz-customauthorizer-signature'

interface Expected {
  readonly authorizer?: string | null
  readonly token?: string | null
  readonly signature?: string | null
  readonly user?: string | null
}

const reads = test.macro({
  exec(t, _: string, from: HttpProof | null, connect: MqttProof | null, expected: Expected) {
    const parameters = readParameters(from, connect)
    const token = parameters.token('MyToken')
    t.is(token.kind, 'found')
    t.deepEqual(
      {
        authorizer: parameters.authorizer(),
        token: token.kind === 'found' ? (token.value?.text ?? null) : token,
        signature: parameters.signature(),
        user: parameters.user,
      },
      {
        authorizer: { kind: 'found', value: expected.authorizer ?? null },
        token: expected.token ?? null,
        signature: { kind: 'found', value: expected.signature ?? null },
        user: expected.user ?? null,
      },
    )
  },
  title: (_, what: string) => `reads ${what}`,
})

const ALL = { authorizer: 'MyAuth', token: 'abc123', signature: 'dGVzdA==' }

// The examples of the wire specification §4.2.
test(
  reads,
  'a user name with parameters',
  null,
  mqtt(`alice?${NAME}=MyAuth&MyToken=abc123&${SIGNATURE}=dGVzdA%3D%3D`),
  { ...ALL, user: 'alice' },
)
test(reads, 'the query of an upgrade', http(`/mqtt?${NAME}=MyAuth&MyToken=abc123&${SIGNATURE}=dGVzdA%3D%3D`), null, ALL)
test(
  reads,
  'the query of a publish',
  http(`/topics/t%2F1?qos=1&${NAME}=MyAuth&MyToken=abc123&${SIGNATURE}=dGVzdA%3D%3D`),
  null,
  ALL,
)
test(reads, 'headers', http('/mqtt', NAME, 'MyAuth', 'MyToken', 'abc123', SIGNATURE, 'dGVzdA=='), null, ALL)
test(
  reads,
  'header names in any case',
  http('/mqtt', NAME.toUpperCase(), 'MyAuth', 'mytoken', 'abc123', 'X-Amz-CustomAuthorizer-Signature', 'dGVzdA=='),
  null,
  ALL,
)

// Spellings of SDKs, §4.2 and §11.
test(reads, 'a signature in base64 as it is', null, mqtt(`?${NAME}=MyAuth&MyToken=abc123&${SIGNATURE}=ab+/cd==`), {
  ...ALL,
  signature: 'ab+/cd==',
})
test(
  reads,
  'the same signature percent-encoded',
  null,
  mqtt(`?${NAME}=MyAuth&MyToken=abc123&${SIGNATURE}=ab%2B%2Fcd%3D%3D`),
  { ...ALL, signature: 'ab+/cd==' },
)
test(reads, 'a + as a +, in a query too', http('/mqtt?MyToken=a+b'), null, { token: 'a+b' })
test(reads, 'a header raw, without decoding', http('/mqtt', 'MyToken', 'a%20b'), null, { token: 'a%20b' })
test(reads, 'parameters in any order', null, mqtt(`a?${SIGNATURE}=dGVzdA==&MyToken=abc123&${NAME}=MyAuth`), {
  ...ALL,
  user: 'a',
})
test(reads, 'telemetry alone', null, mqtt('?SDK=PythonV2&Version=1.2'), {})
test(reads, 'telemetry behind a user', null, mqtt('alice?SDK=PythonV2'), { user: 'alice' })
test(reads, 'telemetry joined by &', null, mqtt(`alice?${NAME}=MyAuth&MyToken=abc123&SDK=PythonV2&Version=1`), {
  authorizer: 'MyAuth',
  token: 'abc123',
  user: 'alice',
})
test(
  reads,
  'telemetry behind a second ?',
  null,
  mqtt(
    `alice?${NAME}=MyAuth&MyToken=abc123?SDK=IoTDeviceSDK/JS&Platform=linux&Metadata=(CRTVersion=1;IoTSDKVersion=2)`,
  ),
  { authorizer: 'MyAuth', token: 'abc123', user: 'alice' },
)
test(reads, 'parameters behind telemetry', null, mqtt(`?SDK=x?${NAME}=MyAuth`), { authorizer: 'MyAuth' })
test(reads, 'a lone ?', null, mqtt('?'), {})
test(reads, 'a user and a lone ?', null, mqtt('alice?'), { user: 'alice' })
test(reads, 'a user name without ?', null, mqtt('alice&MyToken=abc123'), { user: 'alice&MyToken=abc123' })
test(reads, 'no user name', null, mqtt(null), {})
test(reads, 'an empty value as none', null, mqtt(`?${NAME}=&MyToken=&${SIGNATURE}`), {})
test(reads, 'a = in a value', null, mqtt('?MyToken=a=b=c'), { token: 'a=b=c' })
test(reads, 'a % that begins no escape as it is', null, mqtt('?MyToken=100%25%zz%2'), { token: '100%%zz%2' })
test(reads, 'UTF-8 in a user name', null, mqtt('?MyToken=grün%C3%BC'), { token: 'grünü' })
test(reads, 'UTF-8 in a header, as Node gives it', http('/', 'MyToken', Buffer.from('grün').toString('latin1')), null, {
  token: 'grün',
})
test(
  reads,
  'the same thing said twice alike',
  http(`/mqtt?MyToken=abc123`, 'mytoken', 'abc123'),
  mqtt('?MyToken=abc%3123'),
  { token: 'abc123' },
)
test(reads, 'a ? within a query as a character', http('/mqtt?MyToken=a?b'), null, { token: 'a?b' })
test(reads, 'names of parameters exactly', http(`/mqtt?mytoken=abc123&${NAME.toUpperCase()}=MyAuth`), null, {})

test('octets of a token are those that were sent', (t) => {
  const token = readParameters(null, mqtt('?k=%00a%7F')).token('k')
  t.deepEqual(token.kind === 'found' ? token.value?.bytes : null, Buffer.from('00617f', 'hex'))
})

const malformed = test.macro({
  exec(
    t,
    _: string,
    from: HttpProof | null,
    connect: MqttProof | null,
    what: 'authorizer' | 'signature' | 'token' | 'basic',
  ) {
    const parameters = readParameters(from, connect)
    t.is(what === 'token' ? parameters.token('MyToken').kind : parameters[what]().kind, 'malformed')
  },
  title: (_, what: string) => `does not read ${what}`,
})

test(malformed, 'two names of authorizers', http(`/mqtt?${NAME}=a`, NAME, 'b'), null, 'authorizer')
test(malformed, 'one parameter with two values', null, mqtt('?MyToken=a&MyToken=b'), 'token')
test(malformed, 'a token in the upgrade and another in CONNECT', http('/mqtt?MyToken=a'), mqtt('?MyToken=b'), 'token')
test(malformed, 'two headers of one name', http('/', 'mytoken', 'a', 'MYTOKEN', 'b'), null, 'token')
test(malformed, 'two signatures', null, mqtt(`?${SIGNATURE}=a?${SIGNATURE}=b`), 'signature')
test(malformed, 'a name that no authorizer can have', null, mqtt(`?${NAME}=a%2Fb`), 'authorizer')
test(malformed, 'a name that is too long', null, mqtt(`?${NAME}=${'a'.repeat(129)}`), 'authorizer')
test(malformed, 'a token that is too long', null, mqtt(`?MyToken=${'a'.repeat(6_145)}`), 'token')
test(malformed, 'a token that is not UTF-8', null, mqtt('?MyToken=%FF'), 'token')
test(
  malformed,
  'two Authorization headers',
  http('/', 'authorization', 'Basic YTpi', 'Authorization', 'Basic YTpj'),
  null,
  'basic',
)
test(malformed, 'Basic credentials without a user', http('/', 'authorization', 'Basic OmI='), null, 'basic')

test('the longest token and the longest name are read', (t) => {
  const parameters = readParameters(null, mqtt(`?${NAME}=${'a'.repeat(128)}&MyToken=${'é'.repeat(6_144)}`))
  t.is(parameters.authorizer().kind, 'found')
  t.is(parameters.token('MyToken').kind, 'found')
})

test('without tokenKeyName no token is looked for', (t) => {
  t.deepEqual(readParameters(http('/?null=a'), null).token(null), { kind: 'found', value: null })
})

test('Basic credentials are split at the first colon', (t) => {
  const basic = readParameters(
    http('/', 'authorization', `Basic ${Buffer.from('al:b:c').toString('base64')}`),
    null,
  ).basic()
  t.deepEqual(basic, { kind: 'found', value: { user: 'al', password: Buffer.from('b:c') } })
  t.deepEqual(readParameters(http('/', 'authorization', 'Bearer x'), null).basic(), { kind: 'found', value: null })
})

const presents = test.macro({
  exec(t, request: HttpProof, expected: boolean) {
    t.is(presentsCustom(request, ['MyToken']), expected)
  },
  title: (_, { target, rawHeaders }: HttpProof, expected: boolean) =>
    `${target} ${rawHeaders.join(' ')}: ${expected ? 'custom' : 'not custom'}`,
})
test(presents, http('/mqtt'), false)
test(presents, http('/mqtt?x=1', 'host', 'a'), false)
test(presents, http(`/mqtt?${NAME}=a`), true)
test(presents, http(`/mqtt?${SIGNATURE}=a`), true)
test(presents, http('/mqtt?MyToken=a'), true)
test(presents, http('/mqtt?mytoken=a'), false)
test(presents, http('/mqtt', 'mytoken', 'a'), true)
test(presents, http('/mqtt', 'X-Amz-Customauthorizer-Name', 'a'), true)

test('nothing that a stranger sends makes it throw, and every prefix of it is read too', (t) => {
  const piece = fc.oneof(
    fc.constantFrom('?', '&', '=', '%', '%4', '%zz', NAME, SIGNATURE, 'MyToken', '\0', '+', 'é', '\ud800'),
    fc.string({ unit: 'binary', maxLength: 6 }),
  )
  const text = fc.array(piece, { maxLength: 20 }).map((pieces) => pieces.join(''))
  fc.assert(
    fc.property(text, fc.array(text, { maxLength: 6 }), (all, headers) => {
      for (let length = 0; length <= all.length; length++) {
        const part = all.slice(0, length)
        const parameters = readParameters(http(part, ...headers), mqtt(part))
        parameters.authorizer()
        parameters.signature()
        parameters.basic()
        const token = parameters.token('MyToken')
        if (token.kind === 'found' && token.value !== null) t.is(token.value.bytes.toString(), token.value.text)
        presentsCustom(http(part, ...headers), ['MyToken'])
      }
    }),
    { numRuns: 500 },
  )
  t.pass()
})
