import { setImmediate } from 'node:timers/promises'
import test from 'ava'
import type { Authenticated, AuthOutcome } from '../../src/auth/authenticator.ts'
import type { Ring } from '../../src/collections/ring.ts'
import type { SecuredConnection } from '../../src/connection.ts'
import { type FailureCode, ProxyError } from '../../src/errors.ts'
import { rulesOf } from '../../src/mqtt/limits.ts'
import { NO_GRANTS, OPEN_GRANTS, type Permit } from '../../src/policy/permit.ts'
import { authenticatedAs } from '../support/identity.ts'
import { until } from './fakes.ts'
import { leavesNothing, OK4, OK5, PRINCIPAL, type ServedOptions, served, V4, V5 } from './served.ts'

/** Everything but publishing, until told otherwise. */
const withoutPublish: Permit = {
  allows: (action) => action !== 'iot:Publish',
  allowsAll: (action) => action !== 'iot:Publish',
}
const onlyConnect: Permit = { allows: (action) => action === 'iot:Connect', allowsAll: () => false }
const grantsOf = (permit: Permit) => ({ permit: () => permit })

const denied = (code: FailureCode): AuthOutcome => ({ kind: 'denied', code, detail: 'said the test' })

/** A device whose standing the test changes while it is connected. */
function standing(first: Partial<Authenticated> = {}) {
  let outcome: AuthOutcome | Error | null = null
  let answer: AuthOutcome | Promise<AuthOutcome> | Error | null = null
  const say = <T extends AuthOutcome | Promise<AuthOutcome>>(value: T | Error | null): T => {
    if (value === null) return who as T
    if (value instanceof Error) throw value
    return value
  }
  const refreshes: AbortSignal[] = []
  const rest = {
    rejudge: () => say(outcome),
    refresh: async (signal: AbortSignal) => {
      refreshes.push(signal)
      return await say(answer)
    },
  }
  const who = authenticatedAs(PRINCIPAL, { ...first, ...rest })
  return {
    who,
    rest,
    refreshes,
    registrySays: (next: AuthOutcome | Error | null) => {
      outcome = next
    },
    authorizerSays: (next: AuthOutcome | Promise<AuthOutcome> | Error) => {
      answer = next
    },
  }
}

const over = async (t: Parameters<typeof leavesNothing>[0], s: ReturnType<typeof served>, code: FailureCode) => {
  await until(() => s.device.finished)
  t.is(await s.over(), code)
  leavesNothing(t, s)
}

// --- the registry changes

for (const [code, heard] of [
  ['ERR_CERTIFICATE_INACTIVE', 'e0028700'],
  ['ERR_CERTIFICATE_REVOKED', 'e0028700'],
  ['ERR_CERTIFICATE_NOT_REGISTERED', 'e0028700'],
  ['ERR_ACCESS_KEY_UNKNOWN', 'e0028700'],
  ['ERR_AUTHORIZER_NOT_FOUND', 'e0028700'],
  ['ERR_AUTHORIZATION_ENDED', 'e0028700'],
] as const) {
  test(`a live session whose identity is ${code} by now ends with it: ${heard} on 5, and 3.1.1 closes`, async (t) => {
    for (const [connect, ok, farewell] of [
      [V5, OK5, heard],
      [V4, OK4, ''],
    ] as const) {
      const device = standing()
      const s = served(t, { outcome: device.who })
      await s.connected(connect, ok)
      device.registrySays(denied(code))
      await s.handler.rejudge()
      t.is(s.device.heard, farewell)
      await over(t, s, code)
    }
  })
}

test('a judgement that throws ends the session', async (t) => {
  const device = standing()
  const s = served(t, { outcome: device.who })
  await s.connected()
  device.registrySays(new TypeError('undefined'))
  await s.handler.rejudge()
  await over(t, s, 'ERR_IDENTITY_FAULT')
})

test('grants that throw end the session', async (t) => {
  const device = standing()
  const s = served(t, { outcome: device.who })
  await s.connected()
  const broken = {
    permit: () => {
      throw new Error('broken')
    },
  }
  device.registrySays(authenticatedAs(PRINCIPAL, { grants: broken, ...device.rest }))
  await s.handler.rejudge()
  await over(t, s, 'ERR_IDENTITY_FAULT')
})

test('the last policy taken away ends the session', async (t) => {
  const device = standing()
  const s = served(t, { outcome: device.who })
  await s.connected()
  device.registrySays(authenticatedAs(PRINCIPAL, { grants: NO_GRANTS, ...device.rest }))
  await s.handler.rejudge()
  t.is(s.device.heard, 'e0028700')
  await over(t, s, 'ERR_ACTION_DENIED')
})

