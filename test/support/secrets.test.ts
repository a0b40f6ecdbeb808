import { createHash, generateKeyPairSync, randomBytes } from 'node:crypto'
import { inspect } from 'node:util'
import test from 'ava'
import { PlantedSecrets } from './secrets.ts'

const TEXT = 'R8fkTz0QmWn2sVbY7LxHcDgPq4aE'
const octets = Buffer.from(TEXT)

/** How a secret that nobody meant to show gets out. */
const WAYS_OUT: Readonly<Record<string, string>> = {
  'as it is': `password ${TEXT} refused`,
  'its middle alone': `…${TEXT.slice(7, 24)}…`,
  'its end after a cut': TEXT.slice(-15),
  'hex in lower case': octets.toString('hex'),
  'hex in upper case': octets.toString('hex').toUpperCase(),
  'an inspected Buffer': inspect(octets),
  'a Buffer as JSON': JSON.stringify({ password: octets }),
  base64: octets.toString('base64'),
  'Basic credentials, one octet before': Buffer.from(`u:${TEXT}`).toString('base64'),
  'Basic credentials, two octets before': Buffer.from(`us:${TEXT}@`).toString('base64'),
  'Basic credentials, three octets before': Buffer.from(`use:${TEXT}@@`).toString('base64'),
  'every octet percent-encoded': [...octets].map((octet) => `%${octet.toString(16)}`).join(''),
  'within a stack': new Error(`no such file: /etc/${TEXT}`).stack ?? '',
}

for (const [name, text] of Object.entries(WAYS_OUT)) {
  test(`a planted secret is found: ${name}`, (t) => {
    const secrets = new PlantedSecrets()
    secrets.plant('another one')
    secrets.keep('the one', TEXT)
    const before = 'x'.repeat(10_000)
    t.deepEqual([...new Set(secrets.scan(`${before}${text}${before}`).map(({ secret }) => secret))], ['the one'])
  })
}

test('octets that are no text are found in base64, base64url and percent-encoded', (t) => {
  const secrets = new PlantedSecrets()
  const bytes = Buffer.from('fbefbefffe3f8000fbefbefffe3f8000fbef', 'hex')
  secrets.keep('octets', bytes)
  for (const text of [bytes.toString('base64'), bytes.toString('base64url'), escape(bytes.toString('latin1'))]) {
    t.true(secrets.scan(text).length > 0, text)
  }
})

test('of a private key its private part is found in its file, and neither in the certificate nor in the public key', (t) => {
  for (const { privateKey, publicKey } of [
    generateKeyPairSync('rsa', { modulusLength: 2_048 }),
    generateKeyPairSync('ec', { namedCurve: 'prime256v1' }),
    generateKeyPairSync('ed25519'),
  ]) {
    const secrets = new PlantedSecrets()
    secrets.keepKey('key', privateKey.export({ type: 'pkcs8', format: 'pem' }) as string)
    t.true(secrets.scan(privateKey.export({ type: 'pkcs8', format: 'pem' }) as string).length > 0)
    t.deepEqual(secrets.scan(publicKey.export({ type: 'spki', format: 'pem' }) as string), [])
  }
})

test('what holds no secret has no leak, however long and random', (t) => {
  const secrets = new PlantedSecrets()
  for (let count = 0; count < 40; count++) secrets.plant(`secret ${count}`)
  t.is(secrets.names.length, 40)
  t.deepEqual(secrets.scan(randomBytes(1_000_000).toString('base64')), [])
  t.deepEqual(secrets.scan(createHash('sha256').update(TEXT).digest('hex')), [])
  t.deepEqual(secrets.scan(''), [])
})

test('a secret too short to be found, or planted twice, is a mistake of the test', (t) => {
  const secrets = new PlantedSecrets()
  t.throws(() => secrets.keep('short', 'hunter2'), { message: /shorter/ })
  secrets.keep('twice', TEXT)
  t.throws(() => secrets.keep('twice', TEXT), { message: /already/ })
})
