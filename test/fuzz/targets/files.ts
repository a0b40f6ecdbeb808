import { X509Certificate } from 'node:crypto'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { variablesOf } from '../../../src/auth/certificate-variables.ts'
import { formatIssue, loadSettings } from '../../../src/config/load.ts'
import { RevocationLists, readCrlFile } from '../../../src/registry/crl.ts'
import { certificateParts, DerReader } from '../../../src/registry/der.ts'
import { readRegistry } from '../../../src/registry/files.ts'
import { createCa, createCrl, issueDevice, issueServer } from '../../support/pki.ts'
import { must, type Target } from '../target.ts'

const ca = createCa({ commonName: 'fleet' })
const line = createCa({ commonName: 'line, "1"', issuer: ca })
const devices = [
  issueDevice(ca, { commonName: 'device-1', serialNumber: '00a1b2c3' }),
  issueDevice(line, { commonName: 'a=b+c' }),
]
const ders = (): Buffer[] => [
  ca.cert.raw,
  line.cert.raw,
  ...devices.map(({ cert }) => cert.raw),
  issueServer(ca, { serverNames: ['a.example'], ips: ['127.0.0.1'] }).cert.raw,
]
const der = (...hex: readonly string[]): Buffer[] => hex.map((one) => Buffer.from(one.replaceAll(' ', ''), 'hex'))

/** Goes through everything there is, and counts the elements. */
function walk(reader: DerReader, bytes: Uint8Array): number {
  let count = 0
  while (!reader.atEnd) {
    const tag = reader.read()
    must(reader.contentEnd <= bytes.length && reader.contentStart <= reader.contentEnd, 'an element beyond the end')
    must(reader.element().length <= bytes.length, 'an element larger than all')
    count += 1 + ((tag & 0x20) === 0 ? 0 : walk(reader.enter(), bytes))
  }
  return count
}

export const DER: Target = {
  name: 'der',
  corpus: () => [...ders(), ...der('3003020105', '30820003020105', '0500', '3080')],
  tokens: der('3080', '0201', '308200', '3084ffffffff', '1f81', '0500', 'a000', '0303'),
  maxBytes: 2_048,
  kinds: ['read', 'refused'],
  cases: 6_000,
  check(input) {
    let count: number
    try {
      count = walk(new DerReader(input), input)
    } catch (error) {
      if (error instanceof RangeError && !/call stack/i.test(error.message)) return 'refused'
      throw error
    }
    must(count <= input.length, `${count} elements in ${input.length} bytes`)
    return 'read'
  },
}

export const CERTIFICATE: Target = {
  name: 'certificate',
  corpus: ders,
  tokens: der(
    '0603550403',
    '0c026131',
    '1e04006100ff',
    '020100',
    '170d3235303130313030303030305a',
    '30030101ff',
    'a003020102',
    '0603551d11',
  ),
  maxBytes: 2_048,
  kinds: ['both', 'neither', 'we refuse'],
  cases: 3_000,
  check(input) {
    const parts = certificateParts(input)
    const variables = variablesOf(input)
    for (const [name, all] of variables) {
      must(name.startsWith('iot:Certificate.') && all.length > 0, `a variable ${name}`)
      must(!all.some((value) => value === ''), 'a variable without a value')
    }
    let other: X509Certificate | null = null
    try {
      other = new X509Certificate(input)
    } catch {
      // It is none to the library.
    }
    if (parts === null) return other === null ? 'neither' : 'we refuse'
    if (other === null) return 'they refuse'
    // OpenSSL clears the bits that a BIT STRING says are unused, and those of the signature are of the certificate's wrapping:
    // what it certifies, and what revocation is looked up by, is the part inside.
    const kept = other.raw
    must(kept.length === input.length, 'the library keeps more or less')
    must(
      kept.equals(input) || Buffer.compare(certificateParts(kept)?.tbs ?? Buffer.alloc(0), parts.tbs) === 0,
      'the library keeps another content',
    )
    const serial = Buffer.from(parts.serial)
      .toString('hex')
      .replace(/^(?:00)+(?=.)/, '')
    const theirs = other.serialNumber.toLowerCase()
    // A negative serial number is written with its sign by the library.
    if (!theirs.startsWith('-') && (parts.serial[0] ?? 0) < 0x80)
      must(BigInt(`0x${serial || '0'}`) === BigInt(`0x${theirs}`), `the library reads the serial ${theirs}`)
    must(
      input.includes(parts.tbs) && input.includes(parts.subject) && input.includes(parts.issuer),
      'parts of something else',
    )
    return 'both'
  },
}

