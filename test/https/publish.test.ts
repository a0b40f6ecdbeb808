import test from 'ava'
import fc from 'fast-check'
import type { Message } from '../../src/backend/message.ts'
import { type PublishLimits, parsePublish, publishLimits } from '../../src/https/publish.ts'
import { AWS_IOT_RULES, OPEN_RULES } from '../../src/mqtt/limits.ts'

const OPEN = publishLimits(OPEN_RULES)
const AWS = publishLimits(AWS_IOT_RULES)
const NONE = new Uint8Array()

const BARE: Message = {
  topic: 'a/b',
  payload: NONE,
  qos: 0,
  retain: false,
  contentType: null,
  responseTopic: null,
  correlationData: null,
  messageExpirySeconds: null,
  payloadIsUtf8: null,
  userProperties: [],
}

const base64 = (text: string | Uint8Array): string => Buffer.from(text).toString('base64')
const properties = (text: string): string[] => ['x-amz-mqtt5-user-properties', base64(text)]

// biome-ignore format: a table is read down its columns
const TAKEN: readonly (readonly [string, string, readonly string[], Partial<Message>, PublishLimits?])[] = [
  ['raw slashes',                         '/topics/a/b',                                   [], {}],
  ['slashes in escapes',                  '/topics/a%2Fb',                                 [], {}],
  ['escapes in lower case',               '/topics/a%2fb?',                                [], {}],
  ['a topic that is decoded once only',   '/topics/a%252Fb',                               [], { topic: 'a%2Fb' }],
  ['a topic in UTF-8, escaped',           '/topics/caf%C3%A9',                             [], { topic: 'café' }],
  ['a topic in UTF-8, raw octets',        '/topics/caf\xc3\xa9',                           [], { topic: 'café' }],
  ['empty levels',                        '/topics//a//',                                  [], { topic: '/a//' }],
  ['a reserved operation',                '/topics/$aws/things/x/shadow/update',           [], { topic: '$aws/things/x/shadow/update' }, AWS],
  ['a space',                             '/topics/a%20b',                                 [], { topic: 'a b' }],
  ['a reserved topic',                    '/topics/$aws/things/x',                         [], { topic: '$aws/things/x' }],
  ['a byte order mark, which is a letter here', '/topics/%EF%BB%BFa',                      [], { topic: '\ufeffa' }],
  ['qos 0',                               '/topics/a/b?qos=0',                             [], {}],
  ['qos 1',                               '/topics/a/b?qos=1',                             [], { qos: 1 }],
  ['a name in escapes',                   '/topics/a/b?%71os=1',                           [], { qos: 1 }],
  ['retain',                              '/topics/a/b?retain=true&qos=1',                 [], { retain: true, qos: 1 }],
  ['no retain',                           '/topics/a/b?retain=false',                      [], {}],
  ['a content type, its plus a plus',     '/topics/a/b?contentType=application/ld+json',   [], { contentType: 'application/ld+json' }],
  ['a content type in escapes',           '/topics/a/b?contentType=a%2Fb%3Dc%26',          [], { contentType: 'a/b=c&' }],
  ['an empty content type',               '/topics/a/b?contentType=',                      [], {}],
  ['a response topic',                    '/topics/a/b?responseTopic=r%2F1',               [], { responseTopic: 'r/1' }],
  ['an expiry',                           '/topics/a/b?messageExpiry=60',                  [], { messageExpirySeconds: 60 }],
  ['the longest expiry',                  '/topics/a/b?messageExpiry=4294967295',          [], { messageExpirySeconds: 4_294_967_295 }],
  ['an expiry above the most, lowered',   '/topics/a/b?messageExpiry=604801',              [], { messageExpirySeconds: 604_800 }, AWS],
  ['an expiry of 0, raised',              '/topics/a/b?messageExpiry=0',                   [], { messageExpirySeconds: 1 }, AWS],
  ['user properties',                     '/topics/a/b', properties('[{"deviceName":"alpha"},{"deviceCnt":"45"}]'),  { userProperties: [['deviceName', 'alpha'], ['deviceCnt', '45']] }],
  ['a user property twice, in order',     '/topics/a/b', properties('[{"a":"1"},{"b":"2"},{"a":"3"}]'),              { userProperties: [['a', '1'], ['b', '2'], ['a', '3']] }],
  ['a user property called __proto__',    '/topics/a/b', properties('[{"__proto__":"x"}]'),                          { userProperties: [['__proto__', 'x']] }],
  ['no user properties',                  '/topics/a/b', properties('[]'),                                           {}],
  ['unspecified bytes',                   '/topics/a/b', ['X-Amz-Mqtt5-Payload-Format-Indicator', 'UNSPECIFIED_BYTES'], { payloadIsUtf8: false }],
  ['UTF-8',                               '/topics/a/b', ['x-amz-mqtt5-payload-format-indicator', 'UTF8_DATA'],         { payloadIsUtf8: true }],
  ['correlation data',                    '/topics/a/b', ['x-amz-mqtt5-correlation-data', 'AP8='],                      { correlationData: Buffer.from('00ff', 'hex') }],
  ['what an authorizer reads, left out',  '/topics/a/b?x-amz-customauthorizer-name=x&token=secret&token=again&%zz=1', ['x-amz-customauthorizer-signature', 'secret', 'Content-Type', 'text/plain', 'token', 'secret'], {}],
  ['what a signature reads, left out',    '/topics/a/b?X-Amz-Signature=secret', ['Authorization', 'AWS4-HMAC-SHA256 secret', 'x-amz-date', 'x'], {}],
  ['Basic Ingest over seven slashes',     '/topics/$aws/rules/r/1/2/3/4/5/6/7/8',         [], { topic: '$aws/rules/r/1/2/3/4/5/6/7/8' }, AWS],
]

