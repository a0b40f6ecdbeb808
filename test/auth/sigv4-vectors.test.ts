// The published signatures: the AWS signing test suite (awslabs/aws-c-auth), and those of the wire specification §3.8.
import { createHash } from 'node:crypto'
import test from 'ava'
import type { HttpProof } from '../../src/auth/authenticator.ts'
import { sigv4 } from '../../src/auth/sigv4.ts'
import { canonicalHeaders, canonicalPath, canonicalQuery, canonicalRequest } from '../../src/auth/sigv4-canonical.ts'
import { readSigned } from '../../src/auth/sigv4-read.ts'
import { EMPTY_PAYLOAD_HASH, presign, sha256Hex, sign, signingKey } from '../../src/auth/sigv4-sign.ts'
import { createRegistry } from '../../src/registry/registry.ts'
import { connectionOf } from './conformance.ts'

const SECRET = 'wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY'
const TIME = '20150830T123600Z'
const IOT_HOST = 'abcdefexample-ats.iot.us-east-1.amazonaws.com'
const SUITE_HOST = 'example.amazonaws.com'
const STS_TOKEN =
  'AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfIeoIYRqTflfKD8YUuwt' +
  'hAx7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVXA' +
  'kiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDrypNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA=='
const VANILLA_TOKEN = '6e86291e8372ff2a2260956d9b8aae1d763fbf315fa00fa31553b73ebf194267'

const UPGRADE = null
const EMPTY = new Uint8Array()

const inQuery = (path: string, service: string, signature: string, rest = '', expires = '&X-Amz-Expires=3600') =>
  `${path}?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIDEXAMPLE%2F20150830%2Fus-east-1%2F${service}%2Faws4_request` +
  `&X-Amz-Date=${TIME}${expires}&X-Amz-SignedHeaders=host&X-Amz-Signature=${signature}${rest}`

const inHeader = (host: string, service: string, signature: string, ...more: string[]): string[] => [
  'Host',
  host,
  'X-Amz-Date',
  TIME,
  'Authorization',
  `AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/${service}/aws4_request, ` +
    `SignedHeaders=host;x-amz-date, Signature=${signature}`,
  ...more,
]

interface Vector {
  readonly name: string
  readonly http: HttpProof
  /** Of the canonical request, where it is published. */
  readonly hash?: string
  readonly signature: string
  readonly services?: readonly string[]
  readonly token?: string
  readonly tolerate?: 'single' | 'token'
  /** Right in itself, and not by the rules of the device gateway. */
  readonly refusedOtherwise?: boolean
}

const query = (
  method: string,
  host: string,
  body: Uint8Array | null,
  target: (signature: string) => string,
  signature: string,
) => ({
  http: { method, target: target(signature), rawHeaders: ['Host', host], body } satisfies HttpProof,
  signature,
})

