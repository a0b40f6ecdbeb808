import test from 'ava'
import {
  encodeProxyV2,
  looksLikeProxyHeader,
  type ProxyHeaderParse,
  parseProxyHeader,
} from '../../src/listener/proxy-protocol.ts'
import { fixtures, random } from '../support/hello-build.ts'

const SIGNATURE = '0d0a0d0a000d0a515549540a'
const V4 = `${SIGNATURE}2111000cc0000201c6336401d431115b`
const IP6 = `20010db8000000000000000000000001${'20010db8000000000000000000000002'}`
const V6 = `${SIGNATURE}21210024${IP6}d431115b`
const hex = (text: string): Buffer => Buffer.from(text, 'hex')

function said(parse: ProxyHeaderParse): string {
  if (parse.kind !== 'header') return parse.kind === 'invalid' ? `invalid: ${parse.detail}` : parse.kind
  return parse.source === null ? 'no source' : `${parse.source.address} ${parse.source.port}`
}

/** Headers that are right, and what each says. */
const VALID: Readonly<Record<string, readonly [header: Buffer, expected: string]>> = {
  'v1 TCP4': [Buffer.from('PROXY TCP4 192.0.2.1 198.51.100.1 54321 8883\r\n'), '192.0.2.1 54321'],
  'v1 TCP4 with port 0 and 65535': [Buffer.from('PROXY TCP4 192.0.2.1 198.51.100.1 0 65535\r\n'), '192.0.2.1 0'],
  'v1 TCP6': [Buffer.from('PROXY TCP6 2001:DB8::1 2001:db8::2 54321 8883\r\n'), '2001:db8::1 54321'],
  'v1 TCP6, mapped': [Buffer.from('PROXY TCP6 ::ffff:192.0.2.1 ::1 54321 8883\r\n'), '192.0.2.1 54321'],
  'v1 TCP6, the longest': [
    Buffer.from(`PROXY TCP6 ${'ffff:'.repeat(7)}ffff ${'ffff:'.repeat(7)}ffff 65535 65535\r\n`),
    'ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535',
  ],
  'v1 UNKNOWN': [Buffer.from('PROXY UNKNOWN\r\n'), 'no source'],
  'v1 UNKNOWN of 107 bytes, with anything behind': [Buffer.from(`PROXY UNKNOWN ${'x'.repeat(91)}\r\n`), 'no source'],
  'v2 TCP over IPv4': [hex(V4), '192.0.2.1 54321'],
  'v2 TCP over IPv6': [hex(V6), '2001:db8::1 54321'],
  'v2 TCP over IPv6, mapped': [
    hex(V6.replace(IP6.slice(0, 32), '00000000000000000000ffffc0000201')),
    '192.0.2.1 54321',
  ],
  'v2 with TLVs, stepped over': [
    hex(`${V4.replace('2111000c', '21110013')}0400041122334400`.slice(0, -2)),
    '192.0.2.1 54321',
  ],
  'v2 with 4096 bytes': [
    Buffer.concat([hex(V4.replace('2111000c', '21111000')), Buffer.alloc(4_084)]),
    '192.0.2.1 54321',
  ],
  'v2 LOCAL': [hex(`${SIGNATURE}20000000`), 'no source'],
  'v2 LOCAL with an address, not looked at': [hex(V4.replace('2111', '2011')), 'no source'],
  'v2 LOCAL of an unknown family': [hex(`${SIGNATURE}20ff0000`), 'no source'],
  'v2 unspecified': [hex(`${SIGNATURE}210000040a0b0c0d`), 'no source'],
  'v2 UNIX stream': [Buffer.concat([hex(`${SIGNATURE}213100d8`), Buffer.alloc(216, 0x41)]), 'no source'],
  'v2 UNIX datagram': [Buffer.concat([hex(`${SIGNATURE}213200d8`), Buffer.alloc(216, 0x41)]), 'no source'],
}

for (const [title, [header, expected]] of Object.entries(VALID)) {
  test(`${title}: ${expected}`, (t) => {
    const parse = parseProxyHeader(header, [1, 2])
    t.is(said(parse), expected)
    if (parse.kind === 'header') t.is(parse.bytes, header.length)
    t.deepEqual(parseProxyHeader(Buffer.concat([header, hex('160301')]), [1, 2]), parse)
    for (let length = 0; length < header.length; length += 1) {
      const prefix = header.subarray(0, length)
      if (parseProxyHeader(prefix, [1, 2]).kind !== 'incomplete') return t.fail(`prefix of ${length} bytes`)
      if (looksLikeProxyHeader(prefix) !== length > 0) return t.fail(`prefix of ${length} bytes looks wrong`)
    }
    t.is(parseProxyHeader(header, title.startsWith('v1') ? [2] : [1]).kind, 'invalid')
    t.is(parseProxyHeader(header, []).kind, 'invalid')
  })
}

