import test from 'ava'
import fc from 'fast-check'
import { formatPolicyIssue, parsePolicyDocument } from '../../src/policy/document.ts'

const issuesOf = (input: unknown, maxChars?: number): readonly string[] => {
  const parse = parsePolicyDocument(input, maxChars === undefined ? {} : { maxChars })
  return parse.kind === 'invalid' ? parse.issues.map(formatPolicyIssue) : []
}

const STATEMENT = { Effect: 'Allow', Action: 'iot:Publish', Resource: '*' }
const wrap = (change: Readonly<Record<string, unknown>>) => ({
  Version: '2012-10-17',
  Statement: [{ ...STATEMENT, ...change }],
})
const condition = (Condition: unknown) => wrap({ Condition })

test('a document is read with all its parts, from JSON and from an object alike', (t) => {
  const input = {
    Version: '2012-10-17',
    Id: 'devices',
    Statement: [
      {
        Sid: 'one',
        Effect: 'Allow',
        Action: ['iot:Publish', '*'],
        Resource: ['*', 'arn:aws:iot:r:1:topic/${iot:ClientId}'],
      },
      { Effect: 'Deny', Action: 'iot:*', Resource: '*', Condition: { stringlike: { 'iot:ClientId': ['a', 1, true] } } },
    ],
  }
  const parse = parsePolicyDocument(JSON.stringify(input))
  t.deepEqual(parsePolicyDocument(input), parse)
  t.deepEqual(parse, {
    kind: 'document',
    document: {
      statements: [
        {
          sid: 'one',
          effect: 'Allow',
          actions: ['iot:Publish', '*'],
          resources: ['*', 'arn:aws:iot:r:1:topic/${iot:ClientId}'],
          conditions: new Map(),
        },
        {
          sid: null,
          effect: 'Deny',
          actions: ['iot:*'],
          resources: ['*'],
          conditions: new Map([['StringLike', new Map([['iot:ClientId', ['a', '1', 'true']]])]]),
        },
      ],
    },
  })
})

test('one statement may stand without a list around it', (t) => {
  t.deepEqual(issuesOf({ Version: '2012-10-17', Statement: STATEMENT }), [])
  t.deepEqual(issuesOf({ Version: '2012-10-17', Statement: { ...STATEMENT, Effect: 'allow' } }), [
    'Statement.Effect: must be "Allow" or "Deny"',
  ])
})

