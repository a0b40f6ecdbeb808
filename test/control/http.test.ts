import { once } from 'node:events'
import { connect } from 'node:net'
import test, { type ExecutionContext } from 'ava'
import { type Readiness, startMetricsServer } from '../../src/control/http.ts'
import { NO_LOG } from '../../src/control/log.ts'

interface Fakes {
  readonly scrape?: () => Promise<string>
  readonly ready?: () => Readiness
}

async function server(t: ExecutionContext, fakes: Fakes = {}) {
  const running = await startMetricsServer({
    host: '127.0.0.1',
    port: 0,
    scrape: fakes.scrape ?? (async () => 'up 1\n'),
    ready: fakes.ready ?? (() => ({ ready: true, reason: null })),
    log: NO_LOG,
  })
  t.teardown(() => running.close())
  return { running, at: (path: string) => `http://${running.address}${path}` }
}

test('the metrics are served as Prometheus text', async (t) => {
  const { at } = await server(t)
  const response = await fetch(at('/metrics?x=1'))
  t.is(response.status, 200)
  t.is(response.headers.get('content-type'), 'text/plain; version=0.0.4; charset=utf-8')
  t.is(await response.text(), 'up 1\n')
})

test('many scrapes at a time ask the processes once', async (t) => {
  let calls = 0
  const { promise, resolve } = Promise.withResolvers<string>()
  const { at } = await server(t, {
    scrape: () => {
      calls += 1
      if (calls === 1) setTimeout(() => resolve('up 1\n'), 200)
      return promise
    },
  })
  const answers = await Promise.all([1, 2, 3].map(async () => (await fetch(at('/metrics'))).text()))
  t.deepEqual(answers, ['up 1\n', 'up 1\n', 'up 1\n'])
  t.is(calls, 1)
})

test('a scrape that fails is a 500 without its message, and the next one is tried again', async (t) => {
  let calls = 0
  const { at } = await server(t, {
    scrape: async () => {
      if (++calls === 1) throw new Error('inside')
      return 'up 1\n'
    },
  })
  const failed = await fetch(at('/metrics'))
  t.is(failed.status, 500)
  t.notRegex(await failed.text(), /inside/)
  t.is((await fetch(at('/metrics'))).status, 200)
})

test('readiness is 200 or 503, with the reason', async (t) => {
  let readiness: Readiness = { ready: true, reason: null }
  const { at } = await server(t, { ready: () => readiness })
  const ready = await fetch(at('/readyz'))
  t.deepEqual([ready.status, await ready.json()], [200, { ready: true, reason: null }])
  readiness = { ready: false, reason: 'draining' }
  const draining = await fetch(at('/readyz'))
  t.deepEqual([draining.status, await draining.json()], [503, { ready: false, reason: 'draining' }])
  t.is((await fetch(at('/healthz'))).status, 200)
})

test('other paths are 404, also the names of an object’s own, and other methods 405', async (t) => {
  const { at } = await server(t)
  for (const path of ['/', '/metrics/', '/status', '/constructor', '/__proto__'])
    t.is((await fetch(at(path))).status, 404, path)
  const response = await fetch(at('/metrics'), { method: 'POST', body: 'x'.repeat(100_000) })
  t.is(response.status, 405)
  t.is(response.headers.get('allow'), 'GET, HEAD')
  t.is((await fetch(at('/healthz'), { method: 'DELETE' })).status, 405)
})

test('HEAD is GET without its body', async (t) => {
  const { at } = await server(t)
  const response = await fetch(at('/metrics'), { method: 'HEAD' })
  t.is(response.status, 200)
  t.is(response.headers.get('content-length'), '5')
  t.is(await response.text(), '')
})

test('headers that do not end are refused', async (t) => {
  const { running } = await server(t)
  const socket = connect(Number(running.address.split(':')[1]), '127.0.0.1')
  socket.on('error', () => {})
  socket.on('data', () => {})
  socket.write(`GET /metrics HTTP/1.1\r\nhost: x\r\nx: ${'y'.repeat(200_000)}`)
  // Not `once`, which an error of the socket (a reset is right, too) would reject.
  await new Promise((resolve) => socket.on('close', resolve))
  t.pass()
})

test('closing does not wait for a client that stays', async (t) => {
  const { running } = await server(t)
  const socket = connect(Number(running.address.split(':')[1]), '127.0.0.1')
  socket.on('error', () => {})
  socket.write('GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n')
  await once(socket, 'data')
  const closed = once(socket, 'close')
  await running.close()
  await closed
  t.pass()
})

test('a port that is taken is an error', async (t) => {
  const { running } = await server(t)
  const again = startMetricsServer({
    host: '127.0.0.1',
    port: Number(running.address.split(':')[1]),
    scrape: async () => '',
    ready: () => ({ ready: true, reason: null }),
    log: NO_LOG,
  })
  await t.throwsAsync(again, { code: 'EADDRINUSE' })
})
