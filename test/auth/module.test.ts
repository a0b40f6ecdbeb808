import test, { type ExecutionContext } from 'ava'
import { createAuthorizers } from '../../src/auth/authorizers.ts'
import { NO_METRICS } from '../../src/control/metrics.ts'
import type { AuthorizerEntry } from '../../src/registry/entries.ts'
import { connect, customOver, SHAPES, YES } from './authorizer-peer.ts'
import { behavesLikeAnAuthenticator, connectionOf } from './conformance.ts'

const SIGNAL = new AbortController().signal
const pathOf = (name: string) => new URL(`../fixtures/modules/${name}`, import.meta.url).pathname

type Module = Extract<AuthorizerEntry, { kind: 'module' }>

const entry = (options: Record<string, unknown>, name = 'authorizer.mjs'): Module => ({
  kind: 'module',
  name: 'own',
  status: 'ACTIVE',
  digest: JSON.stringify(options),
  tokenKeyName: 'MyToken',
  signingKeys: null,
  cacheForHttp: false,
  shareForMs: null,
  timeoutMs: 1_000,
  concurrency: 4,
  path: pathOf(name),
  options,
  lifetimes: 'refuse',
})

const over = (t: ExecutionContext, one: Module) =>
  customOver(t, [one], { authorizers: createAuthorizers({ metrics: NO_METRICS, now: () => 0 }) })
const ask = (t: ExecutionContext, one: Module) => over(t, one).authenticate(SHAPES.mqtt, connectionOf(), SIGNAL)

behavesLikeAnAuthenticator(test, 'custom by module', (t) => ({
  authenticator: over(t, entry({ token: 'abc123' })),
  accepted: SHAPES.mqtt,
  refused: { ...SHAPES.mqtt, mqtt: connect({ username: '?MyToken=other' }) },
  faulty: over(t, entry({ behavior: 'throw' })),
  faultCode: 'ERR_AUTHORIZER_UNAVAILABLE',
}))

const faults = test.macro({
  async exec(t, _: string, options: Record<string, unknown>, name?: string) {
    await t.throwsAsync(ask(t, entry(options, name)), { name: 'ProxyError', code: 'ERR_AUTHORIZER_UNAVAILABLE' })
  },
  title: (_, what: string) => `a module ${what} admits nobody`,
})
test(faults, 'that throws', { behavior: 'throw' })
test(faults, 'that never answers', { behavior: 'hang' })
test(faults, 'that answers after the deadline', { behavior: 'listen', token: 'abc123' })
test(faults, 'that answers nothing', { behavior: 'answer' })
test(faults, 'that answers true', { behavior: 'answer', answer: true })
test(faults, 'whose principal is not letters and digits', {
  behavior: 'answer',
  answer: { ...YES, principalId: 'a b' },
})
test(faults, 'whose lifetimes are out of range', { behavior: 'answer', answer: { ...YES, refreshAfterInSeconds: 1 } })
test(faults, 'that is not there', {}, 'missing.mjs')
test(faults, 'without a default export', {}, 'no-default.mjs')
test(faults, 'that makes no authorizer', {}, 'no-authorize.mjs')
test(faults, 'that cannot be made', {}, 'throws.mjs')

test('a promise of an authorizer, and an answer that is no promise, will do', async (t) => {
  const outcome = await ask(t, entry({ id: 'abc' }, 'promised.mjs'))
  t.is(outcome.kind === 'authenticated' ? outcome.principal.id : outcome.detail, 'abc')
})

test('what keeps a module from working is known before it is asked', async (t) => {
  const authorizers = createAuthorizers({ metrics: NO_METRICS })
  t.teardown(() => authorizers.close())
  t.is(await authorizers.of(entry({})).problem(), null)
  t.regex(
    String(await authorizers.of({ ...entry({}, 'no-default.mjs'), digest: 'x' }).problem()),
    /no function as its default/,
  )
  t.regex(
    String(await authorizers.of({ ...entry({}, 'no-authorize.mjs'), digest: 'y' }).problem()),
    /function authorize/,
  )
})