const line = (text: string): Buffer => Buffer.from(`PROXY ${text}\r\n`, 'latin1')

/** Bytes that are refused. */
const INVALID: Readonly<Record<string, Buffer>> = {
  'a TLS hello': hex('1603010200'),
  'an MQTT CONNECT': hex('101000044d515454'),
  'lower case': Buffer.from('proxy TCP4 192.0.2.1 198.51.100.1 1 2\r\n'),
  'HTTP POST': Buffer.from('POST / HTTP/1.1\r\n'),
  'no family': Buffer.from('PROXY \r\n'),
  'two spaces': line('TCP4  192.0.2.1 198.51.100.1 1 2'),
  'a space at the end': line('TCP4 192.0.2.1 198.51.100.1 1 2 '),
  'a tab': line('TCP4\t192.0.2.1 198.51.100.1 1 2'),
  'one field missing': line('TCP4 192.0.2.1 198.51.100.1 1'),
  'one field too many': line('TCP4 192.0.2.1 198.51.100.1 1 2 3'),
  'a family of UDP': line('UDP4 192.0.2.1 198.51.100.1 1 2'),
  'a family that goes on': line('UNKNOWNX'),
  'TCP4 with an IPv6 address': line('TCP4 2001:db8::1 198.51.100.1 1 2'),
  'TCP4 with an IPv6 destination': line('TCP4 192.0.2.1 ::1 1 2'),
  'TCP6 with an IPv4 address': line('TCP6 192.0.2.1 ::1 1 2'),
  'TCP6 with a zone': line('TCP6 fe80::1%eth0 ::1 1 2'),
  'leading zeros in an address': line('TCP4 192.000.002.001 198.51.100.1 1 2'),
  'an address of three numbers': line('TCP4 192.0.1 198.51.100.1 1 2'),
  'a host name': line('TCP4 example.com 198.51.100.1 1 2'),
  'a port with a leading zero': line('TCP4 192.0.2.1 198.51.100.1 01 2'),
  'a port of 65536': line('TCP4 192.0.2.1 198.51.100.1 1 65536'),
  'a negative port': line('TCP4 192.0.2.1 198.51.100.1 -1 2'),
  'a hexadecimal port': line('TCP4 192.0.2.1 198.51.100.1 0x1 2'),
  'no port': line('TCP4 192.0.2.1 198.51.100.1  '),
  'LF without CR': Buffer.from('PROXY TCP4 192.0.2.1 198.51.100.1 1 2\n'),
  'CR without LF': Buffer.from('PROXY TCP4 192.0.2.1 198.51.100.1 1 2\rX'),
  'a zero byte': line('TCP4 192.0.2.1\0 198.51.100.1 1 2'),
  'a byte over 0x7f': line('UNKNOWN \xe9'),
  'a line of 108 bytes': line(`UNKNOWN ${'x'.repeat(92)}`),
  'a line that never ends': Buffer.from(`PROXY UNKNOWN ${'x'.repeat(92)}`),
  'version 1 behind the signature of 2': hex(`${SIGNATURE}11`),
  'version 3': hex(`${SIGNATURE}31`),
  'an unknown command': hex(`${SIGNATURE}22`),
  'UDP over IPv4': hex(V4.replace('2111', '2112')),
  'UDP over IPv6': hex(V6.replace('2121', '2122')),
  'TCP over nothing': hex(`${SIGNATURE}2101`),
  'an unknown family': hex(`${SIGNATURE}2141`),
  'an unknown transport': hex(`${SIGNATURE}2113`),
  'IPv4 addresses of 11 bytes': hex(V4.replace('2111000c', '2111000b')),
  'IPv6 addresses of 35 bytes': hex(V6.replace('21210024', '21210023')),
  'UNIX addresses of 215 bytes': hex(`${SIGNATURE}213100d7`),
  'no addresses': hex(`${SIGNATURE}21110000`),
  'a length of 4097 bytes': hex(`${SIGNATURE}21111001`),
  'a length of 65535 bytes, LOCAL': hex(`${SIGNATURE}2000ffff`),
}

