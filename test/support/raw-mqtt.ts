import { once } from 'node:events'
import { connect as connectTls, type TLSSocket } from 'node:tls'
import mqttPacket, { type IConnectPacket, type Packet } from 'mqtt-packet'
import { ca, device } from './gateway.ts'
import type { Teardowns } from './proxy.ts'

/** A device that says exactly what a test wants, with mqtt-packet as the pen, and notes what it hears. */
export interface RawDevice {
  readonly socket: TLSSocket
  /** Every packet that came, in order. */
  readonly heard: Packet[]
  readonly closed: boolean
  say(packet: Packet | Buffer): void
  /** CONNECT, where it was to wait. */
  connect(): void
  /** The next packet of this kind that has not been asked for yet; rejects when the connection ends before. */
  hear(cmd: Packet['cmd'], ms?: number): Promise<Packet>
  /** Resolves when the other side has closed. */
  end(ms?: number): Promise<void>
}

export interface RawDeviceOptions {
  readonly port: number
  readonly version: 4 | 5
  readonly clientId?: string
  readonly certificate?: { readonly chainPem: string; readonly keyPem: string }
  readonly alpn?: string
  readonly servername?: string
  readonly connect?: Partial<IConnectPacket>
  /** CONNECT waits for `connect()`. */
  readonly silent?: boolean
}

/** TLS and CONNECT; does not wait for CONNACK. */
export async function rawDevice(t: Teardowns, options: RawDeviceOptions): Promise<RawDevice> {
  const { version, certificate = device } = options
  const socket = connectTls({
    host: '127.0.0.1',
    port: options.port,
    servername: options.servername ?? 'localhost',
    ca: ca.certPem,
    cert: certificate.chainPem,
    key: certificate.keyPem,
    ...(options.alpn !== undefined && { ALPNProtocols: [options.alpn] }),
  })
  t.teardown(() => socket.destroy())
  const heard: Packet[] = []
  const taken = new Set<Packet>()
  const parser = mqttPacket.parser({ protocolVersion: version })
  const listeners = new Set<() => void>()
  const tell = () => {
    for (const listener of [...listeners]) listener()
  }
  const state = { closed: false }
  parser.on('packet', (packet) => {
    heard.push(packet)
    tell()
  })
  socket.on('data', (chunk: Buffer) => parser.parse(chunk))
  socket.on('error', () => {})
  socket.on('close', () => {
    state.closed = true
    tell()
  })
  await once(socket, 'secureConnect')
  const say = (packet: Packet | Buffer): void => {
    socket.write(Buffer.isBuffer(packet) ? packet : mqttPacket.generate(packet, { protocolVersion: version }))
  }
  /** Looks again after each packet and at the end. */
  const until = <T>(look: () => T | undefined, what: string, ms: number): Promise<T> =>
    new Promise((resolve, reject) => {
      const again = () => {
        const found = look()
        if (found === undefined && !state.closed) return
        clearTimeout(timer)
        listeners.delete(again)
        if (found === undefined) reject(new Error(`closed before ${what}: ${JSON.stringify(heard)}`))
        else resolve(found)
      }
      const timer = setTimeout(() => {
        listeners.delete(again)
        reject(new Error(`no ${what} within ${ms} ms: ${JSON.stringify(heard)}`))
      }, ms)
      listeners.add(again)
      again()
    })
  const connect = () =>
    say({
      cmd: 'connect',
      protocolId: 'MQTT',
      protocolVersion: version,
      clean: true,
      clientId: options.clientId ?? `raw-${Math.random().toString(36).slice(2, 10)}`,
      keepalive: 60,
      ...options.connect,
    } as IConnectPacket)
  if (options.silent !== true) connect()
  return {
    socket,
    heard,
    get closed() {
      return state.closed
    },
    say,
    connect,
    async hear(cmd, ms = 5_000) {
      const packet = await until(() => heard.find((one) => one.cmd === cmd && !taken.has(one)), cmd, ms)
      taken.add(packet)
      return packet
    },
    end: (ms = 5_000) => until(() => (state.closed ? true : undefined), 'end', ms).then(() => {}),
  }
}
