import test from 'ava'
import type { AuthOutcome } from '../../src/auth/authenticator.ts'
import type { CloseReason } from '../../src/connection.ts'
import { type FailureCode, ProxyError } from '../../src/errors.ts'
import { CLOSED_PERMIT, type Permit } from '../../src/policy/permit.ts'
import { authenticatedAs } from '../support/identity.ts'
import { explicit, front, ManualTimer, post, type Setup, serving, X509_8443 } from './front-harness.ts'

const WEBSOCKET =
  'Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n'
const get = (target: string, headers = '', method = 'GET') =>
  `${method} ${target} HTTP/1.1\r\nHost: a.example\r\n${headers}\r\n`

test('a publish is answered in the form of the data plane, and the connection stays', async (t) => {
  const { connect, published, answered, traces, identified } = await front(t)
  const device = await connect()
  device.send(post('a%2Fb'))
  const answer = await device.answer()
  t.is(answer.status, 200)
  t.deepEqual(JSON.parse(answer.body), { message: 'OK', traceId: answer.headers.get('x-amzn-requestid') })
  t.is(answer.headers.get('access-control-allow-origin'), '*')
  t.is(answer.headers.get('connection'), 'keep-alive')
  device.send(post('c'))
  t.is((await device.answer()).status, 200)
  t.deepEqual(published, ['a/b', 'c'])
  t.is(traces[0]!.requests, 2)
  t.is(traces[0]!.mode, 'I')
  t.deepEqual(
    identified.map(({ kind }) => kind),
    ['custom', 'custom'],
    'whoever is asked may say no the second time',
  )
  t.deepEqual(
    answered.map(({ route, status }) => `${route} ${status}`),
    ['publish 200', 'publish 200'],
  )
})

test('requests that were pipelined are served one after the other', async (t) => {
  const { connect, published } = await front(t)
  const device = await connect()
  device.send(post('1') + post('2') + post('3'))
  for (let each = 0; each < 3; each++) t.is((await device.answer()).status, 200)
  t.deepEqual(published, ['1', '2', '3'])
})

test('a client that pipelines without end is cut off', async (t) => {
  const { connect, published, endings } = await front(t)
  const device = await connect()
  device.send(post('x').repeat(60))
  await device.closed
  t.true(published.length < 60)
  t.like(await endings[0], { code: 'ERR_HTTP_MALFORMED' })
})

const refused = test.macro({
  async exec(t, request: string, status: number, type: string, setup: Setup = {}): Promise<void> {
    const { connect, published, answered } = await front(t, setup)
    const device = await connect()
    device.send(request)
    const answer = await device.answer()
    t.is(answer.status, status, answer.body)
    t.is(answer.headers.get('x-amzn-errortype'), `${type}:`)
    const { traceId } = JSON.parse(answer.body) as { traceId: string }
    t.is(answer.headers.get('x-amzn-requestid'), traceId)
    t.deepEqual(published, [])
    t.is(answered.length, 1)
    t.is(answered[0]!.status, status)
    t.not(answered[0]!.failure, null)
  },
  title: (title) => title ?? 'refused',
})

const noDefault = { parts: { hasDefaultAuthorizer: () => false } }
const denying = (code: 'ERR_CREDENTIALS_REFUSED' | 'ERR_AUTHORIZER_UNAVAILABLE' | 'ERR_SIGNATURE_MISMATCH'): Setup => ({
  parts: {
    identify: async () => {
      throw new ProxyError(code, 'secret detail')
    },
  },
})

