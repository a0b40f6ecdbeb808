import test from 'ava'
import type { Authenticated, Credentials } from '../../src/auth/authenticator.ts'
import { remembering } from '../../src/auth/remembered.ts'
import type { SecuredConnection, Trace } from '../../src/connection.ts'
import { ProxyError } from '../../src/errors.ts'

const WHO = { kind: 'authenticated' } as unknown as Authenticated
const X509 = { kind: 'x509', peer: { leaf: { fingerprint256: 'AB:CD' } } } as unknown as Credentials
const trace = {} as Trace

function rig(answer: () => Authenticated, resumed = false) {
  const told: string[] = []
  let kept: ProxyError | null = null
  const connection = { domain: { name: 'a.example' }, resumed } as unknown as SecuredConnection
  const identify = remembering(
    async () => {
      told.push('asked')
      return answer()
    },
    {
      recall(domain, fingerprint) {
        if (kept !== null) {
          told.push(`recalled ${domain} ${fingerprint()}`)
          throw kept
        }
      },
      remember(domain, fingerprint, code) {
        told.push(`remember ${domain} ${fingerprint} ${code}`)
        kept = new ProxyError(code, 'again')
      },
      accepted: () => told.push('accepted'),
    },
    { identity: (method, result) => told.push(`${method} ${result}`) },
  )
  return { told, ask: (proof = X509) => identify(connection, proof, trace, new AbortController().signal) }
}

const no = () => {
  throw new ProxyError('ERR_CERTIFICATE_REVOKED', 'revoked')
}

test('who was refused is refused again without a question, and counted as an identity', async (t) => {
  const { told, ask } = rig(no)
  await t.throwsAsync(ask(), { code: 'ERR_CERTIFICATE_REVOKED' })
  await t.throwsAsync(ask(), { code: 'ERR_CERTIFICATE_REVOKED' })
  t.deepEqual(told, [
    'asked',
    'remember a.example AB:CD ERR_CERTIFICATE_REVOKED',
    'recalled a.example AB:CD',
    'x509 certificate_revoked',
  ])
})

test('what a resumed session tells is not held against its certificate', async (t) => {
  const { told, ask } = rig(no, true)
  await t.throwsAsync(ask(), { code: 'ERR_CERTIFICATE_REVOKED' })
  t.deepEqual(told, ['asked'])
})

test('who is accepted is told of; a device that the broker will judge proves nothing yet', async (t) => {
  const { told, ask } = rig(() => WHO)
  t.is(await ask(), WHO)
  t.is(await ask({ kind: 'backend' } as Credentials), WHO)
  t.deepEqual(told, ['asked', 'accepted', 'asked'])
})
