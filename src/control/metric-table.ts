import type { FailureCode } from '../errors.ts'

export type MetricType = 'counter' | 'gauge' | 'histogram'

export interface MetricRow {
  readonly type: MetricType
  readonly labels: readonly string[]
  /** How the processes of one instance are joined; the sum unless said. */
  readonly join?: 'max' | 'min'
  /** Upper bounds in seconds. */
  readonly buckets?: readonly number[]
  readonly help: string
}

/** Of every metric name. */
export const METRIC_PREFIX = 'brokergate_'

const CONNECTION_BUCKETS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10]
const LAG_BUCKETS = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5]

/** Every metric there is, without the prefix. Names and labels are public: renaming one is a breaking change. */
// biome-ignore format: a table is read down its columns
export const METRICS = {
  connections_accepted_total:    { type: 'counter',   labels: ['port'],              help: 'Connections accepted, by the port whose rules apply.' },
  accept_pauses_total:           { type: 'counter',   labels: ['reason'],            help: 'Times that accepting stopped because descriptors or connections ran out, or because of overload.' },
  hellos_total:                  { type: 'counter',   labels: ['result'],            help: 'ClientHellos looked at; a probe closed without sending a byte.' },
  handshakes_total:              { type: 'counter',   labels: ['result', 'version'], help: 'TLS handshakes; version is none when it failed before one was agreed.' },
  handshakes_resumed_total:      { type: 'counter',   labels: ['version'],           help: 'TLS handshakes that went on with an earlier session; they are among those of handshakes_total that are ok.' },
  ticket_key_rotations_total:    { type: 'counter',   labels: [],                    help: 'Times that the keys of session tickets were replaced, by process; in a worker its first ones from the primary count.' },
  handshake_seconds:             { type: 'histogram', labels: [],                    buckets: CONNECTION_BUCKETS, help: 'Duration of the TLS handshakes that succeeded.' },
  handshakes_started_total:     { type: 'counter',   labels: ['kind'],              help: 'Handshakes begun, by what the ClientHello claims: full, or resumed.' },
  handshakes_in_flight:         { type: 'gauge',     labels: ['kind'],              help: 'Handshakes under way that began within the last second.' },
  handshakes_queued:            { type: 'gauge',     labels: [],                    help: 'ClientHellos that wait for their handshake.' },
  handshake_wait_seconds:       { type: 'histogram', labels: [],                    buckets: CONNECTION_BUCKETS, help: 'How long handshakes waited for their turn; those that began at once are not among them.' },
  resumption_claims_failed_total: { type: 'counter', labels: [],                    help: 'Handshakes that claimed an earlier session and turned out full, or came to no end; they are charged to the budget of full ones.' },
  admission_refusals_total:     { type: 'counter',   labels: ['reason'],            help: 'Devices turned away to save work: the queue of handshakes was full (handshake_queue) or too slow (handshake_wait), too many connections of an address, an address or certificate that was refused a moment ago, too many sessions of a domain or principal, overload.' },
  shedding:                     { type: 'gauge',     labels: ['reason'], join: 'max', help: 'Load shedding by what is short (lag, memory, descriptors): 0 none, 1 few full handshakes, 2 no new connections.' },
  identities_total:              { type: 'counter',   labels: ['method', 'result'],  help: 'Decisions about who a device is.' },
  lifecycle_events_total:        { type: 'counter',   labels: ['result'],            help: 'Lifecycle events for brokers: sent (the broker has acknowledged it), or dropped (it was away for too long).' },
  authorizer_calls_total:        { type: 'counter',   labels: ['authorizer', 'result'], help: 'Questions to an authorizer: allowed, denied, ok (a key set was read), canceled (the device left), or why there was no usable answer.' },
  authorizer_call_seconds:       { type: 'histogram', labels: ['authorizer'],        buckets: CONNECTION_BUCKETS, help: 'Duration of the questions that were answered, waiting for their turn included.' },
  authorizer_circuit_open:       { type: 'gauge',     labels: ['authorizer'],        help: 'Processes in which an authorizer failed so often that it is not asked for a while.' },
  connects_total:                { type: 'counter',   labels: ['result', 'version'], help: 'MQTT CONNECT attempts by MQTT version.' },
  connect_seconds:               { type: 'histogram', labels: [],                    buckets: CONNECTION_BUCKETS, help: 'From accept to the CONNACK of the connections that succeeded.' },
  sessions:                      { type: 'gauge',     labels: [],                    help: 'Sessions relayed now.' },
  bytes_total:                   { type: 'counter',   labels: ['direction'],         help: 'MQTT bytes inside TLS: in is toward the broker, out toward the device.' },
  packets_total:                 { type: 'counter',   labels: ['direction', 'type'], help: 'MQTT control packets, CONNECT and CONNACK included.' },
  http_requests_total:           { type: 'counter',   labels: ['route', 'status'],   help: 'HTTP requests that were answered, by where they went (publish, mqtt, forward or none) and HTTP status.' },
  http_request_seconds:          { type: 'histogram', labels: ['route'],             buckets: CONNECTION_BUCKETS, help: 'From the head of an HTTP request to the end of its answer; of an upgrade, to its 101.' },
  policy_decisions_total:        { type: 'counter',   labels: ['action', 'result'],  help: 'Decisions of the policies on live sessions, allowed or denied, by action.' },
  packets_denied_total:          { type: 'counter',   labels: ['action'],            help: 'Publishes, filters and deliveries that the policies kept from going on; 0 where a domain only reports.' },
  limits_exceeded_total:         { type: 'counter',   labels: ['limit'],             help: 'Times that a live session went past a limit.' },
  backend_dials_total:           { type: 'counter',   labels: ['backend', 'result'], help: 'Attempts to open a connection to a server of a backend.' },
  backend_dial_seconds:          { type: 'histogram', labels: ['backend'],           buckets: CONNECTION_BUCKETS, help: 'Duration of the dials that succeeded.' },
  shielded_sessions:             { type: 'gauge',     labels: ['backend'],           help: 'Sessions held now because their broker is away (outageShield).' },
  shield_outcomes_total:         { type: 'counter',   labels: ['backend', 'outcome'], help: 'Sessions that lost their broker under outageShield: resumed, or why the device was closed: expired (hold is over), session_gone (the broker has none any more), refused (by the broker), changed (it grants less than before), alone (its neighbors were not lost), ended (the device left, or we ended it), or not held at all: qos2, unkept and mid_packet (in flight), no_session (the broker keeps none), enhanced_auth, flapping (too often).' },
  connections_closed_total:      { type: 'counter',   labels: ['reason'],            help: 'Connections ended: the side that closed, or a failure of the failure table.' },
  registry_reloads_total:        { type: 'counter',   labels: ['registry', 'result'], help: 'Changes of a registry’s files, by process: in effect (ok), or refused and the former ones kept.' },
  revocation_reloads_total:      { type: 'counter',   labels: ['result'],            help: 'Changes of revocation lists, by process: in effect (ok), or refused and the former ones kept.' },
  provisions_total:              { type: 'counter',   labels: ['result'],            help: 'Devices that registered themselves: waiting for activation (pending), made from a template (success), or why not.' },
  config_reloads_total:          { type: 'counter',   labels: ['result'],            help: 'Reloads of the settings: in force (done), nothing had changed (unchanged), refused and the former ones kept (refused), or not tried because the program was starting or ending (ignored).' },
  config_generation:             { type: 'gauge',     labels: [],                    join: 'max', help: 'Number of the settings in force; it counts up with every reload that changed something.' },
  config_generations_live:       { type: 'gauge',     labels: [],                    join: 'max', help: 'Generations of the settings that still have connections, the one in force included, in the process that has most.' },
  config_last_reload_success_timestamp_seconds: { type: 'gauge', labels: [],         join: 'max', help: 'When the settings on disk were in force last, in seconds since 1970.' },
  event_loop_lag_seconds:        { type: 'histogram', labels: [],                    buckets: LAG_BUCKETS, help: 'How late a timer of 100 ms came: what everything in that process waited.' },
  workers:                       { type: 'gauge',     labels: [],                    help: 'Worker processes that are ready; 0 when one process does everything.' },
  draining:                      { type: 'gauge',     labels: [],                    join: 'max', help: '1 while a process ends its sessions: at the stop signal, or as a worker that is replaced.' },
  drain_sessions_remaining:      { type: 'gauge',     labels: ['scope'],             help: 'What has not ended yet of a drain: connections of processes that end (process), sessions on drained servers (server).' },
  drains_total:                  { type: 'counter',   labels: ['scope', 'result'],   help: 'Drains that are over: everything ended in time (done), some were cut off (cut), or it was called off (undone).' },
  backend_servers_drained:       { type: 'gauge',     labels: ['backend'],           join: 'max', help: 'Servers of a backend that get no new connections because an operator empties them.' },
  worker_restarts_total:         { type: 'counter',   labels: ['result'],            help: 'Rolling restarts of the workers: all replaced (done), or broken off with the old ones in place (aborted).' },
  worker_exits_total:            { type: 'counter',   labels: ['reason'],            help: 'Worker processes that ended: as asked (drained), with a code (exit), by a signal (signal), by us (killed).' },
  build_info:                    { type: 'gauge',     labels: ['version', 'runtime', 'transport'], join: 'max', help: 'Always 1; the labels tell what is running.' },
  process_resident_memory_bytes: { type: 'gauge',     labels: [],                    help: 'Resident memory of all processes; pages they share are counted in each.' },
  process_heap_used_bytes:       { type: 'gauge',     labels: [],                    help: 'JavaScript heap in use in all processes.' },
  process_cpu_seconds_total:     { type: 'counter',   labels: [],                    help: 'User and system CPU time of all processes, ended workers as of their last scrape.' },
  process_open_fds:              { type: 'gauge',     labels: [],                    join: 'max', help: 'Open descriptors of the process that has most.' },
  process_max_fds:               { type: 'gauge',     labels: [],                    join: 'min', help: 'Limit of open descriptors of one process.' },
  process_start_time_seconds:    { type: 'gauge',     labels: [],                    join: 'min', help: 'Start of the oldest process, in seconds since 1970.' },
} as const satisfies Record<string, MetricRow>

