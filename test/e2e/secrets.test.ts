// Secrets go in by every door, well-formed and not, at log level debug. None of them may come out again but where it was
// meant to go: not in the log, the metrics, the events, an error's body or what the commands print, and in no other
// spelling either. What counts as a secret: passwords, tokens, signatures, keys, cookies, query strings, payloads and
// user properties, and what an authorizer or a backend answers. What does not: client ids, topics, user names, ids of
// access keys; they are how a device is found in a log.
import { randomBytes } from 'node:crypto'
import { connect as connectTcp } from 'node:net'
import test from 'ava'
import type { IConnectPacket, Packet } from 'mqtt-packet'
import { canonicalHeaders, canonicalPath, canonicalQuery, canonicalRequest } from '../../src/auth/sigv4-canonical.ts'
import { presign, sha256Hex, sign, signingKey, timestampOf } from '../../src/auth/sigv4-sign.ts'
import { ask } from '../../src/cli/certs.ts'
import { brokergate, publishOverWss, witness } from '../support/clients.ts'
import { eventually } from '../support/e2e.ts'
import { device, powerless, raw } from '../support/gateway.ts'
import { forWholeFile } from '../support/proxy.ts'
import { type RawDeviceOptions, rawDevice } from '../support/raw-mqtt.ts'
import { leakText } from '../support/secrets.ts'
import { openVault, REGION, type Vault, yesWith } from '../support/vault.ts'
import { BINARY, frame, TEXT } from '../wss/frames.ts'

const file = forWholeFile(test)
let vault: Vault
let events: Awaited<ReturnType<typeof witness>>
/** Everything that was answered to a device, but for what it asked a backend or a broker for. */
const answers: string[] = []

test.before(async () => {
  vault = await openVault(file)
  events = await witness(file, { brokerPort: vault.ports.broker }, '$aws/events/#')
})

const plant = (name: string): string => vault.secrets.plant(name)

/** What a device says in CONNECT and after; resolves with what it was told. */
async function mqttSession(
  t: Parameters<typeof rawDevice>[0],
  options: Omit<RawDeviceOptions, 'port'> & { readonly port?: number; readonly after?: readonly (Packet | Buffer)[] },
): Promise<string> {
  const session = await rawDevice(t, { port: vault.ports.mqtt, ...options })
  const connack = await session.hear('connack', 10_000).catch(() => null)
  for (const packet of options.after ?? []) session.say(packet)
  if (connack !== null && options.after !== undefined) await session.end(10_000).catch(() => session.socket.end())
  session.socket.end()
  const told = JSON.stringify(session.heard)
  answers.push(told)
  return told
}

async function https(port: number, request: string | Buffer, options: Parameters<typeof raw>[1] = {}): Promise<string> {
  const { text } = await raw(port, { send: request, ...options })
  return text
}

async function refusedHttps(...args: Parameters<typeof https>): Promise<string> {
  const text = await https(...args)
  answers.push(text)
  return text
}

const head = (line: string, ...fields: readonly string[]): string =>
  `${[`${line} HTTP/1.1`, 'Host: localhost', 'Connection: close', ...fields].join('\r\n')}\r\n\r\n`

const withBody = (line: string, body: string, ...fields: readonly string[]): string =>
  `${head(line, `Content-Length: ${Buffer.byteLength(body)}`, ...fields)}${body}`

/** What the log says about the connections so far: the reason of each. */
const reasons = (): readonly unknown[] => vault.proxy.lines().map(({ reason }) => reason)
const logged = (...wanted: readonly string[]) =>
  eventually(
    () => wanted.every((reason) => reasons().includes(reason)),
    `${wanted.filter((reason) => !reasons().includes(reason))} in the log`,
  )

const publish = (topic: string, payload: string, more: object = {}): Packet =>
  ({ cmd: 'publish', topic, payload, qos: 1, messageId: 1, dup: false, retain: false, ...more }) as Packet