export const CRL: Target = {
  name: 'crl',
  corpus: () => {
    const serials = [...devices, line].map(({ cert }) => cert.serialNumber)
    const lists = [
      createCrl(ca, { revoked: serials.slice(0, 1) }),
      createCrl(line, { revoked: [], nextUpdate: null, version: 1 }),
      createCrl(ca, { revoked: serials, hash: 'sha512' }),
    ]
    const pem = lists.map((list) => Buffer.from(list.pem))
    const raw = lists.map((list) => list.der)
    return [...raw, pem[0]!, Buffer.concat(pem)]
  },
  tokens: [
    ...der(
      '0a0101',
      '551d14',
      '170d3235303130313030303030305a',
      '180f32303530303130313030303030305a',
      '020100',
      '3000',
      '551d1b',
    ),
    '-----BEGIN X509 CRL-----',
    '-----END X509 CRL-----',
    '\n',
  ],
  maxBytes: 4_096,
  kinds: ['lists', 'invalid'],
  cases: 6_000,
  check(input) {
    const file = readCrlFile(input)
    if (file.kind === 'invalid') {
      must(file.reason !== '', 'refused without a reason')
      return 'invalid'
    }
    must(file.lists.length > 0, 'no list, and no reason')
    for (const list of file.lists) {
      must(list.size <= input.length, `${list.size} serial numbers in ${input.length} bytes`)
      must(
        Number.isFinite(list.thisUpdate) && (list.nextUpdate === null || Number.isFinite(list.nextUpdate)),
        'a time that is none',
      )
    }
    // Made of whatever was read, the lists can be asked.
    new RevocationLists(file.lists, [ca.cert])
    return 'lists'
  },
}

let folder: string | null = null
/** One for all cases: a folder a case would cost more than the case. */
function place(): string {
  if (folder === null) {
    const made = mkdtempSync(join(tmpdir(), 'brokergate-fuzz-'))
    process.once('exit', () => rmSync(made, { recursive: true, force: true }))
    mkdirSync(join(made, 'registry'))
    for (const [name, text] of [
      ['ca.pem', ca.certPem],
      ['server.pem', ca.certPem],
      ['server.key', ca.keyPem],
      ['device.pem', devices[0]!.certPem],
      ['registry/device.pem', devices[0]!.certPem],
      [
        'registry/everything.json',
        '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"}]}',
      ],
    ] as const) {
      writeFileSync(join(made, name), text)
    }
    folder = made
  }
  return folder
}

const SETTINGS = `listeners:
  - { bind: "127.0.0.1:8883" }
  - bind: "[::]:10443"
    as: 443
    proxyProtocol: { versions: [1, 2], trustedSources: [ 10.0.0.0/8 ] }
domains:
  - serverNames: [ iot.example.com, &name localhost ]
    certificates: [ { cert: server.pem, key: server.key } ]
    clientTrust: { mode: ca, ca: [ ca.pem ], policies: [ devices ] }
    registry: main
    backend: main
    limits: { profile: aws-iot, packetSize: 64KiB }
backends: { main: { kind: tcp, servers: [ { address: "127.0.0.1:1883" } ], balance: leastconn } }
registries: { main: { path: registry } }
metrics: { bind: "127.0.0.1:9883" }
admin: { socket: admin.sock }
workers: 2
drain: { grace: 30s }
log: { format: json, level: info }
`

