import { AWS_IOT_DENIALS, type Denials, OPEN_DENIALS } from './denials.ts'

/**
 * What a session may ask for, as one table: two profiles, and each limit can be set on its own, per domain too.
 * `null` is no limit of ours: the broker's own rule holds.
 */
export interface SessionRules {
  /** Where a rule is more than a number: Basic Ingest, `$share/`, QoS 2 subscriptions. */
  readonly profile: 'open' | 'aws-iot'
  /** How a denial is told: the column of the wire specification §5.5, or our own. */
  readonly denials: Denials
  /** Highest QoS of a publish, a subscription or a will. */
  readonly maxQoS: 0 | 1 | 2
  /** Largest packet after CONNECT, as Remaining Length in bytes. */
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
}

/** The broker's own rules under safety ceilings: architecture.md §8. */
export const OPEN_RULES: SessionRules = {
  profile: 'open',
  denials: OPEN_DENIALS,
  maxQoS: 2,
  packetBytes: 268_435_455,
  payloadBytes: null,
  clientIdBytes: 65_535,
  topicBytes: 65_535,
  topicSlashes: null,
  filtersPerSubscribe: null,
  subscriptions: null,
  publishesPerSecond: null,
  bytesPerSecond: null,
  receiveMaximum: null,
  sendMaximum: null,
  topicAliasMaximum: null,
  keepAliveLeast: null,
  keepAliveMost: null,
  sessionExpirySeconds: null,
  messageExpirySeconds: null,
  userPropertyBytes: null,
  contentTypeBytes: null,
  correlationDataBytes: null,
  clientPacketLeast: null,
  subscriptionIdentifiers: true,
  reservedTopicsOpen: true,
  connectsPerSecondPerClientId: null,
  connectionLifetimeMs: null,
}

/** AWS IoT Core's numbers: general reference, "message broker limits" (wire specification §6). */
export const AWS_IOT_RULES: SessionRules = {
  profile: 'aws-iot',
  denials: AWS_IOT_DENIALS,
  maxQoS: 1,
  packetBytes: 149_504,
  payloadBytes: 131_072,
  clientIdBytes: 128,
  topicBytes: 256,
  topicSlashes: 7,
  filtersPerSubscribe: 8,
  subscriptions: 50,
  publishesPerSecond: 100,
  bytesPerSecond: 524_288,
  receiveMaximum: 100,
  sendMaximum: 100,
  topicAliasMaximum: 8,
  keepAliveLeast: 30,
  keepAliveMost: 1_200,
  sessionExpirySeconds: 3_600,
  messageExpirySeconds: 604_800,
  userPropertyBytes: 8_192,
  contentTypeBytes: 256,
  correlationDataBytes: 8_192,
  clientPacketLeast: 512,
  subscriptionIdentifiers: false,
  reservedTopicsOpen: false,
  connectsPerSecondPerClientId: 1,
  connectionLifetimeMs: null,
}
