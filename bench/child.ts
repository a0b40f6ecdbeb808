import { writeSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import type { Bench, Context, Line, Options } from './harness/bench.ts'
import { coresFor, pinSelf } from './harness/proc.ts'
import { peerKind } from './peers/find.ts'
import { readMaterials } from './peers/materials.ts'

// bun bench/child.ts <question> <folder of the materials> <options as JSON>
// One question in a process of its own, which is also the load and the broker: lines of JSON on standard output.

const [question = '', folder = '', options = '{}'] = process.argv.slice(2)

// Who started us is gone: whatever we started goes too (proc.ts).
process.on('disconnect', () => process.exit(1))

const say = (line: Line): void => {
  const text = Buffer.from(`${JSON.stringify(line)}\n`)
  for (let at = 0; at < text.length; ) at += writeSync(1, text, at)
}

/** Six digits say more than any of these measurements knows. */
const rounded = (values: Readonly<Record<string, number>>) =>
  Object.fromEntries(Object.entries(values).map(([name, value]) => [name, Number(value.toPrecision(6))]))

try {
  const asked: Options = JSON.parse(options)
  const { bench }: { readonly bench: Bench } = await import(join(import.meta.dirname, `${question}.bench.ts`))
  const cores = coresFor(1, availableParallelism())
  pinSelf(cores.load)
  const context: Context = {
    ...asked,
    kinds: asked.peers.map((name) => peerKind(name)!),
    materials: readMaterials(folder),
    cores,
    measured: (what) => say({ type: 'measurement', question, ...what, values: rounded(what.values) }),
    gap: (what) => say({ type: 'gap', question, ...what }),
    progress: (text) => say({ type: 'progress', text }),
  }
  await bench.run(context)
  process.exitCode = 0
} catch (error) {
  const reason = error instanceof Error ? (error.stack ?? error.message) : String(error)
  say({ type: 'failure', question, reason: reason.split('\n').slice(0, 12).join('\n') })
  process.exitCode = 1
}
process.exit()
