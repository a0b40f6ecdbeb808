import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import type { ExecutionContext } from 'ava'
import type { Credentials } from '../../src/auth/authenticator.ts'
import type { CloseReason, SecuredConnection, Serving, Trace } from '../../src/connection.ts'
import type { ProxyError } from '../../src/errors.ts'
import type { Answered } from '../../src/https/exchange.ts'
import { createForwarder } from '../../src/https/forward.ts'
import { type HttpsHandler, httpsHandler } from '../../src/https/front.ts'
import type { HttpLimits, Timer } from '../../src/https/limits.ts'
import type { FrontParts } from '../../src/https/parts.ts'
import { publishLimits } from '../../src/https/publish.ts'
import { OPEN_RULES } from '../../src/mqtt/limits.ts'
import { OPEN_PERMIT } from '../../src/policy/permit.ts'
import { ADMISSIONS, type Admission, explicitAdmissions } from '../../src/tls/admission.ts'
import { authenticatedAs } from '../support/identity.ts'

export const LIMITS: HttpLimits = {
  headerTimeoutMs: 10_000,
  bodyTimeoutMs: 30_000,
  idleTimeoutMs: 60_000,
  headerBytes: 16_384,
  headers: 100,
  bodyBytes: 1_048_576,
}

/** The rows that a ClientHello leaves open. */
export const OPEN_443 = ADMISSIONS.filter((row) => row.port === 443 && row.alpn === null)
export const X509_8443 = ADMISSIONS.filter((row) => row.port === 8443)
export const explicit = (...pair: Parameters<typeof explicitAdmissions>): readonly Admission[] =>
  explicitAdmissions(...pair).filter((row) => row.port === 443)

/** Deadlines that fire when the test says so. */
export class ManualTimer {
  readonly pending: { readonly ms: number; run(): void }[] = []
  readonly timer: Timer = (run, ms) => {
    const entry = { ms, run }
    this.pending.push(entry)
    return () => {
      const at = this.pending.indexOf(entry)
      if (at >= 0) this.pending.splice(at, 1)
    }
  }
  /** Fires the timers of about this length. */
  fire(ms: number): number {
    const due = this.pending.filter((entry) => Math.abs(entry.ms - ms) < 500)
    for (const entry of due) {
      this.pending.splice(this.pending.indexOf(entry), 1)
      entry.run()
    }
    return due.length
  }
}

export interface Harness {
  readonly handler: HttpsHandler
  /** Topics in the order in which they were published. */
  readonly published: string[]
  readonly identified: Credentials[]
  readonly answered: Answered[]
  readonly traces: Trace[]
  /** How each connection ended, as the proxy would see it. */
  readonly endings: Promise<CloseReason | ProxyError>[]
  connect(): Promise<Device>
  readonly closing: AbortController
}

export interface Setup {
  readonly rows?: readonly Admission[]
  readonly parts?: Partial<FrontParts>
  readonly limits?: Partial<HttpLimits>
  readonly timer?: Timer
  readonly serverNames?: readonly string[]
}

