import { generateKeyPairSync } from 'node:crypto'
import test from 'ava'
import { readAuthorizers } from '../../src/registry/authorizer-reader.ts'
import { AUTHORIZERS } from '../../src/registry/authorizer-schema.ts'
import { readPasswordFile, readPasswordHash } from '../../src/registry/password-file.ts'

const pem = (key: { export(options: { type: 'spki'; format: 'pem' }): string | Buffer }) =>
  String(key.export({ type: 'spki', format: 'pem' }))
const rsa = generateKeyPairSync('rsa', { modulusLength: 2_048 })
const small = generateKeyPairSync('rsa', { modulusLength: 1_024 })
const p256 = generateKeyPairSync('ec', { namedCurve: 'P-256' })
const p384 = generateKeyPairSync('ec', { namedCurve: 'P-384' })

const ALICE =
  'alice:$7$101$6g3Hi1Yl5lSvlAEC$DkrUInrd/AJpm6sioA2Oy4WEJ7rmv20XZK6g/J7c6V5EICaEdlipngf2gSEgSZYX2NMs6BcUEmcHZOH4hwHDmA=='

const FILES: Readonly<Record<string, string>> = {
  '/r/token.pem': pem(rsa.publicKey),
  '/r/small.pem': pem(small.publicKey),
  '/r/p256.pem': pem(p256.publicKey),
  '/r/p384.pem': pem(p384.publicKey),
  '/r/private.pem': String(rsa.privateKey.export({ type: 'pkcs8', format: 'pem' })),
  '/r/ca.pem': '-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n',
  '/r/users.txt': `# people\n\n${ALICE}\n`,
  '/r/broken.txt': `${ALICE}\nbob\n`,
  '/r/auth.mjs': 'export default () => ({})',
  '/r/secret': 'from a file\n',
}

const sources = {
  resolve: (path: string) => `/r/${path}`,
  readFile(path: string): string {
    const contents = FILES[path]
    if (contents === undefined) throw Object.assign(new Error('no'), { code: 'ENOENT' })
    return contents
  },
  env: (name: string) => (name === 'AUTH' ? 'from the environment' : undefined),
}

/** Issues of the form, or those of what it names, as `path: message`. */
function issuesOf(authorizers: unknown): string[] {
  const parsed = AUTHORIZERS.safeParse(authorizers)
  if (!parsed.success) return parsed.error.issues.map(({ path, message }) => `${path.join('.')}: ${message}`)
  return readAuthorizers(parsed.data, sources).issues.map(({ path, message }) => `${path.join('.')}: ${message}`)
}

const WEBHOOK = { kind: 'webhook', url: 'https://auth.internal/device' }
const JWT = {
  kind: 'jwt',
  keys: ['p256.pem'],
  algorithms: ['ES256'],
  issuer: 'i',
  audience: 'a',
  tokenFrom: 'password',
}

test('every kind is read in the form of the documentation', (t) => {
  const form = AUTHORIZERS.parse({
    tokens: {
      ...WEBHOOK,
      ca: 'ca.pem',
      headers: { authorization: { env: 'AUTH' }, 'x-other': { file: 'secret' }, 'x-plain': 'plain' },
      tokenKeyName: 'token',
      signing: { keys: ['token.pem'] },
      timeout: '5s',
      cacheForHttp: false,
    },
    people: {
      kind: 'jwt',
      jwksUrl: 'https://id.internal/jwks',
      algorithms: ['ES256'],
      issuer: 'https://id.internal',
      audience: 'devices',
      tokenFrom: 'password',
      principal: 'sub',
      policies: ['devices'],
    },
    users: { kind: 'password', file: 'users.txt' },
    own: { kind: 'module', path: 'auth.mjs', options: { answer: 42 }, shareFor: '30s', lifetimes: 'clamp' },
  })
  const { entries, issues } = readAuthorizers(form, sources)
  t.deepEqual(issues, [])
  t.deepEqual([...entries.keys()], ['tokens', 'people', 'users', 'own'])

  const tokens = entries.get('tokens')
  if (tokens?.kind !== 'webhook') return t.fail()
  t.is(tokens.url.href, 'https://auth.internal/device')
  t.deepEqual(tokens.headers, {
    authorization: 'from the environment',
    'x-other': 'from a file',
    'x-plain': 'plain',
  })
  t.is(tokens.timeoutMs, 5_000)
  t.is(tokens.shareForMs, null)
  t.is(tokens.status, 'ACTIVE')
  t.is(tokens.lifetimes, 'refuse')
  t.deepEqual(tokens.ca, [FILES['/r/ca.pem']!])
  t.true(tokens.signingKeys?.[0]?.equals(rsa.publicKey))

  const users = entries.get('users')
  if (users?.kind !== 'password') return t.fail()
  t.deepEqual([...users.users.keys()], ['alice'])
  t.deepEqual(users.policies, [])

  const own = entries.get('own')
  if (own?.kind !== 'module') return t.fail()
  t.is(own.path, '/r/auth.mjs')
  t.is(own.shareForMs, 30_000)
  t.deepEqual(own.options, { answer: 42 })
})

