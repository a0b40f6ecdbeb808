import { type IClientPublishOptions, MqttClient } from 'mqtt'
import { generate, type IConnackPacket } from 'mqtt-packet'
import { Ring } from '../collections/ring.ts'
import { type FailureCode, ProxyError } from '../errors.ts'
import type { Backend } from './backend.ts'
import { duplexOf } from './duplex.ts'
import type { Message } from './message.ts'

export interface LaneOptions {
  readonly backend: Pick<Backend, 'open'>
  readonly clientId: string
  readonly username: string | null
  readonly password: string | null
  /** Highest protocol level to ask for: 5, or 4 once the broker has refused 5. */
  readonly version: MqttLevel
  /** For the broker to answer CONNECT, in ms. */
  readonly connackTimeoutMs: number
  /** Told once, when nothing more can be sent. */
  readonly onEnd: (lane: Lane) => void
}

/** Protocol level of CONNECT (MQTT 5.0 §3.1.2.2): 4 is 3.1.1. */
export type MqttLevel = 4 | 5

/**
 * One MQTT connection toward a broker, from its CONNACK to its end. It is never opened again: a message that was given
 * to it is acknowledged by it or has failed, and the library under it keeps none to send later.
 */
export interface Lane {
  readonly version: MqttLevel
  /** The server it leads to, as `Upstream.peer` has it. */
  readonly peer: string
  /** Messages that may be unacknowledged at a time: the broker's Receive Maximum and our own window. */
  readonly window: number
  readonly inFlight: number
  readonly bytesInFlight: number
  /** Nothing more can be sent; `onEnd` follows, or has been called. */
  readonly isOver: boolean
  /** `performance.now()` of the last message, or of CONNACK. */
  readonly usedAtMs: number
  /** Resolves when QoS 1 is acknowledged, or QoS 0 is written; else rejects with a ProxyError. */
  send(message: Message): Promise<void>
  /** DISCONNECT, then the end; resolves when the stream is closed. */
  end(): Promise<void>
  /** At once; what is in flight fails. */
  destroy(): void
}

/** Unacknowledged messages on one connection at most; a broker's default Receive Maximum is 65,535. */
const MAX_WINDOW = 256
/** For the broker to close after our DISCONNECT. */
const FAREWELL_MS = 1_000
const KEEP_ALIVE_SECONDS = 60

/** MQTT 3.1.1 §3.2.2.3 and 5.0 §3.2.2.2: the broker does not speak this version. */
const VERSION_REFUSED: ReadonlySet<number> = new Set([1, 0x84])

/** PUBACK reasons that say something about the message (MQTT 5.0 §3.4.2.1); any other is the broker's own trouble. */
const REFUSALS: Readonly<Record<number, FailureCode>> = {
  135: 'ERR_ACTION_DENIED',
  144: 'ERR_TOPIC_INVALID',
  149: 'ERR_PAYLOAD_TOO_LARGE',
  151: 'ERR_QUOTA_EXCEEDED',
  153: 'ERR_REQUEST_INVALID',
}

export type Opened = { readonly kind: 'lane'; readonly lane: Lane } | { readonly kind: 'version-refused' }

