import { appendFileSync, mkdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { type LiveOptions, liveRegistry, type WatchedRegistry } from '../../src/registry/live.ts'
import { createCa, issueDevice } from '../support/pki.ts'
import { fakeLog, folderOf, mayPublish, policy, put, until } from './support.ts'

const ca = createCa({ commonName: 'Fleet CA' })
const [one, two] = [issueDevice(ca, { commonName: 'one' }), issueDevice(ca, { commonName: 'two' })]
const BASE = `certificates: [ { file: one.pem, policies: [ devices ] } ]
policies: { devices: { file: devices.json } }
`
const FILES = { 'a.yaml': BASE, 'one.pem': one.certPem, 'devices.json': policy('Allow') }

function follow(t: ExecutionContext, path: string, options: Partial<LiveOptions> = {}) {
  const { log, lines } = fakeLog()
  const reloads: string[] = []
  const result = liveRegistry(path, {
    name: 'main',
    state: null,
    log,
    reloaded: (name, outcome) => reloads.push(`${name} ${outcome}`),
    ...options,
  })
  if (result.kind === 'invalid') throw new Error(result.issues.join('\n'))
  const { live } = result
  let changes = 0
  live.onChange(() => changes++)
  live.watch()
  t.teardown(() => live.close())
  return { live, lines, reloads, changes: () => changes }
}

const statusOf = (live: WatchedRegistry, device = one): string => {
  const found = live.current.find(device.cert)
  return found.kind === 'registered' ? found.entry.status : found.kind
}

test('a change of a YAML file takes effect by its event, without a poll, and listeners are told', async (t) => {
  const folder = folderOf(t, FILES)
  const { live, reloads, changes } = follow(t, folder, { pollMs: 3_600_000 })
  t.is(statusOf(live), 'ACTIVE')
  put(folder, 'a.yaml', BASE.replace('{ file: one.pem,', '{ file: one.pem, status: INACTIVE,'))
  await until(t, () => statusOf(live) === 'INACTIVE', 'inactive')
  t.is(changes(), 1)
  t.deepEqual(reloads, ['main ok'])
})

test('a file that is written in place counts as well as one that is replaced', async (t) => {
  const folder = folderOf(t, FILES)
  const { live } = follow(t, folder)
  writeFileSync(join(folder, 'a.yaml'), BASE.replace('{ file: one.pem,', '{ file: one.pem, status: REVOKED,'))
  await until(t, () => statusOf(live) === 'REVOKED', 'revoked')
})

test('a new file joins the registry, and one that goes leaves it', async (t) => {
  const folder = folderOf(t, { ...FILES, 'two.pem': two.certPem })
  const { live } = follow(t, folder)
  t.is(statusOf(live, two), 'unknown')
  put(folder, 'b.yaml', 'certificates: [ { file: two.pem } ]')
  await until(t, () => statusOf(live, two) === 'ACTIVE', 'joined')
  rmSync(join(folder, 'b.yaml'))
  await until(t, () => statusOf(live, two) === 'unknown', 'left')
})

test('a policy in a file of its own is followed, also in a folder that nothing else names', async (t) => {
  const folder = folderOf(t, { ...FILES, 'far/away.json': policy('Allow') })
  put(folder, 'a.yaml', BASE.replace('devices.json', 'far/away.json'))
  const { live } = follow(t, folder)
  t.true(mayPublish(live.current.grants(['devices'])))
  put(folder, 'far/away.json', policy('Deny'))
  await until(t, () => !mayPublish(live.current.grants(['devices'])), 'denied')
})

test('taking the last policy away denies', async (t) => {
  const folder = folderOf(t, FILES)
  const { live } = follow(t, folder)
  put(folder, 'a.yaml', BASE.replace(', policies: [ devices ]', ''))
  await until(
    t,
    () => {
      const found = live.current.find(one.cert)
      return found.kind === 'registered' && !mayPublish(live.current.grants(found.entry.policies))
    },
    'denied',
  )
})

test('a mounted ConfigMap, turned by its symbolic link, is read anew', async (t) => {
  const mount = folderOf(t)
  const generation = (name: string, text: string) => {
    mkdirSync(join(mount, name))
    writeFileSync(join(mount, name, 'a.yaml'), text)
    writeFileSync(join(mount, name, 'one.pem'), one.certPem)
    writeFileSync(join(mount, name, 'devices.json'), policy('Allow'))
    symlinkSync(name, join(mount, '..data_tmp'))
    renameSync(join(mount, '..data_tmp'), join(mount, '..data'))
  }
  generation('..2026_1', BASE)
  for (const name of ['a.yaml', 'one.pem', 'devices.json']) symlinkSync(`..data/${name}`, join(mount, name))
  const { live } = follow(t, mount)
  for (const [name, status] of [
    ['..2026_2', 'INACTIVE'],
    ['..2026_3', 'ACTIVE'],
    ['..2026_4', 'REVOKED'],
  ] as const) {
    generation(name, BASE.replace('{ file: one.pem,', `{ file: one.pem, status: ${status},`))
    await until(t, () => statusOf(live) === status, name)
  }
})

test('a folder that is replaced as a whole is followed on', async (t) => {
  const parent = folderOf(t)
  for (const [name, text] of Object.entries(FILES)) put(parent, `registry/${name}`, text)
  const { live } = follow(t, join(parent, 'registry'))
  const replace = (status: string) => {
    for (const [name, text] of Object.entries(FILES)) put(parent, `next/${name}`, text)
    put(parent, 'next/a.yaml', BASE.replace('{ file: one.pem,', `{ file: one.pem, status: ${status},`))
    renameSync(join(parent, 'registry'), join(parent, `old-${status}`))
    renameSync(join(parent, 'next'), join(parent, 'registry'))
  }
  replace('INACTIVE')
  await until(t, () => statusOf(live) === 'INACTIVE', 'replaced once')
  replace('REVOKED')
  await until(t, () => statusOf(live) === 'REVOKED', 'replaced twice')
})

test('several changes at once are one reload', async (t) => {
  const folder = folderOf(t, FILES)
  const { live, reloads } = follow(t, folder)
  for (let n = 0; n < 20; n++)
    put(folder, 'a.yaml', BASE.replace('{ file: one.pem,', `{ file: one.pem, exclusive: false,`))
  put(folder, 'two.pem', two.certPem)
  put(folder, 'a.yaml', `${BASE}things: { a: {} }`)
  await until(t, () => live.contents.things.has('a'), 'the last one')
  t.true(reloads.length <= 2, reloads.join())
})

const BROKEN: Readonly<Record<string, readonly [name: string, text: string]>> = {
  'no YAML': ['a.yaml', 'certificates: ['],
  'a list': ['a.yaml', '- 1'],
  'a text': ['a.yaml', 'hello'],
  'an unknown section': ['a.yaml', `${BASE}devices: []`],
  'an unknown key': ['a.yaml', BASE.replace('policies: [ devices ]', 'policy: devices')],
  'a key twice': ['a.yaml', `${BASE}policies: {}`],
  'an unknown policy': ['a.yaml', BASE.replace('[ devices ]', '[ gone ]')],
  'an unknown thing': ['a.yaml', BASE.replace('policies: [ devices ]', 'things: [ gone ]')],
  'a policy file that is gone': ['a.yaml', BASE.replace('devices.json', 'gone.json')],
  'a policy file that is no JSON': ['devices.json', '{ "Version": '],
  'a policy without a version': ['devices.json', '{ "Statement": [] }'],
  'a policy with an unknown effect': ['devices.json', policy('Permit')],
  'an empty policy file': ['devices.json', ''],
  'a certificate that is none': ['one.pem', 'hello'],
  'two certificates in a file': ['one.pem', one.certPem + two.certPem],
  'an unknown status': ['a.yaml', BASE.replace('{ file: one.pem,', '{ file: one.pem, status: MAYBE,')],
  'the same certificate twice': ['b.yaml', 'certificates: [ { file: one.pem } ]'],
  'the same policy twice': ['b.yaml', 'policies: { devices: { file: devices.json } }'],
  'a thing with an impossible name': ['b.yaml', 'things: { "a/b": {} }'],
  'a thing named as a prototype': ['b.yaml', 'things: { __proto__: {} }'],
  'exclusive with two things': [
    'b.yaml',
    `things: { a: {}, b: {} }\ncertificates: [ { fingerprint: ${'a'.repeat(64)}, things: [ a, b ], exclusive: true } ]`,
  ],
  'an access key without its secret': ['b.yaml', 'accessKeys: [ { id: AKIDEXAMPLE0123456 } ]'],
  'a CA that is none': ['b.yaml', 'cas: [ { file: one.pem } ]'],
  'aliases without end': ['b.yaml', 'a: &a [ x, x ]\nb: &b [ *a, *a ]\nthings: *b'],
}

for (const [what, [name, text]] of Object.entries(BROKEN)) {
  test(`a reload of ${what} keeps the former registry, says where, and mends itself`, async (t) => {
    const folder = folderOf(t, FILES)
    const { live, reloads, lines, changes } = follow(t, folder)
    const before = live.current
    put(folder, name, text)
    await until(t, () => reloads.includes('main refused'), 'refused')
    t.is(live.current, before)
    t.is(statusOf(live), 'ACTIVE')
    t.true(mayPublish(live.current.grants(['devices'])))
    t.is(changes(), 0)
    t.true(
      lines.some((line) => /^error \/.*:\d+: /.test(line)),
      lines.join('\n'),
    )
    const mended = FILES[name as keyof typeof FILES]
    if (mended === undefined) rmSync(join(folder, name))
    else put(folder, name, mended)
    await until(t, () => reloads.includes('main ok'), 'mended')
    t.is(changes(), 1)
  })
}

test('a registry that cannot be read at the start is not followed at all', (t) => {
  const { log } = fakeLog()
  const options = { name: 'main', state: null, log, reloaded() {} }
  t.is(liveRegistry(folderOf(t, { 'a.yaml': '- 1' }), options).kind, 'invalid')
  t.is(liveRegistry('/nowhere/at/all', options).kind, 'invalid')
})

test('a listener that throws does not keep the change from the others', async (t) => {
  const folder = folderOf(t, FILES)
  const { live, lines, changes } = follow(t, folder)
  live.onChange(() => {
    throw new Error('broken listener')
  })
  let told = 0
  live.onChange(() => told++)
  put(folder, 'a.yaml', `${BASE}things: { a: {} }`)
  await until(t, () => told === 1 && changes() === 1, 'all told')
  t.true(lines.some((line) => line.startsWith('error a change of the registry')))
})

test('who is no longer interested is no longer told', async (t) => {
  const folder = folderOf(t, FILES)
  const { live } = follow(t, folder)
  let told = 0
  live.onChange(() => told++)()
  put(folder, 'a.yaml', `${BASE}things: { a: {} }`)
  await until(t, () => live.contents.things.has('a'), 'changed')
  t.is(told, 0)
})

test('what changed between reading and watching is noticed', async (t) => {
  const folder = folderOf(t, FILES)
  const { log } = fakeLog()
  const result = liveRegistry(folder, { name: 'main', state: null, log, reloaded() {} })
  if (result.kind === 'invalid') return t.fail(result.issues.join('\n'))
  t.teardown(() => result.live.close())
  appendFileSync(join(folder, 'a.yaml'), 'things: { late: {} }\n')
  result.live.watch()
  await until(t, () => result.live.contents.things.has('late'), 'noticed')
})
