import { chmodSync } from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { readRegistry } from '../../src/registry/files.ts'
import { headWarnings } from '../../src/registry/head-warnings.ts'
import { createCa, issueDevice } from '../support/pki.ts'
import { folderOf, mayPublish, policy } from './support.ts'

// Things, CAs, policies, access keys and authorizers of a registry file.

const ca = createCa({ commonName: 'Fleet CA' })
const device = issueDevice(ca, { commonName: 'one' })
const KEY = 'AKIDEXAMPLE0123456'

function read(
  t: ExecutionContext,
  files: Readonly<Record<string, string>>,
  options: { readonly env?: NodeJS.ProcessEnv; readonly state?: boolean } = {},
) {
  const folder = folderOf(t, files)
  const result = readRegistry(folder, { env: {}, ...options })
  const shorten = (lines: readonly string[]) => lines.map((line) => line.replaceAll(`${folder}/`, ''))
  return {
    folder,
    result,
    issues: result.kind === 'invalid' ? shorten(result.issues) : [],
    warnings: result.kind === 'valid' ? shorten(result.warnings) : [],
    files: shorten(result.files),
  }
}

test('things have a type and attributes, and may have nothing', (t) => {
  const { result } = read(t, {
    'a.yaml': 'things:\n  a: { type: lamp, attributes: { site: berlin } }\n  b:\n  "c:1": {}\n',
  })
  if (result.kind === 'invalid') return t.fail(result.issues.join())
  t.deepEqual([...result.contents.things.keys()], ['a', 'b', 'c:1'])
  t.deepEqual(result.registry.things(['a', 'b'], false).of('a'), {
    name: 'a',
    typeName: 'lamp',
    attributes: { site: 'berlin' },
  })
  t.is(result.registry.things(['a', 'b'], true).exclusive, null)
})

test('policies are inline or in a file, and files over several YAML files are joined', (t) => {
  const { result, files } = read(t, {
    'a.yaml':
      'policies:\n  inline: { Version: "2012-10-17", Statement: [ { Effect: Allow, Action: "iot:*", Resource: "*" } ] }\n',
    'b.yaml': 'policies: { filed: { file: policies/one.json } }\n',
    'policies/one.json': policy('Allow'),
  })
  if (result.kind === 'invalid') return t.fail(result.issues.join())
  t.true(mayPublish(result.registry.grants(['inline'])))
  t.true(mayPublish(result.registry.grants(['filed'])))
  t.false(mayPublish(result.registry.grants([])))
  t.false(mayPublish(result.registry.grants(['inline', 'gone'])))
  t.false(mayPublish(result.registry.grants(['__proto__'])))
  t.deepEqual(files, ['a.yaml', 'b.yaml', 'policies/one.json'])
})

test('a policy that does not parse is told where it stands', (t) => {
  const { issues } = read(t, {
    'a.yaml':
      'policies:\n  filed: { file: one.json }\n  inline:\n    Version: "2012-10-17"\n    Statement:\n      - { Effect: Maybe, Action: "iot:*", Resource: "*" }\n',
    'one.json': '{ "Version": "2012-10-17", "Version": "2012-10-17", "Statement": [] }',
  })
  t.true(
    issues.some((issue) => issue.startsWith('a.yaml:2: policies.filed.file: one.json: ')),
    issues.join('\n'),
  )
  t.true(
    issues.some((issue) => issue.startsWith('a.yaml:6: policies.inline.Statement.0.Effect: ')),
    issues.join('\n'),
  )
})

test('secrets stand in the file, in a file of their own, or in the environment', (t) => {
  const keys = [
    `  - { id: ${KEY}1, secret: inline, policies: [ all ] }`,
    `  - { id: ${KEY}2, secret: { file: secret }, sessionToken: { env: TOKEN } }`,
    `  - { id: ${KEY}3, secret: { env: SECRET }, status: INACTIVE }`,
  ]
  const { result, files } = read(
    t,
    { 'a.yaml': `policies: { all: ${policy('Allow')} }\naccessKeys:\n${keys.join('\n')}\n`, secret: 'from a file\n' },
    { env: { TOKEN: 'token', SECRET: 'from env' } },
  )
  if (result.kind === 'invalid') return t.fail(result.issues.join())
  const key = (n: number) => result.registry.accessKey(`${KEY}${n}`)
  t.deepEqual(key(1), { id: `${KEY}1`, secret: 'inline', sessionToken: null, status: 'ACTIVE', policies: ['all'] })
  t.like(key(2), { secret: 'from a file', sessionToken: 'token' })
  t.like(key(3), { secret: 'from env', status: 'INACTIVE' })
  t.is(result.registry.accessKey('__proto__'), null)
  t.true(files.includes('secret'))
})

