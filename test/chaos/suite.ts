import { spawn } from 'node:child_process'
import { once } from 'node:events'

export interface SuiteOutcome {
  readonly passed: number
  /** All that was printed. */
  readonly output: string
}

const ROOT = new URL('../../', import.meta.url).pathname

/** Test files that stand elsewhere, on this runtime; rejects unless all of them pass, with what they printed. */
export async function suite(
  files: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<SuiteOutcome> {
  const preload = process.versions.bun === undefined ? [] : ['--preload', './test/support/ava-on-bun.ts']
  const args = [...preload, 'node_modules/ava/entrypoints/cli.js', ...files, '--concurrency', '1', '--timeout', '180s']
  const child = spawn(process.execPath, args, {
    cwd: ROOT,
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk: Buffer) => {
      output += chunk.toString()
    })
  }
  const [code] = await once(child, 'close')
  const passed = Number(/(\d+) tests? passed/.exec(output)?.[1] ?? 0)
  if (code !== 0 || passed === 0) throw new Error(`${files.join(' ')} ended with ${code}:\n${output.slice(-4_000)}`)
  return { passed, output }
}
