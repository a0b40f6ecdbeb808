/** First byte and Remaining Length (MQTT 5.0 §2.1.4) of a packet that we write ourselves. */
export function writeFixedHeader(into: Buffer, first: number, remaining: number): number {
  let at = 0
  into[at++] = first
  let left = remaining
  do {
    const digit = left & 0x7f
    left >>>= 7
    into[at++] = left > 0 ? digit | 0x80 : digit
  } while (left > 0)
  return at
}

/** Bytes of that header. */
export function fixedHeaderLength(remaining: number): number {
  return remaining < 0x80 ? 2 : remaining < 0x4000 ? 3 : remaining < 0x20_0000 ? 4 : 5
}

/** A packet whose body is these parts. */
export function packetOf(first: number, parts: readonly Uint8Array[]): Buffer {
  let remaining = 0
  for (const part of parts) remaining += part.length
  const packet = Buffer.allocUnsafe(fixedHeaderLength(remaining) + remaining)
  let at = writeFixedHeader(packet, first, remaining)
  for (const part of parts) {
    packet.set(part, at)
    at += part.length
  }
  return packet
}