for (const [what, target, rawHeaders, changes, limits = OPEN] of TAKEN) {
  test(`a publish with ${what} is taken`, (t) => {
    t.deepEqual(parsePublish(target, rawHeaders, NONE, limits), { kind: 'publish', publish: { ...BARE, ...changes } })
  })
}

test('the payload is passed on as it came, whatever it holds', (t) => {
  const body = Buffer.from('00ff80', 'hex')
  const parsed = parsePublish('/topics/a/b?qos=1', [], body, OPEN)
  t.is(parsed.kind === 'publish' && parsed.publish.payload, body)
})

// biome-ignore format: a table is read down its columns
const REFUSED: readonly (readonly [string, string, readonly string[], string, RegExp, PublishLimits?])[] = [
  ['an empty topic',                '/topics/',                       [], 'ERR_TOPIC_INVALID',   /topic is empty/],
  ['an empty topic with a query',   '/topics/?qos=1',                 [], 'ERR_TOPIC_INVALID',   /topic is empty/],
  ['another path',                  '/things/a',                      [], 'ERR_TOPIC_INVALID',   /topic is empty/],
  ['the wildcard +',                '/topics/a/+/b',                  [], 'ERR_TOPIC_INVALID',   /wildcard/],
  ['the wildcard + in escapes',     '/topics/a%2B',                   [], 'ERR_TOPIC_INVALID',   /wildcard/],
  ['the wildcard #',                '/topics/a/%23',                  [], 'ERR_TOPIC_INVALID',   /wildcard/],
  ['NUL',                           '/topics/a%00',                   [], 'ERR_TOPIC_INVALID',   /MQTT forbids/],
  ['a control character',           '/topics/a%0Ab',                  [], 'ERR_TOPIC_INVALID',   /MQTT forbids/],
  ['a noncharacter',                '/topics/%EF%BF%BF',              [], 'ERR_TOPIC_INVALID',   /MQTT forbids/],
  ['a noncharacter of plane 1',     '/topics/%F0%9F%BF%BF',           [], 'ERR_TOPIC_INVALID',   /MQTT forbids/],
  ['a surrogate',                   '/topics/%ED%A0%80',              [], 'ERR_TOPIC_INVALID',   /not UTF-8/],
  ['an overlong form',              '/topics/%C0%AF',                 [], 'ERR_TOPIC_INVALID',   /not UTF-8/],
  ['half a character',              '/topics/%C3',                    [], 'ERR_TOPIC_INVALID',   /not UTF-8/],
  ['a broken escape',               '/topics/a%2',                    [], 'ERR_TOPIC_INVALID',   /broken percent escape/],
  ['an escape that is none',        '/topics/a%2xb',                  [], 'ERR_TOPIC_INVALID',   /broken percent escape/],
  ['a character that is no octet',  '/topics/\u0141',                 [], 'ERR_TOPIC_INVALID',   /broken percent escape/],
  ['a topic of 257 bytes',          `/topics/${'%C3%A9'.repeat(128)}a`, [], 'ERR_TOPIC_INVALID', /more than 256 bytes/, AWS],
  ['a topic that MQTT cannot hold', `/topics/${'a'.repeat(65_536)}`,  [], 'ERR_TOPIC_INVALID',   /more than 65535 bytes/],
  ['eight slashes',                 '/topics/1/2/3/4/5/6/7/8/9',      [], 'ERR_TOPIC_INVALID',   /more than 7 slashes/, AWS],
  ['eight slashes in escapes',      '/topics/1%2F2/3/4/5/6/7/8/9',    [], 'ERR_TOPIC_INVALID',   /more than 7 slashes/, AWS],
  ['retain on a reserved topic',    '/topics/$aws/x?retain=true',     [], 'ERR_RETAIN_UNSUPPORTED', /begins with \$/, AWS],
  ['a topic of events',             '/topics/$aws/events/presence/connected/a', [], 'ERR_TOPIC_INVALID', /reserved/, AWS],
  ['a topic of answers, in escapes', '/topics/%24aws/things/x/shadow/get/accepted', [], 'ERR_TOPIC_INVALID', /reserved/, AWS],
  ['a topic of the broker',         '/topics/$SYS/broker/load',       [], 'ERR_TOPIC_INVALID',   /reserved/, AWS],
  ['qos 2',                         '/topics/a?qos=2',                [], 'ERR_REQUEST_INVALID', /qos is neither/],
  ['a qos above the most',          '/topics/a?qos=1',                [], 'ERR_QOS_UNSUPPORTED', /above what is available/, publishLimits({ ...OPEN_RULES, maxQoS: 0 })],
  ['no qos in qos',                 '/topics/a?qos',                  [], 'ERR_REQUEST_INVALID', /qos is neither/],
  ['qos 01',                        '/topics/a?qos=01',               [], 'ERR_REQUEST_INVALID', /qos is neither/],
  ['qos twice',                     '/topics/a?qos=1&qos=1',          [], 'ERR_REQUEST_INVALID', /qos stands twice/],
  ['qos twice, once in escapes',    '/topics/a?qos=1&q%6Fs=0',        [], 'ERR_REQUEST_INVALID', /qos stands twice/],
  ['retain in other letters',       '/topics/a?retain=TRUE',          [], 'ERR_REQUEST_INVALID', /retain is neither/],
  ['retain as a number',            '/topics/a?retain=1',             [], 'ERR_REQUEST_INVALID', /retain is neither/],
  ['a content type too long',       `/topics/a?contentType=${'a'.repeat(257)}`, [], 'ERR_REQUEST_INVALID', /contentType has more than 256/],
  ['a content type with a line break', '/topics/a?contentType=a%0D%0A', [], 'ERR_REQUEST_INVALID', /MQTT forbids/],
  ['a response topic of wildcards', '/topics/a?responseTopic=a/%23',  [], 'ERR_TOPIC_INVALID',   /responseTopic holds a wildcard/],
  ['an empty response topic',       '/topics/a?responseTopic=',       [], 'ERR_TOPIC_INVALID',   /responseTopic is empty/],
  ['an expiry below 0',             '/topics/a?messageExpiry=-1',     [], 'ERR_REQUEST_INVALID', /messageExpiry/],
  ['an expiry that is no integer',  '/topics/a?messageExpiry=1.5',    [], 'ERR_REQUEST_INVALID', /messageExpiry/],
  ['an expiry over 32 bits',        '/topics/a?messageExpiry=4294967296', [], 'ERR_REQUEST_INVALID', /messageExpiry/],
  ['an empty expiry',               '/topics/a?messageExpiry=',       [], 'ERR_REQUEST_INVALID', /messageExpiry/],
  ['properties that are no base64', '/topics/a', ['x-amz-mqtt5-user-properties', '[{}]'],         'ERR_REQUEST_INVALID', /not base64/],
  ['base64 for URLs',               '/topics/a', ['x-amz-mqtt5-correlation-data', '_-8='],        'ERR_REQUEST_INVALID', /not base64/],
  ['base64 without its padding',    '/topics/a', ['x-amz-mqtt5-correlation-data', 'AP8'],         'ERR_REQUEST_INVALID', /not base64/],
  ['base64 with bits left over',    '/topics/a', ['x-amz-mqtt5-correlation-data', 'AP9='],        'ERR_REQUEST_INVALID', /not base64/],
  ['properties that are no JSON',   '/topics/a', properties('[{"a":"b"}'),                        'ERR_REQUEST_INVALID', /not JSON/],
  ['properties that are no UTF-8',  '/topics/a', ['x-amz-mqtt5-user-properties', base64(Buffer.from('5b7b2261223a22ff227d5d', 'hex'))], 'ERR_REQUEST_INVALID', /not UTF-8/],
  ['properties that are no array',  '/topics/a', properties('{"a":"b"}'),                         'ERR_REQUEST_INVALID', /not an array/],
  ['a property of two pairs',       '/topics/a', properties('[{"a":"b","c":"d"}]'),               'ERR_REQUEST_INVALID', /one pair/],
  ['a property of no pair',         '/topics/a', properties('[{}]'),                              'ERR_REQUEST_INVALID', /one pair/],
  ['a property that is an array',   '/topics/a', properties('[["a"]]'),                           'ERR_REQUEST_INVALID', /one pair/],
  ['a property that is null',       '/topics/a', properties('[null]'),                            'ERR_REQUEST_INVALID', /one pair/],
  ['a number in a property',        '/topics/a', properties('[{"a":1}]'),                         'ERR_REQUEST_INVALID', /one pair/],
  ['half a surrogate pair',         '/topics/a', properties('[{"a":"\\ud800"}]'),                 'ERR_REQUEST_INVALID', /MQTT forbids/],
  ['NUL in a property',             '/topics/a', properties('[{"\\u0000":"a"}]'),                 'ERR_REQUEST_INVALID', /MQTT forbids/],
  ['properties over 8 KiB',         '/topics/a', properties(`[{"a":"${'b'.repeat(8_192)}"}]`),    'ERR_REQUEST_INVALID', /more than 8192 bytes/],
  ['correlation data over 8 KiB',   '/topics/a', ['x-amz-mqtt5-correlation-data', base64(Buffer.alloc(8_193))], 'ERR_REQUEST_INVALID', /more than 8192 bytes/],
  ['an unknown payload format',     '/topics/a', ['x-amz-mqtt5-payload-format-indicator', '1'],   'ERR_REQUEST_INVALID', /payload format/],
  ['a header twice',                '/topics/a', ['x-amz-mqtt5-correlation-data', '', 'X-Amz-Mqtt5-Correlation-Data', ''], 'ERR_REQUEST_INVALID', /stands twice/],
  ['an extra that nobody knows',    '/topics/a', ['x-amz-mqtt5-other', 'x'],                      'ERR_REQUEST_INVALID', /not known/],
]

