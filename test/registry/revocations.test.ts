import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import type { LiveRevocations } from '../../src/registry/revocations.ts'
import { RevocationFiles } from '../../src/registry/revocations.ts'
import { createCa, createCrl } from '../support/pki.ts'
import { fakeLog, folderOf, put, until } from './support.ts'

const ca = createCa({ commonName: 'Fleet CA' })
const other = createCa({ commonName: 'Other CA' })
const serial = Buffer.from('0a', 'hex')
const list = (issuer: typeof ca, ...revoked: string[]) => createCrl(issuer, { revoked }).pem

function opened(t: ExecutionContext, files: Readonly<Record<string, string>>) {
  const folder = folderOf(t, files)
  const { log, lines } = fakeLog()
  const reloads: string[] = []
  const revocations = new RevocationFiles({ log, reloaded: (result) => reloads.push(result) })
  t.teardown(() => revocations.close())
  const open = (names: readonly string[], issuers = [ca.cert]): LiveRevocations => {
    const found = revocations.open(
      names.map((name) => join(folder, name)),
      issuers,
    )
    if ('issues' in found) throw new Error(found.issues.join('\n'))
    return found
  }
  return { folder, revocations, open, lines, reloads }
}

test('domains with the same files and CAs share one set', (t) => {
  const { open } = opened(t, { 'a.crl': list(ca), 'b.crl': list(other) })
  t.is(open(['a.crl', 'b.crl']), open(['b.crl', 'a.crl', 'a.crl']))
  t.not(open(['a.crl']), open(['a.crl', 'b.crl']))
  t.not(open(['a.crl']), open(['a.crl'], [other.cert]))
})

test('a new list is in effect in every set that has its file, and listeners are told', async (t) => {
  const { folder, open, revocations, reloads } = opened(t, { 'a.crl': list(ca), 'b.crl': list(other) })
  const sets = [open(['a.crl']), open(['a.crl', 'b.crl'])]
  const untouched = open(['b.crl'])
  const before = untouched.current
  let told = 0
  for (const set of [...sets, untouched]) set.onChange(() => told++)
  revocations.watch()
  const begun = performance.now()
  put(folder, 'a.crl', list(ca, '0a'))
  await until(t, () => sets.every((set) => set.current.statusOf(ca.cert, serial) === 'revoked'), 'revoked')
  t.log(`${Math.round(performance.now() - begun)} ms`)
  t.is(told, 2)
  t.is(untouched.current, before)
  t.deepEqual(reloads, ['ok'])
})

for (const [what, text] of [
  ['a text', 'hello'],
  ['nothing', ''],
  ['half a list', list(ca, '0b').slice(0, 200)],
  ['a list that SHA-1 signed', createCrl(ca, { revoked: [], hash: 'sha1' }).pem],
] as const) {
  test(`${what} in the place of a list keeps the former one, and mends itself`, async (t) => {
    const { folder, open, revocations, lines, reloads } = opened(t, { 'a.crl': list(ca, '0a') })
    const set = open(['a.crl'])
    revocations.watch()
    writeFileSync(join(folder, 'a.crl'), text)
    await until(t, () => reloads.includes('refused'), 'refused')
    t.is(set.current.statusOf(ca.cert, serial), 'revoked')
    t.true(lines.some((line) => line.includes('a.crl')))
    put(folder, 'a.crl', list(ca))
    await until(t, () => set.current.statusOf(ca.cert, serial) === 'good', 'mended')
  })
}

test('a broken file at the start is told', (t) => {
  const { folder, revocations } = opened(t, { 'a.crl': 'hello', 'b.crl': list(ca) })
  const found = revocations.open([join(folder, 'a.crl'), join(folder, 'b.crl'), join(folder, 'c.crl')], [])
  t.like('issues' in found ? found.issues : [], [
    `${folder}/a.crl: neither DER nor PEM («-----BEGIN X509 CRL-----»)`,
    `${folder}/c.crl: cannot be read: ENOENT`,
  ])
})

test('a listener that throws does not keep the change from the others', async (t) => {
  const { folder, open, revocations, lines } = opened(t, { 'a.crl': list(ca) })
  const set = open(['a.crl'])
  set.onChange(() => {
    throw new Error('broken')
  })
  let told = 0
  set.onChange(() => told++)
  revocations.watch()
  put(folder, 'a.crl', list(ca, '0a'))
  await until(t, () => told === 1, 'told')
  t.true(lines.some((line) => line.startsWith('error')))
})
