import { once } from 'node:events'
import { createServer } from 'node:net'
import test from 'ava'
import type { AuthOutcome } from '../../src/auth/authenticator.ts'
import { createAuthorizers } from '../../src/auth/authorizers.ts'
import { createCa } from '../../src/cli/pki.ts'
import { NO_METRICS } from '../../src/control/metrics.ts'
import { NO_VARIABLES } from '../../src/policy/permit.ts'
import { ARN } from '../support/identity.ts'
import {
  ALLOW_ALL,
  connect,
  customOver,
  deadlineFor,
  FAULTS,
  get,
  SHAPES,
  startPeer,
  webhookEntry,
  YES,
} from './authorizer-peer.ts'
import { behavesLikeAnAuthenticator, connectionOf } from './conformance.ts'

const SIGNAL = new AbortController().signal

behavesLikeAnAuthenticator(test, 'custom by webhook', async (t) => {
  const peer = await startPeer(t)
  peer.behavior = (call, response) => {
    const { token } = call.json
    response.end(JSON.stringify({ ...YES, isAuthenticated: token === 'abc123' }))
  }
  const faulty = await startPeer(t)
  faulty.behavior = FAULTS['answers 500']!
  return {
    authenticator: customOver(t, [webhookEntry(peer)], {
      authorizers: createAuthorizers({ metrics: NO_METRICS, now: () => 0 }),
    }),
    accepted: SHAPES.mqtt,
    refused: { ...SHAPES.mqtt, mqtt: connect({ username: '?MyToken=other' }) },
    faulty: customOver(t, [webhookEntry(faulty)]),
    faultCode: 'ERR_AUTHORIZER_UNAVAILABLE',
  }
})

for (const [fault, behavior] of Object.entries(FAULTS)) {
  for (const [shape, credentials] of Object.entries(SHAPES)) {
    test(`${shape}: an authorizer that ${fault} admits nobody, denies nobody, and is asked again`, async (t) => {
      const peer = await startPeer(t)
      // With every cache on: a fault is in none of them.
      const entry = webhookEntry(peer, { timeoutMs: deadlineFor(fault), cacheForHttp: true, shareForMs: 60_000 })
      const authenticator = customOver(t, [entry])
      peer.behavior = behavior
      const asking = authenticator.authenticate(credentials, connectionOf(), SIGNAL)
      const error = await t.throwsAsync(asking, { name: 'ProxyError', code: 'ERR_AUTHORIZER_UNAVAILABLE' })
      t.regex(String(error?.message), /^authorizer MyAuth: [^\r\n]+$/)
      t.notRegex(String(error?.message), /abc123|secret/)
      peer.behavior = YES
      t.is((await authenticator.authenticate(credentials, connectionOf(), SIGNAL)).kind, 'authenticated')
    })
  }
}

const unreachable = test.macro({
  async exec(t, _: string, entry: (port: number) => Parameters<typeof webhookEntry>[1]) {
    const peer = await startPeer(t)
    const authenticator = customOver(t, [webhookEntry(peer, entry(peer.port))])
    for (const credentials of Object.values(SHAPES)) {
      const asking = authenticator.authenticate(credentials, connectionOf(), SIGNAL)
      await t.throwsAsync(asking, { code: 'ERR_AUTHORIZER_UNAVAILABLE' })
    }
    t.is(peer.calls.length, 0)
  },
  title: (_, what: string) => `an authorizer ${what} admits nobody`,
})
test(unreachable, 'whose certificate is of another CA', () => ({ ca: [createCa({ commonName: 'other' }).certPem] }))
test(unreachable, 'whose certificate is of no CA of the runtime', () => ({ ca: null }))
test(unreachable, 'whose certificate is for another name', (port) => ({
  url: new URL(`https://127.0.0.1.nip.invalid:${port}/`),
}))
test(unreachable, 'whose name does not resolve', () => ({ url: new URL('https://no.such.invalid/') }))
test(unreachable, 'that refuses connections', () => ({ url: new URL('https://127.0.0.1:1/') }))

test('an authorizer that accepts and says no TLS is given up at the deadline', async (t) => {
  const server = createServer((socket) => socket.on('error', () => {}))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => server.close())
  const { port } = server.address() as { port: number }
  const authenticator = customOver(t, [webhookEntry({ port }, { timeoutMs: 200 })])
  const asking = authenticator.authenticate(SHAPES.mqtt, connectionOf(), SIGNAL)
  // Nothing else would ever end it.
  await t.throwsAsync(asking, { code: 'ERR_AUTHORIZER_UNAVAILABLE', message: /no answer in 200 ms/ })
})

