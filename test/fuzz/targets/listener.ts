import { once } from 'node:events'
import { type AddressInfo, connect, isIP } from 'node:net'
import { createServer } from 'node:tls'
import { type HelloParse, HelloReader, parseClientHello } from '../../../src/listener/client-hello.ts'
import {
  encodeProxyV2,
  LOCAL_V2,
  looksLikeProxyHeader,
  type ProxyVersion,
  parseProxyHeader,
} from '../../../src/listener/proxy-protocol.ts'
import { extension, fixtures, hello, messageOf, records, sni, u16, vector16 } from '../../support/hello-build.ts'
import { type Below, counted, must, pieces, type Target } from '../target.ts'

const KINDS: ReadonlySet<string> = new Set<HelloParse['kind']>([
  'hello',
  'incomplete',
  'not-tls',
  'malformed',
  'oversized',
])
const NAME = /^(?=.{1,253}$)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*$/

/** What a TLS server of this runtime reports for these bytes: the name, or null where it fails or has seen none. */
export async function nameByTls(bytes: Buffer): Promise<string | null> {
  const server = createServer({
    minVersion: 'TLSv1.2',
    SNICallback(name, done) {
      server.emit('named', name)
      done(new Error('seen'))
    },
  })
  const named = once(server, 'named').then(([name]) => String(name))
  const failed = once(server, 'tlsClientError').then(() => null)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const socket = connect((server.address() as AddressInfo).port, '127.0.0.1')
  socket.on('error', () => {})
  // Some of them are no whole hello to the library, which would wait for more.
  socket.end(bytes)
  try {
    return await Promise.race([named, failed, once(socket, 'close').then(() => null)])
  } finally {
    socket.destroy()
    server.close()
  }
}

/** One in so many that were read is also shown to the TLS library. */
const SHOWN = 4_096

async function agrees(input: Buffer, parse: Extract<HelloParse, { kind: 'hello' }>): Promise<string> {
  const theirs = await nameByTls(input)
  const { serverName } = parse.hello
  if (theirs !== null) {
    must(serverName.kind !== 'absent', 'the TLS library sees a name where we see none')
    if (serverName.kind === 'name') {
      must(serverName.name === theirs.toLowerCase().replace(/\.$/, ''), `the TLS library sees another name: ${theirs}`)
    }
  }
  return 'hello'
}

function checkHello(input: Buffer, below: Below): string | Promise<string> {
  const parse = parseClientHello(input)
  must(KINDS.has(parse.kind), `an answer ${parse.kind}`)
  const reader = new HelloReader()
  let last: HelloParse = { kind: 'incomplete', needBytes: 9 }
  for (const piece of pieces(input, below)) last = reader.push(piece)
  if (input.length > 0) must(JSON.stringify(last) === JSON.stringify(parse), 'in pieces it is another answer')
  must(reader.taken().equals(input), 'not every byte is given back')
  if (below(256) === 0 && input.length > 5 && input.readUInt16BE(3) + 5 >= input.length) {
    const { view, looks, outside } = counted(input)
    parseClientHello(view)
    must(outside() === 0, 'looked outside')
    must(looks() <= 3 * input.length, `${looks()} looks at ${input.length} bytes`)
  }
  if (parse.kind === 'incomplete') must(parse.needBytes >= 1, 'waits for nothing')
  if (parse.kind !== 'hello') return parse.kind
  must(parse.bytes <= input.length, 'more bytes than there are')
  const { serverName, ja4 } = parse.hello
  if (serverName.kind === 'name') must(NAME.test(serverName.name), 'a name that is no host name')
  must(/^t[0-9a-z]{2}[di]\d{4}[0-9a-zA-Z]{2}_[0-9a-f]{12}_[0-9a-f]{12}$/.test(ja4), `a fingerprint ${ja4}`)
  return below(SHOWN) === 0 ? agrees(input, parse) : 'hello'
}

