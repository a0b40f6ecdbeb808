import { FAILURES, type FailureCode } from '../errors.ts'

/** An answer of the data plane, whole; whoever writes it adds `date` and `connection`. */
export interface Answer {
  readonly status: number
  readonly headers: Readonly<Record<string, string>>
  /** JSON in UTF-8; `content-length` counts its bytes. */
  readonly body: string
}

interface Kind {
  /** What SDKs take the exception from, up to the colon (wire specification §7.3). */
  readonly name: string
  /** For the device, so it says nothing of who is known here and who is not. */
  readonly message: string
}

// biome-ignore format: a table is read down its columns
const KINDS: Readonly<Record<number, Kind>> = {
  400: { name: 'InvalidRequestException',         message: 'The request is not valid' },
  401: { name: 'UnauthorizedException',           message: 'Unauthorized' },
  403: { name: 'ForbiddenException',              message: 'Forbidden' },
  404: { name: 'ResourceNotFoundException',       message: 'Not found' },
  405: { name: 'MethodNotAllowedException',       message: 'Method not allowed' },
  408: { name: 'RequestTimeoutException',         message: 'The request did not arrive in time' },
  413: { name: 'RequestEntityTooLargeException',  message: 'The payload exceeds the maximum size allowed' },
  421: { name: 'MisdirectedRequestException',     message: 'This server name is not served on this connection' },
  426: { name: 'UpgradeRequiredException',        message: 'A WebSocket upgrade is required' },
  429: { name: 'ThrottlingException',             message: 'Rate exceeded' },
  431: { name: 'RequestHeadersTooLargeException', message: 'The headers exceed the maximum size allowed' },
  500: { name: 'InternalFailureException',        message: 'Internal failure' },
  501: { name: 'NotImplementedException',         message: 'This way in is not served by this version of brokergate' },
  502: { name: 'ServiceUnavailableException',     message: 'Service unavailable' },
  503: { name: 'ServiceUnavailableException',     message: 'Service unavailable' },
  504: { name: 'GatewayTimeoutException',         message: 'The broker did not answer in time' },
}

/** Codes whose detail speaks of the form of the request alone, and so may be told to whoever sent it. */
const TOLD: ReadonlySet<FailureCode> = new Set<FailureCode>([
  'ERR_REQUEST_INVALID',
  'ERR_TOPIC_INVALID',
  'ERR_SUBPROTOCOL',
])

/**
 * When a device may try again, in seconds (RFC 9110 §10.2.3): between these, so that those who were refused together do
 * not come back together.
 */
const RETRY_AFTER: Readonly<Partial<Record<FailureCode, readonly [least: number, most: number]>>> = {
  ERR_OVERLOADED: [5, 15],
  ERR_DOMAIN_SESSIONS: [30, 90],
  ERR_PRINCIPAL_SESSIONS: [30, 90],
}

/** RFC 9110 §15.5.22 wants the protocol named, RFC 6455 §4.2.2 the version. */
const UPGRADE = { upgrade: 'websocket', 'sec-websocket-version': '13' } as const

/** 200: with QoS 1 the broker has the message. Wire specification §7.2. */
export function success(traceId: string): Answer {
  return answer(200, { message: 'OK', traceId }, {})
}

/**
 * The refusal with this code, in the form of the wire specification §7.3.
 * @param detail told to the device only where it speaks of nothing but the form of its request
 */
export function failure(
  code: FailureCode,
  traceId: string,
  retryAfterSeconds: number | null = null,
  detail: string | null = null,
): Answer {
  const status = statusOf(code)
  const { name, message } = KINDS[status]!
  const retryAfter = retryAfterSeconds ?? retryAfterOf(code)
  return answer(
    status,
    { message: messageOf(code, detail) ?? message, traceId },
    {
      'x-amzn-ErrorType': `${name}:`,
      ...(status === 426 ? UPGRADE : {}),
      ...(retryAfter === null ? {} : { 'retry-after': String(Math.ceil(retryAfter)) }),
    },
  )
}

function retryAfterOf(code: FailureCode): number | null {
  const range = RETRY_AFTER[code]
  if (range === undefined) return null
  const [least, most] = range
  return least + Math.random() * (most - least)
}

/** The HTTP status of a code; what has none of its own is told by whose side failed. */
export function statusOf(code: FailureCode): number {
  const { http, fault } = FAILURES[code]
  return http ?? (fault === 'downstream' ? 400 : 500)
}

function messageOf(code: FailureCode, detail: string | null): string | null {
  if (code === 'ERR_CREDENTIALS_ABSENT') return 'Missing Authentication Token'
  return detail !== null && TOLD.has(code) ? detail : null
}

function answer(
  status: number,
  content: { readonly message: string; readonly traceId: string },
  headers: Readonly<Record<string, string>>,
): Answer {
  const body = JSON.stringify(content)
  return {
    status,
    headers: {
      'content-type': 'application/json',
      'content-length': String(Buffer.byteLength(body)),
      'x-amzn-RequestId': content.traceId,
      // Browsers publish too, and read the answer.
      'access-control-allow-origin': '*',
      ...headers,
    },
    body,
  }
}
