import { spawnSync } from 'node:child_process'
import { X509Certificate } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { sha256 } from '../../src/registry/certificate-index.ts'
import { type Provision, parseTemplate } from '../../src/registry/template.ts'
import { NO_OPENSSL, OPENSSL } from '../support/openssl.ts'
import { createCa, issueDevice } from '../support/pki.ts'
import { folderOf } from './support.ts'

const P = 'AWS::IoT::Certificate::'
const ca = createCa({ commonName: 'Fleet CA' })
const device = issueDevice(ca, { commonName: 'sensor-1', organization: 'Acme' }).cert
const id = sha256(device.raw)

const AWS = {
  Parameters: { [`${P}CommonName`]: { Type: 'String' }, [`${P}Id`]: { Type: 'String' } },
  Resources: {
    thing: {
      Type: 'AWS::IoT::Thing',
      Properties: {
        ThingName: { Ref: `${P}CommonName` },
        ThingTypeName: 'lamp',
        AttributePayload: { version: 'v1', name: { 'Fn::Join': ['-', ['x', { Ref: `${P}CommonName` }]] } },
      },
    },
    certificate: { Type: 'AWS::IoT::Certificate', Properties: { CertificateId: { Ref: `${P}Id` }, Status: 'ACTIVE' } },
    policy: {
      Type: 'AWS::IoT::Policy',
      Properties: {
        PolicyDocument: {
          'Fn::Sub': `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:Publish","Resource":"arn:aws:iot:*:*:topic/\${${P}CommonName}/\${iot:ClientId}"}]}`,
        },
      },
    },
    named: { Type: 'AWS::IoT::Policy', Properties: { PolicyName: 'devices' } },
  },
}

function made(t: ExecutionContext, input: unknown, certificate = device): Provision {
  const parsed = parseTemplate(input)
  if (parsed.kind === 'invalid') throw new Error(JSON.stringify(parsed.issues))
  const filled = parsed.template.fill(certificate, sha256(certificate.raw))
  if (filled.kind === 'failed') throw new Error(filled.reason)
  t.pass()
  return filled.provision
}

function failure(input: unknown, certificate = device): string {
  const parsed = parseTemplate(input)
  if (parsed.kind === 'invalid') throw new Error(JSON.stringify(parsed.issues))
  const filled = parsed.template.fill(certificate, sha256(certificate.raw))
  return filled.kind === 'failed' ? filled.reason : 'filled'
}

const issuesOf = (input: unknown): string[] => {
  const parsed = parseTemplate(input)
  return parsed.kind === 'template'
    ? []
    : parsed.issues.map(({ path, message }) => `${path.map(String).join('.')}: ${message}`)
}

test('a template of AWS IoT makes thing, policies and status from the subject', (t) => {
  const { thing, policies, documents, status, exclusive } = made(t, AWS)
  t.deepEqual(
    { ...thing, attributes: { ...thing?.attributes } },
    { name: 'sensor-1', typeName: 'lamp', attributes: { version: 'v1', name: 'x-sensor-1' } },
  )
  t.deepEqual(policies, ['devices'])
  t.is(status, 'ACTIVE')
  t.false(exclusive)
  const [[name, json]] = [...documents] as [[string, string]]
  t.regex(name, /^template:[0-9a-f]{32}$/)
  // What is no parameter of the template is left for the policy.
  t.true(json.includes('topic/sensor-1/${iot:ClientId}'), json)
})

test('the body of RegisterCACertificate is taken as it is, a text inside', (t) => {
  const { thing } = made(t, { templateBody: JSON.stringify(AWS), roleArn: 'arn:aws:iam::1:role/x' })
  t.is(thing?.name, 'sensor-1')
})

test('two devices with the same policy share its name, another document has another', (t) => {
  const other = issueDevice(ca, { commonName: 'sensor-2' }).cert
  const name = (certificate: X509Certificate) => [...made(t, AWS, certificate).documents.keys()][0]
  t.is(name(device), name(device))
  t.not(name(device), name(other))
})

test('a document may be an object with functions inside, or a text', (t) => {
  const statement = {
    Effect: 'Allow',
    Action: 'iot:Connect',
    Resource: { 'Fn::Join': ['', ['arn:aws:iot:*:*:client/', { Ref: `${P}CommonName` }]] },
  }
  const withDocument = (PolicyDocument: unknown) => ({
    ...AWS,
    Resources: {
      certificate: AWS.Resources.certificate,
      policy: { Type: 'AWS::IoT::Policy', Properties: { PolicyDocument } },
    },
  })
  const asObject = made(t, withDocument({ Version: '2012-10-17', Statement: [statement] }))
  t.true([...asObject.documents.values()][0]!.includes('client/sensor-1'))
  const text = JSON.stringify({ Version: '2012-10-17', Statement: [{ ...statement, Resource: '*' }] })
  t.is([...made(t, withDocument(text)).documents.values()][0], text)
})

