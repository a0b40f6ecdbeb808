import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { readRegistry } from '../../src/registry/files.ts'
import { createCa, issueDevice } from '../support/pki.ts'

const ca = createCa({ commonName: 'Fleet CA' })
const [one, two] = [issueDevice(ca, { commonName: 'one' }), issueDevice(ca, { commonName: 'two' })]
const hexOf = (fingerprint: string) => fingerprint.replaceAll(':', '').toLowerCase()

/** A folder with these files; `{}` in an issue stands for it. */
function read(t: ExecutionContext, files: Readonly<Record<string, string>>) {
  const folder = mkdtempSync(join(tmpdir(), 'brokergate-registry-'))
  t.teardown(() => rmSync(folder, { recursive: true }))
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, name)), { recursive: true })
    writeFileSync(join(folder, name), text)
  }
  const result = readRegistry(folder)
  const shorten = (lines: readonly string[]) => lines.map((line) => line.replaceAll(`${folder}/`, ''))
  return result.kind === 'valid'
    ? { ...result, files: shorten(result.files), warnings: shorten(result.warnings), issues: [] }
    : { ...result, issues: shorten(result.issues) }
}

test('every *.yaml of the folder is joined', (t) => {
  const result = read(t, {
    'a.yaml': 'certificates:\n  - { file: certs/one.pem }\n',
    'b.yaml': `certificates:\n  - fingerprint: "${two.cert.fingerprint256}"\n    status: INACTIVE\n`,
    'c.yaml': '',
    'notes.txt': 'not: [ yaml',
    'certs/one.pem': one.certPem,
  })
  if (result.kind === 'invalid') return t.fail(result.issues.join('\n'))
  t.is(result.registry.size, 2)
  t.like(result.registry.find(one.cert), { kind: 'registered', entry: { status: 'ACTIVE' } })
  t.like(result.registry.find(two.cert), { kind: 'registered', entry: { status: 'INACTIVE' } })
  t.deepEqual(result.files, ['a.yaml', 'certs/one.pem', 'b.yaml', 'c.yaml'])
  t.deepEqual(result.warnings, [
    'b.yaml:2: certificates.0: INACTIVE by fingerprint only: give the file, so that altered copies are refused too',
  ])
})

test('an empty folder is a registry that knows nobody', (t) => {
  const result = read(t, {})
  t.is(result.kind === 'valid' ? result.registry.size : -1, 0)
})

test('a folder that is not there is an issue', (t) => {
  const result = readRegistry('/nowhere/registry')
  t.deepEqual(result, {
    kind: 'invalid',
    issues: ['/nowhere/registry:1: : cannot be read: ENOENT'],
    files: [],
  })
})

test('all that is wrong comes at once, with file, line and path', (t) => {
  const result = read(t, {
    'a.yaml': [
      'certificates:',
      '  - { file: certs/none.pem }',
      '  - { file: certs/two.pem }',
      '  - { file: certs/text.pem }',
      '  - { file: certs/broken.pem }',
      '  - { file: certs/one.pem }',
      `  - { fingerprint: ${hexOf(one.cert.fingerprint256)}, status: REVOKED }`,
    ].join('\n'),
    'b.yaml': [
      'thing: { sensor-1: {} }',
      'certificates:',
      '  - fingerprint: abc',
      '    thing: x',
      '  - status: ACTIVE',
      '  - { file: x, status: BLOCKED }',
    ].join('\n'),
    'c.yaml': 'certificates: [\n',
    'd.yaml': '- 1',
    'certs/one.pem': one.certPem,
    'certs/two.pem': one.certPem + two.certPem,
    'certs/text.pem': 'hello',
    'certs/broken.pem': one.certPem.replace('MII', 'MIX'),
  })
  t.is(result.kind, 'invalid')
  const places = result.issues.map((issue) => issue.split(': ').slice(0, 2).join(' '))
  t.deepEqual(
    places.filter((place) => place.startsWith('a')),
    [
      'a.yaml:2 certificates.0.file',
      'a.yaml:3 certificates.1.file',
      'a.yaml:4 certificates.2.file',
      'a.yaml:5 certificates.3.file',
      'a.yaml:7 certificates.6',
    ].map((place) => place.replace('certificates.6', 'certificates.5')),
  )
  const rest = result.issues.filter((issue) => !issue.startsWith('a'))
  for (const start of [
    'b.yaml:1: thing: unknown key',
    'b.yaml:3: certificates.0.fingerprint: must be the SHA-256',
    'b.yaml:4: certificates.0.thing: unknown key',
    'b.yaml:5: certificates.1: needs a file or a fingerprint',
    'b.yaml:6: certificates.2.status: ',
    'c.yaml:',
    'd.yaml:1: : ',
  ]) {
    t.true(
      rest.some((issue) => issue.startsWith(start)),
      `${start}\n${rest.join('\n')}`,
    )
  }
})

test('a certificate named twice is refused, and the first place is told', (t) => {
  const result = read(t, {
    'a.yaml': 'certificates: [ { file: one.pem } ]',
    'b.yaml': 'certificates:\n\n  - { file: ./one.pem, status: REVOKED }',
    'one.pem': one.certPem,
  })
  t.deepEqual(result.issues, ['b.yaml:3: certificates.0: this certificate is registered already, at a.yaml:1'])
})

test('a key that is written twice is refused', (t) => {
  t.is(read(t, { 'a.yaml': 'certificates: []\ncertificates: []' }).kind, 'invalid')
})

test('aliases that unfold without end are refused', (t) => {
  const levels = ['a0: &a0 [ x, x, x, x, x, x, x, x, x ]']
  for (let n = 1; n < 9; n++)
    levels.push(
      `a${n}: &a${n} [ ${Array(9)
        .fill(`*a${n - 1}`)
        .join(', ')} ]`,
    )
  t.is(read(t, { 'a.yaml': levels.join('\n') }).kind, 'invalid')
})
