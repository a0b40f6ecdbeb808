import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, lstatSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import test, { type ExecutionContext } from 'ava'
import { startAdminServer } from '../../src/control/admin.ts'
import { NO_LOG } from '../../src/control/log.ts'
import type { Reloaded } from '../../src/control/reload.ts'
import { ServerDrains } from '../../src/control/server-drains.ts'
import type { Decided, Decision } from '../../src/registry/owner.ts'

function folder(t: ExecutionContext): string {
  const path = mkdtempSync(join(tmpdir(), 'brokergate-'))
  t.teardown(() => rmSync(path, { recursive: true, force: true }))
  return path
}

const CERTIFICATES = {
  list: () => [
    { registry: 'main', fingerprint: 'ab', status: 'ACTIVE', things: [], policies: [], learned: false } as const,
  ],
  decide: ({ certificate, status }: Decision): Decided =>
    certificate === 'ab'
      ? { kind: 'done', registry: 'main', fingerprint: certificate, status }
      : { kind: 'refused', reason: 'no such certificate' },
}

const ROW = {
  id: 'c1',
  clientId: 'lamp',
  principal: 'ab',
  domain: 'iot.example.com',
  connectedAt: '2026-01-01T00:00:00.000Z',
}
const CONNECTIONS = {
  list: async () => ({ connections: [ROW], total: 1 }),
  kick: async (clientId: string) => (clientId === 'lamp' ? 1 : 0),
}

function start(path: string, drain = () => {}, reloaded: Reloaded = { kind: 'unchanged', generation: 1 }) {
  const servers = new ServerDrains(
    () => new Map([['main', ['127.0.0.1:1883', '127.0.0.1:1884']]]),
    () => {},
  )
  const restart = () => ({ refused: 'a restart is under way' })
  const reload = async () => reloaded
  const parts = { certificates: CERTIFICATES, connections: CONNECTIONS, servers, restart, log: NO_LOG, reload }
  return startAdminServer({ path, status: () => ({ sessions: 3 }), drain, ...parts })
}

async function ask(
  socketPath: string,
  method: string,
  path: string,
  body?: string,
): Promise<{ status: number; body: unknown }> {
  const sent = request({ socketPath, method, path, agent: false })
  sent.end(body)
  const [response] = await once(sent, 'response')
  return { status: response.statusCode, body: JSON.parse(await text(response)) }
}

for (const [reloaded, status] of [
  [{ kind: 'done', generation: 2, changed: ['domains[0]'] }, 200],
  [{ kind: 'unchanged', generation: 2 }, 200],
  [{ kind: 'refused', generation: 1, issues: ['brokergate.yaml:1:1: broken'] }, 409],
  [{ kind: 'ignored', generation: 1, why: 'the program is ending' }, 409],
] as const satisfies [Reloaded, number][]) {
  test(`a reload that is ${reloaded.kind} is answered with ${status} and what it came to`, async (t) => {
    const path = join(folder(t), 'admin.sock')
    const server = await start(path, () => {}, reloaded)
    t.teardown(() => server.close())
    t.is((await ask(path, 'GET', '/reload')).status, 405)
    t.deepEqual(await ask(path, 'POST', '/reload'), { status, body: reloaded })
  })
}

test('the status is told and a drain begun over the socket', async (t) => {
  const path = join(folder(t), 'admin.sock')
  let drains = 0
  const running = await start(path, () => {
    drains += 1
  })
  t.teardown(() => running.close())
  t.deepEqual(await ask(path, 'GET', '/status'), { status: 200, body: { sessions: 3 } })
  t.is((await ask(path, 'GET', '/drain')).status, 405)
  t.is(drains, 0)
  t.deepEqual(await ask(path, 'POST', '/drain'), { status: 202, body: { draining: true } })
  t.is(drains, 1)
  t.is((await ask(path, 'GET', '/metrics')).status, 404)
})

