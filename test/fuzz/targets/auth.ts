import { generateKeyPairSync, sign, verify } from 'node:crypto'
import { readAnswer } from '../../../src/auth/answer.ts'
import type { HttpProof, MqttProof } from '../../../src/auth/authenticator.ts'
import { CallFault } from '../../../src/auth/guard.ts'
import { jwt } from '../../../src/auth/jwt.ts'
import {
  NAME_PARAMETER,
  presentsCustom,
  readParameters,
  SIGNATURE_PARAMETER,
  tokenOf,
} from '../../../src/auth/parameters.ts'
import { splitTarget } from '../../../src/auth/sigv4-canonical.ts'
import { presentsSigV4, readSigned } from '../../../src/auth/sigv4-read.ts'
import { verifyToken } from '../../../src/auth/token-signature.ts'
import { NO_METRICS } from '../../../src/control/metrics.ts'
import { FAILURES } from '../../../src/errors.ts'
import type { AuthorizerEntry } from '../../../src/registry/entries.ts'
import { readPasswordFile } from '../../../src/registry/password-file.ts'
import { connectionOf } from '../../auth/conformance.ts'
import { posted, TOKEN, upgrade, verifier } from '../../support/sigv4.ts'
import { must, type Target } from '../target.ts'

const SIGNAL = new AbortController().signal

/** Method, target, name and value of each header, body: one line each, for no line can hold a line end. */
const written = ({ method, target, rawHeaders, body }: HttpProof): Buffer =>
  Buffer.from(
    [method, target, ...rawHeaders, '', body === null ? '-' : Buffer.from(body).toString('latin1')].join('\n'),
    'latin1',
  )

function proofOf(input: Buffer): HttpProof {
  const [method = '', target = '', ...rest] = input.toString('latin1').split('\n')
  const end = rest.indexOf('')
  const lines = end < 0 ? rest : rest.slice(0, end)
  const body = end < 0 ? '-' : rest.slice(end + 1).join('\n')
  return {
    method,
    target,
    rawHeaders: lines.slice(0, lines.length & ~1),
    body: body === '-' ? null : Buffer.from(body, 'latin1'),
  }
}

const SIGNED: readonly HttpProof[] = [
  upgrade(),
  upgrade({ expiresSeconds: 300 }),
  upgrade({ accessKeyId: 'ASIAEXAMPLE', sessionToken: TOKEN }),
  posted(),
  posted({ accessKeyId: 'ASIAEXAMPLE', headers: ['X-Amz-Security-Token', TOKEN], signedHeaders: 'host;x-amz-date' }),
  posted({
    headers: ['x-amz-mqtt5-correlation-data', 'a  b'],
    signedHeaders: 'host;x-amz-date;x-amz-mqtt5-correlation-data',
  }),
  posted({ target: '/topics/a%20b?b=2&a=1&a=0', body: Buffer.from('x') }),
]

const unescaped = (text: string) =>
  text.replace(/%([0-9a-f]{2})/gi, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 16)))

/** What a request asks for: method, path and query as they mean, the headers that decide, the body, none being empty. */
function meaning({ method, target, rawHeaders, body }: HttpProof): string {
  const { path = '', query = '' } = splitTarget(target) ?? {}
  const pairs = query
    .split('&')
    .filter((pair) => pair !== '' && !/^X-Amz-(?:Signature|Security-Token)=/i.test(unescaped(pair)))
  const asked = pairs.map((pair) => unescaped(pair.includes('=') ? pair : `${pair}=`)).sort()
  const headers = rawHeaders.flatMap((name, at) => {
    const lower = name.toLowerCase()
    if (at % 2 === 1 || !/^(?:host$|date$|x-amz-)/.test(lower) || lower === 'x-amz-security-token') return []
    const value = rawHeaders[at + 1]!.replace(/[\t ]+/g, ' ').trim()
    return [`${lower}:${lower === 'host' ? value.toLowerCase() : value}`]
  })
  return JSON.stringify([method, unescaped(path), asked, headers.sort(), Buffer.from(body ?? []).toString('latin1')])
}

const MEANT = new Set(SIGNED.map(meaning))

