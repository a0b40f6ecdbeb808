import { setTimeout as sleep } from 'node:timers/promises'
import type { Device } from './device.ts'
import { runOpenLoop } from './open-loop.ts'
import { publishPacket } from './packets.ts'
import type { Sink } from './sink.ts'

// Devices that publish: a window of packets in flight on each, refilled as answers come; or one packet when it is due.

export interface PublishLoad {
  readonly topic: (clientId: string) => string
  readonly payload: Buffer
  readonly qos: 0 | 1
  readonly inFlight: number
  /** How a packet travels; as it is unless told. */
  readonly wrap?: (packet: Buffer) => Buffer
  /** Bytes of MQTT in what came; all of it unless told. One for each device. */
  readonly unwrap?: () => (chunk: Buffer) => number
}

const PUBACK_BYTES = 4
/** For the last packets in flight to be answered, on a machine that may be busy with something else. */
const DRAIN_WITHIN_MS = 20_000

/** Keeps `inFlight` packets under way on one device. */
class Window {
  answered = 0
  sent = 0
  #running = false
  readonly #device: Device
  readonly #ring: Buffer
  readonly #packetBytes: number
  readonly #inFlight: number
  #bytes = 0

  constructor(device: Device, load: PublishLoad, fail: (error: unknown) => void) {
    const { topic, payload, qos, inFlight, wrap = (packet) => packet } = load
    const packets = Array.from({ length: inFlight }, (_, id) =>
      wrap(publishPacket(topic(device.clientId), payload, qos, id + 1)),
    )
    this.#device = device
    this.#packetBytes = packets[0]!.length
    this.#inFlight = inFlight
    // Twice, so that any run of packets lies in one piece.
    this.#ring = Buffer.concat([...packets, ...packets])
    if (qos === 1) {
      const measure = load.unwrap?.() ?? ((chunk: Buffer) => chunk.length)
      device.onData = (chunk) => {
        try {
          this.#bytes += measure(chunk)
        } catch (error) {
          fail(error)
        }
        const count = Math.floor(this.#bytes / PUBACK_BYTES)
        this.#bytes -= count * PUBACK_BYTES
        if (count > 0) this.arrived(count)
      }
    }
  }

  start(): void {
    this.#running = true
    this.#send(this.#inFlight)
  }

  stop(): void {
    this.#running = false
  }

  arrived(count: number): void {
    this.answered += count
    if (this.#running) this.#send(count)
  }

  #send(count: number): void {
    const at = this.sent % this.#inFlight
    this.sent += count
    this.#device.socket.write(this.#ring.subarray(at * this.#packetBytes, (at + count) * this.#packetBytes))
  }
}

export interface Published<R> {
  readonly operations: number
  readonly seconds: number
  /** What `read` gave at the beginning and at the end of what was counted. */
  readonly before: R
  readonly after: R
}

export interface PublishOptions<R> {
  readonly devices: readonly Device[]
  readonly load: PublishLoad
  /** Null: a real broker, which answers QoS 1 alone. */
  readonly sink: Sink | null
  readonly rampMs: number
  readonly measureMs: number
  readonly read: () => R
}

/** All devices publish; what is counted lies between two moments of full flight. @throws when anything got lost */
export async function publishFor<R>(options: PublishOptions<R>): Promise<Published<R>> {
  const { devices, load, sink, read } = options
  const lost = failWhenClosed(devices)
  const windows = new Map(devices.map((device) => [device.clientId, new Window(device, load, lost.fail)]))
  const all = [...windows.values()]
  if (load.qos === 0) {
    if (sink === null) throw new Error('QoS 0 in flight is counted at the sink')
    sink.onQos0 = (clientId, count) => windows.get(clientId)?.arrived(count)
  }
  const atSink = () => (load.qos === 0 ? sink?.qos0 : sink?.qos1) ?? 0
  const sinkBefore = atSink()
  try {
    for (const window of all) window.start()
    await Promise.race([sleep(options.rampMs), lost.failed])
    const from = { at: performance.now(), answered: answered(all), reading: read() }
    const patience = from.at + DRAIN_WITHIN_MS
    // On a machine that is busy with something else the window may have to be longer for anything to happen in it.
    do await Promise.race([sleep(options.measureMs), lost.failed])
    while (answered(all) === from.answered && performance.now() < patience)
    const to = { at: performance.now(), answered: answered(all), reading: read() }
    for (const window of all) window.stop()
    const until = performance.now() + DRAIN_WITHIN_MS
    while (all.some((window) => window.answered < window.sent)) {
      if (performance.now() > until) throw new Error(`${answered(all)} of ${sent(all)} publishes were answered`)
      await Promise.race([sleep(2), lost.failed])
    }
    if (answered(all) !== sent(all)) throw new Error('more answers than publishes')
    if (sink !== null && atSink() - sinkBefore !== sent(all)) {
      throw new Error(`${sent(all)} publishes were sent and ${atSink() - sinkBefore} came to the broker`)
    }
    const operations = to.answered - from.answered
    if (operations === 0) throw new Error('nothing was published')
    return { operations, seconds: (to.at - from.at) / 1_000, before: from.reading, after: to.reading }
  } finally {
    for (const window of all) window.stop()
    if (sink !== null) sink.onQos0 = null
    lost.forget()
  }
}

const answered = (windows: readonly Window[]) => windows.reduce((sum, window) => sum + window.answered, 0)
const sent = (windows: readonly Window[]) => windows.reduce((sum, window) => sum + window.sent, 0)

function failWhenClosed(devices: readonly Device[]) {
  const { promise: failed, reject } = Promise.withResolvers<never>()
  failed.catch(() => {})
  for (const device of devices) device.onClose = () => reject(new Error(`${device.clientId} was closed`))
  return {
    failed,
    fail: (error: unknown) => reject(error instanceof Error ? error : new Error(String(error))),
    forget() {
      for (const device of devices) device.onClose = () => {}
    },
  }
}

/** Packet ids of one device in an open loop: far more than are ever under way. */
const IDS = 1_024

export interface OpenPublishes {
  readonly devices: readonly Device[]
  readonly topic: (clientId: string) => string
  readonly payload: Buffer
  readonly ratePerSecond: number
  readonly total: number
}

export interface OpenPublished {
  /** From when a publish was due until its PUBACK, sorted. */
  readonly latenciesMs: readonly number[]
  /** Sent more than 20 ms after they were due: then the load, too, was late. */
  readonly late: number
}

/** QoS 1 on a fixed schedule, device after device. @throws when a publish is not answered */
export async function publishOpenLoop(options: OpenPublishes): Promise<OpenPublished> {
  const { devices, topic, payload, ratePerSecond, total } = options
  const latenciesMs: number[] = []
  const { promise: all, resolve, reject } = Promise.withResolvers<void>()
  all.catch(() => {})
  const lanes = devices.map((device) => {
    const packets = Array.from({ length: IDS }, (_, id) => publishPacket(topic(device.clientId), payload, 1, id + 1))
    const dueTimes: number[] = []
    let bytes = 0
    device.onClose = () => reject(new Error(`${device.clientId} was closed`))
    device.onData = (chunk) => {
      const now = performance.now()
      for (bytes += chunk.length; bytes >= PUBACK_BYTES; bytes -= PUBACK_BYTES)
        latenciesMs.push(now - dueTimes.shift()!)
      if (latenciesMs.length === total) resolve()
    }
    return { device, packets, dueTimes, sent: 0 }
  })
  const { late } = await runOpenLoop({
    ratePerSecond,
    total,
    fire(index, dueMs) {
      const lane = lanes[index % lanes.length]!
      lane.dueTimes.push(dueMs)
      lane.device.socket.write(lane.packets[lane.sent++ % IDS]!)
    },
  })
  const timer = setTimeout(
    () => reject(new Error(`${latenciesMs.length} of ${total} publishes were answered`)),
    DRAIN_WITHIN_MS,
  )
  try {
    await all
  } finally {
    clearTimeout(timer)
    for (const device of devices) device.onClose = () => {}
  }
  return { latenciesMs: latenciesMs.sort((a, b) => a - b), late }
}