test(
  'no proof of identity is 403 [wire specification §1.2, 6]',
  refused,
  post('t'),
  403,
  'ForbiddenException',
  noDefault,
)
test('an authorizer’s no is 401', refused, post('t'), 401, 'UnauthorizedException', denying('ERR_CREDENTIALS_REFUSED'))
test(
  'an authorizer that cannot be asked is 503',
  refused,
  post('t'),
  503,
  'ServiceUnavailableException',
  denying('ERR_AUTHORIZER_UNAVAILABLE'),
)
test(
  'an identity that throws anything is 500, and nobody is admitted',
  refused,
  post('t'),
  500,
  'InternalFailureException',
  {
    parts: {
      identify: async () => {
        throw new TypeError('bug')
      },
    },
  },
)
test('a policy that does not allow is 401', refused, post('t'), 401, 'UnauthorizedException', {
  parts: { permitFor: () => CLOSED_PERMIT },
})
test('a policy that throws is 500', refused, post('t'), 500, 'InternalFailureException', {
  parts: {
    permitFor: () => {
      throw new TypeError('bug')
    },
  },
})
test('retain asks for RetainPublish too', refused, post('t?retain=true'), 401, 'UnauthorizedException', {
  parts: { permitFor: (): Permit => ({ allows: (action) => action === 'iot:Publish', allowsAll: () => false }) },
})
test('an empty topic is 400', refused, post(''), 400, 'InvalidRequestException')
test('a broker that is away is 503', refused, post('t'), 503, 'ServiceUnavailableException', {
  parts: {
    publisher: () => ({
      publish: async () => {
        throw new ProxyError('ERR_BACKEND_REFUSED', 'down')
      },
      close: async () => {},
    }),
  },
})
test('GET of a topic is 405', refused, get('/topics/t'), 405, 'MethodNotAllowedException')
test('DELETE of a topic is 405', refused, get('/topics/t', '', 'DELETE'), 405, 'MethodNotAllowedException')
test('another path is 404', refused, get('/things/t/shadow'), 404, 'ResourceNotFoundException')
test('/mqtt without an upgrade is 426', refused, get('/mqtt'), 426, 'UpgradeRequiredException')
test(
  '/mqtt with an upgrade to something else is 426',
  refused,
  get('/mqtt', 'Connection: upgrade\r\nUpgrade: h2c\r\n'),
  426,
  'UpgradeRequiredException',
)
test('/mqtt where no row is a WebSocket is 404', refused, get('/mqtt', WEBSOCKET), 404, 'ResourceNotFoundException', {
  rows: X509_8443,
})
test('/mqtt by GET where no row is a WebSocket is 404', refused, get('/mqtt'), 404, 'ResourceNotFoundException', {
  rows: X509_8443,
})
test(
  'a publish where the domain speaks MQTT over WebSockets alone is 404',
  refused,
  post('t'),
  404,
  'ResourceNotFoundException',
  { rows: explicit('CUSTOM_AUTH', 'MQTT_WSS') },
)
test('an upgrade of a path without a route is 404', refused, get('/other', WEBSOCKET), 404, 'ResourceNotFoundException')
test(
  'an upgrade without material where only Signature Version 4 counts is 403',
  refused,
  get('/mqtt', WEBSOCKET),
  403,
  'ForbiddenException',
  { rows: explicit('AWS_SIGV4', 'MQTT_WSS') },
)
test('a WebSocket that is refused is told so', refused, get('/mqtt', WEBSOCKET), 400, 'InvalidRequestException')
test(
  'a wrong signature at an upgrade is 403, before any 101',
  refused,
  get('/mqtt?X-Amz-Signature=0', WEBSOCKET),
  403,
  'ForbiddenException',
  denying('ERR_SIGNATURE_MISMATCH'),
)
test(
  'a foreign Host is 421',
  refused,
  'POST /topics/t HTTP/1.1\r\nHost: b.example\r\nContent-Length: 0\r\n\r\n',
  421,
  'MisdirectedRequestException',
)
test(
  'a foreign Host of an upgrade is 421',
  refused,
  `GET /mqtt HTTP/1.1\r\nHost: b.example\r\n${WEBSOCKET}\r\n`,
  421,
  'MisdirectedRequestException',
)
test(
  'headers over the size are 431',
  refused,
  post('t', `X: ${'x'.repeat(20_000)}\r\n`),
  431,
  'RequestHeadersTooLargeException',
)
test(
  'more headers than the limit are 431',
  refused,
  post('t', 'X: x\r\n'.repeat(120)),
  431,
  'RequestHeadersTooLargeException',
)
test(
  'a body over 128 KiB is 413 before it is read',
  refused,
  'POST /topics/t HTTP/1.1\r\nHost: a.example\r\nContent-Length: 131073\r\n\r\n',
  413,
  'RequestEntityTooLargeException',
)
test(
  'chunks of more than 128 KiB are 413',
  refused,
  `POST /topics/t HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n20001\r\n${'x'.repeat(0x20001)}`,
  413,
  'RequestEntityTooLargeException',
)
test(
  'a wrong byte after the head is 400',
  refused,
  'POST /topics/t HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n',
  400,
  'InvalidRequestException',
)

