// Packets as devices and brokers send them, in hexadecimal, by protocol level.
import type { MqttVersion } from '../../src/mqtt/reason.ts'

// biome-ignore format: one packet a line
export const FROM_DEVICE: Readonly<Record<MqttVersion, readonly string[]>> = {
  4: [
    '3004 000161 70', '3004 00016e 70', '3105 0002 6e31 70', '3206 000161 0001 70', '3206 00016e 0002 70', '3406 000161 0003 70',
    '3406 00016e 0004 70', '62020004', '62020003', '40020007', '50020008', '70020008', '8206 0005 000161 00', '820a 0006 00016e 00 000161 01',
    'a205 0009 000161', 'c000', '3011 000f 24736861 72652f67 2f612f62 2f632f', `308001 007e ${'61'.repeat(126)}`,
  ],
  5: [
    '3005 000161 00 70', '3005 00016e 00 70', '3008 000161 03 230001 70', '3008 00016e 03 230001 70', '3007 0000 03 230001 70', '3209 0000 0001 03 230001 70',
    '3207 00016e 0002 00 70', '3407 00016e 0004 00 70', '3407 000161 0003 00 70', '62020003', '62020004', '40020007', '5003000810', '70020008',
    '8207 0005 00 000161 00', '820d 0006 02 0b05 00016e 00 000161 01', 'a206 0009 00 000161', 'c000', 'f000',
    '3013 000161 0f 26000161000162 020000003c 0101 01 70', '300c 000161 07 03000174 0101 01 70', `308901 0083 ${'61'.repeat(131)} 02 0101 70`,
  ],
}
// biome-ignore format: one packet a line
export const FROM_BROKER: Readonly<Record<MqttVersion, readonly string[]>> = {
  4: ['3004 000161 70', '3004 00016e 70', '3206 00016e 0007 70', '3206 000161 0007 70', '3406 00016e 0008 70', '3406 000161 0009 70', '62020008', '62020009', '40020001', '50020003', '70020003', '9003 0005 00', '9003 0006 01', 'b0020009', 'd000'],
  5: ['3005 000161 00 70', '3008 00016e 03 230001 70', '3007 0000 03 230001 70', '3207 00016e 0007 00 70', '3407 00016e 0008 00 70', '62020008', '4003000110', '5003000387', '70020003', '9004 0005 00 00', '9004 0006 00 01', 'b004 0009 00 00', 'd000', 'f000'],
}

/** Counts whole packets; -1 when the bytes are none, `rest` true lets the last be cut. */
export function packetsIn(bytes: Buffer, rest: boolean): number {
  let at = 0
  let count = 0
  while (at < bytes.length) {
    let length = 0
    let shift = 0
    let header = at + 1
    for (; ; header++, shift += 7) {
      if (header >= bytes.length) return -1
      length |= (bytes[header]! & 0x7f) << shift
      if ((bytes[header]! & 0x80) === 0) break
      if (shift === 21) return -1
    }
    if (bytes[at]! >> 4 === 0) return -1
    at = header + 1 + length
    if (at > bytes.length && !rest) return -1
    count++
  }
  return count
}
