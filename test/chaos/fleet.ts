import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { ca, device, eventually } from '../support/e2e.ts'
import type { Teardowns } from '../support/proxy.ts'
import type { Way } from './fleet-device.ts'
import { PLANTED_PASSWORD, PLANTED_PAYLOAD } from './row-secrets.ts'

interface Pair {
  readonly chainPem: string
  readonly keyPem: string
}

/** What all devices of a fleet have in common. */
export interface FleetOptions extends Omit<Way, 'context' | 'clientId' | 'localAddress'> {
  readonly ca: string
  /** The n-th device has the n-th of these, round and round; null is a device without one. */
  readonly certificates: readonly (Pair | null)[]
  /** Client ids are this and a number… */
  readonly prefix: string
  /** …or these, one for each device. */
  readonly clientIds: readonly string[] | null
  /** At each CONNACK; `${id}` is the client id. */
  readonly subscribe: { readonly filter: string; readonly qos: 0 | 1 } | null
  /** What payloads are filled up with. */
  readonly pad: string
  /** PINGREQ so often; 0 is never. In milliseconds. */
  readonly pingEveryMs: number
  /** Null: one attempt each. Else whoever is not in, or no longer, waits a while between these and tries again. */
  readonly retry: { readonly leastMs: number; readonly mostMs: number } | null
  /** Spread over so many addresses of 127.0.0.0/8, since each has 28,000 ports for one destination; 0 is none. */
  readonly localAddresses: number
}

export interface Publishing {
  readonly everyMs: number
  /** `${id}` is the client id. */
  readonly topic: string
  readonly bytes: number
}

export type Order =
  | { readonly do: 'begin'; readonly options: FleetOptions }
  | { readonly do: 'grow'; readonly count: number; readonly perSecond: number | null }
  | { readonly do: 'publish'; readonly publishing: Publishing }
  | { readonly do: 'quiet'; readonly ms: number }
  | { readonly do: 'pause'; readonly count: number }
  | { readonly do: 'resume' }
  | { readonly do: 'reset'; readonly count: number }
  | { readonly do: 'go'; readonly how: 'leave' | 'reset' | 'destroy'; readonly count: number | null }
  | { readonly do: 'report' }
  | { readonly do: 'accounts' }

export interface Percentiles {
  readonly count: number
  readonly p50: number
  readonly p99: number
  readonly worst: number
}

export interface FleetReport {
  readonly devices: number
  /** Connected now. */
  readonly in: number
  readonly attempts: number
  readonly outcomes: Readonly<Record<string, number>>
  /** How connections that were in ended. */
  readonly endings: Readonly<Record<string, number>>
  readonly sent: number
  readonly acked: number
  readonly received: number
  readonly receivedBytes: number
  readonly pings: number
  readonly pongs: number
  /** Since the last report. */
  readonly connectMs: Percentiles
  readonly ackMs: Percentiles
  readonly pingMs: Percentiles
}

/** What one device published: numbers below `sent`, all acknowledged but these. */
export interface Account {
  readonly clientId: string
  readonly sent: number
  readonly unacknowledged: readonly string[]
}

export interface Fleet {
  readonly pid: number
  /** Adds devices, all at once or at a rate; resolves when each has had its first outcome, or is in where the fleet retries. */
  grow(count: number, perSecond?: number): Promise<FleetReport>
  /** Each device publishes at QoS 1, one in flight, from now on. */
  publish(publishing: Publishing): Promise<void>
  /** No more publishes; whether all in flight were answered within `ms`. */
  quiet(ms?: number): Promise<boolean>
  /** The first so many stop reading. */
  pause(count: number): Promise<void>
  resume(): Promise<void>
  /** RST on so many; they come back where the fleet retries. How many there were. */
  reset(count: number): Promise<number>
  /** The first so many, or all, go for good. How many there were. */
  go(how: 'leave' | 'reset' | 'destroy', count?: number): Promise<number>
  report(): Promise<FleetReport>
  accounts(): Promise<readonly Account[]>
  /** Asks for reports until `look` is content with one. */
  until(look: (report: FleetReport) => boolean, what: string, ms?: number): Promise<FleetReport>
  /** SIGKILL, SIGSTOP and the like to its process. */
  signal(signal: NodeJS.Signals): void
}

