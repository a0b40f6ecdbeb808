import test from 'ava'
import { grantsOf } from '../../src/policy/grants.ts'
import { type Action, CLOSED_PERMIT, NO_VARIABLES, type Permit } from '../../src/policy/permit.ts'
import { ARN, documentOf, HEAD, values } from './support.ts'

const allow = (Action: unknown, Resource: unknown, Condition?: unknown) => ({
  Effect: 'Allow',
  Action,
  Resource,
  ...(Condition !== undefined && { Condition }),
})
const deny = (Action: unknown, Resource: unknown, Condition?: unknown) => ({
  ...allow(Action, Resource, Condition),
  Effect: 'Deny',
})

const permitOf = (
  statements: readonly unknown[],
  variables: Readonly<Record<string, string | readonly string[]>> = {},
): Permit => grantsOf([documentOf(...statements)]).permit(HEAD, values(variables))

interface Row {
  readonly title: string
  readonly statements: readonly unknown[]
  readonly variables?: Readonly<Record<string, string | readonly string[]>>
  readonly allowed?: readonly (readonly [action: string, resource: string])[]
  readonly denied?: readonly (readonly [action: string, resource: string])[]
}

const CONNECT = ['iot:Connect', 'client/c1'] as const
const PERSISTENT = { 'iot:ConnectAttributes': ['PersistentConnect'] }
const WILL = { 'iot:ConnectAttributes': ['LastWill'] }
const BOTH = { 'iot:ConnectAttributes': ['PersistentConnect', 'LastWill'] }
const PLAIN = { 'iot:ConnectAttributes': [] }

const only = (attributes: readonly string[]) => ({
  'ForAllValues:StringEquals': { 'iot:ConnectAttributes': attributes },
})
const some = (attributes: readonly string[]) => ({
  'ForAnyValue:StringEquals': { 'iot:ConnectAttributes': attributes },
})

