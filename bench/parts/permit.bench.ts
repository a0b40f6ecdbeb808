import { availableParallelism, cpus, release } from 'node:os'
import { parsePolicyDocument } from '../../src/policy/document.ts'
import { grantsOf } from '../../src/policy/grants.ts'
import { type ArnHead, OPEN_PERMIT, type Permit, type Variables } from '../../src/policy/permit.ts'

/**
 * What does a decision cost? Nanoseconds per `Permit.allows`, by the number of statements and by how the resource matches.
 * `fresh` is a topic decoded from bytes for each call, as packets bring it, less the decoding; `known` is a string whose
 * hash the engine has already.
 */
export const question = 'permit'

const HEAD: ArnHead = { partition: 'aws', region: 'us-east-1', accountId: '123456789012' }
const ARN = 'arn:aws:iot:us-east-1:123456789012:topic/'
const CLIENT: Variables = { lookup: (name) => (name === 'iot:ClientId' ? ['sensor-0042'] : null) }
const TOPICS = 256

interface Size {
  readonly rounds: number
  readonly perRound: number
}

const FULL: Size = { rounds: 7, perRound: 100_000 }
const SMOKE: Size = { rounds: 2, perRound: 10_000 }

type Kind = 'exact' | 'prefix' | 'glob' | 'variable'

/** The resource of statement `n`; only the last one, or none, is what the topics ask for. */
const RESOURCES: Readonly<Record<Kind, (n: number) => string>> = {
  exact: (n) => `${ARN}plant/${n}/state`,
  prefix: (n) => `${ARN}plant/${n}/*`,
  glob: (n) => `${ARN}plant/${n}/*/state`,
  variable: (n) => `${ARN}plant/${n}/\${iot:ClientId}/*`,
}

const TAILS: Readonly<Record<Kind, (n: number, t: number) => string>> = {
  exact: (n) => `plant/${n}/state`,
  prefix: (n, t) => `plant/${n}/line/${t}`,
  glob: (n, t) => `plant/${n}/${t}/state`,
  variable: (n, t) => `plant/${n}/sensor-0042/${t}`,
}

function permitOf(kind: Kind, count: number): Permit {
  const Statement = Array.from({ length: count }, (_, n) => ({
    Effect: 'Allow',
    Action: ['iot:Publish', 'iot:Receive'],
    Resource: RESOURCES[kind](n),
  }))
  const parse = parsePolicyDocument({ Version: '2012-10-17', Statement })
  if (parse.kind === 'invalid') throw new Error(parse.issues[0]!.message)
  return grantsOf([parse.document]).permit(HEAD, CLIENT)
}

/** Prints a JSON line per measurement on standard output and a table on standard error. @throws when there is no answer */
export async function run({ smoke }: { readonly smoke: boolean }): Promise<void> {
  const size = smoke ? SMOKE : FULL
  print({
    question,
    smoke,
    cores: availableParallelism(),
    cpu: cpus()[0]?.model,
    kernel: release(),
    runtime: runtime(),
    ...size,
  })
  measure('open', 0, 'hit', OPEN_PERMIT, topics('prefix', 0), true, size)
  for (const kind of ['exact', 'prefix', 'glob', 'variable'] as const) {
    for (const count of [1, 20, 200]) {
      const permit = permitOf(kind, count)
      measure(kind, count, 'hit', permit, topics(kind, count - 1), true, size)
      measure(kind, count, 'miss', permit, topics(kind, count), false, size)
    }
  }
}

function topics(kind: Kind, n: number): readonly Buffer[] {
  return Array.from({ length: TOPICS }, (_, t) => Buffer.from(`topic/${TAILS[kind](n, t)}`))
}

function measure(
  kind: string,
  statements: number,
  answer: 'hit' | 'miss',
  permit: Permit,
  bytes: readonly Buffer[],
  expected: boolean,
  size: Size,
): void {
  const known = bytes.map((topic) => topic.toString('latin1'))
  if (known.some((topic) => permit.allows('iot:Publish', topic) !== expected))
    throw new Error(`${kind} decides wrongly`)
  const decode = best(size, (n) => bytes[n % TOPICS]!.toString('latin1').length > 0)
  const fresh = best(size, (n) => permit.allows('iot:Publish', bytes[n % TOPICS]!.toString('latin1')) === expected)
  const same = best(size, (n) => permit.allows('iot:Publish', known[n % TOPICS]!) === expected)
  const line = { kind, statements, answer, freshNs: round(Math.max(0, fresh - decode)), knownNs: round(same) }
  print({ question, ...line })
  process.stderr.write(
    `${kind.padEnd(8)} ${String(statements).padStart(3)} ${answer.padEnd(4)} fresh ${String(line.freshNs).padStart(6)} ns  known ${String(line.knownNs).padStart(6)} ns\n`,
  )
}

/** Of the rounds the shortest: whatever else the machine does only ever adds. */
function best({ rounds, perRound }: Size, once: (n: number) => boolean): number {
  let least = Number.POSITIVE_INFINITY
  for (let round = 0; round < rounds; round++) {
    let right = 0
    const started = performance.now()
    for (let n = 0; n < perRound; n++) if (once(n)) right += 1
    const ms = performance.now() - started
    if (right !== perRound) throw new Error('a decision changed')
    least = Math.min(least, (ms * 1e6) / perRound)
  }
  return least
}

function round(ns: number): number {
  return Math.round(ns * 10) / 10
}

function runtime(): string {
  return process.versions.bun === undefined ? `node ${process.versions.node}` : `bun ${process.versions.bun}`
}

function print(line: Readonly<Record<string, unknown>>): void {
  process.stdout.write(`${JSON.stringify(line)}\n`)
}