const PROGRAM = new URL('./fleet-process.ts', import.meta.url).pathname

/** @param prefix of the command line, such as `ip netns exec NAME` */
export async function startFleet(
  t: Teardowns,
  options: Partial<FleetOptions> & Pick<FleetOptions, 'port' | 'prefix'>,
  prefix: readonly string[] = [],
): Promise<Fleet> {
  const [command = '', ...args] = [...prefix, process.execPath, PROGRAM]
  const child = spawn(command, args, { stdio: ['pipe', 'pipe', 'inherit'] })
  const exited = once(child, 'exit')
  let gone: string | null = null
  const waiting = new Map<number, { resolve(value: unknown): void; reject(error: Error): void }>()
  child.once('exit', (code, signal) => {
    gone = `the fleet's process ended with ${signal ?? code}`
    for (const { reject } of waiting.values()) reject(new Error(gone))
  })
  t.teardown(async () => {
    child.kill('SIGKILL')
    await exited
  })
  child.stdin.on('error', () => {})
  createInterface({ input: child.stdout }).on('line', (line) => {
    const answer = JSON.parse(line) as { readonly id: number; readonly value?: unknown; readonly error?: string }
    const asked = waiting.get(answer.id)
    waiting.delete(answer.id)
    if (answer.error === undefined) asked?.resolve(answer.value)
    else asked?.reject(new Error(`fleet: ${answer.error}`))
  })
  let asked = 0
  // What comes back is what `obey` of the process gives for the order; its types are those of `Fleet`.
  const ask = <T>(order: Order): Promise<T> =>
    new Promise((resolve, reject) => {
      if (gone !== null) return reject(new Error(gone))
      const id = ++asked
      waiting.set(id, { resolve: resolve as (value: unknown) => void, reject })
      child.stdin.write(`${JSON.stringify({ id, order })}\n`)
    })
  await ask({
    do: 'begin',
    options: {
      host: '127.0.0.1',
      serverName: 'localhost',
      alpn: null,
      version: 5,
      keepAliveSeconds: 60,
      username: 'device',
      password: PLANTED_PASSWORD,
      clean: true,
      webSocket: null,
      withinMs: 30_000,
      ca: ca.certPem,
      certificates: [{ chainPem: device.chainPem, keyPem: device.keyPem }],
      clientIds: null,
      subscribe: null,
      pad: PLANTED_PAYLOAD,
      pingEveryMs: 0,
      retry: null,
      localAddresses: 8,
      ...options,
    },
  })
  const report = () => ask<FleetReport>({ do: 'report' })
  return {
    pid: child.pid ?? 0,
    grow: (count, perSecond) => ask({ do: 'grow', count, perSecond: perSecond ?? null }),
    publish: (publishing) => ask({ do: 'publish', publishing }),
    quiet: (ms = 20_000) => ask({ do: 'quiet', ms }),
    pause: (count) => ask({ do: 'pause', count }),
    resume: () => ask({ do: 'resume' }),
    reset: (count) => ask({ do: 'reset', count }),
    go: (how, count) => ask({ do: 'go', how, count: count ?? null }),
    report,
    accounts: () => ask({ do: 'accounts' }),
    async until(look, what, ms = 40_000) {
      let last: FleetReport | null = null
      return eventually(
        async () => {
          last = await report()
          return look(last) ? last : null
        },
        what,
        ms,
      ).catch((error: Error) => {
        throw new Error(`${error.message}: ${JSON.stringify(last)}`)
      })
    },
    signal: (signal) => void child.kill(signal),
  }
}