export const HELLO: Target = {
  name: 'hello',
  corpus() {
    const real = fixtures().map(({ bytes }) => bytes)
    const alpn = extension(16, vector16(Buffer.from('046d71747408687474702f312e31', 'hex')))
    return [
      ...real,
      ...real.map((bytes) => records(messageOf(bytes), 61)),
      hello({ extensions: null }),
      hello({ extensions: [sni('things.example.com'), alpn, extension(43, Buffer.from('0403040303', 'hex'))] }),
      hello({ extensions: [extension(42, Buffer.alloc(0)), sni('a.example'), extension(13, vector16(u16(0x0403)))] }),
    ]
  },
  tokens: [sni('other.example'), sni('192.0.2.1'), extension(0, Buffer.alloc(2)), Buffer.from('160301', 'hex')],
  maxBytes: 8_000,
  kinds: ['hello', 'incomplete', 'not-tls', 'malformed'],
  cases: 15_000,
  check: checkHello,
}

const VERSIONS: readonly (readonly ProxyVersion[])[] = [[1], [2], [1, 2]]

function checkProxy(input: Buffer, below: Below): string {
  const versions = VERSIONS[below(VERSIONS.length)]!
  const parse = parseProxyHeader(input, versions)
  const cut = below(input.length + 1)
  const early = parseProxyHeader(input.subarray(0, cut), versions)
  const later = parseProxyHeader(Buffer.concat([input, Buffer.from([below(256), below(256)])]), versions)
  // What is final stays so, whatever comes behind it.
  if (parse.kind === 'header') must(JSON.stringify(later) === JSON.stringify(parse), 'more bytes change the answer')
  if (parse.kind === 'invalid') must(later.kind === 'invalid', 'refused, and with more bytes not')
  if (early.kind === 'invalid') must(parse.kind === 'invalid', 'refused, and then not')
  if (parse.kind === 'incomplete') {
    must(input.length === 0 || looksLikeProxyHeader(input), 'waits for more of what is none')
    must(input.length < 16 + 4_096, 'waits beyond its limit')
    return parse.kind
  }
  if (parse.kind === 'invalid') {
    const { view, looks, outside } = counted(input)
    parseProxyHeader(view, versions)
    // A look past the end is how it learns of the end; a line of version 1 has 107 bytes, each looked at twice.
    must(outside() <= 1 && looks() <= 250, `${looks()} looks, ${outside()} outside`)
    return parse.kind
  }
  must(parse.bytes <= input.length, 'more bytes than there are')
  if (cut < parse.bytes) must(early.kind === 'incomplete', `a piece of it is ${early.kind}`)
  if (parse.source !== null) {
    must(isIP(parse.source.address) !== 0, `an address ${parse.source.address}`)
    must(parse.source.port >= 0 && parse.source.port <= 65_535, `a port ${parse.source.port}`)
  }
  return parse.source === null ? 'unknown' : 'header'
}

export const PROXY_HEADER: Target = {
  name: 'proxy-header',
  corpus: () => [
    ...[
      'PROXY TCP4 192.0.2.1 198.51.100.7 40000 8883\r\n',
      'PROXY TCP6 2001:db8::1 ::1 1 65535\r\n',
      'PROXY UNKNOWN\r\n',
    ].map((line) => Buffer.from(line)),
    encodeProxyV2({ address: '192.0.2.1', port: 40_000 }, { address: '198.51.100.7', port: 8_883 }),
    encodeProxyV2({ address: '2001:db8::1', port: 1 }, { address: '::1', port: 2 }),
    LOCAL_V2,
    Buffer.concat([
      LOCAL_V2.subarray(0, 12),
      Buffer.from('2111001b0102030405060708000100020300040000000001000568656c6c6f', 'hex'),
    ]),
  ],
  tokens: [
    'PROXY ',
    'TCP4 ',
    'TCP6 ',
    'UNKNOWN',
    '\r\n',
    '::ffff:1.2.3.4',
    '255.255.255.255',
    '65536',
    Buffer.from('0d0a0d0a000d0a515549540a', 'hex'),
  ],
  maxBytes: 4_300,
  kinds: ['header', 'unknown', 'incomplete', 'invalid'],
  cases: 6_000,
  check: checkProxy,
}