const ROWS: readonly Row[] = [
  {
    title: 'a policy wildcard reaches over levels, and MQTT wildcards are characters (§5.3)',
    statements: [allow(['iot:Subscribe'], `${ARN}topicfilter/some/*`)],
    allowed: [
      ['iot:Subscribe', 'topicfilter/some/#'],
      ['iot:Subscribe', 'topicfilter/some/a/b/+'],
      ['iot:Subscribe', 'topicfilter/some/'],
    ],
    denied: [
      ['iot:Receive', 'topic/some/a'],
      ['iot:Subscribe', 'topicfilter/some'],
      ['iot:Subscribe', 'topicfilter/+/a'],
      ['iot:Publish', 'topic/some/a'],
    ],
  },
  {
    title: '# in a policy permits only the filter of that spelling (§5.3)',
    statements: [allow('iot:Subscribe', `${ARN}topicfilter/some/#`), allow('iot:Receive', `${ARN}topic/some/*`)],
    allowed: [
      ['iot:Subscribe', 'topicfilter/some/#'],
      ['iot:Receive', 'topic/some/a'],
    ],
    denied: [
      ['iot:Subscribe', 'topicfilter/some/a'],
      ['iot:Subscribe', 'topicfilter/some/+'],
    ],
  },
  {
    title: 'a deny on one filter does not stop a wider one; a deny of Receive does (§5.3)',
    statements: [
      allow(['iot:Subscribe', 'iot:Receive'], '*'),
      deny('iot:Subscribe', `${ARN}topicfilter/secret/x`),
      deny('iot:Receive', `${ARN}topic/secret/x`),
    ],
    allowed: [
      ['iot:Subscribe', 'topicfilter/secret/#'],
      ['iot:Receive', 'topic/secret/y'],
    ],
    denied: [
      ['iot:Subscribe', 'topicfilter/secret/x'],
      ['iot:Receive', 'topic/secret/x'],
    ],
  },
  {
    title: '? is one character, and case counts (§5.3)',
    statements: [allow('iot:Publish', `${ARN}topic/a?/b`)],
    allowed: [
      ['iot:Publish', 'topic/a1/b'],
      ['iot:Publish', 'topic/a//b'],
      ['iot:Publish', 'topic/a😀/b'],
    ],
    denied: [
      ['iot:Publish', 'topic/a/b'],
      ['iot:Publish', 'topic/a12/b'],
      ['iot:Publish', 'topic/A1/b'],
      ['iot:Publish', 'topic/a1/b/c'],
    ],
  },
  {
    title: 'both spellings of the escapes stand for the character itself (§5.3)',
    statements: [allow('iot:Publish', [`${ARN}topic/$(*)/$(?)/$($)`, `${ARN}topic/\${*}-\${?}-\${$}`])],
    allowed: [
      ['iot:Publish', 'topic/*/?/$'],
      ['iot:Publish', 'topic/*-?-$'],
    ],
    denied: [
      ['iot:Publish', 'topic/a/?/$'],
      ['iot:Publish', 'topic/a-?-$'],
    ],
  },
  {
    title: 'an explicit deny wins over any allow (§5.5)',
    statements: [
      allow('iot:*', '*'),
      deny('iot:Publish', `${ARN}topic/a`),
      deny('iot:Connect', [`${ARN}client/client1`, `${ARN}client/client2`]),
    ],
    allowed: [
      ['iot:Publish', 'topic/b'],
      ['iot:Connect', 'client/client3'],
    ],
    denied: [
      ['iot:Publish', 'topic/a'],
      ['iot:Connect', 'client/client1'],
    ],
  },
  {
    title: 'a shared subscription is the whole string; Receive is on the plain topic (§5.2)',
    statements: [
      allow('iot:Subscribe', `${ARN}topicfilter/$share/*/test/topic`),
      allow('iot:Receive', `${ARN}topic/test/topic`),
    ],
    allowed: [
      ['iot:Subscribe', 'topicfilter/$share/group/test/topic'],
      ['iot:Receive', 'topic/test/topic'],
    ],
    denied: [
      ['iot:Subscribe', 'topicfilter/test/topic'],
      ['iot:Subscribe', 'topicfilter/$share/group/test/other'],
    ],
  },
  {
    title: 'Basic Ingest is a publish on $aws/rules (§5.2)',
    statements: [allow('iot:Publish', `${ARN}topic/$aws/rules/meter/*`)],
    allowed: [['iot:Publish', 'topic/$aws/rules/meter/floor/1']],
    denied: [
      ['iot:Publish', 'topic/$aws/rules/other/floor/1'],
      ['iot:Publish', 'topic/floor/1'],
    ],
  },
  {
    title: 'the client id fills in a client and a topic (§5.4)',
    statements: [
      allow('iot:Connect', `${ARN}client/\${iot:ClientId}`),
      allow('iot:Publish', `${ARN}topic/dev/\${iot:ClientId}/*`),
    ],
    variables: { 'iot:ClientId': 'c1' },
    allowed: [CONNECT, ['iot:Publish', 'topic/dev/c1/up']],
    denied: [
      ['iot:Connect', 'client/c2'],
      ['iot:Publish', 'topic/dev/c2/up'],
    ],
  },
  {
    title: 'only an attached thing connects, by its own name (§5.4)',
    statements: [
      allow('iot:Connect', `${ARN}client/\${iot:Connection.Thing.ThingName}`, {
        Bool: { 'iot:Connection.Thing.IsAttached': ['true'] },
      }),
    ],
    variables: { 'iot:Connection.Thing.ThingName': 'c1', 'iot:Connection.Thing.IsAttached': 'true' },
    allowed: [CONNECT],
    denied: [['iot:Connect', 'client/other']],
  },
  {
    title: 'without a thing the same statement allows nothing (§5.4)',
    statements: [
      allow('iot:Connect', `${ARN}client/\${iot:Connection.Thing.ThingName}`, {
        Bool: { 'iot:Connection.Thing.IsAttached': [true] },
      }),
    ],
    variables: { 'iot:Connection.Thing.IsAttached': 'false' },
    denied: [CONNECT, ['iot:Connect', 'client/${iot:Connection.Thing.ThingName}']],
  },
  {
    title: 'Connect without a condition allows every attribute (§5.4)',
    statements: [allow('iot:Connect', '*')],
    variables: BOTH,
    allowed: [CONNECT],
  },
  {
    title: 'ForAllValues [] allows a plain connect (§5.4)',
    statements: [allow('iot:Connect', '*', only([]))],
    variables: PLAIN,
    allowed: [CONNECT],
  },
  {
    title: 'ForAllValues [] refuses a persistent connect (§5.4)',
    statements: [allow('iot:Connect', '*', only([]))],
    variables: PERSISTENT,
    denied: [CONNECT],
  },
  {
    title: 'ForAllValues [] refuses a will (§5.4)',
    statements: [allow('iot:Connect', '*', only([]))],
    variables: WILL,
    denied: [CONNECT],
  },
  {
    title: 'ForAllValues PersistentConnect allows a plain connect (§5.4)',
    statements: [allow('iot:Connect', '*', only(['PersistentConnect']))],
    variables: PLAIN,
    allowed: [CONNECT],
  },
  {
    title: 'ForAllValues PersistentConnect allows a persistent one (§5.4)',
    statements: [allow('iot:Connect', '*', only(['PersistentConnect']))],
    variables: PERSISTENT,
    allowed: [CONNECT],
  },
  {
    title: 'ForAllValues PersistentConnect refuses a will (§5.4)',
    statements: [allow('iot:Connect', '*', only(['PersistentConnect']))],
    variables: BOTH,
    denied: [CONNECT],
  },
  {
    title: 'ForAnyValue PersistentConnect refuses a plain connect (§5.4)',
    statements: [allow('iot:Connect', '*', some(['PersistentConnect']))],
    variables: PLAIN,
    denied: [CONNECT],
  },
  {
    title: 'ForAnyValue PersistentConnect allows persistence with a will (§5.4)',
    statements: [allow('iot:Connect', '*', some(['PersistentConnect']))],
    variables: BOTH,
    allowed: [CONNECT],
  },
  {
    title: 'a deny of ForAnyValue PersistentConnect refuses persistence (§5.4)',
    statements: [allow('iot:Connect', '*'), deny('iot:Connect', '*', some(['PersistentConnect']))],
    variables: BOTH,
    denied: [CONNECT],
  },
  {
    title: 'a deny of ForAnyValue PersistentConnect leaves a plain connect (§5.4)',
    statements: [allow('iot:Connect', '*'), deny('iot:Connect', '*', some(['PersistentConnect']))],
    variables: PLAIN,
    allowed: [CONNECT],
  },
  {
    title: 'ArnEquals on the will topic allows that topic (§5.4)',
    statements: [allow('iot:Connect', '*', { ArnEquals: { 'iot:LastWillTopic': `${ARN}topic/a/b` } })],
    variables: { 'iot:LastWillTopic': `${ARN}topic/a/b` },
    allowed: [CONNECT],
  },
  {
    title: 'ArnEquals on the will topic refuses another (§5.4)',
    statements: [allow('iot:Connect', '*', { ArnEquals: { 'iot:LastWillTopic': `${ARN}topic/a/b` } })],
    variables: { 'iot:LastWillTopic': `${ARN}topic/a/c` },
    denied: [CONNECT],
  },
  {
    title: 'ArnEquals on the will topic refuses a connect without a will (§5.4)',
    statements: [allow('iot:Connect', '*', { ArnEquals: { 'iot:LastWillTopic': `${ARN}topic/a/b` } })],
    denied: [CONNECT],
  },
  {
    title: 'connect attributes are known for Connect alone: a publish under ForAllValues is not held to them',
    statements: [allow('iot:*', '*', only([]))],
    variables: BOTH,
    allowed: [['iot:Publish', 'topic/a']],
    denied: [CONNECT],
  },
  {
    title: 'actions are named in any case, and with wildcards',
    statements: [allow('IOT:pub*', '*'), allow('iot:RetainPublis?', '*')],
    allowed: [
      ['iot:Publish', 'topic/a'],
      ['iot:RetainPublish', 'topic/a'],
    ],
    denied: [['iot:Subscribe', 'topicfilter/a']],
  },
  {
    title: 'the head of the ARN must fit, with wildcards or without',
    statements: [
      allow('iot:Publish', 'arn:aws:iot:eu-west-1:123456789012:topic/region'),
      allow('iot:Publish', 'arn:aws:iot:us-east-1:210987654321:topic/account'),
      allow('iot:Publish', 'arn:aws-cn:iot:us-east-1:123456789012:topic/partition'),
      allow('iot:Publish', 'arn:aws:greengrass:us-east-1:123456789012:topic/service'),
      allow('iot:Publish', 'arn:*:iot:us-*-?:*:topic/fits'),
    ],
    allowed: [['iot:Publish', 'topic/fits']],
    denied: [
      ['iot:Publish', 'topic/region'],
      ['iot:Publish', 'topic/account'],
      ['iot:Publish', 'topic/partition'],
      ['iot:Publish', 'topic/service'],
    ],
  },
  {
    title: 'REST actions are asked in the same way',
    statements: [allow('iot:GetThingShadow', `${ARN}thing/t1`), allow('iotjobsdata:*', `${ARN}thing/t1`)],
    allowed: [
      ['iot:GetThingShadow', 'thing/t1'],
      ['iotjobsdata:DescribeJobExecution', 'thing/t1'],
    ],
    denied: [['iot:UpdateThingShadow', 'thing/t1']],
  },
]

