// Every row of the table of ways in, A to I, with the clients that people use, over IPv4 and over IPv6: what they
// publish arrives at the broker behind. And every combination that is not a row is refused.
import test from 'ava'
import { brokergate, call, connectDevice, curl, publishOverWss, withCertificate, witness } from '../support/clients.ts'
import { eventually } from '../support/e2e.ts'
import { ACCESS_KEY, ca, device, openGateway, REGION, raw, signatureOf, stranger, TOKEN } from '../support/gateway.ts'
import { forWholeFile } from '../support/proxy.ts'

const file = forWholeFile(test)
let gateway: Awaited<ReturnType<typeof openGateway>>
let seen: Awaited<ReturnType<typeof witness>>
test.before(async () => {
  gateway = await openGateway(file)
  seen = await witness(file, gateway, 'ways/#')
})

const arrived = (payload: string) => eventually(() => seen.find((message) => message.payload === payload), payload)

const custom = (more = '') =>
  `x-amz-customauthorizer-name=signed&MyToken=${TOKEN}&x-amz-customauthorizer-signature=${encodeURIComponent(signatureOf(TOKEN))}${more}`

const presigned = () =>
  brokergate(
    ['presign', '--url', `wss://localhost:${gateway.ports.web}`, '--region', REGION, '--access-key-id', ACCESS_KEY.id],
    { AWS_SECRET_ACCESS_KEY: ACCESS_KEY.secret },
  )

/** Publishes over MQTT.js; the host of the URL is an address, so that one row is tried per family. */
const overMqtt = async (t: Parameters<typeof connectDevice>[0], url: string, options: object, payload: string) => {
  const client = await connectDevice(t, url, options)
  await client.publishAsync('ways/in', payload, { qos: 1 })
}

const ways: readonly {
  readonly row: string
  readonly go: (t: Parameters<typeof connectDevice>[0], host: string, payload: string) => Promise<void>
}[] = [
  {
    row: 'A: MQTT over WSS, presigned URL',
    async go(_t, host, payload) {
      await publishOverWss(await presigned(), host, payload)
    },
  },
  {
    row: 'B: MQTT over WSS, custom authorizer in the upgrade',
    go: (_t, host, payload) => publishOverWss(`wss://localhost:${gateway.ports.web}/mqtt?${custom()}`, host, payload),
  },
  {
    row: 'B: MQTT over WSS, custom authorizer in CONNECT',
    go: (_t, host, payload) =>
      publishOverWss(`wss://localhost:${gateway.ports.web}/mqtt`, host, payload, {
        username: `alice?${custom()}`,
        password: 'p',
      }),
  },
  {
    row: 'C: MQTT on 443, certificate, ALPN x-amzn-mqtt-ca',
    go: (t, host, payload) =>
      overMqtt(
        t,
        `mqtts://${host}:${gateway.ports.web}`,
        { ...withCertificate, ALPNProtocols: ['x-amzn-mqtt-ca'] },
        payload,
      ),
  },
  {
    row: 'D: MQTT on 8883, certificate',
    go: (t, host, payload) => overMqtt(t, `mqtts://${host}:${gateway.ports.mqtt}`, withCertificate, payload),
  },
  {
    row: 'E: MQTT on 443, custom authorizer, ALPN mqtt',
    go: (t, host, payload) =>
      overMqtt(
        t,
        `mqtts://${host}:${gateway.ports.web}`,
        { ALPNProtocols: ['mqtt'], username: `alice?${custom()}`, password: 'p' },
        payload,
      ),
  },
  {
    row: 'F: HTTPS publish, Signature Version 4',
    go: (_t, host, payload) =>
      published(host, gateway.ports.web, payload, [
        '--aws-sigv4',
        `aws:amz:${REGION}:iotdevicegateway`,
        '--user',
        `${ACCESS_KEY.id}:${ACCESS_KEY.secret}`,
      ]),
  },
  {
    row: 'G: HTTPS publish on 443, certificate, ALPN x-amzn-http-ca',
    async go(_t, host, payload) {
      const answer = await call(gateway.ports.web, '/topics/ways/in?qos=1', {
        host: host.replace(/[[\]]/g, ''),
        certificate: device,
        alpn: ['x-amzn-http-ca'],
        body: payload,
      })
      if (answer.status !== 200) throw new Error(`${answer.status} ${answer.body}`)
    },
  },
  {
    row: 'H: HTTPS publish on 8443, certificate',
    go: (_t, host, payload) =>
      published(host, gateway.ports.https, payload, [
        '--cert',
        `${gateway.dir}/device.pem`,
        '--key',
        `${gateway.dir}/device.key`,
      ]),
  },
  {
    row: 'I: HTTPS publish, custom authorizer',
    go: (_t, host, payload) =>
      published(host, gateway.ports.web, payload, [
        '-H',
        'x-amz-customauthorizer-name: signed',
        '-H',
        `MyToken: ${TOKEN}`,
        '-H',
        `x-amz-customauthorizer-signature: ${signatureOf(TOKEN)}`,
      ]),
  },
]

/** One publish with curl, which names `localhost` and is led to the address. */
async function published(host: string, port: number, payload: string, args: readonly string[]): Promise<void> {
  const answer = await curl([
    '--cacert',
    `${gateway.dir}/ca.pem`,
    '--connect-to',
    `localhost:${port}:${host}:${port}`,
    '--data-binary',
    payload,
    ...args,
    `https://localhost:${port}/topics/ways/in?qos=1`,
  ])
  const body = JSON.parse(answer) as { message: string }
  if (body.message !== 'OK') throw new Error(answer)
}

