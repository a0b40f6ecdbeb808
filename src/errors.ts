/** Whose side went wrong: picks the log level and the `fault` metric label. */
export type Fault = 'downstream' | 'upstream' | 'proxy'

interface Failure {
  readonly fault: Fault
  /** True if the same session may be tried on another server of the backend. */
  readonly retry: boolean
  /** TLS alert sent before closing (RFC 8446 §6); null once TLS is up, or where silence is the answer. */
  readonly alert: number | null
  /** MQTT 5 CONNACK reason code (§3.2.2.2); null closes in silence. `mqtt/reason.ts` derives 3.1.1's from it. */
  readonly connack: number | null
  /** MQTT 5 DISCONNECT reason code (§3.14.2.1) on a live session; null closes in silence. */
  readonly disconnect: number | null
  /** HTTP status on the wss upgrade and the https paths; null closes in silence. */
  readonly http: number | null
  /** One line for the reference page. */
  readonly help: string
}

/**
 * Every way an attempt or a session can be refused by us. The codes are public: they stand in logs, in the
 * `reason` label (without `ERR_`, lower case) and in the reference page. Renaming one is a breaking change.
 */
// biome-ignore format: a table is read down its columns
export const FAILURES = {
  // rung 1 and 2: before any key work
  ERR_PROXY_HEADER:             { fault: 'downstream', retry: false, alert: null, connack: null, disconnect: null, http: null, help: 'A PROXY header was missing, malformed or not allowed from this source.' },
  ERR_HELLO_TIMEOUT:            { fault: 'downstream', retry: false, alert: null, connack: null, disconnect: null, http: null, help: 'No whole ClientHello within listeners[].helloTimeout of accept.' },
  ERR_HELLO_OVERSIZED:          { fault: 'downstream', retry: false, alert: 47,   connack: null, disconnect: null, http: null, help: 'The ClientHello is larger than 64 KiB.' },
  ERR_HELLO_MALFORMED:          { fault: 'downstream', retry: false, alert: 50,   connack: null, disconnect: null, http: null, help: 'A TLS record whose ClientHello contradicts itself.' },
  ERR_HELLO_INCOMPLETE:         { fault: 'downstream', retry: false, alert: null, connack: null, disconnect: null, http: null, help: 'Closed before the ClientHello was whole.' },
  ERR_NOT_TLS:                  { fault: 'downstream', retry: false, alert: null, connack: null, disconnect: null, http: null, help: 'The first bytes are not a TLS handshake.' },
  ERR_SNI_MISSING:              { fault: 'downstream', retry: false, alert: 109,  connack: null, disconnect: null, http: null, help: 'The ClientHello names no server.' },
  ERR_SNI_INVALID:              { fault: 'downstream', retry: false, alert: 112,  connack: null, disconnect: null, http: null, help: 'The server name is not one host name of letters, digits and hyphens.' },
  ERR_SNI_UNKNOWN:              { fault: 'downstream', retry: false, alert: 112,  connack: null, disconnect: null, http: null, help: 'No domain has this server name.' },
  ERR_DOMAIN_DISABLED:          { fault: 'downstream', retry: false, alert: 112,  connack: null, disconnect: null, http: null, help: 'The domain of this server name is disabled.' },
  ERR_PORT_UNSERVED:            { fault: 'downstream', retry: false, alert: 112,  connack: null, disconnect: null, http: null, help: 'The domain does not serve this port.' },
  ERR_ADDRESS_CONNECTIONS:      { fault: 'downstream', retry: false, alert: null, connack: null, disconnect: null, http: null, help: 'More connections from one address than governor.perAddress.connections.' },
  ERR_ADDRESS_REFUSED:          { fault: 'downstream', retry: false, alert: null, connack: null, disconnect: null, http: null, help: 'So many refused identities from this address, and none that was accepted, that it has to wait (governor.refusals).' },
  ERR_HANDSHAKE_QUEUE:          { fault: 'downstream', retry: false, alert: null, connack: null, disconnect: null, http: null, help: 'As many handshakes wait as governor.queue.size allows, and most of them of this address or server name.' },
  ERR_HANDSHAKE_WAIT:           { fault: 'downstream', retry: false, alert: null, connack: null, disconnect: null, http: null, help: 'Its turn for a handshake did not come within governor.queue.timeout.' },
  ERR_ALPN_UNSUPPORTED:         { fault: 'downstream', retry: false, alert: 120,  connack: null, disconnect: null, http: null, help: 'None of the offered ALPN names is served here.' },
  // rung 3: handshake
  ERR_HANDSHAKE_TIMEOUT:        { fault: 'downstream', retry: false, alert: null, connack: null, disconnect: null, http: null, help: 'TLS was not up within handshakeTimeout of accept.' },
  ERR_HANDSHAKE_FAILED:         { fault: 'downstream', retry: false, alert: null, connack: null, disconnect: null, http: null, help: 'TLS failed: no common version or cipher, a bad signature, or the device gave up.' },
  // rung 4: identity
  ERR_CERTIFICATE_ABSENT:       { fault: 'downstream', retry: false, alert: null, connack: null, disconnect: null, http: 403,  help: 'No client certificate where one is required.' },
  ERR_CERTIFICATE_NOT_REGISTERED: { fault: 'downstream', retry: false, alert: null, connack: null, disconnect: 0x87, http: 403, help: 'The registry does not know the certificate.' },
  ERR_CERTIFICATE_INACTIVE:     { fault: 'downstream', retry: false, alert: null, connack: null, disconnect: 0x87, http: 403,  help: 'The certificate is registered but not ACTIVE.' },
  ERR_CERTIFICATE_REVOKED:      { fault: 'downstream', retry: false, alert: null, connack: null, disconnect: 0x87, http: 403,  help: 'The certificate, or an issuer of it, is revoked.' },
  ERR_CERTIFICATE_EXPIRED:      { fault: 'downstream', retry: false, alert: null, connack: null, disconnect: 0x87, http: 403,  help: 'The certificate is past its notAfter date.' },
  ERR_CERTIFICATE_NOT_YET_VALID: { fault: 'downstream', retry: false, alert: null, connack: null, disconnect: 0x87, http: 403, help: 'The certificate is before its notBefore date.' },
  ERR_CERTIFICATE_UNTRUSTED_CA: { fault: 'downstream', retry: false, alert: null, connack: null, disconnect: 0x87, http: 403,  help: 'No path from the certificate to a trusted CA, or the path is not valid for client authentication.' },
  ERR_CERTIFICATE_WEAK_KEY:     { fault: 'downstream', retry: false, alert: null, connack: null, disconnect: 0x87, http: 403,  help: 'The key is too small, too large or of an unsupported kind.' },
  ERR_CRL_MISSING:              { fault: 'proxy',      retry: false, alert: null, connack: null, disconnect: 0x87, http: 403,  help: 'No CRL of an issuer in the path, and crl.onMissing is deny.' },
  ERR_CRL_EXPIRED:              { fault: 'proxy',      retry: false, alert: null, connack: null, disconnect: 0x87, http: 403,  help: 'The CRL of an issuer is past its nextUpdate, and crl.onExpired is deny.' },
  ERR_IDENTITY_FAULT:           { fault: 'proxy',      retry: false, alert: null, connack: 0x88, disconnect: null, http: 503,  help: 'The identity decision itself failed; refused.' },
  ERR_CREDENTIALS_ABSENT:        { fault: 'downstream', retry: false, alert: null, connack: 0x87, disconnect: null, http: 403, help: 'No proof of identity where this way in asks for one.' },
  ERR_CREDENTIALS_MALFORMED:     { fault: 'downstream', retry: false, alert: null, connack: 0x86, disconnect: null, http: 400, help: 'A signature, token or parameter in a form that cannot be read, or the same one twice.' },
  ERR_CREDENTIALS_REFUSED:       { fault: 'downstream', retry: false, alert: null, connack: 0x87, disconnect: 0x87, http: 401, help: 'The authorizer says no.' },
  ERR_ACCESS_KEY_UNKNOWN:        { fault: 'downstream', retry: false, alert: null, connack: 0x87, disconnect: 0x87, http: 403, help: 'The registry has no ACTIVE access key of this id.' },
  ERR_SIGNATURE_MISMATCH:        { fault: 'downstream', retry: false, alert: null, connack: 0x87, disconnect: null, http: 403, help: 'The Signature Version 4 signature, or its scope, does not fit the request.' },
  ERR_SIGNATURE_EXPIRED:         { fault: 'downstream', retry: false, alert: null, connack: 0x87, disconnect: null, http: 403, help: 'The Signature Version 4 date is outside of its window.' },
  ERR_SESSION_TOKEN_INVALID:     { fault: 'downstream', retry: false, alert: null, connack: 0x87, disconnect: 0x87, http: 403, help: 'A temporary access key without its session token, or with another one.' },
  ERR_AUTHORIZER_NOT_FOUND:      { fault: 'downstream', retry: false, alert: null, connack: 0x87, disconnect: 0x87, http: 403, help: 'No authorizer of this name, it is not ACTIVE, or the domain has no default.' },
  ERR_TOKEN_SIGNATURE:           { fault: 'downstream', retry: false, alert: null, connack: 0x87, disconnect: null, http: 401, help: 'The token is absent, unsigned, or not signed by a key of the authorizer; nobody was asked.' },
  ERR_AUTHORIZER_UNAVAILABLE:    { fault: 'proxy',      retry: false, alert: null, connack: 0x88, disconnect: 0x87, http: 503, help: 'The authorizer gave no usable answer in time; refused.' },
  ERR_AUTHORIZATION_ENDED:       { fault: 'downstream', retry: false, alert: null, connack: null, disconnect: 0x87, http: 401, help: 'The authorizer refused on refresh, or registry or settings no longer have what this connection was let in by.' },
  ERR_CERTIFICATE_CALLBACK:      { fault: 'downstream', retry: false, alert: null, connack: null, disconnect: null, http: 403, help: 'The certificate callback says no.' },
  // rung 5: protocol and policy
  ERR_HTTP_MALFORMED:            { fault: 'downstream', retry: false, alert: null, connack: null, disconnect: null, http: 400, help: 'An HTTP request that breaks RFC 9112, or whose length could be read in two ways.' },
  ERR_HTTP_TIMEOUT:              { fault: 'downstream', retry: false, alert: null, connack: null, disconnect: null, http: 408, help: 'HTTP headers or body not whole within their deadline.' },
  ERR_HTTP_HEADERS_TOO_LARGE:    { fault: 'downstream', retry: false, alert: null, connack: null, disconnect: null, http: 431, help: 'HTTP headers over their limit in size or number.' },
  ERR_HTTP_BODY_TOO_LARGE:       { fault: 'downstream', retry: false, alert: null, connack: null, disconnect: null, http: 413, help: 'An HTTP body over its limit.' },
  ERR_HTTP_METHOD:               { fault: 'downstream', retry: false, alert: null, connack: null, disconnect: null, http: 405, help: 'A method that this path does not have.' },
  ERR_HTTP_NOT_FOUND:            { fault: 'downstream', retry: false, alert: null, connack: null, disconnect: null, http: 404, help: 'No such path, and no route forwards it.' },
  ERR_HOST_MISMATCH:             { fault: 'downstream', retry: false, alert: null, connack: null, disconnect: null, http: 421, help: 'The Host of the request is not a name of the domain that SNI chose.' },
  ERR_UPGRADE_REQUIRED:          { fault: 'downstream', retry: false, alert: null, connack: null, disconnect: null, http: 426, help: '/mqtt without a WebSocket upgrade of version 13.' },
  ERR_SUBPROTOCOL:               { fault: 'downstream', retry: false, alert: null, connack: null, disconnect: null, http: 400, help: 'A WebSocket upgrade that offers neither mqtt nor mqttv3.1.' },
  ERR_WEBSOCKET:                 { fault: 'downstream', retry: false, alert: null, connack: null, disconnect: null, http: 400, help: 'A WebSocket frame that breaks RFC 6455, or a text frame.' },
  ERR_WEBSOCKET_TOO_LARGE:       { fault: 'downstream', retry: false, alert: null, connack: null, disconnect: null, http: 413, help: 'A WebSocket message over its limit.' },
  ERR_REQUEST_INVALID:           { fault: 'downstream', retry: false, alert: null, connack: null, disconnect: null, http: 400, help: 'A topic, parameter or header of an HTTPS publish that cannot be carried.' },
  ERR_PUBLISH_BUSY:              { fault: 'proxy',      retry: false, alert: null, connack: null, disconnect: null, http: 503, help: 'The queue of publishes to the broker is full.' },
  ERR_ACTION_DENIED:             { fault: 'downstream', retry: false, alert: null, connack: 0x87, disconnect: 0x87, http: 401, help: 'The policies do not allow the action on the resource.' },
  ERR_CLIENT_ID_TAKEN:           { fault: 'downstream', retry: false, alert: null, connack: 0x85, disconnect: null, http: null, help: 'Another principal is connected under this client id.' },
  ERR_CONNECT_RATE:              { fault: 'downstream', retry: false, alert: null, connack: 0x97, disconnect: null, http: 429, help: 'Connects under one client id faster than limits.connectsPerSecond.' },
  ERR_OVERLOADED:               { fault: 'proxy',      retry: false, alert: null, connack: 0x89, disconnect: null, http: 503,  help: 'This process has too little time, memory or descriptors for another session (shedding).' },
  ERR_DOMAIN_SESSIONS:          { fault: 'downstream', retry: false, alert: null, connack: 0x97, disconnect: null, http: 503,  help: 'The domain has as many sessions as domains[].sessions.most allows.' },
  ERR_PRINCIPAL_SESSIONS:       { fault: 'downstream', retry: false, alert: null, connack: 0x97, disconnect: null, http: 503,  help: 'The principal has as many sessions as domains[].sessions.perPrincipal allows.' },
  ERR_CONNECT_TIMEOUT:          { fault: 'downstream', retry: false, alert: null, connack: null, disconnect: null, http: 408,  help: 'No whole CONNECT within limits.connectTimeout of the handshake.' },
  ERR_NOT_MQTT:                 { fault: 'downstream', retry: false, alert: null, connack: null, disconnect: null, http: null, help: 'The first packet is not CONNECT, or its protocol name is not MQTT.' },
  ERR_CONNECT_OVERSIZED:        { fault: 'downstream', retry: false, alert: null, connack: 0x95, disconnect: null, http: null, help: 'CONNECT is larger than limits.connectSize.' },
  ERR_CONNECT_MALFORMED:        { fault: 'downstream', retry: false, alert: null, connack: 0x81, disconnect: null, http: 400,  help: 'CONNECT breaks the MQTT rules.' },
  ERR_PROTOCOL_VERSION:         { fault: 'downstream', retry: false, alert: null, connack: 0x84, disconnect: null, http: null, help: 'An MQTT version other than 3.1.1 and 5.' },
  ERR_CLIENT_ID_INVALID:        { fault: 'downstream', retry: false, alert: null, connack: 0x85, disconnect: null, http: null, help: 'The client id is not acceptable.' },
  ERR_MODE_UNSERVED:            { fault: 'proxy',      retry: false, alert: null, connack: 0x83, disconnect: null, http: 501,  help: 'This way in is known but not served by this version.' },
  // rung 6: live sessions
  ERR_PACKET_MALFORMED:         { fault: 'downstream', retry: false, alert: null, connack: 0x81, disconnect: 0x81, http: null, help: 'A packet whose type, flags or length break the MQTT rules.' },
  ERR_PACKET_UNEXPECTED:        { fault: 'downstream', retry: false, alert: null, connack: 0x82, disconnect: 0x82, http: null, help: 'A packet that this side may not send, or a second CONNECT.' },
  ERR_PACKET_TOO_LARGE:         { fault: 'downstream', retry: false, alert: null, connack: 0x95, disconnect: 0x95, http: 413,  help: 'A packet larger than limits.packetSize.' },
  ERR_KEEP_ALIVE_TIMEOUT:       { fault: 'downstream', retry: false, alert: null, connack: null, disconnect: 0x8d, http: null, help: 'Silence for 1.5 times the keep alive.' },
  ERR_TOPIC_INVALID:             { fault: 'downstream', retry: false, alert: null, connack: 0x90, disconnect: 0x90, http: 400, help: 'A topic name that MQTT or a limit does not allow.' },
  ERR_FILTER_INVALID:            { fault: 'downstream', retry: false, alert: null, connack: null, disconnect: 0x8f, http: null, help: 'A topic filter that MQTT or a limit does not allow.' },
  ERR_QOS_UNSUPPORTED:           { fault: 'downstream', retry: false, alert: null, connack: 0x9b, disconnect: 0x9b, http: null, help: 'A QoS above limits.maxQoS.' },
  ERR_RETAIN_UNSUPPORTED:        { fault: 'downstream', retry: false, alert: null, connack: 0x9a, disconnect: 0x9a, http: null, help: 'RETAIN where it is not available.' },
  ERR_TOPIC_ALIAS_INVALID:       { fault: 'downstream', retry: false, alert: null, connack: null, disconnect: 0x94, http: null, help: 'A topic alias of 0, above the maximum, or not defined yet.' },
  ERR_RECEIVE_MAXIMUM:           { fault: 'downstream', retry: false, alert: null, connack: null, disconnect: 0x93, http: null, help: 'More unacknowledged publishes than the Receive Maximum.' },
  ERR_PAYLOAD_TOO_LARGE:         { fault: 'downstream', retry: false, alert: null, connack: 0x95, disconnect: 0x95, http: 413, help: 'A payload over limits.payloadSize.' },
  ERR_QUOTA_EXCEEDED:            { fault: 'downstream', retry: false, alert: null, connack: 0x97, disconnect: 0x97, http: 429, help: 'More than a limit of this session allows.' },
  ERR_SUBSCRIPTION_ID_UNSUPPORTED: { fault: 'downstream', retry: false, alert: null, connack: null, disconnect: 0xa1, http: null, help: 'A subscription identifier where they are not available.' },
  ERR_SLOW_CONSUMER:             { fault: 'downstream', retry: false, alert: null, connack: null, disconnect: 0x97, http: null, help: 'The device has not taken what waits for it for limits.slowConsumerTimeout.' },
  ERR_SESSION_TAKEN_OVER:        { fault: 'downstream', retry: false, alert: null, connack: 0x97, disconnect: 0x8e, http: null, help: 'The same principal connected again under this client id.' },
  ERR_MAX_CONNECT_TIME:          { fault: 'downstream', retry: false, alert: null, connack: null, disconnect: 0xa0, http: null, help: 'The longest life of this kind of connection is over.' },
  ERR_ADMINISTRATIVE:            { fault: 'proxy',      retry: false, alert: null, connack: null, disconnect: 0x98, http: null, help: 'Ended by an operator.' },
  ERR_DRAINING:                 { fault: 'proxy',      retry: false, alert: null, connack: 0x88, disconnect: 0x8b, http: 503,  help: 'This process is shutting down.' },
  ERR_SERVER_DRAINING:          { fault: 'proxy',      retry: false, alert: null, connack: 0x88, disconnect: 0x8b, http: 503,  help: 'An operator empties the server of the backend that this session was on.' },
  // upstream
  ERR_BACKEND_REFUSED:          { fault: 'upstream',   retry: true,  alert: null, connack: 0x88, disconnect: null, http: 503,  help: 'The broker could not be reached.' },
  ERR_BACKEND_TIMEOUT:          { fault: 'upstream',   retry: true,  alert: null, connack: 0x88, disconnect: null, http: 504,  help: 'The broker did not answer within its deadline.' },
  ERR_DIAL_EXHAUSTED:           { fault: 'proxy',      retry: true,  alert: null, connack: 0x88, disconnect: null, http: 503,  help: 'This process has no descriptor, memory or local port left for a connection to the broker.' },
  ERR_BACKEND_UNTRUSTED:        { fault: 'upstream',   retry: false, alert: null, connack: 0x88, disconnect: null, http: 503,  help: 'TLS toward the broker failed.' },
  ERR_BACKEND_LOST:             { fault: 'upstream',   retry: false, alert: null, connack: 0x88, disconnect: 0x80, http: 503,  help: 'The broker closed the connection before its CONNACK, or without a farewell after it.' },
  ERR_BACKEND_PROTOCOL:         { fault: 'upstream',   retry: false, alert: null, connack: 0x88, disconnect: 0x80, http: 502,  help: 'The broker answered something that MQTT does not allow there.' },
  ERR_INTERNAL:                 { fault: 'proxy',      retry: false, alert: 80,   connack: 0x80, disconnect: 0x80, http: 500,  help: 'A fault of this program; the log line has the details.' },
} as const satisfies Record<string, Failure>

export type FailureCode = keyof typeof FAILURES

/** The `reason` label and log field of a code: `ERR_SNI_MISSING` → `sni_missing`. */
export function reasonOf(code: FailureCode): string {
  return REASONS[code]
}

const REASONS = Object.fromEntries(
  Object.keys(FAILURES).map((code) => [code, code.slice(4).toLowerCase()]),
) as Readonly<Record<FailureCode, string>>

/** The only error that crosses a module boundary on purpose; anything else is a bug. */
export class ProxyError extends Error {
  override readonly name: string = 'ProxyError'
  readonly code: FailureCode

  constructor(code: FailureCode, message: string, options?: ErrorOptions) {
    super(message, options)
    this.code = code
  }

  get failure(): Failure {
    return FAILURES[this.code]
  }
}

/** What was thrown, as a ProxyError: an unknown error is a fault of ours and says so. */
export function asProxyError(error: unknown): ProxyError {
  if (error instanceof ProxyError) return error
  return new ProxyError('ERR_INTERNAL', error instanceof Error ? error.message : String(error), { cause: error })
}
