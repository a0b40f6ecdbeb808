import mqtt from 'mqtt'
import type { Teardowns } from '../support/proxy.ts'
import type { Account } from './fleet.ts'

/** Straight at the broker, with a session that the broker keeps while it is away: what has really arrived. */
export interface Witness {
  readonly received: number
  /** Came more than once, as QoS 1 allows. */
  readonly duplicates: number
  /** What was acknowledged to a device and has not arrived. */
  missing(accounts: readonly Account[]): readonly string[]
}

const FIRST_BYTES = 64

/** A bit for each message of one device: an hour of a device is a few bytes. */
class Arrivals {
  #bits = new Uint8Array(FIRST_BYTES)

  has(number: number): boolean {
    return ((this.#bits[number >> 3] ?? 0) & (1 << (number & 7))) !== 0
  }

  add(number: number): void {
    const at = number >> 3
    if (at >= this.#bits.length) {
      const larger = new Uint8Array(Math.max(at + 1, this.#bits.length * 2))
      larger.set(this.#bits)
      this.#bits = larger
    }
    this.#bits[at]! |= 1 << (number & 7)
  }
}

export async function startWitness(t: Teardowns, brokerPort: number, filter: string): Promise<Witness> {
  const client = await mqtt.connectAsync(`mqtt://127.0.0.1:${brokerPort}`, {
    protocolVersion: 4,
    clientId: 'witness',
    clean: false,
    reconnectPeriod: 100,
  })
  t.teardown(() => client.endAsync(true))
  client.on('error', () => {})
  const arrivals = new Map<string, Arrivals>()
  const totals = { received: 0, duplicates: 0 }
  client.on('message', (_, payload) => {
    const [clientId = '', number = ''] = payload.toString().split(':')
    const known = arrivals.get(clientId) ?? new Arrivals()
    arrivals.set(clientId, known)
    if (known.has(Number(number))) totals.duplicates++
    else {
      totals.received++
      known.add(Number(number))
    }
  })
  await client.subscribeAsync(filter, { qos: 1 })
  return {
    get received() {
      return totals.received
    },
    get duplicates() {
      return totals.duplicates
    },
    missing: (accounts) =>
      accounts.flatMap(({ clientId, sent, unacknowledged }) => {
        const open = new Set(unacknowledged)
        const known = arrivals.get(clientId)
        return Array.from({ length: sent }, (_, number) => number)
          .filter((number) => known?.has(number) !== true && !open.has(`${clientId}:${number}`))
          .map((number) => `${clientId}:${number}`)
      }),
  }
}
