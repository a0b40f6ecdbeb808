import { constants } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { createSecureContext, type SecureContext } from 'node:tls'

// The least that a relay can be on Bun: mutual TLS, a connection to the broker, bytes both ways. No timeout, no
// backpressure, nothing looked at, counted or logged. What it costs is what the runtime costs; see bare.ts.

const [port, broker, certificate, key, ca, ...words] = process.argv.slice(2)

interface Raw {
  data: Side | undefined
  readonly authorized: boolean
  write(chunk: Uint8Array): number
  shutdown(): void
  close(): void
  upgradeTLS(options: object): readonly [raw: Raw, tls: Raw]
}

/** What both sockets of a session have for `data`. */
interface Side {
  device: Raw | null
  broker: Raw | null
  /** What the device said before the broker's connection was there; null: nothing was said yet. */
  waiting: Uint8Array[] | null
}

interface Bun {
  listen(options: object): unknown
  connect(options: object): Promise<unknown>
}
const { Bun } = globalThis as unknown as { readonly Bun: Bun }

const { context } = createSecureContext({
  cert: readFileSync(certificate!),
  key: readFileSync(key!),
  ca: readFileSync(ca!),
  minVersion: 'TLSv1.2',
  ...(words.includes('tickets') ? { sessionIdContext: 'bare' } : { secureOptions: constants.SSL_OP_NO_TICKET }),
}) as SecureContext & { readonly context: unknown }

const nothing = (): void => {}
const REST = { binaryType: 'buffer', open: nothing, error: nothing, drain: nothing }

const BROKER = {
  ...REST,
  open(socket: Raw) {
    const side = socket.data!
    side.broker = socket
    for (const chunk of side.waiting!) socket.write(chunk)
  },
  data: ({ data }: Raw, chunk: Uint8Array) => void data!.device?.write(chunk),
  end(socket: Raw) {
    socket.data!.device?.shutdown()
    socket.close()
  },
  close: ({ data }: Raw) => data!.device?.close(),
  connectError: ({ data }: Raw) => data!.device?.close(),
}

const DEVICE = {
  ...REST,
  handshake(socket: Raw) {
    if (!socket.authorized) socket.close()
  },
  data({ data: side }: Raw, chunk: Uint8Array) {
    if (side!.broker !== null) return void side!.broker.write(chunk)
    if (side!.waiting !== null) return void side!.waiting.push(chunk)
    side!.waiting = [chunk]
    Bun.connect({ hostname: '127.0.0.1', port: Number(broker), allowHalfOpen: true, data: side, socket: BROKER }).catch(
      nothing,
    )
  },
  end(socket: Raw) {
    socket.data!.broker?.shutdown()
    socket.close()
  },
  close({ data }: Raw) {
    data!.device = null
    data!.broker?.close()
  },
}

const ACCEPTED = {
  ...REST,
  data(socket: Raw, chunk: Uint8Array) {
    const side: Side = { device: null, broker: null, waiting: null }
    const tls = { secureContext: context, requestCert: true, rejectUnauthorized: false }
    const [raw, device] = socket.upgradeTLS({ data: side, socket: DEVICE, isServer: true, initialData: chunk, tls })
    raw.data = undefined
    side.device = device
  },
  end: (socket: Raw) => socket.close(),
  close: nothing,
}

/** unrecognized_name, and the end; whatever was said. RFC 8446 §6. */
const ALERT = Buffer.from([0x15, 3, 3, 0, 2, 2, 112])

const REFUSED = {
  ...REST,
  data(socket: Raw) {
    socket.write(ALERT)
    socket.shutdown()
  },
  end: (socket: Raw) => socket.close(),
  close: nothing,
}

Bun.listen({
  hostname: '127.0.0.1',
  port: Number(port),
  allowHalfOpen: true,
  socket: words.includes('refuse') ? REFUSED : ACCEPTED,
})