test('a device that leaves ends the question', async (t) => {
  const peer = await startPeer(t)
  let closed: () => void = () => {}
  const gone = new Promise<void>((resolve) => {
    closed = resolve
  })
  const leaving = new AbortController()
  peer.behavior = (_, response) => {
    response.on('close', closed)
    leaving.abort(new Error('gone'))
  }
  const authenticator = customOver(t, [webhookEntry(peer, { timeoutMs: 5_000 })])
  await t.throwsAsync(authenticator.authenticate(SHAPES.mqtt, connectionOf(), leaving.signal), { name: 'ProxyError' })
  await gone
  t.pass()
})

// The request: wire specification §4.4.
const asks = test.macro({
  async exec(t, _: string, credentials: (typeof SHAPES)['mqtt'] | object, expected: object) {
    const peer = await startPeer(t)
    const authenticator = customOver(t, [webhookEntry(peer)])
    // The shapes of a case are written out as they are.
    await authenticator.authenticate(credentials as (typeof SHAPES)['mqtt'], connectionOf(), SIGNAL)
    const { connectionMetadata, ...rest } = peer.calls[0]!.json
    t.deepEqual(rest, expected as Record<string, unknown>)
    t.regex(
      String((connectionMetadata as { id: string }).id),
      /^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/,
    )
    const { headers } = peer.calls[0]!
    t.is(headers['content-type'], 'application/json')
    t.is(headers['accept-encoding'], 'identity')
    t.is(headers.authorization, 'secret of the proxy')
  },
  title: (_, what: string) => `an authorizer is told ${what}`,
})
const TLS = { serverName: 'iot.example.com' }
test(asks, 'of raw MQTT: tls and mqtt', SHAPES.mqtt, {
  token: 'abc123',
  signatureVerified: false,
  protocols: ['tls', 'mqtt'],
  protocolData: { tls: TLS, mqtt: { username: 'alice?MyToken=abc123', password: 'c2VjcmV0', clientId: 'device-1' } },
})
test(asks, 'of a WebSocket upgrade: tls and http', SHAPES['wss upgrade'], {
  token: 'abc123',
  signatureVerified: false,
  protocols: ['tls', 'http'],
  protocolData: { tls: TLS, http: { headers: { host: 'iot.example.com' }, queryString: '?MyToken=abc123' } },
})
test(
  asks,
  'of CONNECT over WebSocket: all three',
  { kind: 'custom', http: get('/mqtt', 'A', '1'), mqtt: connect() },
  {
    token: 'abc123',
    signatureVerified: false,
    protocols: ['tls', 'http', 'mqtt'],
    protocolData: {
      tls: TLS,
      http: { headers: { a: '1' } },
      mqtt: { username: 'alice?MyToken=abc123', password: 'c2VjcmV0', clientId: 'device-1' },
    },
  },
)
test(asks, 'of an HTTPS publish: tls and http', SHAPES.https, {
  token: 'abc123',
  signatureVerified: false,
  protocols: ['tls', 'http'],
  protocolData: { tls: TLS, http: { headers: { host: 'iot.example.com', mytoken: 'abc123' }, queryString: '?qos=1' } },
})
test(
  asks,
  'only what is there',
  { kind: 'custom', http: null, mqtt: { clientId: '', username: null, password: null } },
  {
    signatureVerified: false,
    protocols: ['tls', 'mqtt'],
    protocolData: { tls: TLS, mqtt: {} },
  },
)
test(
  asks,
  'headers of one name joined, whatever their name',
  { kind: 'custom', http: get('/', 'A', '1', 'a', '2', 'Cookie', 'b', 'cookie', 'c', '__proto__', 'd'), mqtt: null },
  {
    signatureVerified: false,
    protocols: ['tls', 'http'],
    protocolData: { tls: TLS, http: { headers: JSON.parse('{"a":"1, 2","cookie":"b; c","__proto__":"d"}') } },
  },
)

test('a password of any octets comes as their base64', async (t) => {
  const peer = await startPeer(t)
  const mqtt = connect({ password: Buffer.from([0, 0xff, 0x80]) })
  await customOver(t, [webhookEntry(peer)]).authenticate({ kind: 'custom', http: null, mqtt }, connectionOf(), SIGNAL)
  t.like(peer.calls[0]!.json, { protocolData: { mqtt: { password: 'AP+A' } } })
})

test('headers and query of more than 8 KiB are refused, and nobody is asked', async (t) => {
  const peer = await startPeer(t)
  const authenticator = customOver(t, [webhookEntry(peer)])
  const ask = (bytes: number) =>
    authenticator.authenticate(
      { kind: 'custom', http: get('/', 'a', 'x'.repeat(bytes - 1)), mqtt: null },
      connectionOf(),
      SIGNAL,
    )
  t.is((await ask(8_192)).kind, 'authenticated')
  t.like(await ask(8_193), { kind: 'denied', code: 'ERR_CREDENTIALS_MALFORMED' })
  t.is(peer.calls.length, 1)
})

