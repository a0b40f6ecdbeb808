import { appendFileSync } from 'node:fs'
import test, { type ExecutionContext } from 'ava'
import { type Door, type DoorOptions, device, ca as doorCa, eventually, openDoor } from '../support/e2e.ts'
import { type Gateway, type GatewayOptions, openGateway } from '../support/gateway.ts'
import { randomFrom } from '../support/random.ts'
import { type GoodClient, startGoodClient } from './good.ts'
import { type Scanned, scanForSecrets } from './row-secrets.ts'
import { descriptorsOf, dialledOf, forgetPeak, peakOf, residentOf, treeOf } from './tree.ts'

export interface RowFacts {
  /** The row of the target table. */
  readonly number: number
  /** Where one row is several tests: which of them. */
  readonly part?: string
  readonly title: string
  readonly required: string
  /** Its share of the time, in seconds; the deadline is far beyond. */
  readonly seconds: number
  /** `returns` where the fault is such that every device loses its connection: then it must be back at the end. */
  readonly good?: 'steady' | 'returns'
  /** Descriptors and broker connections that may stay at the end, such as pools that the row is the first to fill. */
  readonly kept?: number
}

/** What was done, how much of it, and what came of it. */
export interface Seen {
  readonly injected: string
  readonly seen: string
  /** What is known not to be reached of a figure, where nothing else went wrong: told, not a failure. */
  readonly gap?: string | null
}

/** A running program to watch over: its process, where the good client knocks, which port it dials for the broker. */
export interface Watched {
  readonly proxy: Gateway['proxy']
  readonly port: number
  readonly brokerPort?: number
}

export interface Chaos {
  readonly t: ExecutionContext
  readonly seed: number
  /** Whole numbers in [0, below), the same for the same seed. */
  random(below: number): number
  /** brokergate with every way in before a Mosquitto, an authorizer and an HTTP backend; watched, good client beside. */
  start(options?: GatewayOptions): Promise<Gateway>
  /** brokergate with one listener and the backend given; watched, good client beside. */
  door(options: DoorOptions & { readonly brokerPort?: number }): Promise<Door>
  /** The same for a program that the row has started in its own way. */
  watch(watched: Watched): Promise<void>
  /** The good client of what was started. */
  readonly good: GoodClient
  /** Undone at the end, last first. */
  defer(cleanup: () => unknown): void
  /** A line of the report beside the outcome. */
  note(text: string): void
}

/** A line of `$CHAOS_OUT`. */
export interface RowReport {
  readonly number: number
  readonly part: string | null
  readonly title: string
  readonly required: string
  readonly injected: string | null
  readonly seen: string | null
  readonly gap: string | null
  /** Why it was not reached; null when it was. */
  readonly failure: string | null
  readonly good: {
    readonly worstMs: number
    readonly p99Ms: number
    readonly messages: number
    readonly outagesMs: readonly number[]
  } | null
  /** Resident memory of the program's processes, in bytes; of the test's own where no program was started. */
  readonly rss: { readonly start: number; readonly peak: number; readonly end: number }
  /** What came of the search for secrets in log and metrics; null where no program was started. */
  readonly scanned?: Scanned | null
  readonly seed: number
  readonly seconds: number
  readonly notes: readonly string[]
  readonly runtime: string
  readonly at: string
}

const SAMPLE_MS = 100
/** Sockets linger for two seconds after an end, and a broker takes its time with a connection. In milliseconds. */
const SETTLE_MS = 40_000

const MEGABYTE = 1_048_576
const seedOf = (): number => Number(process.env.CHAOS_SEED ?? Math.floor(Math.random() * 0x7fffffff))

/** One row of the target table as one test: the fault in `body`, a good client and a watch over the program around it. */
export function row(facts: RowFacts, body: (chaos: Chaos) => Promise<Seen>): void {
  const name = `row ${facts.number}${facts.part === undefined ? '' : ` (${facts.part})`}: ${facts.title}`
  test.serial(name, async (t) => {
    t.timeout(facts.seconds * 5_000 + 120_000)
    const seed = seedOf()
    const started = performance.now()
    const watch = new Watch(facts)
    const notes: string[] = []
    let seen: Seen | null = null
    let failure: string | null = null
    try {
      seen = await body(chaosOf(t, seed, watch, notes))
      await watch.settled()
      t.pass()
    } catch (error) {
      failure = error instanceof Error ? error.message : String(error)
      throw error
    } finally {
      watch.stop()
      report(t, {
        number: facts.number,
        part: facts.part ?? null,
        title: facts.title,
        required: facts.required,
        injected: seen?.injected ?? null,
        seen: seen?.seen ?? null,
        gap: seen?.gap ?? null,
        failure,
        good: watch.goodFigures(),
        rss: watch.memory(),
        scanned: watch.scanned,
        seed,
        seconds: (performance.now() - started) / 1_000,
        notes,
        runtime: process.versions.bun === undefined ? `Node ${process.versions.node}` : `Bun ${process.versions.bun}`,
        at: new Date().toISOString(),
      })
    }
  })
}

