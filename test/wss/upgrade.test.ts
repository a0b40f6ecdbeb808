import { once } from 'node:events'
import test from 'ava'
import type { FailureCode } from '../../src/errors.ts'
import { upgrade } from '../../src/wss/upgrade.ts'
import { until } from '../mqtt/fakes.ts'
import { BINARY, frame, LIMITS, pair, request, upgraded } from './frames.ts'

async function answerTo(headers: Readonly<Record<string, string | undefined>>): Promise<string> {
  const [near, device] = pair()
  const result = upgrade(request(headers), near, Buffer.alloc(0), LIMITS)
  const [answer] = (await once(device, 'data')) as [Buffer]
  if (result.kind === 'accepted') result.stream.destroy()
  return answer.toString('latin1')
}

test('the answer is 101 with the accept of the key and the subprotocol [RFC 6455 §1.3]', async (t) => {
  t.is(
    await answerTo({}),
    'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n' +
      'Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n',
  )
})

const SUBPROTOCOLS: readonly (readonly [offered: string | undefined, chosen: string | null])[] = [
  ['mqtt', 'mqtt'],
  ['mqttv3.1', 'mqttv3.1'],
  ['mqtt, mqttv3.1', 'mqtt'],
  ['mqttv3.1,mqtt', 'mqttv3.1'],
  ['chat, mqtt', 'mqtt'],
  [undefined, null],
  ['', null],
  ['MQTT', null],
  ['mqttv5', null],
  ['xmqtt', null],
  ['mqttv3.1.1', null],
  ['mqtt;q=1', null],
  ['__proto__', null],
]

for (const [offered, chosen] of SUBPROTOCOLS) {
  test(`subprotocols «${offered ?? 'none'}»: ${chosen === null ? 'refused' : `${chosen} is echoed`}`, async (t) => {
    if (chosen === null) {
      const [near] = pair()
      const result = upgrade(request({ 'sec-websocket-protocol': offered }), near, Buffer.alloc(0), LIMITS)
      t.like(result, { kind: 'refused', code: 'ERR_SUBPROTOCOL' })
    } else {
      const answer = await answerTo({ 'sec-websocket-protocol': offered })
      t.true(answer.includes(`\r\nSec-WebSocket-Protocol: ${chosen}\r\n`), answer)
    }
  })
}

test('compression is never agreed to [wire specification §8]', async (t) => {
  const answer = await answerTo({ 'sec-websocket-extensions': 'permessage-deflate; client_max_window_bits' })
  t.true(answer.startsWith('HTTP/1.1 101 '))
  t.notRegex(answer, /extensions/i)
})

const REFUSED: readonly (readonly [
  what: string,
  headers: Readonly<Record<string, string | undefined>>,
  code: FailureCode,
  line?: { readonly method?: string; readonly httpVersion?: string },
])[] = [
  ['a POST', {}, 'ERR_HTTP_METHOD', { method: 'POST' }],
  ['HTTP/1.0', {}, 'ERR_UPGRADE_REQUIRED', { httpVersion: '1.0' }],
  ['no Upgrade', { upgrade: undefined }, 'ERR_UPGRADE_REQUIRED'],
  ['an upgrade to h2c', { upgrade: 'h2c' }, 'ERR_UPGRADE_REQUIRED'],
  ['an upgrade to two protocols', { upgrade: 'websocket, h2c' }, 'ERR_UPGRADE_REQUIRED'],
  ['a Connection that does not name it', { connection: 'keep-alive' }, 'ERR_UPGRADE_REQUIRED'],
  ['no Connection', { connection: undefined }, 'ERR_UPGRADE_REQUIRED'],
  ['version 8', { 'sec-websocket-version': '8' }, 'ERR_UPGRADE_REQUIRED'],
  ['version 0xd', { 'sec-websocket-version': '0xd' }, 'ERR_UPGRADE_REQUIRED'],
  ['two versions', { 'sec-websocket-version': '13, 8' }, 'ERR_UPGRADE_REQUIRED'],
  ['no version', { 'sec-websocket-version': undefined }, 'ERR_UPGRADE_REQUIRED'],
  ['no key', { 'sec-websocket-key': undefined }, 'ERR_HTTP_MALFORMED'],
  ['a short key', { 'sec-websocket-key': 'dGhl' }, 'ERR_HTTP_MALFORMED'],
  [
    'a key that came twice',
    { 'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ==, dGhlIHNhbXBsZSBub25jZQ==' },
    'ERR_HTTP_MALFORMED',
  ],
  ['a body', { 'content-length': '5' }, 'ERR_HTTP_MALFORMED'],
  ['a chunked body', { 'transfer-encoding': 'chunked' }, 'ERR_HTTP_MALFORMED'],
  ['a subprotocol that came twice', { 'sec-websocket-protocol': 'mqtt, mqtt' }, 'ERR_HTTP_MALFORMED'],
  ['a subprotocol list that is none', { 'sec-websocket-protocol': 'mqtt, a b' }, 'ERR_HTTP_MALFORMED'],
]

for (const [what, headers, code, line] of REFUSED) {
  test(`${what} is refused, and nothing is written`, (t) => {
    const [near] = pair()
    const written: unknown[] = []
    near.write = (chunk: unknown) => written.push(chunk) > 0
    const result = upgrade(request(headers, line), near, Buffer.alloc(0), LIMITS)
    t.like(result, { kind: 'refused', code })
    t.deepEqual(written, [])
  })
}

test('a device that has left is refused', (t) => {
  const [near] = pair()
  near.destroy()
  t.like(upgrade(request(), near, Buffer.alloc(0), LIMITS), { kind: 'refused', code: 'ERR_WEBSOCKET' })
})

test('Connection may name more, in any case', async (t) => {
  const answer = await answerTo({ connection: 'keep-alive, UPGRADE', upgrade: 'WebSocket' })
  t.true(answer.startsWith('HTTP/1.1 101 '))
})

test('what came with the request, and after it, waits for the 101 and for a reader', async (t) => {
  const early = frame(BINARY, 'one')
  const { stream, device, data } = upgraded(t, { early: early.subarray(0, 4) })
  device.write(early.subarray(4))
  device.write(frame(BINARY, 'two'))
  await until(() => data() === 'onetwo')
  t.false(stream.destroyed)
})