const ARN_MESSAGE = 'is neither "*" nor of the form "arn:aws:iot:<region>:<account>:<resource>"'
const REFUSED: readonly (readonly [title: string, input: unknown, ...issues: string[]])[] = [
  ['nothing', undefined, 'must be an object'],
  ['null', null, 'must be an object'],
  ['JSON null', 'null', 'must be an object'],
  ['a number', 1, 'must be an object'],
  ['a list', [wrap({})], 'must be an object'],
  ['text that is not JSON', '{', 'is not JSON'],
  ['an empty object', {}, 'Version: must be "2012-10-17"', 'Statement: must be an object'],
  ['an older version, which has no variables', { ...wrap({}), Version: '2008-10-17' }, 'Version: must be "2012-10-17"'],
  ['no statements', { Version: '2012-10-17', Statement: [] }, 'Statement: must hold at least one statement'],
  ['a statement that is a list', { Version: '2012-10-17', Statement: [[]] }, 'Statement[0]: must be an object'],
  ['an unknown element', { ...wrap({}), version: 1 }, 'version: no such element'],
  ['an unknown element of a statement', wrap({ effect: 'Deny' }), 'Statement[0].effect: no such element'],
  [
    'an element called __proto__',
    JSON.stringify(wrap({})).replace('"Effect"', '"__proto__":1,"Effect"'),
    'Statement[0].__proto__: no such element',
  ],
  [
    'a principal',
    wrap({ Principal: '*' }),
    'Statement[0].Principal: an AWS IoT policy has none: it belongs to what it is attached to',
  ],
  [
    'NotAction',
    wrap({ NotAction: 'iot:Publish' }),
    'Statement[0].NotAction: not in the grammar of AWS IoT policies; write Allow for all and Deny for the exceptions',
  ],
  [
    'NotResource',
    wrap({ NotResource: '*' }),
    'Statement[0].NotResource: not in the grammar of AWS IoT policies; write Allow for all and Deny for the exceptions',
  ],
  ['a wrong effect', wrap({ Effect: 'ALLOW' }), 'Statement[0].Effect: must be "Allow" or "Deny"'],
  ['no action', wrap({ Action: undefined }), 'Statement[0].Action: must be a string'],
  ['an empty list of actions', wrap({ Action: [] }), 'Statement[0].Action: must hold at least one string'],
  [
    'an action without a service',
    wrap({ Action: ['iot:Publish', 'Publish'] }),
    'Statement[0].Action[1]: is neither "*" nor of the form "iot:Publish"',
  ],
  ['an action that is a number', wrap({ Action: [1] }), 'Statement[0].Action[0]: must be a string'],
  ['an empty resource', wrap({ Resource: '' }), `Statement[0].Resource: ${ARN_MESSAGE}`],
  ['a resource that is no ARN', wrap({ Resource: ['*', 'topic/a'] }), `Statement[0].Resource[1]: ${ARN_MESSAGE}`],
  ['an ARN that ends early', wrap({ Resource: 'arn:aws:iot:r:1' }), `Statement[0].Resource: ${ARN_MESSAGE}`],
  ['an ARN without a resource', wrap({ Resource: 'arn:aws:iot:r:1:' }), `Statement[0].Resource: ${ARN_MESSAGE}`],
  [
    'an ARN with a wildcard for the service',
    wrap({ Resource: 'arn:aws:*:r:1:topic/a' }),
    `Statement[0].Resource: ${ARN_MESSAGE}`,
  ],
  [
    'a variable in the head of an ARN',
    wrap({ Resource: 'arn:aws:iot:${iot:ClientId}:1:topic/a' }),
    `Statement[0].Resource: ${ARN_MESSAGE}`,
  ],
  [
    'a variable without its end',
    wrap({ Resource: 'arn:aws:iot:r:1:topic/${iot:ClientId' }),
    'Statement[0].Resource: ${ without }',
  ],
  [
    'a variable without a name',
    wrap({ Resource: 'arn:aws:iot:r:1:topic/${}' }),
    'Statement[0].Resource: "" is not the name of a variable',
  ],
  [
    'a variable with a default, which is of IAM alone',
    wrap({ Resource: "arn:aws:iot:r:1:topic/${iot:ClientId, 'x'}" }),
    `Statement[0].Resource: "iot:ClientId, 'x'" is not the name of a variable`,
  ],
  ['a Sid that is no string', wrap({ Sid: 1 }), 'Statement[0].Sid: must be a string'],
  ['a condition that is a list', condition([]), 'Statement[0].Condition: must be an object'],
  ['an unknown operator', condition({ StringIsh: { a: 'b' } }), 'Statement[0].Condition.StringIsh: no such operator'],
  [
    'an unknown prefix',
    condition({ 'ForMost:StringEquals': { a: 'b' } }),
    'Statement[0].Condition.ForMost:StringEquals: no such operator',
  ],
  [
    'a prefix before Null',
    condition({ 'ForAnyValue:Null': { a: 'true' } }),
    'Statement[0].Condition.ForAnyValue:Null: no such operator',
  ],
  ['NullIfExists', condition({ NullIfExists: { a: 'true' } }), 'Statement[0].Condition.NullIfExists: no such operator'],
  [
    'a name of the prototype as operator',
    condition({ constructor: { a: 'b' } }),
    'Statement[0].Condition.constructor: no such operator',
  ],
  [
    'an operator in two spellings',
    condition({ Bool: { a: 'true' }, bool: { b: 'true' } }),
    'Statement[0].Condition.bool: stands twice',
  ],
  ['keys that are a string', condition({ Bool: 'true' }), 'Statement[0].Condition.Bool: must be an object'],
  [
    'no value',
    condition({ StringNotEquals: { 'iot:ClientId': [] } }),
    'Statement[0].Condition.StringNotEquals.iot:ClientId: needs a value',
  ],
  [
    'a value that is an object',
    condition({ StringEquals: { a: ['b', {}] } }),
    'Statement[0].Condition.StringEquals.a[1]: must be a string, a number or a boolean',
  ],
  [
    'a value that is not a number',
    condition({ NumericEquals: { a: ['1', '0x10'] } }),
    'Statement[0].Condition.NumericEquals.a[1]: is not a number',
  ],
  [
    'a variable for a number',
    condition({ NumericEquals: { a: '${iot:ClientId}' } }),
    'Statement[0].Condition.NumericEquals.a: is not a number',
  ],
  [
    'a date that does not exist',
    condition({ DateLessThan: { 'aws:CurrentTime': '2030-02-31' } }),
    'Statement[0].Condition.DateLessThan.aws:CurrentTime: is not a date',
  ],
  [
    'a time as text',
    condition({ StringEquals: { 'aws:currenttime': '2030-02-01' } }),
    'Statement[0].Condition.StringEquals.aws:currenttime: aws:CurrentTime is compared with Date operators',
  ],
  [
    'a boolean of another kind',
    condition({ Bool: { a: 'yes' } }),
    'Statement[0].Condition.Bool.a: is neither true nor false',
  ],
  [
    'Null of another kind',
    condition({ Null: { a: 'yes' } }),
    'Statement[0].Condition.Null.a: is neither true nor false',
  ],
  [
    'an address of five parts',
    condition({ IpAddress: { 'aws:SourceIp': '10.0.0.0.0' } }),
    'Statement[0].Condition.IpAddress.aws:SourceIp: is neither an IP address nor a range such as 192.0.2.0/24',
  ],
  [
    'a range wider than it can be',
    condition({ IpAddress: { 'aws:SourceIp': '10.0.0.0/33' } }),
    'Statement[0].Condition.IpAddress.aws:SourceIp: is neither an IP address nor a range such as 192.0.2.0/24',
  ],
  [
    'an IPv4 address as IPv6',
    condition({ NotIpAddress: { 'aws:SourceIp': '::ffff:10.0.0.1' } }),
    'Statement[0].Condition.NotIpAddress.aws:SourceIp: is an IPv4 address written as IPv6',
  ],
  [
    'a will topic that is no ARN',
    condition({ ArnEquals: { 'iot:LastWillTopic': 'a/b' } }),
    'Statement[0].Condition.ArnEquals.iot:LastWillTopic: is not an ARN',
  ],
  [
    'a key that stands twice',
    '{"Version":"2012-10-17","Statement":{"Effect":"Deny","\\u0045ffect":"Allow","Action":"*","Resource":"*"}}',
    '"Effect" stands twice in one object',
  ],
]

