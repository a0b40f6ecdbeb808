import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, readFileSync } from 'node:fs'
import { createServer, type Server, type Socket } from 'node:net'
import { type ConnectionOptions, connect as connectTls, type TLSSocket } from 'node:tls'
import mqtt, { type IClientOptions, type MqttClient } from 'mqtt'
import { createCa, type Issued, issueDevice, issueServer } from '../../src/cli/pki.ts'
import { folderFor, freePort, OPEN_POLICIES, type RunningProxy, startProxy, type Teardowns, write } from './proxy.ts'

export const ca = createCa({ commonName: 'e2e fleet' })
export const server = issueServer(ca, { serverNames: ['localhost'], ips: ['127.0.0.1'] })
export const device = issueDevice(ca, { commonName: 'device-1' })

export const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

/** Resolves with what `look` finds; rejects after `ms`. */
export async function eventually<T>(
  look: () => T | null | undefined | false | Promise<T | null | undefined | false>,
  what: string,
  ms = 20_000,
): Promise<T> {
  const deadline = Date.now() + ms
  for (;;) {
    const found = await look()
    if (found !== null && found !== undefined && found !== false) return found
    if (Date.now() > deadline) throw new Error(`${what}: not within ${ms} ms`)
    await sleep(50)
  }
}

export interface Door {
  readonly dir: string
  readonly proxy: RunningProxy
  readonly port: number
}

export interface DoorOptions {
  /** The backend's line; `kind: tcp` and so on. */
  readonly backend: string
  /** More of the listener, such as `proxyProtocol: { … }`. */
  readonly listener?: string
  readonly workers?: number
  readonly prefix?: string[]
  /** More files of the configuration's folder. */
  readonly files?: Readonly<Record<string, string>>
  readonly extra?: string
  /** More of the domain, such as `sessions: { … }`. */
  readonly domain?: string
}

/** The real program with one listener on 127.0.0.1, one domain `localhost` that trusts our CA, and one backend. */
export async function openDoor(t: Teardowns, options: DoorOptions): Promise<Door> {
  const dir = folderFor(t)
  const [port, metricsPort] = [await freePort(), await freePort()]
  write(dir, 'ca.pem', ca.certPem)
  write(dir, 'server.pem', server.chainPem)
  write(dir, 'server.key', server.keyPem)
  write(dir, 'registry/policies.yaml', OPEN_POLICIES)
  for (const [name, text] of Object.entries(options.files ?? {})) write(dir, name, text)
  const config = write(
    dir,
    'brokergate.yaml',
    `listeners: [ { bind: "127.0.0.1:${port}", as: 8883${options.listener === undefined ? '' : `, ${options.listener}`} } ]
domains:
  - serverNames: [ localhost ]
    certificates: [ { cert: server.pem, key: server.key } ]
    registry: main
    clientTrust: { mode: ca, ca: [ ca.pem ], policies: [ devices ] }
    backend: main
${options.domain === undefined ? '' : `    ${options.domain}`}
registries: { main: { path: registry } }
backends: { main: { ${options.backend} } }
metrics: { bind: "127.0.0.1:${metricsPort}" }
admin: { socket: admin.sock }
workers: ${options.workers ?? 1}
log: { format: json }
${options.extra ?? ''}
`,
  )
  const proxy = await startProxy(t, config, metricsPort, options.prefix === undefined ? {} : { prefix: options.prefix })
  return { dir, proxy, port }
}

/** A real Mosquitto with these lines of configuration, up when it resolves, gone after the test. */
export async function startMosquitto(t: Teardowns, dir: string, lines: string): Promise<{ log(): string }> {
  // Its standard output is kept back until it ends when it is no terminal; standard error is not.
  const common = 'user root\nlog_type all\nlog_dest stderr\npersistence false\n'
  const file = write(dir, 'mosquitto.conf', `${lines}\n${common}`)
  const child = spawn('mosquitto', ['-c', file], { stdio: ['ignore', 'ignore', 'pipe'] })
  let log = ''
  child.stderr.on('data', (chunk: Buffer) => {
    log += chunk.toString()
  })
  const exited = once(child, 'exit')
  t.teardown(async () => {
    child.kill('SIGKILL')
    await exited
  })
  await eventually(() => {
    if (child.exitCode !== null) throw new Error(`Mosquitto did not start\n${log}`)
    return /mosquitto version .* running/.test(log)
  }, 'Mosquitto')
  return { log: () => log }
}

/** An MQTT.js client over mutual TLS; ended after the test. */
export function mqttClient(t: Teardowns, port: number, options: Record<string, unknown> = {}) {
  const opening: Promise<MqttClient> = mqtt.connectAsync({
    protocol: 'mqtts',
    host: '127.0.0.1',
    port,
    ca: ca.certPem,
    cert: device.chainPem,
    key: device.keyPem,
    servername: 'localhost',
    reconnectPeriod: 0,
    protocolVersion: 4,
    clientId: `c-${Math.random().toString(36).slice(2)}`,
    ...options,
  } as IClientOptions)
  t.teardown(async () => {
    await opening.then((connected) => connected.endAsync(true)).catch(() => {})
  })
  return opening
}

