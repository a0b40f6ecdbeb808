import { execFileSync } from 'node:child_process'
import { X509Certificate } from 'node:crypto'
import { join } from 'node:path'
import test from 'ava'
import fc from 'fast-check'
import { certificateVariables, variablesOf } from '../../src/auth/certificate-variables.ts'
import { OPENSSL, tempFiles } from '../support/openssl.ts'

const hex = (text: string) => Buffer.from(text, 'hex')

function der(tag: number, ...parts: readonly Uint8Array[]): Buffer {
  const body = Buffer.concat(parts)
  const { length: n } = body
  const length = n < 128 ? [n] : n < 256 ? [0x81, n] : [0x82, n >> 8, n & 0xff]
  return Buffer.concat([Buffer.from([tag, ...length]), body])
}

const CN = '550403'
const O = '55040a'
const OU = '55040b'
const utf8 = (text: string) => der(0x0c, Buffer.from(text))
const attribute = (oid: string, value: Uint8Array) => der(0x30, der(0x06, hex(oid)), value)
const rdn = (oid: string, value: Uint8Array) => der(0x31, attribute(oid, value))
const name = (...rdns: readonly Uint8Array[]) => der(0x30, ...rdns)
const alternative = (oid: string, ...names: readonly Uint8Array[]) =>
  der(0x30, der(0x06, hex(oid)), der(0x04, der(0x30, ...names)))

interface Parts {
  readonly serial?: Uint8Array
  readonly issuer?: Uint8Array
  readonly subject?: Uint8Array
  readonly extensions?: readonly Uint8Array[]
}

function certificate({ serial = hex('01'), issuer = name(), subject = name(), extensions = [] }: Parts): Buffer {
  const tbs = der(
    0x30,
    der(0xa0, der(0x02, hex('02'))),
    der(0x02, serial),
    der(0x30),
    issuer,
    der(0x30),
    subject,
    der(0x30),
    ...(extensions.length > 0 ? [der(0xa3, der(0x30, ...extensions))] : []),
  )
  return der(0x30, tbs, der(0x30), der(0x03, hex('00')))
}

const look = (parts: Parts, key: string) => variablesOf(certificate(parts)).get(`iot:Certificate.${key}`) ?? null
const subject = (oid: string, ...valuesOf: readonly Uint8Array[]): Parts => ({
  subject: name(...valuesOf.map((value) => rdn(oid, value))),
})

test('the bare name is the first value, .1 the second, .List all', (t) => {
  const parts = subject(O, utf8('one'), utf8('two'), utf8('three'))
  t.deepEqual(look(parts, 'Subject.Organization'), ['one'])
  t.deepEqual(look(parts, 'Subject.Organization.1'), ['two'])
  t.deepEqual(look(parts, 'Subject.Organization.2'), ['three'])
  t.is(look(parts, 'Subject.Organization.3'), null)
  t.is(look(parts, 'Subject.Organization.0'), null)
  t.deepEqual(look(parts, 'Subject.Organization.List'), ['one', 'two', 'three'])
  t.is(look(parts, 'Issuer.Organization'), null)
})

test('five values are kept, whatever comes after them is ignored', (t) => {
  const parts = subject(OU, ...['1', '2', '3', '4', '5', '6'].map(utf8))
  t.deepEqual(look(parts, 'Subject.OrganizationalUnit.List'), ['1', '2', '3', '4', '5'])
  t.deepEqual(look(parts, 'Subject.OrganizationalUnit.4'), ['5'])
  t.is(look(parts, 'Subject.OrganizationalUnit.5'), null)
})

test('special characters stand behind a backslash', (t) => {
  t.deepEqual(look(subject(OU, utf8('Amazon Web Services O=Amazon.com Inc.')), 'Subject.OrganizationalUnit'), [
    'Amazon Web Services O\\=Amazon.com Inc.',
  ])
  t.deepEqual(look(subject(CN, utf8(',"\\+=<>;#/')), 'Subject.CommonName'), ['\\,\\"\\\\\\+\\=\\<\\>\\;#/'])
})

const STRINGS: readonly (readonly [title: string, value: Uint8Array, read: string | null])[] = [
  ['UTF8String', der(0x0c, Buffer.from('Gerät 😀')), 'Gerät 😀'],
  ['UTF8String that is not UTF-8', der(0x0c, hex('61ff')), null],
  ['UTF8String with an overlong form', der(0x0c, hex('c0af')), null],
  ['PrintableString', der(0x13, Buffer.from('Device 1')), 'Device 1'],
  ['PrintableString with a character that is not in it', der(0x13, Buffer.from('a@b')), null],
  ['NumericString', der(0x12, Buffer.from('0 1')), '0 1'],
  ['NumericString with a letter', der(0x12, Buffer.from('0x1')), null],
  ['IA5String', der(0x16, Buffer.from('a@b_c')), 'a@b_c'],
  ['IA5String with an octet above 127', der(0x16, hex('e4')), null],
  ['T61String of ASCII', der(0x14, Buffer.from('abc')), 'abc'],
  ['T61String with an octet above 127', der(0x14, hex('c861')), null],
  ['BMPString', der(0x1e, hex('004700e4')), 'Gä'],
  ['BMPString of an odd length', der(0x1e, hex('004700')), null],
  ['BMPString with half of a pair', der(0x1e, hex('d83d')), null],
  ['UniversalString', der(0x1c, hex('00000061')), null],
  ['OCTET STRING', der(0x04, Buffer.from('abc')), null],
  ['empty text', der(0x0c), null],
  ['text with a NUL', der(0x0c, hex('610062')), null],
  ['text with a line break', der(0x13, hex('610a62')), null],
]

