/**
 * The chaos suite, or some of its rows, on this runtime:
 *
 *   npm run chaos -- [row…] [--results]
 *
 * Each row adds a line to `.chaos/rows.jsonl`; with `--results` RESULTS.md is written from the last line of every row.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { readReports, resultsPage } from './results.ts'

const HERE = new URL('.', import.meta.url).pathname
const ROOT = join(HERE, '../..')
const OUT = process.env.CHAOS_OUT ?? join(ROOT, '.chaos/rows.jsonl')

const words = process.argv.slice(2)
const numbers = words.filter((word) => /^\d+$/.test(word)).map(Number)
const unknown = words.filter((word) => word !== '--results' && !/^\d+$/.test(word))
if (unknown.length > 0) {
  console.error(`usage: npm run chaos -- [row…] [--results]; not understood: ${unknown.join(' ')}`)
  process.exit(2)
}

/** `row07-08-http.test.ts` holds rows 7 and 8. */
const rowsOf = (file: string): readonly number[] =>
  (/^row((?:\d\d-)+)/.exec(file)?.[1] ?? '').split('-').filter(Boolean).map(Number)
const files = readdirSync(HERE)
  .filter((file) => file.endsWith('.test.ts'))
  .filter((file) => numbers.length === 0 || rowsOf(file).some((number) => numbers.includes(number)))
  .sort()
  .map((file) => `test/chaos/${file}`)

mkdirSync(join(OUT, '..'), { recursive: true })
const preload = process.versions.bun === undefined ? [] : ['--preload', './test/support/ava-on-bun.ts']
const match = numbers.flatMap((number) => ['--match', `row ${number}:*`, '--match', `row ${number} (*`])
const suite = spawn(
  process.execPath,
  [...preload, 'node_modules/ava/entrypoints/cli.js', ...files, '--concurrency', '1', '--timeout', '300s', ...match],
  { cwd: ROOT, stdio: 'inherit', env: { ...process.env, CHAOS_OUT: OUT } },
)
const [code] = files.length === 0 ? [1] : await once(suite, 'exit')
if (words.includes('--results')) {
  writeFileSync(join(HERE, 'RESULTS.md'), resultsPage(readReports(OUT)))
  console.log('test/chaos/RESULTS.md is written')
}
process.exitCode = Number(code ?? 1)
