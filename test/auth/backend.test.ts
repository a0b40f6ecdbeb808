import test from 'ava'
import { backend } from '../../src/auth/backend.ts'
import { parsePolicyDocument } from '../../src/policy/document.ts'
import { grantsOf } from '../../src/policy/grants.ts'
import { createRegistry } from '../../src/registry/registry.ts'
import { ARN } from '../support/identity.ts'
import { behavesLikeAnAuthenticator, connectionOf } from './conformance.ts'

const OPEN = { policies: [], registry: () => null }

behavesLikeAnAuthenticator(test, 'backend', () => ({
  authenticator: backend(OPEN),
  accepted: { kind: 'backend' },
  refused: null,
  faulty: null,
}))

test('the principal is the domain, and everything is left to the broker', async (t) => {
  const outcome = await backend(OPEN).authenticate(
    { kind: 'backend' },
    connectionOf('b.example.com'),
    AbortSignal.abort(),
  )
  if (outcome.kind !== 'authenticated') return t.fail()
  t.deepEqual(outcome.principal, { id: 'backend:b.example.com', method: 'backend', attributes: {} })
  t.true(
    outcome.grants
      .permit({ partition: 'aws', region: 'r', accountId: '0' }, outcome.variables)
      .allows('iot:Publish', 'topic/anything'),
  )
})

test('with policies they hold for everybody, as the registry says now; without a registry nothing is allowed', async (t) => {
  let effect = 'Allow'
  const registry = () =>
    createRegistry([], {
      grants(names) {
        t.deepEqual(names, ['devices'])
        const Statement = [{ Effect: effect, Action: 'iot:Publish', Resource: '*' }]
        const parsed = parsePolicyDocument({ Version: '2012-10-17', Statement })
        if (parsed.kind === 'invalid') throw new Error(JSON.stringify(parsed.issues))
        return grantsOf([parsed.document])
      },
    })
  const ask = async (options: Parameters<typeof backend>[0]) => {
    const outcome = await backend(options).authenticate({ kind: 'backend' }, connectionOf(), AbortSignal.abort())
    if (outcome.kind !== 'authenticated') throw new Error(outcome.detail)
    return outcome
  }
  const outcome = await ask({ policies: ['devices'], registry })
  const allows = (now: typeof outcome) => now.grants.permit(ARN, now.variables).allows('iot:Publish', 'topic/a')
  t.true(allows(outcome))
  effect = 'Deny'
  const again = outcome.rejudge()
  t.false(again.kind === 'authenticated' && allows(again))
  t.false(allows(await ask({ policies: ['devices'], registry: () => null })))
})
