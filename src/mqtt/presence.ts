import { randomUUID } from 'node:crypto'
import type { Authenticated } from '../auth/authenticator.ts'
import type { AuthorizedConnection, CloseReason } from '../connection.ts'
import { FAILURES, type FailureCode } from '../errors.ts'
import {
  connectedEvent,
  connectFailedEvent,
  disconnectedEvent,
  type LifecycleEvent,
  type SessionFacts,
  subscriptionEvent,
} from '../events.ts'
import { disconnectReason } from './disconnect-reason.ts'
import { WSS_LIFETIME_MS } from './lifetimes.ts'

export type Tell = (event: LifecycleEvent) => void

/** What the world is told of one session: that it came, what it listens to, and how it went (wire specification §9.1). */
export class Presence {
  readonly #tell: Tell
  readonly #facts: Omit<SessionFacts, 'versionNumber'>
  readonly #overWebSocket: boolean
  readonly #acceptedAt: number
  /** Null until the broker has accepted it: who was never there cannot go. */
  #versionNumber: number | null = null
  #isOver = false

  /** @param clientId as the device knows it */
  constructor(tell: Tell, connection: AuthorizedConnection, clientId: string) {
    this.#tell = tell
    this.#facts = factsOf(connection.who, connection.remoteAddress, clientId)
    this.#overWebSocket = connection.admissions[0]?.protocol === 'wss'
    this.#acceptedAt = connection.acceptedAt
  }

  connected(versionNumber: number): void {
    // The store may answer when the device is gone again: one that came after it went would be there for ever.
    if (this.#isOver) return
    this.#versionNumber = versionNumber
    this.#say(connectedEvent({ ...this.#facts, versionNumber }))
  }

  subscribed(filters: readonly string[]): void {
    this.#changed('subscribed', filters)
  }

  unsubscribed(filters: readonly string[]): void {
    this.#changed('unsubscribed', filters)
  }

  /** @param said the device ended by DISCONNECT, or by Close on a WebSocket */
  ended(reason: CloseReason, said: boolean): void {
    this.#isOver = true
    if (this.#versionNumber === null) return
    const fault = reason in FAILURES ? FAILURES[reason as FailureCode].fault : 'downstream'
    const day = this.#overWebSocket && performance.now() - this.#acceptedAt >= WSS_LIFETIME_MS
    const facts = { ...this.#facts, versionNumber: this.#versionNumber }
    this.#say(disconnectedEvent(facts, disconnectReason(reason, fault, said, day)))
  }

  #changed(kind: 'subscribed' | 'unsubscribed', filters: readonly string[]): void {
    if (this.#versionNumber === null || filters.length === 0) return
    this.#say(subscriptionEvent(kind, { ...this.#facts, versionNumber: this.#versionNumber }, filters))
  }

  #say(event: LifecycleEvent | null): void {
    if (event !== null) this.#tell(event)
  }
}

/** A CONNECT that the policies refused: `iot:Connect` itself, or its will. */
export function tellConnectFailed(tell: Tell, who: Authenticated, remoteAddress: string, clientId: string): void {
  const event = connectFailedEvent({ ...factsOf(who, remoteAddress, clientId), versionNumber: 0 })
  if (event !== null) tell(event)
}

function factsOf(who: Authenticated, remoteAddress: string, clientId: string): Omit<SessionFacts, 'versionNumber'> {
  return {
    clientId,
    principalId: who.principal.id,
    thingName: who.things.exclusive?.name ?? null,
    remoteAddress,
    sessionIdentifier: randomUUID(),
  }
}
