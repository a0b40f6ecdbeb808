import type { PeerCertificate, SecuredConnection } from '../connection.ts'
import type { Authenticator, AuthOutcome, Credentials } from './authenticator.ts'
import type { AskedDeps } from './authorizer.ts'
import { guard } from './guard.ts'
import { httpsCall } from './https-call.ts'
import { connectionIdOf } from './question.ts'
import { jsonOf } from './webhook.ts'

export interface CertificateCallbackOptions {
  /** The metric label. */
  readonly name: string
  readonly url: URL
  /** PEM; null trusts the runtime's own list. */
  readonly ca: readonly string[] | null
  readonly headers: Readonly<Record<string, string>>
  /** For one whole call, at most 5 s. */
  readonly timeoutMs: number
  readonly concurrency: number
}

export interface CertificateCallback {
  /** Puts the question before the authenticator's own. */
  before<C extends Extract<Credentials, { readonly kind: 'x509' | 'custom-x509' }>>(
    authenticator: Authenticator<C>,
  ): Authenticator<C>
  close(): void
}

/**
 * Asks an HTTPS endpoint about a client certificate before anything else judges it, at every connect. AWS IoT Core
 * developer guide, "Client certificate callback".
 *
 * - Request: `POST`, JSON `{ connectionMetadata: { id }, principalId, serverName, clientCertificateChain }`; the chain in
 *   PEM, leaf first, and `principalId` the SHA-256 of the leaf.
 * - Response: `{ "isAuthenticated": true }` lets go on; whatever else a 200 says, and 401 and 403, denies.
 * - Errors: ERR_AUTHORIZER_UNAVAILABLE when there was no whole answer of a 200.
 */
export function certificateCallback(options: CertificateCallbackOptions, deps: AskedDeps): CertificateCallback {
  const { url, ca, headers, name, timeoutMs, concurrency } = options
  const guarded = guard({ name, timeoutMs, concurrency, ...deps })
  const call = httpsCall({ url, method: 'POST', ca, headers, connections: concurrency })

  const questionOf = (peer: PeerCertificate | null, connection: SecuredConnection): string | null => {
    if (peer === null) return null
    return JSON.stringify({
      connectionMetadata: { id: connectionIdOf(connection.id) },
      principalId: peer.leaf.fingerprint256.replaceAll(':', '').toLowerCase(),
      serverName: connection.serverName,
      clientCertificateChain: peer.chain.map((certificate) => certificate.toString()),
    })
  }

  return {
    before: (authenticator) => ({
      method: authenticator.method,
      async authenticate(credentials, connection, signal): Promise<AuthOutcome> {
        const body = questionOf(credentials.peer, connection)
        // Without a certificate there is nothing to ask about, and the authenticator says so.
        if (body === null) return authenticator.authenticate(credentials, connection, signal)
        const allowed = await guarded.run(
          async (ending) => {
            const answer = await call.send(body, ending)
            return answer.status !== 401 && answer.status !== 403 && saysYes(jsonOf(answer))
          },
          signal,
          (yes) => (yes ? 'allowed' : 'denied'),
        )
        if (allowed) return authenticator.authenticate(credentials, connection, signal)
        return { kind: 'denied', code: 'ERR_CERTIFICATE_CALLBACK', detail: 'the certificate callback says no' }
      },
    }),
    close: () => call.close(),
  }
}

function saysYes(answer: unknown): boolean {
  return typeof answer === 'object' && answer !== null && 'isAuthenticated' in answer && answer.isAuthenticated === true
}
