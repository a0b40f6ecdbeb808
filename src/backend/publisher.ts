import type { Backend } from './backend.ts'
import type { DrainedServers } from './drained.ts'
import type { Message, Origin } from './message.ts'
import { Pool } from './publish-pool.ts'

export interface PublisherOptions {
  readonly backend: Pick<Backend, 'name' | 'open'>
  /** What the broker is told of us; no template: no device stands behind these connections. */
  readonly username: string | null
  readonly password: string | null
  /** Connections at most; a further one is opened when the others are busy. */
  readonly connections: number
  /** For one publish, from the call to the broker's acknowledgement, in ms. */
  readonly timeoutMs: number
  /** Messages that may wait for a connection or for room on one. */
  readonly queue: number
  /** Names of user properties for who sent a message and from where; null sends none. */
  readonly principalProperty: string | null
  readonly addressProperty: string | null
  /** Servers that are emptied: connections to them end as soon as what is in flight on them has been answered. */
  readonly drained?: DrainedServers
  /** A connection that had nothing to do for so long is closed, in ms; 5 minutes unless told. */
  readonly idleMs?: number
  /** Milliseconds, monotonic; `performance.now` unless told. */
  readonly now?: () => number
  /** 0 ≤ x < 1; `Math.random` unless told. */
  readonly random?: () => number
  /** For the deadline of a publish; returns what takes it back. `setTimeout` unless told. */
  readonly timer?: (ms: number, fire: () => void) => () => void
}

export interface PoolCredentials {
  readonly username: string | null
  readonly password: string | null
}

/**
 * What `publish` of a backend says; without a user name there, what its `identity` says. That holds no variable then:
 * the settings were refused otherwise.
 */
export function poolCredentials(identity: PoolCredentials, publish: PoolCredentials): PoolCredentials {
  if (publish.username !== null) return { username: publish.username, password: publish.password }
  return { username: identity.username, password: identity.password }
}

/** Messages of ours toward one backend. */
export interface Publisher {
  /**
   * Resolves when the broker has the message: with QoS 1 it has acknowledged it, with QoS 0 it was written to a connected
   * broker. What was not acknowledged fails and is never sent again; the broker may have it all the same.
   * @throws {ProxyError} 5xx: ERR_BACKEND_REFUSED, ERR_BACKEND_TIMEOUT, ERR_BACKEND_LOST, ERR_BACKEND_UNTRUSTED,
   *   ERR_PUBLISH_BUSY, ERR_DRAINING; what the broker says of the message itself: ERR_REQUEST_INVALID and its like.
   */
  publish(message: Message, signal: AbortSignal, origin?: Origin | null): Promise<void>
  /** Takes no more, lets what is under way end within its deadline, says DISCONNECT. */
  close(): Promise<void>
}

export function publisher(options: PublisherOptions): Publisher {
  return new Pool(options)
}
