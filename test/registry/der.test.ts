import { X509Certificate } from 'node:crypto'
import test from 'ava'
import { parseCrl } from '../../src/registry/crl.ts'
import { certificateParts, DerReader, readTime, TAG } from '../../src/registry/der.ts'
import { createCa, createCrl, issueDevice, malleate, randomFrom } from '../support/pki.ts'

const bytes = (hex: string) => Buffer.from(hex, 'hex')
const ca = createCa({ commonName: 'Fleet CA' })
const device = issueDevice(ca, { commonName: 'device-1', serialNumber: '00a1b2c3' })

test('an element tells its tag and its contents', (t) => {
  const reader = new DerReader(bytes('3003020105'))
  t.is(reader.read(), TAG.sequence)
  t.true(reader.atEnd)
  const inner = reader.enter()
  t.is(inner.read(), TAG.integer)
  t.deepEqual([...inner.contents()], [5])
  t.deepEqual([...inner.element()], [2, 1, 5])
  t.is(inner.peek(), -1)
})

test('a length of 128 takes the long form', (t) => {
  const reader = new DerReader(Buffer.concat([bytes('048180'), Buffer.alloc(128)]))
  reader.read()
  t.is(reader.contents().length, 128)
})

const refuses = test.macro({
  exec(t, hex: string, message: string) {
    t.throws(() => new DerReader(bytes(hex)).read(), { instanceOf: RangeError, message })
  },
  title: (_, hex: string, message: string) => `${hex || 'nothing'}: ${message} [X.690 §10.1]`,
})

test(refuses, '', 'data ends within an element')
test(refuses, '30', 'data ends within an element')
test(refuses, '308000', 'an indefinite length')
test(refuses, '30817f', 'a length not in its shortest form')
test(refuses, '30820080', 'a length not in its shortest form')
test(refuses, '3085ffffffffff', 'a length of more than four octets')
test(refuses, '3082ff', 'data ends within a length')
test(refuses, '3002ff', 'an element longer than what holds it')
test(refuses, '3084ffffffff00', 'an element longer than what holds it')
test(refuses, '1f8100', 'a tag of more than one octet')

test('an element may not reach beyond the one that holds it', (t) => {
  const reader = new DerReader(bytes('3003020205ff'))
  reader.read()
  t.throws(() => reader.enter().read(), { message: 'an element longer than what holds it' })
})

test('nesting without end is refused', (t) => {
  let nested = bytes('0500')
  for (let n = 0; n < 40; n++) nested = Buffer.concat([Buffer.from([0x30, nested.length]), nested])
  const descend = () => {
    for (let reader = new DerReader(nested); reader.peek() === TAG.sequence; reader = reader.enter()) reader.read()
  }
  t.throws(descend, { instanceOf: RangeError, message: 'nested too deeply' })
})

const tells = test.macro({
  exec(t, tag: number, text: string, expected: string | null) {
    const reader = new DerReader(Buffer.concat([Buffer.from([tag, text.length]), Buffer.from(text)]))
    if (expected === null) t.throws(() => readTime(reader), { instanceOf: RangeError })
    else t.is(new Date(readTime(reader)).toISOString(), expected)
  },
  title: (_, __: number, text: string, expected: string | null) =>
    `the time ${text} is ${expected ?? 'refused'} [RFC 5280 §4.1.2.5]`,
})

test(tells, TAG.utcTime, '491231235959Z', '2049-12-31T23:59:59.000Z')
test(tells, TAG.utcTime, '500101000000Z', '1950-01-01T00:00:00.000Z')
test(tells, TAG.generalizedTime, '20500101000000Z', '2050-01-01T00:00:00.000Z')
test(tells, TAG.generalizedTime, '20240229120000Z', '2024-02-29T12:00:00.000Z')
test(tells, TAG.utcTime, '2601010000Z', null)
test(tells, TAG.utcTime, '260101000000+0100', null)
test(tells, TAG.utcTime, '260231000000Z', null)
test(tells, TAG.utcTime, '260101250000Z', null)
test(tells, TAG.generalizedTime, '20260101000000.5Z', null)
test(tells, TAG.octetString, '260101000000Z', null)

