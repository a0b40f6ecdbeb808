import { connect, createSecureContext, type SecureContext, type TLSSocket } from 'node:tls'
import type { Pair } from '../peers/materials.ts'
import { type ConnectOptions, connectPacket, DISCONNECT, subscribePacket } from './packets.ts'

// A device: TLS, CONNECT, CONNACK, and then whatever a question asks of it.

const TIMEOUT_MS = 15_000

export interface Identity {
  readonly context: SecureContext
  readonly serverName: string
}

/** One way for everybody: TLS 1.3, X25519, AES-128-GCM. `issued` null: a device without a certificate. */
export function createIdentity(ca: string, serverName: string, issued: Pair | null): Identity {
  const context = createSecureContext({
    ca,
    ...(issued === null ? {} : { cert: issued.chainPem, key: issued.keyPem }),
    minVersion: 'TLSv1.3',
    maxVersion: 'TLSv1.3',
    ecdhCurve: 'X25519',
    ciphers: 'TLS_AES_128_GCM_SHA256',
  })
  return { context, serverName }
}

/** What a connection turned out to be; all peers must agree on it. */
export interface Facts {
  readonly protocol: string
  readonly cipher: string
  readonly resumed: boolean
}

export interface DeviceOptions extends ConnectOptions {
  readonly port: number
  readonly identity: Identity
  readonly clientId: string
  readonly alpn?: string
  /** A session to resume. */
  readonly session?: Buffer | undefined
  /** Spread over 127.0.0.0/8, since an address has 28,000 ports for one destination. */
  readonly localAddress?: string
  /** When it should have begun, milliseconds of `performance.now()`; from then on latency counts. */
  readonly dueMs?: number
  /** The newest ticket, as it comes. */
  readonly onSession?: (session: Buffer) => void
}

export interface Device {
  readonly clientId: string
  readonly socket: TLSSocket
  readonly facts: Facts
  /** From when it was due until CONNACK. */
  readonly ms: number
  /** Everything after CONNACK. */
  onData: (chunk: Buffer) => void
  /** Once, when the connection ends; from then on nothing comes. */
  onClose: () => void
  /** DISCONNECT; resolves when both sides are closed. */
  leave(): Promise<void>
  destroy(): void
}

/** Rejects when the answer is not a CONNACK that says yes. */
export function openDevice(options: DeviceOptions): Promise<Device> {
  const { port, identity, clientId } = options
  return new Promise((resolve, reject) => {
    const from = options.dueMs ?? performance.now()
    const socket = openTls(options)
    let failure: Error | null = null
    let device: { onData: (chunk: Buffer) => void; onClose: () => void } | null = null
    let received: Buffer | null = null
    const { promise: closed, resolve: onClosed } = Promise.withResolvers<void>()
    const timer = setTimeout(() => socket.destroy(new Error(`no answer in ${TIMEOUT_MS} ms`)), TIMEOUT_MS)
    if (options.onSession !== undefined) socket.on('session', options.onSession)
    let facts: Facts | null = null
    socket.once('secureConnect', () => {
      facts = {
        protocol: socket.getProtocol() ?? 'none',
        cipher: socket.getCipher().name,
        resumed: socket.isSessionReused(),
      }
      socket.write(connectPacket(clientId, options))
    })
    socket.on('data', (chunk: Buffer) => {
      if (device !== null) {
        device.onData(chunk)
        return
      }
      received = received === null ? chunk : Buffer.concat([received, chunk])
      if (received.length < 4 || received.length < 2 + received[1]!) return
      if (received[0] !== 0x20 || received[3] !== 0) {
        socket.destroy(new Error(`not a CONNACK that says yes: ${received.toString('hex', 0, 16)}`))
        return
      }
      clearTimeout(timer)
      const opened: Device = {
        clientId,
        socket,
        facts: facts!,
        ms: performance.now() - from,
        onData() {},
        onClose() {},
        leave() {
          socket.end(DISCONNECT)
          return closed
        },
        destroy: () => void socket.destroy(),
      }
      device = opened
      resolve(opened)
    })
    socket.on('error', (error) => {
      failure = error
    })
    socket.on('close', () => {
      clearTimeout(timer)
      onClosed()
      if (device === null) reject(failure ?? new Error(`closed before CONNACK (port ${port}, ${identity.serverName})`))
      else device.onClose()
    })
  })
}

export function openTls(
  options: Pick<DeviceOptions, 'port' | 'identity' | 'alpn' | 'session' | 'localAddress'>,
): TLSSocket {
  const { port, identity, alpn, session, localAddress } = options
  const socket = connect({
    host: '127.0.0.1',
    port,
    servername: identity.serverName,
    secureContext: identity.context,
    minVersion: 'TLSv1.3',
    ...(alpn !== undefined && { ALPNProtocols: [alpn] }),
    ...(session !== undefined && { session }),
    ...(localAddress !== undefined && { localAddress }),
  })
  socket.setNoDelay(true)
  return socket
}

/** Source address of the n-th of many connections. */
export function sourceAddress(index: number): string {
  return `127.0.0.${2 + (index % 8)}`
}

export function subscribed(device: Device, filter: string): Promise<void> {
  return new Promise((resolve, reject) => {
    device.onData = (chunk) => {
      if (chunk[0] === 0x90) resolve()
      else reject(new Error(`not a SUBACK: ${chunk.toString('hex', 0, 16)}`))
    }
    device.onClose = () => reject(new Error('closed before SUBACK'))
    device.socket.write(subscribePacket(filter))
  })
}
