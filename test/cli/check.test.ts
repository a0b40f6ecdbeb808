import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { check } from '../../src/cli/check.ts'
import { schema } from '../../src/cli/schema.ts'
import { writeStarter } from '../../src/cli/starter.ts'
import { version, versionOf } from '../../src/cli/version.ts'

function starter(t: ExecutionContext): string {
  const dir = mkdtempSync(join(tmpdir(), 'brokergate-check-'))
  t.teardown(() => rmSync(dir, { recursive: true, force: true }))
  const made = writeStarter(dir)
  return made.kind === 'ready' ? made.configFile : ''
}

test('a right configuration exits 0 and is summed up in a line', async (t) => {
  const lines: string[] = []
  const code = await check({ file: starter(t), env: {}, inspections: [() => []], print: (line) => lines.push(line) })
  t.is(code, 0)
  t.regex(lines.join('\n'), /^ok: \d listeners, 1 domain, 1 backend, 1 registry$/)
})

test('a wrong one exits 1 with every issue', async (t) => {
  const lines: string[] = []
  const env = { BROKERGATE_LOG__LEVEL: 'loud', BROKERGATE_DRAIN__GRACE: 'soon' }
  const code = await check({
    file: starter(t),
    env,
    inspections: [() => ['never asked']],
    print: (line) => lines.push(line),
  })
  t.is(code, 1)
  t.deepEqual(lines, [
    'environment variable BROKERGATE_DRAIN__GRACE: drain.grace: expected a duration with its unit (ms, s, m or h) such as "30s"',
    'environment variable BROKERGATE_LOG__LEVEL: log.level: expected one of debug, info, warn, error',
    '2 issues',
  ])
})

test('what the inspections find exits 1, all of it', async (t) => {
  const lines: string[] = []
  const inspections = [() => ['registry.yaml:3: unknown status'], async () => ['this runtime cannot serve the policy']]
  t.is(await check({ file: starter(t), env: {}, inspections, print: (line) => lines.push(line) }), 1)
  t.deepEqual(lines, ['registry.yaml:3: unknown status', 'this runtime cannot serve the policy', '2 issues'])
})

test('a file that does not exist exits 1', async (t) => {
  const lines: string[] = []
  t.is(await check({ file: '/nowhere/b.yaml', env: {}, inspections: [], print: (line) => lines.push(line) }), 1)
  t.deepEqual(lines, ['/nowhere/b.yaml: no such file', '1 issue'])
})

test('schema prints JSON Schema that refuses unknown settings', (t) => {
  const lines: string[] = []
  t.is(
    schema((line) => lines.push(line)),
    0,
  )
  const parsed = JSON.parse(lines.join('\n'))
  t.false(parsed.additionalProperties)
  t.deepEqual(parsed.required, ['listeners', 'domains', 'backends'])
})

test('version prints ours and the runtime’s', (t) => {
  const lines: string[] = []
  t.is(
    version((line) => lines.push(line)),
    0,
  )
  t.regex(lines.join('\n'), /^brokergate \d+\.\d+\.\d+\S* \((Bun|Node) \d+\.\d+\.\d+\)$/)
  t.regex(versionOf(), /^\d+\.\d+\.\d+/)
})
