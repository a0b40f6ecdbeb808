// A fleet of devices in a process of its own, so that what they cost is not the row's. Orders come as lines of JSON on
// standard input, answers go out the same way; the end of the input is the end of the fleet.
import { createInterface } from 'node:readline'
import { createSecureContext, type SecureContext } from 'node:tls'
import type { Packet } from 'mqtt-packet'
import type { Account, FleetOptions, FleetReport, Order, Publishing } from './fleet.ts'
import { Link } from './fleet-device.ts'

const TICK_MS = 20
/** Attempts under way at once: a fleet is a crowd, but its process must go on measuring. */
const MOST_OPENING = 400

let options: FleetOptions
let contexts: readonly SecureContext[] = []
const devices: Device[] = []
const outcomes = new Map<string, number>()
const endings = new Map<string, number>()
const connectMs: number[] = []
const ackMs: number[] = []
const pingMs: number[] = []
const totals = { attempts: 0, sent: 0, acked: 0, received: 0, receivedBytes: 0, pings: 0, pongs: 0 }
let publishing: Publishing | null = null
let opening = 0
/** So that nobody has the client id of one that is gone. */
let born = 0
const waiting: (() => void)[] = []
/** Of devices that are gone for good. */
const departed: Account[] = []

const count = (map: Map<string, number>, key: string): void => void map.set(key, (map.get(key) ?? 0) + 1)
const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

async function turn(): Promise<void> {
  if (opening < MOST_OPENING) opening++
  else await new Promise<void>((resolve) => waiting.push(resolve))
}
function next(): void {
  const first = waiting.shift()
  if (first === undefined) opening--
  else first()
}

class Device {
  readonly clientId: string
  readonly #index: number
  #link: Link | null = null
  isIn = false
  isPaused = false
  /** Wants to be in; a device that was sent away does not come back. */
  #wanted = true
  #number = 0
  #inFlight: { readonly payload: string; readonly at: number } | null = null
  #dueAt = 0
  #pingDueAt = 0
  #pingAt: number | null = null
  /** Payloads that were sent and whose PUBACK never came: nobody promised anything. */
  readonly #unacknowledged: string[] = []