test('a thing taken away ends the session where client ids are those of things', async (t) => {
  const lamp = { name: 'a', typeName: null, attributes: {} }
  const device = standing({ things: { of: () => lamp, exclusive: null } })
  const s = served(t, { outcome: device.who, domain: { clientId: { bind: 'thing', prefix: '' } } })
  await s.connected()
  device.registrySays(authenticatedAs(PRINCIPAL, device.rest))
  await s.handler.rejudge()
  await over(t, s, 'ERR_CLIENT_ID_INVALID')
})

test('a permit that is narrowed counts from the next packet on, and one that is widened as well', async (t) => {
  const device = standing()
  const s = served(t, { outcome: device.who })
  await s.connected()
  const publish = '320700016100010061'
  s.device.say(publish)
  await until(() => s.broker.heard.endsWith(publish))
  device.registrySays(authenticatedAs(PRINCIPAL, { grants: grantsOf(withoutPublish), ...device.rest }))
  await s.handler.rejudge()
  s.device.say('320700016100020061')
  // PUBACK, Not authorized.
  await until(() => s.device.heard === '400400028700' || s.device.heard === '4003000287')
  t.true(s.broker.heard.endsWith(publish))
  device.registrySays(authenticatedAs(PRINCIPAL, { grants: OPEN_GRANTS, ...device.rest }))
  await s.handler.rejudge()
  s.device.say('320700016100030061')
  await until(() => s.broker.heard.endsWith('320700016100030061'))
  t.false(s.device.finished)
})

test('sessions are judged in slices: others get their turn, and each is judged once', async (t) => {
  const device = standing()
  let judged = 0
  const who = authenticatedAs(PRINCIPAL, {
    rejudge: () => {
      judged++
      return device.who
    },
  })
  const s = served(t, { outcome: who })
  await s.connected()
  const one = s.session()
  // As many sessions as it takes; the same one will do.
  const live = s.handler.live as Ring<typeof one>
  const links = Array.from({ length: 299 }, () =>
    live.add({ ...one, rejudge: () => void judged++ } as unknown as typeof one),
  )
  const turns: number[] = []
  const others = (async () => {
    while (judged < 300) {
      turns.push(judged)
      await setImmediate()
    }
  })()
  await s.handler.rejudge()
  await others
  t.is(judged, 300)
  t.true(turns.length >= 4, `${turns}`)
  for (const extra of links) live.remove(extra)
})

test('changes that come while sessions are judged are judged as well, and many of them at once', async (t) => {
  const device = standing()
  let judged = 0
  const who = authenticatedAs(PRINCIPAL, {
    rejudge: () => {
      judged++
      return who
    },
  })
  const s = served(t, { outcome: who })
  await s.connected()
  t.truthy(device)
  await Promise.all([s.handler.rejudge(), s.handler.rejudge(), s.handler.rejudge()])
  t.true(judged >= 1 && judged <= 2, `${judged}`)
})

// --- between identity and the relay

test('a registry that changes while a broker is looked for is heard before the device is connected', async (t) => {
  for (const [says, code] of [
    [denied('ERR_CERTIFICATE_REVOKED'), 'ERR_CERTIFICATE_REVOKED'],
    [authenticatedAs(PRINCIPAL, { grants: NO_GRANTS }), 'ERR_ACTION_DENIED'],
    [new Error('broken'), 'ERR_IDENTITY_FAULT'],
  ] as const) {
    const device = standing()
    const found = Promise.withResolvers<void>()
    const s = served(t, { outcome: device.who, open: () => found.promise })
    s.device.say(V5)
    await until(() => s.dials.length > 0)
    device.registrySays(says)
    await s.handler.rejudge()
    found.resolve()
    t.is(await s.ended, code)
    t.deepEqual([s.broker.heard, s.broker.destroyed], ['', true])
    leavesNothing(t, s)
  }
})

test('who was proved by an upgrade is judged once more before it is connected', async (t) => {
  const device = standing()
  device.registrySays(denied('ERR_ACCESS_KEY_UNKNOWN'))
  const s = served(t, { who: device.who })
  s.device.say(V5)
  t.is(await s.ended, 'ERR_ACCESS_KEY_UNKNOWN')
  t.deepEqual([s.device.heard, s.broker.heard], ['2003008700', ''])
})