for (const [title, value, read] of STRINGS) {
  test(`a common name as ${title} ${read === null ? 'has no value' : 'is read'}`, (t) => {
    t.deepEqual(look(subject(CN, value), 'Subject.CommonName'), read === null ? null : [read])
  })
}

test('one value that cannot be read takes the whole attribute along, so that none takes its place', (t) => {
  const parts = subject(CN, utf8('a'), der(0x0c, hex('ff')), utf8('c'))
  for (const key of ['Subject.CommonName', 'Subject.CommonName.1', 'Subject.CommonName.List'])
    t.is(look(parts, key), null)
})

test('the serial number is decimal; a negative one has no value', (t) => {
  t.deepEqual(look({ serial: hex('00921285cbb7a5e086') }, 'SerialNumber'), ['10525622389124227206'])
  t.deepEqual(look({ serial: hex('00') }, 'SerialNumber'), ['0'])
  t.is(look({ serial: hex('921285') }, 'SerialNumber'), null)
  t.is(look({}, 'SerialNumber.List'), null)
})

test('alternative names of subject and issuer are read; kinds without a variable are passed over', (t) => {
  const parts: Parts = {
    extensions: [
      alternative(
        '551d11',
        der(0xa0, der(0x06, hex('2a0304')), der(0xa0, utf8('other'))),
        der(0x82, Buffer.from('a.example')),
        der(0x82, Buffer.from('b.example')),
        der(0x86, Buffer.from('urn:x;y=z')),
        der(0x87, hex('0a000001')),
        der(0x87, hex('20010db8000000000000000000000001')),
        der(0xa4, name(rdn('550406', der(0x13, Buffer.from('US'))), rdn(CN, utf8('A, B')))),
      ),
      alternative('551d12', der(0x81, Buffer.from('ca@example'))),
    ],
  }
  t.deepEqual(look(parts, 'Subject.AlternativeName.DNSName.List'), ['a.example', 'b.example'])
  t.deepEqual(look(parts, 'Subject.AlternativeName.UniformResourceIdentifier'), ['urn:x\\;y\\=z'])
  t.deepEqual(look(parts, 'Subject.AlternativeName.IPAddress.List'), ['10.0.0.1', '2001:db8::1'])
  t.deepEqual(look(parts, 'Subject.AlternativeName.DirectoryName'), ['cn=A\\, B,c=US'])
  t.deepEqual(look(parts, 'Issuer.AlternativeName.RFC822Name'), ['ca@example'])
  t.is(look(parts, 'Subject.AlternativeName.RFC822Name'), null)
})

test('an address of another length, and a directory name that would leave something out, have no value', (t) => {
  const unknown = rdn('2a0304', utf8('x'))
  const parts: Parts = {
    extensions: [alternative('551d11', der(0x87, hex('0a0000')), der(0xa4, name(rdn(CN, utf8('a')), unknown)))],
  }
  t.is(look(parts, 'Subject.AlternativeName.IPAddress'), null)
  t.is(look(parts, 'Subject.AlternativeName.DirectoryName'), null)
})

test('an extension that stands twice leaves a certificate without any value', (t) => {
  const extension = alternative('551d11', der(0x82, Buffer.from('a.example')))
  t.is(variablesOf(certificate({ extensions: [extension, extension] })).size, 0)
})

test('AvailableKeys names all that have a value', (t) => {
  const parts = subject(CN, utf8('a'), utf8('b'))
  t.deepEqual(look(parts, 'AvailableKeys'), ['iot:Certificate.SerialNumber', 'iot:Certificate.Subject.CommonName'])
})

test('names that are not of the certificate are not looked for in it', (t) => {
  const leaf = {
    get raw(): Buffer {
      throw new Error('was read')
    },
  }
  // Only `raw` is read of a certificate.
  const variables = certificateVariables(leaf as X509Certificate)
  t.is(variables.lookup('iot:ClientId'), null)
})

