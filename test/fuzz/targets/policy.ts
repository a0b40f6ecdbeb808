import { parsePolicyDocument } from '../../../src/policy/document.ts'
import { grantsOf } from '../../../src/policy/grants.ts'
import { matches, patternOf } from '../../../src/policy/pattern.ts'
import { fill, parseTemplate } from '../../../src/policy/template.ts'
import { parseTemplate as parseProvisioning } from '../../../src/registry/template.ts'
import { ARN, HEAD, values } from '../../policy/support.ts'
import { must, type Target } from '../target.ts'

const VARIABLES = values({
  'iot:ClientId': 'lamp-1',
  'iot:Connection.Thing.ThingName': 'lamp',
  'aws:SourceIp': '192.0.2.7',
})

const document = (...statements: readonly unknown[]): Buffer =>
  Buffer.from(JSON.stringify({ Version: '2012-10-17', Statement: statements }))

const ASKED = [
  ['iot:Connect', 'client/lamp-1'],
  ['iot:Publish', 'topic/lamp-1/state'],
  ['iot:Subscribe', 'topicfilter/lamp-1/#'],
  ['iot:Receive', 'topic/other'],
] as const

export const POLICY_DOCUMENT: Target = {
  name: 'policy-document',
  corpus: () => [
    document({ Effect: 'Allow', Action: 'iot:*', Resource: '*' }),
    document(
      { Sid: 'a', Effect: 'Allow', Action: ['iot:Connect'], Resource: [`${ARN}client/\${iot:ClientId}`] },
      { Effect: 'Deny', Action: 'iot:Publish', Resource: `${ARN}topic/*/secret` },
      {
        Effect: 'Allow',
        Action: ['iot:Publish', 'iot:Receive'],
        Resource: `${ARN}topic/\${iot:Connection.Thing.ThingName}/?*`,
      },
    ),
    document({
      Effect: 'Allow',
      Action: 'iot:Subscribe',
      Resource: `${ARN}topicfilter/\${iot:ClientId}/*`,
      Condition: {
        StringEquals: { 'iot:ClientId': ['lamp-1', 'lamp-2'] },
        Bool: { 'iot:Connection.Thing.IsAttached': 'true' },
        IpAddress: { 'aws:SourceIp': '192.0.2.0/24' },
        NumericLessThan: { 'aws:CurrentTime': 5 },
        'ForAnyValue:StringLike': { 'iot:ClientId': 'l*' },
      },
    }),
  ],
  tokens: [
    '"Effect"',
    '"Deny"',
    '"Allow"',
    '"Action"',
    '"NotAction"',
    '"Resource"',
    '"Condition"',
    '"__proto__"',
    '"constructor"',
    'iot:*',
    '${iot:ClientId}',
    '${',
    '$(*)',
    '*',
    '?',
    '[]',
    '{}',
    'null',
    '[[[[[[[[',
    '"StringLike"',
    'IfExists',
    'arn:aws:iot:',
  ],
  maxBytes: 4_096,
  kinds: ['document', 'invalid'],
  cases: 6_000,
  check(input) {
    const text = input.toString()
    const parse = parsePolicyDocument(text)
    if (parse.kind === 'invalid') {
      must(parse.issues.length > 0 && parse.issues.every(({ message }) => message !== ''), 'refused without a reason')
      must(parse.issues.length <= 1 + input.length, 'more issues than bytes')
      return 'invalid'
    }
    const again = parsePolicyDocument(JSON.parse(text))
    must(JSON.stringify(again) === JSON.stringify(parse), 'as a value it is another document')
    const statements = parse.document.statements
    must(
      statements.every(
        ({ effect, actions, resources }) =>
          (effect === 'Allow' || effect === 'Deny') && actions.length > 0 && resources.length > 0,
      ),
      'a statement that says nothing',
    )
    const permit = grantsOf([parse.document], { seconds: () => 1_000 }).permit(HEAD, VARIABLES)
    const denied = grantsOf([parse.document, { statements: [{ ...DENY_ALL }] }], { seconds: () => 1_000 }).permit(
      HEAD,
      VARIABLES,
    )
    const allows = statements.some(({ effect }) => effect === 'Allow')
    for (const [action, resource] of ASKED) {
      if (permit.allows(action, resource)) must(allows, 'allowed, and nothing says so')
      if (permit.allowsAll(action)) must(permit.allows(action, resource), 'all is allowed, and this is not')
      must(!denied.allows(action, resource), 'allowed beside a statement that denies everything')
    }
    return 'document'
  },
}
const DENY_ALL = { sid: null, effect: 'Deny', actions: ['iot:*'], resources: ['*'], conditions: new Map() } as const

