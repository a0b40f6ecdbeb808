// Requests in which a second one hides, and headers that claim who somebody is: through the real program, over TLS, with a
// broker and an HTTP backend behind it that tell what has reached them.
import { connect } from 'node:net'
import { type ConnectionOptions, connect as connectTls, type TLSSocket } from 'node:tls'
import { SHAPES } from '../https/desync-shapes.ts'
import { EXPECTED, FORMS, NAMES } from '../https/identity-headers.ts'
import { witness } from '../support/clients.ts'
import { eventually } from '../support/e2e.ts'
import { ca, device, type Gateway } from '../support/gateway.ts'
import type { Teardowns } from '../support/proxy.ts'
import { row } from './row.ts'

interface Talk {
  readonly socket: TLSSocket
  text(): string
  readonly ended: Promise<void>
}

function talk(t: Teardowns, port: number, alpn: string | null): Talk {
  const socket = connectTls({
    host: '127.0.0.1',
    port,
    servername: 'localhost',
    ca: ca.certPem,
    cert: device.chainPem,
    key: device.keyPem,
    allowHalfOpen: true,
    ...(alpn !== null && { ALPNProtocols: [alpn] }),
  } as ConnectionOptions)
  t.teardown(() => socket.destroy())
  let text = ''
  socket.on('data', (chunk: Buffer) => {
    text += chunk.toString('latin1')
  })
  const ended = new Promise<void>((resolve) => {
    for (const event of ['end', 'error', 'close']) socket.once(event, () => resolve())
  })
  socket.on('error', () => {})
  return { socket, text: () => text, ended }
}

const answersIn = (text: string): readonly string[] => text.match(/HTTP\/1\.1 \d+/g) ?? []

/** The shapes are for a.example, which has as many letters as our name has. */
const ours = (bytes: Buffer): Buffer =>
  Buffer.from(bytes.toString('latin1').replaceAll('a.example', 'localhost'), 'latin1')
const NEXT = 'POST /topics/next HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n'

const doors = ({ ports }: Gateway): readonly (readonly [port: number, alpn: string | null])[] => [
  [ports.https, null],
  [ports.web, 'x-amzn-http-ca'],
]

row(
  {
    number: 7,
    title: 'requests in which a second one hides',
    required: 'no hidden request is executed, no second answer after an error',
    seconds: 40,
    // The publishes of the legal shapes open the pool of connections to the broker.
    kept: 8,
  },
  async (chaos) => {
    const { t } = chaos
    const gateway = await chaos.start()
    const published = await witness(t, gateway, 'canary')
    const legal = await witness(t, gateway, '+')
    const count = { refused: 0, silent: 0, framed: 0 }
    for (const [port, alpn] of doors(gateway)) {
      for (const { title, bytes, expected } of SHAPES) {
        const { socket, text, ended } = talk(t, port, alpn)
        socket.write(ours(bytes))
        if (expected === 'framed') {
          await eventually(() => answersIn(text()).length === 1, title)
          socket.write(NEXT)
          await eventually(() => answersIn(text()).length === 2, title)
          t.deepEqual(answersIn(text()), ['HTTP/1.1 200', 'HTTP/1.1 200'], title)
          count.framed++
        } else {
          socket.end()
          await ended
          const answers = answersIn(text())
          t.true(answers.length <= 1 && answers.every((answer) => / 4\d\d$/.test(answer)), `${title}: ${text()}`)
          if (answers.length === 1) count.refused++
          else count.silent++
        }
        socket.destroy()
      }
    }
    // Whatever had been let through would have reached the broker before this.
    const last = talk(t, gateway.ports.https, null)
    last.socket.write('POST /topics/last HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n')
    await eventually(() => legal.some(({ topic }) => topic === 'last'), 'the last publish')
    last.socket.destroy()
    t.deepEqual(published, [])
    t.is(legal.filter(({ topic }) => topic === 'next').length, count.framed)
    t.true(count.refused > 200, JSON.stringify(count))
    return {
      injected: `${SHAPES.length} shapes × 8443 and 443 by ALPN, each hiding a POST`,
      seen: `${count.refused} answered 4xx once and closed, ${count.silent} closed without an answer, ${count.framed} legal ones framed rightly; canaries executed: 0`,
    }
  },
)

