// The AWS IoT Device SDK v2 for JavaScript, unmodified, in each of its builders: whoever moves a fleet from the account
// endpoint to this door changes a host name, a port and a CA, and nothing else.
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import test from 'ava'
import { witness } from '../support/clients.ts'
import { eventually } from '../support/e2e.ts'
import { ACCESS_KEY, openGateway, REGION, signatureOf, TEMPORARY_KEY, TOKEN } from '../support/gateway.ts'
import { forWholeFile } from '../support/proxy.ts'
import type { SdkWay } from '../support/sdk-device.ts'

const exec = promisify(execFile)
const SCRIPT = new URL('../support/sdk-device.ts', import.meta.url).pathname
const file = forWholeFile(test)
let gateway: Awaited<ReturnType<typeof openGateway>>
let seen: Awaited<ReturnType<typeof witness>>
test.before(async () => {
  gateway = await openGateway(file)
  seen = await witness(file, gateway, 'sdk/#')
})

async function device(changes: Pick<SdkWay, 'builder' | 'version' | 'port' | 'payload'> & Partial<SdkWay>) {
  const way: SdkWay = {
    clientId: `sdk-${changes.payload.replace(/\W+/g, '-')}`,
    topic: 'sdk/in',
    ca: `${gateway.dir}/ca.pem`,
    cert: `${gateway.dir}/device.pem`,
    key: `${gateway.dir}/device.key`,
    region: REGION,
    accessKey: ACCESS_KEY,
    custom: {
      authorizerName: 'signed',
      username: 'alice',
      password: 'wonderland',
      tokenKeyName: 'MyToken',
      tokenValue: TOKEN,
      tokenSignature: signatureOf(TOKEN),
    },
    ...changes,
  }
  const { stdout } = await exec(process.execPath, [SCRIPT, JSON.stringify(way)])
  return JSON.parse(stdout.trim().split('\n').at(-1)!) as { ok: boolean; error?: string }
}

for (const version of [5, 4] as const) {
  const name = version === 5 ? 'MQTT 5' : 'MQTT 3.1.1'
  const builders = [
    ['mtls', 'mqtt', 'mutual TLS on 8883'],
    ['mtls', 'web', 'mutual TLS on 443, ALPN x-amzn-mqtt-ca'],
    ['sigv4', 'web', 'WebSocket with Signature Version 4'],
    ['custom', 'web', 'custom authorizer, ALPN mqtt'],
    ...(version === 5 ? ([['custom-websocket', 'web', 'custom authorizer over WebSocket']] as const) : []),
  ] as const
  for (const [builder, port, what] of builders) {
    test.serial(`${name}, ${what}: connects and its publish arrives`, async (t) => {
      const payload = `${name} ${what}`
      t.deepEqual(await device({ builder, version, port: gateway.ports[port], payload }), { ok: true })
      t.truthy(await eventually(() => seen.find((message) => message.payload === payload), payload))
    })
  }
}

test.serial(
  'WebSocket with temporary credentials: the session token outside of the signature is held to',
  async (t) => {
    const { id, secret, token } = TEMPORARY_KEY
    const port = gateway.ports.web
    const good = { builder: 'sigv4', version: 5, port, payload: 'temporary', accessKey: { id, secret, token } } as const
    t.deepEqual(await device(good), { ok: true })
    t.false((await device({ ...good, accessKey: { id, secret, token: `${token}x` } })).ok)
  },
)

test.serial(
  'what the authorizer is asked: tls and mqtt, the user name with its telemetry, the password in base64',
  async (t) => {
    gateway.asked.length = 0
    await device({ builder: 'custom', version: 5, port: gateway.ports.web, payload: 'asked' })
    const [asked] = gateway.asked
    t.deepEqual([asked?.protocols, asked?.token, asked?.signatureVerified], [['tls', 'mqtt'], TOKEN, true])
    t.like(asked?.protocolData, {
      tls: { serverName: 'localhost' },
      mqtt: { clientId: 'sdk-asked', password: 'd29uZGVybGFuZA==' },
    })
    t.regex(asked?.protocolData.mqtt?.username ?? '', /^alice\?.*x-amz-customauthorizer-name=signed/)
  },
)

test.serial('a wrong signature is refused, and nobody is asked', async (t) => {
  gateway.asked.length = 0
  const custom = {
    authorizerName: 'signed',
    username: 'alice',
    password: 'p',
    tokenKeyName: 'MyToken',
    tokenValue: TOKEN,
    tokenSignature: signatureOf('something else'),
  }
  for (const builder of ['custom', 'custom-websocket'] as const) {
    t.false((await device({ builder, version: 5, port: gateway.ports.web, payload: 'wrong', custom })).ok)
  }
  t.is(gateway.asked.length, 0)
})