test('the detail of a refusal stays with us', async (t) => {
  const { connect } = await front(t, denying('ERR_CREDENTIALS_REFUSED'))
  const device = await connect()
  device.send(post('t'))
  t.notRegex((await device.answer()).body, /secret/)
})

test('a method that a path does not have is answered with those it has', async (t) => {
  const { connect } = await front(t)
  const device = await connect()
  device.send(get('/topics/t'))
  t.is((await device.answer()).headers.get('allow'), 'POST, OPTIONS')
})

test('a browser that asks before it posts is told yes', async (t) => {
  const { connect, identified } = await front(t)
  const device = await connect()
  device.send(get('/topics/t', 'Origin: https://x.example\r\nAccess-Control-Request-Method: POST\r\n', 'OPTIONS'))
  const answer = await device.answer()
  t.is(answer.status, 204)
  t.is(answer.headers.get('access-control-allow-origin'), '*')
  t.is(answer.headers.get('access-control-allow-headers'), 'authorization, *')
  t.deepEqual(identified, [])
  device.send(post('t'))
  t.is((await device.answer()).status, 200, 'on the same connection')
})

test('a denial leaves the connection, and the device may try again', async (t) => {
  let allowed = false
  const { connect, published, endings } = await front(t, {
    parts: { permitFor: (): Permit => ({ allows: () => allowed, allowsAll: () => false }) },
  })
  const device = await connect()
  device.send(post('t'))
  t.is((await device.answer()).status, 401)
  allowed = true
  device.send(post('t'))
  t.is((await device.answer()).status, 200)
  t.deepEqual(published, ['t'])
  device.socket.end()
  t.is(await endings[0], 'downstream')
})

test('what was pipelined behind a request that is refused is never answered', async (t) => {
  const { connect, published } = await front(t)
  const device = await connect()
  device.send(get('/nowhere') + post('t'))
  const answer = await device.answer()
  t.is(answer.status, 404)
  t.is(answer.headers.get('connection'), 'close')
  await device.closed
  t.is(device.text, '')
  t.deepEqual(published, [])
})

test('what comes behind a request that says close is not served', async (t) => {
  const { connect, published, endings } = await front(t)
  const device = await connect()
  device.send(post('1', 'Connection: close\r\n') + post('2'))
  t.is((await device.answer()).status, 200)
  await device.closed
  device.socket.end()
  t.is(device.text, '')
  t.deepEqual(published, ['1'])
  t.is(await endings[0], 'downstream')
})

test('an answer that comes before the body is read ends the connection', async (t) => {
  const { connect } = await front(t, noDefault)
  const device = await connect()
  device.send('POST /topics/t HTTP/1.1\r\nHost: a.example\r\nContent-Length: 9\r\n\r\n1')
  const answer = await device.answer()
  t.is(answer.status, 403)
  t.is(answer.headers.get('connection'), 'close')
  device.send(`23456789${post('t')}`)
  await device.closed
  t.is(device.text, '')
})

test('who expects 100 gets it once the request may send its body', async (t) => {
  const { connect, published } = await front(t)
  const device = await connect()
  device.send('POST /topics/t HTTP/1.1\r\nHost: a.example\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n')
  t.is((await device.answer()).status, 100)
  device.send('hi')
  t.is((await device.answer()).status, 200)
  t.deepEqual(published, ['t'])
})

test('who expects 100 and is refused never gets it', async (t) => {
  const { connect } = await front(t, noDefault)
  const device = await connect()
  device.send('POST /topics/t HTTP/1.1\r\nHost: a.example\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n')
  t.is((await device.answer()).status, 403)
})

