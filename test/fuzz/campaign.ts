import { randomFrom } from '../support/random.ts'
import { mutator } from './mutate.ts'
import { shrink } from './shrink.ts'
import { type Below, belowOf, type Target } from './target.ts'

export interface Finding {
  readonly input: Buffer
  /** Of the case from which it was shrunk, counted from 0. */
  readonly index: number
  readonly message: string
}

export interface Campaign {
  readonly cases: number
  /** How often each kind of answer came. */
  readonly kinds: ReadonlyMap<string, number>
  readonly findings: readonly Finding[]
}

export interface CampaignOptions {
  readonly seed: number
  /** Stops at the first of both. */
  readonly cases: number
  readonly ms: number
  /** A campaign with so many findings has told enough. */
  readonly mostFindings?: number
}

/** Processor time, in milliseconds, that no case may take: what is bounded by a multiple of its length never comes near. */
const MOST_CPU_MS = 2_000
/** The clock is looked at this often, in cases. */
const LOOK_EVERY = 64

/** What went wrong with one input; null when nothing did. */
export async function failureOf(target: Target, input: Buffer): Promise<string | null> {
  try {
    await target.check(Buffer.from(input), belowOf(input))
    return null
  } catch (error) {
    return messageOf(error)
  }
}

const messageOf = (error: unknown): string =>
  error instanceof Error ? `${error.name}: ${error.message}` : `thrown: ${String(error)}`

/** What tells one finding from another: its words without the numbers and texts of the case. */
const classOf = (message: string): string => message.replace(/"[^"]*"|\d+/g, '#').slice(0, 80)

export async function campaign(target: Target, options: CampaignOptions): Promise<Campaign> {
  const below = randomFrom(options.seed)
  const make = mutator(target.corpus(), target.tokens ?? [], target.maxBytes)
  const kinds = new Map<string, number>()
  const findings: Finding[] = []
  const known = new Set<string>()
  const deadline = performance.now() + options.ms
  let index = 0
  for (; index < options.cases; index++) {
    if (index % LOOK_EVERY === 0 && performance.now() > deadline) break
    const input = make(below)
    const message = await oneCase(target, input, kinds)
    if (message === null || known.has(classOf(message))) continue
    known.add(classOf(message))
    const same = async (candidate: Buffer) => {
      const again = await failureOf(target, candidate)
      return again !== null && classOf(again) === classOf(message)
    }
    findings.push({ input: await shrink(input, same), index, message })
    if (findings.length >= (options.mostFindings ?? 10)) break
  }
  return { cases: index, kinds, findings }
}

/** Synchronous answers are not awaited: most targets take less time than a turn of the queue. */
async function oneCase(target: Target, input: Buffer, kinds: Map<string, number>): Promise<string | null> {
  const below: Below = belowOf(input)
  const started = performance.now()
  try {
    const answer = target.check(input, below)
    const kind = typeof answer === 'string' ? answer : await answer
    kinds.set(kind, (kinds.get(kind) ?? 0) + 1)
  } catch (error) {
    return messageOf(error)
  }
  return performance.now() - started > MOST_CPU_MS ? slow(target, input) : null
}

/** Looks again, at the processor's time alone: the machine may have been busy with something else. */
async function slow(target: Target, input: Buffer): Promise<string | null> {
  const before = process.cpuUsage()
  await failureOf(target, input)
  const { user, system } = process.cpuUsage(before)
  const ms = (user + system) / 1_000
  return ms > MOST_CPU_MS ? `takes ${Math.round(ms)} ms of processor time` : null
}
