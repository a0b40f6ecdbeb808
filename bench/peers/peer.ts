import { get } from 'node:http'
import { connect, createServer } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Started } from '../harness/proc.ts'
import type { Materials } from './materials.ts'

/** What is asked of a proxy, beyond mutual TLS 1.2 and 1.3 with P-256, MQTT to one broker over TCP, and no log. */
export interface Setup {
  /** `ca`: whoever has a certificate of the CA; `registry`: whoever is registered. */
  readonly trust: 'ca' | 'registry'
  /** Statements of the devices' policy; 1 allows everything. */
  readonly policyStatements: number
  /** Session tickets of TLS 1.2 and 1.3. */
  readonly resumption: boolean
  /** Threads or processes that serve. */
  readonly workers: number
  /** Refuses a ClientHello without server name. */
  readonly strictSni: boolean
  /** Seconds in which sessions may end when it is told to stop. */
  readonly graceSeconds: number
  /** Takes new settings while it serves; where devices are registered, all but the first, which comes and goes. */
  readonly reloads: boolean
  readonly extra: Extra | null
}

/** Ways in that only a proxy which understands them has. */
export interface Extra {
  readonly https: boolean
  readonly wss: boolean
  /** Where the custom authorizer is asked; null for none. */
  readonly authorizerUrl: string | null
  /** Tokens must be signed. */
  readonly signedTokens: boolean
  readonly shareForSeconds: number | null
}

export const PLAIN: Setup = {
  trust: 'ca',
  policyStatements: 1,
  resumption: false,
  workers: 1,
  strictSni: false,
  graceSeconds: 0,
  reloads: false,
  extra: null,
}

export interface Job {
  readonly materials: Materials
  readonly setup: Setup
  readonly brokerPort: number
  readonly cores: readonly number[]
  /** A folder of its own. */
  readonly folder: string
}

export interface Ports {
  /** MQTT over TLS with a certificate. */
  readonly mqtt: number
  /** HTTPS publish with a certificate, as 8443. */
  readonly https: number
  /** As 443. */
  readonly web: number
}

export interface Peer {
  readonly name: string
  readonly version: string
  readonly ports: Ports
  readonly pid: number
  /** From the start of the process until it took a connection. */
  readonly startedMs: number
  readonly ended: Promise<void>
  /** Asks it to end its sessions within the grace of the setup, and itself. */
  drain(): void
  /** Makes it read its settings anew while it serves. */
  reload(): void
  stop(): Promise<void>
}

export interface PeerKind {
  readonly name: string
  /** For people: what it is and how it runs. */
  readonly about: string
  /** How to get it. */
  readonly comesWith: string
  /** Null when it is not on this machine. */
  version(): string | null
  /** Why it cannot do this, or null when it can. */
  cannot(setup: Setup): string | null
  start(job: Job): Promise<Peer>
}

const READY_WITHIN_MS = 20_000
const LOOK_EVERY_MS = 10
/** Below the range that clients' own ports come from, or a listener may find its port taken. */
const PORTS = { from: 20_000, to: 32_000 }

/** @throws with the end of its output when it ends or stays silent */
export async function untilReady(started: Started, ready: () => Promise<boolean>): Promise<void> {
  const until = performance.now() + READY_WITHIN_MS
  try {
    while (!(await Promise.race([ready(), started.failed]))) {
      if (performance.now() > until) throw new Error(`not ready in ${READY_WITHIN_MS} ms`)
      await sleep(LOOK_EVERY_MS)
    }
  } catch (error) {
    await started.stop()
    throw error
  }
}

export function isReady(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const request = get({ host: '127.0.0.1', port, path: '/readyz', timeout: 1_000, agent: false }, (response) => {
      response.resume()
      resolve(response.statusCode === 200)
    })
    request.on('timeout', () => request.destroy())
    request.on('error', () => resolve(false))
  })
}

export function accepts(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1', () => {
      socket.destroy()
      resolve(true)
    })
    socket.on('error', () => resolve(false))
  })
}

/** A relay on one port, once it takes connections. */
export async function relayPeer(
  { name, version }: Pick<PeerKind, 'name' | 'version'>,
  port: number,
  signals: { readonly drain: NodeJS.Signals; readonly reload: NodeJS.Signals | null },
  start: () => Started,
): Promise<Peer> {
  const from = performance.now()
  const started = start()
  await untilReady(started, () => accepts(port))
  return {
    name,
    version: version() ?? '',
    ports: { mqtt: port, https: 0, web: 0 },
    pid: started.pid,
    startedMs: performance.now() - from,
    ended: started.ended,
    drain() {
      started.mayEnd()
      started.signal(signals.drain)
    },
    reload() {
      if (signals.reload !== null) started.signal(signals.reload)
    },
    stop: started.stop,
  }
}

const given = new Set<number>()

/** Never the same twice. */
export async function freePort(): Promise<number> {
  for (let tries = 0; tries < 50; tries++) {
    const port = PORTS.from + Math.floor(Math.random() * (PORTS.to - PORTS.from))
    const free = await new Promise<boolean>((resolve) => {
      const server = createServer()
      server.once('error', () => resolve(false))
      server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)))
    })
    if (!free || given.has(port)) continue
    given.add(port)
    return port
  }
  throw new Error('no free port found')
}
