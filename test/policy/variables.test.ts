import test from 'ava'
import { NO_VARIABLES } from '../../src/policy/permit.ts'
import { arnOf, type ConnectionFacts, canonicalName, connectionVariables } from '../../src/policy/variables.ts'
import { HEAD, values } from './support.ts'

const FACTS: ConnectionFacts = {
  clientId: 'c1',
  remoteAddress: '192.0.2.7',
  serverName: 'iot.example',
  thing: { name: 't1', typeName: 'meter', attributes: { floor: '3' } },
  connectAttributes: ['LastWill'],
  lastWillTopic: arnOf(HEAD, 'topic/gone'),
  own: values({
    'iot:Certificate.SerialNumber': '7',
    'iot:ClientId': 'forged',
    'iot:Connection.Thing.IsAttached': 'true',
  }),
}

const KNOWN: Readonly<Record<string, readonly string[] | null>> = {
  'iot:ClientId': ['c1'],
  'aws:SourceIp': ['192.0.2.7'],
  'iot:DomainName': ['iot.example'],
  'iot:Connection.Thing.ThingName': ['t1'],
  'iot:Connection.Thing.ThingTypeName': ['meter'],
  'iot:Connection.Thing.IsAttached': ['true'],
  'iot:Connection.Thing.Attributes[floor]': ['3'],
  'iot:Connection.Thing.Attributes[Floor]': null,
  'iot:Connection.Thing.Attributes[floor': null,
  'iot:Connection.Thing.Attributes[toString]': null,
  'iot:ConnectAttributes': ['LastWill'],
  'iot:LastWillTopic': ['arn:aws:iot:us-east-1:123456789012:topic/gone'],
  'iot:Certificate.SerialNumber': ['7'],
  'aws:CurrentTime': null,
  'x:y': null,
}

test('a connection has its values, and the principal those that no connection has', (t) => {
  const variables = connectionVariables(FACTS)
  for (const [name, expected] of Object.entries(KNOWN)) t.deepEqual(variables.lookup(name), expected, name)
})

test('over HTTPS there is no client id, and nothing is known of a thing', (t) => {
  const variables = connectionVariables({ ...FACTS, clientId: null, connectAttributes: [], lastWillTopic: null })
  for (const name of Object.keys(KNOWN).filter((key) => /Thing|ClientId|Will/.test(key))) {
    t.is(variables.lookup(name), null, name)
  }
  t.deepEqual(variables.lookup('iot:ConnectAttributes'), [])
  t.deepEqual(variables.lookup('aws:SourceIp'), ['192.0.2.7'])
})

test('without a thing IsAttached is false, and without SNI there is no domain name', (t) => {
  const variables = connectionVariables({ ...FACTS, thing: null, serverName: null, own: NO_VARIABLES })
  t.deepEqual(variables.lookup('iot:Connection.Thing.IsAttached'), ['false'])
  t.is(variables.lookup('iot:Connection.Thing.ThingName'), null)
  t.is(variables.lookup('iot:Connection.Thing.Attributes[floor]'), null)
  t.is(variables.lookup('iot:DomainName'), null)
})

const SPELLINGS: Readonly<Record<string, string>> = {
  'IOT:clientid': 'iot:ClientId',
  'aws:sourceip': 'aws:SourceIp',
  'iot:certificate.subject.commonname': 'iot:Certificate.Subject.CommonName',
  'iot:Certificate.Subject.initials.2': 'iot:Certificate.Subject.Initials.2',
  'iot:Certificate.Issuer.Country.list': 'iot:Certificate.Issuer.Country.List',
  'iot:certificate.subject.alternativename.dnsname.LIST': 'iot:Certificate.Subject.AlternativeName.DNSName.List',
  'iot:connection.thing.attributes[Floor]': 'iot:Connection.Thing.Attributes[Floor]',
  'cognito-identity.amazonaws.com:sub': 'cognito-identity.amazonaws.com:sub',
  'My:Own': 'My:Own',
  'iot:ClientId.1': 'iot:ClientId.1',
}

for (const [written, canonical] of Object.entries(SPELLINGS)) {
  test(`${written} is looked up as ${canonical}`, (t) => {
    t.is(canonicalName(written), canonical)
  })
}
