// What the settings say by now about a session that earlier settings let in.
import test, { type ExecutionContext } from 'ava'
import type { AuthOutcome } from '../../src/auth/authenticator.ts'
import type { DomainRules } from '../../src/mqtt/domain-rules.ts'
import { parsePolicyDocument } from '../../src/policy/document.ts'
import { grantsOf } from '../../src/policy/grants.ts'
import { authenticatedAs } from '../support/identity.ts'
import { until } from './fakes.ts'
import { leavesNothing, OK5, OPEN_DOMAIN, PRINCIPAL, served, V5 } from './served.ts'

/** May connect as `a` in this region, and publish to `open`. */
function inRegion(region: string): AuthOutcome {
  const arn = `arn:aws:iot:${region}:000000000000`
  const parsed = parsePolicyDocument({
    Version: '2012-10-17',
    Statement: [
      { Effect: 'Allow', Action: 'iot:Connect', Resource: `${arn}:client/a` },
      { Effect: 'Allow', Action: 'iot:Publish', Resource: `${arn}:topic/open` },
    ],
  })
  if (parsed.kind === 'invalid') throw new Error(JSON.stringify(parsed.issues))
  return authenticatedAs(PRINCIPAL, { grants: grantsOf([parsed.document]) })
}

/** QoS 0 to `shut`, and to `open`. */
const SHUT = '300800047368757400' + '78'
const OPEN = '300800046f70656e00' + '78'

test('a session whose permit holds by the new settings is not touched', async (t) => {
  const s = served(t)
  await s.connected()
  s.inForce.rules = { ...OPEN_DOMAIN, arn: { ...OPEN_DOMAIN.arn, accountId: '111111111111' } }
  await s.handler.rejudge()
  t.false(s.device.destroyed)
  t.deepEqual(s.device.written, [])
  s.device.say('c000')
  await until(() => s.broker.written.length > 1)
  await s.over()
  leavesNothing(t, s)
})

test('a domain, or a way in, that is gone ends its sessions with 0x87', async (t) => {
  const s = served(t)
  await s.connected()
  s.inForce.rules = null
  await s.handler.rejudge()
  await until(() => s.device.written.length > 0)
  t.is(s.device.heard, 'e0028700')
  t.is(await s.over(), 'ERR_AUTHORIZATION_ENDED')
  leavesNothing(t, s)
})

test('policies are compared with the ARN of now', async (t) => {
  const s = served(t, { outcome: inRegion('us-east-1') })
  await s.connected()
  s.inForce.rules = { ...OPEN_DOMAIN, arn: { ...OPEN_DOMAIN.arn, region: 'eu-central-1' } }
  await s.handler.rejudge()
  t.is(await s.over(), 'ERR_ACTION_DENIED')
})

test('a client id that is bound to a thing by now, and is none, ends', async (t) => {
  const s = served(t)
  await s.connected()
  s.inForce.rules = { ...OPEN_DOMAIN, clientId: { bind: 'thing', prefix: '' } }
  await s.handler.rejudge()
  t.is(await s.over(), 'ERR_CLIENT_ID_INVALID')
})

test('a domain that only reported and enforces by now keeps back what is denied, and the other way round', async (t) => {
  const s = served(t, { outcome: inRegion('us-east-1'), domain: { reportOnly: true } })
  await s.connected()
  const passed = async (packet: string) => {
    const before = s.broker.written.length
    s.device.say(packet)
    await new Promise((resolve) => setImmediate(resolve))
    return s.broker.written.length > before
  }
  t.true(await passed(SHUT))
  t.true(s.denied.at(-1)!.reported)
  s.inForce.rules = { ...OPEN_DOMAIN, reportOnly: false }
  await s.handler.rejudge()
  t.true(await passed(OPEN))
  t.false(await passed(SHUT))
  t.false(s.denied.at(-1)!.reported)
  s.inForce.rules = { ...OPEN_DOMAIN, reportOnly: true }
  await s.handler.rejudge()
  await s.over()
})

/** The settings change to these while the broker is being dialled. */
async function changedWhileDialling(t: ExecutionContext, rules: DomainRules | null, outcome?: AuthOutcome) {
  const dialled = Promise.withResolvers<void>()
  const s = served(t, { open: () => dialled.promise, ...(outcome && { outcome }) })
  s.device.say(V5)
  await until(() => s.dials.length > 0)
  s.inForce.rules = rules
  await s.handler.rejudge()
  dialled.resolve()
  return s
}

test('who was judged before a change is judged by what counts then, before it is live', async (t) => {
  const other = { ...OPEN_DOMAIN, arn: { ...OPEN_DOMAIN.arn, region: 'eu-central-1' } }
  t.is(await (await changedWhileDialling(t, null)).ended, 'ERR_AUTHORIZATION_ENDED')
  t.is(await (await changedWhileDialling(t, other, inRegion('us-east-1'))).ended, 'ERR_ACTION_DENIED')
  const s = await changedWhileDialling(t, OPEN_DOMAIN)
  await until(() => s.broker.written.length > 0)
  t.is(s.handler.live.size, 1)
  s.broker.say(OK5)
  await s.over()
})
