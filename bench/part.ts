import { join } from 'node:path'

// bun bench/part.ts <part> [--smoke]
// A part of the proxy alone, measured in a process of its own: its lines and its table are its own.

interface Part {
  run(options: { readonly smoke: boolean }): Promise<void>
}

const [name, ...rest] = process.argv.slice(2)
try {
  const part: Part = await import(join(import.meta.dirname, 'parts', `${name}.bench.ts`))
  await part.run({ smoke: rest.includes('--smoke') })
} catch (error) {
  process.stderr.write(`${name}: ${error instanceof Error ? error.message : String(error)}\n`)
  process.exitCode = 1
}