export const SIGV4: Target = {
  name: 'sigv4',
  corpus: () => SIGNED.map(written),
  tokens: [
    'X-Amz-Signature=',
    'X-Amz-Date=',
    '&',
    '%2F',
    '%',
    '+',
    'AWS4-HMAC-SHA256',
    'aws4_request',
    '20150830T123600Z',
    'SignedHeaders=host',
    '\nHost\n',
    '\nAuthorization\n',
    ';',
    '..',
    '//',
    'AKIDINACTIVE',
    '\nX-Amz-Date\n',
    '%41',
  ],
  maxBytes: 4_096,
  kinds: ['authenticated', 'ERR_CREDENTIALS_MALFORMED', 'ERR_SIGNATURE_MISMATCH', 'ERR_CREDENTIALS_ABSENT'],
  cases: 3_000,
  async check(input) {
    const http = proofOf(input)
    const reading = readSigned(http)
    must((reading.kind === 'absent') === !presentsSigV4(http), 'it presents a signature, and it does not')
    if (reading.kind === 'malformed')
      must(!reading.detail.includes('wJalr') && reading.detail.length < 200, reading.detail)
    const outcome = await AUTHENTICATOR.authenticate({ kind: 'sigv4', http }, connectionOf(), SIGNAL)
    if (outcome.kind === 'denied') {
      must(outcome.code in FAILURES, `a code ${outcome.code}`)
      return outcome.code
    }
    must(MEANT.has(meaning(http)), 'admitted, and nobody signed it')
    return outcome.kind
  },
}
const AUTHENTICATOR = verifier()

const SECRET_KEY_NAMES = ['token', 'MyToken']

function credentialsOf(input: Buffer): { http: HttpProof; mqtt: MqttProof } {
  const http = proofOf(input)
  const username = http.target
  return { http, mqtt: { username, password: null, clientId: null } as unknown as MqttProof }
}

export const PARAMETERS: Target = {
  name: 'parameters',
  corpus: () =>
    [
      `GET\n/mqtt?${NAME_PARAMETER}=people&token=abc&${SIGNATURE_PARAMETER}=c2ln\nHost\na.example`,
      `POST\n/topics/t?qos=1\n${NAME_PARAMETER}\npeople\ntoken\nabc\n${SIGNATURE_PARAMETER}\nc2ln`,
      'POST\n/topics/t\nAuthorization\nBasic dXNlcjpwYXNz\n\nbody',
      `GET\nsomeone?${NAME_PARAMETER}=people&MyToken=a%2Bb%3D&SDK=x\n`,
      'GET\n?token=%c3%a4&token=%c3%a4\nToken\n\xc3\xa4',
    ].map((text) => Buffer.from(text, 'latin1')),
  tokens: [
    NAME_PARAMETER,
    SIGNATURE_PARAMETER,
    'token=',
    'MyToken=',
    '&',
    '?',
    '=',
    '%00',
    '%ff',
    '%c3%a4',
    '\nAuthorization\nBasic ',
    '==',
  ],
  maxBytes: 16_384,
  kinds: ['found', 'malformed', 'nothing'],
  cases: 6_000,
  check(input, below) {
    const { http, mqtt } = credentialsOf(input)
    const source = below(3)
    const parameters = readParameters(source === 1 ? null : http, source === 0 ? null : mqtt)
    const name = SECRET_KEY_NAMES[below(2)]!
    const all = [
      parameters.authorizer(),
      parameters.signature(),
      parameters.basic(),
      parameters.token(name),
      parameters.token(null),
    ]
    for (const found of all) {
      if (found.kind === 'malformed') must(found.detail.length < 100, 'a detail that repeats what was sent')
    }
    const token = parameters.token(name)
    if (token.kind === 'found' && token.value !== null) {
      must(
        token.value.text.length <= 6_144 && Buffer.from(token.value.text).equals(token.value.bytes),
        'a token that is another',
      )
    }
    const authorizer = parameters.authorizer()
    if (authorizer.kind === 'found' && authorizer.value !== null) {
      must(/^[\w=,@-]{1,128}$/.test(authorizer.value), 'a name that no authorizer can have')
      if (source === 0) must(presentsCustom(http, SECRET_KEY_NAMES), 'it names an authorizer and presents nothing')
    }
    if (all.some(({ kind }) => kind === 'malformed')) return 'malformed'
    return all.some((found) => found.kind === 'found' && found.value !== null) ? 'found' : 'nothing'
  },
}

