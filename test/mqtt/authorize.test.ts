import test from 'ava'
import mqttPacket, { type IConnectPacket } from 'mqtt-packet'
import { FAILURES, type FailureCode } from '../../src/errors.ts'
import type { DomainRules } from '../../src/mqtt/domain-rules.ts'
import { AWS_IOT_RULES, rulesOf } from '../../src/mqtt/limits.ts'
import { grantsOf } from '../../src/policy/grants.ts'
import { NO_GRANTS } from '../../src/policy/permit.ts'
import { NO_THINGS, type Things } from '../../src/registry/entries.ts'
import { documentOf } from '../policy/support.ts'
import { authenticatedAs } from '../support/identity.ts'
import { until } from './fakes.ts'
import { leavesNothing, OK4, OK5, PRINCIPAL, type ServedOptions, served, V4, V5 } from './served.ts'

const HEAD = 'arn:aws:iot:us-east-1:000000000000:'
const allow = (action: string, ...resources: string[]) => ({
  Effect: 'Allow',
  Action: action,
  Resource: resources.map((resource) => HEAD + resource),
})

/** A device with these statements. */
const granted = (...statements: object[]) =>
  authenticatedAs(PRINCIPAL, { grants: grantsOf([documentOf(...statements)]) })

/** Another encoder's CONNECT: keep alive 60, client id `a`. */
function connectOf(version: 4 | 5, changes: Partial<IConnectPacket> = {}): string {
  const packet: IConnectPacket = {
    cmd: 'connect',
    protocolId: 'MQTT',
    protocolVersion: version,
    clean: true,
    keepalive: 60,
    clientId: 'a',
    ...changes,
  }
  return mqttPacket.generate(packet).toString('hex')
}

const will = (changes: Partial<NonNullable<IConnectPacket['will']>> = {}): Partial<IConnectPacket> => ({
  will: { topic: 'gone/a', payload: Buffer.from('bye'), qos: 0, retain: false, ...changes },
})

interface Refused {
  readonly connect: Partial<IConnectPacket>
  readonly options: ServedOptions
  readonly code: FailureCode
  /** What a 3.1.1 device and a 5 device hear. */
  readonly heard: readonly [string, string]
}

const refuses = test.macro({
  async exec(t, { connect, options, code, heard }: Refused) {
    for (const version of [4, 5] as const) {
      const s = served(t, options)
      s.device.say(connectOf(version, connect))
      t.is(await s.ended, code)
      t.deepEqual([s.device.heard, s.device.finished, s.dials], [heard[version - 4], true, []])
      t.is(s.told.at(-1), `connect ${code.slice(4).toLowerCase()} ${version === 4 ? '3.1.1' : '5'}`)
      leavesNothing(t, s)
    }
  },
  title: (what, { heard }: Refused) =>
    `${what} is refused before a broker is dialled: ${heard.map((one) => one || 'silence').join(' and ')}`,
})

const AWS: Partial<DomainRules> = { rules: AWS_IOT_RULES }

