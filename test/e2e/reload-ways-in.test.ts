// The ways in that speak HTTP under a reload: a keep-alive connection is served once more by what let it in and told to
// come again, a WebSocket goes on as any MQTT session, and newcomers meet the new settings.
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { request } from 'node:http'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { connect as connectTls, type TLSSocket } from 'node:tls'
import test, { type ExecutionContext } from 'ava'
import { call } from '../support/clients.ts'
import { CONNACK, ca, connectPacket, eventually, PINGREQ, PINGRESP } from '../support/e2e.ts'
import { device, type Gateway, openGateway, TOKEN, write } from '../support/gateway.ts'

async function reload(gateway: Gateway, change: (config: string) => string): Promise<string> {
  const file = join(gateway.dir, 'brokergate.yaml')
  write(gateway.dir, 'brokergate.yaml', change(readFileSync(file, 'utf8')))
  const asked = request({ socketPath: join(gateway.dir, 'admin.sock'), path: '/reload', method: 'POST', agent: false })
  asked.end()
  const [response] = await once(asked, 'response')
  return text(response)
}

/** What comes on a socket, as text, whoever asks for it. */
function heard(socket: TLSSocket): { read(): string; ended(): boolean } {
  let got = ''
  let ended = false
  socket.on('data', (chunk: Buffer) => {
    got += chunk.toString('latin1')
  })
  socket.on('end', () => {
    ended = true
  })
  socket.on('error', () => {})
  return { read: () => got, ended: () => ended }
}

async function open(t: ExecutionContext, port: number, certificate = false): Promise<TLSSocket> {
  const proof = certificate ? { cert: device.chainPem, key: device.keyPem } : {}
  const socket = connectTls({ host: '127.0.0.1', port, servername: 'localhost', ca: ca.certPem, ...proof })
  t.teardown(() => socket.destroy())
  await once(socket, 'secureConnect')
  return socket
}

/** One message, masked with zeros (RFC 6455 §5.3). */
const frame = (packet: Buffer): Buffer => Buffer.concat([Buffer.from([0x82, 0x80 | packet.length, 0, 0, 0, 0]), packet])
const unmasked = (packet: Buffer): string =>
  Buffer.concat([Buffer.from([0x82, packet.length]), packet]).toString('latin1')
const QUERY = `x-amz-customauthorizer-name=open&MyToken=${TOKEN}`

for (const workers of [1, 2]) {
  test.serial(`HTTP and WebSockets under a reload, on ${workers} worker${workers === 1 ? '' : 's'}`, async (t) => {
    const gateway = await openGateway(t, { workers })
    const { web, https } = gateway.ports

    const kept = await open(t, https, true)
    const answers = heard(kept)
    const publish = `POST /topics/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nhi`
    kept.write(publish)
    await eventually(() => answers.read().includes('"OK"'), 'the first answer')
    t.regex(answers.read(), /connection: keep-alive/i)

    const socket = await open(t, web)
    const frames = heard(socket)
    socket.write(
      `GET /mqtt?${QUERY} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n`,
    )
    await eventually(() => frames.read().includes('101 Switching'), 'the upgrade')
    socket.write(frame(connectPacket('over-wss')))
    await eventually(() => frames.read().endsWith(unmasked(CONNACK)), 'CONNACK')

    t.regex(
      await reload(gateway, (config) =>
        config
          .replace('path: "/things/*/shadow"', 'path: "/v2/things/*/shadow"')
          .replace('shadows: { kind: http,', 'shadows: { kind: http, timeout: 9s,'),
      ),
      /"kind":"done"/,
    )
    const asDevice = { certificate: device, method: 'GET' }
    // New connections know the new route and not the old one.
    t.is((await call(https, '/v2/things/one/shadow', asDevice)).status, 200)
    t.is((await call(https, '/things/one/shadow', asDevice)).status, 404)
    // The connection that was there is served by what let it in, and ends.
    kept.write('GET /things/one/shadow HTTP/1.1\r\nHost: localhost\r\n\r\n')
    await eventually(() => answers.read().includes('forwarded'), 'the last answer')
    t.regex(answers.read(), /connection: close/i)
    await eventually(() => answers.ended(), 'the end of the connection')
    t.regex(answers.read().slice(answers.read().lastIndexOf('HTTP/1.1')), /^HTTP\/1\.1 200/)
    kept.destroy()

    socket.write(frame(PINGREQ))
    await eventually(() => frames.read().endsWith(unmasked(PINGRESP)), 'PINGRESP')
    // Its authorizer is taken from the domain: its identity has ended.
    t.regex(
      await reload(gateway, (config) => config.replace('authorizers: [ signed, open ]', 'authorizers: [ signed ]')),
      /"kind":"done"/,
    )
    await eventually(() => frames.ended() || socket.destroyed, 'the end of the WebSocket')
    t.is(await gateway.proxy.metric('brokergate_connections_closed_total{reason="authorization_ended"}'), 1)
    socket.destroy()
    await eventually(
      async () => (await gateway.proxy.metric('brokergate_config_generations_live')) === 1,
      'one generation alone',
    )
  })
}
