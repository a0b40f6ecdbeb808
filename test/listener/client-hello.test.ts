import test from 'ava'
import { type HelloParse, HelloReader, MAX_HELLO_BYTES, parseClientHello } from '../../src/listener/client-hello.ts'
import { extension, fixtures, hello, messageOf, records, sni, u16, vector8, vector16 } from '../support/hello-build.ts'
import { ANSWERS, NOT_TLS, SERVER_NAMES } from './hello-shapes.ts'

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

for (const [name, expected] of SERVER_NAMES) test(named, name, expected)

for (const [title, [wire, expected]] of Object.entries(ANSWERS)) {
  test(`a hello ${title}: ${expected}`, (t) => {
    t.is(serverNameOf(parseClientHello(wire)), expected)
    const dripped = new HelloReader()
    let last: HelloParse = { kind: 'not-tls' }
    for (const byte of wire) last = dripped.push(Buffer.of(byte))
    t.is(serverNameOf(last), expected)
  })
}

for (const [title, bytes] of Object.entries(NOT_TLS)) {
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
