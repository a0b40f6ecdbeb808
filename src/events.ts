import { pathToFileURL } from 'node:url'
import { type FailureCode, ProxyError } from './errors.ts'
import type { DisconnectReason } from './mqtt/disconnect-reason.ts'
import type { RegisteredEvent } from './registry/self-registration.ts'

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

/**
 * AWS tells nothing of ids with wildcards, because they would stand in a topic name. NUL may stand in none at all, and for
 * the rest a broker may close the connection that others' publishes are on (MQTT 5.0 §1.5.4).
 */
const UNTELLABLE = /[+#\u0000-\u001f\u007f-\u009f\p{Noncharacter_Code_Point}]/u

/** Filters that one event names; AWS IoT Core takes 8 in a SUBSCRIBE. */
const MAX_TOPICS = 100

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
  const leftOut = topics.length - MAX_TOPICS
  return presence(kind, `subscriptions/${kind}`, facts, {
    topics: leftOut > 0 ? topics.slice(0, MAX_TOPICS) : topics,
    ...(leftOut > 0 && { topicsLeftOut: leftOut }),
  })
}

/** A certificate that was seen first (just-in-time registration); sent again on each attempt until it is ACTIVE. */
export function registeredEvent(event: RegisteredEvent): LifecycleEvent {
  return { topic: `certificates/registered/${event.caCertificateId}`, body: { ...event } }
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
/** All that wait together, topics and bodies. */
const MAX_QUEUED_BYTES = 16_777_216
/** Largest body, as AWS IoT Core has it for any publish. */
const MAX_BODY_BYTES = 131_072
/** MQTT 5.0 §1.5.4. */
const MAX_TOPIC_BYTES = 65_535
/** Connections that an event may have been on when they were lost: it may be what the broker closes them for. */
const MAX_LOST = 5
/** What is said of the message itself will be said of it again. */
const FINAL: ReadonlySet<FailureCode> = new Set<FailureCode>([
  'ERR_ACTION_DENIED',
  'ERR_INTERNAL',
  'ERR_PAYLOAD_TOO_LARGE',
  'ERR_QOS_UNSUPPORTED',
  'ERR_REQUEST_INVALID',
  'ERR_TOPIC_INVALID',
])
/** Publishes in flight at once: order is not promised (neither does AWS), speed is. */
const IN_FLIGHT = 32
const RETRY_MS = 500
const MAX_RETRY_MS = 10_000
const CLOSE_MS = 2_000

interface Waiting {
  readonly topic: string
  readonly payload: Buffer
  readonly bytes: number
  lost: number
}

/**
 * To the broker, at QoS 1 on the reserved topics. While the broker is away events wait in a bounded queue and are sent
 * when it is back, so that a restart of it loses none; an outage that is longer loses the oldest, counted. What the
 * broker will not take is not sent again: the connection is one that publishes of devices share.
 */
export function brokerSink(options: BrokerSinkOptions): EventSink {
  const { topicPrefix, publish, count } = options
  const most = options.queue ?? QUEUE
  const random = options.random ?? Math.random
  const wait = options.wait ?? ((ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms).unref()))
  const waiting: Waiting[] = []
  const stopping = new AbortController()
  let bytes = 0
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
  const take = (): Waiting => {
    const next = waiting.shift()!
    bytes -= next.bytes
    return next
  }
  const failed = (event: Waiting, error: unknown): void => {
    const code = error instanceof ProxyError ? error.code : null
    if (code === 'ERR_BACKEND_LOST') event.lost++
    if (stopping.signal.aborted || event.lost >= MAX_LOST || (code !== null && FINAL.has(code))) {
      count('dropped')
      return
    }
    // Not lost: it goes to the front again, unless the queue has filled up behind it.
    if (waiting.length >= most || bytes + event.bytes > MAX_QUEUED_BYTES) count('dropped')
    else {
      waiting.unshift(event)
      bytes += event.bytes
    }
    rest()
  }
  const deliver = async (event: Waiting): Promise<void> => {
    inFlight++
    try {
      await publish(event.topic, event.payload, stopping.signal)
      failures = 0
      count('sent')
    } catch (error) {
      failed(event, error)
    } finally {
      inFlight--
      pump()
    }
  }
  const pump = (): void => {
    while (!resting && inFlight < IN_FLIGHT && waiting.length > 0) void deliver(take())
    if (inFlight === 0 && waiting.length === 0) idle?.()
  }

  return {
    name: 'broker',
    send(event) {
      const next = waitingOf(`${topicPrefix}/${event.topic}`, event.body)
      if (stopping.signal.aborted || next === null) return count('dropped')
      while (waiting.length > 0 && (waiting.length >= most || bytes + next.bytes > MAX_QUEUED_BYTES)) {
        take()
        count('dropped')
      }
      waiting.push(next)
      bytes += next.bytes
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
        take()
        count('dropped')
      }
    },
  }
}

/** As it is sent; null where MQTT, or a broker of usual limits, could not take it. */
function waitingOf(topic: string, body: LifecycleEvent['body']): Waiting | null {
  const payload = Buffer.from(JSON.stringify(body))
  const topicBytes = Buffer.byteLength(topic)
  if (topicBytes > MAX_TOPIC_BYTES || payload.length > MAX_BODY_BYTES) return null
  return { topic, payload, bytes: topicBytes + payload.length, lost: 0 }
}

/**
 * A sink of the operator's own: an ES module whose default export makes it from its options.
 * @throws {Error} when there is none, or it makes something else
 */
export async function moduleSink(path: string, options: Readonly<Record<string, unknown>>): Promise<EventSink> {
  const loaded: unknown = await import(pathToFileURL(path).href)
  const make = typeof loaded === 'object' && loaded !== null && 'default' in loaded ? loaded.default : undefined
  if (typeof make !== 'function') throw new Error(`${path} has no function as its default export`)
  const made: unknown = await make(options)
  if (!isSink(made)) throw new Error(`${path} made nothing with the functions send and close`)
  return {
    name: 'module',
    send(event) {
      // Somebody else's fault, now or later, must not end a device's session or the process.
      void (async () => made.send(event))().catch(() => {})
    },
    close: async () => made.close(),
  }
}

function isSink(made: unknown): made is Pick<EventSink, 'send' | 'close'> {
  if (typeof made !== 'object' || made === null) return false
  return 'send' in made && typeof made.send === 'function' && 'close' in made && typeof made.close === 'function'
}