for (const version of [4, 5] as const) {
  test.serial(`MQTT ${version} with a certificate: passwords, wills, payloads, properties`, async (t) => {
    const properties = (name: string) => ({
      userProperties: { note: plant(`user property ${name} ${version}`) },
      correlationData: Buffer.from(plant(`correlation data ${name} ${version}`)),
    })
    const login = {
      username: `u?q=${plant(`query of a user name ${version}`)}`,
      password: Buffer.from(plant(`password passed over ${version}`)),
    }
    const connect: Partial<IConnectPacket> = {
      ...login,
      will: {
        topic: 'will/a',
        payload: Buffer.from(plant(`will ${version}`)),
        qos: 0,
        retain: false,
        ...(version === 5 && { properties: properties('of a will') }),
      },
    }
    const message = publish(
      'a/b',
      plant(`payload ${version}`),
      version === 5 ? { properties: properties('of a message') } : {},
    )
    const good = await mqttSession(t, { version, connect, after: [message, { cmd: 'disconnect' } as Packet] })
    t.regex(good, /"connack".*"puback"/)
    const denied = publish('not/mine', plant(`denied payload ${version}`))
    await mqttSession(t, {
      version,
      certificate: powerless,
      connect: login,
      after: [denied, { cmd: 'disconnect' } as Packet],
    })
    const payload = Buffer.from(`\0\x03#/a${plant(`payload of a bad topic ${version}`)}`)
    await mqttSession(t, { version, connect, after: [Buffer.concat([Buffer.from([0x30, payload.length]), payload])] })
    // A second CONNECT, a SUBSCRIBE with the flags of another, a packet that only the other side may send.
    const secret = Buffer.from(plant(`body of a wrong packet ${version}`))
    for (const type of [0x10, 0x80, 0x20]) {
      await mqttSession(t, { version, connect, after: [Buffer.concat([Buffer.from([type, secret.length]), secret])] })
    }
    await logged('packet_malformed', 'packet_unexpected')
    t.true(vault.proxy.lines().some(({ event, resource }) => event === 'denied' && resource === 'topic/not/mine'))
  })
}

test.serial('CONNECT that cannot be read, is too large, or comes before a broker that cannot be reached', async (t) => {
  const { mqtt } = vault.ports
  const password = plant('password of a broken CONNECT')
  const text = (value: string) => Buffer.concat([Buffer.from([0, value.length]), Buffer.from(value)])
  const connect = (flags: number, ...parts: readonly Buffer[]) => {
    const body = Buffer.concat([text('MQTT'), Buffer.from([4, flags, 0, 0]), ...parts])
    return Buffer.concat([Buffer.from([0x10, body.length]), body])
  }
  const shapes: Readonly<Record<string, Buffer>> = {
    'a reserved flag': connect(0xc3, text('c'), text('user'), text(password)),
    'a password without a user name': connect(0x42, text('c'), text(password)),
    'a password longer than the packet': connect(
      0xc2,
      text('c'),
      text('user'),
      Buffer.from([0xff, 0xff]),
      Buffer.from(password),
    ),
    'a client id that is not UTF-8': connect(0xc2, Buffer.from([0, 2, 0xc3, 0x28]), text('user'), text(password)),
    'a user name with a NUL': connect(0xc2, text('c'), text('us\0er'), text(password)),
    'another protocol': Buffer.concat([
      Buffer.from([0x10, 60]),
      text('MQXX'),
      Buffer.from([4, 0xc2, 0, 0]),
      text('c'),
      text(password),
    ]),
    'no CONNECT at all': Buffer.from(`GET /?token=${password} HTTP/1.1\r\nAuthorization: ${password}\r\n\r\n`),
    'cut in the middle': connect(0xc2, text('c'), text('user'), text(password)).subarray(0, 30),
    'larger than it may be': Buffer.concat([
      Buffer.from([0x10, 0xff, 0xff, 0x7f]),
      Buffer.from(password.repeat(3_000)),
    ]),
  }
  for (const [name, bytes] of Object.entries(shapes)) {
    const { bytes: told } = await raw(mqtt, {
      certificate: device,
      send: bytes,
      ...(name.startsWith('cut') && { enough: 0, timeoutMs: 1_000 }),
    })
    answers.push(told.toString('hex'))
  }
  const lost = { username: 'u', password: Buffer.from(plant('password for a broker that is not there')) }
  t.regex(await mqttSession(t, { version: 5, servername: 'jobs.test', connect: lost }), /"reasonCode":136/)
  t.regex(await mqttSession(t, { version: 5, servername: 'https.test', connect: lost }), /"reasonCode":136/)
  await logged('connect_malformed', 'connect_oversized', 'not_mqtt', 'backend_untrusted', 'backend_refused')
})

