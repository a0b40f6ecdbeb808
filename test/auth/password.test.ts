import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { createAuthorizers } from '../../src/auth/authorizers.ts'
import { derive } from '../../src/auth/password.ts'
import { NO_METRICS } from '../../src/control/metrics.ts'
import { NO_VARIABLES, OPEN_GRANTS } from '../../src/policy/permit.ts'
import type { AuthorizerEntry, PasswordHash } from '../../src/registry/entries.ts'
import { readPasswordFile, readPasswordHash } from '../../src/registry/password-file.ts'
import { createRegistry } from '../../src/registry/registry.ts'
import { ARN } from '../support/identity.ts'
import { connect, customOver, get } from './authorizer-peer.ts'
import { behavesLikeAnAuthenticator, connectionOf } from './conformance.ts'

const SIGNAL = new AbortController().signal

/** Made by Mosquitto 2.0.11: `mosquitto_passwd -b -c file alice secret`. */
const ALICE =
  'alice:$7$101$6g3Hi1Yl5lSvlAEC$DkrUInrd/AJpm6sioA2Oy4WEJ7rmv20XZK6g/J7c6V5EICaEdlipngf2gSEgSZYX2NMs6BcUEmcHZOH4hwHDmA=='
/** RFC 7914 §12, third vector cut to 32 octets of hash: password «pleaseletmein», salt «SodiumChloride», ln=14, r=8, p=1. */
const BOB = `bob:$scrypt$ln=14,r=8,p=1$${Buffer.from('SodiumChloride').toString('base64').replace(/=+$/, '')}$${Buffer.from(
  '7023bdcb3afd7348461c06cd81fd38ebfda8fbba904f8e3ea9b543f6545da1f2',
  'hex',
)
  .toString('base64')
  .replace(/=+$/, '')}`

type Password = Extract<AuthorizerEntry, { kind: 'password' }>

const entry = (text: string, changes: Partial<Password> = {}): Password => ({
  kind: 'password',
  name: 'users',
  status: 'ACTIVE',
  digest: text,
  tokenKeyName: null,
  signingKeys: null,
  cacheForHttp: false,
  shareForMs: null,
  timeoutMs: 5_000,
  concurrency: 64,
  users: readPasswordFile(text).users,
  policies: ['devices'],
  ...changes,
})

function over(t: ExecutionContext, one: () => Password) {
  const authorizers = createAuthorizers({ metrics: NO_METRICS, now: () => 0 })
  const registry = () => createRegistry([], { authorizer: () => one(), grants: () => OPEN_GRANTS })
  return customOver(t, [one()], { authorizers, registry })
}

const login = (username: string | null, password: string | null) =>
  ({
    kind: 'custom',
    http: null,
    mqtt: connect({ username, password: password === null ? null : Buffer.from(password) }),
  }) as const

behavesLikeAnAuthenticator(test, 'custom by password', (t) => ({
  authenticator: over(t, () => entry(ALICE)),
  accepted: login('alice', 'secret'),
  refused: login('alice', 'Secret'),
  faulty: null,
}))

const judges = test.macro({
  async exec(t, _: string, username: string | null, password: string | null, expected: string) {
    const authenticator = over(t, () => entry(`${ALICE}\n${BOB}\n`))
    const outcome = await authenticator.authenticate(login(username, password), connectionOf(), SIGNAL)
    t.is(outcome.kind === 'denied' ? outcome.code : outcome.principal.id, expected)
  },
  title: (_, what: string, _user, _password, expected: string) => `${what}: ${expected}`,
})
test(judges, 'a hash of mosquitto_passwd', 'alice', 'secret', 'alice')
test(judges, 'a hash of scrypt', 'bob', 'pleaseletmein', 'bob')
test(judges, 'telemetry behind the user', 'alice?SDK=x', 'secret', 'alice')
test(judges, 'another password', 'alice', 'secret ', 'ERR_CREDENTIALS_REFUSED')
test(judges, 'the password of another user', 'bob', 'secret', 'ERR_CREDENTIALS_REFUSED')
test(judges, 'an empty password', 'alice', '', 'ERR_CREDENTIALS_REFUSED')
test(judges, 'no password', 'alice', null, 'ERR_CREDENTIALS_ABSENT')
test(judges, 'no user', null, 'secret', 'ERR_CREDENTIALS_ABSENT')
test(judges, 'an empty user', '?', 'secret', 'ERR_CREDENTIALS_ABSENT')
test(judges, 'a user who is not there', 'carol', 'secret', 'ERR_CREDENTIALS_REFUSED')
test(judges, 'a user of every object', '__proto__', 'secret', 'ERR_CREDENTIALS_REFUSED')
test(judges, 'a user in another case', 'Alice', 'secret', 'ERR_CREDENTIALS_REFUSED')
test(judges, 'a password that is too long', 'alice', 'x'.repeat(1_025), 'ERR_CREDENTIALS_REFUSED')
test(judges, 'the hash for a password', 'alice', ALICE.slice(6), 'ERR_CREDENTIALS_REFUSED')

