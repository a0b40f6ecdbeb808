// WebSocket frames that a device may send, and those that it may not.
import type { FailureCode } from '../../src/errors.ts'
import { BINARY, CLOSE, CONTINUATION, closeFrame, frame, PING, PONG, TEXT } from './frames.ts'

const ZERO_MASK = Buffer.alloc(4)

/** Frames that RFC 6455 and MQTT 5.0 §6 allow, and what a session reads of them. */
export const LEGAL: readonly (readonly [what: string, frames: readonly Buffer[], data: string])[] = [
  ['one binary message', [frame(BINARY, 'abc')], 'abc'],
  ['a mask of zeros', [frame(BINARY, 'abc', { mask: ZERO_MASK })], 'abc'],
  ['several messages', [frame(BINARY, 'a'), frame(BINARY, 'b'), frame(BINARY, 'c')], 'abc'],
  ['a message in two fragments', [frame(BINARY, 'ab', { fin: false }), frame(CONTINUATION, 'c')], 'abc'],
  [
    'a message in fragments, some of them empty',
    [
      frame(BINARY, '', { fin: false }),
      frame(CONTINUATION, 'ab', { fin: false }),
      frame(CONTINUATION, '', { fin: false }),
      frame(CONTINUATION, 'c', { fin: false }),
      frame(CONTINUATION, ''),
    ],
    'abc',
  ],
  ['a ping between fragments', [frame(BINARY, 'a', { fin: false }), frame(PING), frame(CONTINUATION, 'b')], 'ab'],
  ['an empty message', [frame(BINARY), frame(BINARY, 'a')], 'a'],
  ['a pong nobody asked for', [frame(PONG, 'x'), frame(BINARY, 'a')], 'a'],
  ['a ping of 125 bytes', [frame(PING, 'p'.repeat(125)), frame(BINARY, 'a')], 'a'],
  ['125 bytes', [frame(BINARY, 'x'.repeat(125))], 'x'.repeat(125)],
  ['126 bytes', [frame(BINARY, 'x'.repeat(126))], 'x'.repeat(126)],
  ['65,535 bytes', [frame(BINARY, 'x'.repeat(65_535))], 'x'.repeat(65_535)],
  ['65,536 bytes', [frame(BINARY, 'x'.repeat(65_536))], 'x'.repeat(65_536)],
  ['a length in more bytes than it needs', [frame(BINARY, 'abc', { lengthBytes: 8 })], 'abc'],
  ['the largest message', [frame(BINARY, 'x'.repeat(100_000))], 'x'.repeat(100_000)],
]

const BAD: FailureCode = 'ERR_WEBSOCKET'
const LARGE: FailureCode = 'ERR_WEBSOCKET_TOO_LARGE'

/** Frames that are refused, the close code of RFC 6455 §7.4.1 and ours. */
export const ILLEGAL: readonly (readonly [
  what: string,
  frames: readonly Buffer[],
  close: number,
  code: FailureCode,
])[] = [
  ['a text frame', [frame(TEXT, 'abc')], 1003, BAD],
  ['an empty text frame', [frame(TEXT)], 1003, BAD],
  ['text in fragments', [frame(TEXT, 'a', { fin: false }), frame(CONTINUATION, 'b')], 1003, BAD],
  ['text that is not UTF-8', [frame(TEXT, Buffer.from('ff', 'hex'))], 1003, BAD],
  ['a frame that is not masked', [frame(BINARY, 'abc', { mask: null })], 1002, BAD],
  ['an empty frame that is not masked', [frame(BINARY, '', { mask: null })], 1002, BAD],
  ['a ping that is not masked', [frame(PING, '', { mask: null })], 1002, BAD],
  ['a close that is not masked', [frame(CLOSE, '', { mask: null })], 1002, BAD],
  ['RSV1, the bit of compression', [frame(BINARY, 'abc', { rsv: 0x40 })], 1002, BAD],
  ['RSV2', [frame(BINARY, 'abc', { rsv: 0x20 })], 1002, BAD],
  ['RSV3', [frame(BINARY, 'abc', { rsv: 0x10 })], 1002, BAD],
  ['RSV1 in a ping', [frame(PING, '', { rsv: 0x40 })], 1002, BAD],
  ['RSV1 in a continuation', [frame(BINARY, 'a', { fin: false }), frame(CONTINUATION, 'b', { rsv: 0x40 })], 1002, BAD],
  ...[3, 4, 5, 6, 7, 11, 12, 13, 14, 15].map(
    (opcode) => [`reserved opcode ${opcode}`, [frame(opcode, 'a')], 1002, BAD] as const,
  ),
  ['a continuation of nothing', [frame(CONTINUATION, 'a')], 1002, BAD],
  ['a continuation after the end', [frame(BINARY, 'a'), frame(CONTINUATION, 'b')], 1002, BAD],
  ['a new message inside of one', [frame(BINARY, 'a', { fin: false }), frame(BINARY, 'b')], 1002, BAD],
  ['a ping in fragments', [frame(PING, 'a', { fin: false })], 1002, BAD],
  ['a pong in fragments', [frame(PONG, 'a', { fin: false })], 1002, BAD],
  ['a close in fragments', [frame(CLOSE, '', { fin: false })], 1002, BAD],
  ['a ping of 126 bytes', [frame(PING, 'p'.repeat(126))], 1002, BAD],
  ['a ping with a long length', [frame(PING, 'p', { lengthBytes: 2 })], 1002, BAD],
  ['a close of one byte', [frame(CLOSE, 'x')], 1002, BAD],
  ...[0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000].map(
    (code) => [`a close with code ${code}`, [closeFrame(code)], 1002, BAD] as const,
  ),
  ['a message over the limit', [frame(BINARY, 'x'.repeat(1_001))], 1009, LARGE],
  ['a declared length over the limit', [frame(BINARY, '', { declared: 1_001n })], 1009, LARGE],
  ['a declared length of 4 GiB', [frame(BINARY, '', { declared: 1n << 32n })], 1009, LARGE],
  ['a declared length of 2^63', [frame(BINARY, '', { declared: 1n << 63n })], 1009, LARGE],
  [
    'fragments that are over the limit together',
    [frame(BINARY, 'x'.repeat(600), { fin: false }), frame(CONTINUATION, 'x'.repeat(600), { fin: false })],
    1009,
    LARGE,
  ],
]
