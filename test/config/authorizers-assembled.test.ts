import test, { type ExecutionContext } from 'ava'
import { assemble } from '../../src/assemble.ts'
import { formatIssue, loadSettings } from '../../src/config/load.ts'
import { NO_METRICS } from '../../src/control/metrics.ts'
import { server } from '../support/e2e.ts'
import { folderFor, write } from '../support/proxy.ts'

async function assembled(t: ExecutionContext, domain: string, authorizers: string) {
  const dir = folderFor(t)
  write(dir, 'server.pem', server.chainPem)
  write(dir, 'server.key', server.keyPem)
  write(dir, 'registry/own.mjs', 'export const nothing = 1\n')
  write(dir, 'registry/authorizers.yaml', `authorizers:\n${authorizers}`)
  const file = write(
    dir,
    'brokergate.yaml',
    `listeners: [ { bind: "127.0.0.1:8883" } ]
domains:
  - serverNames: [ localhost ]
    certificates: [ { cert: server.pem, key: server.key } ]
    registry: main
    ${domain}
    backend: main
backends: { main: { kind: embedded } }
registries: { main: { path: registry } }
`,
  )
  const loaded = loadSettings(file, {})
  if (loaded.kind === 'invalid') throw new Error(loaded.issues.map(formatIssue).join('\n'))
  const result = await assemble(loaded.settings, { number: 0, metrics: NO_METRICS, embeddedPath: '' })
  if (result.kind === 'ready') t.teardown(() => result.generation.close())
  return result
}

const WEBHOOK = 'kind: webhook, url: "https://auth.internal/"'

test('authorizers that a domain names must be in its registry, and must work as far as can be seen', async (t) => {
  const result = await assembled(
    t,
    'authorizers: [ tokens, missing, own ]\n    allowAuthorizerOverride: true\n    defaultAuthorizer: other',
    `  tokens: { ${WEBHOOK} }\n  own: { kind: module, path: own.mjs }\n`,
  )
  if (result.kind === 'ready') return t.fail()
  t.deepEqual(
    result.issues.map((issue) => issue.replace(/ \/\S+\//, ' ')),
    [
      'domains[0].authorizers: the registry main has no authorizer missing',
      'domains[0].authorizers: authorizer own: own.mjs has no function as its default export',
      'domains[0].defaultAuthorizer: the registry main has no authorizer other',
    ],
  )
})

test('the front is told of the names of tokens and of a default', async (t) => {
  const result = await assembled(
    t,
    'authorizers: [ tokens ]\n    allowAuthorizerOverride: true\n    defaultAuthorizer: other',
    `  tokens: { ${WEBHOOK}, tokenKeyName: a }\n  other: { ${WEBHOOK}, tokenKeyName: b }\n  third: { ${WEBHOOK}, tokenKeyName: c }\n`,
  )
  if (result.kind === 'refused') return t.deepEqual(result.issues, [])
  t.deepEqual([...result.generation.tokenKeyNames('localhost')].sort(), ['a', 'b'])
  t.true(result.generation.hasDefaultAuthorizer('localhost'))
  for (const method of ['custom', 'custom-x509', 'x509'] as const) {
    t.is(result.generation.authenticator('localhost', method)?.method, method)
  }
})