/** The front behind plain sockets: TLS is not its business, so none is in the way. */
export async function front(t: ExecutionContext, setup: Setup = {}): Promise<Harness> {
  const published: string[] = []
  const identified: Credentials[] = []
  const answered: Answered[] = []
  const traces: Trace[] = []
  const endings: Promise<CloseReason | ProxyError>[] = []
  const closing = new AbortController()
  const parts: FrontParts = {
    limits: { ...LIMITS, ...setup.limits },
    ...(setup.timer && { timer: setup.timer }),
    async identify(_connection, credentials, trace) {
      identified.push(credentials)
      trace.principal = 'device-1'
      return authenticatedAs({ id: 'device-1', method: credentials.kind, attributes: {} })
    },
    presentsSigV4: ({ target, rawHeaders }) =>
      target.includes('X-Amz-Signature=') || rawHeaders.some((text) => text.startsWith('AWS4-HMAC-SHA256')),
    presentsCustom: ({ rawHeaders, target }, names) =>
      [...rawHeaders, target].some((text) =>
        ['x-amz-customauthorizer-name', ...names].some((name) => text.toLowerCase().includes(name)),
      ),
    tokenKeyNames: () => ['token'],
    hasDefaultAuthorizer: () => true,
    permitFor: () => OPEN_PERMIT,
    publishLimits: () => publishLimits(OPEN_RULES),
    publisher: () => ({
      async publish({ topic }) {
        published.push(topic)
      },
      close: async () => {},
    }),
    websocket: () => ({ kind: 'refused', code: 'ERR_SUBPROTOCOL', detail: 'none here' }),
    serveMqtt: async () => serving('downstream'),
    routes: () => [],
    httpBackend: (name) => {
      throw new Error(`no backend ${name}`)
    },
    forwarder: await createForwarder(),
    answered: (_connection, each) => answered.push(each),
    ...setup.parts,
  }
  const handler = httpsHandler(parts)
  const rows = setup.rows ?? OPEN_443
  const serverNames = setup.serverNames ?? ['a.example']
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on('error', () => {})
    const trace = { requests: 0, connectedMs: null, principal: null } as Trace
    traces.push(trace)
    const connection = {
      id: 'c-1',
      tls: socket,
      socket,
      domain: { name: serverNames[0], serverNames },
      admissions: rows,
      peer: null,
      remoteAddress: '192.0.2.7',
      remotePort: 40_000,
      port: rows[0]?.port ?? 443,
      acceptedAt: performance.now(),
      securedAt: performance.now(),
    } as unknown as SecuredConnection
    endings.push(handler.serve(connection, trace, closing.signal).then(({ over }) => over))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const devices = new Set<Socket>()
  t.teardown(() => {
    server.close()
    for (const device of devices) device.destroy()
  })
  return {
    handler,
    published,
    identified,
    answered,
    traces,
    endings,
    closing,
    async connect() {
      const socket = connect(port, '127.0.0.1')
      devices.add(socket)
      const device = new Device(socket)
      await once(socket, 'connect')
      return device
    },
  }
}

export interface RawAnswer {
  readonly status: number
  readonly headers: ReadonlyMap<string, string>
  readonly body: string
}

/** A client that says exactly what it is told, and reads answers by their length. */
export class Device {
  readonly socket: Socket
  text = ''
  readonly closed: Promise<void>
  constructor(socket: Socket) {
    this.socket = socket
    socket.on('error', () => {})
    socket.on('data', (chunk: Buffer) => {
      this.text += chunk.toString('latin1')
    })
    this.closed = new Promise((resolve) => {
      socket.once('end', resolve)
      socket.once('close', () => resolve())
    })
  }

  send(text: string | Uint8Array): void {
    this.socket.write(typeof text === 'string' ? Buffer.from(text, 'latin1') : text)
  }

  /** The next whole answer. */
  async answer(): Promise<RawAnswer> {
    for (;;) {
      const end = this.text.indexOf('\r\n\r\n')
      if (end >= 0) {
        const [line, ...lines] = this.text.slice(0, end).split('\r\n')
        const headers = new Map(
          lines.map(
            (each) =>
              [each.slice(0, each.indexOf(':')).toLowerCase(), each.slice(each.indexOf(':') + 1).trim()] as const,
          ),
        )
        const status = Number(line!.split(' ')[1])
        const length =
          status === 100 || status === 101 || status === 204 ? 0 : Number(headers.get('content-length') ?? Number.NaN)
        if (Number.isNaN(length)) {
          await this.closed
          const body = this.text.slice(end + 4)
          this.text = ''
          return { status, headers, body }
        }
        if (this.text.length >= end + 4 + length) {
          const body = this.text.slice(end + 4, end + 4 + length)
          this.text = this.text.slice(end + 4 + length)
          return { status, headers, body }
        }
      }
      const before = this.text.length
      await Promise.race([once(this.socket, 'data'), this.closed])
      if (this.text.length === before) throw new Error(`closed after ${JSON.stringify(this.text)}`)
    }
  }
}

export const post = (topic: string, headers = '', body = 'hi'): string =>
  `POST /topics/${topic} HTTP/1.1\r\nHost: a.example\r\n${headers}Content-Length: ${body.length}\r\n\r\n${body}`

/** What has ended before anybody could wait for it. */
export const serving = (reason: CloseReason): Serving => ({ over: Promise.resolve(reason) })