const rsa = generateKeyPairSync('rsa', { modulusLength: 1_024 })
const rsaOther = generateKeyPairSync('rsa', { modulusLength: 2_048 })
const SIGNED_TOKENS = new Map(
  ['allow-me', 'a.b.c', 'ä'].map((token) => [
    token,
    sign('RSA-SHA256', Buffer.from(token), rsa.privateKey).toString('base64'),
  ]),
)

export const TOKEN_SIGNATURE: Target = {
  name: 'token-signature',
  corpus: () => [...SIGNED_TOKENS].map(([token, signature]) => Buffer.from(`${token}\n${signature}`)),
  tokens: ['=', '==', '\n', '+', '/', '-', '_', '%2B', ' '],
  maxBytes: 3_000,
  kinds: ['verified', 'refused'],
  cases: 5_000,
  check(input) {
    const at = input.indexOf(0x0a)
    const token = tokenOf(input.subarray(0, at < 0 ? input.length : at))
    if (token.kind === 'malformed') return 'malformed'
    const signature = at < 0 ? null : input.subarray(at + 1).toString('latin1')
    const answer = verifyToken(token.value, signature, [rsaOther.publicKey, rsa.publicKey])
    if (answer.kind === 'refused') return 'refused'
    const known = SIGNED_TOKENS.get(token.value!.text)
    must(known !== undefined, 'verified, and nobody signed it')
    must(Buffer.from(signature!, 'base64').equals(Buffer.from(known, 'base64')), 'verified by another signature')
    return 'verified'
  },
}

const NOW = Date.parse('2026-01-01T00:00:00Z')
const ec = generateKeyPairSync('ec', { namedCurve: 'P-256' })
const base64url = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url')
function tokenWith(claims: object, header: object = { alg: 'ES256' }): string {
  const signed = `${base64url(header)}.${base64url({ sub: 'device-1', iss: 'i', aud: 'devices', exp: NOW / 1_000 + 3_600, ...claims })}`
  return `${signed}.${sign('SHA256', Buffer.from(signed), { key: ec.privateKey, dsaEncoding: 'ieee-p1363' }).toString('base64url')}`
}
const ENTRY = {
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
  issuer: 'i',
  audience: 'devices',
  tokenFrom: 'password',
  principal: 'sub',
  policies: ['devices'],
} as const satisfies Extract<AuthorizerEntry, { kind: 'jwt' }>
const ASKED = jwt(ENTRY, { metrics: NO_METRICS, now: () => 0, random: () => 0, wallClock: () => NOW })

export const JWT: Target = {
  name: 'jwt',
  corpus: () =>
    [
      tokenWith({}),
      tokenWith({ sub: 'ä', nbf: NOW / 1_000 - 10 }),
      tokenWith({ exp: NOW / 1_000 - 600 }),
      tokenWith(
        { aud: ['devices', 'others'], nested: { a: [1, 2] } },
        { alg: 'ES256', kid: '../../etc/passwd', typ: 'JWT' },
      ),
      tokenWith({}, { alg: 'none' }),
      tokenWith({}, { alg: 'HS256' }),
      tokenWith({}, { alg: 'ES256', crit: ['x'], b64: false }),
    ].map((text) => Buffer.from(text)),
  tokens: [
    '.',
    '..',
    base64url({ alg: 'none' }),
    base64url({ alg: 'HS256' }),
    base64url({ alg: 'ES256', jku: 'https://x' }),
    base64url({ sub: 'x' }),
    '=',
    '_',
    '-',
  ],
  maxBytes: 8_192,
  kinds: ['yes', 'no'],
  cases: 2_000,
  async check(input) {
    const answer = await ASKED.ask(
      {
        http: null,
        mqtt: { username: null, password: Buffer.from(input), clientId: null },
        parameters: readParameters(null, null),
        token: null,
      } as unknown as Parameters<typeof ASKED.ask>[0],
      SIGNAL,
    )
    if (answer.kind === 'no') {
      must(answer.code in FAILURES && answer.detail.length < 300, `a refusal ${answer.code}`)
      return 'no'
    }
    const [header = '', payload = '', signature = '', ...more] = input.toString('latin1').split('.')
    must(more.length === 0, 'yes to more than three parts')
    must(
      verify(
        'SHA256',
        Buffer.from(`${header}.${payload}`),
        { key: ec.publicKey, dsaEncoding: 'ieee-p1363' },
        Buffer.from(signature, 'base64url'),
      ),
      'yes, and nobody signed it',
    )
    const claims = JSON.parse(Buffer.from(payload, 'base64url').toString()) as Record<string, unknown>
    must(Number(claims.exp) > NOW / 1_000 - 120 && claims.sub === answer.principalId, 'yes to other claims')
    return 'yes'
  },
}