test('the digest of an entry changes with what it says and with what its files and secrets say', (t) => {
  const digest = (form: unknown, env = 'a') =>
    readAuthorizers(AUTHORIZERS.parse({ a: form }), { ...sources, env: () => env }).entries.get('a')?.digest
  const secret = { ...WEBHOOK, headers: { authorization: { env: 'AUTH' } } }
  t.regex(String(digest(WEBHOOK)), /^[0-9a-f]{64}$/)
  t.is(digest(secret), digest(secret))
  t.not(digest(secret), digest(secret, 'b'))
  t.not(digest(WEBHOOK), digest({ ...WEBHOOK, timeout: '4s' }))
})

const refuses = test.macro({
  exec(t, _: string, form: unknown, ...expected: string[]) {
    t.deepEqual(issuesOf({ a: form }), expected)
  },
  title: (_, what: string) => `is refused: ${what}`,
})

const URL_WORDS = 'expected an https:// URL without user and fragment (http:// only to this machine)'
test(
  refuses,
  'a kind that is none',
  { kind: 'ldap' },
  'a.kind: expected an authorizer with kind webhook, jwt, password or module',
)
test(refuses, 'an unknown key', { ...WEBHOOK, uri: '' }, 'a: Unrecognized key: "uri"')
test(refuses, 'plain HTTP to another machine', { ...WEBHOOK, url: 'http://auth.internal/' }, `a.url: ${URL_WORDS}`)
test(refuses, 'credentials in the URL', { ...WEBHOOK, url: 'https://a:b@auth.internal/' }, `a.url: ${URL_WORDS}`)
test(refuses, 'another scheme', { ...WEBHOOK, url: 'file:///etc/passwd' }, `a.url: ${URL_WORDS}`)
test(refuses, 'more than 5 s', { ...WEBHOOK, timeout: '6s' }, 'a.timeout: expected a duration of at most "5s"')
test(
  refuses,
  'signing without tokenKeyName',
  { ...WEBHOOK, signing: { keys: ['token.pem'] } },
  'a.tokenKeyName: is missing, expected a name of 1–128 letters, digits, "_" and "-": signing is set',
)
test(
  refuses,
  'a signing key that is too small',
  { ...WEBHOOK, tokenKeyName: 't', signing: { keys: ['small.pem'] } },
  'a.signing.keys.0: small.pem is no RSA key of 2048 to 8192 bits',
)
test(
  refuses,
  'a signing key that is not RSA',
  { ...WEBHOOK, tokenKeyName: 't', signing: { keys: ['p256.pem'] } },
  'a.signing.keys.0: p256.pem is no RSA key of 2048 to 8192 bits',
)
test(
  refuses,
  'a private key',
  { ...WEBHOOK, tokenKeyName: 't', signing: { keys: ['private.pem'] } },
  'a.signing.keys.0: private.pem cannot be read as a public key: it is a private key',
)
test(refuses, 'a file that is not there', { ...WEBHOOK, ca: 'no.pem' }, 'a.ca.0: no.pem cannot be read: ENOENT')
test(
  refuses,
  'a CA file without a certificate',
  { ...WEBHOOK, ca: 'token.pem' },
  'a.ca.0: token.pem holds no PEM certificate',
)
test(
  refuses,
  'a secret that is not there',
  { ...WEBHOOK, headers: { authorization: { env: 'NO' } } },
  'a.headers.authorization.env: no such environment variable: NO',
)
test(
  refuses,
  'a header with a line break',
  { ...WEBHOOK, headers: { 'x-a': 'b\r\nx-c: d' } },
  'a.headers.x-a: holds a character that a header may not have',
)
test(
  refuses,
  'a header of the call itself',
  { ...WEBHOOK, headers: { Host: 'a' } },
  'a.headers.Host: expected a header that is not of the call itself',
)
test(refuses, 'neither jwksUrl nor keys', { ...JWT, keys: undefined }, 'a: needs jwksUrl or keys, and not both')
test(refuses, 'both of jwksUrl and keys', { ...JWT, jwksUrl: 'https://a/' }, 'a: needs jwksUrl or keys, and not both')
test(
  refuses,
  'a JWT without a word about its audience',
  { ...JWT, audience: undefined },
  'a.audience: is missing, expected the audience, or null to leave it unchecked',
)
test(
  refuses,
  'algorithm none',
  { ...JWT, algorithms: ['none'] },
  'a.algorithms.0: expected one of RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512, EdDSA, Ed25519',
)
test(
  refuses,
  'an HMAC algorithm',
  { ...JWT, algorithms: ['HS256'] },
  'a.algorithms.0: expected one of RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512, EdDSA, Ed25519',
)
test(
  refuses,
  'a key of another curve than the algorithm',
  { ...JWT, keys: ['p384.pem'] },
  'a.keys.0: p384.pem is a key for none of the algorithms',
)
test(
  refuses,
  'a token from a parameter that has no name',
  { ...JWT, tokenFrom: 'parameter' },
  'a.tokenKeyName: is missing, expected a name of 1–128 letters, digits, "_" and "-": tokenFrom is parameter',
)
test(
  refuses,
  'a broken line of a password file',
  { kind: 'password', file: 'broken.txt' },
  'a.file: broken.txt:2: expected user:hash; make it with mosquitto_passwd -H sha512-pbkdf2 or brokergate passwd',
)

