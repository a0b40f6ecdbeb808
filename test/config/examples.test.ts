import { copyFileSync, globSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, dirname, join } from 'node:path'
import test from 'ava'
import { z } from 'zod'
import { createCa, issueServer } from '../../src/cli/pki.ts'
import { formatIssue, loadSettings } from '../../src/config/load.ts'
import { PATHS, SECRETS, SETTINGS, TLS_POLICY_NAMES } from '../../src/config/schema.ts'
import { matches, parseTree } from '../../src/config/tree.ts'
import { POLICY_NAMES } from '../../src/tls/policies.ts'

const root = new URL('../../config/', import.meta.url).pathname
const ca = createCa({ commonName: 'test' })
const server = issueServer(ca, { serverNames: ['example.com'] })

for (const file of globSync(join(root, '*.yaml'))) {
  test(`config/${basename(file)} is accepted where the files that it names exist`, (t) => {
    const dir = mkdtempSync(join(tmpdir(), 'brokergate-example-'))
    t.teardown(() => rmSync(dir, { recursive: true, force: true }))
    const copy = join(dir, basename(file))
    copyFileSync(file, copy)
    const tree = parseTree(readFileSync(file, 'utf8'), copy, dir)
    if (!('kind' in tree)) return t.fail()
    const put = (name: string): void => {
      mkdirSync(dirname(join(dir, name)), { recursive: true })
      writeFileSync(join(dir, name), name.endsWith('.key') ? server.keyPem : server.chainPem)
    }
    for (const { setting, must } of PATHS) {
      for (const { value } of matches(tree, setting.split('.'))) {
        if (value.kind !== 'scalar') continue
        if (must === 'file') put(String(value.value))
        if (must === 'folder') mkdirSync(join(dir, String(value.value)), { recursive: true })
      }
    }
    for (const secret of SECRETS) {
      for (const { value } of matches(tree, [...secret.split('.'), 'file'])) {
        if (value.kind === 'scalar') put(String(value.value))
      }
    }
    const loaded = loadSettings(copy, { BROKER_PASSWORD: 'secret' })
    t.deepEqual(loaded.kind === 'valid' ? [] : loaded.issues.map(formatIssue), [])
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