for (const [title, input, ...issues] of REFUSED) {
  test(`${title} is refused, and where it is said`, (t) => {
    t.deepEqual(issuesOf(input), issues)
  })
}

test('the same key in two objects, or as a value, is not the same key twice', (t) => {
  const text =
    '{"Version":"2012-10-17","Statement":[{"Sid":"Sid","Effect":"Allow","Action":"*","Resource":["*","*"]},{"Effect":"Deny","Action":"*","Resource":"*"}]}'
  t.deepEqual(issuesOf(text), [])
})

test('size is counted without white space outside of strings', (t) => {
  const chars = JSON.stringify(wrap({})).length
  const spaced = JSON.stringify(wrap({}), null, 8)
  t.deepEqual(issuesOf(spaced, chars), [])
  t.deepEqual(issuesOf(spaced, chars - 1), [`has ${chars} characters without white space; ${chars - 1} are allowed`])
  t.deepEqual(issuesOf(wrap({ Sid: 'x'.repeat(65_536) })).length, 1)
  t.deepEqual(issuesOf(' '.repeat(1_048_577)), ['has more than 1048576 characters'])
})

test('a hostile document does not fill the log', (t) => {
  const many = { Version: '2012-10-17', Statement: Array.from({ length: 100 }, () => ({})) }
  t.is(issuesOf(many).length, 32)
})

test('what cannot be read is refused, not thrown', (t) => {
  const cycle: Record<string, unknown> = wrap({})
  cycle.Id = cycle
  t.deepEqual(issuesOf(cycle), ['cannot be read'])
  t.is(parsePolicyDocument(`${'['.repeat(500_000)}${']'.repeat(500_000)}`).kind, 'invalid')
  t.is(parsePolicyDocument(`{"Version":${'{"a":'.repeat(150_000)}1${'}'.repeat(150_000)}}`).kind, 'invalid')
})

test('the parser never throws, and what it refuses it explains', (t) => {
  const word = fc.constantFrom(
    'Version',
    'Statement',
    'Effect',
    'Action',
    'Resource',
    'Condition',
    'Allow',
    '2012-10-17',
    '*',
    'iot:Publish',
    'StringEquals',
    'iot:ClientId',
    '${',
    'arn:aws:iot:::${a:b}',
    '__proto__',
  )
  const tree = fc.letrec((tie) => ({
    any: fc.oneof(
      { maxDepth: 5 },
      word,
      fc.anything(),
      fc.array(tie('any'), { maxLength: 3 }),
      fc.dictionary(word, tie('any'), { maxKeys: 5 }),
    ),
  })).any
  fc.assert(
    fc.property(
      fc.oneof(
        tree,
        fc.string(),
        fc.json(),
        tree.map((value) => ({ ...wrap({}), Statement: value })),
      ),
      (input) => {
        const parse = parsePolicyDocument(input)
        if (parse.kind === 'invalid') t.true(parse.issues.length > 0)
      },
    ),
    { numRuns: 5_000 },
  )
  t.pass()
})

test('every mutation of a valid document is parsed or refused', (t) => {
  const text = JSON.stringify(
    condition({ 'ForAllValues:StringLikeIfExists': { 'iot:ClientId': ['a*', '${iot:ClientId}'] } }),
  )
  fc.assert(
    fc.property(fc.nat(text.length), fc.nat(4), fc.string({ maxLength: 3 }), (at, cut, add) => {
      const parse = parsePolicyDocument(text.slice(0, at) + add + text.slice(at + cut))
      if (parse.kind === 'invalid') t.true(parse.issues.length > 0)
    }),
    { numRuns: 5_000 },
  )
  t.pass()
})
