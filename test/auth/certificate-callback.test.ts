import { X509Certificate } from 'node:crypto'
import test, { type ExecutionContext } from 'ava'
import type { Authenticator, Credentials } from '../../src/auth/authenticator.ts'
import { certificateCallback } from '../../src/auth/certificate-callback.ts'
import { x509 } from '../../src/auth/x509.ts'
import { createCa, issueDevice } from '../../src/cli/pki.ts'
import { NO_METRICS } from '../../src/control/metrics.ts'
import { ca, deadlineFor, FAULTS, type Peer, startPeer } from './authorizer-peer.ts'
import { behavesLikeAnAuthenticator, connectionOf } from './conformance.ts'

type X509 = Extract<Credentials, { kind: 'x509' }>

const SIGNAL = new AbortController().signal
const fleet = createCa({ commonName: 'fleet' })
const leaf = new X509Certificate(issueDevice(fleet, { commonName: 'device-1' }).certPem)
const root = new X509Certificate(fleet.certPem)
const proof: X509 = { kind: 'x509', peer: { leaf, chain: [leaf, root], verifyError: null } }

const judge = x509({
  mode: 'ca',
  registry: () => null,
  policies: [],
  hasCa: true,
  caCertificates: [root],
  revocation: () => null,
  onExpired: 'deny',
  onMissing: 'deny',
})

function behind(t: ExecutionContext, peer: Peer, authenticator: Authenticator<X509> = judge, timeoutMs = 5_000) {
  const callback = certificateCallback(
    {
      name: 'callback',
      url: new URL(`https://localhost:${peer.port}/certificate`),
      ca: [ca.certPem],
      headers: { authorization: 'secret of the proxy' },
      timeoutMs,
      concurrency: 4,
    },
    { metrics: NO_METRICS, now: () => performance.now(), wallClock: Date.now, random: () => 0 },
  )
  t.teardown(() => callback.close())
  return callback.before(authenticator)
}

behavesLikeAnAuthenticator(test, 'x509 behind a certificate callback', async (t) => {
  const [peer, faulty] = [await startPeer(t), await startPeer(t)]
  peer.behavior = { isAuthenticated: true }
  faulty.behavior = FAULTS['answers 500']!
  return {
    authenticator: behind(t, peer),
    accepted: proof,
    refused: { kind: 'x509', peer: { ...proof.peer!, verifyError: 'unknown CA' } },
    faulty: behind(t, faulty),
    faultCode: 'ERR_AUTHORIZER_UNAVAILABLE',
  }
})

test('the callback is told of the certificate, its chain and the server name, before anything is judged', async (t) => {
  const peer = await startPeer(t)
  peer.behavior = { isAuthenticated: true }
  let judged = 0
  const watched: Authenticator<X509> = {
    method: 'x509',
    authenticate: (...args) => {
      judged = peer.calls.length
      return judge.authenticate(...args)
    },
  }
  const outcome = await behind(t, peer, watched).authenticate(proof, connectionOf(), SIGNAL)
  t.is(outcome.kind, 'authenticated')
  t.is(judged, 1)
  const { connectionMetadata, ...rest } = peer.calls[0]!.json
  t.deepEqual(rest, {
    principalId: leaf.fingerprint256.replaceAll(':', '').toLowerCase(),
    serverName: 'iot.example.com',
    clientCertificateChain: [leaf.toString(), root.toString()],
  })
  t.regex(String((connectionMetadata as { id: string }).id), /^[0-9a-f-]{36}$/)
  t.is(peer.calls[0]!.headers.authorization, 'secret of the proxy')
})

const denies = test.macro({
  async exec(t, answer: unknown) {
    const peer = await startPeer(t)
    peer.behavior = (_, response) => {
      response.end(JSON.stringify(answer))
    }
    const outcome = await behind(t, peer).authenticate(proof, connectionOf(), SIGNAL)
    t.like(outcome, { kind: 'denied', code: 'ERR_CERTIFICATE_CALLBACK' })
  },
  title: (_, answer: unknown) => `${JSON.stringify(answer)} stops the connection`,
})
for (const answer of [
  { isAuthenticated: false },
  { isAuthenticated: 'true' },
  { isAuthenticated: 1 },
  {},
  [],
  null,
  true,
]) {
  test(denies, answer)
}

test('status 401 and 403 stop the connection, whatever the body says', async (t) => {
  const peer = await startPeer(t)
  for (const code of [401, 403]) {
    peer.behavior = (_, response) => {
      response.writeHead(code)
      response.end('{"isAuthenticated":true}')
    }
    const outcome = await behind(t, peer).authenticate(proof, connectionOf(), SIGNAL)
    t.like(outcome, { kind: 'denied', code: 'ERR_CERTIFICATE_CALLBACK' })
  }
})

for (const [fault, behavior] of Object.entries(FAULTS)) {
  if (/list|null|isAuthenticated/.test(fault)) continue // JSON, and so an answer that is not yes
  test(`a callback that ${fault} admits nobody`, async (t) => {
    const peer = await startPeer(t)
    peer.behavior = behavior
    const asking = behind(t, peer, judge, deadlineFor(fault)).authenticate(proof, connectionOf(), SIGNAL)
    await t.throwsAsync(asking, { name: 'ProxyError', code: 'ERR_AUTHORIZER_UNAVAILABLE' })
  })
}

test('without a certificate nobody is asked, and the authenticator says why', async (t) => {
  const peer = await startPeer(t)
  const outcome = await behind(t, peer).authenticate({ kind: 'x509', peer: null }, connectionOf(), SIGNAL)
  t.like(outcome, { kind: 'denied', code: 'ERR_CERTIFICATE_ABSENT' })
  t.is(peer.calls.length, 0)
})