test('a file without users lets nobody in', async (t) => {
  const outcome = await over(t, () => entry('')).authenticate(login('alice', 'secret'), connectionOf(), SIGNAL)
  t.like(outcome, { kind: 'denied', code: 'ERR_CREDENTIALS_REFUSED' })
})

test('over HTTPS user and password are those of Basic authentication', async (t) => {
  const authenticator = over(t, () => entry(ALICE))
  const ask = (value: string) =>
    authenticator.authenticate(
      { kind: 'custom', http: get('/', 'Authorization', value), mqtt: null },
      connectionOf(),
      SIGNAL,
    )
  const basic = (text: string) => `Basic ${Buffer.from(text).toString('base64')}`
  t.is((await ask(basic('alice:secret'))).kind, 'authenticated')
  t.like(await ask(basic('alice:other')), { code: 'ERR_CREDENTIALS_REFUSED' })
  t.like(await ask(basic('alice')), { code: 'ERR_CREDENTIALS_MALFORMED' })
  t.like(await ask('Bearer alice:secret'), { code: 'ERR_CREDENTIALS_ABSENT' })
})

test('a user who is taken out, or has another password, is ended; others stay, with the policies of now', async (t) => {
  let current = entry(ALICE)
  const authenticator = over(t, () => current)
  const outcome = await authenticator.authenticate(login('alice', 'secret'), connectionOf(), SIGNAL)
  if (outcome.kind === 'denied') return t.fail(outcome.detail)
  t.true(outcome.grants.permit(ARN, NO_VARIABLES).allows('iot:Connect', 'client/a'))
  current = entry(`${ALICE}\n${BOB}`)
  t.is(outcome.rejudge().kind, 'authenticated')
  current = entry(BOB)
  t.like(outcome.rejudge(), { kind: 'denied', code: 'ERR_AUTHORIZATION_ENDED' })
  current = entry(BOB.replace('bob', 'alice'))
  t.like(outcome.rejudge(), { kind: 'denied', code: 'ERR_AUTHORIZATION_ENDED' })
})

test('a user who is not there costs the work of one who is', async (t) => {
  const slow = ALICE.replace('$7$101$', '$7$200000$')
  const authenticator = over(t, () => entry(slow))
  const time = async (username: string) => {
    const startedAt = performance.now()
    await authenticator.authenticate(login(username, 'secret'), connectionOf(), SIGNAL)
    return performance.now() - startedAt
  }
  await time('alice')
  const [known, unknown] = [await time('alice'), await time('nobody')]
  // Ratios within one run, wide: the machine has others to serve. Without the work it would be a thousandth.
  t.true(unknown > known / 10, `${known} ms and ${unknown} ms`)
})

test('a flood of logins is refused past its queue, and never let in', async (t) => {
  const slow = ALICE.replace('$7$101$', '$7$1000$')
  const authenticator = over(t, () => entry(slow))
  const asking = Array.from({ length: 200 }, () =>
    authenticator.authenticate(login('alice', 'guess'), connectionOf(), SIGNAL).then(
      (outcome) => (outcome.kind === 'denied' ? outcome.code : 'in'),
      (error: { code: string }) => error.code,
    ),
  )
  const results = await Promise.all(asking)
  t.is(results.filter((result) => result === 'ERR_AUTHORIZER_UNAVAILABLE').length, 200 - 4 - 64)
  t.is(results.filter((result) => result === 'ERR_CREDENTIALS_REFUSED').length, 68)
})

/** RFC 7914 §12. */
test('scrypt is that of RFC 7914', async (t) => {
  const stored = readPasswordHash(BOB.slice(4)) as PasswordHash
  t.is(
    (await derive(stored, Buffer.from('pleaseletmein'))).toString('hex'),
    '7023bdcb3afd7348461c06cd81fd38ebfda8fbba904f8e3ea9b543f6545da1f2',
  )
})

const installed = spawnSync('mosquitto_passwd').error === undefined
// Skipped where Mosquitto is not installed.
const live = installed ? test : test.skip
live('what mosquitto_passwd writes today is read, where it is installed', async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'brokergate-password-'))
  t.teardown(() => rmSync(dir, { recursive: true, force: true }))
  const file = join(dir, 'users.txt')
  execFileSync('mosquitto_passwd', ['-c', '-b', file, 'dave', 'p:a$s'])
  const outcome = await over(t, () => entry(readFileSync(file, 'utf8'))).authenticate(
    login('dave', 'p:a$s'),
    connectionOf(),
    SIGNAL,
  )
  t.is(outcome.kind, 'authenticated')
})
