import { EventEmitter } from 'node:events'
import { setImmediate } from 'node:timers/promises'
import { admissionCounters } from '../../src/control/admission-metrics.ts'
import { type Metrics, trafficCounters } from '../../src/control/metrics.ts'
import type { ByteStream } from '../../src/relay.ts'

/** A stream under the test's hand: what it says arrives as the chunks it was said in, and what is written is kept. */
export class FakeStream extends EventEmitter implements ByteStream {
  readonly written: Buffer[] = []
  flowing = false
  /** Our side has been ended by the product. */
  finished = false
  destroyed = false
  readableEnded = false
  /** False makes `write` answer «past the high-water mark». */
  roomy = true
  readonly #queue: (Buffer | null)[] = []

  /** The peer says this, one chunk a time; null is its end. */
  say(...chunks: (Buffer | string | null)[]): void {
    for (const chunk of chunks) this.#queue.push(typeof chunk === 'string' ? hex(chunk) : chunk)
    this.#flow()
  }

  /** The peer is gone without a word. */
  reset(): void {
    this.destroy()
  }

  write(chunk: Uint8Array): boolean {
    if (this.finished || this.destroyed) throw new Error('write after the end')
    this.written.push(Buffer.from(chunk))
    return this.roomy
  }

  end(): void {
    if (this.finished) return
    this.finished = true
    this.emit('finished')
    if (this.readableEnded) this.destroy()
  }

  destroy(): void {
    if (this.destroyed) return
    this.destroyed = true
    this.#queue.length = 0
    queueMicrotask(() => this.emit('close'))
  }

  pause(): void {
    this.flowing = false
  }

  resume(): void {
    this.flowing = true
    queueMicrotask(() => this.#flow())
  }

  /** Everything written so far, in hex. */
  get heard(): string {
    return Buffer.concat(this.written).toString('hex')
  }

  #flow(): void {
    while (this.flowing && this.#queue.length > 0) {
      const chunk = this.#queue.shift()!
      if (chunk !== null) {
        this.emit('data', chunk)
        continue
      }
      this.readableEnded = true
      this.emit('end')
      if (this.finished) this.destroy()
    }
  }
}

export function hex(octets: string): Buffer {
  return Buffer.from(octets.replace(/\s/g, ''), 'hex')
}

/** Lets the event loop turn until this holds; it says so when it never does. */
export async function until(holds: () => boolean): Promise<void> {
  for (let turn = 0; turn < 100_000; turn++) {
    if (holds()) return
    await setImmediate()
  }
  throw new Error(`never: ${holds}`)
}

export const traffic = trafficCounters

/** Keeps what it is told, in words. */
export function fakeMetrics() {
  const told: string[] = []
  const metrics: Metrics = {
    traffic: traffic(),
    admission: admissionCounters(),
    handshakeWaited: () => {},
    accepted: () => {},
    acceptPaused: () => {},
    hello: () => {},
    handshake: () => {},
    resumed: () => {},
    ticketKeysRotated: () => {},
    identity: (method, result) => told.push(`identity ${method} ${result}`),
    authorizerCall: () => {},
    authorizerCircuit: () => {},
    connect: (result, version) => told.push(`connect ${result} ${version}`),
    dial: () => {},
    sessions: (delta) => told.push(`sessions ${delta}`),
    shielded: () => {},
    shieldOutcome: (backend, outcome) => told.push(`shield ${backend} ${outcome}`),
    registryReload: () => {},
    revocationReload: () => {},
    provision: () => {},
    request: (route, status) => told.push(`request ${route} ${status}`),
    lifecycleEvent: () => {},
    closed: () => {},
  }
  return { metrics, told }
}

/** The same numbers in every run: mulberry32. */
export function seeded(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296
  }
}

/** `bytes` in chunks of at most `size`. */
export function chunked(bytes: Buffer, size: number): Buffer[] {
  const chunks: Buffer[] = []
  for (let at = 0; at < bytes.length; at += size) chunks.push(bytes.subarray(at, at + size))
  return chunks
}