row(
  {
    number: 8,
    title: 'identity headers from outside',
    required: 'the backend sees only ours',
    seconds: 10,
    kept: 8,
  },
  async (chaos) => {
    const { t } = chaos
    const gateway = await chaos.start()
    const count = { clean: 0, refused: 0 }
    for (const [form, write] of Object.entries(FORMS)) {
      for (const name of NAMES) {
        const { socket, text, ended } = talk(t, gateway.ports.https, null)
        const before = gateway.forwarded.length
        socket.write(`GET /things/one/shadow HTTP/1.1\r\nHost: localhost\r\n${write(name)}\r\n\r\n`)
        await eventually(() => answersIn(text()).length === 1, `${form}: ${name}`)
        if (/ 4\d\d$/.test(answersIn(text())[0]!)) {
          await ended
          t.is(gateway.forwarded.length, before, `${form}: ${name} was refused and forwarded`)
          count.refused++
        } else {
          t.is(gateway.forwarded.length, before + 1)
          const { headers } = gateway.forwarded.at(-1)!
          t.deepEqual(Object.keys(headers).sort(), EXPECTED, `${form}: ${name}`)
          t.false(JSON.stringify(headers).includes('forged'), `${form}: ${name}`)
          count.clean++
        }
        socket.destroy()
      }
    }
    t.true(count.clean >= 4 * NAMES.length - 4, JSON.stringify(count))
    return {
      injected: `${NAMES.length} names × ${Object.keys(FORMS).length} forms to a route with an HTTP backend`,
      seen: `${count.clean} forwarded with ours alone, ${count.refused} refused; forged values at the backend: 0`,
    }
  },
)

/** PROXY headers as a stranger writes them, v1 and v2, for an address that is none of ours. */
const PROXY_LINES: Readonly<Record<string, Buffer>> = {
  'v1, TCP4': Buffer.from('PROXY TCP4 192.0.2.66 192.0.2.1 4444 8883\r\n'),
  'v1, TCP6': Buffer.from('PROXY TCP6 2001:db8::66 2001:db8::1 4444 8883\r\n'),
  'v1, UNKNOWN': Buffer.from('PROXY UNKNOWN\r\n'),
  'v2, TCP4': Buffer.from('0d0a0d0a000d0a515549540a2111000cc0000242c0000201115c22b3', 'hex'),
  'v2, LOCAL': Buffer.from('0d0a0d0a000d0a515549540a20000000', 'hex'),
}
const CONNECT = Buffer.from('101300044d5154540402003c000770726f786965', 'hex')
const GET = Buffer.from('GET /things/one/shadow HTTP/1.1\r\nHost: localhost\r\n\r\n')

row(
  {
    number: 8,
    part: 'PROXY lines',
    title: 'PROXY headers from outside',
    required: 'none is believed or reaches a backend',
    seconds: 10,
    kept: 8,
  },
  async (chaos) => {
    const { t } = chaos
    const gateway = await chaos.start()
    let refused = 0
    for (const [form, line] of Object.entries(PROXY_LINES)) {
      // In front of TLS.
      const plain = connect({ host: '127.0.0.1', port: gateway.ports.mqtt })
      plain.on('error', () => {})
      plain.resume()
      plain.write(line)
      await new Promise((resolve) => plain.once('close', resolve))
      refused++
      // As the first bytes inside it, before what would be welcome.
      for (const [port, alpn, rest] of [
        [gateway.ports.mqtt, null, CONNECT],
        [gateway.ports.web, 'x-amzn-mqtt-ca', CONNECT],
        [gateway.ports.https, null, GET],
        [gateway.ports.web, 'x-amzn-http-ca', GET],
      ] as const) {
        const { socket, text, ended } = talk(t, port, alpn)
        socket.write(Buffer.concat([line, rest]))
        await ended
        t.false(/HTTP\/1\.1 2|^\x20/.test(text()), `${form} at ${port}: ${text()}`)
        socket.destroy()
        refused++
      }
    }
    t.deepEqual(gateway.forwarded, [])
    t.is(await gateway.proxy.metric('brokergate_sessions'), 1, 'the good client alone')
    const believed = gateway.proxy.lines().filter((line) => /192\.0\.2\.66|2001:db8::66/.test(JSON.stringify(line)))
    t.deepEqual(believed, [])
    return {
      injected: `${Object.keys(PROXY_LINES).length} PROXY headers × before TLS, and inside it before CONNECT and GET on four ways in`,
      seen: `${refused} closed; believed: 0; at the broker or the HTTP backend: 0`,
    }
  },
)