test('HTTP/1.0 without Host is decided by SNI, and never by a signature', async (t) => {
  const { connect, identified, published } = await front(t)
  const device = await connect()
  device.send('POST /topics/t HTTP/1.0\r\nAuthorization: AWS4-HMAC-SHA256 x\r\nContent-Length: 2\r\n\r\nhi')
  const answer = await device.answer()
  t.is(answer.status, 200)
  t.is(identified[0]?.kind, 'custom')
  t.deepEqual(published, ['t'])
  await device.closed
})

test('a signature covers the whole body, so the body is read first', async (t) => {
  const { connect, identified } = await front(t)
  const device = await connect()
  device.send(post('t', 'Authorization: AWS4-HMAC-SHA256 x\r\n', 'payload'))
  t.is((await device.answer()).status, 200)
  const [credentials] = identified
  t.is(credentials?.kind === 'sigv4' ? Buffer.from(credentials.http.body!).toString() : '', 'payload')
})

test('a certificate is judged once per connection and judged again for every request', async (t) => {
  let judged = 0
  let active = true
  const { connect, identified, published } = await front(t, {
    rows: X509_8443,
    parts: {
      identify: async (_connection, credentials) => {
        identifiedBy.push(credentials.kind)
        const rejudge = (): AuthOutcome => {
          judged++
          return active ? who : { kind: 'denied', code: 'ERR_CERTIFICATE_REVOKED', detail: 'revoked' }
        }
        const who = authenticatedAs({ id: 'x', method: 'x509', attributes: {} }, { rejudge })
        return who
      },
    },
  })
  const identifiedBy: string[] = []
  const device = await connect()
  for (const topic of ['1', '2', '3']) {
    device.send(post(topic))
    t.is((await device.answer()).status, 200)
  }
  t.deepEqual(identifiedBy, ['x509'])
  t.is(judged, 2)
  active = false
  device.send(post('4'))
  t.is((await device.answer()).status, 403)
  t.deepEqual(published, ['1', '2', '3'])
  t.deepEqual(identified, [])
})

test('an identity that has had its time is asked for anew', async (t) => {
  let asked = 0
  const { connect } = await front(t, {
    rows: X509_8443,
    parts: {
      identify: async () => {
        asked++
        return authenticatedAs({ id: 'x', method: 'x509', attributes: {} }, { disconnectAfterMs: 0 })
      },
    },
  })
  const device = await connect()
  device.send(post('1') + post('2'))
  await device.answer()
  await device.answer()
  t.is(asked, 2)
})

test('bytes of MQTT on a port of HTTP are closed without an answer', async (t) => {
  const { connect, endings, answered } = await front(t)
  const device = await connect()
  device.send(Buffer.from('100f00044d515454040200000003616263', 'hex'))
  await device.closed
  t.is(device.text, '')
  t.like(await endings[0], { code: 'ERR_HTTP_MALFORMED' })
  t.deepEqual(answered, [])
})

for (const [name, bytes] of [
  ['TLS', '160301'],
  ['SSH', Buffer.from('\x00SSH').toString('hex')],
  ['small letters', Buffer.from('ehlo x\r\n').toString('hex')],
] as const) {
  test(`bytes of ${name} where HTTP is spoken are closed without an answer`, async (t) => {
    const { connect } = await front(t)
    const device = await connect()
    device.send(Buffer.from(bytes, 'hex'))
    await device.closed
    t.is(device.text, '')
  })
}

test('a head that does not come in time is 408, however often it drips', async (t) => {
  const clock = new ManualTimer()
  const { connect, endings } = await front(t, { timer: clock.timer })
  const device = await connect()
  device.send('POST /topics/t HT')
  await until(() => clock.pending.some(({ ms }) => ms > 9_000 && ms <= 10_000))
  device.send('TP/1.1\r\n')
  await settled()
  clock.fire(10_000)
  t.is((await device.answer()).status, 408)
  await device.closed
  clock.fire(2_000)
  t.like(await endings[0], { code: 'ERR_HTTP_TIMEOUT' })
})

test('who says nothing in time gets nothing', async (t) => {
  const clock = new ManualTimer()
  const { connect, endings } = await front(t, { timer: clock.timer })
  const device = await connect()
  await until(() => clock.fire(10_000) > 0)
  await device.closed
  t.is(device.text, '')
  t.like(await endings[0], { code: 'ERR_HTTP_TIMEOUT' })
})

