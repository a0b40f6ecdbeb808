import { spawn, spawnSync } from 'node:child_process'
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { capacityText } from './capacity.ts'
import { type Arguments, parseArguments, USAGE } from './harness/arguments.ts'
import type { Bench, Gap, Line, Measurement } from './harness/bench.ts'
import { machine } from './harness/machine.ts'
import { temporaryFolder } from './harness/proc.ts'
import { createProgress } from './harness/progress.ts'
import { type Answer, casesOf } from './harness/summary.ts'
import { peerKind } from './peers/find.ts'
import { writeMaterials } from './peers/materials.ts'
import { reportPage } from './report.ts'
import { answerText, writeResults } from './results.ts'

// npm run bench -- [question…] [options]

const SUFFIX = '.bench.ts'
/** From the least that one must know to what needs most patience. */
const ORDER = [
  'start',
  'handshake',
  'resumption',
  'refusal',
  'publish',
  'policy',
  'fan-out',
  'wss',
  'https',
  'authorizer',
]

const namesIn = (folder: string): readonly string[] =>
  readdirSync(folder)
    .filter((name) => name.endsWith(SUFFIX))
    .map((name) => name.slice(0, -SUFFIX.length))

const parts = [...namesIn(join(import.meta.dirname, 'parts'))].sort()
const questions = [...namesIn(import.meta.dirname)].sort((a, b) => place(a) - place(b) || a.localeCompare(b))

function place(name: string): number {
  const at = ORDER.indexOf(name)
  return at < 0 ? ORDER.length : at
}

/** Resolves with the exit code: 0 when every question had its answer, whatever that was. */
async function measure(options: Arguments): Promise<number> {
  const from = performance.now()
  const missing = options.peers.filter((name) => peerKind(name)!.version() === null)
  for (const name of missing)
    process.stderr.write(`${name} is not here and not compared: ${peerKind(name)!.comesWith}\n`)
  const peers = options.peers.filter((name) => !missing.includes(name))
  if (!peers.includes('brokergate')) {
    process.stderr.write('brokergate does not start here\n')
    return 1
  }
  const about = machine(peers, options)
  print({ type: 'run', ...about })
  const folder = temporaryFolder('brokergate-bench-')
  writeMaterials(folder, options.smoke ? 16 : 128)
  const answers: Answer[] = []
  const lines: object[] = []
  for (const [index, question] of options.questions.entries()) {
    const title = `${index + 1}/${options.questions.length} ${question}`
    const answer = await ask(question, title, folder, { ...options, peers }, missing, (line) => {
      lines.push(line)
      print(line)
    })
    answers.push(answer)
    process.stderr.write(`${answerText(answer)}\n`)
  }
  const run = { ...about, seconds: Math.round((performance.now() - from) / 1_000), answers }
  print({ type: 'end', seconds: run.seconds, failed: answers.filter(({ failure }) => failure !== null).length })
  mkdirSync(options.out, { recursive: true })
  writeFileSync(join(options.out, 'report.html'), reportPage(run))
  writeFileSync(join(options.out, 'lines.jsonl'), lines.map((line) => `${JSON.stringify(line)}\n`).join(''))
  writeFileSync(join(options.out, 'run.json'), JSON.stringify(run))
  process.stderr.write(`${run.seconds} s in all; the report is ${join(options.out, 'report.html')}\n`)
  if (options.results) writeResults(run)
  return answers.some(({ failure }) => failure !== null) ? 1 : 0
}

function print(line: object): void {
  process.stdout.write(`${JSON.stringify(line)}\n`)
}

function tryPart(part: string, smoke: boolean): boolean {
  process.stderr.write(`\n${part}\n`)
  const args = [join(import.meta.dirname, 'part.ts'), part, ...(smoke ? ['--smoke'] : [])]
  return spawnSync(process.execPath, args, { stdio: 'inherit' }).status === 0
}

/** A question that is not answered in this time is not answered. */
const WITHIN_MS = { full: 600_000, smoke: 60_000 }
/** Our own child writes nothing else. */
const lineOf = (text: string): Line => JSON.parse(text)
const END_WITHIN_MS = 8_000

/** One question, in a process of its own that is also its load. */
async function ask(
  question: string,
  title: string,
  folder: string,
  options: Arguments,
  missing: readonly string[],
  tell: (line: Measurement | Gap) => void,
): Promise<Answer> {
  const { bench }: { readonly bench: Bench } = await import(join(import.meta.dirname, `${question}${SUFFIX}`))
  const progress = createProgress(title)
  const measurements: Measurement[] = []
  const gaps: Gap[] = []
  let failure: string | null = null
  const from = performance.now()
  const take = (line: Line): void => {
    if (line.type === 'progress') progress.show(line.text)
    else if (line.type === 'failure') failure = line.reason
    else {
      if (line.type === 'measurement') measurements.push(line)
      else gaps.push(line)
      tell(line)
    }
  }
  for (const peer of missing)
    take({ type: 'gap', question, case: null, peer, reason: `is not here: ${peerKind(peer)!.comesWith}` })
  const { smoke, rounds, broker, peers } = options
  const child = spawn(
    process.execPath,
    [join(import.meta.dirname, 'child.ts'), question, folder, JSON.stringify({ smoke, rounds, broker, peers })],
    { stdio: ['ignore', 'pipe', 'inherit', 'ipc'] },
  )
  const end = () => child.kill('SIGTERM')
  process.once('exit', end)
  let kill: NodeJS.Timeout | null = null
  const withinMs = smoke ? WITHIN_MS.smoke : WITHIN_MS.full
  const timer = setTimeout(() => {
    failure = `no answer in ${withinMs / 1_000} s`
    end()
    kill = setTimeout(() => child.kill('SIGKILL'), END_WITHIN_MS)
  }, withinMs)
  const closed = new Promise<number | null>((resolve) => child.once('close', (code) => resolve(code)))
  for await (const text of createInterface({ input: child.stdout! })) take(lineOf(text))
  const code = await closed
  clearTimeout(timer)
  if (kill !== null) clearTimeout(kill)
  process.off('exit', end)
  progress.end()
  if (code !== 0) failure ??= `its process ended with ${code}`
  if (measurements.length === 0 && gaps.length === 0) failure ??= 'it said nothing'
  const { about, figures, title: words, references = ['haproxy', 'nginx'] } = bench
  const seconds = Math.round((performance.now() - from) / 1_000)
  return {
    question,
    title: words,
    about,
    figures,
    references,
    cases: casesOf(
      measurements,
      figures,
      peers.map((name) => peerKind(name)!.name),
    ),
    gaps,
    failure,
    seconds,
  }
}

const parsed = parseArguments(process.argv.slice(2), questions, parts)
if (parsed.kind === 'help') process.stdout.write(USAGE)
else if (parsed.kind === 'wrong') {
  process.stderr.write(`${parsed.reason}\n\n${USAGE}`)
  process.exitCode = 2
} else if (parsed.arguments.capacity !== null) process.exitCode = capacityText(parsed.arguments.capacity)
else if (process.platform !== 'linux') {
  process.stderr.write('CPU time is read from /proc, which only Linux has\n')
  process.exitCode = 2
} else {
  const { arguments: asked } = parsed
  const answered = asked.questions.length === 0 ? 0 : await measure(asked)
  const tried = asked.parts.map((part) => tryPart(part, asked.smoke))
  process.exitCode = tried.every((well) => well) ? answered : 1
}
