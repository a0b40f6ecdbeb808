import { readFileSync } from 'node:fs'
import { createServer as createHttpServer } from 'node:http'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { createSecureContext, TLSSocket } from 'node:tls'
import { type ByteStream, type Inspector, relay, type Way } from '../../src/relay.ts'
import { upgrade } from '../../src/wss/upgrade.ts'

// bun bench/parts/wss-relay.ts <certificate.pem> <key.pem> <broker's port>
// TLS in front of a broker, once plain and once over WebSocket, with nothing else of the proxy. Prints both ports.

const [certFile, keyFile, brokerPort] = process.argv.slice(2)
const secureContext = createSecureContext({ cert: readFileSync(certFile!), key: readFileSync(keyFile!) })

/** All passes. */
function pass(): Inspector {
  let way: Way
  return {
    attached(given) {
      way = given
    },
    inspect: (chunk) => void way.pass(chunk),
    held() {},
  }
}

function toBroker(device: ByteStream): void {
  const upstream = connect({ port: Number(brokerPort), host: '127.0.0.1', noDelay: true, allowHalfOpen: true })
  upstream.on('error', () => {})
  const [inbound, outbound] = [pass(), pass()]
  relay(device, upstream, { inbound, outbound, upstreamLost: () => null, halfCloseMs: 1_000, over() {} })
  device.resume()
  upstream.resume()
}

async function listen(serve: (tls: TLSSocket) => void): Promise<number> {
  const server = createServer((socket: Socket) => {
    socket.setNoDelay(true)
    const tls = new TLSSocket(socket, { isServer: true, secureContext })
    for (const each of [socket, tls]) each.on('error', () => {})
    tls.once('secure', () => serve(tls))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return (server.address() as AddressInfo).port
}

const http = createHttpServer()
http.on('upgrade', (request, socket, head) => {
  const result = upgrade(request, socket, head, { maxMessageBytes: 1_048_576, firstMessageBytes: 131_072 })
  if (result.kind === 'accepted') toBroker(result.stream)
  else socket.destroy()
})

const plain = await listen(toBroker)
const wss = await listen((tls) => http.emit('connection', tls))
process.stdout.write(`${JSON.stringify({ plain, wss })}\n`)