for (const [family, host] of [
  ['IPv4', '127.0.0.1'],
  ['IPv6', '[::1]'],
] as const) {
  for (const { row, go } of ways) {
    test.serial(`${row}, over ${family}`, async (t) => {
      const payload = `${row} ${family}`
      await t.notThrowsAsync(go(t, host, payload))
      t.is((await arrived(payload)).topic, 'ways/in')
    })
  }
}

const CONNECT = Buffer.from('101300044d515454040200000007696c6c6567616c', 'hex')
const get = (path: string, headers = '') => `GET ${path} HTTP/1.1\r\nHost: localhost\r\n${headers}\r\n`
const POST = 'POST /topics/ways/in HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx'
const UPGRADE =
  'Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n'

test.serial('443 with a certificate and no ALPN is HTTP: MQTT bytes are closed without an answer', async (t) => {
  const { bytes } = await raw(gateway.ports.web, { certificate: device, send: CONNECT })
  t.deepEqual(bytes, Buffer.alloc(0))
})

test.serial('443 with a certificate and no ALPN: the certificate is no identity for HTTPS', async (t) => {
  const answer = await call(gateway.ports.web, '/topics/ways/in', { certificate: device, body: 'x' })
  t.is(answer.status, 403)
  t.like(JSON.parse(answer.body), { message: 'Missing Authentication Token' })
})

test.serial(
  '443 with ALPN mqtt and a certificate: the authorizer decides, the certificate does not count',
  async (t) => {
    const { bytes } = await raw(gateway.ports.web, { certificate: device, alpn: ['mqtt'], send: CONNECT })
    t.is(bytes.toString('hex'), '20020005')
  },
)

test.serial('443 with ALPN x-amzn-mqtt-ca and no certificate: no MQTT packet comes', async (t) => {
  const { bytes, alpn } = await raw(gateway.ports.web, { alpn: ['x-amzn-mqtt-ca'], send: CONNECT })
  t.deepEqual([alpn, bytes.length], ['x-amzn-mqtt-ca', 0])
})

test.serial('443 with ALPN x-amzn-mqtt-ca: parameters of an authorizer are not looked at', async (t) => {
  const before = gateway.asked.length
  const client = await connectDevice(t, `mqtts://127.0.0.1:${gateway.ports.web}`, {
    ...withCertificate,
    ALPNProtocols: ['x-amzn-mqtt-ca'],
    username: 'alice?x-amz-customauthorizer-name=nobody&MyToken=wrong',
  })
  t.true(client.connected)
  t.is(gateway.asked.length, before)
})

for (const [port, what] of [
  ['https', '8443'],
  ['mqtt', '8883'],
] as const) {
  test.serial(`${what} without a certificate fails`, async (t) => {
    const { bytes } = await raw(gateway.ports[port], { send: port === 'mqtt' ? CONNECT : POST })
    if (port === 'mqtt') t.is(bytes.length, 0)
    else t.regex(bytes.toString(), /^HTTP\/1\.1 403 /)
  })
}

test.serial('8443: headers of an authorizer are not looked at, the certificate is required', async (t) => {
  const before = gateway.asked.length
  const answer = await call(gateway.ports.https, '/topics/ways/in', {
    headers: { 'x-amz-customauthorizer-name': 'open', MyToken: TOKEN },
    body: 'x',
  }).catch(() => null)
  t.true(answer === null || answer.status === 403)
  t.is(gateway.asked.length, before)
})

test.serial('8883: a WebSocket upgrade is no MQTT, and is closed', async (t) => {
  const { bytes } = await raw(gateway.ports.mqtt, { certificate: device, send: get('/mqtt', UPGRADE) })
  t.is(bytes.length, 0)
})

test.serial('8443: a certificate is no identity over WebSocket', async (t) => {
  const { text } = await raw(gateway.ports.https, { certificate: device, send: get('/mqtt', UPGRADE), enough: 12 })
  t.notRegex(text, /^HTTP\/1\.1 101/)
  t.regex(text, /^HTTP\/1\.1 4\d\d /)
})

test.serial('443 without ALPN, a certificate and an upgrade: CONNECT still has to prove somebody', async (t) => {
  const { cert, key } = withCertificate
  await t.throwsAsync(
    publishOverWss(`wss://localhost:${gateway.ports.web}/mqtt`, '127.0.0.1', 'x', { wsOptions: { cert, key } }),
    { message: /not authorized/i },
  )
})

test.serial('a disabled domain, an unknown name and no name are refused before any key work', async (t) => {
  t.regex(
    (await raw(gateway.ports.mqtt, { servername: 'disabled.test' })).error ?? '',
    /UNRECOGNIZED_NAME|unrecognized/i,
  )
  t.regex((await raw(gateway.ports.mqtt, { servername: 'other.test' })).error ?? '', /UNRECOGNIZED_NAME|unrecognized/i)
  t.truthy((await raw(gateway.ports.mqtt, { servername: '' })).error)
})

test.serial('h2 alone is refused with alert 120; with http/1.1 beside it that is taken', async (t) => {
  t.regex((await raw(gateway.ports.web, { alpn: ['h2'] })).error ?? '', /NO_APPLICATION_PROTOCOL/i)
  t.is((await raw(gateway.ports.web, { alpn: ['h2', 'http/1.1'], send: get('/nowhere'), enough: 12 })).alpn, 'http/1.1')
})

test.serial('the jobs endpoint does not take x-amzn-http-ca on 443', async (t) => {
  t.regex((await raw(gateway.ports.web, { servername: 'jobs.test', alpn: ['x-amzn-http-ca'] })).error ?? '', /PROTOCOL/)
})

test.serial('a registered certificate is what counts: a stranger gets nothing', async (t) => {
  const { bytes } = await raw(gateway.ports.mqtt, { certificate: stranger, send: CONNECT })
  t.is(bytes.length, 0)
  t.truthy(ca.certPem)
})
