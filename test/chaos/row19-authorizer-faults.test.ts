// An authorizer that fails must never let anybody in, on whatever way the device came, nor keep it waiting for longer than
// it was given, nor be asked by a whole fleet while it is down.
import { once } from 'node:events'
import { createServer, type ServerResponse } from 'node:http'
import { createServer as createHttps } from 'node:https'
import type { AddressInfo } from 'node:net'
import { createSecureContext } from 'node:tls'
import { exportJWK, generateKeyPair, SignJWT } from 'jose'
import { ca, device, eventually } from '../support/e2e.ts'
import { type Asked, yes } from '../support/gateway.ts'
import { createCa, issueServer } from '../support/pki.ts'
import { freePort, type Teardowns } from '../support/proxy.ts'
import { Link, type Way } from './fleet-device.ts'
import { row } from './row.ts'

const DEADLINE_MS = 5_000
const SLACK_MS = 10_000
/** `Circuit` opens after five faults in a row. */
const KNOCKS = 8

/** A right answer, to be spoiled: of a webhook, or a key set. */
interface Right {
  readonly whole: string
  /** Well-formed JSON that is no answer. */
  readonly wrong: string
  /** An answer that grants what it must not. */
  readonly evil: string
}
type Fault = (response: ServerResponse, right: Right) => void

/** Each ends in something that is no answer. */
const FAULTS: Readonly<Record<string, Fault>> = {
  silence: () => {},
  'a byte a second': (response, { whole }) => {
    response.writeHead(200, { 'content-length': whole.length })
    let at = 0
    const timer = setInterval(() => response.write(whole[at++] ?? ''), 1_000)
    response.on('close', () => clearInterval(timer))
  },
  'status 500 around a right answer': (response, { whole }) => {
    response.statusCode = 500
    response.end(whole)
  },
  'half of the JSON': (response, { whole }) => void response.end(whole.slice(0, -5)),
  'JSON of another form': (response, { wrong }) => void response.end(wrong),
  'an answer that grants what none may': (response, { evil }) => void response.end(evil),
  '10 MB': (response, { whole }) => void response.end(`${whole}${' '.repeat(10_000_000)}`),
  'a redirect': (response) => {
    response.writeHead(302, { location: '/right' })
    response.end()
  },
  'an end in the middle of the body': (response, { whole }) => {
    response.writeHead(200, { 'content-length': whole.length })
    response.write(whole.slice(0, 20))
    setTimeout(() => response.destroy(), 50)
  },
  'a reset': (response) => void response.socket?.resetAndDestroy(),
  // The last two are faults of the place that is asked, below.
  'nobody listens': () => {},
  'a certificate of another CA': (response, { whole }) => void response.end(whole),
}
const NAMES = Object.keys(FAULTS)
const CONTROL = NAMES.length

interface Place {
  readonly base: string
  readonly asked: (path: string) => number
  /** From now on everything is answered rightly. */
  heal(): void
}

async function authorizerPlace(
  t: Teardowns,
  rights: Readonly<Record<string, (question: string) => Right>>,
): Promise<Place> {
  const asked = new Map<string, number>()
  let healed = false
  const answer = (path: string, question: string, response: ServerResponse) => {
    asked.set(path, (asked.get(path) ?? 0) + 1)
    const [, kind = '', number = ''] = path.split('/')
    const right = rights[kind]?.(question) ?? { whole: '{}', wrong: '{}', evil: '{}' }
    const fault = healed ? undefined : FAULTS[NAMES[Number(number)] ?? '']
    response.setHeader('content-type', 'application/json')
    if (fault === undefined) response.end(right.whole)
    else fault(response, right)
  }
  const server = createServer((request, response) => {
    const chunks: Buffer[] = []
    request.on('data', (chunk: Buffer) => chunks.push(chunk))
    request.on('end', () => answer(request.url ?? '', Buffer.concat(chunks).toString(), response))
  })
  server.listen({ port: 0, host: '127.0.0.1' })
  await once(server, 'listening')
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  return {
    base: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    asked: (path) => asked.get(path) ?? 0,
    heal() {
      healed = true
    },
  }
}