  /** Null: it has published nothing. What is in flight is not acknowledged either. */
  get account(): Account | null {
    if (this.#number === 0) return null
    const open = this.#inFlight === null ? [] : [this.#inFlight.payload]
    return { clientId: this.clientId, sent: this.#number, unacknowledged: [...this.#unacknowledged, ...open] }
  }

  constructor(index: number) {
    this.#index = index
    this.clientId = options.clientIds === null ? `${options.prefix}-${index}` : options.clientIds[index]!
  }

  /** Tries until it is in, or once where the fleet does not retry. Resolves with the first outcome. */
  async come(): Promise<string> {
    let first: string | null = null
    while (this.#wanted) {
      const outcome = await this.#attempt()
      first ??= outcome
      if (outcome === 'in' || options.retry === null) return first
      await sleep(options.retry.leastMs + Math.random() * (options.retry.mostMs - options.retry.leastMs))
    }
    return first ?? 'unwanted'
  }

  async #attempt(): Promise<string> {
    await turn()
    totals.attempts++
    const { localAddresses } = options
    const link = new Link(
      {
        ...options,
        clientId: this.clientId,
        context: contexts[this.#index % contexts.length]!,
        localAddress: localAddresses === 0 ? null : `127.0.0.${2 + (this.#index % localAddresses)}`,
      },
      {
        packet: (packet) => this.#heard(packet),
        ended: (how) => this.#ended(link, how),
      },
    )
    this.#link = link
    const outcome = await link.attempt
    next()
    count(outcomes, outcome)
    if (outcome !== 'in') return outcome
    connectMs.push(link.ms)
    this.isIn = true
    this.isPaused = false
    const now = performance.now()
    // Spread from the start, or all of them would speak in one breath.
    this.#dueAt = now + Math.random() * (publishing?.everyMs ?? 0)
    this.#pingDueAt = now + options.pingEveryMs * Math.random()
    this.#pingAt = null
    if (options.subscribe !== null) {
      const { filter, qos } = options.subscribe
      link.say({
        cmd: 'subscribe',
        messageId: 1,
        subscriptions: [{ topic: filter.replace('${id}', this.clientId), qos }],
      })
    }
    return outcome
  }

  #heard(packet: Packet): void {
    if (packet.cmd === 'puback' && this.#inFlight !== null) {
      const refused = (packet.reasonCode ?? 0) >= 0x80
      if (refused) this.#unacknowledged.push(this.#inFlight.payload)
      else {
        totals.acked++
        ackMs.push(performance.now() - this.#inFlight.at)
      }
      this.#inFlight = null
    } else if (packet.cmd === 'publish') {
      totals.received++
      totals.receivedBytes += packet.payload.length
      if (packet.qos === 1) this.#link?.say({ cmd: 'puback', messageId: packet.messageId! } as Packet)
    } else if (packet.cmd === 'pingresp' && this.#pingAt !== null) {
      totals.pongs++
      pingMs.push(performance.now() - this.#pingAt)
      this.#pingAt = null
    }
  }

  #ended(link: Link, how: string): void {
    if (link !== this.#link) return
    this.isIn = false
    this.#giveUp()
    count(endings, how)
    if (!this.#wanted || options.retry === null) return
    const { leastMs, mostMs } = options.retry
    setTimeout(() => void this.come(), leastMs + Math.random() * (mostMs - leastMs))
  }

  #giveUp(): void {
    if (this.#inFlight !== null) this.#unacknowledged.push(this.#inFlight.payload)
    this.#inFlight = null
  }

  tick(now: number): void {
    if (!this.isIn || this.isPaused) return
    if (options.pingEveryMs > 0 && now >= this.#pingDueAt && this.#pingAt === null) {
      this.#pingDueAt = now + options.pingEveryMs
      this.#pingAt = now
      totals.pings++
      this.#link!.say({ cmd: 'pingreq' })
    }
    if (publishing === null || this.#inFlight !== null || now < this.#dueAt) return
    this.#dueAt = Math.max(this.#dueAt + publishing.everyMs, now - publishing.everyMs)
    const payload = `${this.clientId}:${this.#number++}`
    this.#inFlight = { payload, at: now }
    totals.sent++
    this.#link!.say({
      cmd: 'publish',
      topic: publishing.topic.replace('${id}', this.clientId),
      payload: publishing.bytes > payload.length ? payload.padEnd(publishing.bytes, options.pad) : payload,
      qos: 1,
      messageId: 1 + (this.#number % 65_000),
      dup: false,
      retain: false,
    })
  }

  get settled(): boolean {
    return this.#inFlight === null
  }

  pause(): void {
    this.isPaused = true
    this.#link?.pause()
  }

  resume(): void {
    this.isPaused = false
    this.#link?.resume()
  }

  go(how: 'leave' | 'reset' | 'destroy'): void {
    this.#wanted = false
    this.#link?.[how]()
  }

  /** RST, and back again as after any other end. */
  reset(): void {
    this.#link?.reset()
  }
}

setInterval(() => {
  const now = performance.now()
  for (const device of devices) device.tick(now)
}, TICK_MS)

const within = async (ready: () => boolean, ms: number): Promise<boolean> => {
  const until = performance.now() + ms
  while (!ready() && performance.now() < until) await sleep(10)
  return ready()
}

function percentiles(samples: number[]): {
  readonly count: number
  readonly p50: number
  readonly p99: number
  readonly worst: number
} {
  const sorted = samples.splice(0).sort((a, b) => a - b)
  const at = (share: number): number => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0
  return { count: sorted.length, p50: at(0.5), p99: at(0.99), worst: sorted.at(-1) ?? 0 }
}

/** Latencies are since the last report; the rest is since the start. */
function report(): FleetReport {
  return {
    ...totals,
    devices: devices.length,
    in: devices.filter(({ isIn }) => isIn).length,
    outcomes: Object.fromEntries(outcomes),
    endings: Object.fromEntries(endings),
    connectMs: percentiles(connectMs),
    ackMs: percentiles(ackMs),
    pingMs: percentiles(pingMs),
  }
}

async function obey(order: Order): Promise<unknown> {
  switch (order.do) {
    case 'begin':
      options = order.options
      contexts = options.certificates.map((pair) =>
        createSecureContext({ ca: options.ca, ...(pair !== null && { cert: pair.chainPem, key: pair.keyPem }) }),
      )
      return null
    case 'grow': {
      const everyMs = order.perSecond === null ? 0 : 1_000 / order.perSecond
      const began = performance.now()
      const firsts: Promise<string>[] = []
      for (let added = 0; added < order.count; added++) {
        const early = began + added * everyMs - performance.now()
        if (early > 1) await sleep(early)
        const device = new Device(born++)
        devices.push(device)
        firsts.push(device.come())
      }
      await Promise.all(firsts)
      return report()
    }
    case 'publish':
      publishing = order.publishing
      return null
    case 'quiet':
      publishing = null
      return within(() => devices.every((device) => device.settled), order.ms)
    case 'pause':
      for (const device of devices.slice(0, order.count)) device.pause()
      return null
    case 'resume':
      for (const device of devices) if (device.isPaused) device.resume()
      return null
    case 'reset': {
      const live = devices.filter(({ isIn }) => isIn).slice(0, order.count)
      for (const device of live) device.reset()
      return live.length
    }
    case 'go': {
      const live = order.count === null ? devices.splice(0) : devices.splice(0, order.count)
      for (const device of live) {
        device.go(order.how)
        if (device.account !== null) departed.push(device.account)
      }
      return live.length
    }
    case 'report':
      return report()
    case 'accounts':
      return [...departed, ...devices.flatMap(({ account }) => account ?? [])]
  }
}

const input = createInterface({ input: process.stdin })
input.on('line', async (line) => {
  const { id, order } = JSON.parse(line) as { readonly id: number; readonly order: Order }
  const answer = await obey(order).then(
    (value) => ({ id, value }),
    (error: Error) => ({ id, error: error.message }),
  )
  process.stdout.write(`${JSON.stringify(answer)}\n`)
})
input.on('close', () => process.exit())
