// MQTT packets, encoded once before anything is measured.

export interface ConnectOptions {
  readonly version?: 4 | 5
  readonly username?: string
  readonly password?: string
}

/** Clean session, keep alive of 20 minutes: nobody has to ping while we measure. */
export function connectPacket(clientId: string, { version = 4, username, password }: ConnectOptions = {}): Buffer {
  const flags = 0x02 | (username === undefined ? 0 : 0x80) | (password === undefined ? 0 : 0x40)
  return packet(0x10, [
    text('MQTT'),
    Buffer.of(version, flags, 0x04, 0xb0),
    ...(version === 5 ? [Buffer.of(0)] : []),
    text(clientId),
    ...[username, password].flatMap((value) => (value === undefined ? [] : [text(value)])),
  ])
}

export const DISCONNECT = Buffer.of(0xe0, 0)

/** QoS 0, packet id 1. */
export function subscribePacket(filter: string): Buffer {
  return packet(0x82, [Buffer.of(0, 1), text(filter), Buffer.of(0)])
}

/** MQTT 3.1.1; `packetId` counts for QoS 1 only. */
export function publishPacket(topic: string, payload: Buffer, qos: 0 | 1, packetId = 1): Buffer {
  const id = qos === 0 ? [] : [Buffer.of(packetId >> 8, packetId & 0xff)]
  return packet(0x30 | (qos << 1), [text(topic), ...id, payload])
}

export function packet(first: number, parts: readonly Buffer[]): Buffer {
  const body = Buffer.concat(parts)
  return Buffer.concat([Buffer.of(first, ...variableLength(body.length)), body])
}

/** MQTT 3.1.1 §2.2.3. */
function variableLength(value: number): number[] {
  const digits: number[] = []
  for (let left = value; left > 0 || digits.length === 0; left = Math.floor(left / 128)) {
    digits.push((left % 128) | (left >= 128 ? 0x80 : 0))
  }
  return digits
}

function text(value: string): Buffer {
  const bytes = Buffer.from(value)
  return Buffer.concat([Buffer.of(bytes.length >> 8, bytes.length & 0xff), bytes])
}

/** A payload that neither compresses to nothing nor costs anything to make: bytes that count up. */
export function payloadOf(bytes: number): Buffer {
  return Buffer.from(Uint8Array.from({ length: bytes }, (_, at) => at & 0xff))
}

const MASK = Buffer.from('37fa213d', 'hex')

/** One binary WebSocket message of a client: one frame, masked. RFC 6455 §5.2. */
export function webSocketMessage(payload: Buffer): Buffer {
  const { length } = payload
  const head =
    length < 126
      ? Buffer.of(0x82, 0x80 | length)
      : length < 65_536
        ? Buffer.of(0x82, 0xfe, length >> 8, length & 0xff)
        : Buffer.concat([Buffer.of(0x82, 0xff, 0, 0, 0, 0), uint32(length)])
  return Buffer.concat([head, MASK, payload.map((byte, at) => byte ^ MASK[at & 3]!)])
}

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value)
  return bytes
}