// The answer: wire specification §4.5.
const answers = test.macro({
  async exec(t, _: string, answer: object, expected: object | null, lifetimes?: 'refuse' | 'clamp') {
    const peer = await startPeer(t)
    peer.behavior = answer
    const authenticator = customOver(t, [webhookEntry(peer, { lifetimes: lifetimes ?? 'refuse' })])
    const asking = authenticator.authenticate(SHAPES.mqtt, connectionOf(), SIGNAL)
    if (expected === null) return void (await t.throwsAsync(asking, { code: 'ERR_AUTHORIZER_UNAVAILABLE' }))
    t.like(rounded(await asking), expected)
  },
  title: (_, what: string, _answer: object, expected: object | null, _lifetimes?: 'refuse' | 'clamp') =>
    `an answer with ${what} is ${expected === null ? 'no answer' : 'an answer'}`,
})
/** Lifetimes in whole seconds: some milliseconds have passed. */
const rounded = (outcome: AuthOutcome) =>
  outcome.kind === 'denied'
    ? outcome
    : {
        ...outcome,
        disconnect: Math.ceil((outcome.disconnectAfterMs ?? 0) / 1_000),
        refresh: outcome.refreshAfterMs === null ? null : Math.ceil(outcome.refreshAfterMs / 1_000),
      }
const BASE = { isAuthenticated: true, principalId: 'abc123' }
test(answers, 'everything', YES, {
  kind: 'authenticated',
  principal: { id: 'abc123', method: 'custom' },
  disconnect: 86_400,
  refresh: 300,
})
test(answers, 'isAuthenticated false', { isAuthenticated: false }, { kind: 'denied', code: 'ERR_CREDENTIALS_REFUSED' })
test(answers, 'no lifetimes', BASE, { kind: 'authenticated', disconnect: 86_400, refresh: null })
test(
  answers,
  'lifetimes of null',
  { ...BASE, disconnectAfterInSeconds: null, refreshAfterInSeconds: null },
  { kind: 'authenticated', disconnect: 86_400, refresh: null },
)
test(
  answers,
  'the least lifetimes',
  { ...BASE, disconnectAfterInSeconds: 300, refreshAfterInSeconds: 300 },
  { kind: 'authenticated', disconnect: 300, refresh: 300 },
)
test(answers, 'disconnectAfterInSeconds 299', { ...BASE, disconnectAfterInSeconds: 299 }, null)
test(answers, 'disconnectAfterInSeconds 86401', { ...BASE, disconnectAfterInSeconds: 86_401 }, null)
test(answers, 'refreshAfterInSeconds 0', { ...BASE, refreshAfterInSeconds: 0 }, null)
test(answers, 'refreshAfterInSeconds as a text', { ...BASE, refreshAfterInSeconds: '300' }, null)
test(answers, 'a lifetime that is no whole number', { ...BASE, refreshAfterInSeconds: 300.5 }, null)
test(
  answers,
  'lifetimes moved to the nearest where that is set',
  { ...BASE, disconnectAfterInSeconds: 999_999, refreshAfterInSeconds: 1 },
  { kind: 'authenticated', disconnect: 86_400, refresh: 300 },
  'clamp',
)
test(answers, 'a text for a lifetime, whatever is set', { ...BASE, disconnectAfterInSeconds: 'x' }, null, 'clamp')
test(answers, 'a principalId of 128 characters', { ...BASE, principalId: 'a'.repeat(128) }, { kind: 'authenticated' })
test(answers, 'a principalId of 129', { ...BASE, principalId: 'a'.repeat(129) }, null)
test(answers, 'a principalId with a hyphen', { ...BASE, principalId: 'a-b' }, null)
test(answers, 'an empty principalId', { ...BASE, principalId: '' }, null)
test(answers, 'no principalId', { isAuthenticated: true }, null)
test(answers, 'a principalId that is a number', { ...BASE, principalId: 1 }, null)
test(answers, 'a principalId with a line break behind it', { ...BASE, principalId: 'abc\n' }, null)
test(
  answers,
  'documents as texts of JSON',
  { ...BASE, policyDocuments: [JSON.stringify(ALLOW_ALL)] },
  { kind: 'authenticated' },
)
test(answers, 'ten documents', { ...BASE, policyDocuments: Array(10).fill(ALLOW_ALL) }, { kind: 'authenticated' })
test(answers, 'eleven', { ...BASE, policyDocuments: Array(11).fill(ALLOW_ALL) }, null)
test(
  answers,
  'a document that is too long',
  { ...BASE, policyDocuments: [{ ...ALLOW_ALL, Id: 'a'.repeat(2_048) }] },
  null,
)
test(
  answers,
  'a document that is none beside a good one',
  { ...BASE, policyDocuments: [ALLOW_ALL, { Statement: [] }] },
  null,
)
test(answers, 'one document outside of a list', { ...BASE, policyDocuments: ALLOW_ALL }, null)
test(answers, 'documents as one text', { ...BASE, policyDocuments: JSON.stringify(ALLOW_ALL) }, null)

