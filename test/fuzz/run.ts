/**
 * The fuzzers for as long as one likes:
 *
 *   npm run fuzz -- [target…] [--minutes N] [--seed S]
 *
 * The targets take turns of ten seconds, each turn with the next seed, until the time is over. What is found is shrunk
 * and written to test/fuzz/fixtures, where `npm test` tries it ever after. Ends with 1 when something was found.
 */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { campaign } from './campaign.ts'
import { fixtureName, type Target } from './target.ts'
import { TARGETS } from './targets.ts'

const TURN_MS = 10_000
const FIXTURES = new URL('./fixtures/', import.meta.url).pathname

const { values, positionals } = parseArgs({
  options: { minutes: { type: 'string', default: '1' }, seed: { type: 'string' } },
  allowPositionals: true,
})
const unknown = positionals.filter((name) => !TARGETS.some((target) => target.name === name))
const minutes = Number(values.minutes)
if (unknown.length > 0 || !(minutes > 0)) {
  console.error(
    `usage: npm run fuzz -- [target…] [--minutes N] [--seed S]; targets: ${TARGETS.map(({ name }) => name).join(' ')}`,
  )
  process.exit(2)
}
const chosen = TARGETS.filter(({ name }) => positionals.length === 0 || positionals.includes(name))
let seed = Number(values.seed ?? Math.floor(Math.random() * 0x7fffffff))
console.log(`seed ${seed}, ${minutes} min, ${chosen.map(({ name }) => name).join(' ')}`)

interface Tally {
  cases: number
  ms: number
  readonly kinds: Map<string, number>
  findings: number
}
const tallies = new Map<Target, Tally>(
  chosen.map((target) => [target, { cases: 0, ms: 0, kinds: new Map(), findings: 0 }]),
)

const deadline = performance.now() + minutes * 60_000
const turnMs = Math.min(TURN_MS, (minutes * 60_000) / chosen.length)
for (let turn = 0; performance.now() < deadline; turn++) {
  const target = chosen[turn % chosen.length]!
  const tally = tallies.get(target)!
  // Told first: a parser that hangs is had again from this line.
  console.log(`${target.name} from seed ${seed}`)
  const from = performance.now()
  const { cases, kinds, findings } = await campaign(target, {
    seed: seed++,
    cases: Number.POSITIVE_INFINITY,
    ms: Math.min(turnMs, deadline - from),
  })
  tally.cases += cases
  tally.ms += performance.now() - from
  for (const [kind, count] of kinds) tally.kinds.set(kind, (tally.kinds.get(kind) ?? 0) + count)
  for (const { input, message, index } of findings) {
    tally.findings++
    mkdirSync(FIXTURES, { recursive: true })
    const file = join(FIXTURES, fixtureName(target.name, input))
    writeFileSync(file, input)
    console.log(
      `FOUND ${target.name}, seed ${seed - 1}, case ${index}: ${message}\n  ${file}\n  ${input.toString('hex').slice(0, 400)}`,
    )
  }
}

let found = 0
for (const [{ name, kinds: due }, { cases, ms, kinds, findings }] of tallies) {
  found += findings
  const shares = [...kinds]
    .sort(([, a], [, b]) => b - a)
    .map(([kind, count]) => `${kind} ${((100 * count) / cases).toFixed(1)} %`)
  const missing = due.filter((kind) => !kinds.has(kind))
  console.log(
    `${name}: ${cases} cases, ${Math.round(cases / (ms / 1_000))} a second, ${findings} findings; ${shares.join(', ')}${missing.length === 0 ? '' : `; never met: ${missing.join(', ')}`}`,
  )
}
process.exitCode = found === 0 ? 0 : 1