test('a body that does not come in time is 408', async (t) => {
  const clock = new ManualTimer()
  const { connect } = await front(t, { timer: clock.timer })
  const device = await connect()
  device.send('POST /topics/t HTTP/1.1\r\nHost: a.example\r\nContent-Length: 9\r\n\r\n1')
  await until(() => clock.pending.some(({ ms }) => ms === 30_000))
  device.send('2')
  await settled()
  t.is(clock.fire(30_000), 1)
  t.is((await device.answer()).status, 408)
  t.is(clock.fire(2_000), 1, 'it lingers')
  await device.closed
})

test('who goes on and on after the answer that refused him is cut off before the time is over', async (t) => {
  const clock = new ManualTimer()
  const { connect, endings } = await front(t, { timer: clock.timer })
  const device = await connect()
  // One who reads nothing learns of no end, and closes nothing.
  device.socket.pause()
  device.send('POST /topics/t HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n40000000\r\n')
  for (let sent = 0; sent < 12; sent++) device.send(Buffer.alloc(131_072))
  t.like(await endings[0], { code: 'ERR_HTTP_BODY_TOO_LARGE' })
  t.false(clock.pending.some(({ ms }) => ms === 2_000))
})

test('between two requests there is a longer deadline, and from the first byte the one of heads', async (t) => {
  const clock = new ManualTimer()
  const { connect } = await front(t, { timer: clock.timer })
  const device = await connect()
  device.send(post('t'))
  await device.answer()
  await until(() => clock.pending.some(({ ms }) => ms === 60_000))
  t.false(clock.pending.some(({ ms }) => ms > 9_000 && ms <= 10_000))
  device.send('POST')
  await until(() => clock.pending.some(({ ms }) => ms === 10_000))
  t.false(clock.pending.some(({ ms }) => ms === 60_000))
  clock.fire(10_000)
  t.is((await device.answer()).status, 408)
})

test('a device that reads nothing does not keep its place', async (t) => {
  const clock = new ManualTimer()
  const { connect, endings, answered } = await front(t, { timer: clock.timer })
  const device = await connect()
  device.socket.setNoDelay(true)
  device.socket.pause()
  // Until our answers fill what the kernel keeps for it, and the same one waits however often everybody had a turn.
  let sent = 0
  let waiting: unknown = null
  for (let turns = 0; turns < 300; turns++) {
    if (sent - answered.length < 4) {
      device.send(post('t').repeat(8))
      sent += 8
    }
    const now = clock.pending.find(({ ms }) => ms === 30_000) ?? null
    if (now === null || now !== waiting) turns = 0
    waiting = now
    await new Promise((resolve) => setImmediate(resolve))
  }
  t.is(clock.fire(30_000), 1)
  t.like(await endings[0], { code: 'ERR_HTTP_TIMEOUT' })
})

test('an idle connection is closed in good order after a while', async (t) => {
  const clock = new ManualTimer()
  const { connect, endings } = await front(t, { timer: clock.timer })
  const device = await connect()
  device.send(post('t'))
  await device.answer()
  await until(() => clock.fire(60_000) > 0)
  await device.closed
  device.socket.end()
  t.is(await endings[0], 'downstream')
})

test('a connection lives a day at most', async (t) => {
  const clock = new ManualTimer()
  const { connect, endings } = await front(t, { timer: clock.timer })
  const device = await connect()
  device.send(post('t'))
  await device.answer()
  await settled()
  t.is(clock.fire(86_400_000), 1)
  await device.closed
  device.socket.end()
  t.like(await endings[0], { code: 'ERR_MAX_CONNECT_TIME' })
})

test('a process that is closing finishes the request in flight and says that it was the last', async (t) => {
  const { promise: going, resolve: go } = Promise.withResolvers<void>()
  const { promise: begun, resolve: begin } = Promise.withResolvers<void>()
  const { connect, closing, endings } = await front(t, {
    parts: {
      publisher: () => ({
        publish: async () => {
          begin()
          await going
        },
        close: async () => {},
      }),
    },
  })
  const device = await connect()
  device.send(post('t'))
  await begun
  closing.abort()
  go()
  const answer = await device.answer()
  t.is(answer.status, 200)
  t.is(answer.headers.get('connection'), 'close')
  await device.closed
  device.socket.end()
  await endings[0]
})

