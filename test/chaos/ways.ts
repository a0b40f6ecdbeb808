import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { type ConnectionOptions, connect as connectTls, createSecureContext, type SecureContext } from 'node:tls'
import { ACCESS_KEY, ca, device, type Gateway, REGION } from '../support/gateway.ts'
import { upgrade } from '../support/sigv4.ts'
import { REQUEST_HEADERS } from '../wss/frames.ts'
import { addressOf } from './crowd.ts'

// The ways in as a crowd takes them: one secure context for all, and an address of its own for each.

const WITH_CERTIFICATE = createSecureContext({ ca: ca.certPem, cert: device.chainPem, key: device.keyPem })
const BARE = createSecureContext({ ca: ca.certPem })

export async function plain(port: number, at: number): Promise<Socket> {
  const socket = connect({ host: '127.0.0.1', port, localAddress: addressOf(at) })
  socket.on('error', () => {})
  await once(socket, 'connect')
  return socket
}

/** TLS as the registered device, or with another context. */
export async function secure(port: number, at: number, context: SecureContext = WITH_CERTIFICATE): Promise<Socket> {
  const options = {
    host: '127.0.0.1',
    port,
    servername: 'localhost',
    secureContext: context,
    localAddress: addressOf(at),
  }
  const socket = connectTls(options as ConnectionOptions)
  socket.on('error', () => {})
  await once(socket, 'secureConnect')
  return socket
}

/** TLS and a presigned upgrade that was answered 101; frames come next. */
export async function webSocket({ ports }: Gateway, at: number): Promise<Socket> {
  const socket = await secure(ports.web, at, BARE)
  const host = `localhost:${ports.web}`
  const { id: accessKeyId, secret } = ACCESS_KEY
  const { target } = upgrade({ host, accessKeyId, secret, region: REGION, at: new Date() })
  const headers = Object.entries({ ...REQUEST_HEADERS, host }).map(([name, value]) => `${name}: ${value}\r\n`)
  socket.write(`GET ${target} HTTP/1.1\r\n${headers.join('')}\r\n`)
  const [answer] = (await once(socket, 'data')) as [Buffer]
  if (!answer.toString('latin1').startsWith('HTTP/1.1 101')) throw new Error(answer.toString('latin1'))
  return socket
}

/** Everything that comes, and the end. */
export function listenTo(socket: Socket): { bytes(): Buffer; readonly ended: Promise<void>; over(): boolean } {
  const chunks: Buffer[] = []
  let over = false
  socket.on('data', (chunk: Buffer) => chunks.push(chunk))
  const ended = new Promise<void>((resolve) => {
    for (const event of ['end', 'close', 'error'] as const) {
      socket.once(event, () => {
        over = true
        resolve()
      })
    }
  })
  return { bytes: () => Buffer.concat(chunks), ended, over: () => over }
}
