import test from 'ava'
import { readConnack } from '../../src/mqtt/connack.ts'
import type { MqttVersion } from '../../src/mqtt/reason.ts'
import { hex, seeded } from './fakes.ts'

const reads = test.macro({
  exec(t, version: MqttVersion, body: string, code: number, keepAlive: number | null) {
    const connack = readConnack(hex(body), version)
    t.deepEqual([connack?.code, connack?.serverKeepAliveSeconds], [code, keepAlive])
  },
  title: (title, version: MqttVersion, body: string) => `${title} is read: ${version === 4 ? '3.1.1' : '5'} ${body}`,
})

test('success', reads, 4, '0000', 0, null)
test('session present', reads, 4, '0100', 0, null)
test('not authorized', reads, 4, '0005', 5, null)
test('success without properties', reads, 5, '0000 00', 0, null)
test('a refusal without properties', reads, 5, '0087', 0x87, null)
test('Server Keep Alive', reads, 5, '0000 03 13001e', 0, 30)
test('Server Keep Alive of zero', reads, 5, '0000 03 130000', 0, 0)
test(
  'Server Keep Alive behind every other property',
  reads,
  5,
  '0100 41 1100000e10 210014 2401 2500 2700100000 12000161 220008 1f0000 26000161000162 26000161000163 2801 2901 2a01 1a0000 1c000161 150001 61 16000100 1300ff',
  0,
  255,
)

const refuses = test.macro({
  exec(t, version: MqttVersion, body: string) {
    t.is(readConnack(hex(body), version), null)
  },
  title: (title, version: MqttVersion, body: string) =>
    `${title} is no CONNACK: ${version === 4 ? '3.1.1' : '5'} ${body}`,
})

test('an empty body', refuses, 4, '')
test('one byte', refuses, 5, '00')
test('a reserved acknowledge flag [MQTT-3.2.2-1]', refuses, 4, '0200')
test('a third byte', refuses, 4, '000000')
test('a property length past the end', refuses, 5, '0000 01')
test('bytes after the properties', refuses, 5, '0000 00 00')
test('a property length without an end', refuses, 5, '0000 80')
test('a property length over four bytes', refuses, 5, '0000 8080808000')
test('a property it may not have', refuses, 5, '0000 02 1701')
test('a property that ends too late', refuses, 5, '0000 02 1300')
test('a text that ends too late', refuses, 5, '0000 04 1f000261')
test('half a user property', refuses, 5, '0000 04 26000161')

test('100 000 mutated bodies never throw', (t) => {
  const random = seeded(7)
  const seed = hex('0000 0f 13001e 26000161000162 1f000161')
  for (let run = 0; run < 100_000; run++) {
    const body = Buffer.from(seed.subarray(0, Math.floor(random() * (seed.length + 1))))
    for (let hits = 0; hits < 3 && body.length > 0; hits++) {
      body[Math.floor(random() * body.length)] = Math.floor(random() * 256)
    }
    readConnack(body, run & 1 ? 4 : 5)
  }
  t.pass()
})