test('the parts of a certificate are those that the library reads', (t) => {
  const parts = certificateParts(device.cert.raw)!
  t.is(Buffer.from(parts.serial).toString('hex'), '00a1b2c3')
  t.true(ca.subjectDer.equals(parts.issuer))
  t.deepEqual(parts.spki, device.cert.publicKey.export({ type: 'spki', format: 'der' }))
  t.is(parts.keyUsage, 0x80)
  t.is(certificateParts(ca.cert.raw)?.keyUsage, 0x86)
})

test('a twin has the same signed part', (t) => {
  t.deepEqual(certificateParts(malleate(device.certPem).cert.raw)?.tbs, certificateParts(device.cert.raw)?.tbs)
})

test('a certificate cut anywhere, or followed by anything, is none', (t) => {
  const { raw } = device.cert
  for (let length = 0; length < raw.length; length++) {
    if (certificateParts(raw.subarray(0, length)) !== null) t.fail(`cut at ${length}`)
  }
  t.is(certificateParts(Buffer.concat([raw, Buffer.alloc(1)])), null)
})

test('200 000 mutations of a certificate give parts within it, or none', (t) => {
  const random = randomFrom(1)
  t.log('seed 1')
  const { raw } = device.cert
  let read = 0
  let compared = 0
  for (let n = 0; n < 200_000; n++) {
    const mutated = mutate(raw, random)
    const parts = certificateParts(mutated)
    if (parts === null) continue
    read++
    for (const part of [parts.tbs, parts.serial, parts.issuer, parts.subject, parts.spki]) {
      if (part.byteOffset < mutated.byteOffset) t.fail()
      if (part.byteOffset + part.length > mutated.byteOffset + mutated.length) t.fail()
    }
    // Where the library reads it as well, both must have read the same.
    if (n % 50 !== 0) continue
    const theirs = read509(mutated)
    if (theirs === null || theirs.serialNumber.startsWith('-') || parts.serial[0]! >= 0x80) continue
    compared++
    t.is(BigInt(`0x${Buffer.from(parts.serial).toString('hex')}`), BigInt(`0x${theirs.serialNumber}`))
  }
  t.true(read > 1_000 && compared > 100, `${read} read, ${compared} compared`)
})

test('200 000 mutations of a CRL give a list or a reason', (t) => {
  const random = randomFrom(2)
  t.log('seed 2')
  const crl = createCrl(ca, { revoked: ['01', { serial: 'ff02', reason: 1 }, '7f'.repeat(20)] })
  const answers = { list: 0, invalid: 0 }
  for (let n = 0; n < 200_000; n++) answers[parseCrl(mutate(crl.der, random)).kind]++
  t.true(answers.list > 1_000 && answers.invalid > 1_000, JSON.stringify(answers))
})

/** One to three changes: another octet, one less, one more, or an end that comes early. */
function mutate(original: Buffer, random: (below: number) => number): Buffer {
  let mutated = Buffer.from(original)
  for (let changes = 1 + random(3); changes > 0; changes--) {
    const at = random(mutated.length)
    const kind = random(8)
    if (kind < 5) mutated[at] = random(256)
    else if (kind === 5) mutated = Buffer.concat([mutated.subarray(0, at), mutated.subarray(at + 1)])
    else if (kind === 6)
      mutated = Buffer.concat([mutated.subarray(0, at), Buffer.from([random(256)]), mutated.subarray(at)])
    else mutated = mutated.subarray(0, Math.max(1, at))
  }
  return mutated
}

function read509(der: Buffer): X509Certificate | null {
  try {
    return new X509Certificate(der)
  } catch {
    return null
  }
}
