import { fork, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { settledEngine } from '../../src/cli/engine.ts'

const NAME = 'BUN_JSC_thresholdForFTLOptimizeAfterWarmUp'
const MODULE = new URL('../../src/cli/engine.ts', import.meta.url).pathname

test('only what serves is started again, and only where nobody has said how', (t) => {
  const settled = { HOME: '/root', [NAME]: '4000000' }
  for (const args of [[], ['run'], ['run', '-c', 'a.yaml'], ['-c', 'a.yaml']]) {
    t.deepEqual(settledEngine(args, { HOME: '/root' }, true), settled, args.join(' '))
  }
  for (const args of [['check', '-c', 'a.yaml'], ['version'], ['policy', 'simulate']]) {
    t.is(settledEngine(args, {}, true), null, args.join(' '))
  }
  t.is(settledEngine(['run'], { [NAME]: '64000' }, true), null)
  t.is(settledEngine(['run'], {}, false), null)
})

const SCRIPT = `
const first = process.env.TEST_FIRST_PID
if (first === undefined) process.env.TEST_FIRST_PID = String(process.pid)
const { settleEngine } = await import(${JSON.stringify(MODULE)})
if (process.env.TEST_NO_EXECVE) process.execve = () => { throw new Error('not permitted') }
settleEngine()
console.log(JSON.stringify({ pid: process.pid, first: Number(process.env.TEST_FIRST_PID), mark: process.env.${NAME} ?? null, args: process.argv.slice(2) }))
`

interface Told {
  readonly pid: number
  readonly first: number
  readonly mark: string | null
  readonly args: readonly string[]
}

function scriptAndEnv(more: NodeJS.ProcessEnv) {
  const folder = mkdtempSync(join(tmpdir(), 'engine-'))
  const script = join(folder, 'script.mjs')
  writeFileSync(script, SCRIPT)
  const env = { ...process.env, ...more }
  delete env[NAME]
  return { folder, script, env }
}

function ran(args: readonly string[], more: NodeJS.ProcessEnv = {}) {
  const { folder, script, env } = scriptAndEnv(more)
  const { stdout, status } = spawnSync(process.execPath, [script, ...args], { env, encoding: 'utf8' })
  rmSync(folder, { recursive: true })
  return { ...(JSON.parse(stdout) as Told), status }
}

test('it is the same process with the same arguments', (t) => {
  const { pid, first, mark, args, status } = ran(['run', '-c', 'with space.yaml'])
  t.is(status, 0)
  t.is(pid, first)
  t.deepEqual(args, ['run', '-c', 'with space.yaml'])
  t.is(mark, process.versions.bun === undefined ? null : '4000000')
})

test('where no program may be started it goes on as it is', (t) => {
  const { mark, args, status } = ran(['run'], { TEST_NO_EXECVE: '1' })
  t.is(status, 0)
  t.deepEqual(args, ['run'])
  t.is(mark, null)
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
  t.is((JSON.parse(Buffer.concat(chunks).toString()) as Told).mark, null)
})