test('a process that is closing ends connections that wait', async (t) => {
  const { connect, closing, endings } = await front(t)
  const device = await connect()
  device.send(post('t'))
  await device.answer()
  closing.abort()
  await device.closed
  device.socket.end()
  t.like(await endings[0], { code: 'ERR_DRAINING' })
})

test('a process that drains ends connections that wait between requests, and lets who has not asked yet ask once', async (t) => {
  const draining = new AbortController()
  const { connect, endings } = await front(t, { parts: { draining: draining.signal } })
  const [served, fresh, half] = [await connect(), await connect(), await connect()]
  served.send(post('t'))
  await served.answer()
  const request = post('t')
  half.send(request.slice(0, 20))
  await settled()
  draining.abort()
  await served.closed
  served.socket.end()
  t.like(await endings[0], { code: 'ERR_DRAINING' })
  fresh.send(request)
  half.send(request.slice(20))
  const late = await connect()
  late.send(request)
  for (const device of [fresh, half, late]) {
    const answer = await device.answer()
    t.deepEqual([answer.status, answer.headers.get('connection')], [200, 'close'])
    await device.closed
    device.socket.end()
  }
  await Promise.all(endings)
})

test('an upgrade is identified first, and what came behind it is given to whoever answers 101', async (t) => {
  const order: string[] = []
  const { connect, endings, traces } = await front(t, {
    parts: {
      identify: async (connection, credentials) => {
        order.push(`identify ${credentials.kind} ${connection.admissions.map(({ mode }) => mode)}`)
        return authenticatedAs({ id: 'AKIDEXAMPLE', method: 'sigv4', attributes: {} })
      },
      websocket: (_request, socket, head) => {
        order.push(`upgrade ${head.toString()}`)
        socket.write('HTTP/1.1 101 Switching Protocols\r\n\r\n')
        return { kind: 'accepted', stream: socket }
      },
      serveMqtt: async (connection, { stream, http, who }, trace) => {
        order.push(
          `serve ${connection.admissions.map(({ mode }) => mode)} ${http?.target} ${who?.principal.id} ${trace.protocol}`,
        )
        stream.end()
        return serving('upstream')
      },
    },
  })
  const device = await connect()
  device.send(`${get('/mqtt?X-Amz-Signature=0', WEBSOCKET)}early`)
  t.is((await device.answer()).status, 101)
  t.is(await endings[0], 'upstream')
  t.deepEqual(order, ['identify sigv4 A', 'upgrade early', 'serve A /mqtt?X-Amz-Signature=0 AKIDEXAMPLE wss'])
  t.is(traces[0]!.requests, 1)
})

test('an upgrade that proves nothing goes through, and CONNECT has to', async (t) => {
  const { promise, resolve } = Promise.withResolvers<unknown>()
  const { connect, identified } = await front(t, {
    parts: {
      websocket: (_request, socket) => ({ kind: 'accepted', stream: socket }),
      serveMqtt: async (connection, { stream, who }) => {
        resolve({ who, modes: connection.admissions.map(({ mode }) => mode) })
        stream.destroy()
        return serving('downstream')
      },
    },
  })
  const device = await connect()
  device.send(get('/mqtt', WEBSOCKET))
  t.deepEqual(await promise, { who: null, modes: ['B'] })
  t.deepEqual(identified, [])
})