/** The same question answered by trying everything, in time of pattern × text. Null in a pattern is one character. */
function fits(pattern: readonly (string | null | '*')[], text: readonly string[]): boolean {
  let row = new Array<boolean>(text.length + 1).fill(false)
  row[0] = true
  for (const part of pattern) {
    const next = new Array<boolean>(text.length + 1).fill(false)
    for (let at = 0; at <= text.length; at++) {
      if (part === '*') next[at] = row[at]! || (at > 0 && next[at - 1]!)
      else next[at] = at > 0 && row[at - 1]! && (part === null || text[at - 1] === part.slice(1))
    }
    row = next
  }
  return row[text.length]!
}

export const ARN_PATTERN: Target = {
  name: 'arn-pattern',
  corpus: () =>
    [
      'topic/*\ntopic/a/b',
      'client/${iot:ClientId}\nclient/lamp-1',
      'a?c*e\nabcde',
      '*a*b*c*\nxxaxxbxxc',
      '${*}x${?}\n*x?',
      'topicfilter/$(*)/+/#\ntopicfilter/*/+/#',
      '?\u{1f4a1}*\nx\u{1f4a1}',
    ].map((text) => Buffer.from(text)),
  tokens: [
    '*',
    '?',
    '**',
    '${*}',
    '${?}',
    '${$}',
    '$(*)',
    '${iot:ClientId}',
    '${aws:SourceIp}',
    '${',
    '\n',
    '\u{1f4a1}',
    'aaaaaaaa',
    '*a*a*a*a',
  ],
  maxBytes: 256,
  kinds: ['fits', 'does not', 'invalid', 'no value'],
  cases: 12_000,
  check(input) {
    // Ill-formed bytes become U+FFFD, so that a text is a row of code points here and there.
    const [source = '', ...rest] = input.toString().split('\n')
    const text = rest.join('\n')
    const parse = parseTemplate(source, true)
    if (parse.kind === 'invalid') {
      must(parse.message !== '', 'refused without a reason')
      return 'invalid'
    }
    const pieces = fill(parse.template, VARIABLES)
    if (pieces === null) return 'no value'
    const answer = matches(patternOf(pieces), text)
    const parts = pieces.flatMap((piece) =>
      piece.kind === 'any'
        ? ['*' as const]
        : piece.kind === 'one'
          ? [null]
          : [...piece.text].map((character) => `=${character}`),
    )
    must(answer === fits(parts, [...text]), `${JSON.stringify(source)} and ${JSON.stringify(text)}: ${answer}`)
    return answer ? 'fits' : 'does not'
  },
}

export const PROVISIONING_TEMPLATE: Target = {
  name: 'provisioning-template',
  corpus: () =>
    [
      {
        thing: { name: { 'Fn::Join': ['-', ['lamp', { Ref: 'AWS::IoT::Certificate::SerialNumber' }]] } },
        policies: ['devices'],
      },
      {
        templateBody: JSON.stringify({
          Parameters: {
            'AWS::IoT::Certificate::CommonName': { Type: 'String' },
            'AWS::IoT::Certificate::Id': { Type: 'String' },
          },
          Resources: {
            thing: {
              Type: 'AWS::IoT::Thing',
              Properties: {
                ThingName: { Ref: 'AWS::IoT::Certificate::CommonName' },
                AttributePayload: { version: 'v1' },
              },
            },
            certificate: {
              Type: 'AWS::IoT::Certificate',
              Properties: { CertificateId: { Ref: 'AWS::IoT::Certificate::Id' }, Status: 'ACTIVE' },
            },
            policy: { Type: 'AWS::IoT::Policy', Properties: { PolicyName: 'devices' } },
          },
        }),
      },
    ].map((value) => Buffer.from(JSON.stringify(value))),
  tokens: [
    '"Ref"',
    '"Fn::Sub"',
    '"Resources"',
    '"Parameters"',
    '"__proto__"',
    '[]',
    '{}',
    'null',
    '${',
    'AWS::IoT::Thing',
    '"policies"',
    '[[[[[[',
  ],
  maxBytes: 4_096,
  kinds: ['template', 'invalid', 'no JSON'],
  cases: 3_000,
  check(input) {
    let value: unknown
    try {
      value = JSON.parse(input.toString())
    } catch {
      return 'no JSON'
    }
    const parse = parseProvisioning(value)
    if (parse.kind === 'invalid')
      must(parse.issues.length > 0 && parse.issues.every(({ message }) => message !== ''), 'refused without a reason')
    return parse.kind
  },
}
