import { DENIALS, type Denials } from './denials.ts'

/**
 * What a session may ask for, and what becomes of it. `null` is no limit of ours: the broker's own rule holds.
 * Numbers, settings and words of help are in the table below; two profiles, and each limit can be set on its own.
 */
export interface SessionRules {
  /** Where a rule is more than a number: Basic Ingest, `$share/`, QoS 2 subscriptions. */
  readonly profile: Profile
  /** How a denial is told: the column of the wire specification §5.5, or our own. */
  readonly denials: Denials
  /** Highest QoS of a publish, a subscription or a will. */
  readonly maxQoS: 0 | 1 | 2
  /** Largest packet from a device after CONNECT, as Remaining Length in bytes; what it takes is its own to say. */
  readonly packetBytes: number
  /** Largest payload of a PUBLISH or a will, in bytes. */
  readonly payloadBytes: number | null
  /** Of the client id in UTF-8. */
  readonly clientIdBytes: number
  /** Of a topic name or filter in UTF-8; the `$aws/rules/<rule>/` of Basic Ingest and `$share/<group>/` do not count under aws-iot. */
  readonly topicBytes: number
  /** Slashes in a topic name or filter, counted as `topicBytes` counts. */
  readonly topicSlashes: number | null
  readonly filtersPerSubscribe: number | null
  readonly subscriptions: number | null
  /** Publishes per second both ways together; what is above is discarded (QoS 1 still acknowledged). */
  readonly publishesPerSecond: number | null
  /** Both ways together; what is above is delayed by reading less. */
  readonly bytesPerSecond: number | null
  /** Unacknowledged QoS 1 and 2 publishes from the device: our Receive Maximum (MQTT 5.0 §3.2.2.3.3). */
  readonly receiveMaximum: number | null
  /** Toward the device: the device's own Receive Maximum is lowered to this. */
  readonly sendMaximum: number | null
  /** From the device (MQTT 5.0 §3.2.2.3.8). */
  readonly topicAliasMaximum: number | null
  /** Keep alive in seconds; below the least the least counts, above the most or 0 the most; null leaves it alone. */
  readonly keepAliveLeast: number | null
  readonly keepAliveMost: number | null
  readonly sessionExpirySeconds: number | null
  readonly messageExpirySeconds: number | null
  readonly userPropertyBytes: number | null
  readonly contentTypeBytes: number | null
  readonly correlationDataBytes: number | null
  /** Least Maximum Packet Size that a device may ask for (MQTT 5.0 §3.1.2.11.4). */
  readonly clientPacketLeast: number | null
  readonly subscriptionIdentifiers: boolean
  /** False: RETAIN on a topic that starts with `$` ends the session; other `$` topics as the wire specification §9.2. */
  readonly reservedTopicsOpen: boolean
  readonly connectsPerSecondPerClientId: number | null
  /** 24 h for WebSockets whatever the profile. */
  readonly connectionLifetimeMs: number | null
  readonly slowConsumerMs: number | null
}

export type Profile = 'open' | 'aws-iot'
export type LimitKey = Exclude<keyof SessionRules, 'profile' | 'denials'>

/** How a limit is written: with a unit where it has one. `seconds` and `ms` are both durations, held as named. */
export type LimitForm = 'count' | 'size' | 'seconds' | 'ms' | 'flag' | 'qos'

export interface LimitRow<K extends LimitKey = LimitKey> {
  /** Its name under `limits`. */
  readonly setting: string
  readonly form: LimitForm
  /** Least and most that may be set, in the unit that is held; not for flags. */
  readonly range: readonly [least: number, most: number]
  readonly open: SessionRules[K]
  readonly 'aws-iot': SessionRules[K]
  readonly help: string
  /** What a device sees past it, on 3.1.1 and on 5. */
  readonly past: string
}

const UINT32 = 4_294_967_295
/** Remaining Length has four bytes of seven bits (MQTT 5.0 §1.5.5). */
const MAX_PACKET = 268_435_455
/** Timers of both runtimes hold 2³¹ − 1 ms. */
const MAX_MS = 576 * 3_600_000
const DAY = 86_400

/**
 * `open`: the broker's own rules under safety ceilings. `aws-iot`: AWS IoT Core's numbers (general reference, "message
 * broker limits"; wire specification §6).
 */