export const CONFIGURATION: Target = {
  name: 'configuration',
  corpus: () => [
    Buffer.from(SETTINGS),
    Buffer.from(SETTINGS.replace('workers: 2', 'workers: auto\nevents: [ { kind: log } ]')),
  ],
  tokens: [
    '\n',
    '  ',
    '- ',
    ': ',
    '{ ',
    ' }',
    '[ ',
    ' ]',
    '*name',
    '&x ',
    '<<: *name',
    '!!binary x',
    '"',
    "'",
    '|',
    '>-\n',
    '---\n',
    '...',
    '%YAML 1.2\n',
    '__proto__: 1',
    'constructor: {}',
    'null',
    '~',
    '0x10',
    '1e999',
    '.nan',
    '10s',
    '999999999999d',
    '64KiB',
    'include: [ . ]\n',
    '# x',
    '\t',
    '{ env: HOME }',
    '{ file: ca.pem }',
  ],
  maxBytes: 4_096,
  kinds: ['valid', 'invalid'],
  cases: 150,
  check(input) {
    const file = join(place(), 'brokergate.yaml')
    writeFileSync(file, input)
    const loaded = loadSettings(file, {})
    if (loaded.kind === 'valid') {
      must(Object.isFrozen(loaded.settings), 'settings that can be changed')
      must(loaded.settings.listeners.length > 0, 'valid without a listener')
      return 'valid'
    }
    must(loaded.issues.length > 0, 'refused without a reason')
    const lines = input.toString().split(/\r\n|\r|\n/).length
    for (const issue of loaded.issues) {
      must(issue.message !== '' && formatIssue(issue).length < 4_096 + 1_024, 'an issue without words')
      must(issue.line >= 0 && issue.line <= lines + 1, `line ${issue.line} of ${lines}`)
    }
    return 'invalid'
  },
}

const REGISTRY = `things:
  sensor-1: { attributes: { site: berlin } }
certificates:
  - { file: device.pem, status: ACTIVE, things: [ sensor-1 ], exclusive: true, policies: [ devices ] }
policies:
  devices: { file: everything.json }
  inline: { Version: "2012-10-17", Statement: [ { Effect: Allow, Action: "iot:Connect", Resource: "*" } ] }
accessKeys:
  - { id: AKIDEXAMPLE, secret: { env: DEVICE_SECRET }, policies: [ devices ] }
authorizers:
  users: { kind: jwt, jwksUrl: "https://id.internal/jwks", algorithms: [ ES256 ], issuer: "https://id.internal", audience: devices, tokenFrom: password, principal: sub, policies: [ devices ] }
`

export const REGISTRY_YAML: Target = {
  name: 'registry',
  corpus: () => [Buffer.from(REGISTRY), Buffer.from('things: { a: }\n')],
  tokens: [
    '\n',
    '- ',
    ': ',
    '{ ',
    ' }',
    '[ ',
    ' ]',
    '&x ',
    '*x',
    '"',
    '---\n',
    '__proto__: {}',
    'constructor: 1',
    'null',
    'ACTIVE',
    'REVOKED',
    '../device.pem',
    '/etc/passwd',
    'devices',
    '${iot:ClientId}',
    '\t',
    '!!set',
  ],
  maxBytes: 4_096,
  kinds: ['valid', 'invalid'],
  cases: 200,
  check(input) {
    writeFileSync(join(place(), 'registry/registry.yaml'), input)
    const read = readRegistry(join(place(), 'registry'), { env: { DEVICE_SECRET: 'planted-secret' } })
    const words = read.kind === 'valid' ? read.warnings : read.issues
    must(read.kind === 'valid' || words.length > 0, 'refused without a reason')
    for (const text of words) must(text !== '' && !text.includes('planted-secret'), 'an issue that tells a secret')
    return read.kind
  },
}