test('live sessions are listed and ended over the socket', async (t) => {
  const path = join(folder(t), 'admin.sock')
  const running = await start(path)
  t.teardown(() => running.close())
  t.deepEqual(await ask(path, 'GET', '/connections'), { status: 200, body: { connections: [ROW], total: 1 } })
  t.deepEqual(await ask(path, 'POST', '/kick', '{"clientId":"lamp"}'), { status: 200, body: { kicked: 1 } })
  t.deepEqual(await ask(path, 'POST', '/kick', '{"clientId":"door"}'), { status: 200, body: { kicked: 0 } })
  for (const body of ['', '{}', '{"clientId":7}', '{"clientId":"a","all":true}', '[]']) {
    t.is((await ask(path, 'POST', '/kick', body)).status, 400, body)
  }
  t.is((await ask(path, 'GET', '/kick')).status, 405)
})

test('only its owner may open the socket, and the folder that was made for it', async (t) => {
  const base = folder(t)
  const before = process.umask()
  const running = await start(join(base, 'var', 'run', 'admin.sock'))
  t.teardown(() => running.close())
  t.is(lstatSync(running.address).mode & 0o777, 0o600)
  t.is(lstatSync(join(base, 'var', 'run')).mode & 0o777, 0o700)
  t.is(process.umask(), before)
})

test('a folder that exists keeps its mode', async (t) => {
  const shared = join(folder(t), 'shared')
  mkdirSync(shared, { mode: 0o755 })
  const running = await start(join(shared, 'admin.sock'))
  t.teardown(() => running.close())
  t.is(lstatSync(shared).mode & 0o777, 0o755)
})

test('closing removes the socket', async (t) => {
  const path = join(folder(t), 'admin.sock')
  const running = await start(path)
  await running.close()
  t.false(existsSync(path))
})

test('a socket left over from a crash is replaced', async (t) => {
  const path = join(folder(t), 'admin.sock')
  const script = `require('node:net').createServer().listen(${JSON.stringify(path)}, () => console.log('bound'))`
  const crashing = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'inherit'] })
  await once(crashing.stdout, 'data')
  crashing.kill('SIGKILL')
  await once(crashing, 'exit')
  t.true(existsSync(path))
  const running = await start(path)
  t.teardown(() => running.close())
  t.is((await ask(path, 'GET', '/status')).status, 200)
})

test('a socket on which somebody listens is not taken over', async (t) => {
  const path = join(folder(t), 'admin.sock')
  const running = await start(path)
  t.teardown(() => running.close())
  await t.throwsAsync(start(path), { message: /another process listens/ })
  t.is((await ask(path, 'GET', '/status')).status, 200)
})

test('a file that is no socket is not removed', async (t) => {
  const path = join(folder(t), 'admin.sock')
  writeFileSync(path, 'precious')
  await t.throwsAsync(start(path), { message: /not a socket/ })
  t.true(existsSync(path))
})

test('a path that is too long for a unix socket is told, not cut', async (t) => {
  await t.throwsAsync(start(join(folder(t), 'x'.repeat(120))), { message: /longer than/ })
})

test('certificates are listed, and their status is changed by a POST with JSON', async (t) => {
  const path = join(folder(t), 'admin.sock')
  const running = await start(path)
  t.teardown(() => running.close())
  const post = (body: unknown) => ask(path, 'POST', '/certificates', JSON.stringify(body))
  t.like(await ask(path, 'GET', '/certificates'), { status: 200, body: [{ fingerprint: 'ab' }] })
  t.deepEqual(await post({ registry: null, certificate: 'ab', status: 'REVOKED' }), {
    status: 200,
    body: { registry: 'main', fingerprint: 'ab', status: 'REVOKED' },
  })
  t.deepEqual(await post({ registry: null, certificate: 'cd', status: 'REVOKED' }), {
    status: 409,
    body: { error: 'no such certificate' },
  })
})

for (const [what, body] of [
  ['no body', undefined],
  ['no JSON', '{'],
  ['an unknown status', '{"registry":null,"certificate":"ab","status":"GONE"}'],
  ['an unknown key', '{"registry":null,"certificate":"ab","status":"REVOKED","force":true}'],
  [
    'more than 64 KiB',
    JSON.stringify({ registry: null, certificate: 'ab', status: 'REVOKED', der: 'A'.repeat(70_000) }),
  ],
] as const) {
  test(`a decision with ${what} is answered with 400`, async (t) => {
    const path = join(folder(t), 'admin.sock')
    const running = await start(path)
    t.teardown(() => running.close())
    t.is((await ask(path, 'POST', '/certificates', body)).status, 400)
  })
}