for (const [title, bytes] of Object.entries(INVALID)) {
  test(`refused: ${title}`, (t) => {
    t.is(parseProxyHeader(bytes, [1, 2]).kind, 'invalid')
  })
}

test('a TLS hello does not look like a PROXY header, nor does MQTT; both versions do, whole or begun', (t) => {
  for (const { bytes } of fixtures()) t.false(looksLikeProxyHeader(bytes))
  t.false(looksLikeProxyHeader(hex('10')))
  t.false(looksLikeProxyHeader(hex('')))
  t.false(looksLikeProxyHeader(Buffer.from('PROXY\t')))
  t.false(looksLikeProxyHeader(Buffer.from('PUT /')))
  t.true(looksLikeProxyHeader(Buffer.from('PROXY nonsense')))
  t.true(looksLikeProxyHeader(hex(`${SIGNATURE}ffffffff`)))
})

test('what is sent toward a broker, byte by byte', (t) => {
  const source = { address: '192.0.2.1', port: 54_321 }
  t.is(encodeProxyV2(source, { address: '198.51.100.1', port: 4443 }).toString('hex'), V4)
  t.is(
    encodeProxyV2({ address: '2001:db8::1', port: 54_321 }, { address: '2001:db8:0::2', port: 4443 }).toString('hex'),
    V6,
  )
  // A dual-stack socket spells IPv4 as IPv6; the broker gets IPv4.
  t.is(
    encodeProxyV2({ ...source, address: '::ffff:192.0.2.1' }, { address: '198.51.100.1', port: 4443 }).toString('hex'),
    V4,
  )
  t.is(
    encodeProxyV2(source, { address: '2001:db8::2', port: 4443 }).toString('hex'),
    `${SIGNATURE}2121002400000000000000000000ffffc0000201${IP6.slice(32)}d431115b`,
  )
})

test('what is sent is what is read', (t) => {
  for (const address of ['192.0.2.1', '0.0.0.0', '::1', '2001:db8::1', 'fe80::1']) {
    const parse = parseProxyHeader(encodeProxyV2({ address, port: 65_535 }, { address: '::1', port: 0 }), [2])
    t.is(said(parse), `${address} 65535`)
  }
})

test('an endpoint that is none cannot be sent', (t) => {
  const good = { address: '192.0.2.1', port: 1 }
  for (const bad of [
    { address: 'example.com', port: 1 },
    { address: '', port: 1 },
    { address: '192.0.2.1', port: -1 },
    { address: '192.0.2.1', port: 65_536 },
    { address: '192.0.2.1', port: 1.5 },
    { address: '192.0.2.1', port: Number.NaN },
  ]) {
    t.throws(() => encodeProxyV2(bad, good), { instanceOf: RangeError })
    t.throws(() => encodeProxyV2(good, bad), { instanceOf: RangeError })
  }
})

test('300000 mutated headers never throw, never look outside, and never claim more bytes than there are', (t) => {
  t.timeout(60_000)
  const below = random(3)
  const seeds = Object.values(VALID).map(([header]) => header)
  const arena = Buffer.alloc(5_000)
  const kinds: Record<string, number> = {}
  let strays = 0
  for (let index = 0; index < 300_000; index += 1) {
    const seed = seeds[below(seeds.length)]!
    arena.fill(index % 2 === 0 ? 0x31 : 0x00)
    arena.set(seed, 64)
    for (let changes = below(4); changes > 0; changes -= 1) {
      const at = 64 + below(Math.min(seed.length, 120))
      if (below(2) === 0) arena[at]! ^= 1 << below(8)
      else arena[at] = below(4) === 0 ? below(256) : 0x20 + below(95)
    }
    const length = below(6) === 0 ? below(seed.length) : seed.length
    const bytes = arena.subarray(64, 64 + length)
    const parse = parseProxyHeader(bytes, [1, 2])
    kinds[parse.kind] = (kinds[parse.kind] ?? 0) + 1
    if (parse.kind === 'header' && parse.bytes > length) strays += 1
    if (parse.kind !== 'invalid' && length > 0 && !looksLikeProxyHeader(bytes)) strays += 1
    if (index % 4 === 0 && JSON.stringify(parseProxyHeader(Buffer.from(bytes), [1, 2])) !== JSON.stringify(parse))
      strays += 1
  }
  t.is(strays, 0)
  t.deepEqual(Object.keys(kinds).sort(), ['header', 'incomplete', 'invalid'])
})
