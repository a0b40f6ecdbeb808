import type { Authenticated } from '../auth/authenticator.ts'
import type { SecuredConnection } from '../connection.ts'
import type { FailureCode } from '../errors.ts'
import type { Action, Permit } from '../policy/permit.ts'
import { arnOf, connectionVariables } from '../policy/variables.ts'
import { type ClientIds, clientIdDenial } from './client-id.ts'
import type { Connect } from './connect.ts'
import type { Denial, DomainRules } from './domain-rules.ts'
import type { SessionRules } from './limits.ts'
import { CONNECT_PROPERTIES, userPropertyBytes, WILL_PROPERTIES } from './properties.ts'
import type { MqttVersion } from './reason.ts'
import { topicNameProblem } from './topic-rules.ts'

/** What of CONNECT the policies ask for: all that a session itself keeps of it, without password and will payload. */
export interface Asked {
  readonly version: MqttVersion
  /** Of the whole packet. */
  readonly bytes: number
  /** The device's session is to outlive its connection. */
  readonly isPersistent: boolean
  readonly willTopic: string | null
}

export function askedBy({ version, bytes, cleanStart, packet }: Connect): Asked {
  const { will, properties } = packet
  const isPersistent = version === 5 ? (properties?.sessionExpiryInterval ?? 0) > 0 : !cleanStart
  return { version, bytes: bytes.length, isPersistent, willTopic: will?.topic ?? null }
}

/** What the principal may do as this client, with this CONNECT (wire specification §5.4). */
export function permitFor(
  connection: Pick<SecuredConnection, 'remoteAddress' | 'serverName'>,
  { isPersistent, willTopic }: Asked,
  ids: ClientIds,
  who: Authenticated,
  { arn }: DomainRules,
): Permit {
  const variables = connectionVariables({
    clientId: ids.device,
    remoteAddress: connection.remoteAddress,
    serverName: connection.serverName,
    thing: who.things.of(ids.device),
    connectAttributes: [
      ...(isPersistent ? (['PersistentConnect'] as const) : []),
      ...(willTopic === null ? [] : (['LastWill'] as const)),
    ],
    lastWillTopic: willTopic === null ? null : arnOf(arn, `topic/${willTopic}`),
    own: who.variables,
  })
  return who.grants.permit(arn, variables)
}

/** Everything in CONNECT that may not be, limits before policies. Those of policies may be let pass for a report. */
export function* connectDenials(
  connect: Connect,
  ids: ClientIds,
  who: Authenticated,
  permit: Permit,
  domain: DomainRules,
): Generator<Denial> {
  const id = clientIdDenial(ids, who, domain)
  if (id !== null) yield id
  // As with its user name and password: the broker is told who it is by us, and not by the device as well.
  if (who.principal.method !== 'backend' && connect.packet.properties?.authenticationMethod !== undefined) {
    yield limit('ERR_CREDENTIALS_REFUSED', 'authentication by the broker (AUTH) of a device that was judged here')
  }
  yield* connectLimits(connect, domain.rules)
  yield* willLimits(connect, domain.rules)
  yield* policyDenials(permit, 'iot:Connect', `client/${ids.device}`)
  const { will } = connect.packet
  if (will === undefined) return
  yield* policyDenials(permit, 'iot:Publish', `topic/${will.topic}`)
  if (will.retain) yield* policyDenials(permit, 'iot:RetainPublish', `topic/${will.topic}`)
}

/** What has to hold for as long as the session lives. The will has been left with the broker and stays there. */
export function* liveDenials(
  ids: ClientIds,
  who: Authenticated,
  permit: Permit,
  domain: DomainRules,
): Generator<Denial> {
  const id = clientIdDenial(ids, who, domain)
  if (id !== null) yield id
  yield* policyDenials(permit, 'iot:Connect', `client/${ids.device}`)
}

function* policyDenials(permit: Permit, action: Action, resource: string): Generator<Denial> {
  if (permit.allows(action, resource)) return
  yield { code: 'ERR_ACTION_DENIED', detail: `${action} on ${resource}`, action, resource }
}

function* connectLimits(connect: Connect, rules: SessionRules): Generator<Denial> {
  const list = connect.layout.properties
  if (list === null) return
  const least = rules.clientPacketLeast
  const takes = connect.packet.properties?.maximumPacketSize
  if (least !== null && takes !== undefined && takes < least) {
    yield limit('ERR_QUOTA_EXCEEDED', `the device takes packets of ${takes} bytes, at least ${least} are due`)
  }
  yield* over(rules.userPropertyBytes, 'ERR_QUOTA_EXCEEDED', 'user properties', () =>
    userPropertyBytes(connect.bytes.subarray(...list), CONNECT_PROPERTIES),
  )
}

function* willLimits(connect: Connect, rules: SessionRules): Generator<Denial> {
  const { will } = connect.packet
  if (will === undefined) return
  const { topic, qos = 0, retain = false } = will
  if (qos > rules.maxQoS) yield limit('ERR_QOS_UNSUPPORTED', `will of QoS ${qos}, limit ${rules.maxQoS}`)
  yield* over(rules.payloadBytes, 'ERR_PAYLOAD_TOO_LARGE', 'will payload', () => Buffer.byteLength(will.payload))
  yield* willTopicLimits(topic, retain, rules)
  const list = connect.layout.will?.properties ?? null
  if (list === null) return
  const { contentType, correlationData, responseTopic } = will.properties ?? {}
  yield* over(rules.contentTypeBytes, 'ERR_QUOTA_EXCEEDED', 'content type', () => Buffer.byteLength(contentType ?? ''))
  yield* over(rules.correlationDataBytes, 'ERR_QUOTA_EXCEEDED', 'correlation data', () => correlationData?.length ?? 0)
  yield* over(rules.topicBytes, 'ERR_TOPIC_INVALID', 'response topic', () => Buffer.byteLength(responseTopic ?? ''))
  yield* over(rules.userPropertyBytes, 'ERR_QUOTA_EXCEEDED', 'user properties of the will', () =>
    userPropertyBytes(connect.bytes.subarray(...list), WILL_PROPERTIES),
  )
}

/** As for any publish; and what starts with `$` is never retained where it is reserved (wire specification §9.2). */
function* willTopicLimits(topic: string, retain: boolean, rules: SessionRules): Generator<Denial> {
  const problem = topicNameProblem(topic, Buffer.byteLength(topic), rules)
  if (problem !== null) yield limit(problem, 'the topic of the will')
  if (retain && !rules.reservedTopicsOpen && topic.startsWith('$')) {
    yield limit('ERR_RETAIN_UNSUPPORTED', 'a retained will on a topic that starts with $')
  }
}

function* over(most: number | null, code: FailureCode, what: string, bytes: () => number): Generator<Denial> {
  const size = most === null ? 0 : bytes()
  if (most !== null && size > most) yield limit(code, `${what} of ${size} bytes, limit ${most}`)
}

const limit = (code: FailureCode, detail: string): Denial => ({ code, detail, action: null, resource: null })