test('status 401 and 403 are a no', async (t) => {
  const peer = await startPeer(t)
  for (const code of [401, 403]) {
    peer.behavior = (_, response) => {
      response.writeHead(code)
      response.end(JSON.stringify(YES))
    }
    const outcome = await customOver(t, [webhookEntry(peer)]).authenticate(SHAPES.mqtt, connectionOf(), SIGNAL)
    t.like(outcome, { kind: 'denied', code: 'ERR_CREDENTIALS_REFUSED' })
  }
})

test('an answer without documents allows nothing', async (t) => {
  const peer = await startPeer(t)
  const ask = async (answer: object) => {
    peer.behavior = answer
    const outcome = await customOver(t, [webhookEntry(peer)]).authenticate(SHAPES.mqtt, connectionOf(), SIGNAL)
    if (outcome.kind !== 'authenticated') throw new Error(outcome.detail)
    return outcome.grants.permit(ARN, NO_VARIABLES).allows('iot:Connect', 'client/device-1')
  }
  t.true(await ask(YES))
  t.false(await ask(BASE))
  t.false(await ask({ ...BASE, policyDocuments: [] }))
})

test('connections to an authorizer are kept, and one that was closed meanwhile is no fault', async (t) => {
  const peer = await startPeer(t)
  const ports = new Set<number | undefined>()
  let close = false
  peer.behavior = (_, response, request) => {
    if (close) {
      // As a server that closes an idle connection at the very moment: the next question meets a reset.
      close = false
      request.socket.destroy()
      return
    }
    ports.add(request.socket.remotePort)
    response.end(JSON.stringify(YES))
  }
  const authenticator = customOver(t, [webhookEntry(peer)])
  const ask = () => authenticator.authenticate(SHAPES.mqtt, connectionOf(), SIGNAL)
  await ask()
  await ask()
  t.is(ports.size, 1)
  close = true
  t.is((await ask()).kind, 'authenticated')
  t.is(ports.size, 2)
})

test('one device whose answer is broken does not open the circuit for the others', async (t) => {
  const peer = await startPeer(t)
  const opened: boolean[] = []
  const metrics = { ...NO_METRICS, authorizerCircuit: (_: string, open: boolean) => void opened.push(open) }
  const authenticator = customOver(t, [webhookEntry(peer)], { authorizers: createAuthorizers({ metrics }) })
  peer.behavior = { ...YES, principalId: 'a-b' }
  for (let count = 0; count < 20; count++) {
    const asking = authenticator.authenticate(SHAPES.mqtt, connectionOf(), SIGNAL)
    await t.throwsAsync(asking, { code: 'ERR_AUTHORIZER_UNAVAILABLE', message: /principalId/ })
  }
  t.deepEqual(opened, [])
  t.is(peer.calls.length, 20)
})

test('the circuit opens after five faults in a row, asks nobody, and closes with the first answer', async (t) => {
  const peer = await startPeer(t)
  let now = 0
  const told: string[] = []
  const metrics = {
    ...NO_METRICS,
    authorizerCall: (name: string, result: string) => void told.push(`${name} ${result}`),
    authorizerCircuit: (name: string, open: boolean) => void told.push(`${name} ${open ? 'opens' : 'closes'}`),
  }
  const authorizers = createAuthorizers({ metrics, now: () => now, random: () => 0 })
  const authenticator = customOver(t, [webhookEntry(peer)], { authorizers })
  const ask = () => authenticator.authenticate(SHAPES.mqtt, connectionOf(), SIGNAL)
  const fails = () => t.throwsAsync(ask(), { code: 'ERR_AUTHORIZER_UNAVAILABLE' })

  peer.behavior = FAULTS['answers 500']!
  for (let count = 0; count < 5; count++) await fails()
  t.is(peer.calls.length, 5)
  t.deepEqual(told.splice(0), [...Array(4).fill('MyAuth status'), 'MyAuth opens', 'MyAuth status'])

  await fails()
  t.is(peer.calls.length, 5, 'nobody is asked while it is open')
  t.deepEqual(told.splice(0), ['MyAuth circuit_open'])

  now = 1_000
  await fails()
  t.is(peer.calls.length, 6, 'one is let through after a second')
  now = 2_999
  await fails()
  t.is(peer.calls.length, 6, 'and the next only after two more')
  told.length = 0

  now = 3_000
  peer.behavior = YES
  t.is((await ask()).kind, 'authenticated')
  t.deepEqual(told.splice(0), ['MyAuth closes', 'MyAuth allowed'])
  t.is((await ask()).kind, 'authenticated')
})