test('what is wrong with a secret is told without repeating it', (t) => {
  const { issues } = read(
    t,
    {
      'a.yaml': [
        'accessKeys:',
        `  - { id: ${KEY}1, secret: { env: GONE } }`,
        `  - { id: ${KEY}2, secret: { env: EMPTY } }`,
        `  - { id: ${KEY}3, secret: { file: gone } }`,
        `  - { id: ${KEY}4, secret: { file: empty } }`,
        `  - { id: ${KEY}5, secret: 271828182845 }`,
        `  - { id: ${KEY}6, secret: { hunter2: 1 } }`,
        `  - { id: ${KEY}7, secret: hunter2, sessionToken: { env: GONE } }`,
        `  - { id: hunter2-, secret: hunter2 }`,
      ].join('\n'),
      empty: '\n',
    },
    { env: { EMPTY: '' } },
  )
  t.is(issues.length, 3, issues.join('\n'))
  t.notRegex(issues.join('\n'), /hunter2|271828/)
  const wellFormed = read(t, {
    'a.yaml': [
      'accessKeys:',
      `  - { id: ${KEY}1, secret: { env: GONE } }`,
      `  - { id: ${KEY}3, secret: { file: gone } }`,
      `  - { id: ${KEY}4, secret: { file: empty } }`,
      `  - { id: ${KEY}7, secret: hunter2, sessionToken: { env: GONE } }`,
      `  - { id: ${KEY}7, secret: hunter2 }`,
    ].join('\n'),
    empty: '\n',
  }).issues
  t.deepEqual(wellFormed, [
    'a.yaml:2: accessKeys.0.secret: the environment variable GONE is not set',
    'a.yaml:3: accessKeys.1.secret: gone cannot be read: ENOENT',
    'a.yaml:4: accessKeys.2.secret: empty is empty',
    'a.yaml:5: accessKeys.3.sessionToken: the environment variable GONE is not set',
    'a.yaml:6: accessKeys.4: this access key is defined already, at a.yaml:5',
  ])
})

test('a fault of YAML near a secret does not quote it', (t) => {
  const { issues } = read(t, { 'a.yaml': `accessKeys:\n  - { id: ${KEY}, secret: hunter2: hunter2, x: *hunter2 }\n` })
  t.true(issues.length > 0)
  t.notRegex(issues.join('\n'), /hunter2/)
})

test('a file with a secret that everybody may read is warned of', (t) => {
  const folder = folderOf(t, {
    'a.yaml': `accessKeys: [ { id: ${KEY}, secret: { file: secret } }, { id: ${KEY}2, secret: x } ]`,
    secret: 'x',
  })
  chmodSync(join(folder, 'secret'), 0o644)
  chmodSync(join(folder, 'a.yaml'), 0o644)
  const result = readRegistry(folder)
  t.deepEqual(result.kind === 'valid' ? result.warnings.map((line) => line.replaceAll(folder, '')) : [], [
    '/a.yaml:1: accessKeys.0.secret: /secret holds a secret and may be read by everybody on this machine',
    '/a.yaml:1: accessKeys.1.secret: /a.yaml holds a secret and may be read by everybody on this machine',
  ])
  chmodSync(join(folder, 'secret'), 0o640)
  chmodSync(join(folder, 'a.yaml'), 0o600)
  const again = readRegistry(folder)
  t.deepEqual(again.kind === 'valid' ? again.warnings : null, [])
})