test('a certificate is read once, at the first look-up', (t) => {
  let reads = 0
  const leaf = {
    get raw() {
      reads += 1
      return certificate(subject(CN, utf8('a')))
    },
  }
  const variables = certificateVariables(leaf as X509Certificate) // as above
  t.is(reads, 0)
  t.deepEqual(variables.lookup('iot:Certificate.Subject.CommonName'), ['a'])
  t.is(variables.lookup('iot:Certificate.Subject.Country'), null)
  t.is(reads, 1)
})

const CONFIG = `
[req]
prompt = no
distinguished_name = subject
x509_extensions = extensions
[subject]
C = US
O = IoT Devices
OU = LightBulb
ST = NY
CN = LightBulb Device Cert
GN = Bulb
initials = ZZ
dnQualifier = Bulb001
SN = Multi Color
title = RGB
pseudonym = RGB Device
generationQualifier = 4
serialNumber = 123
[extensions]
subjectAltName = DNS:example.com, IP:1.2.3.4, URI:ResourceIdentifier001, email:device1@example.com, dirName:san
issuerAltName = DNS:issuer.com, IP:5.6.7.8, URI:PrimarySignerCA, email:primary@issuer.com, dirName:ian
[san]
C = US
O = IoT
OU = SmartHome
CN = LightBulbCert
[ian]
C = US
O = Issuer
OU = IoT Devices
CN = Primary Issuer CA
`

/** AWS IoT developer guide, "Using X.509 certificate policy variables": the example certificate and its values. */
const EXAMPLE: Readonly<Record<string, string>> = {
  'Subject.Country': 'US',
  'Subject.Organization': 'IoT Devices',
  'Subject.OrganizationalUnit': 'LightBulb',
  'Subject.State': 'NY',
  'Subject.CommonName': 'LightBulb Device Cert',
  'Subject.GivenName': 'Bulb',
  'Subject.Initials': 'ZZ',
  'Subject.DistinguishedNameQualifier': 'Bulb001',
  'Subject.Surname': 'Multi Color',
  'Subject.Title': 'RGB',
  'Subject.Pseudonym': 'RGB Device',
  'Subject.GenerationQualifier': '4',
  'Subject.SerialNumber': '123',
  'Issuer.CommonName': 'LightBulb Device Cert',
  'Subject.AlternativeName.DNSName': 'example.com',
  'Subject.AlternativeName.IPAddress': '1.2.3.4',
  'Subject.AlternativeName.UniformResourceIdentifier': 'ResourceIdentifier001',
  'Subject.AlternativeName.RFC822Name': 'device1@example.com',
  'Subject.AlternativeName.DirectoryName': 'cn=LightBulbCert,ou=SmartHome,o=IoT,c=US',
  'Issuer.AlternativeName.DNSName': 'issuer.com',
  'Issuer.AlternativeName.IPAddress': '5.6.7.8',
  'Issuer.AlternativeName.UniformResourceIdentifier': 'PrimarySignerCA',
  'Issuer.AlternativeName.RFC822Name': 'primary@issuer.com',
  'Issuer.AlternativeName.DirectoryName': 'cn=Primary Issuer CA,ou=IoT Devices,o=Issuer,c=US',
  SerialNumber: '10525622389124227206',
}

const withOpenssl = OPENSSL === null ? test.skip : test
withOpenssl('the example certificate of the AWS IoT developer guide has the values that stand there', (t) => {
  const files = tempFiles({ config: CONFIG })
  t.teardown(files.remove)
  const pem = execFileSync(
    'openssl',
    [
      ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-utf8'],
      ...[
        '-config',
        files.paths.config!,
        '-set_serial',
        '0x921285cbb7a5e086',
        '-keyout',
        join(files.paths.config!, '../key'),
      ],
    ],
    { stdio: 'pipe' },
  )
  const variables = certificateVariables(new X509Certificate(pem))
  for (const [key, value] of Object.entries(EXAMPLE))
    t.deepEqual(variables.lookup(`iot:Certificate.${key}`), [value], key)
})

test('no octets make it throw, and no value has a control character', (t) => {
  const whole = certificate({
    ...subject(CN, utf8('a'), der(0x1e, hex('0061'))),
    extensions: [alternative('551d11', der(0x82, Buffer.from('a.example')), der(0xa4, name(rdn(CN, utf8('a')))))],
  })
  for (let end = 0; end < whole.length; end++) t.is(variablesOf(whole.subarray(0, end)).size, 0)
  const edits = fc.array(fc.tuple(fc.nat(whole.length - 1), fc.nat(255)), { minLength: 1, maxLength: 4 })
  fc.assert(
    fc.property(fc.oneof(edits, fc.uint8Array({ maxLength: 64 })), (input) => {
      const bytes = input instanceof Uint8Array ? input : Buffer.from(whole)
      if (!(input instanceof Uint8Array)) for (const [at, octet] of input) bytes[at] = octet
      for (const all of variablesOf(bytes).values()) {
        for (const value of all) if (/[\0-\x1f]/.test(value) || value === '') t.fail(JSON.stringify(value))
      }
    }),
    { numRuns: 20_000 },
  )
})
