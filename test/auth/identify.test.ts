import test from 'ava'
import type { AuthOutcome, Credentials } from '../../src/auth/authenticator.ts'
import { identifier } from '../../src/auth/identify.ts'
import type { SecuredConnection, Trace } from '../../src/connection.ts'
import { NO_METRICS } from '../../src/control/metrics.ts'
import { ProxyError } from '../../src/errors.ts'
import { connectionOf } from './conformance.ts'

const REVOKED: AuthOutcome = { kind: 'denied', code: 'ERR_CERTIFICATE_REVOKED', detail: 'revoked' }
const X509: Credentials = { kind: 'x509', peer: null }
const TOKEN: Credentials = { kind: 'custom', http: null, mqtt: null }

/** Addresses whose next handshake is a full one, after one refusal. */
async function remembered(credentials: Credentials, resumed: boolean, fault: Error | null = null) {
  const addresses: string[] = []
  const identify = identifier({
    metrics: NO_METRICS,
    refusedResumptions: { add: (address) => void addresses.push(address) },
    authenticatorFor: () => ({
      method: credentials.kind,
      async authenticate() {
        if (fault !== null) throw fault
        return REVOKED
      },
    }),
  })
  const connection: SecuredConnection = { ...connectionOf(), resumed }
  await identify(connection, credentials, {} as Trace, AbortSignal.abort()).catch((error: unknown) => {
    if (!(error instanceof ProxyError)) throw error
  })
  return addresses
}

test('a device that is refused with a resumed session makes a full handshake the next time', async (t) => {
  t.deepEqual(await remembered(X509, true), ['127.0.0.1'])
  t.deepEqual(await remembered({ ...X509, kind: 'custom-x509', http: null, mqtt: null }, true), ['127.0.0.1'])
})

test('nothing is remembered of who came with a full handshake, was refused for a token, or met a fault', async (t) => {
  t.deepEqual(await remembered(X509, false), [])
  t.deepEqual(await remembered(TOKEN, true), [])
  t.deepEqual(await remembered(X509, true, new Error('down')), [])
})
