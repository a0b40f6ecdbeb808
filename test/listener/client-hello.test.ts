import test from 'ava'
import { type HelloParse, HelloReader, MAX_HELLO_BYTES, parseClientHello } from '../../src/listener/client-hello.ts'
import {
  extension,
  fixtures,
  handshake,
  hello,
  helloBody,
  messageOf,
  records,
  sni,
  u16,
  vector8,
  vector16,
} from '../support/hello-build.ts'

const FIXTURES = fixtures()

function serverNameOf(parse: HelloParse): string {
  if (parse.kind !== 'hello') return parse.kind === 'malformed' ? `malformed: ${parse.detail}` : parse.kind
  const { serverName } = parse.hello
  return serverName.kind === 'name' ? serverName.name : serverName.kind
}

for (const { client, bytes, ja4, alpnProtocols, supportedVersions, serverName } of FIXTURES) {
  test(`${client}: what tshark reads is what we read`, (t) => {
    const parse = parseClientHello(bytes)
    if (parse.kind !== 'hello') return t.fail(JSON.stringify(parse))
    t.is(parse.bytes, bytes.length)
    t.is(parse.hello.ja4, ja4)
    t.deepEqual(parse.hello.alpnProtocols, alpnProtocols)
    t.deepEqual(parse.hello.supportedVersions, supportedVersions)
    t.deepEqual(parse.hello.serverName, serverName === null ? { kind: 'absent' } : { kind: 'name', name: serverName })
    t.false(parse.hello.hasEarlyData)
    t.false(parse.hello.offersSession)
  })

  test(`${client}: every prefix is incomplete, promises no byte too many, and then the answer is the same`, (t) => {
    const whole = parseClientHello(bytes)
    const dripped = new HelloReader()
    let differences = 0
    for (let length = 0; length < bytes.length; length += 1) {
      const parse = parseClientHello(bytes.subarray(0, length))
      if (parse.kind !== 'incomplete' || parse.needBytes < 1 || parse.needBytes > bytes.length - length)
        differences += 1
      const drip = dripped.push(bytes.subarray(length, length + 1))
      if (length < bytes.length - 1 && drip.kind !== 'incomplete') differences += 1
      if (length === bytes.length - 1) t.deepEqual(drip, whole)
    }
    t.is(differences, 0)
    t.deepEqual(dripped.taken(), bytes)
  })

  for (const size of [1, 7]) {
    test(`${client}: records of ${size} bytes say the same`, (t) => {
      const whole = parseClientHello(bytes)
      const wire = records(messageOf(bytes), size)
      const parse = parseClientHello(wire)
      if (whole.kind !== 'hello') return t.fail()
      t.deepEqual(parse, { ...whole, bytes: wire.length })
      const dripped = new HelloReader()
      let last: HelloParse = { kind: 'not-tls' }
      for (let at = 0; at < wire.length; at += 3) last = dripped.push(wire.subarray(at, at + 3))
      t.deepEqual(last, parse)
      t.deepEqual(dripped.taken(), wire)
      const early = Array.from({ length: wire.length }, (_, length) => parseClientHello(wire.subarray(0, length)))
      t.true(early.every((parse, at) => parse.kind === 'incomplete' && parse.needBytes <= wire.length - at))
    })
  }

  test(`${client}: bytes behind the hello change nothing and are given back`, (t) => {
    const whole = parseClientHello(bytes)
    const reader = new HelloReader()
    const later = Buffer.from('140303000101', 'hex')
    const both = Buffer.concat([bytes, later])
    t.deepEqual(reader.push(both), whole)
    t.is(reader.taken(), both)
    t.deepEqual(reader.push(later), whole)
    t.deepEqual(reader.taken(), Buffer.concat([both, later]))
  })
}

const named = test.macro({
  exec(t, name: string, expected: string) {
    t.is(serverNameOf(parseClientHello(hello({ extensions: [sni(name)] }))), expected)
  },
  title: (_, name: string, expected: string) =>
    `server name ${name.length > 70 ? `of ${name.length} bytes ${name.slice(-6)}` : JSON.stringify(name)}: ${expected.slice(0, 40)}`,
})

const LONG = `${`${'a'.repeat(63)}.`.repeat(3)}${'b'.repeat(61)}`