const packet = (type: number, body: Buffer): Buffer => {
  const length = []
  let rest = body.length
  do {
    length.push((rest & 0x7f) | (rest > 0x7f ? 0x80 : 0))
    rest >>= 7
  } while (rest > 0)
  return Buffer.concat([Buffer.from([type, ...length]), body])
}
const text = (value: string): Buffer => {
  const bytes = Buffer.from(value)
  return Buffer.concat([Buffer.from([bytes.length >> 8, bytes.length & 0xff]), bytes])
}

/** MQTT 3.1.1, clean session, no keep alive. */
export const connectPacket = (clientId: string): Buffer =>
  packet(0x10, Buffer.concat([text('MQTT'), Buffer.from([4, 2, 0, 0]), text(clientId)]))
export const publishPacket = (topic: string, payload: Buffer): Buffer =>
  packet(0x30, Buffer.concat([text(topic), payload]))
export const PINGREQ = Buffer.from([0xc0, 0])
export const PINGRESP = Buffer.from([0xd0, 0])
export const CONNACK = Buffer.from([0x20, 2, 0, 0])
export const DISCONNECT = Buffer.from([0xe0, 0])

export interface Device {
  readonly socket: TLSSocket
  leave(): void
}

/** TLS, CONNECT, CONNACK with no client library: a few kilobytes a session. */
export function knock(
  port: number,
  clientId: string,
  options: { localAddress?: string; timeoutMs?: number; as?: Issued; servername?: string } = {},
): Promise<Device> {
  return new Promise((resolve, reject) => {
    const socket = connectTls({
      host: '127.0.0.1',
      port,
      servername: options.servername ?? 'localhost',
      ca: ca.certPem,
      cert: (options.as ?? device).chainPem,
      key: (options.as ?? device).keyPem,
      ...(options.localAddress !== undefined && { localAddress: options.localAddress }),
    } as ConnectionOptions)
    const timer = setTimeout(() => fail(new Error('no CONNACK in time')), options.timeoutMs ?? 30_000)
    const fail = (error: Error) => {
      clearTimeout(timer)
      socket.destroy()
      reject(error)
    }
    const onClose = () => fail(new Error('closed before CONNACK'))
    let got: Buffer = Buffer.alloc(0)
    const onData = (chunk: Buffer) => {
      got = Buffer.concat([got, chunk])
      if (got.length < CONNACK.length) return
      clearTimeout(timer)
      socket.off('data', onData)
      socket.off('close', onClose)
      socket.pause()
      if (got.length > CONNACK.length) socket.unshift(got.subarray(CONNACK.length))
      if (!got.subarray(0, 4).equals(CONNACK)) return fail(new Error(`CONNACK ${got.toString('hex')}`))
      resolve({
        socket,
        leave() {
          socket.on('data', () => {})
          socket.resume()
          socket.end(DISCONNECT)
        },
      })
    }
    socket.on('error', fail)
    socket.on('close', onClose)
    socket.on('data', onData)
    socket.once('secureConnect', () => socket.write(connectPacket(clientId)))
  })
}

export interface Sink {
  readonly port: number
  readonly live: ReadonlySet<Socket>
}

/**
 * The least broker there is: CONNACK, PINGRESP, and an end for an end. With `onSession` the connection is handed over
 * once CONNACK is written, with nothing listening to its data.
 */
export async function startSink(t: Teardowns, onSession?: (socket: Socket, clientId: string) => void): Promise<Sink> {
  const live = new Set<Socket>()
  const sink: Server = createServer({ noDelay: true }, (socket) => {
    live.add(socket)
    socket.on('close', () => live.delete(socket))
    socket.on('error', () => {})
    let got: Buffer = Buffer.alloc(0)
    let connected = false
    const onData = (chunk: Buffer) => {
      got = got.length === 0 ? chunk : Buffer.concat([got, chunk])
      // All packets of these tests' sessions are shorter than 128 bytes here, so that one byte is the length.
      while (got.length >= 2 && got.length >= 2 + got[1]!) {
        const type = got[0]! >> 4
        const body = got.subarray(2, 2 + got[1]!)
        got = got.subarray(2 + got[1]!)
        if (type === 1 && !connected) {
          connected = true
          socket.write(CONNACK)
          if (onSession === undefined) continue
          socket.off('data', onData)
          socket.pause()
          if (got.length > 0) socket.unshift(got)
          onSession(socket, body.subarray(12).toString())
          return
        }
        if (type === 12) socket.write(PINGRESP)
      }
    }
    socket.on('data', onData)
  })
  sink.listen({ port: 0, host: '127.0.0.1', backlog: 4_096 })
  await once(sink, 'listening')
  t.teardown(() => {
    for (const socket of live) socket.destroy()
    sink.close()
  })
  return { port: (sink.address() as { port: number }).port, live }
}

/** Resident memory of a process, in bytes. */
export const residentBytes = (pid: number): number =>
  Number(/^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]) * 1_024

export const openFiles = (pid: number): number => readdirSync(`/proc/${pid}/fd`).length

/** Processor time a process has used, in clock ticks of 10 ms. */
export function cpuTicks(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return Number(fields[11]) + Number(fields[12])
}
