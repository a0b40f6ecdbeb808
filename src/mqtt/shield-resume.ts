import { ProxyError } from '../errors.ts'
import type { ByteStream } from '../relay.ts'
import { type Connack, readConnack } from './connack.ts'
import { PROPERTY } from './properties.ts'
import type { MqttVersion } from './reason.ts'
import { bodyAt, CONNACK, typeOf } from './shield-journal.ts'
import { WholePackets } from './whole-packets.ts'

/** What a broker says to a session that comes back. */
export interface Answer {
  readonly sessionPresent: boolean
  readonly connack: Connack
  /** What came with it. */
  readonly rest: readonly Buffer[]
}

const CLEAN = 0x02
const MAX_ANSWER = 65_536

/** The same CONNECT, asking for the session that is there (MQTT 5.0 §3.1.2.4; 3.1.1 has the bit at the same place). */
export function askingForSession(connect: Buffer): Buffer {
  const asking = Buffer.from(connect)
  // Behind «MQTT» with its length, and the protocol level.
  asking[bodyAt(connect) + 7]! &= ~CLEAN
  return asking
}

/** The first packet of a broker, which has to be CONNACK; the stream is paused afterwards, and nothing of it lost. */
export function firstAnswer(
  stream: ByteStream,
  version: MqttVersion,
  deadlineMs: number,
  signal: AbortSignal,
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    let answer: Buffer | null = null
    const rest: Buffer[] = []
    const packets = new WholePackets(
      MAX_ANSWER,
      (packet) => {
        if (answer === null) answer = packet
        else rest.push(packet)
        return true
      },
      (begin) => {
        if (answer === null) done(new ProxyError('ERR_BACKEND_PROTOCOL', 'the first packet is no CONNACK'))
        else rest.push(begin)
      },
    )
    let isDone = false
    const done = (error: ProxyError | null): void => {
      if (isDone) return
      isDone = true
      clearTimeout(timer)
      signal.removeEventListener('abort', onAbort)
      stream.pause()
      stream.off('data', onData)
      stream.off('end', onGone)
      stream.off('close', onGone)
      const read = error === null ? readAnswer(answer!, version) : null
      if (read !== null) resolve({ ...read, rest: [...rest, ...packets.tail] })
      else reject(error ?? new ProxyError('ERR_BACKEND_PROTOCOL', 'the first packet is no CONNACK'))
    }
    const onData = (chunk: Buffer): void => {
      packets.push(chunk)
      if (answer !== null) done(null)
    }
    const onGone = () => done(new ProxyError('ERR_BACKEND_LOST', 'closed before its CONNACK'))
    const onAbort = () => done(new ProxyError('ERR_BACKEND_REFUSED', 'called off'))
    const timer = setTimeout(() => done(new ProxyError('ERR_BACKEND_TIMEOUT', 'no CONNACK in time')), deadlineMs)
    signal.addEventListener('abort', onAbort)
    stream.on('end', onGone)
    stream.on('close', onGone)
    stream.on('data', onData)
    stream.resume()
    if (signal.aborted) onAbort()
    else if (stream.destroyed === true || stream.readableEnded === true) onGone()
  })
}

function readAnswer(packet: Buffer, version: MqttVersion): Omit<Answer, 'rest'> | null {
  if (typeOf(packet) !== CONNACK) return null
  const body = packet.subarray(bodyAt(packet))
  const connack = readConnack(body, version)
  return connack === null ? null : { connack, sessionPresent: (body[0]! & 1) === 1 }
}

/** Says «not now» rather than «not you»: 3.1.1 code 3; server unavailable, server busy, connection rate exceeded. */
export function isForNow({ code }: Connack, version: MqttVersion): boolean {
  return version === 4 ? code === 3 : code === 0x88 || code === 0x89 || code === 0x9f
}

/** What holds without a word, of each limit that may only grow: the device was told, and cannot be told again. */
const AT_LEAST: readonly (readonly [id: number, absent: number])[] = [
  [PROPERTY.receiveMaximum, 65_535],
  [PROPERTY.maximumQoS, 2],
  [PROPERTY.retainAvailable, 1],
  [PROPERTY.maximumPacketSize, Number.POSITIVE_INFINITY],
  // Wildcard, subscription identifiers and shared subscriptions available (MQTT 5.0 §3.2.2.3.11 to §3.2.2.3.13).
  [0x28, 1],
  [PROPERTY.subscriptionIdentifiers, 1],
  [0x2a, 1],
]
const RESPONSE_INFORMATION = 0x1a
const SAME = [PROPERTY.assignedClientId, RESPONSE_INFORMATION]

export interface Asked {
  /** Seconds, as CONNECT says it to the broker. */
  readonly keepAliveSeconds: number
  readonly sessionExpirySeconds: number
}

/** Whether what a broker grants now is at least what the device was told at first. */
export function keepsPromises(first: Connack, now: Connack, asked: Asked): boolean {
  const said = ({ properties }: Connack, id: number, absent: number): number => {
    const value = properties.get(id)
    return typeof value === 'number' ? value : absent
  }
  const atLeast = (id: number, absent: number) => said(now, id, absent) >= said(first, id, absent)
  // Of the keep alive 0 is for ever.
  const patience = (connack: Connack) => {
    const seconds = connack.serverKeepAliveSeconds ?? asked.keepAliveSeconds
    return seconds === 0 ? Number.POSITIVE_INFINITY : seconds
  }
  return (
    AT_LEAST.every(([id, absent]) => atLeast(id, absent)) &&
    atLeast(PROPERTY.sessionExpiry, asked.sessionExpirySeconds) &&
    patience(now) >= patience(first) &&
    SAME.every((id) => now.properties.get(id) === undefined || now.properties.get(id) === first.properties.get(id))
  )
}