export type MetricName = keyof typeof METRICS
export type NamesOf<T extends MetricType> = {
  [N in MetricName]: (typeof METRICS)[N]['type'] extends T ? N : never
}[MetricName]
export type LabelOf<N extends MetricName> = (typeof METRICS)[N]['labels'][number]

/** A metric that has a `result` or `reason` label taken from the failure table. */
export type Rung = 'hello' | 'handshake' | 'identity' | 'connect' | 'dial'

/**
 * On which rungs a failure can appear as `result`. These series start at 0, so that the first failure is an increase
 * and not a new series, which `rate()` cannot see. `connections_closed_total` has every code.
 */
// biome-ignore format: a table is read down its columns
export const RUNGS: Readonly<Partial<Record<FailureCode, readonly Rung[]>>> = {
  ERR_PROXY_HEADER:               ['hello'],
  ERR_HELLO_TIMEOUT:              ['hello'],
  ERR_HELLO_INCOMPLETE:           ['hello'],
  ERR_HELLO_OVERSIZED:            ['hello'],
  ERR_HELLO_MALFORMED:            ['hello'],
  ERR_NOT_TLS:                    ['hello'],
  ERR_SNI_MISSING:                ['hello'],
  ERR_SNI_INVALID:                ['hello'],
  ERR_SNI_UNKNOWN:                ['hello'],
  ERR_DOMAIN_DISABLED:            ['hello'],
  ERR_PORT_UNSERVED:              ['hello'],
  ERR_ALPN_UNSUPPORTED:           ['hello'],
  ERR_ADDRESS_CONNECTIONS:        ['hello'],
  ERR_ADDRESS_REFUSED:            [],
  ERR_HANDSHAKE_QUEUE:            [],
  ERR_HANDSHAKE_WAIT:             [],
  ERR_OVERLOADED:                 ['connect'],
  ERR_DOMAIN_SESSIONS:            ['connect'],
  ERR_PRINCIPAL_SESSIONS:         ['connect'],
  ERR_HANDSHAKE_TIMEOUT:          ['handshake'],
  ERR_HANDSHAKE_FAILED:           ['handshake'],
  ERR_CERTIFICATE_ABSENT:         ['identity'],
  ERR_CERTIFICATE_NOT_REGISTERED: ['identity'],
  ERR_CERTIFICATE_INACTIVE:       ['identity'],
  ERR_CERTIFICATE_REVOKED:        ['identity'],
  ERR_CERTIFICATE_EXPIRED:        ['identity'],
  ERR_CERTIFICATE_NOT_YET_VALID:  ['identity'],
  ERR_CERTIFICATE_UNTRUSTED_CA:   ['identity'],
  ERR_CERTIFICATE_WEAK_KEY:       ['identity'],
  ERR_CRL_MISSING:                ['identity'],
  ERR_CRL_EXPIRED:                ['identity'],
  ERR_IDENTITY_FAULT:             ['identity'],
  ERR_CREDENTIALS_ABSENT:         ['identity'],
  ERR_CREDENTIALS_MALFORMED:      ['identity'],
  ERR_CREDENTIALS_REFUSED:        ['identity'],
  ERR_ACCESS_KEY_UNKNOWN:         ['identity'],
  ERR_SIGNATURE_MISMATCH:         ['identity'],
  ERR_SIGNATURE_EXPIRED:          ['identity'],
  ERR_SESSION_TOKEN_INVALID:      ['identity'],
  ERR_AUTHORIZER_NOT_FOUND:       ['identity'],
  ERR_TOKEN_SIGNATURE:            ['identity'],
  ERR_AUTHORIZER_UNAVAILABLE:     ['identity'],
  ERR_CERTIFICATE_CALLBACK:       ['identity'],
  ERR_CONNECT_TIMEOUT:            ['connect'],
  ERR_NOT_MQTT:                   ['connect'],
  ERR_CONNECT_OVERSIZED:          ['connect'],
  ERR_CONNECT_MALFORMED:          ['connect'],
  ERR_PROTOCOL_VERSION:           ['connect'],
  ERR_CLIENT_ID_INVALID:          ['connect'],
  ERR_MODE_UNSERVED:              ['connect'],
  ERR_ACTION_DENIED:              ['connect'],
  ERR_CLIENT_ID_TAKEN:            ['connect'],
  ERR_CONNECT_RATE:               ['connect'],
  ERR_TOPIC_INVALID:              ['connect'],
  ERR_QOS_UNSUPPORTED:            ['connect'],
  ERR_RETAIN_UNSUPPORTED:         ['connect'],
  ERR_PAYLOAD_TOO_LARGE:          ['connect'],
  ERR_QUOTA_EXCEEDED:             ['connect'],
  ERR_AUTHORIZATION_ENDED:        [],
  ERR_HTTP_MALFORMED:             [],
  ERR_HTTP_TIMEOUT:               [],
  ERR_HTTP_HEADERS_TOO_LARGE:     [],
  ERR_HTTP_BODY_TOO_LARGE:        [],
  ERR_HTTP_METHOD:                [],
  ERR_HTTP_NOT_FOUND:             [],
  ERR_HOST_MISMATCH:              [],
  ERR_UPGRADE_REQUIRED:           [],
  ERR_SUBPROTOCOL:                [],
  ERR_WEBSOCKET:                  [],
  ERR_WEBSOCKET_TOO_LARGE:        [],
  ERR_REQUEST_INVALID:            [],
  ERR_PUBLISH_BUSY:               [],
  ERR_FILTER_INVALID:             [],
  ERR_TOPIC_ALIAS_INVALID:        [],
  ERR_RECEIVE_MAXIMUM:            [],
  ERR_SUBSCRIPTION_ID_UNSUPPORTED: [],
  ERR_SLOW_CONSUMER:              [],
  ERR_SESSION_TAKEN_OVER:         ['connect'],
  ERR_MAX_CONNECT_TIME:           [],
  ERR_ADMINISTRATIVE:             [],
  ERR_PACKET_MALFORMED:           [],
  ERR_PACKET_UNEXPECTED:          [],
  ERR_PACKET_TOO_LARGE:           [],
  ERR_KEEP_ALIVE_TIMEOUT:         [],
  ERR_DRAINING:                   ['connect'],
  ERR_SERVER_DRAINING:            ['connect'],
  ERR_BACKEND_REFUSED:            ['connect', 'dial'],
  ERR_BACKEND_TIMEOUT:            ['connect', 'dial'],
  ERR_DIAL_EXHAUSTED:             ['connect', 'dial'],
  ERR_BACKEND_UNTRUSTED:          ['connect', 'dial'],
  ERR_BACKEND_PROTOCOL:           ['connect'],
  ERR_BACKEND_LOST:               ['connect'],
  ERR_INTERNAL:                   ['hello', 'handshake', 'identity', 'connect', 'dial'],
}
