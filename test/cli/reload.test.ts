import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { reload } from '../../src/cli/reload.ts'
import { adminSocketOf } from '../../src/config/load.ts'
import { startAdminServer } from '../../src/control/admin.ts'
import { NO_LOG } from '../../src/control/log.ts'
import type { Reloaded } from '../../src/control/reload.ts'
import { ServerDrains } from '../../src/control/server-drains.ts'
import { folderFor, write } from '../support/proxy.ts'

const CONFIG = `listeners: [ { bind: "127.0.0.1:8883" } ]
domains:
  - serverNames: [ localhost ]
    certificates: [ { cert: server.pem, key: server.key } ]
    clientTrust: { mode: ca, ca: [ ca.pem ] }
    backend: main
backends: { main: { kind: embedded } }
admin: { socket: a.sock }
`

function folder(t: ExecutionContext, config = CONFIG) {
  const dir = folderFor(t)
  for (const name of ['server.pem', 'server.key', 'ca.pem']) write(dir, name, '')
  return { dir, file: write(dir, 'brokergate.yaml', config) }
}

async function answering(t: ExecutionContext, path: string, reloaded: Reloaded): Promise<void> {
  const server = await startAdminServer({
    path,
    status: () => ({}),
    drain() {},
    reload: async () => reloaded,
    certificates: { list: () => [], decide: () => ({ kind: 'refused', reason: 'no' }) },
    connections: { list: async () => ({ connections: [], total: 0 }), kick: async () => 0 },
    servers: new ServerDrains(
      () => new Map(),
      () => {},
    ),
    restart: () => ({ refused: null }),
    log: NO_LOG,
  })
  t.teardown(() => server.close())
}

async function told(file: string, socket: string | null = null): Promise<{ code: number; printed: string[] }> {
  const printed: string[] = []
  const code = await reload({ file, socket, env: {}, print: (line) => void printed.push(line) })
  return { code, printed }
}

test('what is in force is told, with what changed, and the exit code is 0', async (t) => {
  const { dir, file } = folder(t)
  await answering(t, join(dir, 'a.sock'), { kind: 'done', generation: 7, changed: ['domains[0]', 'backends.main'] })
  t.deepEqual(await told(file), {
    code: 0,
    printed: ['generation 7 is in force; changed: domains[0], backends.main'],
  })
})

test('nothing that has changed is no failure', async (t) => {
  const { dir, file } = folder(t)
  await answering(t, join(dir, 'a.sock'), { kind: 'unchanged', generation: 7 })
  t.deepEqual(await told(file), { code: 0, printed: ['generation 7 is in force; nothing has changed'] })
})

test('a refusal is printed issue by issue, and the exit code is 1', async (t) => {
  const { dir, file } = folder(t)
  await answering(t, join(dir, 'a.sock'), { kind: 'refused', generation: 7, issues: ['one', 'two'] })
  t.deepEqual(await told(file), { code: 1, printed: ['one', 'two', 'refused; generation 7 goes on'] })
})

test('a program that is ending says so', async (t) => {
  const { dir, file } = folder(t)
  await answering(t, join(dir, 'a.sock'), { kind: 'ignored', generation: 7, why: 'the program is ending' })
  t.deepEqual(await told(file), { code: 1, printed: ['ignored: the program is ending'] })
})

test('the running program is found by a file that is broken elsewhere, and says itself what is wrong', async (t) => {
  const { dir, file } = folder(t, `${CONFIG}workers: none\n`)
  t.is(adminSocketOf(file), join(dir, 'a.sock'))
  await answering(t, join(dir, 'a.sock'), { kind: 'refused', generation: 1, issues: ['its own words'] })
  t.deepEqual(await told(file), { code: 1, printed: ['its own words', 'refused; generation 1 goes on'] })
})

test('a file that cannot be parsed names no socket, and one may be given', async (t) => {
  const { dir, file } = folder(t, `${CONFIG}workers: [\n`)
  t.is(adminSocketOf(file), null)
  t.is(adminSocketOf(join(dir, 'gone.yaml')), null)
  await answering(t, join(dir, 'other.sock'), { kind: 'unchanged', generation: 2 })
  t.is((await told(file, join(dir, 'other.sock'))).code, 0)
})

test('where nobody runs, what is wrong with the file is printed all the same', async (t) => {
  const { file } = folder(t, `${CONFIG}workers: none\n`)
  const { code, printed } = await told(file)
  t.is(code, 1)
  t.regex(printed.join('\n'), /brokergate\.yaml:9:10: workers: expected auto/)
  t.regex(printed.at(-1)!, /no brokergate runs with this configuration/)
})