const VECTORS: readonly Vector[] = [
  {
    name: 'get-vanilla, header',
    http: {
      method: 'GET',
      target: '/',
      rawHeaders: inHeader(SUITE_HOST, 'service', '5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31'),
      body: EMPTY,
    },
    hash: 'bb579772317eb040ac9ed261061d46c1f17a8133879d6129b6e1c25292927e63',
    signature: '5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31',
    services: ['service'],
  },
  {
    name: 'get-vanilla, query',
    ...query(
      'GET',
      SUITE_HOST,
      EMPTY,
      (signature) => inQuery('/', 'service', signature),
      'e93c787ed7f371d5c6b165c1b38ede9550f4dce4144713e844b25b7192d3865d',
    ),
    hash: 'bb7705b4aa3cb8e8f5e1e0b3d4c0b64030797a313c8ceee43e33117cc43eadc5',
    services: ['service'],
  },
  {
    name: 'post-sts-header-after, query: the token outside of the signature',
    ...query(
      'POST',
      SUITE_HOST,
      EMPTY,
      (signature) => inQuery('/', 'service', signature, `&X-Amz-Security-Token=${encodeURIComponent(STS_TOKEN)}`),
      '2ce6e6d2e0cf2f9d1b55fafec88cd20574c31dc2e7631979f71ba2310083e95b',
    ),
    services: ['service'],
    token: STS_TOKEN,
  },
  {
    name: 'post-sts-header-before, query: the token in the signature',
    ...query(
      'POST',
      SUITE_HOST,
      EMPTY,
      (signature) => inQuery('/', 'service', signature, `&X-Amz-Security-Token=${encodeURIComponent(STS_TOKEN)}`),
      '46c2e3c63c1dbe7d39f8ada16fe7f001c1f56c5791441565323677f96308871c',
    ),
    services: ['service'],
    token: STS_TOKEN,
    tolerate: 'token',
    refusedOtherwise: true,
  },
  {
    name: 'post-sts-header-after, header',
    http: {
      method: 'POST',
      target: '/',
      rawHeaders: inHeader(
        SUITE_HOST,
        'service',
        '5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b',
        'X-Amz-Security-Token',
        STS_TOKEN,
      ),
      body: EMPTY,
    },
    signature: '5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b',
    services: ['service'],
    token: STS_TOKEN,
  },
  {
    name: 'get-vanilla-with-session-token, query: the token in the signature',
    ...query(
      'GET',
      SUITE_HOST,
      EMPTY,
      (signature) => inQuery('/', 'service', signature, `&X-Amz-Security-Token=${VANILLA_TOKEN}`),
      '7ff2b50b376cb4d151970630573d6291dc128cc5c2a12ffb237f73cc53f67b6c',
    ),
    services: ['service'],
    token: VANILLA_TOKEN,
    tolerate: 'token',
    refusedOtherwise: true,
  },
  {
    name: 'WSS, no expires',
    ...query(
      'GET',
      IOT_HOST,
      UPGRADE,
      (signature) => inQuery('/mqtt', 'iotdevicegateway', signature, '', ''),
      'd4b333d2c6d012d4a9a06ece77a5a630cdb3017ca13a76929da066d1af62084c',
    ),
    hash: '419b2bc842956c421746a921b80da55d3663aedca1448f1d942336a944e1a45e',
  },
  {
    name: 'WSS, expires in a day',
    ...query(
      'GET',
      IOT_HOST,
      UPGRADE,
      (signature) => inQuery('/mqtt', 'iotdevicegateway', signature, '', '&X-Amz-Expires=86400'),
      'c9a5624baeb3efcf2856dacd0da5011e007ce5fecea05d940543342a3c969677',
    ),
    hash: 'bbef016c44934978479ac6e82a179055b17a9565a8f5d0350b9fbf14f80d3c3f',
  },
  ...(
    [
      ['iotdata', '52841ce2a357ce5090a2626b7518ecc3a1aed4ba57f5f030a3f6c3327f69c820', false],
      ['iotdevicegateway', 'd4130615ca85bd46f7171e9dc4d998eb4247f25fbbe43cdcc72766580839b8c3', false],
      ['iotdevicegateway', '7310a473c4fc0d04f8cc868eba5bbe9951b1b1a4c83b17307a54b97288f075f2', true],
    ] as const
  ).map(
    ([service, signature, single]): Vector => ({
      name: `HTTPS publish, ${service}, path encoded ${single ? 'once' : 'twice'}`,
      http: {
        method: 'POST',
        target: '/topics/device%2Fmessage?qos=1',
        rawHeaders: inHeader(IOT_HOST, service, signature),
        body: Buffer.from('{"message":"Hello"}'),
      },
      signature,
      ...(single ? { tolerate: 'single', refusedOtherwise: true } : {}),
    }),
  ),
]

function verifier(vector: Vector, tolerate: boolean) {
  const registry = createRegistry([], {
    accessKey: (id) =>
      id === 'AKIDEXAMPLE'
        ? { id, secret: SECRET, sessionToken: vector.token ?? null, status: 'ACTIVE', policies: [] }
        : null,
  })
  return sigv4({
    registry: () => registry,
    region: 'us-east-1',
    services: vector.services ?? ['iotdevicegateway', 'iotdata'],
    clockSkewMs: 300_000,
    maxPresignAgeMs: 300_000,
    allowSingleEncodedPath: tolerate && vector.tolerate === 'single',
    allowSignedToken: tolerate && vector.tolerate === 'token',
    now: () => new Date('2015-08-30T12:36:30Z'),
  })
}

for (const vector of VECTORS) {
  const { name, http, hash, signature, tolerate } = vector

  test(`${name}: the canonical request and its signature are the published ones`, (t) => {
    const reading = readSigned(http)
    if (reading.kind !== 'signed') return t.fail(reading.kind)
    const { request } = reading
    const withToken = tolerate === 'token' ? [...request.pairs, request.tokenPair!] : request.pairs
    const canonical = canonicalRequest({
      method: http.method,
      path: canonicalPath(request.path, tolerate === 'single' ? 'single' : 'double'),
      query: canonicalQuery(withToken),
      headers: canonicalHeaders(http.rawHeaders, request.signedHeaders)!,
      signedHeaders: request.signedHeaders.join(';'),
      payloadHash: http.body === null ? EMPTY_PAYLOAD_HASH : sha256Hex(http.body),
    })
    if (hash !== undefined) t.is(createHash('sha256').update(canonical).digest('hex'), hash)
    t.is(sign(signingKey(SECRET, request.scope), TIME, request.scope, canonical), signature)
  })

  test(`${name}: it is admitted${tolerate === undefined ? '' : ' where the settings tolerate it'}`, async (t) => {
    const signal = new AbortController().signal
    const outcome = await verifier(vector, true).authenticate({ kind: 'sigv4', http }, connectionOf(), signal)
    t.is(outcome.kind, 'authenticated')
    if (vector.refusedOtherwise !== true) return
    const otherwise = await verifier(vector, false).authenticate({ kind: 'sigv4', http }, connectionOf(), signal)
    t.is(otherwise.kind === 'denied' && otherwise.code, 'ERR_SIGNATURE_MISMATCH')
  })
}

