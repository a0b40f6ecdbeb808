import { type Device, type DeviceOptions, type Facts, openDevice } from './device.ts'

// Devices that connect, are answered, and go; and crowds of them that stay.

export interface Connects {
  readonly done: number
  /** How many of these did not make new keys. */
  readonly resumed: number
  readonly failed: number
  readonly firstFailure: string | null
  readonly seconds: number
  /** Time to CONNACK of each, sorted. */
  readonly latenciesMs: readonly number[]
  readonly facts: Facts | null
}

export interface ConnectsOptions {
  readonly count: number
  readonly concurrency: number
  /** None begins later than this after the first. */
  readonly withinMs: number
  /** The n-th device. */
  readonly device: (index: number) => DeviceOptions
}

/** A closed loop: so many devices at any time, each from its first SYN to both sides closed. */
export async function connectMany(options: ConnectsOptions): Promise<Connects> {
  const { count, concurrency, withinMs } = options
  const from = performance.now()
  const latenciesMs: number[] = []
  let begun = 0
  let failed = 0
  let resumed = 0
  let firstFailure: string | null = null
  let facts: Facts | null = null
  await Promise.all(
    Array.from({ length: concurrency }, async () => {
      while (begun < count && performance.now() - from < withinMs) {
        try {
          const device = await openDevice(options.device(begun++))
          latenciesMs.push(device.ms)
          facts = device.facts
          if (facts.resumed) resumed++
          await device.leave()
        } catch (error) {
          failed++
          firstFailure ??= error instanceof Error ? error.message : String(error)
        }
      }
    }),
  )
  const seconds = (performance.now() - from) / 1_000
  latenciesMs.sort((a, b) => a - b)
  return { done: latenciesMs.length, resumed, failed, firstFailure, seconds, latenciesMs, facts }
}

/** Opens devices `from` to `to`, some at a time, and keeps them. @throws with the first that fails */
export async function openMany(
  from: number,
  to: number,
  concurrency: number,
  device: (index: number) => DeviceOptions,
): Promise<Device[]> {
  const devices: Device[] = []
  let next = from
  await Promise.all(
    Array.from({ length: Math.min(concurrency, to - from) }, async () => {
      while (next < to) devices.push(await openDevice(device(next++)))
    }),
  )
  return devices
}
