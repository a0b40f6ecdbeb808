import test from 'ava'
import type { CloseReason } from '../../src/connection.ts'
import { FAILURES, type FailureCode } from '../../src/errors.ts'
import { disconnectReason } from '../../src/mqtt/disconnect-reason.ts'

const reasonOf = (reason: CloseReason, said = false, webSocketLife = false) =>
  disconnectReason(reason, reason in FAILURES ? FAILURES[reason as FailureCode].fault : 'proxy', said, webSocketLife)

for (const [reason, expected] of [
  ['downstream', 'CONNECTION_LOST'],
  ['upstream', 'SERVER_ERROR'],
  ['ERR_CERTIFICATE_REVOKED', 'AUTH_ERROR'],
  ['ERR_ACTION_DENIED', 'AUTH_ERROR'],
  ['ERR_AUTHORIZATION_ENDED', 'AUTH_ERROR'],
  ['ERR_SESSION_TAKEN_OVER', 'DUPLICATE_CLIENTID'],
  ['ERR_KEEP_ALIVE_TIMEOUT', 'MQTT_KEEP_ALIVE_TIMEOUT'],
  ['ERR_PACKET_UNEXPECTED', 'CLIENT_ERROR'],
  ['ERR_PAYLOAD_TOO_LARGE', 'CLIENT_ERROR'],
  ['ERR_QOS_UNSUPPORTED', 'CLIENT_ERROR'],
  ['ERR_QUOTA_EXCEEDED', 'THROTTLED'],
  ['ERR_BACKEND_LOST', 'SERVER_ERROR'],
  ['ERR_INTERNAL', 'SERVER_ERROR'],
  ['ERR_DRAINING', 'SERVER_INITIATED_DISCONNECT'],
  ['ERR_ADMINISTRATIVE', 'API_INITIATED_DISCONNECT'],
  ['ERR_MAX_CONNECT_TIME', 'CUSTOMAUTH_TTL_EXPIRATION'],
] as const) {
  test(`${reason} is ${expected}`, (t) => t.is(reasonOf(reason), expected))
}

test('a device that said DISCONNECT left by itself', (t) => {
  t.is(reasonOf('downstream', true), 'CLIENT_INITIATED_DISCONNECT')
})

test('the 24 h of a WebSocket have a name of their own', (t) => {
  t.is(reasonOf('ERR_MAX_CONNECT_TIME', false, true), 'WEBSOCKET_TTL_EXPIRATION')
})

test('every code has a reason', (t) => {
  for (const code of Object.keys(FAILURES) as FailureCode[]) t.truthy(reasonOf(code), code)
})