test(named, 'things.example.com', 'things.example.com')
test(named, 'Things.EXAMPLE.com', 'things.example.com')
test(named, 'things.example.com.', 'things.example.com')
test(named, 'localhost', 'localhost')
test(named, 'xn--bcher-kva.example', 'xn--bcher-kva.example')
test(named, '4.example', '4.example')
test(named, '1.2.3.4.example', '1.2.3.4.example')
test(named, 'a', 'a')
test(named, `${'a'.repeat(63)}.example`, `${'a'.repeat(63)}.example`)
test(named, LONG, LONG)
test(named, `${LONG}.`, LONG)
test(named, `${LONG}b`, 'invalid')
test(named, `${LONG}..`, 'invalid')
test(named, `${'a'.repeat(64)}.example`, 'invalid')
test(named, 'a.'.repeat(5000), 'invalid')
test(named, '', 'invalid')
test(named, '.', 'invalid')
test(named, '..', 'invalid')
test(named, '.example', 'invalid')
test(named, 'things..example', 'invalid')
test(named, 'example..', 'invalid')
test(named, '-things.example', 'invalid')
test(named, 'things-.example', 'invalid')
test(named, 'thi_ngs.example', 'invalid')
test(named, '*.example', 'invalid')
test(named, 'things.example:8883', 'invalid')
test(named, 'things.example\0.evil', 'invalid')
test(named, 'things.example\n', 'invalid')
test(named, ' things.example', 'invalid')
test(named, '../../etc/passwd', 'invalid')
test(named, '${jndi:ldap://x}', 'invalid')
test(named, 'b\xfccher.example', 'invalid')
test(named, '\xff\xfe', 'invalid')
test(named, '192.0.2.1', 'invalid')
test(named, '192.0.2.1.', 'invalid')
test(named, '127.1', 'invalid')
test(named, '2130706433', 'invalid')
test(named, '0x7f000001', 'invalid')
test(named, 'things.example.0x', 'invalid')
test(named, '::1', 'invalid')
test(named, '[2001:db8::1]', 'invalid')
test(named, '2001:db8::1', 'invalid')

const entry = (type: number, name: string): Buffer => Buffer.concat([Buffer.of(type), vector16(Buffer.from(name))])