for (const { title, statements, variables, allowed = [], denied = [] } of ROWS) {
  test(title, (t) => {
    const permit = permitOf(statements, variables)
    for (const [action, resource] of allowed) t.true(permit.allows(action, resource), `${action} ${resource}`)
    for (const [action, resource] of denied) t.false(permit.allows(action, resource), `${action} ${resource}`)
  })
}

test('no document grants nothing', (t) => {
  t.is(grantsOf([]).permit(HEAD, NO_VARIABLES), CLOSED_PERMIT)
})

test('documents are taken together, and the deny of one holds for the allow of another', (t) => {
  const permit = grantsOf([
    documentOf(allow('iot:Publish', '*')),
    documentOf(deny('iot:Publish', `${ARN}topic/a`)),
  ]).permit(HEAD, NO_VARIABLES)
  t.true(permit.allows('iot:Publish', 'topic/b'))
  t.false(permit.allows('iot:Publish', 'topic/a'))
})

test('a statement that did not come from the parser and cannot be compiled closes everything', (t) => {
  const grants = grantsOf([
    documentOf(allow('iot:Publish', '*')),
    {
      statements: [
        {
          sid: null,
          effect: 'Deny',
          actions: ['iot:Publish'],
          resources: ['*'],
          conditions: new Map([['StringIsh', new Map([['iot:ClientId', ['a']]])]]),
        },
      ],
    },
  ])
  t.false(grants.permit(HEAD, NO_VARIABLES).allows('iot:Publish', 'topic/a'))
})