test('a permit that is narrowed while a broker is looked for decides what the broker is told', async (t) => {
  const device = standing()
  const found = Promise.withResolvers<void>()
  const s = served(t, { outcome: device.who, open: () => found.promise })
  s.device.say('101100044d5154540502003c0322000a000161')
  await until(() => s.dials.length > 0)
  device.registrySays(authenticatedAs(PRINCIPAL, { grants: grantsOf(onlyConnect), ...device.rest }))
  await s.handler.rejudge()
  found.resolve()
  await until(() => s.broker.written.length > 0)
  t.is(s.broker.heard, '101100044d5154540502003c03220000000161')
})

// --- lifetimes

function timed(first: Partial<Authenticated>, options: Omit<ServedOptions, 'outcome' | 'now'> = {}) {
  let now = 1_000_000
  const device = standing(first)
  return {
    device,
    options: { ...options, outcome: device.who, now: () => now },
    pass: (s: ReturnType<typeof served>, ms: number) => {
      now += ms
      s.lifetimes.tick()
    },
  }
}

test('a connection that its authorizer gave 300 s ends at 300 s with DISCONNECT 0xA0 [checklist 28]', async (t) => {
  for (const [connect, ok, heard] of [
    [V5, OK5, 'e002a000'],
    [V4, OK4, ''],
  ] as const) {
    const { options, pass } = timed({ disconnectAfterMs: 300_000 })
    const s = served(t, options)
    await s.connected(connect, ok)
    pass(s, 299_999)
    t.false(s.device.finished)
    pass(s, 1_000)
    t.is(s.device.heard, heard)
    await over(t, s, 'ERR_MAX_CONNECT_TIME')
  }
})

test('a WebSocket lives 24 h, whatever else', async (t) => {
  const connection = { admissions: [{ mode: 'B', port: 443, alpn: null, protocol: 'wss', auth: 'x509' }] }
  const { options, pass } = timed({}, { connection: connection as unknown as Partial<SecuredConnection> })
  const s = served(t, options)
  await s.connected()
  pass(s, 86_390_000)
  t.false(s.device.finished)
  pass(s, 11_000)
  t.is(s.device.heard, 'e002a000')
  await over(t, s, 'ERR_MAX_CONNECT_TIME')
})

test('limits.connectionLifetime ends a connection', async (t) => {
  const { options, pass } = timed({}, { domain: { rules: rulesOf('open', { connectionLifetimeMs: 60_000 }) } })
  const s = served(t, options)
  await s.connected()
  pass(s, 61_000)
  t.is(s.device.heard, 'e002a000')
})

test('of several ends the first counts', async (t) => {
  const { options, pass } = timed(
    { disconnectAfterMs: 10_000 },
    { domain: { rules: rulesOf('open', { connectionLifetimeMs: 60_000 }) } },
  )
  const s = served(t, options)
  await s.connected()
  t.is(s.lifetimes.size, 1)
  pass(s, 11_000)
  t.true(s.device.finished)
})

test('a device that is another principal after a change of the registry goes', async (t) => {
  const device = authenticatedAs(PRINCIPAL, { rejudge: () => STRANGER })
  const s = served(t, { outcome: device })
  await s.connected()
  await s.handler.rejudge()
  await over(t, s, 'ERR_AUTHORIZATION_ENDED')
})

for (const [what, then] of [
  ['another principal', authenticatedAs({ ...PRINCIPAL, id: 'cd34', attributes: { thingName: 'pump' } })],
  ['under another client id', authenticatedAs({ ...PRINCIPAL, attributes: { thingName: 'valve' } })],
] as const) {
  test(`a registry that changes while the broker is dialled, and the device is ${what} by it: it does not come in`, async (t) => {
    const first = authenticatedAs({ ...PRINCIPAL, attributes: { thingName: 'pump' } }, { rejudge: () => then })
    const s = served(t, {
      outcome: first,
      identity: { clientId: '${principal.thingName}' },
      open: async () => void s.handler.rejudge(),
    })
    s.device.say(V5)
    t.is(await s.ended, 'ERR_AUTHORIZATION_ENDED')
    t.deepEqual([s.broker.written.length, s.broker.destroyed], [0, true])
    leavesNothing(t, s)
  })
}

test('a connection ends with its certificate where the domain says so, also when the date cannot be read', async (t) => {
  const expiring = (validTo: string) => ({ peer: { leaf: { validTo } } }) as unknown as Partial<SecuredConnection>
  const soon = new Date(Date.now() + 60_000).toUTCString()
  for (const [validTo, cutAtExpiry, ends] of [
    [soon, true, true],
    [soon, false, false],
    ['no date', true, true],
  ] as const) {
    const { options, pass } = timed({}, { connection: expiring(validTo), domain: { cutAtExpiry } })
    const s = served(t, options)
    await s.connected()
    pass(s, 62_000)
    t.is(s.device.finished, ends)
    if (ends) await over(t, s, 'ERR_CERTIFICATE_EXPIRED')
  }
})

