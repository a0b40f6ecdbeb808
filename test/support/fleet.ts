import type { IDisconnectPacket } from 'mqtt-packet'
import type { Teardowns } from './proxy.ts'
import { type RawDevice, type RawDeviceOptions, rawDevice } from './raw-mqtt.ts'

/** A device that publishes at QoS 1 as long as it may, with some in flight, and knows what was acknowledged. */
export interface Publisher {
  readonly device: RawDevice
  readonly sent: ReadonlySet<string>
  readonly acknowledged: ReadonlySet<string>
  /** Publishes no more; what is in flight may still be acknowledged. */
  stop(): void
}

const IN_FLIGHT = 4

export async function publisher(t: Teardowns, topic: string, options: RawDeviceOptions): Promise<Publisher> {
  const device = await rawDevice(t, options)
  await device.hear('connack', 30_000)
  const sent = new Set<string>()
  const acknowledged = new Set<string>()
  const names = new Map<number, string>()
  let stopped = false
  let seen = 0
  let count = 0
  const say = () => {
    const payload = `${options.clientId}/${++count}`
    const messageId = (count % 65_535) + 1
    names.set(messageId, payload)
    sent.add(payload)
    device.say({ cmd: 'publish', topic, payload, qos: 1, messageId, dup: false, retain: false })
  }
  const look = () => {
    for (; seen < device.heard.length; seen++) {
      const packet = device.heard[seen]!
      if (packet.cmd === 'disconnect') stopped = true
      if (packet.cmd !== 'puback') continue
      acknowledged.add(names.get(packet.messageId!)!)
      if (!stopped && !device.closed) say()
    }
  }
  // Behind the parser, which listens to the same event.
  device.socket.on('data', look)
  for (let n = 0; n < IN_FLIGHT; n++) say()
  return {
    device,
    sent,
    acknowledged,
    stop() {
      stopped = true
    },
  }
}

/** `count` of them, connected a few at a time: a test is not about the storm of their coming. */
export async function many<T>(count: number, make: (n: number) => Promise<T>, atOnce = 20): Promise<T[]> {
  const made: T[] = []
  for (let at = 0; at < count; at += atOnce) {
    const size = Math.min(atOnce, count - at)
    made.push(...(await Promise.all(Array.from({ length: size }, (_, n) => make(at + n)))))
  }
  return made
}

export const farewellOf = (device: RawDevice): IDisconnectPacket | null =>
  (device.heard.find((packet) => packet.cmd === 'disconnect') as IDisconnectPacket | undefined) ?? null