/** @throws {ProxyError} those of `Backend.open`, ERR_BACKEND_REFUSED, ERR_BACKEND_TIMEOUT, ERR_BACKEND_LOST */
export async function openLane(options: LaneOptions, signal: AbortSignal): Promise<Opened> {
  const { stream, peer } = await options.backend.open(null, signal)
  return new Promise((resolve, reject) => {
    const { version } = options
    const duplex = duplexOf(stream)
    // The library waits for `close`; a broker that has nothing more to say would keep it waiting.
    duplex.once('end', () => duplex.destroy())
    const client = new MqttClient(() => duplex, {
      protocolVersion: version,
      clientId: options.clientId,
      clean: true,
      keepalive: KEEP_ALIVE_SECONDS,
      connectTimeout: options.connackTimeoutMs,
      ...(options.username === null ? {} : { username: options.username }),
      ...(options.password === null ? {} : { password: options.password }),
      // One client is one connection: with these nothing is kept for another.
      reconnectPeriod: 0,
      queueQoSZero: false,
      resubscribe: false,
    })
    let lane: OpenLane | null = null
    let cause: (Error & { readonly code?: unknown }) | null = null
    const onAbort = () => client.end(true)
    signal.addEventListener('abort', onAbort, { once: true })
    // `close` always follows an error, and is the one place where things end.
    client.on('error', (error) => {
      cause ??= error
      client.end(true)
    })
    // The broker's farewell (MQTT 5.0 §3.14): nothing may be sent after it.
    client.on('disconnect', () => client.end(true))
    client.on('connect', (connack) => {
      signal.removeEventListener('abort', onAbort)
      if (lane !== null || client.disconnecting) return
      lane = new OpenLane(client, version, peer, connack)
      resolve({ kind: 'lane', lane })
    })
    client.on('close', () => {
      signal.removeEventListener('abort', onAbort)
      if (lane !== null) {
        lane.ended()
        options.onEnd(lane)
      } else if (typeof cause?.code === 'number' && VERSION_REFUSED.has(cause.code)) {
        resolve({ kind: 'version-refused' })
      } else {
        reject(signal.aborted ? canceled(signal) : notOpened(cause))
      }
      // Stops the timers of a client whose connection the broker ended.
      client.end(true)
    })
    if (signal.aborted) onAbort()
  })
}

function notOpened(cause: (Error & { readonly code?: unknown }) | null): ProxyError {
  if (cause === null) return new ProxyError('ERR_BACKEND_LOST', 'the broker closed before its CONNACK')
  if (cause.message === 'connack timeout') return new ProxyError('ERR_BACKEND_TIMEOUT', 'no CONNACK in time', { cause })
  return new ProxyError('ERR_BACKEND_REFUSED', `toward the broker: ${cause.message}`, { cause })
}

/** What a signal says, or that it was somebody's wish. */
export function canceled(signal: AbortSignal): ProxyError {
  const reason: unknown = signal.reason
  return reason instanceof ProxyError
    ? reason
    : new ProxyError('ERR_BACKEND_REFUSED', 'the publish was canceled', { cause: reason })
}

class OpenLane implements Lane {
  readonly version: MqttLevel
  readonly peer: string
  readonly window: number
  inFlight = 0
  bytesInFlight = 0
  usedAtMs = performance.now()
  readonly #client: MqttClient
  readonly #connack: IConnackPacket
  /** How to fail each message that is in flight. */
  readonly #waiting = new Ring<(error: ProxyError) => void>()
  readonly #closed = Promise.withResolvers<void>()

  constructor(client: MqttClient, version: MqttLevel, peer: string, connack: IConnackPacket) {
    this.#client = client
    this.peer = peer
    this.version = version
    this.#connack = connack
    this.window = Math.min(connack.properties?.receiveMaximum || MAX_WINDOW, MAX_WINDOW)
  }

  get isOver(): boolean {
    return !this.#client.connected || this.#client.disconnecting
  }

  send(message: Message): Promise<void> {
    const refusal = this.#refusalOf(message)
    if (refusal !== null) return Promise.reject(refusal)
    const bytes = message.payload.length
    this.inFlight++
    this.bytesInFlight += bytes
    this.usedAtMs = performance.now()
    return new Promise<void>((resolve, reject) => {
      const settle = (error: ProxyError | null) => {
        if (!this.#waiting.remove(link)) return
        this.inFlight--
        this.bytesInFlight -= bytes
        if (error === null) resolve()
        else reject(error)
      }
      const fail = (error: ProxyError) => settle(error)
      const link = this.#waiting.add(fail)
      try {
        this.#client.publish(message.topic, bufferOf(message.payload), publishOptions(message, this.version), (error) =>
          settle(error === null || error === undefined ? null : asRefusal(error)),
        )
      } catch (cause) {
        // Half a packet may have been written.
        settle(new ProxyError('ERR_INTERNAL', 'the message could not be encoded', { cause }))
        this.destroy()
      }
    })
  }

