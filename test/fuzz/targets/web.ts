import { setImmediate } from 'node:timers/promises'
import type { ExecutionContext } from 'ava'
import { FAILURES } from '../../../src/errors.ts'
import { checkHead, type RawHead } from '../../../src/https/head.ts'
import { parsePublish, publishLimits } from '../../../src/https/publish.ts'
import { AWS_IOT_RULES, OPEN_RULES } from '../../../src/mqtt/limits.ts'
import { HIDDEN, SHAPES } from '../../https/desync-shapes.ts'
import { BINARY, CONTINUATION, closeFrame, frame, PING, PONG, TEXT, upgraded } from '../../wss/frames.ts'
import { must, pieces, type Target } from '../target.ts'

const MOST_MESSAGE = 4_096

interface Session {
  readonly data: string
  readonly code: string | null
  readonly sent: number
}

/** A session that is told all of this and then the end, in these chunks. */
async function session(chunks: readonly Buffer[]): Promise<Session> {
  const ends: (() => unknown)[] = []
  const t = { teardown: (end: () => unknown) => ends.push(end) } as unknown as ExecutionContext
  const { stream, device, data, events, received } = upgraded(t, { maxMessageBytes: MOST_MESSAGE })
  try {
    for (const chunk of chunks) device.write(Buffer.from(chunk))
    device.end()
    for (let turn = 0; turn < 64 && !events.includes('end'); turn++) await setImmediate()
    must(events.includes('end'), 'its end is not told')
    stream.end()
    await setImmediate()
    return { data: data(), code: stream.fault?.code ?? null, sent: received().length }
  } finally {
    stream.destroy()
    for (const end of ends) end()
  }
}

/** What a reader of RFC 6455 takes from well-formed frames of a device; null where something is against the rules. */
function payloads(bytes: Buffer): string | null {
  let at = 0
  let text = ''
  let inside = false
  while (at < bytes.length) {
    const [first, second] = [bytes[at]!, bytes[at + 1]]
    if (second === undefined) return text
    const opcode = first & 0x0f
    if ((first & 0x70) !== 0 || (second & 0x80) === 0 || ![CONTINUATION, BINARY, PING, PONG].includes(opcode))
      return null
    const fin = (first & 0x80) !== 0
    const short = second & 0x7f
    if (opcode >= 8 && (!fin || short > 125)) return null
    const head = at + (short === 126 ? 4 : short === 127 ? 10 : 2)
    if (head + 4 > bytes.length) return null
    const length =
      short === 126 ? bytes.readUInt16BE(at + 2) : short === 127 ? Number(bytes.readBigUInt64BE(at + 2)) : short
    const end = head + 4 + length
    if (length > MOST_MESSAGE || end > bytes.length) return null
    if (opcode < 8) {
      if ((opcode === CONTINUATION) !== inside) return null
      inside = !fin
      const mask = bytes.subarray(head, head + 4)
      for (let n = 0; n < length; n++) text += String.fromCharCode(bytes[head + 4 + n]! ^ mask[n & 3]!)
      // What is not whole is not told.
      if (inside) return null
    }
    at = end
  }
  return text
}

export const WEB_SOCKET: Target = {
  name: 'web-socket',
  corpus: () => [
    frame(BINARY, 'CONNECT'),
    Buffer.concat([frame(BINARY, 'a'), frame(PING, 'p'), frame(BINARY, 'b'.repeat(130)), closeFrame(1000)]),
    Buffer.concat([frame(BINARY, 'ab', { fin: false }), frame(PING), frame(CONTINUATION, 'c')]),
    frame(BINARY, 'x'.repeat(300)),
    frame(BINARY, 'abc', { lengthBytes: 8 }),
    Buffer.concat([frame(BINARY), frame(PONG, 'x'), frame(BINARY, 'y')]),
  ],
  tokens: [
    frame(TEXT, 'a'),
    frame(CONTINUATION, 'c'),
    frame(BINARY, 'z'),
    frame(PING),
    closeFrame(1001),
    Buffer.from('82ff', 'hex'),
    Buffer.from('82fe', 'hex'),
  ],
  maxBytes: 6_000,
  kinds: ['served', 'ERR_WEBSOCKET', 'ERR_WEBSOCKET_TOO_LARGE'],
  cases: 300,
  async check(input, below) {
    const whole = await session([input])
    const cut = await session(pieces(input, below))
    must(
      cut.data === whole.data && cut.code === whole.code,
      `in pieces it is another session: ${cut.code} ${whole.code}`,
    )
    const expected = payloads(input)
    if (expected !== null)
      must(whole.code === null && whole.data === expected, `other bytes than were sent: ${whole.code}`)
    must(whole.data.length <= input.length, 'more comes out than went in')
    return whole.code ?? 'served'
  },
}

/** `METHOD target HTTP/1.1`, header lines, an empty line, the body: as the runtime's parser would take it apart. */
function requestOf(input: Buffer): { readonly raw: RawHead; readonly body: Buffer } {
  const text = input.toString('latin1')
  const end = text.indexOf('\r\n\r\n')
  const [line = '', ...lines] = (end < 0 ? text : text.slice(0, end)).split('\r\n')
  const [method = '', url = '', version = ''] = line.split(' ')
  const rawHeaders = lines.flatMap((each) => {
    const colon = each.indexOf(':')
    return colon < 0 ? [each, ''] : [each.slice(0, colon), each.slice(colon + 1).trim()]
  })
  const body = end < 0 ? Buffer.alloc(0) : input.subarray(end + 4)
  return { raw: { method, url, httpVersion: version.replace('HTTP/', ''), rawHeaders }, body }
}

