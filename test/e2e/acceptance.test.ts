// The acceptance checklist of the device gateway: each test names its item. Items 1 to 17 and 30 are the ways in.
import test from 'ava'
import { brokergate, call, connectDevice, curl, withCertificate, witness } from '../support/clients.ts'
import { eventually, sleep } from '../support/e2e.ts'
import {
  ACCESS_KEY,
  type Answer,
  device,
  openGateway,
  raw,
  signatureOf,
  TEMPORARY_KEY,
  TOKEN,
  VECTOR_HOST,
  yes,
} from '../support/gateway.ts'
import { forWholeFile } from '../support/proxy.ts'

const file = forWholeFile(test)
let gateway: Awaited<ReturnType<typeof openGateway>>
let seen: Awaited<ReturnType<typeof witness>>
test.before(async () => {
  gateway = await openGateway(file)
  seen = await witness(file, gateway, 'accept/#')
})

const agree: Answer = (asked, response) => void response.end(JSON.stringify(yes(asked)))
test.beforeEach(() => {
  gateway.answer = agree
  gateway.asked.length = 0
})

const direct = (alpn?: string) => ({ ...withCertificate, ...(alpn !== undefined && { ALPNProtocols: [alpn] }) })
const parameters = (signature: string) =>
  `alice?x-amz-customauthorizer-name=signed&MyToken=${TOKEN}&x-amz-customauthorizer-signature=${signature}`
const byToken = (username: string) => ({ ALPNProtocols: ['mqtt'], username, password: 'p' })
/** CONNECT of MQTT 3.1.1 with client id `a` and no credentials. */
const CONNECT = Buffer.from('100d00044d5154540402003c000161', 'hex')

test.serial('item 1: 8883, registered ACTIVE certificate, no ALPN: CONNACK 0', async (t) => {
  const answer = await raw(gateway.ports.mqtt, { certificate: device, send: CONNECT, enough: 4 })
  t.deepEqual([answer.alpn, answer.bytes.toString('hex')], [false, '20020000'])
})

test.serial('item 2: 8883 with ALPN x-amzn-mqtt-ca: CONNACK 0, and that name is selected', async (t) => {
  const answer = await raw(gateway.ports.mqtt, {
    certificate: device,
    alpn: ['x-amzn-mqtt-ca'],
    send: CONNECT,
    enough: 4,
  })
  t.deepEqual([answer.alpn, answer.bytes.toString('hex')], ['x-amzn-mqtt-ca', '20020000'])
})

test.serial('item 3: 443 with ALPN x-amzn-mqtt-ca: CONNACK 0', async (t) => {
  const answer = await raw(gateway.ports.web, {
    certificate: device,
    alpn: ['x-amzn-mqtt-ca'],
    send: CONNECT,
    enough: 4,
  })
  t.deepEqual([answer.alpn, answer.bytes.toString('hex')], ['x-amzn-mqtt-ca', '20020000'])
})

test.serial('item 4: 443 without ALPN, raw MQTT: closed, no CONNACK', async (t) => {
  t.is((await raw(gateway.ports.web, { certificate: device, send: CONNECT })).bytes.length, 0)
})

test.serial('item 5: 443, ALPN mqtt, good parameters: CONNACK 0, the authorizer got tls and mqtt', async (t) => {
  const client = await connectDevice(
    t,
    `mqtts://127.0.0.1:${gateway.ports.web}`,
    byToken(parameters(encodeURIComponent(signatureOf(TOKEN)))),
  )
  t.true(client.connected)
  t.deepEqual(gateway.asked[0]?.protocols, ['tls', 'mqtt'])
})

for (const [name, spelled] of [
  ['raw', (text: string) => text],
  ['percent-encoded', encodeURIComponent],
] as const) {
  test.serial(`item 6: a signature with + / = in the user name, ${name}: accepted`, async (t) => {
    const client = await connectDevice(
      t,
      `mqtts://127.0.0.1:${gateway.ports.web}`,
      byToken(parameters(spelled(signatureOf(TOKEN)))),
    )
    t.true(client.connected)
  })
}