/** Hellos made by hand, and the answer each deserves. */
const ANSWERS: Readonly<Record<string, readonly [wire: Buffer, expected: string]>> = {
  'without extensions [RFC 5246 §7.4.1.2]': [hello({ extensions: null }), 'absent'],
  'with an empty list of extensions': [hello({ extensions: [] }), 'absent'],
  'without session id': [hello({ sessionId: Buffer.alloc(0), extensions: [sni('a.example')] }), 'a.example'],
  'with an ECH extension, which is not looked at': [
    hello({ extensions: [extension(0xfe0d, Buffer.alloc(200, 7)), sni('a.example')] }),
    'a.example',
  ],
  'with two names in the list': [
    hello({ extensions: [extension(0, vector16(entry(0, 'a.example'), entry(0, 'b.example')))] }),
    'invalid',
  ],
  'with a name of an unknown type': [hello({ extensions: [extension(0, vector16(entry(1, 'a.example')))] }), 'invalid'],
  'with an empty list of names': [hello({ extensions: [extension(0, vector16())] }), 'invalid'],
  'with two server_name extensions': [hello({ extensions: [sni('a.example'), sni('a.example')] }), 'invalid'],
  'with server_name and no list in it': [
    hello({ extensions: [extension(0, Buffer.alloc(0))] }),
    'malformed: server_name does not add up',
  ],
  'with a name shorter than it says': [
    hello({ extensions: [extension(0, vector16(Buffer.of(0), u16(40), Buffer.from('a.example')))] }),
    'malformed: server_name does not add up',
  ],
  'with bytes behind the list of names': [
    hello({ extensions: [extension(0, Buffer.concat([vector16(entry(0, 'a.example')), Buffer.of(0)]))] }),
    'malformed: server_name does not add up',
  ],
  'with an extension twice [RFC 8446 §4.2]': [
    hello({ extensions: [extension(23, Buffer.alloc(0)), extension(23, Buffer.alloc(0))] }),
    'malformed: extension 23 twice',
  ],
  'with an extension that ends too early': [
    hello({ extensions: [Buffer.from('00170001', 'hex')] }),
    'malformed: an extension ends too early',
  ],
  'with half an extension header': [
    hello({ extensions: [Buffer.from('0017', 'hex')] }),
    'malformed: an extension ends too early',
  ],
  'with bytes behind the extensions': [
    hello({ trailer: Buffer.of(0) }),
    'malformed: the extensions do not fill the ClientHello',
  ],
  'with one byte where the extensions should be': [
    hello({ extensions: null, trailer: Buffer.of(0) }),
    'malformed: the extensions do not fill the ClientHello',
  ],
  'with a session id of 33 bytes': [
    hello({ sessionId: Buffer.alloc(33) }),
    'malformed: a session id of more than 32 bytes',
  ],
  'without cipher suites': [hello({ cipherSuites: Buffer.alloc(0) }), 'malformed: cipher suites of odd or no length'],
  'with an odd length of cipher suites': [
    hello({ cipherSuites: Buffer.alloc(3) }),
    'malformed: cipher suites of odd or no length',
  ],
  'without compression method': [hello({ compressionMethods: Buffer.alloc(0) }), 'malformed: no compression method'],
  'of no length': [records(handshake(Buffer.alloc(0))), 'malformed: the ClientHello ends too early'],
  'that ends in its random': [records(handshake(Buffer.alloc(20))), 'malformed: the ClientHello ends too early'],
  'with an empty ALPN name [RFC 7301 §3.1]': [
    hello({ extensions: [extension(16, vector16(vector8()))] }),
    'malformed: ALPN does not add up',
  ],
  'with an empty ALPN list': [hello({ extensions: [extension(16, vector16())] }), 'malformed: ALPN does not add up'],
  'with an ALPN name that ends too early': [
    hello({ extensions: [extension(16, vector16(Buffer.from('\x05mqtt')))] }),
    'malformed: ALPN does not add up',
  ],
  'with an odd list of versions': [
    hello({ extensions: [extension(43, vector8(Buffer.from('030403', 'hex')))] }),
    'malformed: supported_versions does not add up',
  ],
  'with an empty list of versions': [
    hello({ extensions: [extension(43, vector8())] }),
    'malformed: supported_versions does not add up',
  ],
  'with an odd list of signature algorithms': [
    hello({ extensions: [extension(13, vector16(Buffer.alloc(3)))] }),
    'malformed: signature_algorithms does not add up',
  ],
  'in a record that goes on behind it': [
    records(Buffer.concat([handshake(helloBody()), Buffer.of(1)])),
    'malformed: the record goes on behind the ClientHello',
  ],
  'in a last record that goes on behind it': [
    records(Buffer.concat([handshake(helloBody({ sessionId: Buffer.alloc(32) })), Buffer.of(1)]), 16),
    'malformed: the record goes on behind the ClientHello',
  ],
  'in records of which the first is empty [RFC 8446 §5.1]': [
    Buffer.concat([Buffer.from('1603010000', 'hex'), hello()]),
    'malformed: an empty handshake record',
  ],
  'in records of which a later one is empty [RFC 8446 §5.1]': [
    Buffer.concat([hello({}, 20).subarray(0, 25), Buffer.from('1603010000', 'hex')]),
    'malformed: an empty handshake record',
  ],
  'cut by an alert [RFC 8446 §5.1]': [
    Buffer.concat([hello({}, 20).subarray(0, 25), Buffer.from('15', 'hex')]),
    'malformed: another record type inside the ClientHello',
  ],
  'cut by a record of another protocol': [
    Buffer.concat([hello({}, 20).subarray(0, 25), Buffer.from('1602', 'hex')]),
    'malformed: another protocol version inside the ClientHello',
  ],
  'in a record of 16385 bytes [RFC 8446 §5.1]': [
    Buffer.from('1603014001', 'hex'),
    'malformed: a record of more than 16384 bytes',
  ],
  'that says it is too large': [Buffer.from('16030140000100fff0', 'hex'), 'oversized'],
  'that says it is 16 MiB': [Buffer.from('160301400001ffffff', 'hex'), 'oversized'],
}

for (const [title, [wire, expected]] of Object.entries(ANSWERS)) {
  test(`a hello ${title}: ${expected}`, (t) => {
    t.is(serverNameOf(parseClientHello(wire)), expected)
    const dripped = new HelloReader()
    let last: HelloParse = { kind: 'not-tls' }
    for (const byte of wire) last = dripped.push(Buffer.of(byte))
    t.is(serverNameOf(last), expected)
  })
}