// biome-ignore format: a table is read down its columns
export const LIMITS = {
  maxQoS:                  { setting: 'maxQoS',              form: 'qos',     range: [0, 2],                open: 2,          'aws-iot': 1,         help: 'Highest QoS of a publish, a subscription or a will.', past: 'CONNACK or DISCONNECT 0x9b; 3.1.1 closes' },
  packetBytes:             { setting: 'packetSize',          form: 'size',    range: [128, MAX_PACKET + 1], open: MAX_PACKET, 'aws-iot': 149_504,   help: 'Largest packet from a device after CONNECT.', past: 'DISCONNECT 0x95; 3.1.1 closes' },
  payloadBytes:            { setting: 'payloadSize',         form: 'size',    range: [0, MAX_PACKET],       open: null,       'aws-iot': 131_072,   help: 'Largest payload of a publish or a will.', past: 'CONNACK or DISCONNECT 0x95; 3.1.1 closes' },
  clientIdBytes:           { setting: 'clientIdSize',        form: 'size',    range: [1, 65_535],           open: 65_535,     'aws-iot': 128,       help: 'Longest client id, in UTF-8.', past: 'CONNACK 0x85; 3.1.1 CONNACK 2' },
  topicBytes:              { setting: 'topicSize',           form: 'size',    range: [1, 65_535],           open: 65_535,     'aws-iot': 256,       help: 'Longest topic name or filter, in UTF-8. Under aws-iot `$share/<group>/` and `$aws/rules/<rule>/` do not count.', past: 'DISCONNECT 0x90 for a publish, CONNACK 0x90 for a will, 0x8f for a filter; 3.1.1 closes' },
  topicSlashes:            { setting: 'topicSlashes',        form: 'count',   range: [0, 65_535],           open: null,       'aws-iot': 7,         help: 'Most slashes in a topic name or filter, counted as topicSize counts.', past: 'as topicSize' },
  filtersPerSubscribe:     { setting: 'filtersPerSubscribe', form: 'count',   range: [1, 65_535],           open: null,       'aws-iot': 8,         help: 'Most filters in one SUBSCRIBE.', past: 'DISCONNECT 0x97; 3.1.1 closes' },
  subscriptions:           { setting: 'subscriptions',       form: 'count',   range: [0, UINT32],           open: null,       'aws-iot': 50,        help: 'Most subscriptions of one connection.', past: 'SUBACK 0x97; 3.1.1 SUBACK 0x80' },
  publishesPerSecond:      { setting: 'publishesPerSecond',  form: 'count',   range: [1, UINT32],           open: null,       'aws-iot': 100,       help: 'Most publishes per second of one connection, both ways together.', past: 'discarded, QoS 1 still acknowledged' },
  bytesPerSecond:          { setting: 'throughput',          form: 'size',    range: [1_024, MAX_PACKET],   open: null,       'aws-iot': 524_288,   help: 'Most bytes per second of one connection, both ways together.', past: 'delayed by reading less' },
  receiveMaximum:          { setting: 'receiveMaximum',      form: 'count',   range: [1, 65_535],           open: null,       'aws-iot': 100,       help: 'Most unacknowledged publishes of QoS 1 and 2 from a device.', past: 'told in CONNACK; DISCONNECT 0x93; 3.1.1 waits' },
  sendMaximum:             { setting: 'sendMaximum',         form: 'count',   range: [1, 65_535],           open: null,       'aws-iot': 100,       help: "Most unacknowledged publishes toward a device: its own Receive Maximum is lowered to it.", past: 'the broker waits' },
  topicAliasMaximum:       { setting: 'topicAliasMaximum',   form: 'count',   range: [0, 65_535],           open: null,       'aws-iot': 8,         help: 'Most topic aliases from a device.', past: 'told in CONNACK; DISCONNECT 0x94' },
  keepAliveLeast:          { setting: 'keepAliveLeast',      form: 'seconds', range: [1, 65_535],           open: null,       'aws-iot': 30,        help: 'Least keep alive; a shorter one becomes it.', past: 'replaced; on 5 told as Server Keep Alive' },
  keepAliveMost:           { setting: 'keepAliveMost',       form: 'seconds', range: [1, 65_535],           open: null,       'aws-iot': 1_200,     help: 'Most keep alive; a longer one, and none at all, becomes it.', past: 'replaced; on 5 told as Server Keep Alive' },
  sessionExpirySeconds:    { setting: 'sessionExpiry',       form: 'seconds', range: [0, UINT32],           open: null,       'aws-iot': 3_600,     help: 'Longest Session Expiry Interval that a device gets (MQTT 5).', past: 'lowered; told in CONNACK' },
  messageExpirySeconds:    { setting: 'messageExpiry',       form: 'seconds', range: [1, UINT32],           open: null,       'aws-iot': 7 * DAY,   help: 'Longest Message Expiry Interval (MQTT 5).', past: 'lowered' },
  userPropertyBytes:       { setting: 'userPropertySize',    form: 'size',    range: [0, MAX_PACKET],       open: null,       'aws-iot': 8_192,     help: 'Most bytes of user properties in one packet, names and values.', past: 'CONNACK or DISCONNECT 0x97' },
  contentTypeBytes:        { setting: 'contentTypeSize',     form: 'size',    range: [0, 65_535],           open: null,       'aws-iot': 256,       help: 'Longest Content Type (MQTT 5).', past: 'CONNACK or DISCONNECT 0x97' },
  correlationDataBytes:    { setting: 'correlationDataSize', form: 'size',    range: [0, 65_535],           open: null,       'aws-iot': 8_192,     help: 'Longest Correlation Data (MQTT 5).', past: 'CONNACK or DISCONNECT 0x97' },
  clientPacketLeast:       { setting: 'clientPacketLeast',   form: 'size',    range: [1, MAX_PACKET],       open: null,       'aws-iot': 512,       help: 'Least Maximum Packet Size that a device may ask for (MQTT 5).', past: 'CONNACK 0x97' },
  subscriptionIdentifiers: { setting: 'subscriptionIdentifiers', form: 'flag', range: [0, 1],              open: true,       'aws-iot': false,     help: 'Whether devices may use subscription identifiers (MQTT 5).', past: 'told in CONNACK; DISCONNECT 0xa1' },
  reservedTopicsOpen:      { setting: 'reservedTopics',      form: 'flag',    range: [0, 1],                open: true,       'aws-iot': false,     help: 'Whether topics that start with $ are as any others; false: only the operations that AWS IoT Core documents, and never retained.', past: 'CONNACK or DISCONNECT 0x90, 0x9a for RETAIN; 3.1.1 closes' },
  connectsPerSecondPerClientId: { setting: 'connectsPerSecond', form: 'count', range: [1, 1_000],           open: null,       'aws-iot': 1,         help: 'Most connects per second under one client id. One takes a live one over at most once a second in any case.', past: 'CONNACK 0x97; 3.1.1 CONNACK 3' },
  slowConsumerMs:          { setting: 'slowConsumerTimeout', form: 'ms',      range: [1_000, MAX_MS],       open: null,       'aws-iot': null,      help: 'How long a device may leave untaken what waits for it, before it is closed.', past: 'DISCONNECT 0x97 if it still reads; 3.1.1 closes' },
  connectionLifetimeMs:    { setting: 'connectionLifetime',  form: 'ms',      range: [1_000, MAX_MS],       open: null,       'aws-iot': null,      help: 'Longest life of a connection. A WebSocket lives 24 h at most in any case.', past: 'DISCONNECT 0xa0; 3.1.1 closes' },
} as const satisfies { readonly [K in LimitKey]: LimitRow<K> }

export type LimitSetting = (typeof LIMITS)[LimitKey]['setting']

/** The broker's own rules under safety ceilings. */
export const OPEN_RULES: SessionRules = rulesOf('open')

/** AWS IoT Core's numbers and refusals. */
export const AWS_IOT_RULES: SessionRules = rulesOf('aws-iot')

/** A profile with some limits of one's own: later ones count before earlier ones. */
export function rulesOf(profile: Profile, ...own: readonly Partial<SessionRules>[]): SessionRules {
  const values = Object.entries(LIMITS).map(([key, row]) => [key, row[profile]])
  // `satisfies` above has checked that each row holds what its key may be.
  const whole = { ...Object.fromEntries(values), denials: DENIALS[profile] }
  return Object.assign(whole, ...own, { profile }) as SessionRules
}
