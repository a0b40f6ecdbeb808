import test from 'ava'
import { FAILURES, type FailureCode } from '../../src/errors.ts'
import { failure, statusOf, success } from '../../src/https/answer.ts'

const TRACE = '7c1f0a52-0d6e-4b1f-9a53-2f6f1f0e9b11'

test('success is the body that devices of AWS IoT Core know, byte for byte', (t) => {
  t.deepEqual(success(TRACE), {
    status: 200,
    headers: {
      'content-type': 'application/json',
      'content-length': '65',
      'x-amzn-RequestId': TRACE,
      'access-control-allow-origin': '*',
    },
    body: '{"message":"OK","traceId":"7c1f0a52-0d6e-4b1f-9a53-2f6f1f0e9b11"}',
  })
})

test('a request without credentials is told what is missing', (t) => {
  const { status, headers, body } = failure('ERR_CREDENTIALS_ABSENT', TRACE)
  t.is(status, 403)
  t.is(headers['x-amzn-ErrorType'], 'ForbiddenException:')
  t.is(body, `{"message":"Missing Authentication Token","traceId":"${TRACE}"}`)
})

// biome-ignore format: a table is read down its columns
const NAMES: readonly (readonly [FailureCode, number, string])[] = [
  ['ERR_REQUEST_INVALID',        400, 'InvalidRequestException'],
  ['ERR_CREDENTIALS_MALFORMED',  400, 'InvalidRequestException'],
  ['ERR_ACTION_DENIED',          401, 'UnauthorizedException'],
  ['ERR_SIGNATURE_MISMATCH',     403, 'ForbiddenException'],
  ['ERR_HTTP_NOT_FOUND',         404, 'ResourceNotFoundException'],
  ['ERR_HTTP_METHOD',            405, 'MethodNotAllowedException'],
  ['ERR_HTTP_TIMEOUT',           408, 'RequestTimeoutException'],
  ['ERR_HTTP_BODY_TOO_LARGE',    413, 'RequestEntityTooLargeException'],
  ['ERR_HOST_MISMATCH',          421, 'MisdirectedRequestException'],
  ['ERR_UPGRADE_REQUIRED',       426, 'UpgradeRequiredException'],
  ['ERR_QUOTA_EXCEEDED',         429, 'ThrottlingException'],
  ['ERR_HTTP_HEADERS_TOO_LARGE', 431, 'RequestHeadersTooLargeException'],
  ['ERR_INTERNAL',               500, 'InternalFailureException'],
  ['ERR_MODE_UNSERVED',          501, 'NotImplementedException'],
  ['ERR_BACKEND_PROTOCOL',       502, 'ServiceUnavailableException'],
  ['ERR_BACKEND_REFUSED',        503, 'ServiceUnavailableException'],
  ['ERR_BACKEND_TIMEOUT',        504, 'GatewayTimeoutException'],
  // without a status of their own
  ['ERR_QOS_UNSUPPORTED',        400, 'InvalidRequestException'],
  ['ERR_ADMINISTRATIVE',         500, 'InternalFailureException'],
]

for (const [code, status, name] of NAMES) {
  test(`${code} is ${status} ${name}`, (t) => {
    const answer = failure(code, TRACE)
    t.is(answer.status, status)
    t.is(answer.headers['x-amzn-ErrorType'], `${name}:`)
    t.is(answer.headers['x-amzn-RequestId'], TRACE)
  })
}

test('every code has an answer whose length is that of its body', (t) => {
  for (const code of Object.keys(FAILURES) as FailureCode[]) {
    const { status, headers, body } = failure(code, TRACE)
    t.is(status, statusOf(code))
    t.is(Number(headers['content-length']), Buffer.byteLength(body))
    t.is(JSON.parse(body).traceId, TRACE)
  }
})

test('every refusal of an identity reads the same, so nobody learns which keys and certificates exist', (t) => {
  const codes = (Object.keys(FAILURES) as FailureCode[]).filter(
    (code) => statusOf(code) === 403 && code !== 'ERR_CREDENTIALS_ABSENT',
  )
  t.true(codes.length > 10)
  t.is(new Set(codes.map((code) => failure(code, TRACE, null, `key ${code} of alice`).body)).size, 1)
})

test('what is wrong with the form of a request is told, in JSON whatever it holds', (t) => {
  const { body, headers } = failure('ERR_REQUEST_INVALID', TRACE, null, 'qos "é" is neither 0 nor 1')
  t.deepEqual(JSON.parse(body), { message: 'qos "é" is neither 0 nor 1', traceId: TRACE })
  t.is(Number(headers['content-length']), Buffer.byteLength(body))
})

test('a busy gate says when to come back, in whole seconds', (t) => {
  t.is(failure('ERR_PUBLISH_BUSY', TRACE, 1.2).headers['retry-after'], '2')
  t.false('retry-after' in failure('ERR_PUBLISH_BUSY', TRACE).headers)
})

test('an upgrade that is required is named [RFC 9110 §15.5.22]', (t) => {
  const { headers } = failure('ERR_UPGRADE_REQUIRED', TRACE)
  t.is(headers.upgrade, 'websocket')
  t.is(headers['sec-websocket-version'], '13')
})