test('files of passwords and of headers that everybody may read, and a registry that everybody may change, are warned of', (t) => {
  const folder = folderOf(t, {
    'a.yaml': `authorizers:
  people: { kind: password, file: users.txt }
  hook: { kind: webhook, url: "https://localhost", headers: { authorization: { file: secret } } }
  other: { kind: webhook, url: "https://localhost", headers: { authorization: written } }
`,
    'users.txt': '',
    secret: 'x',
  })
  for (const name of ['users.txt', 'secret']) chmodSync(join(folder, name), 0o644)
  chmodSync(join(folder, 'a.yaml'), 0o606)
  const result = readRegistry(folder)
  t.deepEqual(result.kind === 'valid' ? result.warnings.map((line) => line.replaceAll(folder, '')) : result.issues, [
    '/a.yaml:2: authorizers.people.file: /users.txt holds a secret and may be read by everybody on this machine',
    '/a.yaml:3: authorizers.hook.headers.authorization: /secret holds a secret and may be read by everybody on this machine',
    '/a.yaml:4: authorizers.other.headers.authorization: /a.yaml holds a secret and may be read by everybody on this machine',
    '/a.yaml:4: authorizers.other.headers.authorization: /a.yaml holds a secret and may be changed by everybody on this machine',
    '/a.yaml:1: : may be changed by everybody on this machine',
  ])
  for (const name of ['users.txt', 'secret', 'a.yaml']) chmodSync(join(folder, name), 0o640)
  const again = readRegistry(folder)
  t.deepEqual(again.kind === 'valid' ? again.warnings : null, [])
})

test('authorizers are read with their files, and their policies must exist', (t) => {
  const { result, files } = read(t, {
    'a.yaml': `policies: { devices: ${policy('Allow')} }\nauthorizers:\n  people: { kind: password, file: users.txt, policies: [ devices ] }\n`,
    'users.txt': '',
  })
  if (result.kind === 'invalid') return t.fail(result.issues.join())
  t.is(result.registry.authorizer('people')?.kind, 'password')
  t.is(result.registry.authorizer('gone'), null)
  t.true(files.includes('users.txt'))
  const { issues } = read(t, {
    'a.yaml': 'authorizers:\n  people: { kind: password, file: users.txt, policies: [ gone ] }\n',
    'b.yaml': 'authorizers:\n  people: { kind: password, file: gone.txt }\n',
    'users.txt': '',
  })
  t.deepEqual(
    issues.map((issue) => issue.split(': ').slice(0, 2).join(' ')),
    ['b.yaml:2 authorizers.people.file', 'b.yaml:2 authorizers.people', 'a.yaml:2 authorizers.people.policies.0'],
  )
})

test('a CA registers nobody unless it says so, and nothing registers itself without a state', (t) => {
  const { result } = read(t, { 'a.yaml': 'cas: [ { file: ca.pem } ]', 'ca.pem': ca.certPem })
  if (result.kind === 'invalid') return t.fail(result.issues.join())
  t.like(result.registry.issuerOf(device.cert), { status: 'ACTIVE', autoRegister: { kind: 'no' }, maxPerMinute: 60 })
  const pending = {
    'a.yaml': 'cas: [ { file: ca.pem, autoRegister: pending, maxPerMinute: 5 } ]',
    'ca.pem': ca.certPem,
  }
  t.regex(read(t, pending).issues.join(), /^a\.yaml:1: cas\.0\.autoRegister: needs a place to write down/)
  const withState = read(t, pending, { state: true }).result
  if (withState.kind === 'invalid') return t.fail(withState.issues.join())
  t.like(withState.registry.issuerOf(device.cert), { autoRegister: { kind: 'pending' }, maxPerMinute: 5 })
})

test('a template stands in the file or in one of its own, and its policies must exist', (t) => {
  const files = (template: string) => ({
    'a.yaml': `policies: { devices: ${policy('Allow')} }\ncas:\n  - { file: ca.pem, autoRegister: { template: ${template} } }\n`,
    'ca.pem': ca.certPem,
    't.json': '{ "thing": "${CommonName}", "policies": [ "devices" ] }',
    'broken.json': '{ "thing": "${Email}" }',
    'none.json': '{',
  })
  const kindOf = (template: string) => {
    const { result } = read(t, files(template), { state: true })
    return result.kind === 'valid' ? result.registry.issuerOf(device.cert)?.autoRegister.kind : result.issues.join('\n')
  }
  t.is(kindOf('t.json'), 'template')
  t.is(kindOf('{ thing: "${CommonName}", policies: [ devices ] }'), 'template')
  const issuesOf = (template: string) => read(t, files(template), { state: true }).issues.join('\n')
  t.regex(issuesOf('{ policies: [ gone ] }'), /^a\.yaml:3: cas\.0\.autoRegister\.template\.0: no such policy: gone$/)
  t.regex(issuesOf('broken.json'), /^a\.yaml:3: cas\.0\.autoRegister\.template: broken\.json: thing: only Country/)
  t.regex(issuesOf('none.json'), /^a\.yaml:3: cas\.0\.autoRegister\.template: none\.json:1: /)
  t.regex(issuesOf('gone.json'), /gone\.json cannot be read: ENOENT/)
  t.regex(issuesOf('{ thing: "${Email}" }'), /^a\.yaml:3: cas\.0\.autoRegister\.template\.thing: only Country/)
})

