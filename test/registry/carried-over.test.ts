// What a reload may leave as it is: registries, revocation lists and overlays whose settings and files are the same.
import { chmodSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { liveRegistry } from '../../src/registry/live.ts'
import { RegistryOwner } from '../../src/registry/owner.ts'
import { RevocationFiles } from '../../src/registry/revocations.ts'
import { createCa, createCrl } from '../support/pki.ts'
import { fakeLog, folderOf, policy, put, until } from './support.ts'

const FILES = { 'a.yaml': 'policies: { devices: { file: devices.json } }\n', 'devices.json': policy('Allow') }
/** File systems tell times in steps; what is older than one may be compared. */
const aStep = () => new Promise((resolve) => setTimeout(resolve, 60))

test('a registry is current until one of its files changes, and again once that has taken effect', async (t) => {
  const folder = folderOf(t, FILES)
  await aStep()
  const { log } = fakeLog()
  const reloads: string[] = []
  const result = liveRegistry(folder, {
    name: 'main',
    state: null,
    log,
    reloaded: (_, outcome) => reloads.push(outcome),
  })
  if (result.kind === 'invalid') return t.fail(result.issues.join('\n'))
  const { live } = result
  t.teardown(() => live.close())
  t.true(live.isCurrent())
  put(folder, 'devices.json', policy('Deny'))
  t.false(live.isCurrent())
  await aStep()
  live.watch()
  await until(t, () => reloads.length > 0, 'the change')
  t.true(live.isCurrent())
  put(folder, 'b.yaml', 'policies: [ broken')
  t.false(live.isCurrent())
  await until(t, () => reloads.includes('refused'), 'the refusal')
  t.false(live.isCurrent())
})

test('a registry that was being written while it was read is not called current', (t) => {
  const folder = folderOf(t, FILES)
  const future = new Date(Date.now() + 60_000)
  utimesSync(join(folder, 'a.yaml'), future, future)
  const { log } = fakeLog()
  const result = liveRegistry(folder, { name: 'main', state: null, log, reloaded() {} })
  if (result.kind === 'invalid') return t.fail(result.issues.join('\n'))
  t.teardown(() => result.live.close())
  t.false(result.live.isCurrent())
})

test('revocation lists are current while each file is as it was read', (t) => {
  const ca = createCa({ commonName: 'Root' })
  const folder = folderOf(t)
  const file = join(folder, 'fleet.crl')
  writeFileSync(file, createCrl(ca, { revoked: [] }).der)
  const { log } = fakeLog()
  const files = new RevocationFiles({ log, reloaded() {} })
  t.teardown(() => files.close())
  t.false('issues' in files.open([file], [ca.cert]))
  t.true(files.isCurrent())
  writeFileSync(file, Buffer.concat([createCrl(ca, { revoked: [] }).der, Buffer.from('\n')]))
  t.false(files.isCurrent())
})

function owners(t: Parameters<typeof folderOf>[0]) {
  const folder = folderOf(
    t,
    Object.fromEntries(Object.entries(FILES).map(([name, text]) => [`registry/${name}`, text])),
  )
  const path = join(folder, 'registry')
  const at = (name: string) => ({ path, state: join(folder, name) })
  const { log } = fakeLog()
  const owner = new RegistryOwner({ registries: { main: at('one') }, log, changed() {} })
  t.teardown(() => owner.close())
  const revoke = (registry: string) => owner.decide({ registry, certificate: 'ab'.repeat(32), status: 'REVOKED' }).kind
  return { folder, owner, at, revoke }
}

test('an overlay of a new registry is written from the commit on, and one that stays is not opened again', (t) => {
  const { owner, at, revoke } = owners(t)
  const change = owner.prepare({ main: at('one'), more: at('two') })
  t.is(revoke('more'), 'refused')
  change.commit()
  t.is(revoke('more'), 'done')
  t.is(revoke('main'), 'done')
  t.is(owner.list('main').length, 1)
})

test('one that is not asked for any more is not written any more', (t) => {
  const { owner, at, revoke } = owners(t)
  t.is(revoke('main'), 'done')
  owner.prepare({ other: at('two') }).commit()
  t.is(revoke('main'), 'refused')
  t.is(revoke('other'), 'done')
})

test('a change that is called off leaves everything as it was', (t) => {
  const { owner, at, revoke } = owners(t)
  owner.prepare({ other: at('two') }).abort()
  t.is(revoke('other'), 'refused')
  t.is(revoke('main'), 'done')
})

test('an overlay that cannot be opened is an error, and changes nothing', (t) => {
  const { owner, at, revoke, folder } = owners(t)
  put(folder, 'two/overlay.jsonl', 'no JSON\n')
  chmodSync(join(folder, 'two/overlay.jsonl'), 0o600)
  t.throws(() => owner.prepare({ main: at('one'), other: at('two') }), { message: /overlay\.jsonl:1/ })
  t.is(revoke('main'), 'done')
})