test('a name is 1–128 of the characters that AWS IoT allows', (t) => {
  t.deepEqual(issuesOf({ 'a=,@-_1': WEBHOOK }), [])
  for (const name of ['', 'a b', 'a?b', 'a&b', 'x'.repeat(129)]) t.is(issuesOf({ [name]: WEBHOOK }).length, 1)
})

test('an issue never repeats a line of a password file', (t) => {
  const { users, issues } = readPasswordFile('bob:hunter2\ncarol:$7$101$c2hvcnQ=$hunter2\n:$7$1$a$b\n')
  t.is(users.size, 0)
  t.deepEqual(
    issues.map(({ line }) => line),
    [1, 2, 3],
  )
  t.notRegex(JSON.stringify(issues), /hunter2/)
})

test('of two lines of one user neither is guessed at', (t) => {
  t.deepEqual(readPasswordFile(`${ALICE}\n${ALICE}\n`).issues, [
    { line: 2, message: 'this user stands in the file already' },
  ])
})

const hashes = test.macro({
  exec(t, text: string, ok: boolean) {
    t.is(typeof readPasswordHash(text) !== 'string', ok)
  },
  title: (_, text: string, ok: boolean) => `${ok ? 'a hash' : 'no hash'}: ${text.slice(0, 60)}`,
})
const B64 = (bytes: number) => Buffer.alloc(bytes, 7).toString('base64')
test(hashes, `$7$1000$${B64(12)}$${B64(64)}`, true)
test(hashes, `$scrypt$ln=15,r=8,p=1$${B64(16).replace(/=+$/, '')}$${B64(32).replace(/=+$/, '')}`, true)
test(hashes, '', false)
test(hashes, 'plain', false)
test(hashes, `$6$${B64(12)}$${B64(64)}`, false)
test(hashes, `$7$0$${B64(12)}$${B64(64)}`, false)
test(hashes, `$7$99999999$${B64(12)}$${B64(64)}`, false)
test(hashes, `$7$1e3$${B64(12)}$${B64(64)}`, false)
test(hashes, `$7$1000$${B64(12)}$`, false)
test(hashes, `$7$1000$${B64(12)}$${B64(64)}$`, false)
test(hashes, `$7$1000$${B64(4)}$${B64(64)}`, false)
test(hashes, `$7$1000$${B64(12)}$${B64(16)}`, false)
test(hashes, `$7$1000$${B64(12)}$!${B64(64)}`, false)
test(hashes, `$scrypt$ln=30,r=8,p=1$${B64(16)}$${B64(32)}`, false)
test(hashes, `$scrypt$ln=20,r=8,p=1$${B64(16)}$${B64(32)}`, false)
test(hashes, `$scrypt$ln=15,r=0,p=1$${B64(16)}$${B64(32)}`, false)