for (const [title, bytes] of Object.entries({
  'an MQTT CONNECT': '101000044d5154540402003c000464657631',
  'an HTTP request': Buffer.from('GET / HTTP/1.1\r\n\r\n').toString('hex'),
  'a PROXY header': Buffer.from('PROXY TCP4').toString('hex'),
  'an SSL 2 hello': '802e0100020015',
  'a TLS alert': '15030100020228',
  'application data': '1703030010',
  'a ServerHello': '160303002a0200002603',
  'a record of another protocol': '16fe',
  'one wrong byte': '00',
})) {
  test(`${title} is not TLS`, (t) => {
    t.deepEqual(parseClientHello(Buffer.from(bytes, 'hex')), { kind: 'not-tls' })
  })
}

test('the largest hello is read and one byte more is oversized, whatever its records', (t) => {
  const sized = (wireBytes: number, size: number): Buffer => {
    // Padding (extension 21) fills the message up; 5 bytes of header per record.
    const fixed = hello({ extensions: [sni('a.example'), extension(21, Buffer.alloc(0))] }).length - 5
    let message = wireBytes - 5
    while (message + Math.ceil(message / size) * 5 > wireBytes) message -= 1
    return hello({ extensions: [sni('a.example'), extension(21, Buffer.alloc(message - fixed))] }, size)
  }
  for (const size of [16_384, 500, 4]) {
    const largest = sized(MAX_HELLO_BYTES, size)
    t.true(largest.length <= MAX_HELLO_BYTES && largest.length > MAX_HELLO_BYTES - 6)
    t.is(serverNameOf(parseClientHello(largest)), 'a.example')
    const larger = sized(MAX_HELLO_BYTES + 6, size)
    t.true(larger.length > MAX_HELLO_BYTES)
    t.is(parseClientHello(larger).kind, 'oversized')
  }
  t.is(sized(MAX_HELLO_BYTES, 16_384).length, MAX_HELLO_BYTES)
})

test('GREASE is neither a version nor part of the fingerprint [RFC 8701]', (t) => {
  const versions = (...values: number[]): Buffer => extension(43, vector8(u16(...values)))
  const plain = parseClientHello(hello({ extensions: [versions(0x0304, 0x0303)] }))
  const greased = parseClientHello(
    hello({
      cipherSuites: u16(0x2a2a, 0x1301, 0xc02b),
      extensions: [extension(0x0a0a, Buffer.alloc(0)), versions(0xfafa, 0x0304, 0x0303), extension(0xdada, u16(0))],
    }),
  )
  if (plain.kind !== 'hello' || greased.kind !== 'hello') return t.fail()
  t.deepEqual(greased.hello, plain.hello)
  t.deepEqual(greased.hello.supportedVersions, [0x0304, 0x0303])
})

test('facts that TLS will want: early data, legacy version, ALPN names as bytes', (t) => {
  const parse = parseClientHello(
    hello({
      legacyVersion: 0x0302,
      extensions: [
        extension(42, Buffer.alloc(0)),
        extension(16, vector16(vector8(Buffer.of(0xff, 0x00)), vector8(Buffer.from('mqtt')))),
      ],
    }),
  )
  if (parse.kind !== 'hello') return t.fail()
  t.true(parse.hello.hasEarlyData)
  t.is(parse.hello.legacyVersion, 0x0302)
  t.deepEqual(parse.hello.supportedVersions, [0x0302])
  t.deepEqual(parse.hello.alpnProtocols, ['\xff\x00', 'mqtt'])
})

test('an earlier session is offered by a key or by a ticket that is not empty, and by no session id', (t) => {
  const offers = (sessionId: Buffer, ...extensions: Buffer[]): boolean | null => {
    const parse = parseClientHello(hello({ sessionId, extensions }))
    return parse.kind === 'hello' ? parse.hello.offersSession : null
  }
  const none = Buffer.alloc(0)
  const id = Buffer.alloc(32, 7)
  t.false(offers(none))
  t.false(offers(id))
  t.false(offers(id, extension(35, none)))
  t.true(offers(none, extension(35, Buffer.from('ticket'))))
  t.true(offers(id, extension(35, none), extension(41, Buffer.alloc(8))))
})

test('a reader keeps the chunks it was given and copies none while one is enough', (t) => {
  const reader = new HelloReader()
  t.is(reader.taken().length, 0)
  const [first, second] = [Buffer.from('1603', 'hex'), Buffer.from('01', 'hex')]
  reader.push(first)
  t.is(reader.taken(), first)
  t.deepEqual(reader.push(Buffer.alloc(0)), { kind: 'incomplete', needBytes: 7 })
  reader.push(second)
  t.is(reader.chunks[0], first)
  t.is(reader.chunks[2], second)
  t.deepEqual(reader.taken(), Buffer.from('160301', 'hex'))
})
