import test from 'ava'
import { MALFORMED, OVERSIZED, PublishHead, READ } from '../../src/mqtt/publish-head.ts'
import { hex } from './fakes.ts'

test('the head of a PUBLISH asks for what it needs, at every prefix', (t) => {
  // topic "abc", id 0x1234, properties: format 1, expiry 60, alias 3, content type "t", response "r", correlation 2
  // bytes, two user properties; payload of three bytes.
  const properties = '0101 020000003c 230003 03000174 08000172 090002ffff 26000161000162 26000161000163'
  const body = hex(`0003616263 1234 25 ${properties} 707172`)
  const head = new PublishHead()
  let last = 0
  for (let have = 0; have < body.length - 3; have++) {
    const more = head.read(body, 0, have, body.length, 1, 5)
    t.true(more > have && more <= body.length - 3 && more >= last, `${have}: ${more}`)
    last = more
  }
  for (let have = body.length - 3; have <= body.length; have++) {
    t.is(head.read(body, 0, have, body.length, 1, 5), READ)
    t.like(head, {
      packetId: 0x1234,
      topicAt: 2,
      topicEnd: 5,
      alias: 3,
      expiryAt: 11,
      contentTypeBytes: 1,
      correlationDataBytes: 2,
      userPropertyBytes: 4,
      end: body.length - 3,
      payloadBytes: 3,
      hasSubscriptionIdentifier: false,
    })
  }
})

test('a head that was read before leaves nothing behind', (t) => {
  const head = new PublishHead()
  const first = hex('000161 0001 0c 230003 020000003c 0b8001 00'.slice(0, -3))
  t.is(head.read(first, 0, first.length, first.length, 1, 5), MALFORMED)
  const second = hex('000162 00 70')
  t.is(head.read(second, 0, 5, 5, 0, 5), READ)
  t.like(head, { packetId: 0, alias: -1, expiryAt: -1, payloadBytes: 1, hasSubscriptionIdentifier: false })
})

const broken = test.macro({
  exec(t, octets: string, qos: number, version: 4 | 5, expected: number = MALFORMED) {
    const body = hex(octets)
    t.is(new PublishHead().read(body, 0, body.length, body.length, qos, version), expected)
  },
  title: (title) => `a PUBLISH ${title} is not read`,
})

test('without a topic length', broken, '00', 0, 4)
test('whose topic is longer than the packet', broken, '000461', 0, 4)
test('without room for its packet id', broken, '000161 00', 1, 4)
test('with packet id 0 [MQTT-2.2.1-3]', broken, '000161 0000', 1, 4)
test('of MQTT 5 without properties', broken, '000161', 0, 5)
test('whose properties are longer than the packet', broken, '000161 02 01', 0, 5)
test('with a property of another packet', broken, '000161 03 130000', 0, 5)
test('with the same property twice', broken, '000161 06 230001 230001', 0, 5)
test('with a property that ends behind its length', broken, '000161 03 03000174', 0, 5)
test('with a user property of a name alone', broken, '000161 04 26000161', 0, 5)
test('with half of an alias', broken, '000161 02 2300', 0, 5)
test('with an unknown property', broken, '000161 02 7f00', 0, 5)
test('with a property length of five bytes', broken, '000161 8080808001', 0, 5)
test('with a property length that does not end', broken, '000161 80', 0, 5)
test('with more properties than are held', broken, `000161 818004 ${'26000161000162'.repeat(9_363)}`, 0, 5, OVERSIZED)
