import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { eventually } from '../support/e2e.ts'
import type { Teardowns } from '../support/proxy.ts'

/** What its process is told to do. */
export interface GoodOrders {
  readonly port: number
  readonly servername: string
  readonly ca: string
  readonly cert: string
  readonly key: string
  readonly clientId: string
  readonly topic: string
  readonly everyMs: number
  /** Whether it may lose its connection and comes back: the fault of the row is its broker's. */
  readonly returns: boolean
}

/** What its process tells. */
export type GoodFact =
  | { readonly kind: 'up' }
  | { readonly kind: 'echo'; readonly ms: number }
  | { readonly kind: 'lost' | 'fault'; readonly detail: string }
  | { readonly kind: 'back'; readonly ms: number }
  | { readonly kind: 'done'; readonly connected: boolean }

/** Latency from publish to the message's coming back, in milliseconds. */
export interface Latency {
  readonly count: number
  readonly worst: number
  readonly p99: number
}

/** One device beside the fault: connects, publishes QoS 1 and receives it, throughout. */
export interface GoodClient {
  /** All that went wrong for it so far; a row with any of these fails. */
  readonly faults: readonly string[]
  /** How long it was away, each time; only where it may lose its connection. In milliseconds. */
  readonly outages: readonly number[]
  latency(): Latency
  /** Latency from now until the answer is asked for, to compare with a quiet time. */
  span(): () => Latency
  /** Resolves when one more message has come back that was sent before or after now; rejects after `ms`. */
  echo(ms?: number): Promise<void>
  /** Ends it in good order. */
  finish(): Promise<void>
}

const PROGRAM = new URL('./good-client.ts', import.meta.url).pathname

const latencyOf = (samples: readonly number[]): Latency => {
  const sorted = samples.toSorted((a, b) => a - b)
  return { count: sorted.length, worst: sorted.at(-1) ?? 0, p99: sorted[Math.floor(sorted.length * 0.99)] ?? 0 }
}

/** Resolves when it is connected and the first message has come back. */
export async function startGoodClient(t: Teardowns, orders: GoodOrders): Promise<GoodClient> {
  const child = spawn(process.execPath, [PROGRAM], { stdio: ['pipe', 'pipe', 'inherit'] })
  const exited = once(child, 'exit')
  t.teardown(async () => {
    child.kill('SIGKILL')
    await exited
  })
  const samples: number[] = []
  const outages: number[] = []
  const faults: string[] = []
  let done = false
  const take = (fact: GoodFact): void => {
    if (fact.kind === 'echo') samples.push(fact.ms)
    else if (fact.kind === 'back') outages.push(fact.ms)
    else if (fact.kind === 'fault') faults.push(fact.detail)
    else if (fact.kind === 'lost' && !orders.returns) faults.push(fact.detail)
    else if (fact.kind === 'done') {
      done = true
      if (!fact.connected) faults.push('not connected at the end')
    }
  }
  createInterface({ input: child.stdout }).on('line', (line) => take(JSON.parse(line) as GoodFact))
  child.once('exit', (code) => {
    if (!done) faults.push(`its process ended with ${code}`)
  })
  child.stdin.on('error', () => {})
  child.stdin.write(`${JSON.stringify(orders)}\n`)
  const echo = async (ms = 20_000): Promise<void> => {
    const before = samples.length
    await eventually(
      () => {
        if (faults.length > 0) throw new Error(`good client: ${faults.join('; ')}`)
        return samples.length > before
      },
      'a message of the good client',
      ms,
    )
  }
  await echo()
  return {
    faults,
    outages,
    echo,
    latency: () => latencyOf(samples),
    span() {
      const from = samples.length
      return () => latencyOf(samples.slice(from))
    },
    async finish() {
      child.stdin.end()
      await eventually(() => done || child.exitCode !== null || child.signalCode !== null, 'the good client ends')
    },
  }
}
