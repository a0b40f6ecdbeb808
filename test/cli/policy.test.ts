import { spawnSync } from 'node:child_process'
import test, { type ExecutionContext } from 'ava'
import { type SimulateOptions, simulate } from '../../src/cli/policy.ts'
import { tempFiles } from '../support/openssl.ts'

const DEVICES = JSON.stringify({
  Version: '2012-10-17',
  Statement: [
    { Sid: 'own', Effect: 'Allow', Action: ['iot:Publish'], Resource: 'arn:aws:iot:*:*:topic/dev/${iot:ClientId}/*' },
    { Sid: 'bad', Effect: 'Deny', Action: '*', Resource: '*', Condition: { StringLike: { 'iot:ClientId': 'bad*' } } },
  ],
})
const MORE = JSON.stringify({
  Version: '2012-10-17',
  Statement: { Effect: 'Allow', Action: 'iot:Connect', Resource: 'arn:aws:iot:eu-west-1:1:client/*' },
})

interface Ran {
  readonly code: number
  readonly lines: readonly string[]
}

function run(
  t: ExecutionContext,
  action: string,
  resource: string,
  change: Partial<SimulateOptions> = {},
  documents: Readonly<Record<string, string>> = { 'devices.json': DEVICES },
): Ran {
  const files = tempFiles(documents)
  t.teardown(files.remove)
  const lines: string[] = []
  const options: SimulateOptions = {
    policy: Object.values(files.paths),
    partition: 'aws',
    region: 'us-east-1',
    account: '000000000000',
    sourceIp: '192.0.2.1',
    attribute: [],
    variable: [],
    ...change,
  }
  const code = simulate(options, action, resource, (line) => lines.push(line.replace(/\/\S*\/(?=[a-z]+\.json)/, '')))
  return { code, lines }
}

test('what is allowed exits 0 and names the statement, with its variables filled in', (t) => {
  t.deepEqual(run(t, 'iot:Publish', 'topic/dev/c1/up', { clientId: 'c1' }), {
    code: 0,
    lines: [
      'allowed: iot:Publish on arn:aws:iot:us-east-1:000000000000:topic/dev/c1/up',
      'decided by: devices.json: Statement[0] "own", Allow',
      '  arn:aws:iot:*:*:topic/dev/${iot:ClientId}/* matches (filled in: topic/dev/c1/*)',
      'does not apply: devices.json: Statement[1] "bad", Deny',
      '  StringLike iot:ClientId does not hold: iot:ClientId is "c1"',
    ],
  })
})

test('a deny exits 1, and what it overrules is told', (t) => {
  t.deepEqual(run(t, 'iot:Publish', 'topic/dev/bad1/up', { clientId: 'bad1' }), {
    code: 1,
    lines: [
      'denied: iot:Publish on arn:aws:iot:us-east-1:000000000000:topic/dev/bad1/up',
      'decided by: devices.json: Statement[1] "bad", Deny',
      '  * matches',
      'overruled: devices.json: Statement[0] "own", Allow',
      '  arn:aws:iot:*:*:topic/dev/${iot:ClientId}/* matches (filled in: topic/dev/bad1/*)',
    ],
  })
})

test('a variable without a value is named', (t) => {
  const { code, lines } = run(t, 'iot:Publish', 'topic/dev/c1/up')
  t.is(code, 1)
  t.true(lines.includes('because no statement allows it'))
  t.true(lines.includes('  arn:aws:iot:*:*:topic/dev/${iot:ClientId}/*: ${iot:ClientId} has no value'))
  t.true(lines.includes('  StringLike iot:ClientId does not hold: iot:ClientId has no value'))
})

test('a value that could change the pattern is named', (t) => {
  const { lines } = run(t, 'iot:Publish', 'topic/dev/c1/up', { clientId: '*' })
  t.true(
    lines.includes(
      '  arn:aws:iot:*:*:topic/dev/${iot:ClientId}/*: ${iot:ClientId} is not filled in: its value "*" could change the pattern',
    ),
  )
})

test('documents are taken together; another action and another account are named', (t) => {
  const documents = { 'devices.json': DEVICES, 'more.json': MORE }
  const { code, lines } = run(t, 'iot:Connect', 'client/c1', { clientId: 'c1' }, documents)
  t.is(code, 1)
  t.true(lines.includes('  the action is not among iot:Publish'))
  t.true(lines.includes('  arn:aws:iot:eu-west-1:1:client/* is of another partition, service, region or account'))
  t.is(run(t, 'iot:Connect', 'arn:aws:iot:eu-west-1:1:client/c1', { clientId: 'c1' }, documents).code, 0)
})

