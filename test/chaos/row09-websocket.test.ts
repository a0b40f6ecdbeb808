// WebSocket frames that break the rules, after an upgrade and a CONNECT that were right: what is against RFC 6455 ends
// with its close code, and what a peer makes of many small pieces must not cost more than its bytes.
import { eventually } from '../support/e2e.ts'
import { ILLEGAL } from '../wss/frame-shapes.ts'
import { BINARY, CONTINUATION, closeCodeOf, frame, PING, parseFrames } from '../wss/frames.ts'
import { row } from './row.ts'
import { residentOf, treeOf } from './tree.ts'
import { listenTo, webSocket } from './ways.ts'

const connectPacket = (id: string): Buffer =>
  Buffer.concat([
    Buffer.from([0x10, 12 + id.length]),
    Buffer.from('00044d5154540402003c', 'hex'),
    Buffer.from([0, id.length]),
    Buffer.from(id),
  ])
const CONNACK = Buffer.from('20020000', 'hex')

/** The same CONNECT in every way in which frames may carry it. */
const WAYS: Readonly<Record<string, (packet: Buffer) => readonly Buffer[]>> = {
  'one message': (packet) => [frame(BINARY, packet)],
  'a mask of zeros': (packet) => [frame(BINARY, packet, { mask: Buffer.alloc(4) })],
  'a message a byte': (packet) => [...packet].map((byte) => frame(BINARY, Buffer.of(byte))),
  'a fragment a byte': (packet) =>
    [...packet].map((byte, at) =>
      frame(at === 0 ? BINARY : CONTINUATION, Buffer.of(byte), { fin: at === packet.length - 1 }),
    ),
  'empty fragments between': (packet) => [
    frame(BINARY, '', { fin: false }),
    frame(CONTINUATION, packet.subarray(0, 5), { fin: false }),
    frame(CONTINUATION, '', { fin: false }),
    frame(CONTINUATION, packet.subarray(5)),
  ],
  'a ping between fragments': (packet) => [
    frame(BINARY, packet.subarray(0, 5), { fin: false }),
    frame(PING, 'x'),
    frame(CONTINUATION, packet.subarray(5)),
  ],
  'a length in more bytes than it needs': (packet) => [frame(BINARY, packet, { lengthBytes: 8 })],
  'an empty message first': (packet) => [frame(BINARY), frame(BINARY, packet)],
}

const FRAGMENTS = 200_000
const MOST_GROWTH = 50 * 1_048_576

row(
  {
    number: 9,
    title: 'WebSocket abuse',
    required: 'legal served, illegal closed, at most 50 MB more',
    seconds: 15,
  },
  async (chaos) => {
    const { t } = chaos
    // The limit for which the shapes were made.
    const gateway = await chaos.start({ extra: 'limits: { webSocketMessageSize: 1000B }' })
    let at = 0
    const session = async () => {
      const socket = await webSocket(gateway, at++)
      chaos.defer(() => socket.destroy())
      const { bytes, ended } = listenTo(socket)
      const frames = () => parseFrames(bytes()).frames
      const heard = () =>
        Buffer.concat(
          frames()
            .filter(({ opcode }) => opcode === BINARY)
            .map(({ payload }) => payload),
        )
      return { socket, frames, heard, ended }
    }
    for (const [what, framesOf] of Object.entries(WAYS)) {
      const { socket, heard } = await session()
      socket.write(Buffer.concat(framesOf(connectPacket(`ws-${at}`))))
      await eventually(() => heard().equals(CONNACK), `CONNACK after ${what}`)
      socket.destroy()
    }
    for (const [what, illegal, code] of ILLEGAL) {
      const { socket, frames, heard, ended } = await session()
      socket.write(frame(BINARY, connectPacket(`ws-${at}`)))
      await eventually(() => heard().equals(CONNACK), `CONNACK before ${what}`)
      // A PINGREQ behind it: were anything of it read on, it would be answered.
      socket.write(Buffer.concat([...illegal, frame(BINARY, Buffer.from('c000', 'hex'))]))
      await eventually(() => closeCodeOf(frames()) !== null, `a close after ${what}`)
      t.is(closeCodeOf(frames()), code, what)
      t.deepEqual(heard(), CONNACK, what)
      socket.end()
      await ended
      socket.destroy()
    }
    await eventually(async () => (await gateway.proxy.metric('brokergate_sessions')) === 1, 'the good client alone')

    const pids = treeOf(gateway.proxy.child.pid!)
    const before = residentOf(pids)
    let peak = before
    const sampler = setInterval(() => {
      peak = Math.max(peak, residentOf(pids))
    }, 20)
    chaos.defer(() => clearInterval(sampler))
    const outcomes: string[] = []
    for (const payload of ['x', '']) {
      const { socket, frames, heard, ended } = await session()
      socket.write(frame(BINARY, connectPacket(`ws-${at}`)))
      await eventually(() => heard().equals(CONNACK), 'CONNACK before the fragments')
      socket.write(
        Buffer.concat([
          frame(BINARY, payload, { fin: false }),
          ...Array<Buffer>(FRAGMENTS).fill(frame(CONTINUATION, payload, { fin: false })),
        ]),
      )
      await ended
      outcomes.push(`${payload.length} bytes: ${closeCodeOf(frames()) ?? 'cut off'}`)
      socket.destroy()
    }
    clearInterval(sampler)
    t.true(peak - before < MOST_GROWTH, `${peak - before} bytes more`)
    return {
      injected: `${Object.keys(WAYS).length} legal ways, ${ILLEGAL.length} abuses, 2 × ${FRAGMENTS} tiny fragments`,
      seen: `legal ones served, each abuse closed with its code and nothing behind it read; fragments of ${outcomes.join(', ')}, ${((peak - before) / 1_048_576).toFixed(0)} MB more`,
    }
  },
)