test.serial('user names and passwords that a file or the broker judges', async (t) => {
  const { web, mqtt } = vault.ports
  const login = (username: string, password: string) => ({ username, password: Buffer.from(password) })
  const people = { alpn: 'mqtt', port: web, servername: 'custom.test', version: 5 } as const
  t.regex(
    await mqttSession(t, {
      ...people,
      connect: login('alice', vault.password),
      after: [{ cmd: 'disconnect' } as Packet],
    }),
    /"reasonCode":0/,
  )
  for (const user of ['alice', 'nobody']) {
    t.regex(
      await mqttSession(t, { ...people, connect: login(user, plant(`wrong password of ${user}`)) }),
      /"reasonCode":13[45]/,
    )
  }
  const judged = { port: mqtt, servername: 'x509.test', version: 4 } as const
  t.regex(
    await mqttSession(t, {
      ...judged,
      connect: login('somebody', plant('password that the broker judges')),
      after: [{ cmd: 'disconnect' } as Packet],
    }),
    /"returnCode":0/,
  )
  await logged('credentials_refused')
})

test.serial('tokens and their signatures in the user name of MQTT', async (t) => {
  const { web } = vault.ports
  const password = Buffer.from(plant('password beside a token'))
  const connect = async (username: string) =>
    mqttSession(t, {
      alpn: 'mqtt',
      port: web,
      version: 5,
      connect: { username, password },
      after: [{ cmd: 'disconnect' } as Packet],
    })
  const token = plant('token')
  const signature = vault.signed(token)
  vault.secrets.keep('signature of a token', signature)
  const of = (name: string, value: string, proof: string) =>
    `u?x-amz-customauthorizer-name=${name}&MyToken=${value}&x-amz-customauthorizer-signature=${encodeURIComponent(proof)}`
  t.regex(await connect(of('signed', token, signature)), /"reasonCode":0/)
  const other = plant('token with the signature of another')
  for (const username of [
    of('signed', other, signature),
    of('signed', token, plant('signature that is none')),
    of('signed', token, randomBytes(10).toString('hex')),
    `${of('signed', token, signature)}&MyToken=${plant('second token')}`,
    of(`${plant('name that no authorizer has')}!`, token, signature),
    of('unknown', token, signature),
    `u?x-amz-customauthorizer-name=signed&Other=${plant('token under another name')}`,
    of('signed', `%ff%fe${token}`, signature),
    of('open', token.repeat(300), signature),
  ]) {
    t.notRegex(await connect(username), /"reasonCode":0/)
  }
  await logged('token_signature', 'credentials_malformed', 'authorizer_not_found')
})

