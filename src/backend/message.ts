/** One message for a broker, its topic and texts already checked by whoever made it. */
export interface Message {
  readonly topic: string
  readonly payload: Uint8Array
  readonly qos: 0 | 1
  readonly retain: boolean
  /** What follows needs MQTT 5 toward the broker; null sends none (MQTT 5.0 §3.3.2.3). */
  readonly contentType: string | null
  readonly responseTopic: string | null
  readonly correlationData: Uint8Array | null
  readonly messageExpirySeconds: number | null
  readonly payloadIsUtf8: boolean | null
  readonly userProperties: readonly (readonly [name: string, value: string])[]
}

/** Who sent a message, for brokers that are told in user properties. */
export interface Origin {
  readonly principal: string
  readonly address: string
}
