// The signer inside the AWS IoT SDKs against the verifier: what it signs must be admitted as it goes on the wire.

import test from 'ava'
import { auth, http } from 'aws-iot-device-sdk-v2'
import type { HttpProof } from '../../src/auth/authenticator.ts'
import { sha256Hex } from '../../src/auth/sigv4-sign.ts'
import { HOST, SECRET, SIGNED_AT, TOKEN, verifier } from '../support/sigv4.ts'
import { connectionOf } from './conformance.ts'

interface Request {
  readonly target: string
  readonly service: string
  readonly form: 'header' | 'query'
  readonly headers?: readonly [string, string][]
  /** Null: an upgrade. */
  readonly body: string | null
  readonly token?: 'signed' | 'omitted'
  readonly expires?: number
}

async function signedBySdk(request: Request): Promise<HttpProof> {
  const { target, service, form, headers = [], body, token, expires } = request
  const method = body === null ? 'GET' : 'POST'
  const unsigned = new http.HttpRequest(method, target, new http.HttpHeaders([['Host', HOST], ...headers]))
  const signed = await auth.aws_sign_request(unsigned, {
    algorithm: auth.AwsSigningAlgorithm.SigV4,
    signature_type:
      form === 'query' ? auth.AwsSignatureType.HttpRequestViaQueryParams : auth.AwsSignatureType.HttpRequestViaHeaders,
    provider:
      token === undefined
        ? auth.AwsCredentialsProvider.newStatic('AKIDEXAMPLE', SECRET)
        : auth.AwsCredentialsProvider.newStatic('ASIAEXAMPLE', SECRET, TOKEN),
    region: 'us-east-1',
    service,
    date: SIGNED_AT,
    signed_body_value: sha256Hex(body ?? ''),
    omit_session_token: token !== 'signed',
    ...(expires === undefined ? {} : { expiration_in_seconds: expires }),
  })
  const fields = signed.headers._flatten()
  return { method, target: signed.path, rawHeaders: fields.flat(), body: body === null ? null : Buffer.from(body) }
}

const WSS = { target: '/mqtt', service: 'iotdevicegateway', form: 'query', body: null } as const
const PUBLISH = {
  target: '/topics/device%2Fmessage?qos=1',
  service: 'iotdata',
  form: 'header',
  body: '{"a":"b"}',
} as const

// biome-ignore format: a table is read down its columns
const REQUESTS: readonly (readonly [string, Request])[] = [
  ['a WebSocket upgrade as the IoT SDK signs it, with connection;host', { ...WSS, headers: [['Connection', 'Upgrade']] }],
  ['an upgrade with an expiry',                                         { ...WSS, expires: 300 }],
  ['an upgrade with the token appended after signing',                  { ...WSS, token: 'omitted' }],
  ['a publish',                                                         PUBLISH],
  ['a publish with its token signed',                                   { ...PUBLISH, token: 'signed' }],
  ['a publish with its token unsigned',                                 { ...PUBLISH, token: 'omitted' }],
  ['a publish presigned',                                               { ...PUBLISH, form: 'query' }],
  ['a publish with extras',                                             { ...PUBLISH, headers: [['x-amz-mqtt5-correlation-data', 'eA=='], ['Content-Type', 'text/plain']] }],
  ['a publish with values to be trimmed',                               { ...PUBLISH, headers: [['x-amz-meta', '  a   b  '], ['x-amz-meta', 'c']] }],
  ['a topic of many characters',                                        { ...PUBLISH, target: '/topics/%24aws%2Fcaf%C3%A9%2F%20~-._a?retain=true&qos=0&contentType=a%2Fb%2Bc' }],
  ['raw characters in the path',                                        { ...PUBLISH, target: "/topics/$aws/a:b@c!'()*,;=" }],
  ['a query without values, and one twice',                             { ...PUBLISH, target: '/topics/a?b&a=2&a=1&c=' }],
]

for (const [what, request] of REQUESTS) {
  test(`${what}: admitted`, async (t) => {
    const proof = await signedBySdk(request)
    const ask = (changed: HttpProof) =>
      verifier().authenticate({ kind: 'sigv4', http: changed }, connectionOf(), new AbortController().signal)
    const outcome = await ask(proof)
    if (outcome.kind === 'denied') return t.fail(`${outcome.code}: ${outcome.detail}\n${JSON.stringify(proof)}`)
    if (what.includes('connection;host')) t.regex(proof.target, /SignedHeaders=connection%3Bhost&/)
    const other = await ask({ ...proof, method: 'PUT' })
    t.is(other.kind === 'denied' && other.code, 'ERR_SIGNATURE_MISMATCH')
  })
}