test('a look-up that throws closes the permit', (t) => {
  const grants = grantsOf([documentOf(allow('iot:Publish', ['*', `${ARN}topic/\${iot:ClientId}`]))])
  const permit = grants.permit(HEAD, {
    lookup() {
      throw new Error('out of order')
    },
  })
  t.is(permit, CLOSED_PERMIT)
})

test('equal values share one permit, other values or another account do not', (t) => {
  const grants = grantsOf([documentOf(allow('iot:Publish', `${ARN}topic/\${iot:ClientId}`))])
  const of = (clientId: string, accountId = HEAD.accountId) =>
    grants.permit(
      { ...HEAD, accountId },
      values({ 'iot:ClientId': clientId, 'aws:SourceIp': Math.random().toString() }),
    )
  t.is(of('a'), of('a'))
  t.not(of('a'), of('b'))
  t.false(of('a', '1').allows('iot:Publish', 'topic/a'))
})

test('allowsAll holds only where no resource of the action can be refused', (t) => {
  const all = (statements: readonly unknown[], action: Action = 'iot:Publish') => permitOf(statements).allowsAll(action)
  t.true(all([allow('iot:*', '*')]))
  t.true(all([allow('iot:Publish', `${ARN}topic/*`)]))
  t.true(all([allow('iot:Publish', `${ARN}*`)]))
  t.false(all([allow('iot:Publish', `${ARN}topic/a*`)]))
  t.false(all([allow('iot:Publish', `${ARN}topic/?*`)]))
  t.false(all([allow('iot:Publish', '*', { Bool: { 'iot:Connection.Thing.IsAttached': 'true' } })]))
  t.false(all([allow('iot:*', '*'), deny('iot:Publish', `${ARN}topic/a`)]))
  t.true(all([allow('iot:*', '*'), deny('iot:Publish', `${ARN}topic/a`)], 'iot:Receive'))
  t.false(all([allow('iot:Subscribe', `${ARN}topic/*`)], 'iot:Subscribe'))
  t.false(all([allow('iot:*', '*', { DateLessThan: { 'aws:CurrentTime': '2999-01-01T00:00:00Z' } })]))
  t.false(
    all([allow('iot:*', '*'), deny('iot:*', '*', { DateGreaterThan: { 'aws:CurrentTime': '2999-01-01T00:00:00Z' } })]),
  )
})