for (const [what, ending, how] of [
  ['a device that left', async () => 'downstream', 'ERR_WEBSOCKET'],
  ['a device that left in the middle of CONNECT', async () => refuse('ERR_CONNECT_MALFORMED'), 'ERR_WEBSOCKET'],
  ['a session that an operator had ended', async () => 'ERR_ADMINISTRATIVE', null],
] as readonly (readonly [string, () => Promise<CloseReason>, FailureCode | null])[]) {
  test(`${what}, and a fault of its WebSocket: the connection ended with ${how ?? 'what had ended it'}`, async (t) => {
    const { connect, endings } = await front(t, {
      parts: {
        websocket: (_request, socket) => ({
          kind: 'accepted',
          stream: Object.assign(socket, { fault: { code: 'ERR_WEBSOCKET', detail: 'a text frame' } as const }),
        }),
        serveMqtt: async (_connection, { stream }) => {
          stream.destroy()
          return serving(await ending())
        },
      },
    })
    const device = await connect()
    device.send(get('/mqtt', WEBSOCKET))
    if (how === null) t.is(await endings[0], await ending())
    else t.like(await endings[0], { code: how, message: 'a text frame' })
  })
}

function refuse(code: FailureCode): never {
  throw new ProxyError(code, 'refused')
}

test('a process that is closing says to WebSockets that it goes away', async (t) => {
  const { promise: ending, resolve: end } = Promise.withResolvers<'downstream'>()
  const { promise: served, resolve: serve } = Promise.withResolvers<{ closeCode?: number }>()
  const { connect, closing } = await front(t, {
    parts: {
      websocket: (_request, socket) => ({ kind: 'accepted', stream: socket }),
      serveMqtt: async (_connection, { stream }) => {
        serve(stream as { closeCode?: number })
        return { over: ending }
      },
    },
  })
  const device = await connect()
  device.send(get('/mqtt', WEBSOCKET))
  const stream = await served
  t.is(stream.closeCode, undefined)
  closing.abort()
  t.is(stream.closeCode, 1001)
  end('downstream')
})

test('an upgrade waits until the requests before it are answered', async (t) => {
  const { connect, published } = await front(t, {
    parts: {
      websocket: (_request, socket) => {
        socket.write('HTTP/1.1 101 Switching Protocols\r\n\r\n')
        return { kind: 'accepted', stream: socket }
      },
      serveMqtt: async (_connection, { stream }) => {
        stream.end()
        return serving('downstream')
      },
    },
  })
  const device = await connect()
  device.send(post('t') + get('/mqtt', WEBSOCKET))
  t.is((await device.answer()).status, 200)
  t.is((await device.answer()).status, 101)
  t.deepEqual(published, ['t'])
})

test('a device that leaves in the middle of its body leaves nothing behind', async (t) => {
  const { connect, published, endings } = await front(t)
  const device = await connect()
  device.send('POST /topics/t HTTP/1.1\r\nHost: a.example\r\nContent-Length: 9\r\n\r\n1')
  await settled()
  device.socket.destroy()
  t.is(await endings[0], 'downstream')
  t.deepEqual(published, [])
})

test('a device that has said all and ended its side still gets its answer', async (t) => {
  const { connect } = await front(t)
  const device = await connect()
  device.socket.end(post('t'))
  t.is((await device.answer()).status, 200)
})

/** Looks again whenever something may have happened. */
async function until(look: () => boolean): Promise<void> {
  const deadline = AbortSignal.timeout(5_000)
  while (!look()) {
    if (deadline.aborted) throw new Error('not within 5 s')
    await new Promise((resolve) => setImmediate(resolve))
  }
}

/** What was written on the loopback has arrived. */
async function settled(): Promise<void> {
  for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve))
}

test('an upgrade whose session has no place is answered 503, and told when to try again', async (t) => {
  let upgraded = 0
  const { connect } = await front(t, {
    parts: {
      identify: async () => authenticatedAs({ id: 'AKIDEXAMPLE', method: 'sigv4', attributes: {} }),
      room() {
        throw new ProxyError('ERR_DOMAIN_SESSIONS', 'as many as there may be')
      },
      websocket(_request, socket) {
        upgraded++
        return { kind: 'accepted', stream: socket }
      },
    },
  })
  const device = await connect()
  device.send(get('/mqtt?X-Amz-Signature=0', WEBSOCKET))
  const answer = await device.answer()
  t.is(answer.status, 503)
  const seconds = Number(answer.headers.get('retry-after'))
  t.true(seconds >= 30 && seconds <= 90, `${seconds}`)
  t.is(upgraded, 0)
})
