import test, { type ExecutionContext } from 'ava'
import type { Principal } from '../../src/auth/authenticator.ts'
import type { UpstreamIdentity } from '../../src/backend/backend.ts'
import { ProxyError } from '../../src/errors.ts'
import { type Connect, parseConnect } from '../../src/mqtt/connect.ts'
import { identityChanges } from '../../src/mqtt/identity.ts'
import { hex } from './fakes.ts'

/** 3.1.1, keep alive 60, client id `a`, user name `u`, password `p`. */
const CONNECT = '1013 0004 4d515454 04 c2 003c 0001 61 0001 75 0001 70'
const PRINCIPAL: Principal = { id: 'ab12', method: 'x509', attributes: { thingName: 'lamp', evil: 'x/#' } }
const NOTHING: UpstreamIdentity = { username: null, password: null, clientId: null, keepAlive: 'device' }

function connectOf(octets: string): Connect {
  const connect = parseConnect(hex(octets))
  if ('kind' in connect) throw new Error('test CONNECT was refused')
  return connect
}

const changes = (identity: Partial<UpstreamIdentity>, principal = PRINCIPAL, octets = CONNECT) =>
  idChanges(connectOf(octets), principal, identity)

const idChanges = (connect: Connect, principal: Principal, identity: Partial<UpstreamIdentity>, prefix = '') =>
  identityChanges(connect, { device: connect.clientId, assigned: false, prefix }, principal, 'iot.example.com', {
    ...NOTHING,
    ...identity,
  })

test('a proved device’s own user name and password are never passed on', (t) => {
  t.deepEqual(changes({}), {
    clientId: undefined,
    credentials: { username: null, password: null },
  })
})

test('where the broker judges, user name and password go on untouched', (t) => {
  t.is(changes({}, { ...PRINCIPAL, method: 'backend' }).credentials, undefined)
})

test('templates take the client id, the principal, its attributes and the domain', (t) => {
  t.deepEqual(
    changes({
      username: '${principal.id}@${domain}',
      password: '${principal.thingName}!',
      clientId: 'p-${clientId}',
    }),
    {
      clientId: 'p-a',
      credentials: { username: 'ab12@iot.example.com', password: 'lamp!' },
    },
  )
})

test('a client id that comes out the same is no change', (t) => {
  t.is(changes({ clientId: '${clientId}' }).clientId, undefined)
})

test('the tenant’s prefix stands before the id, and templates do not see it', (t) => {
  const identity = { username: '${clientId}', clientId: 'p-${clientId}' }
  const { clientId, credentials } = idChanges(connectOf(CONNECT), PRINCIPAL, identity, 'tenant-')
  t.deepEqual([clientId, credentials?.username], ['tenant-p-a', 'a'])
  t.is(idChanges(connectOf(CONNECT), PRINCIPAL, {}, 'tenant-').clientId, 'tenant-a')
})

test('a device that sent no client id has the assigned one in templates and toward the broker', (t) => {
  const connect = connectOf('100c 0004 4d515454 04 02 003c 0000')
  const ids = { device: 'f00d', assigned: true, prefix: '' }
  const identity = { ...NOTHING, username: '${clientId}' }
  const { clientId, credentials } = identityChanges(connect, ids, PRINCIPAL, 'iot.example.com', identity)
  t.deepEqual([clientId, credentials?.username], ['f00d', 'f00d'])
})

const fails = (t: ExecutionContext, code: string, run: () => unknown): boolean =>
  t.throws(run, { instanceOf: ProxyError })?.code === code

test('a value with topic wildcards, levels or NUL never becomes a user name (CVE-2017-7650)', (t) => {
  // Client ids `#`, `+`, `a/b`: one, one and three bytes.
  for (const octets of [
    '100d 0004 4d515454 04 02 003c 0001 23',
    '100d 0004 4d515454 04 02 003c 0001 2b',
    '100f 0004 4d515454 04 02 003c 0003 612f62',
  ]) {
    t.true(fails(t, 'ERR_CLIENT_ID_INVALID', () => changes({ username: '${clientId}' }, PRINCIPAL, octets)))
  }
  t.true(fails(t, 'ERR_CLIENT_ID_INVALID', () => changes({ username: '${principal.evil}' })))
})

test('a device without the value that a template asks for is refused', (t) => {
  for (const name of ['principal.nothing', 'principal.toString', 'principal.', 'unknown', '']) {
    t.true(
      fails(t, 'ERR_IDENTITY_FAULT', () => changes({ username: `\${${name}}` })),
      name,
    )
  }
})

test('a template in a value is text, not a template', (t) => {
  // Client id `${domain}`.
  const octets = '1015 0004 4d515454 04 02 003c 0009 247b646f6d61696e7d'
  t.is(changes({ username: '${clientId}' }, PRINCIPAL, octets).credentials?.username, '${domain}')
})
