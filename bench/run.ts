import { readdirSync } from 'node:fs'
import { join } from 'node:path'

// bun bench/run.ts [question…] [--smoke]

interface Bench {
  readonly question: string
  run(options: { readonly smoke: boolean }): Promise<void>
}

const SUFFIX = '.bench.ts'
const questions = readdirSync(import.meta.dirname)
  .filter((name) => name.endsWith(SUFFIX))
  .map((name) => name.slice(0, -SUFFIX.length))
  .sort()

const args = process.argv.slice(2)
const smoke = args.includes('--smoke')
const wanted = args.filter((arg) => arg !== '--smoke')
const unknown = wanted.filter((name) => !questions.includes(name))

if (process.platform !== 'linux') {
  process.stderr.write('CPU time is read from /proc, which only Linux has\n')
  process.exitCode = 2
} else if (unknown.length > 0) {
  process.stderr.write(`no such question: ${unknown.join(', ')}; there are: ${questions.join(', ')}\n`)
  process.exitCode = 2
} else {
  for (const name of wanted.length > 0 ? wanted : questions) {
    const bench: Bench = await import(join(import.meta.dirname, `${name}${SUFFIX}`))
    try {
      await bench.run({ smoke })
    } catch (error) {
      process.stderr.write(`${name}: ${error instanceof Error ? error.message : String(error)}\n`)
      process.exitCode = 1
    }
  }
}
