/**
 * The HTTP front of the real program with curl as the device: publishes with a client certificate on 8443 and on 443 with
 * `x-amzn-http-ca`, a route to an HTTP server behind, and what is refused on the way.
 */

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createServer, type IncomingMessage } from 'node:http'
import type { AddressInfo } from 'node:net'
import { connect as connectTls } from 'node:tls'
import test, { type ExecutionContext } from 'ava'
import { ca, device, mqttClient, server, startMosquitto } from '../support/e2e.ts'
import { folderFor, freePort, OPEN_POLICIES, startProxy, write } from '../support/proxy.ts'

async function opened(t: ExecutionContext) {
  const dir = folderFor(t)
  const [mqtts, https, any, metricsPort, broker] = [
    await freePort(),
    await freePort(),
    await freePort(),
    await freePort(),
    await freePort(),
  ]
  await startMosquitto(t, dir, `listener ${broker} 127.0.0.1\nallow_anonymous true`)
  const seen: IncomingMessage[] = []
  const behind = createServer((request, response) => {
    seen.push(request)
    response.setHeader('content-type', 'application/json')
    response.end('{"state":{}}')
  })
  behind.listen(0, '127.0.0.1')
  await once(behind, 'listening')
  t.teardown(() => behind.close())
  write(dir, 'ca.pem', ca.certPem)
  write(dir, 'server.pem', server.chainPem)
  write(dir, 'server.key', server.keyPem)
  write(dir, 'device.pem', device.chainPem)
  write(dir, 'device.key', device.keyPem)
  write(dir, 'registry/policies.yaml', OPEN_POLICIES)
  const config = write(
    dir,
    'brokergate.yaml',
    `listeners:
  - { bind: "127.0.0.1:${mqtts}", as: 8883 }
  - { bind: "127.0.0.1:${https}", as: 8443 }
  - { bind: "127.0.0.1:${any}", as: 443 }
domains:
  - serverNames: [ localhost ]
    certificates: [ { cert: server.pem, key: server.key } ]
    registry: main
    clientTrust: { mode: ca, ca: [ ca.pem ], policies: [ devices ] }
    backend: main
    routes: [ { path: "/things/*/shadow", methods: [ GET ], backend: shadows, action: "iot:GetThingShadow" } ]
backends:
  main: { kind: tcp, servers: [ { address: "127.0.0.1:${broker}" } ] }
  shadows: { kind: http, url: "http://127.0.0.1:${(behind.address() as AddressInfo).port}" }
registries: { main: { path: registry } }
metrics: { bind: "127.0.0.1:${metricsPort}" }
admin: { socket: admin.sock }
workers: 1
log: { format: json, level: debug }
`,
  )
  const proxy = await startProxy(t, config, metricsPort)
  /** curl's standard output: the status, then the body. */
  const curl = async (port: number, target: string, ...rest: string[]): Promise<string> => {
    const child = spawn('curl', [
      ...['-sS', '--http1.1', '--max-time', '10', '--cacert', `${dir}/ca.pem`],
      ...['-o', '-', '-w', '\n%{http_code}', `https://localhost:${port}${target}`, ...rest],
    ])
    let text = ''
    for (const stream of [child.stdout, child.stderr]) {
      stream.on('data', (chunk: Buffer) => {
        text += chunk
      })
    }
    await once(child, 'close')
    return text
  }
  const certificate = ['--cert', `${dir}/device.pem`, '--key', `${dir}/device.key`]
  return { dir, proxy, seen, curl, certificate, mqtts, https, any }
}

test.serial('curl publishes with a client certificate, and a subscriber has it', async (t) => {
  const { curl, certificate, https, mqtts, proxy } = await opened(t)
  const subscriber = await mqttClient(t, mqtts)
  await subscriber.subscribeAsync('a/#', { qos: 1 })
  const messages: string[] = []
  subscriber.on('message', (topic, payload) => messages.push(`${topic} ${payload}`))

  const answer = await curl(https, '/topics/a%2Fb?qos=1', '-d', 'hello', ...certificate)
  t.regex(answer, /^\{"message":"OK","traceId":"[0-9a-f-]{36}"\}\n200$/)
  await proxy.until(() => messages.includes('a/b hello'), 'the message')
  t.is(await proxy.metric('brokergate_http_requests_total{route="publish",status="200"}'), 1)

  const line = await proxy.until(() => proxy.lines().find((each) => each.protocol === 'https'), 'the line')
  t.like(line, { mode: 'H', event: 'session', reason: 'downstream', requests: 1 })
})