test('a device without policies', refuses, {
  connect: {},
  options: { outcome: authenticatedAs(PRINCIPAL, { grants: NO_GRANTS }) },
  code: 'ERR_ACTION_DENIED',
  heard: ['20020005', '2003008700'],
})
test('the same under aws-iot', refuses, {
  connect: {},
  options: { outcome: authenticatedAs(PRINCIPAL, { grants: NO_GRANTS }), domain: AWS },
  code: 'ERR_ACTION_DENIED',
  heard: ['', '2003008700'],
})
test('a client id that iot:Connect does not name', refuses, {
  connect: {},
  options: { outcome: granted(allow('iot:Connect', 'client/b', 'topic/a')) },
  code: 'ERR_ACTION_DENIED',
  heard: ['20020005', '2003008700'],
})
test('a policy of another account', refuses, {
  connect: {},
  options: {
    outcome: granted(allow('iot:*', '*')),
    domain: { arn: { partition: 'aws', region: 'us-east-1', accountId: '123456789012' } },
  },
  code: 'ERR_ACTION_DENIED',
  heard: ['20020005', '2003008700'],
})
test('a will that may not be published', refuses, {
  connect: will(),
  options: { outcome: granted(allow('iot:Connect', 'client/a'), allow('iot:Publish', 'topic/gone/b')) },
  code: 'ERR_ACTION_DENIED',
  heard: ['20020005', '2003008700'],
})
test('a retained will without iot:RetainPublish', refuses, {
  connect: will({ retain: true }),
  options: { outcome: granted(allow('iot:Connect', 'client/a'), allow('iot:Publish', 'topic/gone/*')) },
  code: 'ERR_ACTION_DENIED',
  heard: ['20020005', '2003008700'],
})
test('a persistent session where only plain ones are allowed', refuses, {
  connect: { clean: false, properties: { sessionExpiryInterval: 1 } },
  options: {
    outcome: granted({
      ...allow('iot:Connect', 'client/a'),
      Condition: { 'ForAllValues:StringEquals': { 'iot:ConnectAttributes': [] } },
    }),
  },
  code: 'ERR_ACTION_DENIED',
  heard: ['20020005', '2003008700'],
})
test('a will where another one is due', refuses, {
  connect: will(),
  options: {
    outcome: granted(
      {
        ...allow('iot:Connect', 'client/a'),
        Condition: { ArnEquals: { 'iot:LastWillTopic': `${HEAD}topic/gone/b` } },
      },
      allow('iot:Publish', '*'),
    ),
  },
  code: 'ERR_ACTION_DENIED',
  heard: ['20020005', '2003008700'],
})
test('a will of QoS 2 where 1 is the most', refuses, {
  connect: will({ qos: 2 }),
  options: { domain: AWS },
  code: 'ERR_QOS_UNSUPPORTED',
  heard: ['', '2003009b00'],
})
test('a will payload that is a byte too long', refuses, {
  connect: will({ payload: Buffer.alloc(11) }),
  options: { domain: { rules: rulesOf('open', { payloadBytes: 10 }) } },
  code: 'ERR_PAYLOAD_TOO_LARGE',
  heard: ['', '2003009500'],
})
test('a will topic with eight slashes under aws-iot', refuses, {
  connect: will({ topic: 'a/b/c/d/e/f/g/h/i' }),
  options: { domain: AWS },
  code: 'ERR_TOPIC_INVALID',
  heard: ['', '2003009000'],
})
test('a will on a topic that only the broker may publish to', refuses, {
  connect: will({ topic: '$aws/events/presence/connected/a' }),
  options: { domain: AWS },
  code: 'ERR_TOPIC_INVALID',
  heard: ['', '2003009000'],
})
test('a retained will on a topic with $', refuses, {
  connect: will({ topic: '$aws/rules/r/a', retain: true }),
  options: { domain: AWS },
  code: 'ERR_RETAIN_UNSUPPORTED',
  heard: ['', '2003009a00'],
})
test('a client id of 129 bytes under aws-iot', refuses, {
  connect: { clientId: `${'é'.repeat(64)}x` },
  options: { domain: AWS },
  code: 'ERR_CLIENT_ID_INVALID',
  heard: ['20020002', '2003008500'],
})
test('a client id with a control character', refuses, {
  connect: { clientId: 'a\u009f' },
  options: {},
  code: 'ERR_CLIENT_ID_INVALID',
  heard: ['20020002', '2003008500'],
})
test('a client id that is no thing’s name, where it has to be', refuses, {
  connect: {},
  options: { domain: { clientId: { bind: 'thing', prefix: '' } } },
  code: 'ERR_CLIENT_ID_INVALID',
  heard: ['20020002', '2003008500'],
})
test('a client id that is not the principal’s, where it has to be', refuses, {
  connect: {},
  options: { domain: { clientId: { bind: 'principal', prefix: '' } } },
  code: 'ERR_CLIENT_ID_INVALID',
  heard: ['20020002', '2003008500'],
})

/** 5 only. */
const refuses5 = test.macro({
  async exec(t, connect: Partial<IConnectPacket>, rules: Partial<DomainRules['rules']>, heard: string) {
    const s = served(t, { domain: { rules: rulesOf('open', rules) } })
    s.device.say(connectOf(5, connect))
    t.is(await s.ended, 'ERR_QUOTA_EXCEEDED')
    t.deepEqual([s.device.heard, s.dials], [heard, []])
  },
  title: (what, _, __, heard: string) => `${what} is refused on 5: ${heard}`,
})
test(
  'a device that takes packets of 511 bytes',
  refuses5,
  { properties: { maximumPacketSize: 511 } },
  { clientPacketLeast: 512 },
  '2003009700',
)
test(
  'more user properties than there may be',
  refuses5,
  { properties: { userProperties: { ab: ['cd', 'ef'] } } },
  { userPropertyBytes: 7 },
  '2003009700',
)
test(
  'more user properties of the will than there may be',
  refuses5,
  will({ properties: { userProperties: { ab: 'cd' } } }),
  { userPropertyBytes: 3 },
  '2003009700',
)
test(
  'a content type that is too long',
  refuses5,
  will({ properties: { contentType: 'abcd' } }),
  { contentTypeBytes: 3 },
  '2003009700',
)
test(
  'correlation data that is too long',
  refuses5,
  will({ properties: { correlationData: Buffer.from('abcd') } }),
  { correlationDataBytes: 3 },
  '2003009700',
)

const scram = { properties: { authenticationMethod: 'SCRAM-SHA-256', authenticationData: Buffer.from('n,,n=root') } }

