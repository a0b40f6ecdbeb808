import mqtt from 'mqtt'
import { sleep } from '../support/e2e.ts'
import { ca, type Gateway, NAMES, yes } from '../support/gateway.ts'
import { issueServer } from '../support/pki.ts'
import { write } from '../support/proxy.ts'
import type { Fleet } from './fleet.ts'
import type { Namespace } from './namespace.ts'

/** What faults are done to. */
export interface Scene {
  readonly gateway: Gateway
  /** Devices with certificates; they come back. */
  readonly fleet: Fleet
  readonly connections: number
  /** Devices that an authorizer lets in; they come back. */
  readonly asking: Fleet
  readonly askingCount: number
  /** Devices that subscribe to `flood`. */
  readonly readers: Fleet
  readonly readersCount: number
  /** Devices behind a wire of their own; null where there is none. */
  readonly far: { readonly namespace: Namespace; readonly fleet: Fleet } | null
  /** Whether a signal reloads the configuration here. */
  readonly reloads: boolean
  random(below: number): number
  /** Their pids, oldest first. */
  workers(): readonly number[]
}

/** Does it, waits for its end, and says how much of it there was. */
export interface SoakFault {
  readonly name: string
  /** How often it comes, against the others. */
  readonly weight: number
  possible(scene: Scene): boolean
  run(scene: Scene): Promise<string>
}

const SHARE = 10
const always = (): boolean => true

export const SOAK_FAULTS: readonly SoakFault[] = [
  {
    name: 'broker restart',
    weight: 2,
    possible: always,
    async run({ gateway, random }) {
      const awayMs = 200 + random(2_500)
      // In good order, so that the broker itself keeps what it has acknowledged: what is tested is the door.
      await gateway.stopBroker('SIGTERM')
      await sleep(awayMs)
      await gateway.startBroker()
      return `${awayMs} ms`
    },
  },
  {
    name: 'worker killed',
    weight: 1,
    possible: ({ workers }) => workers().length > 1,
    async run({ workers }) {
      // The youngest, so that one worker lives for the whole time and tells whether anything grows in it.
      const victim = workers().at(-1)!
      process.kill(victim, 'SIGKILL')
      return `pid ${victim}`
    },
  },
  {
    name: 'resets',
    weight: 3,
    possible: always,
    run: async ({ fleet, connections, random }) =>
      `${await fleet.reset(1 + random(Math.ceil(connections / SHARE)))} RST`,
  },
  {
    name: 'slow readers',
    weight: 2,
    possible: always,
    async run({ gateway, readers, readersCount, random }) {
      const source = await mqtt.connectAsync(`mqtt://127.0.0.1:${gateway.brokerPort}`, { protocolVersion: 4 })
      const stuck = Math.ceil(readersCount / 2)
      const payload = Buffer.alloc(10_240)
      const messages = 100 + random(200)
      try {
        await readers.pause(stuck)
        for (let message = 0; message < messages; message++) {
          source.publish('flood', payload)
          await sleep(50)
        }
      } finally {
        await readers.resume()
        await source.endAsync(true)
      }
      return `${stuck} under ${messages} × 10 KiB`
    },
  },
  {
    name: 'authorizer away',
    weight: 2,
    possible: always,
    async run({ gateway, asking, askingCount, random }) {
      const awayMs = 2_000 + random(8_000)
      gateway.answer = (_asked, response) => void response.destroy()
      const reset = await asking.reset(Math.ceil(askingCount / 2))
      await sleep(awayMs)
      gateway.answer = (asked, response) => void response.end(JSON.stringify(yes(asked)))
      return `${awayMs} ms, ${reset} devices had to ask`
    },
  },
  {
    name: 'reload',
    weight: 2,
    possible: ({ reloads }) => reloads,
    async run({ gateway }) {
      const fresh = issueServer(ca, { serverNames: [...NAMES], ips: ['127.0.0.1', '::1'] })
      write(gateway.dir, 'server.pem', fresh.chainPem)
      write(gateway.dir, 'server.key', fresh.keyPem)
      gateway.proxy.child.kill('SIGHUP')
      return 'a new certificate, SIGHUP'
    },
  },
  {
    name: 'wire cut',
    weight: 1,
    possible: ({ far }) => far !== null,
    async run({ far, random }) {
      const cutMs = 1_000 + random(9_000)
      far!.namespace.cut()
      await sleep(cutMs)
      far!.namespace.mend()
      return `${cutMs} ms`
    },
  },
]

/** One of those that are possible, by weight. */
export function chooseFault(scene: Scene): SoakFault {
  const possible = SOAK_FAULTS.filter((fault) => fault.possible(scene))
  // Each stands there as often as it weighs.
  const all = possible.flatMap((fault) => Array.from({ length: fault.weight }, () => fault))
  return all[scene.random(all.length)]!
}
