import { createHash } from 'node:crypto'
import test from 'ava'
import { isGrease, type Ja4Input, ja4Of, ja4RawOf } from '../../src/listener/ja4.ts'

const numbers = (hex: string): number[] => hex.split(',').map((value) => Number.parseInt(value, 16))

/** Chrome as in FoxIO's own example; its lists in another order, with GREASE, as they stand on the wire. */
const CHROME: Ja4Input = {
  legacyVersion: 0x0303,
  supportedVersions: [0x8a8a, 0x0304, 0x0303],
  cipherSuites: numbers('0a0a,1301,1302,1303,c02b,c02f,c02c,c030,cca9,cca8,c013,c014,009c,009d,002f,0035'),
  extensions: numbers('3a3a,001b,0000,0033,0010,4469,0017,002d,000d,0005,0023,0012,002b,ff01,000b,000a,0015,7a7a'),
  signatureAlgorithms: numbers('0403,0804,0401,0503,0805,0501,0806,0601'),
  firstAlpn: 'h2',
}

test('the published example: t13d1516h2_8daaf6152771_e5627efa2ab1', (t) => {
  t.is(ja4Of(CHROME), 't13d1516h2_8daaf6152771_e5627efa2ab1')
  t.is(
    ja4RawOf(CHROME),
    't13d1516h2_002f,0035,009c,009d,1301,1302,1303,c013,c014,c02b,c02c,c02f,c030,cca8,cca9_0005,000a,000b,000d,0012,0015,0017,001b,0023,002b,002d,0033,4469,ff01_0403,0804,0401,0503,0805,0501,0806,0601',
  )
})

test('the order of ciphers and extensions does not matter, that of signature algorithms does', (t) => {
  const shuffled = {
    ...CHROME,
    cipherSuites: CHROME.cipherSuites.toReversed(),
    extensions: CHROME.extensions.toReversed(),
  }
  t.is(ja4Of(shuffled), ja4Of(CHROME))
  t.not(ja4Of({ ...CHROME, signatureAlgorithms: CHROME.signatureAlgorithms.toReversed() }), ja4Of(CHROME))
})

const starts = test.macro({
  exec(t, input: Partial<Ja4Input>, expected: string) {
    t.is(ja4Of({ ...CHROME, ...input }).slice(0, 10), expected)
  },
  title: (_, input: Partial<Ja4Input>, expected: string) => {
    const text = JSON.stringify(input)
    return `${text.length > 90 ? `${text.slice(0, 90)}…` : text} starts with ${expected}`
  },
})

test(starts, { supportedVersions: null }, 't12d1516h2')
test(starts, { supportedVersions: null, legacyVersion: 0x0302 }, 't11d1516h2')
test(starts, { supportedVersions: null, legacyVersion: 0x0301 }, 't10d1516h2')
test(starts, { supportedVersions: null, legacyVersion: 0x0300 }, 'ts3d1516h2')
test(starts, { supportedVersions: null, legacyVersion: 0x0002 }, 'ts2d1516h2')
test(starts, { supportedVersions: null, legacyVersion: 0x0999 }, 't00d1516h2')
test(starts, { supportedVersions: [0x0303, 0x0304] }, 't13d1516h2')
test(starts, { supportedVersions: [0x0a0a] }, 't00d1516h2')
test(starts, { extensions: [] }, 't13i1500h2')
test(starts, { extensions: [0x0000] }, 't13d1501h2')
test(starts, { cipherSuites: Array.from({ length: 150 }, (_, at) => 0x4000 + at) }, 't13d9916h2')
test(starts, { firstAlpn: null }, 't13d151600')
test(starts, { firstAlpn: 'http/1.1' }, 't13d1516h1')
test(starts, { firstAlpn: 'x-amzn-mqtt-ca' }, 't13d1516xa')
test(starts, { firstAlpn: 'q' }, 't13d1516qq')
test(starts, { firstAlpn: '\xab' }, 't13d1516ab')
test(starts, { firstAlpn: '\xabXY\xcd' }, 't13d1516ad')
test(starts, { firstAlpn: '0\xab' }, 't13d15163b')
test(starts, { firstAlpn: '\x0a\x0a' }, 't13d15160a')

test('nothing to hash is twelve zeros, and no signature algorithms leave no underscore', (t) => {
  t.is(
    ja4Of({ ...CHROME, cipherSuites: [0x0a0a], extensions: [0, 16], signatureAlgorithms: [] }).slice(10),
    '_000000000000_000000000000',
  )
  const digest = createHash('sha256').update('0017').digest('hex').slice(0, 12)
  t.is(ja4Of({ ...CHROME, extensions: [0x17], signatureAlgorithms: [] }).slice(-12), digest)
})

test('GREASE is sixteen values and no more [RFC 8701 §2]', (t) => {
  const found = Array.from({ length: 65_536 }, (_, value) => value).filter(isGrease)
  t.deepEqual(
    found,
    Array.from({ length: 16 }, (_, nibble) => (nibble * 16 + 10) * 257),
  )
})
