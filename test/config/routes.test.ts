import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { loadSettings } from '../../src/config/load.ts'
import { mayTravel } from '../../src/https/forward-headers.ts'

const GOOD = 'path: "/things/*/shadow", methods: [ GET ], backend: shadows, action: "iot:GetThingShadow"'

function load(t: ExecutionContext, route: string, changes: { domain?: string; url?: string; backend?: string } = {}) {
  const dir = mkdtempSync(join(tmpdir(), 'brokergate-routes-'))
  t.teardown(() => rmSync(dir, { recursive: true, force: true }))
  mkdirSync(join(dir, 'registry'))
  for (const name of ['server.pem', 'server.key']) writeFileSync(join(dir, name), '')
  const file = join(dir, 'brokergate.yaml')
  writeFileSync(
    file,
    `listeners: [ { bind: "127.0.0.1:8443" } ]
domains:
  - serverNames: [ iot.example.com ]
    certificates: [ { cert: server.pem, key: server.key } ]
    backend: ${changes.backend ?? 'main'}
    registry: main
    ${changes.domain ?? 'status: enabled'}
    routes: [ { ${route} } ]
backends:
  main: { kind: tcp, servers: [ { address: "broker:1883" } ] }
  shadows: { kind: http, url: "${changes.url ?? 'http://shadows:8080'}" }
registries: { main: { path: registry } }
`,
  )
  return loadSettings(file, {})
}

function issues(t: ExecutionContext, ...input: Parameters<typeof load> extends [unknown, ...infer R] ? R : never) {
  const loaded = load(t, ...input)
  return loaded.kind === 'valid' ? [] : loaded.issues.map(({ path, message }) => `${path} | ${message}`)
}

test('a route has its defaults filled in', (t) => {
  const loaded = load(t, GOOD)
  if (loaded.kind === 'invalid') return t.fail(JSON.stringify(loaded.issues))
  t.deepEqual(loaded.settings.domains[0]!.routes, [
    {
      path: '/things/*/shadow',
      methods: ['GET'],
      backend: 'shadows',
      action: 'iot:GetThingShadow',
      authorize: null,
      resource: null,
      headers: [],
    },
  ])
  t.like(loaded.settings.backends.shadows, { kind: 'http', url: 'http://shadows:8080', timeout: 30_000, ca: null })
})

const AT = 'domains[0].routes[0]'
const refuses = test.macro({
  exec(t, _: string, route: string, expected: readonly string[]) {
    t.deepEqual(issues(t, route), expected as string[])
  },
  title: (_, what: string) => `a route is refused: ${what}`,
})
const WITHOUT_ACTION = 'path: "/things/*/shadow", methods: [ GET ], backend: shadows'

test(refuses, 'neither action nor authorize', WITHOUT_ACTION, [
  `${AT}.action | is missing, expected an action such as "iot:GetThingShadow", or authorize: none`,
])
test(refuses, 'both', `${GOOD}, authorize: none`, [`${AT}.authorize | expected either action or authorize: none`])
test(refuses, 'authorize other than none', `${WITHOUT_ACTION}, authorize: all`, [`${AT}.authorize | expected none`])
test(refuses, 'a resource without action', `${WITHOUT_ACTION}, authorize: none, resource: "x"`, [
  `${AT}.resource | has no effect without action`,
])
test(refuses, 'an action without a thing', GOOD.replace('/things/*/shadow', '/x/*'), [
  `${AT}.resource | is missing, expected a resource: the path has no /things/*`,
])
test(refuses, 'a capture that is not there', `${GOOD}, resource: "topic/\${2}"`, [
  `${AT}.resource | expected no \${2}: the path has 1 *`,
])
test(refuses, 'another variable', `${GOOD}, resource: "topic/\${name}"`, [
  `${AT}.resource | expected only \${1}, \${2}… as variables, one for each * of the path`,
])
for (const own of ['/mqtt', '/topics', '/topics/*', '/topics/things/*']) {
  test(refuses, own, GOOD.replace('/things/*/shadow', own).concat(', resource: x'), [
    `${AT}.path | is a path that is served here`,
  ])
}
for (const path of ['things/*', '/things/a*', '/a//b', '/', '/a/../b', '/a/.', '/a?b', '/%2e']) {
  test(`a route is refused: the path ${path}`, (t) => {
    t.regex(
      issues(t, GOOD.replace('/things/*/shadow', path).concat(', resource: x')).join(),
      /routes\[0\]\.path \| expected a path/,
    )
  })
}
test(refuses, 'a broker as its backend', GOOD.replace('shadows', 'main'), [
  `${AT}.backend | expected a backend of kind http`,
])
test(refuses, 'no such backend', GOOD.replace('shadows', 'other'), [
  `${AT}.backend | no such backend, expected one of: main, shadows`,
])
test(refuses, 'CONNECT', GOOD.replace('GET', 'CONNECT'), [
  `${AT}.methods[0] | expected one of GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS`,
])

test('what a route may let through is what travels', (t) => {
  for (const name of [
    'x-mine',
    'x-amz-date',
    'authorization',
    'connection',
    'cookie',
    'x-forwarded-for',
    'te',
    'x-brokergate-thing',
    'sec-websocket-key',
    'proxy-foo',
    'if-range',
    'prefer',
  ]) {
    t.is(issues(t, `${GOOD}, headers: [ ${name} ]`).length === 0, mayTravel(name), name)
  }
  t.regex(issues(t, `${GOOD}, headers: [ x_mine ]`).join(), /expected the name of a header/)
})

test('sessions do not go to a backend of kind http', (t) => {
  t.deepEqual(issues(t, GOOD, { backend: 'shadows' }), [
    'domains[0].backend | expected a broker, not a backend of kind http',
  ])
})

test('routes have no effect where nobody speaks HTTPS', (t) => {
  t.deepEqual(issues(t, GOOD, { domain: 'authenticationType: AWS_X509\n    applicationProtocol: SECURE_MQTT' }), [
    'domains[0].routes | has no effect with applicationProtocol SECURE_MQTT',
  ])
  t.deepEqual(issues(t, GOOD, { domain: 'authenticationType: AWS_X509\n    applicationProtocol: HTTPS' }), [])
})

test('the URL of a backend is one that can be called', (t) => {
  for (const url of [
    'ftp://x',
    'http://',
    'http://u:p@x',
    'http://x?y',
    'http://x#y',
    'http://x y',
    'shadows:80',
    'http://x\\\\y',
  ]) {
    t.regex(issues(t, GOOD, { url }).join(), /backends\.shadows\.url \| expected a URL/, url)
  }
  for (const url of ['http://x', 'https://x:1/', 'http://[::1]:80/a/b']) t.deepEqual(issues(t, GOOD, { url }), [], url)
})