test('the short form names thing, type, attributes and policies', (t) => {
  const { thing, policies, exclusive } = made(t, {
    thing: 'dev-${CommonName}',
    type: 'lamp',
    attributes: { org: '${Organization}', id: '${Id}' },
    exclusive: true,
    policies: ['devices'],
  })
  t.is(thing?.name, 'dev-sensor-1')
  t.deepEqual({ ...thing?.attributes }, { org: 'Acme', id })
  t.deepEqual(policies, ['devices'])
  t.true(exclusive)
})

test('a declared parameter that the subject lacks fails, unless it has a default', (t) => {
  const declare = (row: object) => ({ ...AWS, Parameters: { ...AWS.Parameters, [`${P}SerialNumber`]: row } })
  t.is(failure(declare({ Type: 'String' })), 'the subject has no single SerialNumber')
  t.is(failure(declare({ Type: 'String', Default: 'none' })), 'filled')
})

test('a name that no thing may have fails', (t) => {
  const { cert } = issueDevice(ca, { commonName: 'a/b' })
  t.regex(failure({ thing: '${CommonName}' }, cert), /thing name/)
})

for (const name of ['*', 'a*', 'a/b', '${iot:ClientId}', 'a"', 'a\\b', '+', '#', 'a?', 'é', '{"x":1}']) {
  test(`the common name ${name} does not come into a policy document`, (t) => {
    const { thing: _, ...Resources } = AWS.Resources
    const { cert } = issueDevice(ca, { commonName: name })
    t.regex(failure({ ...AWS, Resources }, cert), /may not come into a policy document/)
  })
}

const withOpenssl = OPENSSL === null ? test.skip : test
withOpenssl(
  `every field of a subject is a parameter, and of two common names there is none${OPENSSL === null ? `: ${NO_OPENSSL}` : ''}`,
  (t) => {
    const folder = folderOf(t)
    const subject = '/C=DE/O=Org/OU=Unit/dnQualifier=q1/ST=Berlin/CN=one/CN=two/serialNumber=sn-1'
    const { status } = spawnSync('openssl', [
      'req',
      '-x509',
      '-newkey',
      'ec',
      '-pkeyopt',
      'ec_paramgen_curve:P-256',
      '-nodes',
      '-days',
      '3',
      '-subj',
      subject,
      '-keyout',
      join(folder, 'k'),
      '-out',
      join(folder, 'c'),
    ])
    t.is(status, 0)
    const certificate = new X509Certificate(readFileSync(join(folder, 'c')))
    const all =
      '${Country}.${Organization}.${OrganizationalUnit}.${DistinguishedNameQualifier}.${StateName}.${SerialNumber}'
    t.is(made(t, { thing: 't', attributes: { all } }, certificate).thing?.attributes.all, 'DE.Org.Unit.q1.Berlin.sn-1')
    t.is(failure({ thing: '${CommonName}' }, certificate), 'the subject has no single CommonName')
  },
)

const refused = test.macro({
  exec(t, input: unknown, expected: string) {
    t.true(
      issuesOf(input).some((issue) => issue.includes(expected)),
      issuesOf(input).join('\n'),
    )
  },
  title: (_, input: unknown, expected: string) =>
    `a template is refused: ${JSON.stringify(input).slice(0, 20)}… ${expected}`,
})

const thing = (Properties: object) => ({
  ...AWS,
  Resources: { ...AWS.Resources, thing: { Type: 'AWS::IoT::Thing', Properties } },
})
test(refused, null, ': expected a template')
test(refused, 'text', ': expected a template')
test(refused, { templateBody: '{' }, ': expected a template')
test(refused, { thing: '${Email}' }, 'thing: only Country, ')
test(refused, { policy: 'devices' }, 'policy: is not known here')
test(refused, { type: 'lamp' }, 'type and exclusive need a thing')
test(refused, { ...AWS, Mappings: {} }, 'Mappings: is not known here')
test(refused, { ...AWS, Resources: {} }, 'Resources: expected one certificate and at most one thing')
test(refused, { ...AWS, Parameters: { SerialNumber: { Type: 'String' } } }, 'AWS::IoT::Certificate::… (Country')
test(refused, { ...AWS, Parameters: { [`${P}CommonName`]: { Type: 'Number' } } }, 'expected String')
test(
  refused,
  thing({ ThingName: { Ref: 'Other' } }),
  'Resources.thing.Properties.ThingName.Ref: expected the name of a parameter',
)
test(refused, thing({ ThingName: { 'Fn::Join': ['-'] } }), 'ThingName.Fn::Join: expected [ separator, [ texts ] ]')
test(refused, thing({ ThingName: { 'Fn::Split': ['-', 'a-b'] } }), 'ThingName: expected a text, { Ref }')
test(
  refused,
  thing({ ThingName: 'x', ThingGroups: ['g'] }),
  'Resources.thing.Properties.ThingGroups: is not known here',
)
test(
  refused,
  {
    ...AWS,
    Resources: { ...AWS.Resources, policy: { Type: 'AWS::IoT::Policy', Properties: { PolicyDocument: '{}' } } },
  },
  'a policy document that is none',
)
