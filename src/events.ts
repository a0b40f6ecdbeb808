import type { CloseReason } from './connection.ts'
import type { FailureCode } from './errors.ts'

/** Something that happened to a device, in the form in which AWS IoT Core tells it (wire specification §9.1, §2.4). */
export interface LifecycleEvent {
  /** Below the sink's prefix: `presence/connected/<clientId>`. */
  readonly topic: string
  readonly body: Readonly<Record<string, unknown>>
}

/** Is told of events. Never waits, never throws; what it cannot deliver it counts. */
export interface EventSink {
  readonly name: string
  send(event: LifecycleEvent): void
  close(): Promise<void>
}

/** What all events of one connection say alike. */
export interface SessionFacts {
  readonly clientId: string
  readonly principalId: string
  /** Only of an exclusive thing: AWS IoT developer guide, "Exclusive thing". */
  readonly thingName: string | null
  readonly remoteAddress: string
  /** UUID, the same in all events of one connection. */
  readonly sessionIdentifier: string
  /** Counts the connections of this client id up; the same in `connected` and `disconnected`. */
  readonly versionNumber: number
}

export const DISCONNECT_REASONS = [
  'AUTH_ERROR',
  'CLIENT_INITIATED_DISCONNECT',
  'CLIENT_ERROR',
  'CONNECTION_LOST',
  'DUPLICATE_CLIENTID',
  'FORBIDDEN_ACCESS',
  'MQTT_KEEP_ALIVE_TIMEOUT',
  'SERVER_ERROR',
  'SERVER_INITIATED_DISCONNECT',
  'API_INITIATED_DISCONNECT',
  'THROTTLED',
  'WEBSOCKET_TTL_EXPIRATION',
  'CUSTOMAUTH_TTL_EXPIRATION',
] as const
export type DisconnectReason = (typeof DISCONNECT_REASONS)[number]

/** Endings that have a word of their own; the rest follow from whose fault they are. */
const REASONS: Readonly<Partial<Record<FailureCode, DisconnectReason>>> = {
  ERR_SESSION_TAKEN_OVER: 'DUPLICATE_CLIENTID',
  ERR_KEEP_ALIVE_TIMEOUT: 'MQTT_KEEP_ALIVE_TIMEOUT',
  ERR_DRAINING: 'SERVER_INITIATED_DISCONNECT',
  ERR_ADMINISTRATIVE: 'API_INITIATED_DISCONNECT',
  ERR_QUOTA_EXCEEDED: 'THROTTLED',
  ERR_ACTION_DENIED: 'AUTH_ERROR',
  ERR_AUTHORIZATION_ENDED: 'AUTH_ERROR',
  ERR_AUTHORIZER_UNAVAILABLE: 'AUTH_ERROR',
  ERR_AUTHORIZER_NOT_FOUND: 'AUTH_ERROR',
  ERR_ACCESS_KEY_UNKNOWN: 'AUTH_ERROR',
  ERR_SESSION_TOKEN_INVALID: 'AUTH_ERROR',
  ERR_CREDENTIALS_REFUSED: 'AUTH_ERROR',
  ERR_CERTIFICATE_NOT_REGISTERED: 'AUTH_ERROR',
  ERR_CERTIFICATE_INACTIVE: 'AUTH_ERROR',
  ERR_CERTIFICATE_REVOKED: 'AUTH_ERROR',
  ERR_CERTIFICATE_EXPIRED: 'AUTH_ERROR',
  ERR_CERTIFICATE_UNTRUSTED_CA: 'AUTH_ERROR',
  ERR_CRL_MISSING: 'AUTH_ERROR',
  ERR_CRL_EXPIRED: 'AUTH_ERROR',
}

/**
 * How a connection ended, in AWS's words.
 *
 * @param saidGoodbye the device sent DISCONNECT, or closed its WebSocket in good order
 * @param fault whose side the failure is, from the failure table; null where nothing failed
 * @param overWebSocket what ran out when the longest life was over
 */
