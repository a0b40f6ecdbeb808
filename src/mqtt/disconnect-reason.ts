import type { CloseReason } from '../connection.ts'
import type { FailureCode } from '../errors.ts'

/** `disconnectReason` of the lifecycle events (wire specification §9.1). */
export type DisconnectReason =
  | 'AUTH_ERROR'
  | 'CLIENT_INITIATED_DISCONNECT'
  | 'CLIENT_ERROR'
  | 'CONNECTION_LOST'
  | 'DUPLICATE_CLIENTID'
  | 'MQTT_KEEP_ALIVE_TIMEOUT'
  | 'SERVER_ERROR'
  | 'SERVER_INITIATED_DISCONNECT'
  | 'API_INITIATED_DISCONNECT'
  | 'THROTTLED'
  | 'WEBSOCKET_TTL_EXPIRATION'
  | 'CUSTOMAUTH_TTL_EXPIRATION'

/** Codes that end live sessions; every other one is the device's error or ours, as its `fault` says. */
const BY_CODE: Readonly<Partial<Record<FailureCode, DisconnectReason>>> = {
  ERR_ACTION_DENIED: 'AUTH_ERROR',
  ERR_AUTHORIZATION_ENDED: 'AUTH_ERROR',
  ERR_AUTHORIZER_NOT_FOUND: 'AUTH_ERROR',
  ERR_AUTHORIZER_UNAVAILABLE: 'AUTH_ERROR',
  ERR_ACCESS_KEY_UNKNOWN: 'AUTH_ERROR',
  ERR_SESSION_TOKEN_INVALID: 'AUTH_ERROR',
  ERR_CREDENTIALS_REFUSED: 'AUTH_ERROR',
  ERR_CERTIFICATE_NOT_REGISTERED: 'AUTH_ERROR',
  ERR_CERTIFICATE_INACTIVE: 'AUTH_ERROR',
  ERR_CERTIFICATE_REVOKED: 'AUTH_ERROR',
  ERR_CERTIFICATE_EXPIRED: 'AUTH_ERROR',
  ERR_CERTIFICATE_NOT_YET_VALID: 'AUTH_ERROR',
  ERR_CERTIFICATE_UNTRUSTED_CA: 'AUTH_ERROR',
  ERR_CERTIFICATE_WEAK_KEY: 'AUTH_ERROR',
  ERR_CRL_MISSING: 'AUTH_ERROR',
  ERR_CRL_EXPIRED: 'AUTH_ERROR',
  ERR_CLIENT_ID_INVALID: 'AUTH_ERROR',
  ERR_SESSION_TAKEN_OVER: 'DUPLICATE_CLIENTID',
  ERR_CLIENT_ID_TAKEN: 'DUPLICATE_CLIENTID',
  ERR_KEEP_ALIVE_TIMEOUT: 'MQTT_KEEP_ALIVE_TIMEOUT',
  ERR_QUOTA_EXCEEDED: 'THROTTLED',
  ERR_CONNECT_RATE: 'THROTTLED',
  ERR_ADMINISTRATIVE: 'API_INITIATED_DISCONNECT',
  ERR_DRAINING: 'SERVER_INITIATED_DISCONNECT',
  ERR_SERVER_DRAINING: 'SERVER_INITIATED_DISCONNECT',
}

/**
 * @param said the device ended by DISCONNECT, or by Close on a WebSocket
 * @param webSocketLife its 24 hours are what ended it, not the time its authorizer gave it
 */
export function disconnectReason(
  reason: CloseReason,
  fault: 'downstream' | 'upstream' | 'proxy',
  said: boolean,
  webSocketLife: boolean,
): DisconnectReason {
  if (said) return 'CLIENT_INITIATED_DISCONNECT'
  if (reason === 'downstream' || reason === 'probe') return 'CONNECTION_LOST'
  if (reason === 'upstream') return 'SERVER_ERROR'
  if (reason === 'ERR_MAX_CONNECT_TIME') return webSocketLife ? 'WEBSOCKET_TTL_EXPIRATION' : 'CUSTOMAUTH_TTL_EXPIRATION'
  return BY_CODE[reason] ?? (fault === 'downstream' ? 'CLIENT_ERROR' : 'SERVER_ERROR')
}