test('a device that was judged here does not prove to the broker that it is somebody else (MQTT 5.0 §4.12)', async (t) => {
  const s = served(t, { domain: { reportOnly: true } })
  s.device.say(connectOf(5, scram))
  t.is(await s.ended, 'ERR_CREDENTIALS_REFUSED')
  t.deepEqual([s.device.heard, s.dials], ['2003008700', []])
  leavesNothing(t, s)
})

test('where the broker judges, its way of authentication is its own', async (t) => {
  const s = served(t, { outcome: authenticatedAs({ ...PRINCIPAL, method: 'backend' }) })
  const connect = connectOf(5, scram)
  await s.connected(connect, OK5)
  t.is(s.broker.heard, connect)
  await s.over()
})

test('a name of a property that objects have as well counts like any other', async (t) => {
  const s = served(t, { domain: { rules: rulesOf('open', { userPropertyBytes: 8 }) } })
  // One user property, `__proto__` = ``.
  s.device.say('101c 0004 4d515454 05 02 003c 0e 26 0009 5f5f70726f746f5f5f 0000 0001 61')
  t.is(await s.ended, 'ERR_QUOTA_EXCEEDED')
})

// --- what may be

const passes = test.macro({
  async exec(t, connect: Partial<IConnectPacket>, options: ServedOptions) {
    for (const [version, ok] of [
      [4, OK4],
      [5, OK5],
    ] as const) {
      const s = served(t, options)
      await s.connected(connectOf(version, connect), ok)
      t.deepEqual(s.denied, [])
      t.is(s.metrics.traffic.gate.allowed['iot:Connect'], 1)
      t.is(s.handler.live.size, 1)
    }
  },
  title: (what) => `${what} is let in on both versions`,
})

test(
  'a device that may connect as itself',
  passes,
  {},
  { outcome: granted(allow('iot:Connect', 'client/${iot:ClientId}')) },
)
test('a will that may be published and retained', passes, will({ retain: true }), {
  outcome: granted(
    allow('iot:Connect', 'client/a'),
    allow('iot:Publish', 'topic/gone/*'),
    allow('iot:RetainPublish', 'topic/gone/*'),
  ),
})
test(
  'a persistent session where one is due',
  passes,
  { clean: false, properties: { sessionExpiryInterval: 1 } },
  {
    outcome: granted({
      ...allow('iot:Connect', 'client/a'),
      Condition: { 'ForAnyValue:StringEquals': { 'iot:ConnectAttributes': ['PersistentConnect'] } },
    }),
  },
)
test('a will exactly on the topic where it is due', passes, will(), {
  outcome: granted(
    { ...allow('iot:Connect', 'client/a'), Condition: { ArnEquals: { 'iot:LastWillTopic': `${HEAD}topic/gone/a` } } },
    allow('iot:Publish', 'topic/gone/a'),
  ),
})
test(
  'a device from its own address and name',
  passes,
  {},
  {
    outcome: granted({
      ...allow('iot:Connect', '*'),
      Condition: {
        IpAddress: { 'aws:SourceIp': '198.51.100.0/24' },
        StringEquals: { 'iot:DomainName': 'iot.example.com' },
      },
    }),
  },
)

const LAMP = { name: 'a', typeName: null, attributes: {} }
const lamps: Things = { of: (id) => (id === 'a' ? LAMP : null), exclusive: null }

test(
  'a device that is called as its thing',
  passes,
  {},
  {
    outcome: authenticatedAs(PRINCIPAL, { things: lamps }),
    domain: { clientId: { bind: 'thing', prefix: '' } },
  },
)
test('an exclusive thing, under its own name only', async (t) => {
  const things = { of: () => LAMP, exclusive: LAMP }
  for (const [clientId, code] of [
    ['a', null],
    ['b', 'ERR_CLIENT_ID_INVALID'],
  ] as const) {
    const s = served(t, {
      outcome: authenticatedAs(PRINCIPAL, { things }),
      domain: { clientId: { bind: 'thing', prefix: '' } },
    })
    s.device.say(connectOf(5, { clientId }))
    if (code === null) await until(() => s.broker.written.length > 0)
    else t.is(await s.ended, code)
  }
})
test(
  'a device that is called as its principal',
  passes,
  { clientId: 'ab12' },
  { domain: { clientId: { bind: 'principal', prefix: '' } } },
)
test('a will payload at its limit', passes, will({ payload: Buffer.alloc(10) }), {
  domain: { rules: rulesOf('open', { payloadBytes: 10 }) },
})
test('a will topic whose Basic Ingest prefix does not count', passes, will({ topic: '$aws/rules/r/a/b/c/d/e/f/g/h' }), {
  domain: AWS,
})

// --- report only