test.serial('JSON Web Tokens, good, expired, altered and none', async (t) => {
  const { web } = vault.ports
  const connect = async (jwt: string, name: string) => {
    vault.secrets.keep(`JWT ${name}`, jwt.split('.').slice(1).join('.'))
    return mqttSession(t, {
      alpn: 'mqtt',
      port: web,
      version: 5,
      connect: { username: 'u?x-amz-customauthorizer-name=tokens', password: Buffer.from(jwt) },
      after: [{ cmd: 'disconnect' } as Packet],
    })
  }
  const secret = plant('claim of a JWT')
  const good = await vault.jwt({ note: secret })
  t.regex(await connect(good, 'that is good'), /"reasonCode":0/)
  const refused: Readonly<Record<string, string>> = {
    expired: await vault.jwt({ exp: 1_000, note: secret }),
    'of another issuer': await vault.jwt({ iss: plant('issuer of a JWT') }),
    'whose subject cannot be logged': await vault.jwt({ sub: `${plant('subject that cannot be logged')}\n` }),
    altered: good.replace(/\.[^.]{4}/, '.AAAA'),
    'without a signature': `${Buffer.from('{"alg":"none"}').toString('base64url')}.${Buffer.from(`{"note":"${secret}"}`).toString('base64url')}.`,
    'with a header that is no JSON': `${Buffer.from(`{"alg":${secret}`).toString('base64url')}.e30.${secret}`,
    'of one part': plant('text that is no JWT'),
  }
  for (const [name, jwt] of Object.entries(refused)) {
    t.notRegex(await connect(name === 'of one part' ? `x.${jwt}` : jwt, name), /"reasonCode":0/, name)
  }
})

test.serial('what an authorizer answers, usable and not', async (t) => {
  const { web } = vault.ports
  const connect = async (name: string) =>
    mqttSession(t, {
      alpn: 'mqtt',
      port: web,
      version: 5,
      connect: {
        username: `u?x-amz-customauthorizer-name=${name}&MyToken=${plant(`token ${randomBytes(6).toString('hex')}`)}`,
      },
      after: [{ cmd: 'disconnect' } as Packet],
    })
  const secret = plant('answer of an authorizer')
  const yes = yesWith(secret)
  const says = (answer: unknown) => (response: Parameters<Vault['answer']>[0]) =>
    void response.end(JSON.stringify(answer))
  const before = vault.answer
  vault.answer = says(yes)
  t.regex(await connect('open'), /"reasonCode":0/)
  const statement = { Effect: 'Allow', Action: 'iot:*', Resource: '*' }
  const document = (changes: object) => ({
    ...yes,
    policyDocuments: [{ Version: '2012-10-17', Statement: [{ ...statement, ...changes }] }],
  })
  const unusable: readonly Vault['answer'][] = [
    says({ isAuthenticated: false, context: secret }),
    says({ ...yes, isAuthenticated: secret }),
    says({ ...yes, principalId: `not-${secret}` }),
    says({ ...yes, disconnectAfterInSeconds: secret }),
    says({ ...yes, policyDocuments: secret }),
    says({ ...yes, policyDocuments: [`{ "Version": "${secret}`] }),
    says(document({ Effect: secret })),
    says(document({ Action: `iot:${secret} x` })),
    says(document({ Resource: `arn:${secret}` })),
    says(document({ [secret]: secret })),
    says(document({ Condition: { StringEquals: { [secret]: secret } } })),
    says(document({ Condition: { [secret]: { 'iot:ClientId': secret } } })),
    says(document({ Resource: `arn:aws:iot:us-east-1:000000000000:topic/\${${secret}}` })),
    says({ ...yes, policyDocuments: [{ Version: secret, Statement: [statement] }] }),
    (response) => void response.end(`{"isAuthenticated": true, "${secret}": ${secret}`),
    (response) => void response.writeHead(418, { 'x-why': secret, 'set-cookie': secret }).end(secret),
    (response) => void response.writeHead(302, { location: `https://localhost/?token=${secret}` }).end(),
    (response) => void response.writeHead(200, { 'content-encoding': secret }).end(secret),
  ]
  for (const answer of unusable) {
    vault.answer = answer
    t.notRegex(await connect('open'), /"reasonCode":0/)
  }
  // What looks unwell opens a circuit, so it has an authorizer of its own.
  const unwell: readonly Vault['answer'][] = [
    (response) => void response.writeHead(500, secret).end(secret),
    (response) => void response.socket?.end(`HTTP/1.1 200 OK\r\n${secret} ${secret}\r\n\r\n`),
    (response) => void response.socket?.end(`${secret}\r\n\r\n`),
    (response) => void response.socket?.destroy(),
  ]
  for (const answer of unwell) {
    vault.answer = answer
    t.notRegex(await connect('fragile'), /"reasonCode":0/)
  }
  vault.answer = (response) => void response.writeHead(403, { 'x-why': secret }).end(secret)
  t.notRegex(await mqttSession(t, { servername: 'both.test', version: 5 }).catch(() => ''), /"reasonCode":0/)
  vault.answer = (response) => void response.socket?.end(`HTTP/1.1 ${secret}\r\n\r\n`)
  t.notRegex(await mqttSession(t, { servername: 'both.test', version: 5 }).catch(() => ''), /"reasonCode":0/)
  vault.answer = before
  await logged('authorizer_unavailable', 'credentials_refused', 'certificate_callback')
})

test.serial('signatures, tokens and queries of WebSocket upgrades', async (t) => {
  const { web } = vault.ports
  const { permanent, temporary } = vault.keys
  const upgrade = [
    'Upgrade: websocket',
    'Connection: Upgrade',
    'Sec-WebSocket-Version: 13',
    'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==',
    'Sec-WebSocket-Protocol: mqtt',
  ]
  const get = (target: string, ...fields: readonly string[]): string =>
    `${[`GET ${target} HTTP/1.1`, 'Host: localhost', ...upgrade, `Cookie: session=${plant(`cookie ${randomBytes(6).toString('hex')}`)}`, ...fields].join('\r\n')}\r\n\r\n`
  const signed = (changes: Partial<Parameters<typeof presign>[0]> = {}): string => {
    const target = presign({
      host: 'localhost',
      path: '/mqtt',
      accessKeyId: temporary.id,
      secret: temporary.secret,
      sessionToken: temporary.token,
      region: REGION,
      service: 'iotdevicegateway',
      at: new Date(),
      expiresSeconds: null,
      ...changes,
    })
    vault.secrets.keep(
      `X-Amz-Signature ${randomBytes(6).toString('hex')}`,
      /X-Amz-Signature=([0-9a-f]+)/.exec(target)![1]!,
    )
    return target
  }
  t.regex(await https(web, get(signed()), { enough: Buffer.from('\r\n\r\n') }), /^HTTP\/1\.1 101 /)
  const refused: readonly string[] = [
    signed({ accessKeyId: 'AKIDNOBODY' }),
    signed({ secret: plant('secret access key of another') }),
    signed({ sessionToken: plant('session token of another') }),
    signed({ sessionToken: null }),
    signed({ at: new Date(Date.now() - 3_600_000) }),
    signed({ region: 'eu-north-1' }),
    `${signed({ accessKeyId: permanent.id, secret: permanent.secret, sessionToken: null })}&X-Amz-Signature=${plant('second signature')}`,
    signed().replace('AWS4-HMAC-SHA256', plant('algorithm that there is not')),
    signed().replace(/X-Amz-Date=[^&]+/, `X-Amz-Date=${plant('date that is none')}`),
    signed().replace(/X-Amz-Credential=[^&]+/, `X-Amz-Credential=${plant('scope that is none')}`),
    `/mqtt?x-amz-customauthorizer-name=signed&MyToken=${plant('token in a query')}`,
    `/elsewhere?password=${plant('password in the query of no path')}`,
  ]
  for (const target of refused) t.regex(await refusedHttps(web, get(target)), /^HTTP\/1\.1 4\d\d /)
  const noKey = get(signed()).replace(
    /Sec-WebSocket-Key: .*\r\n/,
    `Sec-WebSocket-Key: ${plant('key of a WebSocket')}\r\n`,
  )
  t.regex(await refusedHttps(web, noKey), /^HTTP\/1\.1 4\d\d /)
  const noProtocol = get(signed()).replace('Protocol: mqtt', `Protocol: ${plant('subprotocol')}`)
  t.regex(await refusedHttps(web, noProtocol), /^HTTP\/1\.1 400 /)
  // After the upgrade: a text frame, one without a mask, and MQTT that is none.
  const payload = plant('payload of a frame')
  for (const bytes of [frame(TEXT, payload), frame(BINARY, payload, { mask: null }), frame(BINARY, payload)]) {
    const { bytes: told } = await raw(web, { send: Buffer.concat([Buffer.from(get(signed())), bytes]) })
    answers.push(told.toString('latin1').replace(/^HTTP\/1\.1 101 .*?\r\n\r\n/s, ''))
  }
  const token = plant('token in the CONNECT of a WebSocket')
  const username = `u?x-amz-customauthorizer-name=signed&MyToken=${token}&x-amz-customauthorizer-signature=${encodeURIComponent(vault.signed(token))}`
  const text = plant('payload over a WebSocket')
  await publishOverWss(`wss://localhost:${web}/mqtt`, '127.0.0.1', text, {
    username,
    password: plant('password in the CONNECT of a WebSocket'),
  })
  await t.throwsAsync(
    publishOverWss(`wss://localhost:${web}/mqtt`, '127.0.0.1', text, {
      username: username.replace(token, plant('wrong token in CONNECT')),
    }),
  )
  await logged(
    'signature_mismatch',
    'signature_expired',
    'session_token_invalid',
    'access_key_unknown',
    'websocket',
    'subprotocol',
  )
})

test.serial('Authorization headers, cookies, bodies and tokens of HTTPS requests', async (t) => {
  const { web, https: port } = vault.ports
  const body = plant('body of a publish')
  const cookie = `Cookie: id=${plant('cookie of a request')}`
  const certificate = { certificate: device }
  const basic = `Authorization: Basic ${Buffer.from(`alice:${plant('Basic password')}`).toString('base64')}`
  const bearer = `Authorization: Bearer ${plant('Bearer token')}`
  const post = (target: string, ...fields: readonly string[]) => withBody(`POST ${target}`, body, cookie, ...fields)
  t.regex(await refusedHttps(port, post('/topics/a?qos=1', bearer), certificate), /^HTTP\/1\.1 200 /)
  for (const [request, status] of [
    [post('/topics/not/mine?qos=1', bearer), 401],
    [post(`/topics/a?qos=${plant('quality of service')}`), 400],
    [post(`/topics/a?qos=1&key=${plant('query of a publish')}&qos=0`, basic), 400],
    [post('/topics/a?qos=1', `x-amz-mqtt5-user-properties: ${plant('user properties that are no JSON')}`), 400],
    [post('/topics/a?qos=1', `x-amz-mqtt5-message-expiry: ${plant('expiry that is no number')}`), 400],
    [head(`GET /nothing?key=${plant('query of nothing')}`, bearer), 404],
    [head(`DELETE /topics/a?key=${plant('query of a wrong method')}`, bearer), 405],
    [head('POST /topics/a', 'Content-Length: 9999999', bearer), 413],
    [head(`GET /${'a'.repeat(20_000)}`, bearer), 431],
    [`GET / HTTP/1.1\r\nHost: localhost\r\n${plant('header without a colon')}\r\n\r\n`, 400],
    [`POST /topics/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: ${plant('length that is none')}\r\n\r\n`, 400],
    [
      `POST /topics/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n${plant('chunk that is none')}\r\n\r\n`,
      400,
    ],
    [`POST /topics/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: ${plant('coding that is none')}\r\n\r\n`, 400],
    [`${plant('method that is none')} / HTTP/1.1\r\nHost: localhost\r\n\r\n`, 400],
    [`GET / HTTP/1.1\r\nHost: ${plant('host of another')}.test\r\nConnection: close\r\n\r\n`, 421],
    [head(`GET http://user:${plant('password of a target')}@localhost/`), 400],
  ] as const) {
    const options = request.includes('not/mine') ? { certificate: powerless } : certificate
    const told = await refusedHttps(port, request, options)
    t.regex(
      told,
      status === 400 ? /^$|^HTTP\/1\.1 4\d\d / : new RegExp(`^HTTP/1\\.1 ${status} `),
      request.slice(0, 100),
    )
  }
  for (const fields of [
    [basic],
    [bearer],
    [`Authorization: AWS4-HMAC-SHA256 ${plant('credential that is none')}`],
    ['x-amz-customauthorizer-name: people', basic],
    [
      'x-amz-customauthorizer-name: signed',
      `MyToken: ${plant('token in a header')}`,
      `x-amz-customauthorizer-signature: ${plant('signature in a header')}`,
    ],
    [
      'x-amz-customauthorizer-name: tokens',
      `Authorization: Basic ${Buffer.from(`u:x.${plant('JWT in a header')}`).toString('base64')}`,
    ],
  ]) {
    t.regex(await refusedHttps(web, post('/topics/a?qos=1', ...fields)), /^HTTP\/1\.1 4\d\d /)
  }
  const right = `Authorization: Basic ${Buffer.from(`alice:${vault.password}`).toString('base64')}`
  t.regex(
    await refusedHttps(web, post('/topics/a?qos=1', 'x-amz-customauthorizer-name: people', right)),
    /^HTTP\/1\.1 200 /,
  )
  for (const wrong of [false, true]) {
    const { authorization, date } = signedHeaders(
      body,
      wrong ? plant('secret access key of a stranger') : vault.keys.permanent.secret,
    )
    const told = await refusedHttps(web, post('/topics/a?qos=1', `X-Amz-Date: ${date}`, authorization))
    t.regex(told, wrong ? /^HTTP\/1\.1 403 / : /^HTTP\/1\.1 200 /)
  }
  await logged('http_malformed', 'http_body_too_large', 'http_headers_too_large', 'host_mismatch', 'http_not_found')
})

/** As a device signs a publish in its headers; the signature is kept as a secret. */
function signedHeaders(body: string, secret: string): { readonly authorization: string; readonly date: string } {
  const date = timestampOf(new Date())
  const scope = { date: date.slice(0, 8), region: REGION, service: 'iotdata' }
  const names = 'host;x-amz-date'
  const request = canonicalRequest({
    method: 'POST',
    path: canonicalPath('/topics/a', 'double'),
    query: canonicalQuery([['qos', '1']]),
    headers: canonicalHeaders(['Host', 'localhost', 'X-Amz-Date', date], names.split(';')) ?? '',
    signedHeaders: names,
    payloadHash: sha256Hex(body),
  })
  const signature = sign(signingKey(secret, scope), date, scope, request)
  vault.secrets.keep(`signature in a header ${randomBytes(6).toString('hex')}`, signature)
  const credential = `${vault.keys.permanent.id}/${scope.date}/${scope.region}/${scope.service}/aws4_request`
  return {
    authorization: `Authorization: AWS4-HMAC-SHA256 Credential=${credential}, SignedHeaders=${names}, Signature=${signature}`,
    date,
  }
}

test.serial('requests that are forwarded, to a backend that answers, answers nonsense, and is not there', async (t) => {
  const port = vault.ports.https
  const options = { certificate: device }
  const fields = [
    `Cookie: id=${plant('cookie that is forwarded')}`,
    `Authorization: Bearer ${plant('Bearer token that is forwarded')}`,
  ]
  const body = plant('body that is forwarded')
  const query = plant('query that is forwarded')
  const post = (path: string) => withBody(`POST ${path}?key=${query}`, body, ...fields)
  t.regex(await https(port, post('/shadows/a'), options), /^HTTP\/1\.1 200 /)
  t.regex(await refusedHttps(port, post('/broken/a'), options), /^HTTP\/1\.1 50[0234] /)
  t.regex(await refusedHttps(port, post('/away/a'), options), /^HTTP\/1\.1 50[0234] /)
  const cut = `${head('POST /shadows/a', 'Content-Length: 1000', ...fields).replace('Connection: close\r\n', '')}${body}`
  await raw(port, { ...options, send: cut, timeoutMs: 1_000 })
  t.true((await vault.proxy.metrics()).includes('brokergate_'))
})

test.serial(
  'bytes before TLS: plain HTTP and MQTT, PROXY headers with TLVs, and those that cannot be read',
  async (t) => {
    const { mqtt, proxied } = vault.ports
    const secret = plant('bytes before TLS')
    const signature = Buffer.from('0d0a0d0a000d0a515549540a', 'hex')
    const tlv = (type: number, value: string) =>
      Buffer.concat([Buffer.from([type, 0, value.length]), Buffer.from(value)])
    const v2 = (command: number, ...tlvs: readonly Buffer[]) => {
      const rest = Buffer.concat([Buffer.from('c0000201c000020204d22327', 'hex'), ...tlvs])
      const length = Buffer.alloc(2)
      length.writeUInt16BE(rest.length)
      return Buffer.concat([signature, Buffer.from([command, 0x11]), length, rest])
    }
    const plain = (port: number, bytes: Buffer | string) =>
      new Promise<void>((resolve) => {
        const socket = connectTcp({ host: '127.0.0.1', port }, () => socket.end(bytes))
        socket.on('data', (chunk) => answers.push(chunk.toString('latin1')))
        socket.on('error', () => {})
        socket.on('close', () => resolve())
      })
    const before = plant('authority in a PROXY header')
    for (const [port, bytes] of [
      [mqtt, `GET /mqtt?token=${secret} HTTP/1.1\r\nAuthorization: ${secret}\r\n\r\n`],
      [mqtt, secret],
      [mqtt, Buffer.concat([Buffer.from('1020', 'hex'), Buffer.from(secret)])],
      [mqtt, v2(0x21, tlv(0x02, before), tlv(0xe0, secret))],
      [proxied, v2(0x21, tlv(0x02, before), tlv(0xe0, secret))],
      [proxied, Buffer.concat([v2(0x21, tlv(0x02, before)), Buffer.from(`GET /?${secret}`)])],
      [proxied, v2(0x2f, tlv(0x02, before))],
      [proxied, `PROXY TCP4 ${secret} ${secret} 1 2\r\n`],
      [proxied, `PROXY ${secret}`],
      [proxied, secret],
      [mqtt, Buffer.concat([Buffer.from('1603010040010000', 'hex'), Buffer.from(`${secret}${secret}${secret}`)])],
    ] as const) {
      await plain(port, bytes)
    }
    await logged('not_tls', 'proxy_header')
    t.pass()
  },
)

test.serial('none of it came out: log, metrics, events, admin socket, commands, answers', async (t) => {
  const live = await rawDevice(t, {
    port: vault.ports.mqtt,
    version: 5,
    clientId: 'still-here',
    connect: { username: 'u', password: Buffer.from(plant('password of a live session')) },
  })
  await live.hear('connack')
  const command = (...args: string[]) => brokergate([...args, '-c', vault.file], vault.env)
  const said = [
    await vault.proxy.metrics(),
    await command('connections'),
    await command('certs', 'list'),
    await command('check'),
    await command('certs', 'revoke', powerless.cert.fingerprint256.replaceAll(':', '').toLowerCase()),
  ]
  t.regex(said[1]!, /still-here/)
  for (const path of ['/status', '/connections', '/certificates']) {
    said.push(JSON.stringify(await ask(`${vault.dir}/admin.sock`, path, 'GET')))
  }
  await eventually(() => events.length > 10, 'events')
  await vault.proxy.stop()
  const outputs = {
    log: vault.proxy.output(),
    'what the commands print': said.join('\n'),
    'events at the broker': JSON.stringify(events),
    'answers to devices': answers.join('\n'),
  }
  t.true(vault.secrets.names.length >= 20)
  t.true(vault.proxy.lines().length > 100)
  t.log(`${vault.secrets.names.length} secrets, ${new Set(reasons()).size} reasons, ${outputs.log.length} bytes of log`)
  for (const [name, text] of Object.entries(outputs)) t.is(leakText(vault.secrets.scan(text)), '', name)
  t.notRegex(outputs.log, /unhandled|uncaught/i)

  // The same search finds what is there: a line with a secret in it, and what a device was rightly given.
  t.not(leakText(vault.secrets.scan(`${outputs.log}{"detail":"${vault.password}"}`)), '')
})