for (const [what, target, rawHeaders, code, detail, limits = OPEN] of REFUSED) {
  test(`a publish with ${what} is refused: ${code}`, (t) => {
    const parsed = parsePublish(target, rawHeaders, NONE, limits)
    if (parsed.kind === 'publish') return t.fail('taken')
    t.is(parsed.code, code as typeof parsed.code)
    t.regex(parsed.detail, detail)
  })
}

test('a payload of 128 KiB is taken and one more byte is not', (t) => {
  t.is(parsePublish('/topics/a', [], Buffer.alloc(131_072), OPEN).kind, 'publish')
  const parsed = parsePublish('/topics/a', [], Buffer.alloc(131_073), OPEN)
  t.is(parsed.kind === 'refused' && parsed.code, 'ERR_PAYLOAD_TOO_LARGE')
})

test('a payload that is not the UTF-8 it is said to be is refused', (t) => {
  const headers = ['x-amz-mqtt5-payload-format-indicator', 'UTF8_DATA']
  const parsed = parsePublish('/topics/a', headers, Buffer.from('c3', 'hex'), OPEN)
  t.is(parsed.kind === 'refused' && parsed.code, 'ERR_REQUEST_INVALID')
})

test('any topic that MQTT can carry arrives as it was encoded, and hostile targets are refused without a throw', (t) => {
  fc.assert(
    fc.property(fc.string({ unit: 'grapheme', minLength: 1 }), (topic) => {
      const parsed = parsePublish(`/topics/${encodeURIComponent(topic)}`, [], NONE, OPEN)
      if (parsed.kind === 'publish') t.is(parsed.publish.topic, topic)
      else t.regex(topic, /[+#\p{Cc}\p{Noncharacter_Code_Point}]/u)
    }),
    { numRuns: 5_000 },
  )
  const part = fc.constantFrom(
    ...'%',
    '2',
    'F',
    'C3',
    '/',
    '?',
    '&',
    '=',
    'qos',
    'retain',
    '+',
    '#',
    '\0',
    '\xff',
    '\u0141',
  )
  fc.assert(
    fc.property(fc.array(part), fc.array(fc.tuple(fc.constantFrom(...HEADERS), fc.string())), (parts, fields) => {
      const parsed = parsePublish(`/topics/${parts.join('')}`, fields.flat(), NONE, AWS)
      if (parsed.kind === 'publish') t.notRegex(parsed.publish.topic, /[+#\0]|^$/)
    }),
    { numRuns: 5_000 },
  )
})

const HEADERS = ['x-amz-mqtt5-user-properties', 'x-amz-mqtt5-payload-format-indicator', 'x-amz-mqtt5-correlation-data']
