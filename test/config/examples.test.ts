import { copyFileSync, globSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, dirname, join } from 'node:path'
import test from 'ava'
import { z } from 'zod'
import { assemble } from '../../src/assemble.ts'
import { createCa, createCrl, issueServer } from '../../src/cli/pki.ts'
import { TLS_POLICY_NAMES } from '../../src/config/domain-schema.ts'
import { formatIssue, loadSettings } from '../../src/config/load.ts'
import { PATHS, SECRETS, SETTINGS } from '../../src/config/schema.ts'
import { matches, parseTree } from '../../src/config/tree.ts'
import { NO_METRICS } from '../../src/control/metrics.ts'
import { POLICY_NAMES } from '../../src/tls/policies.ts'

const root = new URL('../../config/', import.meta.url).pathname
const ca = createCa({ commonName: 'test' })
const server = issueServer(ca, { serverNames: ['example.com'] })

const ALL = '{ Version: "2012-10-17", Statement: [ { Effect: Allow, Action: "*", Resource: "*" } ] }'
/** Names that the examples use. */
const POLICIES = `policies: { devices: ${ALL}, vendor: ${ALL} }\n`
/** The same of authorizers. */
const AUTHORIZERS =
  'authorizers: { tokens: { kind: webhook, url: "https://auth.internal/" }, people: { kind: webhook, url: "https://auth.internal/" } }\n'

/** A module that takes events. */
const SINK = 'export default () => ({ send() {}, close() {} })'

for (const file of globSync(join(root, '*.yaml'))) {
  test(`brokergate check accepts config/${basename(file)} where the files that it names exist`, async (t) => {
    const dir = mkdtempSync(join(tmpdir(), 'brokergate-example-'))
    t.teardown(() => rmSync(dir, { recursive: true, force: true }))
    const copy = join(dir, basename(file))
    copyFileSync(file, copy)
    const tree = parseTree(readFileSync(file, 'utf8'), copy, dir)
    if (!('kind' in tree)) return t.fail()
    const put = (name: string): void => {
      mkdirSync(dirname(join(dir, name)), { recursive: true })
      writeFileSync(
        join(dir, name),
        name.endsWith('.mjs') ? SINK : name.endsWith('.key') ? server.keyPem : server.chainPem,
      )
    }
    for (const { setting, must } of PATHS) {
      for (const { value } of matches(tree, setting.split('.'))) {
        if (value.kind !== 'scalar') continue
        if (must === 'file') put(String(value.value))
        if (must === 'folder') {
          mkdirSync(join(dir, String(value.value)), { recursive: true })
          writeFileSync(join(dir, String(value.value), 'names.yaml'), POLICIES + AUTHORIZERS)
        }
      }
    }
    for (const secret of SECRETS) {
      for (const { value } of matches(tree, [...secret.split('.'), 'file'])) {
        if (value.kind === 'scalar') put(String(value.value))
      }
    }
    const loaded = loadSettings(copy, {
      BROKER_PASSWORD: 'secret',
      BROKER_TOKEN: 'Bearer secret',
      CALLBACK_SECRET: 'secret',
    })
    if (loaded.kind === 'invalid') return t.deepEqual(loaded.issues.map(formatIssue), [])
    // Now that the names are known: certificates that cover them, of the kinds that the files' order asks for.
    for (const domain of loaded.settings.domains) {
      for (const [index, { cert, key }] of domain.certificates.entries()) {
        const keyType = index === 0 ? 'ec' : 'rsa'
        const issued = issueServer(ca, { serverNames: [...domain.serverNames], keyType })
        writeFileSync(cert, issued.chainPem)
        writeFileSync(key, issued.keyPem)
      }
      for (const path of domain.clientTrust.ca) writeFileSync(path, ca.certPem)
      for (const path of domain.clientTrust.crl?.files ?? []) writeFileSync(path, createCrl(ca, { revoked: [] }).pem)
    }
    for (const backend of Object.values(loaded.settings.backends)) {
      if (backend.kind !== 'tls' && backend.kind !== 'ws') continue
      for (const path of backend.ca ?? []) writeFileSync(path, ca.certPem)
    }
    const assembled = await assemble(loaded.settings, { number: 0, metrics: NO_METRICS, embeddedPath: '' })
    t.deepEqual(assembled.kind === 'ready' ? [] : assembled.issues, [])
    if (assembled.kind === 'ready') await assembled.generation.close()
  })
}

test('config/example.yaml has every setting', (t) => {
  const text = readFileSync(join(root, 'example.yaml'), 'utf8')
  const names = new Set<string>()
  JSON.stringify(z.toJSONSchema(SETTINGS, { io: 'input' }), (key, value: unknown) => {
    if (key === 'properties' && typeof value === 'object' && value !== null) for (const name in value) names.add(name)
    return value
  })
  t.true(names.size > 50)
  t.deepEqual(
    [...names].filter((name) => !new RegExp(`\\b${name}:`).test(text)),
    [],
  )
})

test('every setting has a word of help', (t) => {
  const without: string[] = []
  const visit = (value: unknown, path: string): void => {
    if (typeof value !== 'object' || value === null) return
    for (const [key, inside] of Object.entries(value)) {
      if (key === 'properties') {
        for (const [name, setting] of Object.entries(inside as object)) {
          if (!('description' in setting)) without.push(`${path}.${name}`)
        }
      }
      visit(inside, `${path}.${key}`)
    }
  }
  visit(z.toJSONSchema(SETTINGS, { io: 'input' }), '')
  t.deepEqual(without, [])
})

test('the names of TLS policies that are accepted are those that exist', (t) => {
  t.deepEqual([...TLS_POLICY_NAMES].sort(), [...POLICY_NAMES].sort())
})