test('an authorizer that is asked again and agrees gives a new permit', async (t) => {
  const { device, options, pass } = timed({ refreshAfterMs: 300_000 })
  const s = served(t, options)
  await s.connected()
  const rest = { ...device.rest, rejudge: () => narrowed }
  const narrowed: Authenticated = authenticatedAs(PRINCIPAL, {
    grants: grantsOf(withoutPublish),
    refreshAfterMs: 300_000,
    ...rest,
  })
  device.authorizerSays(narrowed)
  pass(s, 300_000)
  await setImmediate()
  s.device.say('320700016100020061')
  await until(() => s.device.heard.startsWith('40'))
  t.true(s.device.heard.includes('87'))
  // And again, for as long as it lives.
  pass(s, 300_000)
  await until(() => device.refreshes.length === 2)
  t.false(s.device.finished)
})

const STRANGER = authenticatedAs({ ...PRINCIPAL, id: 'somebody else' })
for (const [what, says] of [
  ['denies', denied('ERR_CREDENTIALS_REFUSED')],
  ['is away', new ProxyError('ERR_AUTHORIZER_UNAVAILABLE', 'no answer')],
  ['throws anything', new TypeError('undefined')],
  ['knows somebody else', STRANGER],
] as const) {
  test(`an authorizer that is asked again and ${what} ends the connection: 0x87`, async (t) => {
    const { device, options, pass } = timed({ refreshAfterMs: 300_000 })
    const s = served(t, options)
    await s.connected()
    device.authorizerSays(says)
    pass(s, 300_000)
    await until(() => s.device.finished)
    t.is(s.device.heard, 'e0028700')
    await over(t, s, 'ERR_AUTHORIZATION_ENDED')
  })
}

test('an answer without policies ends the connection', async (t) => {
  const { device, options, pass } = timed({ refreshAfterMs: 300_000 })
  const s = served(t, options)
  await s.connected()
  device.authorizerSays(authenticatedAs(PRINCIPAL, { grants: NO_GRANTS }))
  pass(s, 300_000)
  await until(() => s.device.finished)
  t.is(s.device.heard, 'e0028700')
  await over(t, s, 'ERR_ACTION_DENIED')
})

test('asking again never makes a life longer, and may make it shorter', async (t) => {
  const { device, options, pass } = timed({ refreshAfterMs: 100_000, disconnectAfterMs: 300_000 })
  const s = served(t, options)
  await s.connected()
  device.authorizerSays(authenticatedAs(PRINCIPAL, { disconnectAfterMs: 900_000 }))
  pass(s, 100_000)
  await setImmediate()
  pass(s, 201_000)
  t.true(s.device.finished)

  const short = timed({ refreshAfterMs: 100_000, disconnectAfterMs: 300_000 })
  const other = served(t, short.options)
  await other.connected()
  short.device.authorizerSays(authenticatedAs(PRINCIPAL, { disconnectAfterMs: 50_000 }))
  short.pass(other, 100_000)
  await setImmediate()
  t.is(short.device.refreshes.length, 1)
  short.pass(other, 51_000)
  t.true(other.device.finished)
})

test('an answer that comes after the session is over changes nothing, and the question was called off', async (t) => {
  const { device, options, pass } = timed({ refreshAfterMs: 300_000 })
  const answer = Promise.withResolvers<AuthOutcome>()
  const s = served(t, options)
  await s.connected()
  device.authorizerSays(answer.promise)
  pass(s, 300_000)
  await until(() => device.refreshes.length === 1)
  s.session().close('ERR_ADMINISTRATIVE')
  t.true(device.refreshes[0]!.aborted)
  answer.resolve(device.who)
  await over(t, s, 'ERR_ADMINISTRATIVE')
})

test('a session says who and what it is, for those who look', async (t) => {
  const s = served(t)
  await s.connected()
  const { id, clientId, principal, domain, connectedAt } = s.session()
  t.deepEqual([clientId, principal, domain], ['a', 'ab12', 'iot.example.com'])
  t.true(Math.abs(Date.now() - connectedAt) < 60_000)
  t.regex(id, /^c\d+$/)
  s.session().close('ERR_ADMINISTRATIVE')
  t.is(s.device.heard, 'e0029800')
  await over(t, s, 'ERR_ADMINISTRATIVE')
})
