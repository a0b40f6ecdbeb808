import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { loadSettings } from '../../src/config/load.ts'
import { AWS_IOT_DENIALS, LENIENT_DENIALS, OPEN_DENIALS } from '../../src/mqtt/denials.ts'
import { type DomainRules, domainRules } from '../../src/mqtt/domain-rules.ts'
import { AWS_IOT_RULES, LIMITS, OPEN_RULES, rulesOf } from '../../src/mqtt/limits.ts'

/** Rules of one domain with these lines of its own, under these global ones. */
function rulesFor(t: ExecutionContext, global: string, own: string): DomainRules {
  const dir = mkdtempSync(join(tmpdir(), 'brokergate-rules-'))
  t.teardown(() => rmSync(dir, { recursive: true, force: true }))
  writeFileSync(join(dir, 'server.pem'), '')
  const file = join(dir, 'brokergate.yaml')
  writeFileSync(
    file,
    `listeners: [ { bind: "127.0.0.1:8883" } ]
domains:
  - serverNames: [ IoT.example.com, other.example.com ]
    certificates: [ { cert: server.pem, key: server.pem } ]
    authenticationType: BACKEND
    applicationProtocol: SECURE_MQTT
    backend: main
${own === '' ? '' : `    ${own}`}
backends: { main: { kind: tcp, servers: [ { address: "broker:1883" } ] } }
${global}
`,
  )
  const loaded = loadSettings(file, {})
  if (loaded.kind === 'invalid') throw new Error(JSON.stringify(loaded.issues))
  return domainRules(loaded.settings)({ name: 'iot.example.com' })
}

test('without a word about limits the profile is open', (t) => {
  const { rules, arn, reportOnly, clientId, cutAtExpiry } = rulesFor(t, '', '')
  t.deepEqual(rules, OPEN_RULES)
  t.is(rules.denials, OPEN_DENIALS)
  t.deepEqual(arn, { partition: 'aws', region: 'us-east-1', accountId: '000000000000' })
  t.deepEqual([reportOnly, clientId, cutAtExpiry], [false, { bind: 'policy', prefix: '' }, false])
})

test('a profile for all, and another one for a domain', (t) => {
  t.deepEqual(rulesFor(t, 'limits: { profile: aws-iot }', '').rules, AWS_IOT_RULES)
  t.is(AWS_IOT_RULES.denials, AWS_IOT_DENIALS)
  t.deepEqual(rulesFor(t, 'limits: { profile: aws-iot }', 'limits: { profile: open }').rules, OPEN_RULES)
})

test('a limit is the domain’s own, else the global one of its name, else the profile’s', (t) => {
  const { rules } = rulesFor(
    t,
    'limits: { profile: open, subscriptions: 10, topicSlashes: 3, payloadSize: 1KiB }',
    'limits: { profile: aws-iot, subscriptions: 20, payloadSize: none }',
  )
  t.deepEqual(rules, { ...AWS_IOT_RULES, subscriptions: 20, topicSlashes: 3, payloadBytes: null })
})

test('heads of ARNs are the domain’s own, field by field', (t) => {
  const { arn } = rulesFor(t, 'aws: { partition: aws-cn, accountId: "123456789012" }', 'aws: { region: cn-north-1 }')
  t.deepEqual(arn, { partition: 'aws-cn', region: 'cn-north-1', accountId: '123456789012' })
})

test('reports and prefixes are per domain', (t) => {
  t.true(rulesFor(t, '', 'policy: report').reportOnly)
  t.is(rulesFor(t, '', 'clientId: { prefix: "a-" }').clientId.prefix, 'a-')
})

test('every limit can be set by its name, in the form and range that the table gives it', (t) => {
  const written = Object.values(LIMITS).map(({ setting, form, range: [least] }) => {
    const value = { count: least, qos: least, size: `${least}B`, seconds: `${least}s`, ms: `${least}ms`, flag: false }
    return `${setting}: ${value[form]}`
  })
  const { rules } = rulesFor(t, '', `limits: { ${written.join(', ')} }`)
  for (const [key, { form, range }] of Object.entries(LIMITS)) {
    t.is(rules[key as keyof typeof LIMITS], form === 'flag' ? false : range[0], key)
  }
})

test('a domain that nobody knows has no rules', (t) => {
  const settings = { aws: {}, domains: [], limits: {} } as unknown as Parameters<typeof domainRules>[0]
  t.throws(() => domainRules(settings)({ name: 'nowhere' }), { message: /nowhere/ })
})

test('limits of one’s own do not change a profile’s name', (t) => {
  t.is(rulesOf('aws-iot', { maxQoS: 2 }).profile, 'aws-iot')
})

test('how a denial is told is the domain’s own word, whatever the profile', (t) => {
  t.is(rulesFor(t, 'limits: { profile: aws-iot }', 'denials: lenient').rules.denials, LENIENT_DENIALS)
  t.is(rulesFor(t, '', 'denials: aws-iot').rules.denials, AWS_IOT_DENIALS)
})