test.serial('item 7: a wrong signature: the authorizer is not called, refused', async (t) => {
  const wrong = byToken(parameters(encodeURIComponent(signatureOf('another'))))
  await t.throwsAsync(connectDevice(t, `mqtts://127.0.0.1:${gateway.ports.web}`, wrong))
  t.is(gateway.asked.length, 0)
})

test.serial('item 8: an authorizer that answers after 5.1 s: refused', async (t) => {
  gateway.answer = async (asked, response) => {
    await sleep(5_100)
    response.end(JSON.stringify(yes(asked)))
  }
  await t.throwsAsync(
    connectDevice(
      t,
      `mqtts://127.0.0.1:${gateway.ports.web}`,
      byToken(parameters(encodeURIComponent(signatureOf(TOKEN)))),
    ),
  )
  t.is(gateway.asked.length, 1)
})

const VECTOR =
  '/mqtt?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIDEXAMPLE%2F20150830%2Fus-east-1%2Fiotdevicegateway%2Faws4_request' +
  '&X-Amz-Date=20150830T123600Z&X-Amz-SignedHeaders=host&X-Amz-Signature=d4b333d2c6d012d4a9a06ece77a5a630cdb3017ca13a76929da066d1af62084c'
const UPGRADE =
  'Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n'
const upgrade = (port: number, target: string, protocol = 'mqtt') =>
  raw(port, {
    servername: VECTOR_HOST,
    send: `GET ${target} HTTP/1.1\r\nHost: ${VECTOR_HOST}\r\n${UPGRADE}Sec-WebSocket-Protocol: ${protocol}\r\n\r\n`,
    enough: 12,
  })

test.serial(
  'items 9 and 11: the published vector at its own time: 101; with one byte changed: 403 in JSON',
  async (t) => {
    const then = await openGateway(t, { startsAt: '2015-08-30 12:36:30' })
    const { web } = then.ports
    t.regex((await upgrade(web, VECTOR)).text, /^HTTP\/1\.1 101 /)
    const other = await raw(web, {
      servername: VECTOR_HOST,
      send: `GET ${VECTOR.slice(0, -1)}d HTTP/1.1\r\nHost: ${VECTOR_HOST}\r\n${UPGRADE}Sec-WebSocket-Protocol: mqtt\r\n\r\n`,
    })
    t.regex(other.text, /^HTTP\/1\.1 403 .*x-amzn-ErrorType: ForbiddenException:.*"message":/is)
    t.regex((await upgrade(gateway.ports.web, VECTOR)).text, /^HTTP\/1\.1 403 /)
  },
)

test.serial('item 10: a temporary key with its token appended: 101; with a wrong one or none: 403', async (t) => {
  const { id, secret, token } = TEMPORARY_KEY
  const url = await brokergate(
    ['presign', '--url', `wss://${VECTOR_HOST}/mqtt`, '--region', 'us-east-1', '--access-key-id', id],
    { AWS_SECRET_ACCESS_KEY: secret, AWS_SESSION_TOKEN: token },
  )
  const target = url.slice(url.indexOf('/mqtt'))
  t.true(target.includes(`X-Amz-Security-Token=${encodeURIComponent(token)}`))
  t.regex((await upgrade(gateway.ports.web, target)).text, /^HTTP\/1\.1 101 /)
  t.regex((await upgrade(gateway.ports.web, `${target}x`)).text, /^HTTP\/1\.1 403 /)
  t.regex(
    (await upgrade(gateway.ports.web, target.replace(/&X-Amz-Security-Token=[^&]*/, ''))).text,
    /^HTTP\/1\.1 403 /,
  )
})

test.serial('item 12: 443 with ALPN http/1.1 and a WebSocket: 101, and the name is selected', async (t) => {
  const target = `/mqtt?${parameters(encodeURIComponent(signatureOf(TOKEN))).slice(6)}`
  const answer = await raw(gateway.ports.web, {
    alpn: ['http/1.1'],
    send: `GET ${target} HTTP/1.1\r\nHost: localhost\r\n${UPGRADE}Sec-WebSocket-Protocol: mqtt\r\n\r\n`,
    enough: 12,
  })
  t.is(answer.alpn, 'http/1.1')
  t.regex(answer.text, /^HTTP\/1\.1 101 .*sec-websocket-protocol: mqtt\r\n/is)
})

