import type { IncomingMessage } from 'node:http'
import { Duplex } from 'node:stream'
import type { ExecutionContext } from 'ava'
import type { WebSocketStream } from '../../src/wss/stream.ts'
import { type UpgradeOptions, upgrade } from '../../src/wss/upgrade.ts'

/** RFC 6455 §11.8. */
export const CONTINUATION = 0x0
export const TEXT = 0x1
export const BINARY = 0x2
export const CLOSE = 0x8
export const PING = 0x9
export const PONG = 0xa

export interface FrameOptions {
  readonly fin?: boolean
  /** RSV1 to RSV3 as they stand in the first byte: 0x40, 0x20, 0x10. */
  readonly rsv?: number
  /** null: not masked. */
  readonly mask?: Buffer | null
  /** Bytes of the extended length, whatever the payload's own needs: 0, 2 or 8. */
  readonly lengthBytes?: 0 | 2 | 8
  /** What the header says in place of the payload's own length. */
  readonly declared?: bigint
}

const MASK = Buffer.from('37fa213d', 'hex')

/** One frame as a device sends it (RFC 6455 §5.2), right or wrong. */
export function frame(opcode: number, payload: Uint8Array | string = '', options: FrameOptions = {}): Buffer {
  const { fin = true, rsv = 0, mask = MASK } = options
  const body = Buffer.from(payload as Uint8Array)
  const declared = options.declared ?? BigInt(body.length)
  const lengthBytes = options.lengthBytes ?? (declared < 126n ? 0 : declared <= 0xffffn ? 2 : 8)
  const extended = Buffer.alloc(8)
  extended.writeBigUInt64BE(declared)
  const short = lengthBytes === 0 ? Number(declared) : lengthBytes === 2 ? 126 : 127
  return Buffer.concat([
    Buffer.from([(fin ? 0x80 : 0) | rsv | opcode, (mask === null ? 0 : 0x80) | short]),
    extended.subarray(8 - lengthBytes),
    mask ?? Buffer.alloc(0),
    mask === null ? body : body.map((byte, at) => byte ^ mask[at & 3]!),
  ])
}

export const closeFrame = (code: number, reason = ''): Buffer =>
  frame(CLOSE, Buffer.concat([Buffer.from([code >> 8, code & 0xff]), Buffer.from(reason)]))

export interface Frame {
  readonly fin: boolean
  readonly opcode: number
  readonly payload: Buffer
}

/** What a server sent, frame by frame; it must not mask (RFC 6455 §5.1). The rest is what is not whole yet. */
export function parseFrames(bytes: Buffer): { readonly frames: readonly Frame[]; readonly rest: Buffer } {
  const frames: Frame[] = []
  let at = 0
  for (;;) {
    const left = bytes.subarray(at)
    if (left.length < 2) return { frames, rest: left }
    if ((left[1]! & 0x80) !== 0) throw new Error('a masked frame from the server')
    const short = left[1]! & 0x7f
    const start = short === 127 ? 10 : short === 126 ? 4 : 2
    if (left.length < start) return { frames, rest: left }
    const length = short === 127 ? Number(left.readBigUInt64BE(2)) : short === 126 ? left.readUInt16BE(2) : short
    if (left.length < start + length) return { frames, rest: left }
    const payload = left.subarray(start, start + length)
    frames.push({ fin: (left[0]! & 0x80) !== 0, opcode: left[0]! & 0x0f, payload })
    at += start + length
  }
}

/** `1002` of a Close frame; null where it has no code or there is none. */
export function closeCodeOf(frames: readonly Frame[]): number | null {
  const close = frames.find(({ opcode }) => opcode === CLOSE)
  return close === undefined || close.payload.length < 2 ? null : close.payload.readUInt16BE(0)
}

/** Two ends of one connection in memory: what is written to one is read from the other, when that one reads. */
export function pair(): readonly [near: Duplex, far: Duplex] {
  const near: Duplex = half(() => far)
  const far: Duplex = half(() => near)
  return [near, far]
}

function half(other: () => Duplex): Duplex {
  let waiting: (() => void) | null = null
  const self = new Duplex({
    allowHalfOpen: true,
    read() {
      const go = waiting
      waiting = null
      go?.()
    },
    write(chunk: Buffer, _encoding, done) {
      const peer = other() as Duplex & { wake(go: () => void): void }
      // A copy, because the reader may unmask in place.
      if (peer.push(Buffer.from(chunk))) done()
      else peer.wake(done)
    },
    final(done) {
      other().push(null)
      done()
    },
    destroy(error, done) {
      const peer = other()
      if (!peer.destroyed && !peer.readableEnded) queueMicrotask(() => peer.destroy())
      done(error)
    },
  })
  return Object.assign(self, {
    wake(go: () => void) {
      waiting = go
    },
  })
}

export const REQUEST_HEADERS: Readonly<Record<string, string>> = {
  host: 'iot.example.com',
  connection: 'Upgrade',
  upgrade: 'websocket',
  'sec-websocket-version': '13',
  'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ==',
  'sec-websocket-protocol': 'mqtt',
}

export function request(
  headers: Readonly<Record<string, string | undefined>> = {},
  line: { readonly method?: string; readonly httpVersion?: string } = {},
): IncomingMessage {
  const all = Object.entries({ ...REQUEST_HEADERS, ...headers }).filter(([, value]) => value !== undefined)
  // What `upgrade` and the package read of a request, and no more.
  return {
    method: 'GET',
    httpVersion: '1.1',
    url: '/mqtt',
    ...line,
    headers: Object.fromEntries(all),
  } as IncomingMessage
}

export const LIMITS: UpgradeOptions = { maxMessageBytes: 1_048_576, firstMessageBytes: Number.POSITIVE_INFINITY }

export interface Upgraded {
  readonly stream: WebSocketStream
  /** The device's end of the connection. */
  readonly device: Duplex
  readonly near: Duplex
  /** Everything the device was sent after the 101, frame by frame. */
  received(): readonly Frame[]
  /** Everything that came out of the stream. */
  data(): string
  readonly events: readonly string[]
}

/** A device whose upgrade was answered, over a connection in memory; the stream is read unless told otherwise. */
export function upgraded(
  t: ExecutionContext,
  {
    early = Buffer.alloc(0),
    reads = true,
    ...options
  }: Partial<UpgradeOptions> & { early?: Buffer; reads?: boolean } = {},
): Upgraded {
  const [near, device] = pair()
  for (const end of [near, device]) end.on('error', () => {})
  t.teardown(() => {
    near.destroy()
    device.destroy()
  })
  const result = upgrade(request(), near, early, { ...LIMITS, ...options })
  if (result.kind === 'refused') throw new Error(result.detail)
  const { stream } = result
  const seen: Buffer[] = []
  device.on('data', (chunk: Buffer) => seen.push(chunk))
  const chunks: Buffer[] = []
  const events: string[] = []
  if (reads) {
    stream.on('data', (chunk) => {
      chunks.push(Buffer.from(chunk))
      if (events.at(-1) !== 'data') events.push('data')
    })
  }
  stream.on('end', () => events.push('end'))
  stream.on('close', () => events.push('close'))
  return {
    stream,
    device,
    near,
    received() {
      const all = Buffer.concat(seen)
      const body = all.indexOf('\r\n\r\n')
      return body === -1 ? [] : parseFrames(all.subarray(body + 4)).frames
    },
    data: () => Buffer.concat(chunks).toString('latin1'),
    events,
  }
}
