import { connect, createSecureContext, type SecureContext } from 'node:tls'
import type { Issued } from '../../src/cli/pki.ts'

// Devices that connect, are answered, and go.

const OPERATION_TIMEOUT_MS = 5_000

export interface Device {
  readonly context: SecureContext
  readonly serverName: string
}

/** One way for everybody: TLS 1.3, X25519, AES-128-GCM. `identity` null: a device without a certificate. */
export function createDevice(ca: string, serverName: string, identity: Issued | null): Device {
  const context = createSecureContext({
    ca,
    ...(identity === null ? {} : { cert: identity.chainPem, key: identity.keyPem }),
    minVersion: 'TLSv1.3',
    maxVersion: 'TLSv1.3',
    ecdhCurve: 'X25519',
    ciphers: 'TLS_AES_128_GCM_SHA256',
  })
  return { context, serverName }
}

/** What a connection turned out to be; the two peers must agree on it. */
export interface Facts {
  readonly protocol: string
  readonly cipher: string
  readonly resumed: boolean
  /** NewSessionTicket messages that came. */
  readonly tickets: number
}

/** From the first SYN to both sides closed: handshake, CONNECT, CONNACK, DISCONNECT. Rejects on anything else. */
export function connectOnce(port: number, device: Device, clientId: string): Promise<{ ms: number; facts: Facts }> {
  return new Promise((resolve, reject) => {
    const from = performance.now()
    let answeredMs = -1
    let facts: Facts | null = null
    let tickets = 0
    // No `session`: each handshake is a full one.
    const socket = connect({
      host: '127.0.0.1',
      port,
      servername: device.serverName,
      secureContext: device.context,
      minVersion: 'TLSv1.3',
    })
    socket.setNoDelay(true)
    const timer = setTimeout(
      () => socket.destroy(new Error(`no answer in ${OPERATION_TIMEOUT_MS} ms`)),
      OPERATION_TIMEOUT_MS,
    )
    socket.on('session', () => {
      tickets++
    })
    socket.once('secureConnect', () => {
      facts = {
        protocol: socket.getProtocol() ?? 'none',
        cipher: socket.getCipher().name,
        resumed: socket.isSessionReused(),
        tickets: 0,
      }
      socket.write(connectPacket(clientId))
    })
    let received: Buffer = Buffer.alloc(0)
    socket.on('data', (chunk: Buffer) => {
      received = Buffer.concat([received, chunk])
      if (answeredMs >= 0 || received.length < 4) return
      if (received[0] !== 0x20 || received[3] !== 0) {
        socket.destroy(new Error(`not a CONNACK that says yes: ${received.toString('hex')}`))
        return
      }
      answeredMs = performance.now() - from
      socket.end(Buffer.of(0xe0, 0))
    })
    let failure: Error | null = null
    socket.on('error', (error) => {
      failure = error
    })
    socket.on('close', () => {
      clearTimeout(timer)
      if (answeredMs >= 0 && facts !== null) resolve({ ms: answeredMs, facts: { ...facts, tickets } })
      else reject(failure ?? new Error('closed before CONNACK'))
    })
  })
}

export interface LoadResult {
  readonly done: number
  readonly failed: number
  readonly firstFailure: string | null
  readonly seconds: number
  /** Time to CONNACK of each operation, sorted. */
  readonly latenciesMs: readonly number[]
  readonly facts: Facts | null
}

export interface LoadOptions {
  readonly port: number
  readonly device: Device
  readonly count: number
  readonly concurrency: number
  /** No operation begins later than this after the first. */
  readonly withinMs: number
}

/** A closed loop: so many devices at any time, until `count` or `withinMs`. */
export async function connectMany(options: LoadOptions): Promise<LoadResult> {
  const { port, device, count, concurrency, withinMs } = options
  const from = performance.now()
  const latenciesMs: number[] = []
  let begun = 0
  let failed = 0
  let firstFailure: string | null = null
  let facts: Facts | null = null
  await Promise.all(
    Array.from({ length: concurrency }, async () => {
      while (begun < count && performance.now() - from < withinMs) {
        const clientId = `device-${(begun++).toString().padStart(6, '0')}`
        try {
          const answer = await connectOnce(port, device, clientId)
          latenciesMs.push(answer.ms)
          facts = answer.facts
        } catch (error) {
          failed++
          firstFailure ??= error instanceof Error ? error.message : String(error)
        }
      }
    }),
  )
  const seconds = (performance.now() - from) / 1_000
  return {
    done: latenciesMs.length,
    failed,
    firstFailure,
    seconds,
    latenciesMs: latenciesMs.sort((a, b) => a - b),
    facts,
  }
}

/** MQTT 3.1.1, clean session, keep alive 60 s. */
function connectPacket(clientId: string): Buffer {
  const body = Buffer.concat([
    Buffer.from('00044d5154540402003c', 'hex'),
    Buffer.of(0, clientId.length),
    Buffer.from(clientId, 'latin1'),
  ])
  return Buffer.concat([Buffer.of(0x10, body.length), body])
}