test.serial('item 13: the subprotocol mqttv3.1: 101, echoed, and a level-4 CONNECT is accepted', async (t) => {
  const target = `/mqtt?${parameters(encodeURIComponent(signatureOf(TOKEN))).slice(6)}`
  // A masked frame (RFC 6455 §5.2) whose mask is zero.
  const frame = Buffer.concat([Buffer.from([0x82, 0x80 | CONNECT.length, 0, 0, 0, 0]), CONNECT])
  const answer = await raw(gateway.ports.web, {
    send: Buffer.concat([
      Buffer.from(`GET ${target} HTTP/1.1\r\nHost: localhost\r\n${UPGRADE}Sec-WebSocket-Protocol: mqttv3.1\r\n\r\n`),
      frame,
    ]),
    // A frame with CONNACK 0.
    enough: Buffer.from('820420020000', 'hex'),
    timeoutMs: 5_000,
  })
  t.regex(answer.text, /^HTTP\/1\.1 101 .*sec-websocket-protocol: mqttv3\.1\r\n/is)
  t.true(answer.bytes.includes(Buffer.from('820420020000', 'hex')))
})

test.serial('item 14: POST on 8443 with slashes raw and encoded: 200, the same topic, message OK', async (t) => {
  for (const [path, payload] of [
    ['/topics/accept/b?qos=1', 'raw'],
    ['/topics/accept%2Fb?qos=1', 'encoded'],
  ] as const) {
    const text = await curl([
      '--include',
      '--cacert',
      `${gateway.dir}/ca.pem`,
      '--cert',
      `${gateway.dir}/device.pem`,
      '--key',
      `${gateway.dir}/device.key`,
      '--data',
      payload,
      `https://localhost:${gateway.ports.https}${path}`,
    ])
    t.regex(text, /^HTTP\/1\.1 200 OK\r\n/)
    const [, requestId] = /x-amzn-RequestId: ([0-9a-f-]{36})\r\n/i.exec(text) ?? []
    t.deepEqual(JSON.parse(text.slice(text.indexOf('{'))), { message: 'OK', traceId: requestId })
    t.is((await eventually(() => seen.find((message) => message.payload === payload), payload)).topic, 'accept/b')
  }
})

test.serial('item 15: POST on 443 without credentials: 403 ForbiddenException', async (t) => {
  const answer = await call(gateway.ports.web, '/topics/accept/b', { body: 'x' })
  t.deepEqual([answer.status, answer.headers['x-amzn-errortype']], [403, 'ForbiddenException:'])
  t.like(JSON.parse(answer.body), { message: 'Missing Authentication Token' })
})

test.serial('item 16: GET /topics/x: 405', async (t) => {
  const answer = await call(gateway.ports.https, '/topics/x', { method: 'GET', certificate: device })
  t.deepEqual([answer.status, answer.headers['x-amzn-errortype']], [405, 'MethodNotAllowedException:'])
})

test.serial('item 17: a user name with telemetry beside a certificate: ignored', async (t) => {
  const client = await connectDevice(t, `mqtts://127.0.0.1:${gateway.ports.mqtt}`, {
    ...direct(),
    username: '?SDK=IoTDeviceSDK/JS&Platform=linux&Metadata=(CRTVersion=1.2.3)',
  })
  t.true(client.connected)
  t.deepEqual([gateway.asked.length, ACCESS_KEY.id], [0, 'AKIDEXAMPLE'])
})

test.serial('item 30: an unknown server name: the handshake fails', async (t) => {
  const answer = await raw(gateway.ports.mqtt, { servername: 'unknown.test', certificate: device })
  t.regex(answer.error ?? '', /UNRECOGNIZED_NAME/i)
})