const ALLOW = { Version: '2012-10-17', Statement: [{ Effect: 'Allow', Action: 'iot:*', Resource: '*' }] }
const YES = {
  isAuthenticated: true,
  principalId: 'custom1',
  disconnectAfterInSeconds: 86_400,
  refreshAfterInSeconds: 300,
  policyDocuments: [ALLOW],
}

export const AUTHORIZER_ANSWER: Target = {
  name: 'authorizer-answer',
  corpus: () =>
    [
      YES,
      { isAuthenticated: false },
      { ...YES, policyDocuments: [JSON.stringify(ALLOW), ALLOW] },
      { ...YES, context: { a: 'b' } },
    ].map((value) => Buffer.from(JSON.stringify(value))),
  tokens: [
    'true',
    'false',
    'null',
    '"isAuthenticated"',
    '"policyDocuments"',
    '[]',
    '{}',
    '1e999',
    '-1',
    '"__proto__"',
    '"constructor"',
    '${iot:ClientId}',
  ],
  maxBytes: 8_192,
  kinds: ['yes', 'no', 'unusable', 'no JSON'],
  cases: 6_000,
  check(input, below) {
    let value: unknown
    try {
      value = JSON.parse(input.toString())
    } catch {
      return 'no JSON'
    }
    try {
      const answer = readAnswer(value, { lifetimes: below(2) === 0 ? 'refuse' : 'clamp', principalId: null })
      if (answer.kind === 'no') {
        must((value as { isAuthenticated?: unknown }).isAuthenticated === false, 'no, and it was not said')
        return 'no'
      }
      must((value as { isAuthenticated?: unknown }).isAuthenticated === true, 'yes, and it was not said')
      must(/^[a-zA-Z0-9]{1,128}$/.test(answer.principalId), 'a principal that is none')
      must(answer.disconnectAfterMs > 0 && answer.disconnectAfterMs <= 86_400_000, `${answer.disconnectAfterMs} ms`)
      return 'yes'
    } catch (error) {
      if (error instanceof CallFault) return 'unusable'
      throw error
    }
  },
}

export const PASSWORD_FILE: Target = {
  name: 'password-file',
  corpus: () => [
    Buffer.from(
      `# people\nsomeone:$7$101$${Buffer.alloc(12, 1).toString('base64')}$${Buffer.alloc(64, 2).toString('base64')}\n\nother:$scrypt$ln=14,r=8,p=1$${Buffer.alloc(16, 3).toString('base64').replace(/=+$/, '')}$${Buffer.alloc(32, 4).toString('base64').replace(/=+$/, '')}\r\n`,
    ),
  ],
  tokens: ['$7$', '$scrypt$', 'ln=', 'ln=63,r=8,p=1', 'r=99999', '\n', ':', '$', '999999999999', 'someone:'],
  maxBytes: 2_048,
  kinds: ['users', 'issues'],
  cases: 6_000,
  check(input) {
    const { users, issues } = readPasswordFile(input.toString('latin1'))
    const lines = input.toString('latin1').split('\n')
    for (const { line, message } of issues) {
      must(line >= 1 && line <= lines.length && message !== '', `an issue at line ${line}`)
      // A password in the clear would stand behind the colon.
      const secret = lines[line - 1]!.split(':').slice(1).join(':')
      must(secret.length < 12 || !message.includes(secret), 'a message that repeats a password')
    }
    for (const hash of users.values()) must(hash.salt.length >= 8 && hash.hash.length >= 32, 'a hash that is none')
    return issues.length > 0 ? 'issues' : 'users'
  },
}