export function disconnectReason(
  reason: CloseReason,
  saidGoodbye: boolean,
  fault: 'downstream' | 'upstream' | 'proxy' | null,
  overWebSocket: boolean,
): DisconnectReason {
  if (saidGoodbye) return 'CLIENT_INITIATED_DISCONNECT'
  if (reason === 'ERR_MAX_CONNECT_TIME') return overWebSocket ? 'WEBSOCKET_TTL_EXPIRATION' : 'CUSTOMAUTH_TTL_EXPIRATION'
  const own = REASONS[reason as FailureCode]
  if (own !== undefined) return own
  if (reason === 'downstream') return 'CONNECTION_LOST'
  return fault === 'downstream' ? 'CLIENT_ERROR' : 'SERVER_ERROR'
}

/** AWS tells nothing of ids with wildcards, because they would stand in a topic name. NUL may stand in none at all. */
const UNTELLABLE = /[+#\0]/

/** The event as told of one connection; null where its client id cannot stand in a topic. */
function presence(kind: string, topic: string, facts: SessionFacts, more: object): LifecycleEvent | null {
  if (UNTELLABLE.test(facts.clientId)) return null
  return {
    topic: `${topic}/${facts.clientId}`,
    body: {
      clientId: facts.clientId,
      ...(facts.thingName !== null && { thingName: facts.thingName }),
      timestamp: Date.now(),
      eventType: kind,
      sessionIdentifier: facts.sessionIdentifier,
      principalIdentifier: facts.principalId,
      ...more,
    },
  }
}

export function connectedEvent(facts: SessionFacts): LifecycleEvent | null {
  const { remoteAddress: ipAddress, versionNumber } = facts
  return presence('connected', 'presence/connected', facts, { ipAddress, versionNumber })
}

export function disconnectedEvent(facts: SessionFacts, reason: DisconnectReason): LifecycleEvent | null {
  return presence('disconnected', 'presence/disconnected', facts, {
    clientInitiatedDisconnect: reason === 'CLIENT_INITIATED_DISCONNECT',
    disconnectReason: reason,
    versionNumber: facts.versionNumber,
  })
}

/** Only for authorization: `iot:Connect` denied, or the will's topic. */
export function connectFailedEvent(facts: SessionFacts): LifecycleEvent | null {
  return presence('connect_failed', 'presence/connect_failed', facts, {
    connectFailureReason: 'AUTHORIZATION_FAILED',
    ipAddress: facts.remoteAddress,
  })
}

export function subscriptionEvent(
  kind: 'subscribed' | 'unsubscribed',
  facts: SessionFacts,
  topics: readonly string[],
): LifecycleEvent | null {
  return presence(kind, `subscriptions/${kind}`, facts, { topics })
}

/** A certificate that was seen first (just-in-time registration); sent again on each attempt until it is ACTIVE. */
export function registeredEvent(facts: {
  readonly certificateId: string
  readonly caCertificateId: string
  readonly accountId: string
  readonly registeredAt: Date
}): LifecycleEvent {
  return {
    topic: `certificates/registered/${facts.caCertificateId}`,
    body: {
      certificateId: facts.certificateId,
      caCertificateId: facts.caCertificateId,
      timestamp: Date.now(),
      certificateStatus: 'PENDING_ACTIVATION',
      awsAccountId: facts.accountId,
      certificateRegistrationTimestamp: facts.registeredAt.toISOString(),
    },
  }
}

/** All sinks as one. */
export function allSinks(sinks: readonly EventSink[]): EventSink {
  return {
    name: 'all',
    send(event) {
      for (const sink of sinks) sink.send(event)
    },
    async close() {
      await Promise.all(sinks.map((sink) => sink.close()))
    },
  }
}

export interface LogSinkOptions {
  readonly log: { info(fields: Readonly<Record<string, unknown>>, message: string): void }
}

/** Each event as one line; the body's fields stand in it under `lifecycle`. */
export function logSink({ log }: LogSinkOptions): EventSink {
  return {
    name: 'log',
    send({ topic, body }) {
      log.info({ event: 'lifecycle', lifecycle: body }, `event: ${topic}`)
    },
    close: async () => {},
  }
}

export interface BrokerSinkOptions {
  /** Such as `$aws/events`. */
  readonly topicPrefix: string
  /** Resolves when the broker has it; rejects when it could not be had to take it. */
  readonly publish: (topic: string, payload: Uint8Array, signal: AbortSignal) => Promise<void>
  readonly count: (result: 'sent' | 'dropped') => void
  /** Events that wait while the broker is away; past it the oldest is dropped. */
  readonly queue?: number
  /** For the events that wait when we close, in ms. */
  readonly closeMs?: number
  /** Resolves after so many ms; for tests. */
  readonly wait?: (ms: number) => Promise<void>
  /** 0 ≤ x < 1. */
  readonly random?: () => number
}

/** Presence of a fleet of ten thousand devices, once over. */
const QUEUE = 10_000
/** Publishes in flight at once: order is not promised (neither does AWS), speed is. */
const IN_FLIGHT = 32
const RETRY_MS = 500
const MAX_RETRY_MS = 10_000
const CLOSE_MS = 2_000

/**
 * To the broker, at QoS 1 on the reserved topics. While the broker is away events wait in a bounded queue and are sent
 * when it is back, so that a restart of it loses none; an outage that is longer loses the oldest, counted.
 */
export function brokerSink(options: BrokerSinkOptions): EventSink {
  const { topicPrefix, publish, count } = options
  const most = options.queue ?? QUEUE
  const random = options.random ?? Math.random
  const wait = options.wait ?? ((ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms).unref()))
  const waiting: LifecycleEvent[] = []
  const stopping = new AbortController()
  let inFlight = 0
  let failures = 0
  let resting = false
  let idle: (() => void) | null = null

  const rest = (): void => {
    if (resting) return
    resting = true
    const ms = Math.min(MAX_RETRY_MS, RETRY_MS * 2 ** Math.min(failures++, 8)) * (0.5 + random() / 2)
    void wait(ms).then(() => {
      resting = false
      pump()
    })
  }
  const deliver = async (event: LifecycleEvent): Promise<void> => {
    inFlight++
    try {
      await publish(`${topicPrefix}/${event.topic}`, Buffer.from(JSON.stringify(event.body)), stopping.signal)
      failures = 0
      count('sent')
    } catch {
      // Not lost: it goes to the front again, unless the queue has filled up behind it.
      if (waiting.length < most && !stopping.signal.aborted) waiting.unshift(event)
      else count('dropped')
      rest()
    } finally {
      inFlight--
      pump()
    }
  }
  const pump = (): void => {
    while (!resting && inFlight < IN_FLIGHT && waiting.length > 0) void deliver(waiting.shift()!)
    if (inFlight === 0 && waiting.length === 0) idle?.()
  }

  return {
    name: 'broker',
    send(event) {
      if (stopping.signal.aborted) return count('dropped')
      if (waiting.length >= most) {
        waiting.shift()
        count('dropped')
      }
      waiting.push(event)
      pump()
    },
    async close() {
      if (inFlight > 0 || waiting.length > 0) {
        const done = new Promise<void>((resolve) => {
          idle = resolve
        })
        let timer: NodeJS.Timeout | null = null
        const late = new Promise<void>((resolve) => {
          timer = setTimeout(resolve, options.closeMs ?? CLOSE_MS)
        })
        await Promise.race([done, late])
        clearTimeout(timer ?? undefined)
      }
      stopping.abort()
      while (waiting.length > 0) {
        waiting.pop()
        count('dropped')
      }
    },
  }
}