test('the empty payload and the published body have the published hashes', (t) => {
  t.is(EMPTY_PAYLOAD_HASH, 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855')
  t.is(sha256Hex('{"message":"Hello"}'), 'bd0d627406ce45439ab17b9e26ed56de666517e00705d4ea85754ef624be28e4')
})

for (const [service, key] of [
  ['iotdevicegateway', '207a8203506aa719ac15594e0ac0d0f6c00d398e224f2d02d0223399befeccd3'],
  ['iotdata', '978b99659e1d7b203d8144c6999be79d479999dca556a1b71d9ec6086b1fa168'],
] as const) {
  test(`the signing key for ${service} is the published one`, (t) => {
    t.is(signingKey(SECRET, { date: '20150830', region: 'us-east-1', service }).toString('hex'), key)
  })
}

test('the canonical request of the WSS case is the published text', (t) => {
  const pairs = [
    ['X-Amz-SignedHeaders', 'host'],
    ['X-Amz-Date', TIME],
    ['X-Amz-Credential', 'AKIDEXAMPLE%2F20150830%2Fus-east-1%2Fiotdevicegateway%2Faws4_request'],
    ['X-Amz-Algorithm', 'AWS4-HMAC-SHA256'],
  ] as const
  t.is(
    canonicalRequest({
      method: 'GET',
      path: canonicalPath('/mqtt', 'double'),
      query: canonicalQuery(pairs),
      headers: canonicalHeaders(['host', IOT_HOST], ['host'])!,
      signedHeaders: 'host',
      payloadHash: EMPTY_PAYLOAD_HASH,
    }),
    [
      'GET',
      '/mqtt',
      'X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIDEXAMPLE%2F20150830%2Fus-east-1%2Fiotdevicegateway%2Faws4_request' +
        '&X-Amz-Date=20150830T123600Z&X-Amz-SignedHeaders=host',
      `host:${IOT_HOST}`,
      '',
      'host',
      'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855',
    ].join('\n'),
  )
})

for (const [expiresSeconds, signature] of [
  [null, 'd4b333d2c6d012d4a9a06ece77a5a630cdb3017ca13a76929da066d1af62084c'],
  [86_400, 'c9a5624baeb3efcf2856dacd0da5011e007ce5fecea05d940543342a3c969677'],
] as const) {
  test(`presign makes the published URL with expires ${expiresSeconds}, the token behind it`, (t) => {
    const options = {
      host: IOT_HOST,
      path: '/mqtt',
      accessKeyId: 'AKIDEXAMPLE',
      secret: SECRET,
      sessionToken: null,
      region: 'us-east-1',
      service: 'iotdevicegateway',
      at: new Date('2015-08-30T12:36:00.999Z'),
      expiresSeconds,
    }
    const target = presign(options)
    t.true(target.endsWith(`&X-Amz-SignedHeaders=host&X-Amz-Signature=${signature}`), target)
    t.is(presign({ ...options, sessionToken: 'a+b/c=' }), `${target}&X-Amz-Security-Token=a%2Bb%2Fc%3D`)
  })
}

// biome-ignore format: a table is read down its columns
const PATHS: readonly (readonly [raw: string, double: string, single: string])[] = [
  ['/',                     '/',                          '/'],
  ['//',                    '/',                          '/'],
  ['/./',                   '/',                          '/'],
  ['/./example',            '/example',                   '/example'],
  ['//example//',           '/example/',                  '/example/'],
  ['/example/..',           '/',                          '/'],
  ['/example1/example2/../..', '/',                       '/'],
  ['/../a',                 '/a',                         '/a'],
  ['/example space/'.replace(' ', '%20'), '/example%2520space/', '/example%20space/'],
  ['/%e1%88%b4',            '/%25e1%2588%25b4',           '/%E1%88%B4'],
  ['/topics/$aws/a:b',      '/topics/%24aws/a%3Ab',       '/topics/%24aws/a%3Ab'],
  ['/topics/a%2Fb',         '/topics/a%252Fb',            '/topics/a%2Fb'],
  ['/%7Ea/~b',              '/%257Ea/~b',                 '/~a/~b'],
]

for (const [raw, double, single] of PATHS) {
  test(`the path ${raw} is signed as ${double}, or once encoded as ${single}`, (t) => {
    t.is(canonicalPath(raw, 'double'), double)
    t.is(canonicalPath(raw, 'single'), single)
  })
}

test('header values are trimmed, inner white space is one space, fields of one name are joined in their order', (t) => {
  const fields = ['My-Header1', '  a   b\tc  ', 'HOST', 'Example.COM:8443', 'my-header1', '"x   y"', 'other', 'z']
  t.is(canonicalHeaders(fields, ['host', 'my-header1']), 'host:example.com:8443\nmy-header1:a b c,"x y"\n')
  t.is(canonicalHeaders(fields, ['absent', 'host']), null)
  t.is(canonicalHeaders(['host', 'a\nx-amz-date:b'], ['host']), null)
  // The two octets of «à» in UTF-8, of which the second looks like a space.
  t.is(canonicalHeaders(['a', '\xc3\xa0'], ['a']), 'a:\xc3\xa0\n')
})
