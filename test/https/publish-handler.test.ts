import test from 'ava'
import type { Message, Origin } from '../../src/backend/message.ts'
import type { Publisher } from '../../src/backend/publisher.ts'
import { ProxyError } from '../../src/errors.ts'
import { publishLimits } from '../../src/https/publish.ts'
import { handlePublish, type PublishParts } from '../../src/https/publish-handler.ts'
import { OPEN_RULES } from '../../src/mqtt/limits.ts'
import { CLOSED_PERMIT, OPEN_PERMIT, type Permit } from '../../src/policy/permit.ts'

const signal = new AbortController().signal

function parts(permit: Permit, failure: Error | null = null) {
  const sent: { readonly message: Message; readonly origin: Origin | null | undefined }[] = []
  const publisher: Publisher = {
    async publish(message, _signal, origin) {
      if (failure !== null) throw failure
      sent.push({ message, origin })
    },
    async close() {},
  }
  const origin = { principal: 'AKIDEXAMPLE', address: '192.0.2.7' }
  return { sent, parts: { permit, limits: publishLimits(OPEN_RULES), publisher, origin } satisfies PublishParts }
}

const request = (target: string) => ({ target, rawHeaders: [], body: Buffer.from('x') })

/** Allows these and keeps what it was asked. */
function asking(...allowed: string[]) {
  const asked: string[] = []
  const permit: Permit = {
    allows(action, resource) {
      asked.push(`${action} ${resource}`)
      return allowed.includes(action)
    },
    allowsAll: () => false,
  }
  return { asked, permit }
}

test('a publish that is allowed reaches the broker with who sent it', async (t) => {
  const { asked, permit } = asking('iot:Publish')
  const { sent, parts: given } = parts(permit)
  t.deepEqual(await handlePublish(request('/topics/a%2Fb?qos=1'), given, signal), { kind: 'published', topic: 'a/b' })
  t.like(sent[0]!.message, { topic: 'a/b', qos: 1, payload: Buffer.from('x') })
  t.deepEqual(sent[0]!.origin, { principal: 'AKIDEXAMPLE', address: '192.0.2.7' })
  t.deepEqual(asked, ['iot:Publish topic/a/b'])
})

test('no policy, no publish: the broker hears nothing', async (t) => {
  const { sent, parts: given } = parts(CLOSED_PERMIT)
  const result = await handlePublish(request('/topics/a'), given, signal)
  t.like(result, { kind: 'refused', code: 'ERR_ACTION_DENIED' })
  t.is(sent.length, 0)
})

test('retain takes a permission of its own', async (t) => {
  const { asked, permit } = asking('iot:Publish')
  const { sent, parts: given } = parts(permit)
  t.like(await handlePublish(request('/topics/a?retain=true'), given, signal), { code: 'ERR_ACTION_DENIED' })
  t.deepEqual(asked, ['iot:Publish topic/a', 'iot:RetainPublish topic/a'])
  t.is(sent.length, 0)
  const both = parts(asking('iot:Publish', 'iot:RetainPublish').permit)
  t.like(await handlePublish(request('/topics/a?retain=true'), both.parts, signal), { kind: 'published' })
  t.true(both.sent[0]!.message.retain)
})

test('what is wrong with the request is told before any policy is asked', async (t) => {
  const { asked, permit } = asking()
  const result = await handlePublish(request('/topics/a?qos=2'), parts(permit).parts, signal)
  t.like(result, { kind: 'refused', code: 'ERR_REQUEST_INVALID', detail: 'qos is neither 0 nor 1' })
  t.deepEqual(asked, [])
})

test('a broker that is away, and a fault of ours, are refusals with their codes', async (t) => {
  const away = parts(OPEN_PERMIT, new ProxyError('ERR_BACKEND_REFUSED', 'away'))
  t.like(await handlePublish(request('/topics/a'), away.parts, signal), { code: 'ERR_BACKEND_REFUSED', detail: 'away' })
  const broken = parts(OPEN_PERMIT, new TypeError('broken'))
  t.like(await handlePublish(request('/topics/a'), broken.parts, signal), { code: 'ERR_INTERNAL' })
})
