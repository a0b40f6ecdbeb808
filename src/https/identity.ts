import type { Authenticated, Credentials, HttpProof } from '../auth/authenticator.ts'
import type { SecuredConnection, Trace } from '../connection.ts'
import { ProxyError } from '../errors.ts'
import type { Admission } from '../tls/admission.ts'
import { classify, type Way } from './classify.ts'
import type { Conversation } from './conversation.ts'
import type { Head } from './head.ts'
import type { FrontParts } from './parts.ts'

/** Which row of the matrix a request takes, as the log tells it from here on. @throws {ProxyError} when it takes none */
export function wayOf(
  parts: FrontParts,
  conversation: Conversation,
  head: Head,
  http: HttpProof,
  protocol: 'wss' | 'https',
): Extract<Way, { kind: 'way' }> {
  const { connection, trace } = conversation
  const way = classify(connection.admissions, protocol, {
    // Without Host nothing says for which server the request was signed.
    sigV4: () => head.host !== null && parts.presentsSigV4(http),
    custom: () => parts.presentsCustom(http, parts.tokenKeyNames(connection.domain)),
    defaultAuthorizer: () => parts.hasDefaultAuthorizer(connection.domain),
  })
  if (way.kind === 'refused') throw new ProxyError(way.code, 'no way in for what this request carries')
  trace.mode = way.row.mode
  trace.protocol = way.row.protocol
  return way
}

/** The connection as the row's: the rest of the way sees no other row. */
export const onRow = (connection: SecuredConnection, row: Admission): SecuredConnection => ({
  ...connection,
  admissions: [row],
})

/**
 * Who is it? A certificate is judged once per connection and judged again, by what is known now, for every request; what a
 * request itself carries is judged with each. @throws {ProxyError} for whoever is not admitted
 */
export async function whoOf(
  parts: FrontParts,
  conversation: Conversation,
  row: Admission,
  http: HttpProof,
): Promise<Authenticated> {
  const { trace, gone } = conversation
  const connection = onRow(conversation.connection, row)
  trace.stage = 'authenticate'
  if (row.auth !== 'x509') return parts.identify(connection, credentialsOf(row, connection, http), trace, gone)
  const { held } = conversation
  if (held !== null && performance.now() < held.until) {
    const again = held.who.rejudge()
    if (again.kind === 'denied') throw new ProxyError(again.code, again.detail)
    conversation.held = { who: again, until: held.until }
    return again
  }
  conversation.held = null
  const who = await parts.identify(connection, credentialsOf(row, connection, http), trace, gone)
  conversation.held = { who, until: performance.now() + validFor(who) }
  return who
}

const validFor = ({ disconnectAfterMs, refreshAfterMs }: Authenticated): number =>
  Math.min(disconnectAfterMs ?? Number.POSITIVE_INFINITY, refreshAfterMs ?? Number.POSITIVE_INFINITY)

function credentialsOf({ auth }: Admission, { peer }: SecuredConnection, http: HttpProof): Credentials {
  switch (auth) {
    case 'x509':
      return { kind: auth, peer }
    case 'custom-x509':
      return { kind: auth, peer, http, mqtt: null }
    case 'custom':
      return { kind: auth, http, mqtt: null }
    case 'sigv4':
      return { kind: auth, http }
    case 'backend':
      throw new ProxyError('ERR_MODE_UNSERVED', 'over HTTP the broker judges nobody')
  }
}

/** What the log says of a connection between two requests. */
export function settle(trace: Trace): void {
  trace.stage = 'request'
}