for (const [what, yaml, expected] of [
  ['a thing name', 'things: { "a b": {} }', 'things.a b: expected a thing name'],
  ['an attribute that is a number', 'things: { a: { attributes: { n: 1 } } }', 'expected a text, quoted'],
  ['a policy name', 'policies: { "a/b": {} }', 'policies.a/b: expected a policy name'],
  ['an access key id', 'accessKeys: [ { id: a-b, secret: x } ]', 'accessKeys.0.id: expected 1 to 128'],
  [
    'exclusive without a thing',
    `certificates: [ { fingerprint: ${'a'.repeat(64)}, exclusive: true } ]`,
    'certificates.0.exclusive: an exclusive certificate has exactly one thing',
  ],
  [
    'autoRegister',
    'cas: [ { file: ca.pem, autoRegister: yes } ]',
    'cas.0.autoRegister: expected no, pending or { template',
  ],
  ['a maximum', 'cas: [ { file: ca.pem, maxPerMinute: 0 } ]', 'cas.0.maxPerMinute: expected a whole number from 1'],
  ['a CA that is a device', 'cas: [ { file: one.pem } ]', 'cas.0.file: is not the certificate of a CA'],
  [
    'the same CA twice',
    'cas: [ { file: ca.pem }, { file: ca.pem } ]',
    'cas.1: this CA is defined already, at a.yaml:1',
  ],
  ['the same thing twice', 'things: { a: {} }', 'b.yaml:1: things.a: this thing is defined already, at a.yaml:1'],
] as const) {
  test(`a wrong entry is refused: ${what}`, (t) => {
    const twice = what === 'the same thing twice' ? { 'b.yaml': yaml } : {}
    const { issues } = read(
      t,
      { 'a.yaml': yaml, ...twice, 'ca.pem': ca.certPem, 'one.pem': device.certPem },
      { state: true },
    )
    t.true(
      issues.some((issue) => issue.includes(expected)),
      issues.join('\n'),
    )
  })
}

test('sections with nothing in them are empty', (t) => {
  t.is(
    read(t, { 'a.yaml': 'things:\ncertificates:\ncas:\npolicies:\naccessKeys:\nauthorizers:\n' }).result.kind,
    'valid',
  )
})

test('an editor’s and Kubernetes’ own files are left alone', (t) => {
  t.is(read(t, { '.a.yaml': '- 1', '..data/b.yaml': '- 1', 'c.yaml~': '- 1', 'd.yaml': '' }).result.kind, 'valid')
})

test('resources that no domain can match are warned of', (t) => {
  const { result } = read(t, {
    'a.yaml': `policies:
  own: ${policy('Allow', 'iot:*', 'arn:aws:iot:us-east-1:000000000000:topic/a')}
  wide: ${policy('Allow', 'iot:*', 'arn:aws:iot:*:*:topic/a')}
  region: ${policy('Allow', 'iot:*', 'arn:aws:iot:eu-west-1:000000000000:topic/a')}
  account: ${policy('Deny', 'iot:*', 'arn:aws:iot:us-east-1:123456789012:topic/a')}
`,
  })
  if (result.kind === 'invalid') return t.fail(result.issues.join())
  const head = { partition: 'aws', region: 'us-east-1', accountId: '000000000000' }
  const { policies } = result.contents
  t.deepEqual(headWarnings('main', policies, []), [])
  t.deepEqual(headWarnings('main', policies, [head]), [
    'registry main: policy region: arn:aws:iot:eu-west-1:000000000000:topic/a matches nothing, the settings `aws` say arn:aws:iot:us-east-1:000000000000',
    'registry main: policy account: arn:aws:iot:us-east-1:123456789012:topic/a matches nothing, the settings `aws` say arn:aws:iot:us-east-1:000000000000',
  ])
  t.is(headWarnings('main', policies, [head, { ...head, region: 'eu-west-1' }]).length, 1)
})