/** HTTPS that answers whatever is asked, under a certificate that nobody here trusts. */
async function strangerPlace(t: Teardowns): Promise<{ readonly base: string; readonly knocks: () => number }> {
  const certificate = issueServer(createCa({ commonName: 'elsewhere' }), { serverNames: ['localhost'] })
  const server = createHttps({ key: certificate.keyPem, cert: certificate.chainPem }, (_, response) =>
    response.end('{}'),
  )
  let knocks = 0
  server.on('connection', () => void knocks++)
  server.listen({ port: 0, host: '127.0.0.1' })
  await once(server, 'listening')
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  return { base: `https://localhost:${(server.address() as AddressInfo).port}`, knocks: () => knocks }
}

row(
  {
    number: 19,
    title: 'authorizer faults',
    required: `none accepted, all told within ${DEADLINE_MS / 1_000} s, the circuit opens and closes`,
    seconds: 20,
  },
  async ({ t, start }) => {
    const { publicKey, privateKey } = await generateKeyPair('ES256')
    const token = await new SignJWT({ sub: 'person' })
      .setProtectedHeader({ alg: 'ES256', kid: 'one' })
      .setExpirationTime('1h')
      .sign(privateKey)
    const jwk = { ...(await exportJWK(publicKey)), kid: 'one' }
    const place = await authorizerPlace(t, {
      hook(question) {
        const right = yes(JSON.parse(question) as Asked)
        return {
          whole: JSON.stringify(right),
          wrong: JSON.stringify({ ...right, isAuthenticated: 'true' }),
          evil: JSON.stringify({ ...right, policyDocuments: [{ Statement: 'everything' }] }),
        }
      },
      jwks: () => ({
        whole: JSON.stringify({ keys: [jwk] }),
        wrong: JSON.stringify({ keys: 'all of them' }),
        evil: JSON.stringify({ keys: [{ kty: 'oct', kid: 'one', k: 'c2VjcmV0' }] }),
      }),
    })
    const stranger = await strangerPlace(t)
    const nobody = `http://127.0.0.1:${await freePort()}`
    const baseOf = (index: number): string =>
      NAMES[index] === 'nobody listens' ? nobody : index === NAMES.length - 1 ? stranger.base : place.base
    const all = Array.from({ length: CONTROL + 1 }, (_, index) => index)
    const hookNames = all.map((index) => `hook${index}`)
    const jwtNames = all.map((index) => `jwt${index}`)
    const certificate = issueServer(ca, { serverNames: ['faults.test', 'two.test'] })
    const both = `authorizers: [ ${[...hookNames, ...jwtNames].join(', ')} ], allowAuthorizerOverride: true`
    const common = 'certificates: [ { cert: faults.pem, key: faults.key } ], registry: main, backend: main'
    const { proxy, ports } = await start({
      extra: 'include: [ more.yaml ]',
      files: {
        'faults.pem': certificate.chainPem,
        'faults.key': certificate.keyPem,
        'more.yaml': `domains:
  - { serverNames: [ faults.test ], ${common}, ${both} }
  - { serverNames: [ two.test ], ${common}, ${both}, authenticationType: CUSTOM_AUTH_X509, applicationProtocol: SECURE_MQTT }
`,
        'registry/faults.yaml': `authorizers:
${all
  .flatMap((index) => [
    `  hook${index}: { kind: webhook, url: "${baseOf(index)}/hook/${index}", tokenKeyName: MyToken }`,
    `  jwt${index}: { kind: jwt, jwksUrl: "${baseOf(index)}/jwks/${index}", algorithms: [ ES256 ], tokenFrom: password, principal: sub, issuer: null, audience: null, policies: [ everything ] }`,
  ])
  .join('\n')}
`,
      },
    })
    const named = (authorizer: string) => `x-amz-customauthorizer-name=${authorizer}&MyToken=any`
    const context = createSecureContext({ ca: ca.certPem })
    const withCertificate = createSecureContext({ ca: ca.certPem, cert: device.chainPem, key: device.keyPem })
    let count = 0
    const attempt = async (way: Partial<Way>): Promise<{ readonly outcome: string; readonly ms: number }> => {
      const link = new Link(
        {
          host: '127.0.0.1',
          port: ports.web,
          serverName: 'faults.test',
          context,
          alpn: null,
          version: 5,
          clientId: `asking-${count++}`,
          keepAliveSeconds: 60,
          username: null,
          password: null,
          clean: true,
          localAddress: null,
          webSocket: null,
          withinMs: 20_000,
          ...way,
        },
        { packet() {}, ended() {} },
      )
      const outcome = await link.attempt
      link.leave()
      return { outcome, ms: link.ms }
    }
    const ways: Readonly<Record<string, (index: number) => Partial<Way>>> = {
      'certificate and authorizer': (index) => ({
        port: ports.mqtt,
        serverName: 'two.test',
        context: withCertificate,
        username: `u?${named(`hook${index}`)}`,
      }),
      JWT: (index) => ({ alpn: 'mqtt', username: `u?x-amz-customauthorizer-name=jwt${index}`, password: token }),
      WebSocket: (index) => ({ webSocket: `/mqtt?${named(`hook${index}`)}` }),
    }
    // The ways work: whoever asks an authorizer that is well is let in.
    for (const [name, way] of Object.entries(ways)) t.is((await attempt(way(CONTROL))).outcome, 'in', name)

    const results = await Promise.all(
      Object.entries(ways).flatMap(([name, way]) =>
        NAMES.map(async (fault, index) => ({ name, fault, ...(await attempt(way(index))) })),
      ),
    )
    const unavailable = (outcome: string) => outcome === 'connack 136' || outcome === 'closed status 503'
    // A key set with none but a shared secret in it is one without a key: then the token is refused.
    const keyless = ({ name, fault, outcome }: (typeof results)[number]) =>
      name === 'JWT' && fault === 'an answer that grants what none may' && outcome === 'connack 135'
    t.deepEqual(
      results.filter((result) => !unavailable(result.outcome) && !keyless(result)),
      [],
    )
    const worst = Math.max(...results.map(({ ms }) => ms))
    t.true(worst > DEADLINE_MS - 1_000 && worst < DEADLINE_MS + SLACK_MS, `${worst} ms`)
    for (const [index, fault] of NAMES.entries()) {
      if (baseOf(index) !== place.base) continue
      t.true(place.asked(`/hook/${index}`) > 0 && place.asked(`/jwks/${index}`) > 0, `${fault}: nobody met it`)
    }
    t.true(stranger.knocks() > 0)

    // The circuit: after five faults in a row nobody asks any more, until it is well again.
    const broken = NAMES.indexOf('status 500 around a right answer')
    const way = ways.WebSocket!
    for (let knock = 0; knock < KNOCKS; knock++) await attempt(way(broken))
    const gauge = `brokergate_authorizer_circuit_open{authorizer="hook${broken}"}`
    t.is(await proxy.metric(gauge), 1)
    const asked = place.asked(`/hook/${broken}`)
    t.true(asked < KNOCKS + 2, `asked ${asked} times`)
    place.heal()
    const healed = performance.now()
    await eventually(async () => (await attempt(way(broken))).outcome === 'in', 'the circuit closed', 60_000)
    t.is(await proxy.metric(gauge), 0)
    return {
      injected: `${NAMES.length} faults × ${Object.keys(ways).join(', ')}: ${NAMES.join(', ')}`,
      seen: `0 of ${results.length} accepted, the last told after ${(worst / 1_000).toFixed(1)} s; asked ${asked} times in ${KNOCKS + 2} attempts, closed ${((performance.now() - healed) / 1_000).toFixed(1)} s after it was well`,
    }
  },
)