const request = (text: string): Buffer => Buffer.from(text, 'latin1')
const UPGRADE = 'GET /mqtt?a=b HTTP/1.1\r\nHost: a.example:443\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n'

export const HTTP_HEAD: Target = {
  name: 'http-head',
  corpus: () => [
    ...SHAPES.filter(({ bytes }) => bytes.length < 1_500).map(({ bytes }) => bytes),
    request(HIDDEN),
    request(UPGRADE),
    request('OPTIONS * HTTP/1.1\r\nHost: A.example.\r\n\r\n'),
    request('GET https://a.example/x HTTP/1.1\r\nHost: a.example\r\n\r\n'),
    request('GET / HTTP/1.0\r\n\r\n'),
  ],
  tokens: [
    '\r\n',
    'Host: a.example',
    'Host: b.example',
    'Content-Length: 6',
    'Transfer-Encoding: chunked',
    'https://a.example',
    '//',
    '#',
    '%2f',
    ' HTTP/1.0',
    '@',
    '[::1]',
    ':443',
    '\0',
    '\t',
  ],
  maxBytes: 2_048,
  kinds: ['head', 'ERR_HTTP_MALFORMED', 'ERR_HOST_MISMATCH'],
  cases: 12_000,
  check(input, below) {
    const { raw } = requestOf(input)
    const rules = { serverNames: ['a.example'], maxHeaders: 20, upgrade: below(4) === 0 }
    const answer = checkHead(raw, rules)
    if (answer.kind === 'refused') {
      must(answer.code in FAILURES && answer.detail !== '', `a refusal ${answer.code}`)
      return answer.code
    }
    const { head } = answer
    must(head.target.startsWith('/') || (head.target === '*' && head.method === 'OPTIONS'), `a target ${head.target}`)
    must(!/[\0-\x20\x7f-\uffff#\\]/.test(head.target), 'a target with bytes that no URL has')
    must(head.path + (head.query === null ? '' : `?${head.query}`) === head.target, 'path and query are not the target')
    must(!(head.chunked && head.contentLength !== null), 'two lengths')
    must(head.contentLength === null || Number.isSafeInteger(head.contentLength), 'a length that is none')
    must(
      head.host === null
        ? head.version === '1.0'
        : new URL(`https://${head.host}`).hostname.replace(/\.$/, '') === 'a.example',
      `a host ${head.host}`,
    )
    const again = checkHead({ ...raw, url: head.target }, rules)
    must(JSON.stringify(again) === JSON.stringify(answer), 'read again it is another head')
    return 'head'
  },
}

const PUBLISH_RULES = [publishLimits(OPEN_RULES), publishLimits(AWS_IOT_RULES)] as const

export const PUBLISH_REQUEST: Target = {
  name: 'publish-request',
  corpus: () => [
    request('POST /topics/device%2Fmessage?qos=1&retain=true HTTP/1.1\r\nHost: a.example\r\n\r\n{"a":1}'),
    request(
      'POST /topics/a/b?contentType=text%2Fplain&responseTopic=r&messageExpiry=60 HTTP/1.1\r\nx-amz-mqtt5-correlation-data: YWJj\r\n\r\nx',
    ),
    request(
      `POST /topics/t?qos=0 HTTP/1.1\r\nx-amz-mqtt5-user-properties: ${Buffer.from('[{"a":"b"},{"c":"d"}]').toString('base64')}\r\nx-amz-mqtt5-payload-format-indicator: UTF8_DATA\r\n\r\nx`,
    ),
    request('POST /topics/$aws/rules/one/a HTTP/1.1\r\n\r\n'),
  ],
  tokens: [
    '%2F',
    '%00',
    '%ff',
    '%c3%a4',
    '+',
    '#',
    '&qos=1',
    '&retain=',
    'W10=',
    'x-amz-mqtt5-',
    '\r\n',
    'eyJhIjoiYiJ9',
    '%',
    '=',
    '%24',
  ],
  maxBytes: 2_048,
  kinds: ['publish', 'refused'],
  cases: 12_000,
  check(input, below) {
    const { raw, body } = requestOf(input)
    const limits = PUBLISH_RULES[below(2)]!
    const answer = parsePublish(raw.url, raw.rawHeaders, body, limits)
    if (answer.kind === 'refused') {
      must(answer.code in FAILURES && answer.detail !== '', `a refusal ${answer.code}`)
      return 'refused'
    }
    const { topic, responseTopic, qos, userProperties, correlationData, messageExpirySeconds } = answer.publish
    for (const name of [topic, responseTopic]) {
      if (name === null) continue
      must(name !== '' && !/[+#\0\ufffd]/.test(name), `a topic ${JSON.stringify(name)}`)
      must(Buffer.byteLength(name) <= limits.topicBytes, 'a topic past its limit')
      must(Buffer.from(name).toString() === name, 'a topic that is not UTF-8')
    }
    // A target that is not ASCII was refused with its head.
    if (!/[^\x21-\x7e]/.test(raw.url)) {
      must(
        topic === decodeURIComponent(raw.url.split('?')[0]!.slice('/topics/'.length)),
        'another topic than was meant',
      )
    }
    must(qos <= limits.maxQoS, `QoS ${qos}`)
    must(messageExpirySeconds === null || Number.isSafeInteger(messageExpirySeconds), 'an expiry that is none')
    must(userProperties.length <= input.length && (correlationData?.length ?? 0) <= input.length, 'more than was sent')
    return 'publish'
  },
}