test.serial('a large body that waits for 100, and one that is too large', async (t) => {
  const { dir, curl, certificate, https } = await opened(t)
  const posts = (bytes: number) => {
    const file = write(dir, 'body', 'x'.repeat(bytes))
    return curl(https, '/topics/t', '-d', `@${file}`, '-H', 'Expect: 100-continue', ...certificate)
  }
  t.regex(await posts(131_072), /\n200$/)
  t.regex(await posts(131_073), /\n413$/)
})

test.serial('a route is forwarded with ours alone, and nothing warns of what people cannot change', async (t) => {
  const { curl, certificate, https, seen, proxy } = await opened(t)
  const answer = await curl(https, '/things/t/shadow?name=x', '-H', 'X-Brokergate-Principal: root', ...certificate)
  t.is(answer, '{"state":{}}\n200')
  t.is(seen[0]!.url, '/things/t/shadow?name=x')
  t.regex(String(seen[0]!.headers['x-brokergate-principal']), /^[0-9a-f]{64}$/)
  t.notRegex(proxy.output(), /Deprecat/i)
})

test.serial('what is refused says so, and reaches nobody', async (t) => {
  const { curl, certificate, https, any, seen, proxy } = await opened(t)
  t.regex(await curl(https, '/topics/t', ...certificate), /MethodNot|Method not allowed.*\n405$/)
  t.regex(await curl(https, '/nowhere', ...certificate), /\n404$/)
  t.regex(await curl(https, '/topics/t', '-d', 'x', '-H', 'Host: other.example', ...certificate), /\n421$/)
  t.regex(await curl(https, '/mqtt', '-H', 'Connection: Upgrade', '-H', 'Upgrade: websocket', ...certificate), /\n404$/)
  t.regex(await curl(https, '/topics/t', '-d', 'x'), /\n403$/, 'no certificate')
  t.regex(
    await curl(any, '/topics/t', '-d', 'x', ...certificate),
    /Missing Authentication Token.*\n403$/,
    'it is no identity here',
  )
  t.regex(await curl(any, '/mqtt'), /\n426$/)
  t.deepEqual(seen, [])
  t.is(await proxy.metric('brokergate_http_requests_total{route="none",status="421"}'), 1)
  const line = await proxy.until(
    () => proxy.lines().find((each) => each.event === 'request' && each.status === 421),
    'a line of the refused request',
  )
  t.like(line, { level: 'debug', route: 'none', reason: 'host_mismatch' })
})

test.serial('443 with x-amzn-http-ca takes the certificate, and bytes of MQTT there get no answer', async (t) => {
  const { any } = await opened(t)
  const said = async (bytes: string | Buffer): Promise<string> => {
    const socket = connectTls({
      port: any,
      host: '127.0.0.1',
      servername: 'localhost',
      ca: ca.certPem,
      cert: device.chainPem,
      key: device.keyPem,
      ALPNProtocols: ['x-amzn-http-ca'],
    })
    t.teardown(() => socket.destroy())
    let text = ''
    socket.on('data', (chunk: Buffer) => {
      text += chunk
      if (/\r\n\r\n\{.*\}$/.test(text)) socket.end()
    })
    await once(socket, 'secureConnect')
    t.is(socket.alpnProtocol, 'x-amzn-http-ca')
    socket.write(bytes)
    await once(socket, 'close')
    return text
  }
  t.regex(
    await said('POST /topics/t HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nhi'),
    /^HTTP\/1\.1 200 OK\r\n/,
  )
  t.is(await said(Buffer.from('100f00044d515454040200000003616263', 'hex')), '')
})

test.serial('a stop finishes the request in flight', async (t) => {
  const { proxy, https } = await opened(t)
  const socket = connectTls({
    port: https,
    host: '127.0.0.1',
    servername: 'localhost',
    ca: ca.certPem,
    cert: device.chainPem,
    key: device.keyPem,
  })
  t.teardown(() => socket.destroy())
  await once(socket, 'secureConnect')
  let text = ''
  socket.on('data', (chunk: Buffer) => {
    text += chunk
  })
  socket.write('POST /topics/t HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n')
  await proxy.until(() => text.includes('100 Continue'), '100')
  const stopped = proxy.stop()
  await proxy.until(() => proxy.lines().some((line) => line.message === 'draining'), 'the drain')
  socket.write('hi')
  t.is((await stopped).code, 0)
  t.regex(text, /HTTP\/1\.1 200 OK[\s\S]*connection: close/i)
})
