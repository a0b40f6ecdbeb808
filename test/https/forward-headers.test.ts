import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import test from 'ava'
import { mayTravel } from '../../src/https/forward-headers.ts'
import { routeTable } from '../../src/https/routes.ts'
import { front } from './front-harness.ts'
import { EXPECTED, FORMS, NAMES } from './identity-headers.ts'

for (const [form, write] of Object.entries(FORMS)) {
  test(`identity headers, ${form}: the backend sees ours alone`, async (t) => {
    const seen: string[][] = []
    const server = createServer((request, response) => {
      seen.push(request.rawHeaders)
      response.end()
    })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    t.teardown(() => server.close())
    const { connect } = await front(t, {
      parts: {
        routes: () =>
          routeTable([
            {
              path: '/x',
              methods: ['GET'],
              backend: 'b',
              action: null,
              resource: null,
              headers: [...NAMES.map((name) => name.toLowerCase()), 'x-mine'],
            },
          ]),
        httpBackend: () => ({
          name: 'b',
          url: new URL(`http://127.0.0.1:${(server.address() as AddressInfo).port}`),
          ca: null,
          cert: null,
          key: null,
          timeoutMs: 5_000,
        }),
      },
    })
    for (const name of NAMES) {
      const device = await connect()
      device.send(`GET /x HTTP/1.1\r\nHost: a.example\r\n${write(name)}\r\n\r\n`)
      const { status } = await device.answer()
      device.socket.destroy()
      if (form === 'folded') {
        t.is(status, 400, name)
        continue
      }
      t.is(status, 200, name)
      const headers = seen.pop()!
      const own = name === 'Remote-User' && form !== 'underscore' && form !== 'named by Connection'
      // A name that the operator lets through by his own route, and that is nothing to us.
      if (own) continue
      t.deepEqual(
        headers
          .filter((_, at) => at % 2 === 0)
          .map((each) => each.toLowerCase())
          .sort(),
        EXPECTED,
        name,
      )
      t.false(headers.includes('forged'), name)
    }
    t.is(seen.length, 0)
  })
}

test('names that are ours, frame a message or prove something cannot be let through', (t) => {
  for (const name of NAMES) if (!['Remote-User', 'Token'].includes(name)) t.false(mayTravel(name.toLowerCase()), name)
  for (const name of [
    'host',
    'content-length',
    'transfer-encoding',
    'connection',
    'te',
    'upgrade',
    'expect',
    'x_mine',
    'X-Mine',
    '',
    'a b',
  ])
    t.false(mayTravel(name), name)
  t.true(mayTravel('x-mine'))
})

test('a header of the route travels, and a single one that comes twice is refused', async (t) => {
  const seen: unknown[] = []
  const server = createServer((request, response) => {
    seen.push(request.headers['x-mine'])
    response.end()
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => server.close())
  const { connect } = await front(t, {
    parts: {
      routes: () =>
        routeTable([{ path: '/x', methods: ['GET'], backend: 'b', action: null, resource: null, headers: ['x-mine'] }]),
      httpBackend: () => ({
        name: 'b',
        url: new URL(`http://127.0.0.1:${(server.address() as AddressInfo).port}`),
        ca: null,
        cert: null,
        key: null,
        timeoutMs: 5_000,
      }),
    },
  })
  const device = await connect()
  device.send('GET /x HTTP/1.1\r\nHost: a.example\r\nX-Mine: 1\r\nX-Mine: 2\r\n\r\n')
  t.is((await device.answer()).status, 200)
  device.send('GET /x HTTP/1.1\r\nHost: a.example\r\nContent-Type: a/b\r\nContent-Type: c/d\r\n\r\n')
  t.is((await device.answer()).status, 400)
  t.deepEqual(seen, ['1, 2'])
})
