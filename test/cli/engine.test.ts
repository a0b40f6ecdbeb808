import { fork, spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { settledEngine } from '../../src/cli/engine.ts'

const SETTLED = {
  BUN_JSC_thresholdForFTLOptimizeAfterWarmUp: '4000000',
  BUN_JSC_heapGrowthMaxIncrease: '0.1',
  BUN_JSC_smallHeapGrowthFactor: '1.1',
  BUN_JSC_minEdenToOldGenerationRatio: '0.025',
  BUN_JSC_largeHeapSize: '33554432',
  BUN_JSC_decommitUnusedMarkedBlockPagesAfterEdenCollections: 'true',
}
/** As pinned: whoever moves it on tries the settings. */
const BUN = (JSON.parse(readFileSync('package.json', 'utf8')) as { dependencies: { bun: string } }).dependencies.bun
const NAMES = Object.keys(SETTLED)
const NAME = NAMES[0]!
const NONE = NAMES.map(() => null)
const MODULE = new URL('../../src/cli/engine.ts', import.meta.url).pathname

test('only what serves is started again, and only where nobody has said how', (t) => {
  const settled = { HOME: '/root', ...SETTLED }
  for (const args of [[], ['run'], ['run', '-c', 'a.yaml'], ['-c', 'a.yaml']]) {
    t.deepEqual(settledEngine(args, { HOME: '/root' }, BUN), settled, args.join(' '))
  }
  for (const args of [['check', '-c', 'a.yaml'], ['version'], ['policy', 'simulate']]) {
    t.is(settledEngine(args, {}, BUN), null, args.join(' '))
  }
  t.deepEqual(settledEngine(['run'], { [NAME]: '64000' }, BUN), { ...SETTLED, [NAME]: '64000' })
  t.is(settledEngine(['run'], { ...SETTLED, [NAME]: '64000' }, BUN), null)
  t.is(settledEngine(['run'], {}, '1.4.0'), null, 'it may lack a setting, and would not start')
  t.is(settledEngine(['run'], {}, undefined), null)
})

const SCRIPT = `
const first = process.env.TEST_FIRST_PID
if (first === undefined) process.env.TEST_FIRST_PID = String(process.pid)
const { settleEngine } = await import(${JSON.stringify(MODULE)})
if (process.env.TEST_NO_EXECVE) process.execve = () => { throw new Error('not permitted') }
settleEngine()
console.log(JSON.stringify({ pid: process.pid, first: Number(process.env.TEST_FIRST_PID), marks: ${JSON.stringify(NAMES)}.map((name) => process.env[name] ?? null), args: process.argv.slice(2) }))
`

interface Told {
  readonly pid: number
  readonly first: number
  readonly marks: readonly (string | null)[]
  readonly args: readonly string[]
}

function scriptAndEnv(more: NodeJS.ProcessEnv) {
  const folder = mkdtempSync(join(tmpdir(), 'engine-'))
  const script = join(folder, 'script.mjs')
  writeFileSync(script, SCRIPT)
  const env = { ...process.env, ...more }
  for (const name of NAMES) delete env[name]
  return { folder, script, env }
}

function ran(args: readonly string[], more: NodeJS.ProcessEnv = {}) {
  const { folder, script, env } = scriptAndEnv(more)
  const { stdout, status } = spawnSync(process.execPath, [script, ...args], { env, encoding: 'utf8' })
  rmSync(folder, { recursive: true })
  return { ...(JSON.parse(stdout) as Told), status }
}

test('it is the same process with the same arguments', (t) => {
  const { pid, first, marks, args, status } = ran(['run', '-c', 'with space.yaml'])
  t.is(status, 0)
  t.is(pid, first)
  t.deepEqual(args, ['run', '-c', 'with space.yaml'])
  t.deepEqual(marks, process.versions.bun === undefined ? NONE : Object.values(SETTLED))
})

test('where no program may be started it goes on as it is', (t) => {
  const { marks, args, status } = ran(['run'], { TEST_NO_EXECVE: '1' })
  t.is(status, 0)
  t.deepEqual(args, ['run'])
  t.deepEqual(marks, NONE)
})

test('whoever was forked keeps its channel, and so stays as it is', async (t) => {
  const { folder, script, env } = scriptAndEnv({})
  t.teardown(() => rmSync(folder, { recursive: true }))
  const child = fork(script, ['run'], { env, execPath: process.execPath, execArgv: [], silent: true })
  t.teardown(() => child.kill())
  const chunks: Buffer[] = []
  child.stdout!.on('data', (chunk: Buffer) => chunks.push(chunk))
  const code = await new Promise((resolve) => child.once('close', resolve))
  t.is(code, 0)
  t.deepEqual((JSON.parse(Buffer.concat(chunks).toString()) as Told).marks, NONE)
})