function chaosOf(t: ExecutionContext, seed: number, watch: Watch, notes: string[]): Chaos {
  const random = randomFrom(seed)
  const begin = (watched: Watched) => watch.begin(t, watched)
  return {
    t,
    seed,
    random,
    async start(options) {
      let dialled: number | undefined
      const { between } = options ?? {}
      const gateway = await openGateway(t, {
        ...options,
        ...(between !== undefined && { between: async (port: number) => (dialled = await between(port)) }),
      })
      await begin({ proxy: gateway.proxy, port: gateway.ports.mqtt, brokerPort: dialled ?? gateway.brokerPort })
      return gateway
    },
    async door({ brokerPort, ...options }) {
      const door = await openDoor(t, options)
      await begin({ proxy: door.proxy, port: door.port, ...(brokerPort !== undefined && { brokerPort }) })
      return door
    },
    watch: begin,
    get good() {
      return watch.good
    },
    defer: (cleanup) => t.teardown(cleanup),
    note(text) {
      notes.push(text)
    },
  }
}

/** What must hold of a program after every row, and what is measured of it meanwhile. */
class Watch {
  scanned: Scanned | null = null
  readonly #facts: RowFacts
  #watched: Watched | null = null
  #good: GoodClient | null = null
  #timer: NodeJS.Timeout | null = null
  #before = { descriptors: 0, dialled: 0, rss: residentOf([process.pid]) }
  #peak = 0

  constructor(facts: RowFacts) {
    this.#facts = facts
  }

  get good(): GoodClient {
    if (this.#good === null) throw new Error('nothing was started yet')
    return this.#good
  }

  async begin(t: ExecutionContext, watched: Watched): Promise<void> {
    if (this.#watched !== null) throw new Error('a row watches over one program')
    this.#watched = watched
    this.#good = await startGoodClient(t, {
      port: watched.port,
      servername: 'localhost',
      ca: doorCa.certPem,
      cert: device.chainPem,
      key: device.keyPem,
      clientId: 'good-client',
      topic: 'good/client',
      everyMs: 250,
      returns: this.#facts.good === 'returns',
    })
    this.#before = { descriptors: this.#descriptors(), dialled: this.#dialled(), rss: residentOf(this.#pids()) }
    for (const pid of this.#pids()) forgetPeak(pid)
    this.#timer = setInterval(() => {
      this.#peak = Math.max(this.#peak, residentOf(this.#pids()))
    }, SAMPLE_MS)
  }

  /** Rejects unless the program is as it was before the fault. */
  async settled(): Promise<void> {
    const watched = this.#watched
    if (watched === null) return
    const { kept = 0 } = this.#facts
    await this.good.echo()
    const { descriptors, dialled } = this.#before
    await eventually(() => this.#dialled() <= dialled + kept, `broker connections back at ${dialled}`, SETTLE_MS).catch(
      (error: Error) => {
        throw new Error(`${error.message}: ${this.#dialled()}`)
      },
    )
    await eventually(
      () => this.#descriptors() <= descriptors + kept,
      `descriptors back at ${descriptors}`,
      SETTLE_MS,
    ).catch((error: Error) => {
      throw new Error(`${error.message}: ${this.#descriptors()}`)
    })
    if (!(await watched.proxy.metrics()).includes('brokergate_')) throw new Error('the metrics page is empty')
    await this.good.finish()
    if (this.good.faults.length > 0) throw new Error(`good client: ${this.good.faults.join('; ')}`)
    const page = await watched.proxy.metrics()
    this.scanned = scanForSecrets(watched.proxy.output() + page)
    if (this.scanned.leaks !== '') throw new Error(`secrets in the log or the metrics: ${this.scanned.leaks}`)
    const complaint = /^.*(?:unhandled|uncaught).*$/im.exec(watched.proxy.output())
    if (complaint !== null) throw new Error(`in the log: ${complaint[0]}`)
  }

  stop(): void {
    if (this.#timer !== null) clearInterval(this.#timer)
  }

  goodFigures(): RowReport['good'] {
    if (this.#good === null) return null
    const { worst, p99, count } = this.#good.latency()
    return { worstMs: worst, p99Ms: p99, messages: count, outagesMs: this.#good.outages }
  }

  memory(): RowReport['rss'] {
    const pids = this.#pids()
    const end = residentOf(pids)
    const peak = Math.max(this.#peak, end, pids.length === 1 ? peakOf(pids[0]!) : 0)
    return { start: this.#before.rss, peak, end }
  }

  #pids(): readonly number[] {
    return treeOf(this.#watched?.proxy.child.pid ?? process.pid)
  }

  #descriptors(): number {
    return descriptorsOf(this.#pids())
  }

  #dialled(): number {
    const port = this.#watched?.brokerPort
    return port === undefined ? 0 : dialledOf(this.#pids(), port)
  }
}

function report(t: ExecutionContext, facts: RowReport): void {
  const { good, rss } = facts
  const megabytes = (bytes: number) => `${(bytes / MEGABYTE).toFixed(0)} MB`
  t.log(
    [
      facts.injected ?? 'nothing injected',
      facts.failure ?? facts.seen,
      ...(facts.gap === null ? [] : [`GAP: ${facts.gap}, required ${facts.required}`]),
      good === null ? 'no good client' : `good client worst ${good.worstMs.toFixed(0)} ms of ${good.messages}`,
      `peak ${megabytes(rss.peak)} (from ${megabytes(rss.start)})`,
      `seed ${facts.seed}`,
      `${facts.seconds.toFixed(1)} s`,
      ...facts.notes,
    ].join(' · '),
  )
  if (process.env.CHAOS_OUT !== undefined) appendFileSync(process.env.CHAOS_OUT, `${JSON.stringify(facts)}\n`)
}