const FACTS: readonly (readonly [condition: unknown, change: Partial<SimulateOptions>])[] = [
  [{ Bool: { 'iot:Connection.Thing.IsAttached': 'true' } }, { thing: 't1' }],
  [{ StringEquals: { 'iot:Connection.Thing.ThingTypeName': 'meter' } }, { thing: 't1', thingType: 'meter' }],
  [{ StringEquals: { 'iot:Connection.Thing.Attributes[floor]': '3=a' } }, { thing: 't1', attribute: ['floor=3=a'] }],
  [{ IpAddress: { 'aws:SourceIp': '10.0.0.0/8' } }, { sourceIp: '10.1.1.1' }],
  [{ StringEquals: { 'iot:DomainName': 'iot.example' } }, { serverName: 'iot.example' }],
  [{ 'ForAnyValue:StringEquals': { 'iot:ConnectAttributes': 'PersistentConnect' } }, { persistent: true }],
  [{ ArnLike: { 'iot:LastWillTopic': 'arn:aws:iot:*:*:topic/gone/*' } }, { willTopic: 'gone/c1' }],
  [{ DateGreaterThan: { 'aws:CurrentTime': '2090-01-01' } }, { at: '2091-01-01' }],
  [
    {
      'ForAllValues:StringEquals': { 'iot:Certificate.Subject.Organization.List': ['a', 'b'] },
      Null: { 'iot:Certificate.Subject.Organization.List': 'false' },
    },
    { variable: ['iot:certificate.subject.organization.list=a', 'iot:certificate.subject.organization.list=b'] },
  ],
]

for (const [condition, change] of FACTS) {
  test(`${JSON.stringify(change)} makes ${JSON.stringify(condition)} hold`, (t) => {
    const statement = { Effect: 'Allow', Action: 'iot:Connect', Resource: '*', Condition: condition }
    const documents = { 'a.json': JSON.stringify({ Version: '2012-10-17', Statement: statement }) }
    t.is(run(t, 'iot:Connect', 'client/c1', { clientId: 'c1', ...change }, documents).code, 0)
    t.is(run(t, 'iot:Connect', 'client/c1', { clientId: 'c1' }, documents).code, 1)
  })
}

test('a document that is none exits 2 with every issue', (t) => {
  const document = '{"Version":"2012-10-17","Statement":[{"Effect":"allow","Action":"*","Resource":"*"},{}]}'
  t.deepEqual(run(t, 'iot:Publish', 'topic/a', {}, { 'a.json': document, 'b.json': '{' }), {
    code: 2,
    lines: [
      'a.json: Statement[0].Effect: must be "Allow" or "Deny"',
      'a.json: Statement[1].Effect: must be "Allow" or "Deny"',
      'b.json: is not JSON',
    ],
  })
})

test('what is no question exits 2', (t) => {
  t.deepEqual(run(t, 'publish', 'topic/a'), { code: 2, lines: ['publish: not an action such as iot:Publish'] })
  t.is(run(t, 'iot:Publish', 'arn:aws:s3:::bucket').code, 2)
  t.is(run(t, 'iot:Publish', 'topic/a', { variable: ['a'] }).code, 2)
  t.is(run(t, 'iot:Publish', 'topic/a', { attribute: ['=a'] }).code, 2)
  t.is(run(t, 'iot:Publish', 'topic/a', { at: 'soon' }).code, 2)
  t.is(run(t, 'iot:Publish', 'topic/a', { policy: ['/nowhere/a.json'] }).code, 2)
})

test('the command line takes its options and exits with the answer', (t) => {
  const { paths, remove } = tempFiles({ 'devices.json': DEVICES })
  t.teardown(remove)
  const command = (...args: readonly string[]) =>
    spawnSync(process.execPath, ['src/main.ts', 'policy', 'simulate', ...args], { encoding: 'utf8' })
  const policy = ['--policy', paths['devices.json']!, '--client-id', 'c1']
  t.regex(command(...policy, 'iot:Publish', 'topic/dev/c1/up').stdout, /^allowed: /)
  t.is(command(...policy, 'iot:Publish', 'topic/dev/c2/up').status, 1)
  t.is(command('iot:Publish', 'topic/a').status, 2)
})