test('a condition on the time is decided at each question, not when the permit is made', (t) => {
  let seconds = Date.parse('2030-01-01T11:59:59Z') / 1000
  const permit = grantsOf(
    [
      documentOf(
        allow('iot:Publish', '*', { DateLessThan: { 'aws:CurrentTime': '2030-01-01T12:00:00Z' } }),
        allow('iot:Receive', '*'),
        deny('iot:Receive', `${ARN}topic/a`, { NumericGreaterThanEquals: { 'AWS:epochtime': String(seconds + 1) } }),
      ),
    ],
    { seconds: () => seconds },
  ).permit(HEAD, NO_VARIABLES)
  t.true(permit.allows('iot:Publish', 'topic/a'))
  t.true(permit.allows('iot:Receive', 'topic/a'))
  seconds += 1
  t.false(permit.allows('iot:Publish', 'topic/a'))
  t.false(permit.allows('iot:Receive', 'topic/a'))
  t.true(permit.allows('iot:Receive', 'topic/b'))
})

const UNUSABLE: readonly (readonly [title: string, value: string | readonly string[] | null])[] = [
  ['absent', null],
  ['with *', 'a*'],
  ['with $', 'a$b'],
  ['with +', '+'],
  ['with ?', 'a?'],
  ['with #', '#'],
  ['longer than 1024 characters', 'x'.repeat(1025)],
  ['of two values', ['a', 'b']],
]

for (const [title, value] of UNUSABLE) {
  test(`a variable whose value is ${title} matches nothing, under Deny too, and is reported`, (t) => {
    const permit = permitOf(
      [
        allow('iot:Publish', `${ARN}topic/\${iot:ClientId}/*`),
        allow('iot:Receive', '*'),
        deny('iot:Receive', `${ARN}topic/\${iot:ClientId}`),
      ],
      value === null ? {} : { 'iot:ClientId': value },
    )
    for (const name of ['a', 'b', 'a*', '${iot:ClientId}', String(value)])
      t.false(permit.allows('iot:Publish', `topic/${name}/x`))
    t.true(permit.allows('iot:Receive', 'topic/a'))
    t.deepEqual(permit.unresolved, ['iot:ClientId'])
  })
}

test('a value of 1024 characters is filled in', (t) => {
  const value = 'x'.repeat(1024)
  const permit = permitOf([allow('iot:Publish', `${ARN}topic/\${iot:ClientId}`)], { 'iot:ClientId': value })
  t.true(permit.allows('iot:Publish', `topic/${value}`))
  t.deepEqual(permit.unresolved, [])
})