test('a domain that only reports lets pass what policies deny, and tells it', async (t) => {
  for (const [version, ok] of [
    [4, OK4],
    [5, OK5],
  ] as const) {
    const s = served(t, { outcome: authenticatedAs(PRINCIPAL, { grants: NO_GRANTS }), domain: { reportOnly: true } })
    await s.connected(connectOf(version, will({ retain: true })), ok)
    t.deepEqual(
      s.denied.map(({ action, resource, code, reported }) => [action, resource, code, reported]),
      [
        ['iot:Connect', 'client/a', 'ERR_ACTION_DENIED', true],
        ['iot:Publish', 'topic/gone/a', 'ERR_ACTION_DENIED', true],
        ['iot:RetainPublish', 'topic/gone/a', 'ERR_ACTION_DENIED', true],
      ],
    )
    t.is(s.metrics.traffic.gate.denied['iot:Connect'], 1)
    s.handler.rejudge()
    await until(() => s.handler.live.size === 1)
    t.false(s.device.finished)
  }
})

test('a domain that only reports still holds devices to limits and client ids', async (t) => {
  const s = served(t, { domain: { reportOnly: true, clientId: { bind: 'principal', prefix: '' } } })
  s.device.say(V5)
  t.is(await s.ended, 'ERR_CLIENT_ID_INVALID')
})

test('what is denied and refused is told as not reported', async (t) => {
  const s = served(t, { outcome: authenticatedAs(PRINCIPAL, { grants: NO_GRANTS, things: NO_THINGS }) })
  s.device.say(V4)
  t.is(await s.ended, 'ERR_ACTION_DENIED')
  t.deepEqual(
    s.denied.map(({ action, resource, reported }) => [action, resource, reported]),
    [['iot:Connect', 'client/a', false]],
  )
})

// --- client ids

test('a device without a client id gets one that nobody guesses, before it is judged, and on 5 is told', async (t) => {
  const seen = new Set<string>()
  for (let run = 0; run < 20; run++) {
    const s = served(t, { outcome: granted(allow('iot:Connect', 'client/*')) })
    const answer = await s.connected('100d00044d5154540502003c000000', OK5)
    const id = s.dials[0]!
    t.regex(id, /^[0-9a-f]{32}$/)
    // Assigned Client Identifier, 32 bytes.
    t.is(answer, `2026000023120020${Buffer.from(id).toString('hex')}`)
    // The broker is told the same.
    t.is(s.broker.heard, `102d00044d5154540502003c000020${Buffer.from(id).toString('hex')}`)
    t.is(s.trace.clientId, id)
    seen.add(id)
  }
  t.is(seen.size, 20)
})

test('an assigned client id is judged like any other', async (t) => {
  const s = served(t, { outcome: granted(allow('iot:Connect', 'client/a')) })
  s.device.say('100c00044d5154540402003c0000')
  t.is(await s.ended, 'ERR_ACTION_DENIED')
})

test('on 3.1.1 a device without a client id gets one and is not told', async (t) => {
  const s = served(t)
  t.is(await s.connected('100c00044d5154540402003c0000', OK4), OK4)
  t.regex(s.dials[0]!, /^[0-9a-f]{32}$/)
})

test('a client id with the characters of filters is a client id', async (t) => {
  for (const clientId of ['+', '#', 'a/b', '$a']) {
    const s = served(t, { outcome: granted(allow('iot:Connect', `client/${clientId}`)) })
    await s.connected(connectOf(5, { clientId }), OK5)
    t.is(s.dials[0], clientId)
  }
})

test('the prefix of a tenant is put before the id toward the broker, and policies do not see it', async (t) => {
  const s = served(t, {
    outcome: granted(allow('iot:Connect', 'client/a')),
    domain: { clientId: { bind: 'policy', prefix: 'x-' } },
  })
  // The broker says «x-a» where it need not.
  t.is(
    await s.connected(V5, '20090000 06 12 0003 782d61'.replaceAll(' ', '')),
    '20070000 04 12 0001 61'.replaceAll(' ', ''),
  )
  t.deepEqual([s.dials, s.trace.clientId, s.session().clientId], [['x-a'], 'a', 'a'])
  t.is(s.broker.heard, '101000044d5154540502003c000003782d61')
})

test('every code that refuses a CONNECT here can be told on 5', (t) => {
  const codes: FailureCode[] = [
    'ERR_ACTION_DENIED',
    'ERR_CLIENT_ID_INVALID',
    'ERR_CLIENT_ID_TAKEN',
    'ERR_CONNECT_RATE',
    'ERR_QUOTA_EXCEEDED',
    'ERR_TOPIC_INVALID',
    'ERR_QOS_UNSUPPORTED',
    'ERR_RETAIN_UNSUPPORTED',
    'ERR_PAYLOAD_TOO_LARGE',
  ]
  for (const code of codes) t.not(FAILURES[code].connack, null, code)
})
