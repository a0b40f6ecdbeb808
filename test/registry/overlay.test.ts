import { appendFileSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { sha256 } from '../../src/registry/certificate-index.ts'
import {
  type DecidedRecord,
  OVERLAY_FILE,
  OverlayReader,
  OverlayWriter,
  type RegisteredRecord,
} from '../../src/registry/overlay.ts'
import { createCa, issueDevice } from '../support/pki.ts'
import { folderOf, policy } from './support.ts'

const ca = createCa({ commonName: 'Fleet CA' })
const device = issueDevice(ca, { commonName: 'one' }).cert
const fingerprint = sha256(device.raw)

const registered = (changes: Partial<RegisteredRecord> = {}): RegisteredRecord => ({
  kind: 'registered',
  at: 1,
  fingerprint,
  der: device.raw.toString('base64'),
  ca: sha256(ca.cert.raw),
  status: 'PENDING_ACTIVATION',
  policies: [],
  thing: null,
  exclusive: false,
  documents: {},
  ...changes,
})
const decided = (status: DecidedRecord['status'], changes: Partial<DecidedRecord> = {}): DecidedRecord => ({
  kind: 'status',
  at: 2,
  fingerprint,
  status,
  der: null,
  ...changes,
})

function written(state: string, ...records: readonly (RegisteredRecord | DecidedRecord)[]): void {
  const writer = new OverlayWriter(state)
  for (const record of records) writer.append(record)
  writer.close()
}

function read(state: string) {
  const reader = new OverlayReader(state)
  const result = reader.readOn()
  return { reader, result, entry: reader.overlay.certificates.get(fingerprint) }
}

test('what was written is there after a restart, in its order', (t) => {
  const state = join(folderOf(t), 'var/registry')
  written(state, registered(), decided('ACTIVE', { policies: ['devices'], things: ['sensor-1'] }), decided('INACTIVE'))
  const { result, entry } = read(state)
  t.deepEqual(result, { kind: 'read', records: 3 })
  t.like(entry, { status: 'INACTIVE', policies: ['devices'], things: ['sensor-1'], registration: { at: 1 } })
  t.deepEqual(entry?.der, device.raw)
})

test('only the program’s own user may read it', (t) => {
  const state = join(folderOf(t), 'state')
  written(state, registered())
  t.is(statSync(state).mode & 0o777, 0o700)
  t.is(statSync(join(state, OVERLAY_FILE)).mode & 0o777, 0o600)
})

test('things and policy documents of a template are there again', (t) => {
  const state = folderOf(t)
  const thing = { name: 'sensor-1', typeName: null, attributes: { site: 'berlin' } }
  written(
    state,
    registered({
      status: 'ACTIVE',
      thing,
      exclusive: true,
      policies: ['a'],
      documents: { 'template:x': policy('Allow') },
    }),
  )
  const { reader, entry } = read(state)
  t.deepEqual(reader.overlay.things.get('sensor-1'), thing)
  t.true(reader.overlay.policies.has('template:x'))
  t.like(entry, { policies: ['a', 'template:x'], things: ['sensor-1'], exclusive: true })
})

test('no file is an empty overlay', (t) => {
  t.deepEqual(read(folderOf(t)).result, { kind: 'read', records: 0 })
})

test('a revoked certificate stays revoked, whatever is written after it', (t) => {
  const state = folderOf(t)
  written(state, registered(), decided('REVOKED'), decided('ACTIVE'), registered({ status: 'ACTIVE' }))
  t.is(read(state).entry?.status, 'REVOKED')
})

test('a reader goes on where it was', (t) => {
  const state = folderOf(t)
  written(state, registered())
  const { reader } = read(state)
  t.deepEqual(reader.readOn(), { kind: 'read', records: 0 })
  written(state, decided('ACTIVE'))
  t.deepEqual(reader.readOn(), { kind: 'read', records: 1 })
  t.is(reader.overlay.certificates.get(fingerprint)?.status, 'ACTIVE')
})

test('a last line that is cut anywhere is left for later, and cut off by the next who writes', (t) => {
  const state = folderOf(t)
  const file = join(state, OVERLAY_FILE)
  written(state, registered(), decided('ACTIVE'))
  const whole = readFileSync(file)
  const first = whole.indexOf('\n') + 1
  for (let length = first; length < whole.length; length += 7) {
    writeFileSync(file, whole.subarray(0, length))
    const { result, entry } = read(state)
    t.deepEqual(result, { kind: 'read', records: 1 })
    t.is(entry?.status, 'PENDING_ACTIVATION')
  }
  t.not(statSync(file).size, first)
  written(state, decided('INACTIVE'))
  t.deepEqual(read(state).result, { kind: 'read', records: 2 })
  t.is(read(state).entry?.status, 'INACTIVE')
})

test('a line that is being written is read once it is whole', (t) => {
  const state = folderOf(t)
  const file = join(state, OVERLAY_FILE)
  written(state, registered())
  const { reader } = read(state)
  const line = `${JSON.stringify(decided('ACTIVE'))}\n`
  appendFileSync(file, line.slice(0, 40))
  t.deepEqual(reader.readOn(), { kind: 'read', records: 0 })
  appendFileSync(file, line.slice(40))
  t.deepEqual(reader.readOn(), { kind: 'read', records: 1 })
})

for (const [what, line] of [
  ['no JSON', '{'],
  ['an empty line', ''],
  ['an unknown kind', '{"kind":"forgotten","at":1}'],
  ['a status that is none', JSON.stringify(decided('GONE' as 'ACTIVE'))],
  ['an unknown key', JSON.stringify({ ...decided('ACTIVE'), force: true })],
  ['another certificate’s fingerprint', JSON.stringify(registered({ fingerprint: '0'.repeat(64) }))],
  ['a policy document that is none', JSON.stringify(registered({ documents: { 'template:x': '{}' } }))],
] as const) {
  test(`${what} in the middle is told with its line, for it may have been a revocation`, (t) => {
    const state = folderOf(t)
    written(state, registered())
    appendFileSync(join(state, OVERLAY_FILE), `${line}\n${JSON.stringify(decided('ACTIVE'))}\n`)
    const { result } = read(state)
    if (result.kind !== 'damaged') return t.fail('read')
    t.regex(result.issue, /overlay\.jsonl:2: : /)
  })
}

test('an overlay that shrinks or goes under a reader is damaged, and what it said still counts', (t) => {
  const state = folderOf(t)
  written(state, registered(), decided('REVOKED'))
  const { reader } = read(state)
  truncateSync(join(state, OVERLAY_FILE), 10)
  t.is(reader.readOn().kind, 'damaged')
  rmSync(join(state, OVERLAY_FILE))
  t.is(reader.readOn().kind, 'damaged')
  t.is(reader.overlay.certificates.get(fingerprint)?.status, 'REVOKED')
})

test('ten thousand records are read in pieces', (t) => {
  const state = folderOf(t)
  written(state, registered())
  const line = `${JSON.stringify(decided('INACTIVE', { der: device.raw.toString('base64') }))}\n`
  appendFileSync(join(state, OVERLAY_FILE), line.repeat(10_000))
  t.deepEqual(read(state).result, { kind: 'read', records: 10_001 })
})