  end(): Promise<void> {
    const timer = setTimeout(() => this.destroy(), FAREWELL_MS)
    this.#client.end(false)
    return this.#closed.promise.finally(() => clearTimeout(timer))
  }

  destroy(): void {
    this.#client.end(true)
    // A farewell may be under way, after which `end` does nothing.
    this.#client.stream.destroy()
  }

  ended(): void {
    const lost = new ProxyError('ERR_BACKEND_LOST', 'the connection to the broker ended before it had the message')
    for (const fail of this.#waiting) fail(lost)
    this.#closed.resolve()
  }

  /** What this broker has said it cannot take: sent all the same it would close, and fail the messages of others. */
  #refusalOf(message: Message): ProxyError | null {
    if (this.version === 4 && needsMqtt5(message)) {
      return new ProxyError('ERR_REQUEST_INVALID', 'the broker behind speaks MQTT 3.1.1 only')
    }
    const { maximumQoS, retainAvailable, maximumPacketSize } = this.#connack.properties ?? {}
    if (maximumQoS !== undefined && message.qos > maximumQoS) {
      return new ProxyError('ERR_QOS_UNSUPPORTED', 'the broker behind takes QoS 0 only')
    }
    if (message.retain && retainAvailable === false) {
      return new ProxyError('ERR_RETAIN_UNSUPPORTED', 'the broker behind retains nothing')
    }
    if (maximumPacketSize !== undefined && packetBytes(message, this.version) > maximumPacketSize) {
      return new ProxyError('ERR_PAYLOAD_TOO_LARGE', `the broker behind takes packets to ${maximumPacketSize} bytes`)
    }
    return null
  }
}

function needsMqtt5(message: Message): boolean {
  const { contentType, responseTopic, correlationData, messageExpirySeconds, payloadIsUtf8, userProperties } = message
  const extras = [contentType, responseTopic, correlationData, messageExpirySeconds, payloadIsUtf8]
  return userProperties.length > 0 || extras.some((extra) => extra !== null)
}

function publishOptions(message: Message, version: MqttLevel): IClientPublishOptions {
  const { qos, retain } = message
  if (version === 4) return { qos, retain }
  const { contentType, responseTopic, correlationData, messageExpirySeconds, payloadIsUtf8 } = message
  return {
    qos,
    retain,
    properties: {
      ...(contentType === null ? {} : { contentType }),
      ...(responseTopic === null ? {} : { responseTopic }),
      ...(correlationData === null ? {} : { correlationData: bufferOf(correlationData) }),
      ...(messageExpirySeconds === null ? {} : { messageExpiryInterval: messageExpirySeconds }),
      ...(payloadIsUtf8 === null ? {} : { payloadFormatIndicator: payloadIsUtf8 }),
      ...(message.userProperties.length === 0 ? {} : { userProperties: byName(message.userProperties) }),
    },
  }
}

/** As the library takes them: the values of one name keep their order. */
function byName(pairs: Message['userProperties']): Record<string, string[]> {
  // Without a prototype, so that `__proto__` is a name like any other.
  const found: Record<string, string[]> = Object.create(null)
  for (const [name, value] of pairs) {
    found[name] ??= []
    found[name].push(value)
  }
  return found
}

function packetBytes(message: Message, version: MqttLevel): number {
  const { topic, qos, retain } = message
  const { properties = {} } = publishOptions(message, version)
  // The payload is added as a number, so that it is not copied only to be counted.
  const head = generate(
    { cmd: 'publish', topic, payload: '', messageId: 1, dup: false, qos, retain, properties },
    { protocolVersion: version },
  )
  // The Remaining Length of a packet with its payload may take three bytes more than without.
  return head.length + 3 + message.payload.length
}

function asRefusal(error: Error & { readonly code?: unknown }): ProxyError {
  const { code } = error
  if (typeof code !== 'number' || code < 0x80) {
    return new ProxyError('ERR_BACKEND_LOST', `the broker did not take the message: ${error.message}`, { cause: error })
  }
  const refusal = REFUSALS[code] ?? 'ERR_BACKEND_REFUSED'
  return new ProxyError(refusal, `the broker refused the message: ${error.message}`, { cause: error })
}

function bufferOf(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}
