import { execFileSync } from 'node:child_process'
import { generateKeyPairSync, type KeyObject, randomBytes, sign } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { verifyToken } from '../../src/auth/token-signature.ts'

const one = generateKeyPairSync('rsa', { modulusLength: 2_048 })
const two = generateKeyPairSync('rsa', { modulusLength: 3_072 })
const token = (text: string) => ({ bytes: Buffer.from(text), text })
const signed = (text: string, key: KeyObject, algorithm = 'RSA-SHA256') =>
  sign(algorithm, Buffer.from(text), key).toString('base64')
const keys = [one.publicKey, two.publicKey]

test('any key of the authorizer may have signed', (t) => {
  t.is(verifyToken(token('aToken'), signed('aToken', one.privateKey), keys).kind, 'verified')
  t.is(verifyToken(token('aToken'), signed('aToken', two.privateKey), keys).kind, 'verified')
})

test('what openssl dgst -sha256 -sign makes is a signature', (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'brokergate-token-'))
  t.teardown(() => rmSync(dir, { recursive: true, force: true }))
  writeFileSync(join(dir, 'key.pem'), one.privateKey.export({ type: 'pkcs8', format: 'pem' }))
  const made = execFileSync('openssl', ['dgst', '-sha256', '-sign', join(dir, 'key.pem')], { input: 'aToken' })
  t.is(verifyToken(token('aToken'), made.toString('base64'), keys).kind, 'verified')
})

const good = signed('aToken', one.privateKey)
const refuses = test.macro({
  exec(t, _: string, text: string | null, signature: string | null) {
    t.is(verifyToken(text === null ? null : token(text), signature, keys).kind, 'refused')
  },
  title: (_, what: string) => `refuses ${what}`,
})
test(refuses, 'no token', null, good)
test(refuses, 'no signature', 'aToken', null)
test(refuses, 'another token', 'bToken', good)
test(refuses, 'a token with something behind it', 'aToken\n', good)
test(refuses, 'a signature of another algorithm', 'aToken', signed('aToken', one.privateKey, 'RSA-SHA1'))
test(refuses, 'a signature that is not base64', 'aToken', `${good.slice(0, -3)}***`)
test(refuses, 'base64 in the alphabet for URLs', 'aToken', `-_${good.slice(2)}`)
test(refuses, 'a signature that is too long', 'aToken', good + 'A'.repeat(2_560))
test(refuses, 'an empty signature', 'aToken', '')
test(refuses, 'a signature of zeros', 'aToken', Buffer.alloc(256).toString('base64'))
test(refuses, 'a signature above the modulus', 'aToken', Buffer.alloc(256, 0xff).toString('base64'))
test(
  refuses,
  'the signature of a stranger’s key',
  'aToken',
  signed('aToken', generateKeyPairSync('rsa', { modulusLength: 2_048 }).privateKey),
)

test('every changed octet of a signature is refused', (t) => {
  const octets = Buffer.from(good, 'base64')
  for (let at = 0; at < octets.length; at += 7) {
    const changed = Buffer.from(octets)
    changed[at]! ^= 1
    t.is(verifyToken(token('aToken'), changed.toString('base64'), keys).kind, 'refused')
  }
})

test('two hundred wrong tries cost no more than as many verifications', (t) => {
  const cost = (length: number): number => {
    const startedAt = performance.now()
    for (let count = 0; count < 200; count++) verifyToken(token('a'), randomBytes(length).toString('base64'), keys)
    return performance.now() - startedAt
  }
  cost(256)
  // Of no key's length: nothing is computed. Compared within one run, because machines differ.
  t.true(cost(255) < Math.max(20, cost(256)))
  t.true(cost(256) < 2_000)
})
