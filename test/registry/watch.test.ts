import { utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { watchFiles } from '../../src/registry/watch.ts'
import { folderOf, put, until } from './support.ts'

test('without events the poll notices a change', async (t) => {
  const folder = folderOf(t, { 'far/a': 'one' })
  let changes = 0
  // An event has an hour to wait, so it is not what is heard of here.
  const watch = watchFiles({
    paths: () => [join(folder, 'far/a')],
    readAt: Date.now() + 60_000,
    debounceMs: 3_600_000,
    pollMs: 20,
    onChange: () => changes++,
  })
  t.teardown(() => watch.close())
  put(folder, 'far/a', 'two')
  await until(t, () => changes === 1, 'noticed')
})

test('a file that does not exist yet is noticed when it comes, and its folder may come with it', async (t) => {
  const folder = folderOf(t)
  let changes = 0
  const watch = watchFiles({
    paths: () => [join(folder, 'later/a')],
    readAt: Date.now(),
    pollMs: 20,
    onChange: () => changes++,
  })
  t.teardown(() => watch.close())
  put(folder, 'later/a', 'one')
  await until(t, () => changes === 1, 'noticed')
  put(folder, 'later/a', 'two')
  await until(t, () => changes === 2, 'noticed again')
})

test('an event of another file is no change', async (t) => {
  const folder = folderOf(t, { a: 'one', b: 'one' })
  let changes = 0
  const watch = watchFiles({
    paths: () => [join(folder, 'a')],
    readAt: Date.now() + 60_000,
    debounceMs: 1,
    onChange: () => changes++,
  })
  t.teardown(() => watch.close())
  for (let n = 0; n < 5; n++) put(folder, 'b', String(n))
  writeFileSync(join(folder, 'a'), 'two')
  await until(t, () => changes === 1, 'the one that counts')
})

test('the same size and an old time do not hide a change', async (t) => {
  const folder = folderOf(t, { a: 'one' })
  utimesSync(join(folder, 'a'), 1, 1)
  let changes = 0
  const watch = watchFiles({ paths: () => [join(folder, 'a')], readAt: Date.now() + 60_000, onChange: () => changes++ })
  t.teardown(() => watch.close())
  writeFileSync(join(folder, 'a'), 'two')
  utimesSync(join(folder, 'a'), 1, 1)
  await until(t, () => changes === 1, 'noticed')
})

test('after its close nothing is told any more', async (t) => {
  const folder = folderOf(t, { a: 'one' })
  let closedChanges = 0
  let changes = 0
  const paths = () => [join(folder, 'a')]
  const closed = watchFiles({ paths, readAt: Date.now() + 60_000, pollMs: 5, onChange: () => closedChanges++ })
  closed.close()
  const watch = watchFiles({ paths, readAt: Date.now() + 60_000, pollMs: 5, onChange: () => changes++ })
  t.teardown(() => watch.close())
  put(folder, 'a', 'two')
  await until(t, () => changes === 1, 'the other one')
  t.is(closedChanges, 0)
})
