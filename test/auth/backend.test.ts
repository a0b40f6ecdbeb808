import test from 'ava'
import { backend } from '../../src/auth/backend.ts'
import { behavesLikeAnAuthenticator, connectionOf } from './conformance.ts'

behavesLikeAnAuthenticator(test, 'backend', () => ({
  authenticator: backend(),
  accepted: { kind: 'backend' },
  refused: null,
  faulty: null,
}))

test('the principal is the domain, and everything is left to the broker', async (t) => {
  const outcome = await backend().authenticate({ kind: 'backend' }, connectionOf('b.example.com'), AbortSignal.abort())
  if (outcome.kind !== 'authenticated') return t.fail()
  t.deepEqual(outcome.principal, { id: 'backend:b.example.com', method: 'backend', attributes: {} })
  t.true(
    outcome.grants
      .permit({ partition: 'aws', region: 'r', accountId: '0' }, outcome.variables)
      .allows('iot:Publish', 'topic/anything'),
  )
})
