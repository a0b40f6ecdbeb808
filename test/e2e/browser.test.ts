import { createServer, type IncomingMessage } from 'node:http'
import { type AddressInfo, createServer as createTcpServer } from 'node:net'
import { createSecureContext, TLSSocket } from 'node:tls'
import { Aedes } from 'aedes'
import test, { type ExecutionContext } from 'ava'
import { createCa, issueServer } from '../../src/cli/pki.ts'
import { upgrade } from '../../src/wss/upgrade.ts'
import { listening } from '../backend/conformance.ts'
import { duplexOf } from '../backend/ws-broker.ts'
import { hasBrowser, inBrowser } from './browser.ts'

/**
 * A browser cannot set headers, offers compression, sends an Origin, closes by its own rules, and shows its user
 * nothing when a WebSocket fails. Here it speaks to the stream alone, with a broker behind it.
 */

const issued = issueServer(createCa({ commonName: 'browsers' }), { serverNames: ['iot.example.com'] })
const secureContext = createSecureContext({ cert: issued.chainPem, key: issued.keyPem })

async function broker(t: ExecutionContext) {
  const aedes = await Aedes.createBroker()
  t.teardown(() => new Promise<void>((resolve) => aedes.close(resolve)))
  const requests: IncomingMessage[] = []
  const closed = Promise.withResolvers<string | null>()
  const http = createServer()
  http.on('upgrade', (request, socket, head) => {
    requests.push(request)
    const result = upgrade(request, socket, head, { maxMessageBytes: 1_048_576, firstMessageBytes: 65_536 })
    if (result.kind === 'refused') return socket.destroy()
    const { stream } = result
    stream.on('close', () => closed.resolve(stream.fault?.code ?? null))
    const duplex = duplexOf(stream)
    duplex.on('error', () => {})
    aedes.handle(duplex)
  })
  const server = createTcpServer((socket) => {
    const tls = new TLSSocket(socket, { isServer: true, secureContext, ALPNProtocols: ['http/1.1'] })
    tls.on('error', () => {})
    tls.once('secure', () => http.emit('connection', tls))
  })
  await listening(t, server, { host: '127.0.0.1', port: 0 })
  return { port: (server.address() as AddressInfo).port, requests, closed: closed.promise }
}

const withBrowser = hasBrowser ? test.serial : test.serial.skip

for (const protocolVersion of [4, 5]) {
  withBrowser(`a page in Chromium speaks MQTT ${protocolVersion} over WebSocket`, async (t) => {
    t.timeout(90_000)
    const { port, requests, closed } = await broker(t)
    const report = await inBrowser(t, {
      url: `wss://iot.example.com:${port}/mqtt`,
      certificate: issued.certPem,
      localNames: ['iot.example.com'],
      topic: 'browser/echo',
      payload: 'grüße',
      options: { protocolVersion, clientId: 'page-1' },
    })
    t.like(report, { connected: true, received: 'grüße', error: null })
    t.regex(report.userAgent, /Chrome/)
    const { headers } = requests[0]!
    t.is(headers.host, `iot.example.com:${port}`)
    t.is(headers['sec-websocket-protocol'], 'mqtt')
    t.regex(String(headers['sec-websocket-extensions']), /permessage-deflate/, 'offered, and not agreed to')
    t.is(await closed, null)
  })
}

withBrowser('a page is told nothing but an error when the key is not the one it was given', async (t) => {
  t.timeout(90_000)
  const { port, requests } = await broker(t)
  const other = issueServer(createCa({ commonName: 'others' }), { serverNames: ['iot.example.com'] })
  const report = await inBrowser(t, {
    url: `wss://iot.example.com:${port}/mqtt`,
    certificate: other.certPem,
    localNames: ['iot.example.com'],
    topic: 'browser/echo',
    payload: 'never',
  })
  t.like(report, { connected: false, received: null })
  t.truthy(report.error)
  t.is(requests.length, 0)
})
