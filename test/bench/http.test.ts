import test from 'ava'
import { publishRequest, wholeAnswer } from '../../bench/load/http.ts'
import { webSocketMessage } from '../../bench/load/packets.ts'
import { unframer } from '../../bench/load/wss.ts'

const ANSWER = Buffer.from('HTTP/1.1 200 OK\r\nContent-Type: x\r\nContent-Length: 4\r\n\r\nbody')

test('an answer is whole when its body is, and not a byte before', (t) => {
  for (let at = 0; at < ANSWER.length; at++) t.is(wholeAnswer(ANSWER.subarray(0, at)), null, `${at} bytes`)
  t.deepEqual(wholeAnswer(ANSWER), { status: 200, end: ANSWER.length })
  t.deepEqual(wholeAnswer(Buffer.concat([ANSWER, ANSWER])), { status: 200, end: ANSWER.length })
})

test('a publish is one request with its length', (t) => {
  t.is(
    publishRequest('h', 'a/b', 1, Buffer.from('xyz')).toString(),
    'POST /topics/a/b?qos=1 HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nxyz',
  )
})

test('a message of a client is one masked frame', (t) => {
  t.is(webSocketMessage(Buffer.from('c000', 'hex')).toString('hex'), '828237fa213df7fa')
  t.is(webSocketMessage(Buffer.alloc(126)).toString('hex', 0, 8), '82fe007e37fa213d')
})

/** Two PUBACKs in one message, then one in a message of its own, as a server sends them. */
const FRAMES = Buffer.from('82084002000140020002820440020003', 'hex')

test('the payload of frames is counted at every split', (t) => {
  for (let at = 0; at <= FRAMES.length; at++) {
    const count = unframer()
    t.is(count(FRAMES.subarray(0, at)) + count(FRAMES.subarray(at)), 12, `split at ${at}`)
  }
})

test('a long message has its length in two bytes more', (t) => {
  const count = unframer()
  t.is(count(Buffer.concat([Buffer.from('827e0100', 'hex'), Buffer.alloc(256)])), 256)
})

test('a Close is no payload: whoever counts is told', (t) => {
  t.throws(() => unframer()(Buffer.from('880203e8', 'hex')), { message: /a frame of kind 8/ })
})
