/**
 * What a device sees when a policy denies what it asked for (wire specification §5.5). 3.1.1 has no word for most of it:
 * a publish can only be taken in silence, or the connection ended.
 */
export interface Denials {
  /** 3.1.1: CONNACK 5, or the connection closes without one. MQTT 5 is always told 0x87. */
  readonly connect3: 'connack' | 'close'
  /** 3.1.1: `drop` acknowledges and throws away. */
  readonly publish3: 'close' | 'drop'
  /** MQTT 5, QoS 0, which no packet answers: `close` is DISCONNECT 0x87. */
  readonly publish5QoS0: 'close' | 'drop'
  /** MQTT 5, QoS 1 and 2: `ack` is PUBACK or PUBREC 0x87 and keeps the connection; `drop` acknowledges as if all were well. */
  readonly publish5: 'ack' | 'close' | 'drop'
  /** `suback` is 0x80 on 3.1.1 and 0x87 on MQTT 5 in the place of the filter. */
  readonly subscribe3: 'suback' | 'close'
  readonly subscribe5: 'suback' | 'close'
}

/** Everything is told: by a reason code where MQTT has one, by the end of the connection where it has none. */
export const OPEN_DENIALS: Denials = {
  connect3: 'connack',
  publish3: 'close',
  publish5QoS0: 'close',
  publish5: 'ack',
  subscribe3: 'suback',
  subscribe5: 'suback',
}

/** As AWS IoT Core was seen to do it: a denied 3.1.1 connect or subscription ends the connection. */
export const AWS_IOT_DENIALS: Denials = { ...OPEN_DENIALS, connect3: 'close', subscribe3: 'close' }

/** The connection is kept whatever is denied: for devices that cannot bear to lose it. */
export const LENIENT_DENIALS: Denials = { ...OPEN_DENIALS, publish3: 'drop', publish5QoS0: 'drop' }

/** By the names under which a domain may ask for them; that of its profile unless it does. */
export const DENIALS = { open: OPEN_DENIALS, 'aws-iot': AWS_IOT_DENIALS, lenient: LENIENT_DENIALS } as const
