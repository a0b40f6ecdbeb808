import { appendFileSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { sha256 } from '../../src/registry/certificate-index.ts'
import { answerWorker, changedNotice, registrarLink } from '../../src/registry/link.ts'
import { liveRegistry } from '../../src/registry/live.ts'
import { OVERLAY_FILE, type RegisteredRecord } from '../../src/registry/overlay.ts'
import { type Decision, RegistryOwner } from '../../src/registry/owner.ts'
import { createCa, type Issued, issueDevice, malleate } from '../support/pki.ts'
import { fakeLog, folderOf, mayPublish, policy, until } from './support.ts'

const ca = createCa({ commonName: 'Fleet CA' })
const [one, two, three] = ['one', 'two', 'three'].map((commonName) => issueDevice(ca, { commonName })) as [
  Issued,
  Issued,
  Issued,
]
const idOf = ({ cert }: Pick<Issued, 'cert'>) => sha256(cert.raw)

const recordOf = (device: Pick<Issued, 'cert'>, changes: Partial<RegisteredRecord> = {}): RegisteredRecord => ({
  kind: 'registered',
  at: 1,
  fingerprint: idOf(device),
  der: device.cert.raw.toString('base64'),
  ca: sha256(ca.cert.raw),
  status: 'PENDING_ACTIVATION',
  policies: [],
  thing: null,
  exclusive: false,
  documents: {},
  ...changes,
})

const YAML = `things: { sensor-1: {} }
policies: { devices: ${policy('Allow')} }
certificates:
  - { file: one.pem, policies: [ devices ] }
  - { file: two.pem, status: INACTIVE }
`

function owned(t: ExecutionContext, options: { readonly state?: boolean; readonly now?: () => number } = {}) {
  const folder = folderOf(t, {
    'registry/a.yaml': YAML,
    'registry/one.pem': one.certPem,
    'registry/two.pem': two.certPem,
  })
  const path = join(folder, 'registry')
  const state = options.state === false ? null : join(folder, 'state')
  const { log, lines } = fakeLog()
  const changed: string[] = []
  const owner = new RegistryOwner({
    registries: { main: { path, state } },
    log,
    changed: (name) => changed.push(name),
    ...(options.now !== undefined && { now: options.now }),
  })
  t.teardown(() => owner.close())
  const decide = (certificate: string, status: Decision['status'], rest: Partial<Decision> = {}) =>
    owner.decide({ registry: null, certificate, status, ...rest })
  const statusOf = (device: Issued) => owner.list(null).find(({ fingerprint }) => fingerprint === idOf(device))?.status
  return { folder, path, state, owner, changed, lines, decide, statusOf }
}

test('a new device is written once, and everybody is told', async (t) => {
  const { owner, changed, statusOf } = owned(t)
  t.is(await owner.register('main', recordOf(three), 60), 'written')
  t.is(await owner.register('main', recordOf(three), 60), 'known')
  t.deepEqual(changed, ['main'])
  t.is(statusOf(three), 'PENDING_ACTIVATION')
})

test('the malleated twin of a registered device, or one with its serial number, is the known one', async (t) => {
  const { owner } = owned(t)
  await owner.register('main', recordOf(three), 60)
  t.is(await owner.register('main', recordOf(malleate(three.certPem)), 60), 'known')
  const again = issueDevice(ca, { commonName: 'again', serialNumber: three.cert.serialNumber })
  t.is(await owner.register('main', recordOf(again), 60), 'known')
})

test('a record with another certificate’s fingerprint is not written', async (t) => {
  const { owner } = owned(t)
  await t.throwsAsync(owner.register('main', recordOf(three, { fingerprint: '0'.repeat(64) }), 60))
  await t.throwsAsync(owner.register('other', recordOf(three), 60))
})

test('a CA brings no more than its maximum in a minute, and another CA its own', async (t) => {
  let now = 60_000
  const { owner } = owned(t, { now: () => now })
  const register = (commonName: string, changes = {}) =>
    owner.register('main', recordOf(issueDevice(ca, { commonName }), changes), 2)
  t.is(await register('a'), 'written')
  t.is(await register('b'), 'written')
  t.is(await register('c'), 'capped')
  t.is(await register('d', { ca: 'f'.repeat(64) }), 'written')
  now += 59_999
  t.is(await register('e'), 'capped')
  now += 1
  t.is(await register('f'), 'written')
})

test('a device that waits is activated with policies and things', async (t) => {
  const { owner, decide, statusOf } = owned(t)
  await owner.register('main', recordOf(three), 60)
  t.deepEqual(decide(idOf(three).slice(0, 12), 'ACTIVE', { policies: ['devices'], things: ['sensor-1'] }), {
    kind: 'done',
    registry: 'main',
    fingerprint: idOf(three),
    status: 'ACTIVE',
  })
  t.is(statusOf(three), 'ACTIVE')
  t.like(
    owner.list(null).find(({ fingerprint }) => fingerprint === idOf(three)),
    {
      policies: ['devices'],
      things: ['sensor-1'],
      learned: true,
    },
  )
})

test('the stricter of file and overlay counts; only the file can lift what the file says', (t) => {
  const { decide, statusOf } = owned(t)
  t.is(decide(idOf(one), 'INACTIVE').kind, 'done')
  t.is(statusOf(one), 'INACTIVE')
  t.is(decide(idOf(one), 'ACTIVE').kind, 'done')
  t.is(statusOf(one), 'ACTIVE')
  t.like(decide(idOf(two), 'ACTIVE'), { kind: 'refused' })
  t.is(statusOf(two), 'INACTIVE')
  t.is(decide(idOf(two), 'REVOKED').kind, 'done')
  t.is(statusOf(two), 'REVOKED')
})

test('revoked is final', (t) => {
  const { decide, statusOf } = owned(t)
  t.is(decide(idOf(one), 'REVOKED').kind, 'done')
  t.deepEqual(decide(idOf(one), 'ACTIVE'), { kind: 'refused', reason: 'it is revoked, which is final' })
  decide(idOf(one), 'INACTIVE')
  t.is(statusOf(one), 'REVOKED')
})

test('a stranger may be refused beforehand, by its certificate or its whole fingerprint, and never let in', (t) => {
  const { decide, statusOf } = owned(t)
  t.is(decide(idOf(three), 'ACTIVE').kind, 'refused')
  t.is(decide(idOf(three).slice(0, 20), 'REVOKED').kind, 'refused')
  t.is(decide(idOf(three), 'INACTIVE', { der: three.cert.raw.toString('base64') }).kind, 'done')
  t.is(statusOf(three), 'INACTIVE')
  t.is(decide(idOf(three), 'ACTIVE').kind, 'done')
  // As unknown as before.
  t.is(statusOf(three), undefined)
})

for (const [what, certificate, rest] of [
  ['a short beginning', 'abcdef0', {}],
  ['no hex digits', 'sensor-1-pem', {}],
  ['a certificate of another fingerprint', '0'.repeat(64), { der: one.cert.raw.toString('base64') }],
  ['octets that are no certificate', sha256(Buffer.from('x')), { der: Buffer.from('x').toString('base64') }],
  ['an unknown registry', idOf(one), { registry: 'other' }],
] as const) {
  test(`${what} is refused`, (t) => {
    t.is(owned(t).decide(certificate, 'REVOKED', rest).kind, 'refused')
  })
}

test('an activation names only policies and things that exist, and none for a device of the files', async (t) => {
  const { owner, decide } = owned(t)
  await owner.register('main', recordOf(three), 60)
  t.like(decide(idOf(three), 'ACTIVE', { policies: ['gone'] }), { reason: 'no such policy: gone' })
  t.like(decide(idOf(three), 'ACTIVE', { things: ['gone'] }), { reason: 'no such thing: gone' })
  t.is(decide(idOf(one), 'ACTIVE', { policies: ['devices'] }).kind, 'refused')
})

test('without a state nothing is written', async (t) => {
  const { owner, decide } = owned(t, { state: false })
  t.is(decide(idOf(one), 'REVOKED').kind, 'refused')
  await t.throwsAsync(owner.register('main', recordOf(three), 60))
  t.is(owner.list(null).length, 2)
})

test('a certificate can be revoked although the files cannot be read', (t) => {
  const { decide, path, lines } = owned(t)
  writeFileSync(join(path, 'a.yaml'), '- 1')
  t.is(decide(idOf(one), 'REVOKED', { der: one.cert.raw.toString('base64') }).kind, 'done')
  t.true(lines.length > 0)
})

test('a damaged overlay is no start', (t) => {
  const { folder, path, state } = owned(t)
  appendFileSync(join(state!, OVERLAY_FILE), '{"kind":"what"}\n')
  const { log } = fakeLog()
  t.throws(() => new RegistryOwner({ registries: { main: { path, state } }, log, changed() {} }), {
    message: /not a record/,
  })
  t.is(liveRegistry(path, { name: 'main', state: state, log, reloaded() {} }).kind, 'invalid')
  t.true(readFileSync(join(folder, 'state', OVERLAY_FILE), 'utf8').includes('what'))
})

test('what cannot be written is not registered', async (t) => {
  const { owner, state, statusOf } = owned(t)
  // The reader finds another file than the writer holds: whoever writes there is not heard.
  rmSync(state!, { recursive: true })
  mkdirSync(join(state!, OVERLAY_FILE), { recursive: true })
  await t.throwsAsync(owner.register('main', recordOf(three), 60))
  t.is(statusOf(three), undefined)
})

test('a registry that is followed sees what its owner writes, at once when told and soon when not', async (t) => {
  const { owner, path, state, decide } = owned(t)
  const { log } = fakeLog()
  const result = liveRegistry(path, { name: 'main', state, log, reloaded() {} })
  if (result.kind === 'invalid') return t.fail(result.issues.join())
  const { live } = result
  t.teardown(() => live.close())
  const kindOf = (device: Issued) => {
    const found = live.current.find(device.cert)
    return found.kind === 'registered' ? found.entry.status : found.kind
  }
  let changes = 0
  live.onChange(() => changes++)
  await owner.register('main', recordOf(three), 60)
  live.readOverlay()
  t.is(kindOf(three), 'PENDING_ACTIVATION')
  t.is(changes, 1)
  live.watch()
  decide(idOf(three), 'ACTIVE', { policies: ['devices'] })
  await until(t, () => kindOf(three) === 'ACTIVE', 'seen without being told')
  const found = live.current.find(three.cert)
  t.true(found.kind === 'registered' && mayPublish(live.current.grants(found.entry.policies)))
  t.is(live.current.find(malleate(three.certPem).cert).kind, 'twin')
  t.is(live.current.size, 3)
})

/** A primary and its workers, over a link that carries JSON as IPC does. */
function connected(owner: RegistryOwner, workers: number) {
  const heard: string[][] = Array.from({ length: workers }, () => [])
  const links = heard.map((names, worker) =>
    registrarLink({
      worker,
      send: (data) => setImmediate(() => answerWorker(owner, JSON.parse(JSON.stringify(data)), broadcast)),
      changed: (name) => names.push(name),
      answerWithinMs: 200,
    }),
  )
  function broadcast(data: unknown): void {
    for (const link of links) link.heard(JSON.parse(JSON.stringify(data)))
  }
  return { links, heard, broadcast }
}

test('of two workers that bring the same device at once one writes it, and each hears its own answer', async (t) => {
  const { owner } = owned(t)
  const { links } = connected(owner, 2)
  const answers = await Promise.all(links.map((link) => link.register('main', recordOf(three), 60)))
  t.deepEqual(answers.toSorted(), ['known', 'written'])
  const more = await Promise.all([
    links[0]!.register('main', recordOf(issueDevice(ca, { commonName: 'x' })), 60),
    links[1]!.register('main', recordOf(issueDevice(ca, { commonName: 'y' })), 2),
  ])
  t.deepEqual(more, ['written', 'capped'])
})

test('a worker hears that an overlay has grown, and leaves what is not for it', (t) => {
  const { links, heard, broadcast } = connected(owned(t).owner, 2)
  broadcast(changedNotice('main'))
  t.deepEqual(heard, [['main'], ['main']])
  t.false(links[0]!.heard({ store: 'get' }))
  t.false(links[0]!.heard(null))
  t.false(answerWorker(owned(t).owner, { store: 'get' }, () => {}))
})

test('an answer that says no, or does not come, is a fault', async (t) => {
  const { owner } = owned(t)
  const { links } = connected(owner, 1)
  await t.throwsAsync(links[0]!.register('other', recordOf(three), 60), { message: /did not write/ })
  const silent = registrarLink({ worker: 1, send() {}, changed() {}, answerWithinMs: 5 })
  await t.throwsAsync(silent.register('main', recordOf(three), 60), { message: /did not write/ })
})

test('no more registrations wait than there is room for', async (t) => {
  const silent = registrarLink({ worker: 1, send() {}, changed() {}, answerWithinMs: 50 })
  const all = Array.from({ length: 1_025 }, () => silent.register('main', recordOf(three), 60))
  const results = await Promise.allSettled(all)
  t.true(results.every(({ status }) => status === 'rejected'))
  t.regex(String((results.at(-1) as PromiseRejectedResult).reason), /too many/)
})
