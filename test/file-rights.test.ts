import { chmodSync, chownSync, mkdirSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { looseRights } from '../src/file-rights.ts'
import { folderFor, write } from './support/proxy.ts'

const READ = 'may be read by everybody on this machine'
const CHANGE = 'may be changed by everybody on this machine'
const replace = (folder: string) => `may be replaced by everybody on this machine: ${folder} may be written`

function fileWith(t: ExecutionContext, mode: number): { readonly folder: string; readonly file: string } {
  const folder = join(folderFor(t), 'inside')
  const file = write(folder, 'key', 'x')
  chmodSync(file, mode)
  return { folder, file }
}

for (const [mode, secret, settings] of [
  [0o600, [], []],
  [0o400, [], []],
  // Kubernetes with fsGroup, and ssl-cert of Debian.
  [0o440, [], []],
  [0o660, [], []],
  [0o644, [READ], []],
  [0o604, [READ], []],
  [0o602, [CHANGE], [CHANGE]],
  [0o666, [READ, CHANGE], [CHANGE]],
] as const) {
  test(`mode ${mode.toString(8)}: ${secret.join(', ') || 'nothing to say'}`, (t) => {
    const { file } = fileWith(t, mode)
    t.deepEqual(looseRights(file, 'secret'), secret)
    t.deepEqual(looseRights(file, 'settings'), settings)
  })
}

test('a link has the rights of what it leads to', (t) => {
  const { folder, file } = fileWith(t, 0o644)
  const link = join(folder, 'link')
  symlinkSync(file, link)
  t.deepEqual(looseRights(link, 'secret'), [READ])
  chmodSync(file, 0o600)
  t.deepEqual(looseRights(link, 'secret'), [])
})

test('a file in a folder where everybody may put another in its place is warned of, wherever the name leads', (t) => {
  const { folder, file } = fileWith(t, 0o600)
  const elsewhere = folderFor(t)
  const link = join(elsewhere, 'link')
  symlinkSync(file, link)
  chmodSync(folder, 0o777)
  t.deepEqual(looseRights(file, 'secret'), [replace(folder)])
  t.deepEqual(looseRights(link, 'settings'), [replace(folder)])
  chmodSync(folder, 0o755)
  chmodSync(elsewhere, 0o777)
  t.deepEqual(looseRights(link, 'secret'), [replace(elsewhere)])
  // As /tmp: everybody may add, and nobody may take away what is another's.
  chmodSync(elsewhere, 0o1777)
  t.deepEqual(looseRights(link, 'secret'), [])
})

test('a folder is judged by its own rights', (t) => {
  const { folder } = fileWith(t, 0o600)
  const inside = join(folder, 'state')
  mkdirSync(inside, { mode: 0o700 })
  chmodSync(folder, 0o777)
  t.deepEqual(looseRights(inside, 'settings'), [])
  t.deepEqual(looseRights(folder, 'settings'), [CHANGE])
  chmodSync(folder, 0o1777)
  t.deepEqual(looseRights(folder, 'settings'), [])
})

test('what is not there, and a link that leads nowhere, has no rights', (t) => {
  const folder = folderFor(t)
  symlinkSync(join(folder, 'gone'), join(folder, 'link'))
  t.deepEqual(looseRights(join(folder, 'gone'), 'secret'), [])
  t.deepEqual(looseRights(join(folder, 'link'), 'secret'), [])
})

// Only root can give a file away.
const asRoot = process.geteuid?.() === 0 ? test : test.skip
asRoot(
  'a secret that belongs to another user is warned of, one of root or of nobody that is known here is not',
  (t) => {
    const { file } = fileWith(t, 0o600)
    chownSync(file, 4_321, 0)
    t.deepEqual(looseRights(file, 'secret'), [
      'belongs to the user 4321, who is neither root nor 0, which this process is',
    ])
    t.deepEqual(looseRights(file, 'settings'), [])
    chownSync(file, 65_534, 0)
    t.deepEqual(looseRights(file, 'secret'), [])
  },
)
