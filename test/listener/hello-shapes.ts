/** ClientHellos, right and wrong, and the answer that each deserves. */
import { extension, handshake, hello, helloBody, records, sni, u16, vector8, vector16 } from '../support/hello-build.ts'

const LONG = `${`${'a'.repeat(63)}.`.repeat(3)}${'b'.repeat(61)}`

/** Names as they stand in server_name, and what is read: the name to look up, or `invalid`. */
// biome-ignore format: a table is read down its columns
export const SERVER_NAMES: readonly (readonly [name: string, expected: string])[] = [
  ['things.example.com', 'things.example.com'],
  ['Things.EXAMPLE.com', 'things.example.com'],
  ['things.example.com.', 'things.example.com'],
  ['localhost', 'localhost'],
  ['xn--bcher-kva.example', 'xn--bcher-kva.example'],
  ['4.example', '4.example'],
  ['1.2.3.4.example', '1.2.3.4.example'],
  ['a', 'a'],
  [`${'a'.repeat(63)}.example`, `${'a'.repeat(63)}.example`],
  [LONG, LONG],
  [`${LONG}.`, LONG],
  [`${LONG}b`, 'invalid'],
  [`${LONG}..`, 'invalid'],
  [`${'a'.repeat(64)}.example`, 'invalid'],
  ['a.'.repeat(5000), 'invalid'],
  ['', 'invalid'],
  ['.', 'invalid'],
  ['..', 'invalid'],
  ['.example', 'invalid'],
  ['things..example', 'invalid'],
  ['example..', 'invalid'],
  ['-things.example', 'invalid'],
  ['things-.example', 'invalid'],
  ['thi_ngs.example', 'invalid'],
  ['*.example', 'invalid'],
  ['things.example:8883', 'invalid'],
  ['things.example\0.evil', 'invalid'],
  ['things.example\n', 'invalid'],
  [' things.example', 'invalid'],
  ['../../etc/passwd', 'invalid'],
  ['${jndi:ldap://x}', 'invalid'],
  ['b\xfccher.example', 'invalid'],
  ['\xff\xfe', 'invalid'],
  ['192.0.2.1', 'invalid'],
  ['192.0.2.1.', 'invalid'],
  ['127.1', 'invalid'],
  ['2130706433', 'invalid'],
  ['0x7f000001', 'invalid'],
  ['things.example.0x', 'invalid'],
  ['::1', 'invalid'],
  ['[2001:db8::1]', 'invalid'],
  ['2001:db8::1', 'invalid'],
]

const entry = (type: number, name: string): Buffer => Buffer.concat([Buffer.of(type), vector16(Buffer.from(name))])

/** Hellos made by hand: the name, `absent`, `invalid`, or what is wrong with them. */
export const ANSWERS: Readonly<Record<string, readonly [wire: Buffer, expected: string]>> = {
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

/** What is no TLS at all, in hexadecimal. */
export const NOT_TLS: Readonly<Record<string, string>> = {
  'an MQTT CONNECT': '101000044d5154540402003c000464657631',
  'an HTTP request': Buffer.from('GET / HTTP/1.1\r\n\r\n').toString('hex'),
  'a PROXY header': Buffer.from('PROXY TCP4').toString('hex'),
  'an SSL 2 hello': '802e0100020015',
  'a TLS alert': '15030100020228',
  'application data': '1703030010',
  'a ServerHello': '160303002a0200002603',
  'a record of another protocol': '16fe',
  'one wrong byte': '00',
}
